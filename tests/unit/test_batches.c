/* PublishBatch calls against a store that answers when the test says so. */
#include "dispatcher/service/batches.h"

#include "common/base/err.h"
#include "dispatcher/api/items.h"
#include "dispatcher/api/table.h"
#include "dispatcher/service/service.h"
#include "tests/unit/fakestore.h"
#include "tests/unit/loop_fixture.h"
#include "tests/unit/nodes_fixture.h"

#include <stdio.h>

#define CALLS_MAX 8
#define ITEMS_MAX 8

static struct rule some_rules[] = {
	{.pattern = "emoji", .priority = PRIORITY_DROPPABLE},
	{.pattern = "*",
	 .priority = PRIORITY_NORMAL,
	 .history_size = 100,
	 .history_ttl_ms = 60000},
};

static const struct metric_desc durations[] = {
	{.name = "publish_seconds",
	 .type = METRIC_HISTOGRAM,
	 .help = "Of calls."},
};

struct fixture {
	struct loop_fixture *l;
	struct nodes_fixture *n;
	struct rules rules;
	struct publisher publisher;
	struct access_control access;
	struct metrics metrics;
	struct publisher_service service;
	struct fakestore store;
	struct rpc_service services[2];
	struct rpc_table table;
	struct rpc_peer *peers[2];
	struct ended_call {
		struct rpc_call call;
		bool ended, answered;
		enum grpc_code code;
	} calls[CALLS_MAX];
	unsigned count;
};

static void on_send_encoded(struct rpc_call *call, const struct buf *m UNUSED)
{
	container_of(call, struct ended_call, call)->answered = true;
}

static void on_finish(struct rpc_call *call, enum grpc_code code,
		      const char *text UNUSED)
{
	struct ended_call *c = container_of(call, struct ended_call, call);

	assert_false(c->ended);
	c->ended = true;
	c->code = code;
}

static const struct rpc_front_ops front = {
	.send_encoded = on_send_encoded,
	.finish = on_finish,
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct publish_store store = fakestore_publish(&f->store);
	const struct publish_calls calls = {
		.publisher = &f->publisher,
		.access = &f->access,
		.metrics = &f->metrics,
	};
	const struct batches_limits limits = {
		.bytes_max = 1u << 20,
		.pending_max = 1,
	};

	loop_setup((void **)&f->l);
	nodes_set_up((void **)&f->n);
	fakestore_init(&f->store);
	f->rules = (struct rules){.rule = some_rules, .count = 2};
	metrics_init(&f->metrics, durations, array_len(durations), NULL);
	publisher_init(&f->publisher, &f->n->nodes, &f->rules, 1000, &store);
	f->publisher.open = true;
	publisher_service_init(&f->service, &f->l->loop, &calls, &limits);
	f->services[0] = publisher_service(&f->service);
	rpc_table_init(&f->table, f->services);
	for (unsigned i = 0; i < array_len(f->peers); i++)
		f->peers[i] = rpc_peer_new();
	*state = f;
	return 0;
}

/* Every call has ended, exactly once, and nothing is held any more. */
static int tear_down(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < f->count; i++)
		assert_true(f->calls[i].ended);
	assert_int_equal(f->service.batches.pending, 0);
	for (unsigned i = 0; i < array_len(f->peers); i++)
		rpc_peer_release(f->peers[i]);
	publisher_service_close(&f->service);
	publisher_service_fini(&f->service);
	publisher_fini(&f->publisher);
	metrics_fini(&f->metrics, NULL);
	rpc_table_fini(&f->table);
	nodes_tear_down((void **)&f->n);
	assert_int_equal(loop_teardown((void **)&f->l), 0);
	free(f);
	return 0;
}

/* Messages of the channel; mixed: every other one of "emoji" instead. */
static struct items *request_of(unsigned channel, unsigned count, bool mixed)
{
	const struct items_request r = {
		.input = &stentor__v1__publish_batch_request__descriptor,
		.output = &stentor__v1__publish_batch_response__descriptor,
		.codec = CODEC_PROTO,
		.max = 1u << 20,
	};
	Stentor__V1__PublishBatchRequest m;
	Stentor__V1__PublishRequest q, emoji, *list[ITEMS_MAX];
	uint8_t bytes[1000];
	char name[8];

	snprintf(name, sizeof(name), "%u", channel);
	stentor__v1__publish_request__init(&q);
	q.channel = name;
	q.data = (char *)"x";
	emoji = q;
	emoji.channel = (char *)"emoji";
	for (unsigned i = 0; i < count; i++)
		list[i] = mixed && i % 2 != 0 ? &emoji : &q;
	stentor__v1__publish_batch_request__init(&m);
	m.n_messages = count;
	m.messages = list;
	return items_new(&r, bytes,
			 stentor__v1__publish_batch_request__pack(&m, bytes));
}

static struct ended_call *begin(struct fixture *f, unsigned peer,
				unsigned count, bool mixed)
{
	static const char path[] = "/stentor.v1.PublisherService/PublishBatch";
	struct ended_call *c = &f->calls[f->count];

	rpc_begin(&c->call, rpc_table_find(&f->table, path, strlen(path)), NULL,
		  f->peers[peer], &front);
	c->call.method->on_list(&c->call, request_of(f->count++, count, mixed));
	return c;
}

/* A call of so many messages, on the channel of its number. */
static struct ended_call *call(struct fixture *f, unsigned peer, unsigned count)
{
	return begin(f, peer, count, false);
}

/* Turns of the loop, until every batch waits for the store. */
static void settle(struct fixture *f)
{
	loop_until(f->l, list_empty(&f->service.batches.turns));
}

static unsigned length(const struct list *of)
{
	unsigned count = 0;

	list_for_each (node, of)
		count++;
	return count;
}

/* The store is done with one, and with what follows of it. Which channels they
 * were of, in order; until the store has nothing more to do. */
static void serve(struct fixture *f, const char *channels)
{
	settle(f);
	for (; *channels != '\0'; channels++) {
		struct store_append *a = fakestore_next(&f->store);

		assert_non_null(a);
		assert_int_equal(a->channel[0], *channels);
		fakestore_appended(&f->store, 0);
		settle(f);
	}
}

/* One place in the store is for one batch: the others sleep on, and each has
 * its turn. */
static void test_batches_stand_in_line(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 4; i++)
		call(f, 0, 3);
	settle(f);
	assert_int_equal(f->service.batches.pending, 1);
	assert_int_equal(length(&f->peers[0]->stalled), 4);
	fakestore_appended(&f->store, 0);
	assert_int_equal(length(&f->peers[0]->batches), 1);
	assert_int_equal(length(&f->peers[0]->stalled), 3);
	serve(f, "0"
		 "123"
		 "0123"
		 "123");
	for (unsigned i = 0; i < 4; i++) {
		assert_true(f->calls[i].answered);
		assert_int_equal(f->calls[i].code, GRPC_OK);
	}
	assert_int_equal(f->store.submitted, 12);
}

/* However many batches one of them has. */
static void test_batches_connections_take_turns(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 3; i++) {
		call(f, 0, 2);
		settle(f);
	}
	call(f, 1, 2);
	serve(f, "0"
		 "0313"
		 "212");
}

/* The first one leaves some of it: the next one comes after it, though nothing
 * more happens in the store. */
static void test_batches_share_the_room(void **state)
{
	struct fixture *f = *state;

	f->service.batches.limits.pending_max = 4;
	call(f, 0, 4);
	settle(f);
	for (unsigned i = 0; i < 3; i++)
		call(f, 0, 1);
	settle(f);
	assert_int_equal(length(&f->peers[0]->stalled), 3);
	for (unsigned i = 0; i < 4; i++)
		fakestore_appended(&f->store, 0);
	/* The first call's, to be answered, and one that stood in line. */
	assert_true(length(&f->peers[0]->batches) <= 2);
	settle(f);
	assert_true(f->calls[0].answered);
	assert_int_equal(f->service.batches.pending, 3);
	serve(f, "123");
}

/* What the store has refused is not waited for, and the line goes on. */
static void test_batches_abandoned(void **state)
{
	struct fixture *f = *state;

	call(f, 0, 3);
	call(f, 0, 1);
	settle(f);
	fakestore_appended(&f->store, ERR_UNAVAILABLE);
	settle(f);
	assert_int_equal(f->calls[0].code, GRPC_UNAVAILABLE);
	assert_false(f->calls[0].answered);
	assert_int_equal(f->publisher.total[PRIORITY_NORMAL][GRPC_UNAVAILABLE],
			 3);
	serve(f, "1");
}

/* What the store does not keep goes its way, whether that is known to be away
 * or has not answered; and so the call has results. */
static void test_batches_abandoned_but_for_others(void **state)
{
	struct fixture *f = *state;
	const uint64_t *total = f->publisher.total[PRIORITY_NORMAL];
	struct ended_call *c;

	f->store.fault = "down";
	c = begin(f, 0, 4, true);
	settle(f);
	assert_true(c->answered);
	assert_int_equal(f->store.submitted, 0);
	assert_int_equal(total[GRPC_UNAVAILABLE], 2);
	assert_int_equal(f->publisher.total[PRIORITY_DROPPABLE][GRPC_OK], 2);
	f->store.fault = NULL;
	c = begin(f, 0, 4, true);
	settle(f);
	fakestore_appended(&f->store, ERR_UNAVAILABLE);
	settle(f);
	assert_true(c->answered);
	assert_int_equal(f->store.submitted, 1);
	assert_int_equal(total[GRPC_UNAVAILABLE], 4);
	assert_int_equal(f->publisher.total[PRIORITY_DROPPABLE][GRPC_OK], 4);
}

/* Nobody waits for the answer: what the store has comes back, all else is free
 * at once, and is neither counted as refused nor answered. */
static void test_batches_given_up(void **state)
{
	struct fixture *f = *state;
	struct ended_call *c;

	f->service.batches.limits.pending_max = 2;
	c = call(f, 0, 5);
	settle(f);
	assert_int_equal(f->service.batches.messages, 5);
	rpc_cancel(&c->call, GRPC_CANCELLED);
	settle(f);
	assert_false(c->ended);
	assert_int_equal(f->service.batches.messages, 2);
	assert_int_equal(f->service.batches.bytes, 0);
	fakestore_appended(&f->store, 0);
	assert_true(list_empty(&f->service.batches.turns));
	fakestore_appended(&f->store, ERR_UNAVAILABLE);
	settle(f);
	assert_true(c->ended);
	assert_false(c->answered);
	assert_int_equal(c->code, GRPC_CANCELLED);
	assert_int_equal(f->store.submitted, 2);
	assert_int_equal(f->publisher.total[PRIORITY_NORMAL][GRPC_UNAVAILABLE],
			 1);
}

/* One that stands in line leaves it, and one that is not looked at yet. */
static void test_batches_given_up_in_line(void **state)
{
	struct fixture *f = *state;
	struct ended_call *c;

	call(f, 0, 1);
	settle(f);
	c = call(f, 1, 2);
	settle(f);
	call(f, 0, 1);
	settle(f);
	rpc_cancel(&c->call, GRPC_CANCELLED);
	c = call(f, 1, 1);
	rpc_cancel(&c->call, GRPC_CANCELLED);
	settle(f);
	assert_true(f->calls[1].ended);
	assert_true(f->calls[3].ended);
	assert_int_equal(f->store.submitted, 1);
	serve(f, "02");
	assert_int_equal(f->publisher.total[PRIORITY_NORMAL][GRPC_UNAVAILABLE],
			 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_batches_stand_in_line),
		TEST(test_batches_connections_take_turns),
		TEST(test_batches_share_the_room),
		TEST(test_batches_abandoned),
		TEST(test_batches_abandoned_but_for_others),
		TEST(test_batches_given_up),
		TEST(test_batches_given_up_in_line),
	};

	return cmocka_run_group_tests_name("batches", tests, NULL, NULL);
}

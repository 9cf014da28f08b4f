#include "dispatcher/publish.h"

#include "tests/unit/nodes_fixture.h"

#define DATA_MAX 1000

static struct rule some_rules[] = {
	{.pattern = "critical:*", .priority = PRIORITY_CRITICAL},
	{.pattern = "emoji:*", .priority = PRIORITY_DROPPABLE},
	{.pattern = "*", .priority = PRIORITY_NORMAL},
};
static const struct rules rules = {.rule = some_rules, .count = 3};

struct fixture {
	struct nodes_fixture *n;
	struct publisher p;
	Stentor__V1__PublishRequest q;
	struct publish_result r;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	nodes_set_up((void **)&f->n);
	publisher_init(&f->p, &f->n->nodes, &rules, DATA_MAX);
	f->p.open = true;
	stentor__v1__publish_request__init(&f->q);
	f->q.channel = (char *)"a";
	f->q.data = (char *)"text";
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	nodes_tear_down((void **)&f->n);
	free(f);
	return 0;
}

static enum grpc_code publish(struct fixture *f)
{
	publish_message(&f->p, &f->q, 1700000000000000u, &f->r);
	return f->r.code;
}

/* Refused with a text that names the field. */
static void assert_refused(struct fixture *f, enum grpc_code code,
			   const char *text)
{
	uint64_t accepted = f->p.accepted;

	assert_int_equal(publish(f), code);
	if (strncmp(f->r.error, text, strlen(text)) != 0)
		fail_msg("\"%s\" does not begin with \"%s\"", f->r.error, text);
	assert_string_equal(f->r.message_id, "");
	assert_int_equal(f->r.nodes, 0);
	assert_int_equal(f->p.accepted, accepted);
}

static void test_publish_validates(void **state)
{
	struct fixture *f = *state;
	char data[DATA_MAX + 2];

	f->q.channel = (char *)"";
	assert_refused(f, GRPC_INVALID_ARGUMENT,
		       "channel: must be 1 to 128 bytes of [A-Z");
	f->q.channel = (char *)"a b";
	assert_refused(f, GRPC_INVALID_ARGUMENT, "channel: ");
	f->q.channel = (char *)"a";
	memset(data, 'x', sizeof(data));
	data[DATA_MAX + 1] = '\0';
	f->q.data = data;
	assert_refused(f, GRPC_INVALID_ARGUMENT,
		       "data: 1001 bytes, the limit is 1000");
	data[DATA_MAX] = '\0';
	assert_int_equal(publish(f), GRPC_OK);
	f->q.event = (char *)"stentor.ready";
	assert_refused(f, GRPC_INVALID_ARGUMENT, "event: ");
	f->q.event = (char *)"a\nb";
	assert_refused(f, GRPC_INVALID_ARGUMENT, "event: ");
	f->q.event = (char *)"ball";
	f->q.priority = 4;
	assert_refused(f, GRPC_INVALID_ARGUMENT, "priority: unknown value 4");
	f->q.priority = (Stentor__V1__Priority)-1;
	assert_refused(f, GRPC_INVALID_ARGUMENT, "priority: unknown value -1");
	f->q.priority = 0;
	assert_int_equal(f->p.total[PRIORITY_NORMAL][GRPC_INVALID_ARGUMENT], 7);
	assert_int_equal(f->p.total[PRIORITY_NORMAL][GRPC_OK], 1);
}

static void test_publish_refuses_what_it_cannot(void **state)
{
	struct fixture *f = *state;

	f->q.idempotency_key = (char *)"k";
	assert_refused(f, GRPC_UNIMPLEMENTED, "idempotency_key: ");
	f->q.idempotency_key = (char *)"";
	f->q.conflation_key = (char *)"k";
	assert_refused(f, GRPC_UNIMPLEMENTED, "conflation_key: ");
	f->q.conflation_key = (char *)"";
	f->q.ttl_ms = 1;
	assert_refused(f, GRPC_UNIMPLEMENTED, "ttl_ms: ");
	f->q.ttl_ms = 0;
	f->q.want_receipt = true;
	assert_refused(f, GRPC_UNIMPLEMENTED, "want_receipt: ");
	f->q.want_receipt = false;
	f->p.open = false;
	assert_refused(f, GRPC_UNAVAILABLE, "the dispatcher is still learning");
}

static void test_publish_reaches_the_interested(void **state)
{
	struct fixture *f = *state;
	struct node_worker *one = add_worker(f->n, "n", 0, 11, "a");
	const LinkDelivery *d;
	char id[PUBLISH_ID_SIZE];

	add_worker(f->n, "n", 1, 12, "a");
	add_worker(f->n, "m", 0, 13, "a");
	add_worker(f->n, "o", 0, 14, "b");
	f->q.event = (char *)"ball";
	f->q.priority = STENTOR__V1__PRIORITY__PRIORITY_DROPPABLE;
	assert_int_equal(publish(f), GRPC_OK);
	assert_int_equal(f->r.nodes, 2); /* of two nodes, three workers */
	assert_string_equal(f->r.error, "");
	assert_int_equal(f->p.routed, 3);
	assert_int_equal(one->queue.held[PRIORITY_DROPPABLE].frames, 1);
	memcpy(id, f->r.message_id, sizeof(id));
	nodes_flush(&f->n->nodes, 2000);
	assert_int_equal(f->n->sent.count, 3);
	d = sent_decode(&f->n->sent, 0)->deliveries[0];
	assert_string_equal(d->channel, "a");
	assert_string_equal(d->event, "ball");
	assert_memory_equal(d->data.data, "text", 4);
	assert_int_equal(d->data.len, 4);
	assert_int_equal(d->published_us, 1700000000000000u);
	assert_int_equal(d->message, 1);
	assert_int_equal(d->priority,
			 STENTOR__V1__PRIORITY__PRIORITY_DROPPABLE);
	f->q.channel = (char *)"nobody";
	assert_int_equal(publish(f), GRPC_OK);
	assert_int_equal(f->r.nodes, 0);
	assert_string_not_equal(f->r.message_id, id);
	assert_int_equal(f->p.fanout[0], 1); /* nobody */
	assert_int_equal(f->p.fanout[3], 1); /* up to four */
	assert_int_equal(f->p.fanout_sum, 3);
}

static void test_publish_priorities(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, "emoji:1");

	/* The lane is the channel's, whatever the request says. */
	f->q.channel = (char *)"emoji:1";
	assert_int_equal(publish(f), GRPC_OK);
	f->q.priority = STENTOR__V1__PRIORITY__PRIORITY_CRITICAL;
	assert_int_equal(publish(f), GRPC_OK);
	assert_int_equal(w->queue.lanes[PRIORITY_DROPPABLE].frames, 2);
	assert_int_equal(w->queue.held[PRIORITY_DROPPABLE].frames, 1);
	assert_int_equal(w->queue.held[PRIORITY_CRITICAL].frames, 1);
	assert_int_equal(f->p.total[PRIORITY_DROPPABLE][GRPC_OK], 2);
}

static void test_publish_full_queues(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, "critical:1");
	struct node_worker *other = add_worker(f->n, "m", 0, 12, "critical:1");
	struct linkq_sum full = {2, 2u << 20};

	w->queue.max = full;
	f->q.channel = (char *)"critical:1";
	assert_int_equal(publish(f), GRPC_OK);
	assert_int_equal(publish(f), GRPC_OK);
	assert_int_equal(other->queue.all.frames, 2);
	/* Refused as a whole: the other worker does not get it either. */
	assert_refused(f, GRPC_UNAVAILABLE,
		       "a connection node's queue is full");
	assert_int_equal(other->queue.all.frames, 2);
	assert_int_equal(w->queue.all.frames, 2);
	assert_int_equal(linkq_drops_total(linkq_drops(&w->queue)), 0);
	/* A droppable one is accepted and goes where there is room. */
	f->q.priority = STENTOR__V1__PRIORITY__PRIORITY_DROPPABLE;
	assert_int_equal(publish(f), GRPC_OK);
	assert_int_equal(f->r.nodes, 1);
	assert_int_equal(other->queue.all.frames, 3);
	assert_int_equal(
		w->queue.drops.messages[PRIORITY_DROPPABLE][LINKQ_REFUSED], 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_publish_validates),
		TEST(test_publish_refuses_what_it_cannot),
		TEST(test_publish_reaches_the_interested),
		TEST(test_publish_priorities),
		TEST(test_publish_full_queues),
	};

	return cmocka_run_group_tests_name("publish", tests, NULL, NULL);
}

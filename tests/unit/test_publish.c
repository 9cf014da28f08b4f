#include "dispatcher/publish/publish.h"

#include "common/base/err.h"
#include "tests/unit/nodes_fixture.h"

#include "tests/unit/fakestore.h"

#define DATA_MAX 1000

static struct rule some_rules[] = {
	{.pattern = "critical:*", .priority = PRIORITY_CRITICAL},
	{.pattern = "emoji:*", .priority = PRIORITY_DROPPABLE},
	{.pattern = "score:*",
	 .priority = PRIORITY_NORMAL,
	 .history_size = 100,
	 .history_ttl_ms = 60000},
	{.pattern = "*", .priority = PRIORITY_NORMAL},
};
static const struct rules rules = {.rule = some_rules, .count = 4};

struct fixture {
	struct nodes_fixture *n;
	struct publisher p;
	struct fakestore store;
	Stentor__V1__PublishRequest q;
	struct publish_result r;
	unsigned answers; /* that came later */
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct publish_store store = fakestore_publish(&f->store);

	nodes_set_up((void **)&f->n);
	fakestore_init(&f->store);
	publisher_init(&f->p, &f->n->nodes, &rules, DATA_MAX, &store);
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

	publisher_fini(&f->p);
	nodes_tear_down((void **)&f->n);
	free(f);
	return 0;
}

static void on_answer(void *ctx, const struct publish_result *r)
{
	struct fixture *f = ctx;

	f->r = *r;
	f->answers++;
}

/* Answered at once. */
static enum grpc_code publish(struct fixture *f)
{
	assert_true(publish_message(&f->p, &f->q, 1700000000000000u, &f->r,
				    on_answer, f));
	return f->r.code;
}

/* Waits for the store. */
static void publish_later(struct fixture *f)
{
	unsigned answers = f->answers;

	assert_false(publish_message(&f->p, &f->q, 1700000000000000u, &f->r,
				     on_answer, f));
	assert_int_equal(f->answers, answers);
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

static void test_publish_keys(void **state)
{
	struct fixture *f = *state;
	char key[STORE_IDEMPOTENCY_KEY_MAX + 2];

	memset(key, 'k', sizeof(key));
	key[sizeof(key) - 1] = '\0';
	f->q.channel = (char *)"score:1";
	f->q.idempotency_key = key;
	assert_refused(f, GRPC_INVALID_ARGUMENT,
		       "idempotency_key: must be at most 128 ");
	f->q.idempotency_key = (char *)"a b";
	assert_refused(f, GRPC_INVALID_ARGUMENT, "idempotency_key: ");
	f->q.idempotency_key = (char *)"\xc3\xa4";
	assert_refused(f, GRPC_INVALID_ARGUMENT, "idempotency_key: ");
	f->q.idempotency_key = (char *)"k";
	f->q.channel = (char *)"a";
	assert_refused(f, GRPC_FAILED_PRECONDITION,
		       "idempotency_key: the channel keeps no history");
	f->q.idempotency_key = (char *)"";
	f->q.conflation_key = key;
	assert_refused(f, GRPC_INVALID_ARGUMENT,
		       "conflation_key: must be at most 128 bytes");
	f->q.conflation_key = (char *)"a\tb";
	assert_refused(f, GRPC_INVALID_ARGUMENT, "conflation_key: ");
	f->q.conflation_key = (char *)"\xff";
	assert_refused(f, GRPC_INVALID_ARGUMENT, "conflation_key: ");
	f->q.conflation_key = (char *)"";
	f->q.want_receipt = true;
	assert_refused(f, GRPC_UNIMPLEMENTED, "want_receipt: ");
	f->q.want_receipt = false;
	f->p.open = false;
	assert_refused(f, GRPC_UNAVAILABLE, "the dispatcher is still learning");
	assert_int_equal(f->store.submitted, 0);
}

static void test_publish_ephemeral_fields(void **state)
{
	struct fixture *f = *state;
	const LinkDelivery *d;

	add_worker(f->n, "n", 0, 11, "a");
	f->q.conflation_key = (char *)"schl\xc3\xbcssel";
	f->q.ttl_ms = 1500;
	assert_int_equal(publish(f), GRPC_OK);
	assert_int_equal(f->r.place.epoch, 0);
	assert_int_equal(f->store.submitted, 0);
	nodes_flush(&f->n->nodes, 2000);
	d = sent_decode(&f->n->sent, 0)->deliveries[0];
	assert_string_equal(d->conflation_key, "schl\xc3\xbcssel");
	assert_int_equal(d->ttl_ms, 1500);
	assert_int_equal(d->epoch, 0);
	assert_int_equal(d->offset, 0);
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

/* --- channels that keep history ---------------------------------------- */

static void test_publish_reliable_waits_for_the_store(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, "score:1");
	const struct store_append *a;
	const LinkDelivery *d;
	char channel[] = "score:1", data[] = "text", key[] = "key";

	add_worker(f->n, "m", 0, 12, "score:2");
	f->q.channel = channel;
	f->q.data = data;
	f->q.idempotency_key = key;
	f->q.event = (char *)"ball";
	f->q.conflation_key = (char *)"c";
	f->q.ttl_ms = 9;
	f->q.priority = STENTOR__V1__PRIORITY__PRIORITY_DROPPABLE;
	publish_later(f);
	a = fakestore_next(&f->store);
	assert_int_equal(a->size, 100);
	assert_int_equal(a->ttl_ms, 60000);
	assert_int_equal(publish_pending(&f->p), 1);
	assert_true(linkq_empty(&w->queue));
	/* The request and the rules are gone by now. */
	memset(channel, 'x', sizeof(channel) - 1);
	memset(data, 'x', sizeof(data) - 1);
	memset(key, 'x', sizeof(key) - 1);
	f->p.rules = NULL;
	assert_string_equal(a->channel, "score:1");
	assert_string_equal(a->idempotency_key, "key");
	fakestore_appended(&f->store, 0);
	assert_int_equal(f->answers, 1);
	assert_int_equal(f->r.code, GRPC_OK);
	assert_int_equal(f->r.place.epoch, FAKESTORE_EPOCH);
	assert_int_equal(f->r.place.offset, 1);
	assert_int_equal(f->r.nodes, 1);
	assert_true(strlen(f->r.message_id) > 0);
	assert_int_equal(publish_pending(&f->p), 0);
	/* Kept, whatever the request says. */
	assert_int_equal(w->queue.held[PRIORITY_CLASSES].frames, 1);
	assert_int_equal(w->queue.lanes[PRIORITY_NORMAL].frames, 1);
	assert_int_equal(f->p.total[PRIORITY_NORMAL][GRPC_OK], 1);
	nodes_flush(&f->n->nodes, 2000);
	assert_int_equal(f->n->sent.count, 1);
	d = sent_decode(&f->n->sent, 0)->deliveries[0];
	assert_string_equal(d->channel, "score:1");
	assert_memory_equal(d->data.data, "text", 4);
	assert_string_equal(d->event, "ball");
	assert_string_equal(d->conflation_key, "c");
	assert_int_equal(d->ttl_ms, 9);
	assert_int_equal(d->priority,
			 STENTOR__V1__PRIORITY__PRIORITY_DROPPABLE);
	assert_int_equal(d->published_us, 1700000000000000u);
	assert_int_equal(d->epoch, FAKESTORE_EPOCH);
	assert_int_equal(d->offset, 1);
	f->p.rules = &rules;
}

/* Who tried first may not have lived to route it. */
static void test_publish_duplicate(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, "score:1");
	struct store_append *a;

	f->q.channel = (char *)"score:1";
	f->q.idempotency_key = (char *)"key";
	publish_later(f);
	a = fakestore_next(&f->store);
	a->duplicate = true;
	a->place = (struct store_place){7, 8};
	strcpy(a->message_id, "first");
	fakestore_appended(&f->store, 0);
	assert_int_equal(f->r.code, GRPC_OK);
	assert_string_equal(f->r.message_id, "first");
	assert_int_equal(f->r.place.epoch, 7);
	assert_int_equal(f->r.place.offset, 8);
	assert_int_equal(f->r.nodes, 1);
	nodes_flush(&f->n->nodes, 2000);
	assert_int_equal(sent_decode(&f->n->sent, 0)->deliveries[0]->epoch, 7);
	assert_int_equal(sent_decode(&f->n->sent, 0)->deliveries[0]->offset, 8);
	assert_int_equal(w->messages_sent, 1);
}

/* --- answered too late ------------------------------------------------- */

/* An append whose caller has been told that it may have been done. */
static struct store_append *late(struct fixture *f)
{
	struct store_append *a;

	f->q.channel = (char *)"score:1";
	publish_later(f);
	a = fakestore_next(&f->store);
	a->definite = false;
	fakestore_appended(&f->store, ERR_UNAVAILABLE);
	assert_int_equal(f->r.code, GRPC_UNAVAILABLE);
	assert_int_equal(publish_pending(&f->p), 0);
	return a;
}

static void test_publish_late_is_routed(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, "score:1");
	struct store_append *a = late(f);
	unsigned answers = f->answers;
	const LinkDelivery *d;

	assert_int_equal(publish_late(&f->p), 1);
	assert_true(linkq_empty(&w->queue));
	a->rc = 0;
	a->place = (struct store_place){7, 8};
	a->late(a);
	assert_int_equal(publish_late(&f->p), 0);
	assert_int_equal(f->answers, answers); /* nobody waits */
	assert_int_equal(f->store.doubts, 0);
	nodes_flush(&f->n->nodes, 2000);
	d = sent_decode(&f->n->sent, 0)->deliveries[0];
	assert_string_equal(d->channel, "score:1");
	assert_memory_equal(d->data.data, "text", 4);
	assert_int_equal(d->offset, 8);
}

static void test_publish_late_is_doubtful(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, "score:1");
	struct store_append *a = late(f);

	a->rc = ERR_UNAVAILABLE;
	a->late(a);
	assert_int_equal(publish_late(&f->p), 0);
	assert_int_equal(f->store.doubts, 1);
	assert_string_equal(f->store.doubted, "score:1");
	assert_true(linkq_empty(&w->queue));
	/* What has certainly failed is not doubtful. */
	publish_later(f);
	fakestore_next(&f->store)->definite = true;
	fakestore_appended(&f->store, ERR_UNAVAILABLE);
	assert_int_equal(publish_late(&f->p), 0);
	assert_int_equal(f->store.doubts, 1);
}

/* They take memory; and what is late at the end is forgotten. */
static void test_publish_late_is_bounded(void **state)
{
	struct fixture *f = *state;

	f->p.pending_max = 2;
	late(f);
	late(f);
	assert_refused(f, GRPC_UNAVAILABLE, "2 messages wait for the store");
}

static void fail_append(struct fixture *f, int rc, bool definite,
			enum grpc_code code, const char *text)
{
	uint64_t before = f->p.total[PRIORITY_NORMAL][code];

	publish_later(f);
	fakestore_next(&f->store)->definite = definite;
	fakestore_appended(&f->store, rc);
	assert_int_equal(f->r.code, code);
	if (strstr(f->r.error, text) == NULL)
		fail_msg("\"%s\" does not say \"%s\"", f->r.error, text);
	assert_string_equal(f->r.message_id, "");
	assert_int_equal(f->r.place.epoch, 0);
	assert_int_equal(f->p.total[PRIORITY_NORMAL][code], before + 1);
	assert_int_equal(publish_pending(&f->p), 0);
}

static void test_publish_store_fails(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, "score:1");

	f->q.channel = (char *)"score:1";
	fail_append(f, ERR_UNAVAILABLE, false, GRPC_UNAVAILABLE,
		    "retry with the same idempotency_key");
	assert_int_equal(publish_late(&f->p), 1);
	fail_append(f, ERR_UNAVAILABLE, true, GRPC_UNAVAILABLE,
		    "nothing was published, retry");
	fail_append(f, ERR_FULL, true, GRPC_RESOURCE_EXHAUSTED, "is full");
	publish_later(f);
	fakestore_next(&f->store)->busy = true;
	fakestore_appended(&f->store, ERR_FULL);
	assert_int_equal(f->r.code, GRPC_UNAVAILABLE);
	assert_non_null(strstr(f->r.error, "nothing was published, retry"));
	fail_append(f, ERR_IO, true, GRPC_UNAVAILABLE, "is broken");
	assert_true(linkq_empty(&w->queue));
	/* Refused before anything is appended; ephemeral ones go on. */
	f->store.fault = "the moon is full";
	assert_refused(f, GRPC_UNAVAILABLE,
		       "the store is not available (the moon is full)");
	f->q.channel = (char *)"a";
	assert_int_equal(publish(f), GRPC_OK);
	assert_int_equal(f->store.submitted, 5);
}

/* The digest that a request with a key gets to the store. */
static uint64_t digest(struct fixture *f)
{
	uint64_t d;

	publish_later(f);
	d = fakestore_next(&f->store)->digest;
	fakestore_appended(&f->store, 0);
	return d;
}

/* What is kept beside keys: every field counts, and none runs into another.
 * Stores outlive versions, so it stays what it is. */
static void test_publish_digest(void **state)
{
	struct fixture *f = *state;
	uint64_t digests[8];
	size_t n = 0;

	f->q.channel = (char *)"score:1";
	assert_int_equal(digest(f), 0); /* no key */
	f->q.idempotency_key = (char *)"k";
	digests[n++] = digest(f);
	assert_int_equal(digests[0], 0xbf3e29bd2c284d84u);
	f->q.channel = (char *)"score:2";
	f->q.idempotency_key = (char *)"l";
	assert_int_equal(digest(f), digests[0]);
	f->q.data = (char *)"text2";
	digests[n++] = digest(f);
	f->q.data = (char *)"tex";
	f->q.event = (char *)"t";
	digests[n++] = digest(f);
	f->q.event = (char *)"";
	f->q.conflation_key = (char *)"t";
	digests[n++] = digest(f);
	f->q.conflation_key = (char *)"";
	f->q.ttl_ms = 1;
	digests[n++] = digest(f);
	f->q.ttl_ms = 0;
	f->q.priority = 1;
	digests[n++] = digest(f);
	f->q.priority = 0;
	digests[n++] = digest(f);
	for (size_t i = 0; i < n; i++) {
		assert_int_not_equal(digests[i], 0);
		for (size_t j = 0; j < i; j++)
			assert_int_not_equal(digests[i], digests[j]);
	}
}

static void test_publish_key_of_another_message(void **state)
{
	struct fixture *f = *state;

	f->p.idempotency_s = 300;
	f->q.channel = (char *)"score:1";
	f->q.idempotency_key = (char *)"k";
	fail_append(f, ERR_EXISTS, true, GRPC_ALREADY_EXISTS,
		    "idempotency_key: was used for another message on this "
		    "channel within the last 300 s");
}

static void test_publish_pending_is_bounded(void **state)
{
	struct fixture *f = *state;

	f->p.pending_max = 2;
	f->q.channel = (char *)"score:1";
	publish_later(f);
	publish_later(f);
	assert_refused(f, GRPC_UNAVAILABLE, "2 messages wait for the store");
	fakestore_appended(&f->store, 0);
	publish_later(f);
	fakestore_appended(&f->store, 0);
	fakestore_appended(&f->store, 0);
	assert_int_equal(f->answers, 3);
	assert_int_equal(f->r.place.offset, 3);
}

/* No link is asked: what finds no room is told, the newest top alone, and when
 * there is room again. */
static void test_publish_reliable_asks_no_link(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, "score:1");
	struct node_worker *other = add_worker(f->n, "m", 0, 12, "score:1");
	struct linkq_sum full = {1, 2u << 20};
	const LinkFrame *frame;

	w->queue.max = full;
	f->n->sent.answer = ERR_AGAIN;
	f->q.channel = (char *)"score:1";
	for (unsigned i = 0; i < 4; i++) {
		publish_later(f);
		fakestore_appended(&f->store, 0);
		assert_int_equal(f->r.code, GRPC_OK);
		assert_int_equal(f->r.nodes, i == 0 ? 2 : 1);
	}
	nodes_flush(&f->n->nodes, 2000);
	assert_int_equal(f->p.links_full, 3);
	assert_int_equal(linkq_drops_total(linkq_drops(&w->queue)), 0);
	assert_true(behind_any(&w->behind));
	assert_false(behind_any(&other->behind));
	/* There is room by now; all the rest is told at once, behind the first
	 * message. */
	f->n->sent.answer = 0;
	nodes_flush(&f->n->nodes, 2001);
	nodes_flush(&f->n->nodes, 2010);
	assert_false(behind_any(&w->behind));
	for (unsigned i = 0; i < f->n->sent.count; i++) {
		frame = sent_decode(&f->n->sent, i);
		if (frame->receiver_epoch == 11 && frame->n_moved > 0) {
			assert_int_equal(frame->n_moved, 1);
			assert_string_equal(frame->moved[0]->channel,
					    "score:1");
			assert_int_equal(frame->moved[0]->top->epoch,
					 FAKESTORE_EPOCH);
			assert_int_equal(frame->moved[0]->top->offset, 4);
			return;
		}
	}
	fail_msg("it was not told");
}

/* Cut off from those who would hear it: better said than lost. What the store
 * keeps is told by others. */
static void test_publish_blind(void **state)
{
	struct fixture *f = *state;

	add_worker(f->n, "n", 0, 11, "seen");
	f->p.blind = true;
	assert_refused(f, GRPC_UNAVAILABLE,
		       "this dispatcher has lost sight of most");
	f->q.channel = (char *)"seen";
	assert_int_equal(publish(f), GRPC_OK);
	f->q.channel = (char *)"score:1";
	publish_later(f);
	fakestore_appended(&f->store, 0);
	assert_int_equal(f->r.code, GRPC_OK);
	f->p.blind = false;
	f->q.channel = (char *)"a";
	assert_int_equal(publish(f), GRPC_OK);
}

/* All queues together are full of what is not displaced. */
static void test_publish_critical_needs_the_pool(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, "critical:1");

	f->q.channel = (char *)"critical:1";
	assert_int_equal(publish(f), GRPC_OK);
	f->n->nodes.pool.max = f->n->nodes.pool.bytes;
	assert_refused(f, GRPC_UNAVAILABLE,
		       "a connection node's queue is full");
	assert_int_equal(linkq_drops_total(linkq_drops(&w->queue)), 0);
	f->n->nodes.pool.max += 300;
	assert_int_equal(publish(f), GRPC_OK);
}

/* Its worker left while it waited. */
static void test_publish_worker_leaves_meanwhile(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, "score:1");

	f->q.channel = (char *)"score:1";
	publish_later(f);
	nodes_disconnected(&f->n->nodes, w);
	fakestore_appended(&f->store, 0);
	assert_int_equal(f->r.code, GRPC_OK);
	assert_int_equal(f->r.nodes, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_publish_validates),
		TEST(test_publish_keys),
		TEST(test_publish_ephemeral_fields),
		TEST(test_publish_reaches_the_interested),
		TEST(test_publish_priorities),
		TEST(test_publish_full_queues),
		TEST(test_publish_reliable_waits_for_the_store),
		TEST(test_publish_duplicate),
		TEST(test_publish_late_is_routed),
		TEST(test_publish_late_is_doubtful),
		TEST(test_publish_late_is_bounded),
		TEST(test_publish_store_fails),
		TEST(test_publish_digest),
		TEST(test_publish_key_of_another_message),
		TEST(test_publish_pending_is_bounded),
		TEST(test_publish_reliable_asks_no_link),
		TEST(test_publish_blind),
		TEST(test_publish_critical_needs_the_pool),
		TEST(test_publish_worker_leaves_meanwhile),
	};

	return cmocka_run_group_tests_name("publish", tests, NULL, NULL);
}

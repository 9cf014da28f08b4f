#include "dispatcher/publish/moves.h"

#include "common/base/err.h"
#include "tests/unit/nodes_fixture.h"

#include "tests/unit/fakestore.h"

#include <stdio.h>

#define OWN   100
#define PEER  200
#define OTHER 300

static struct rule some_rules[] = {
	{.pattern = "score:*", .priority = PRIORITY_NORMAL, .history_size = 9},
	{.pattern = "*", .priority = PRIORITY_NORMAL},
};
static const struct rules rules = {.rule = some_rules, .count = 2};

struct fixture {
	struct nodes_fixture *n;
	struct fakestore store;
	struct moves m;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct history_store store = fakestore_history(&f->store);

	nodes_set_up((void **)&f->n);
	f->n->nodes.config.instance = OWN;
	fakestore_init(&f->store);
	moves_init(&f->m, &f->n->nodes, &rules, &store);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	moves_fini(&f->m);
	nodes_tear_down((void **)&f->n);
	free(f);
	return 0;
}

/* A worker that lists `count` dispatchers. */
static struct node_worker *listing(struct fixture *f, const char *node,
				   uint64_t epoch, const char *channel,
				   const uint64_t *instances, size_t count)
{
	struct node_worker *w = add_worker(f->n, node, 0, epoch, channel);
	Stentor__Link__V1__Heartbeat beat = STENTOR__LINK__V1__HEARTBEAT__INIT;
	LinkFrame content = FRAME_INIT;

	beat.instances = (uint64_t *)instances;
	beat.n_instances = count;
	content.heartbeat = &beat;
	worker_speaks(f->n, w, &content, 1000);
	return w;
}

static struct store_place top(uint64_t offset)
{
	return (struct store_place){FAKESTORE_EPOCH, offset};
}

static void test_moves_heard(void **state)
{
	struct fixture *f = *state;
	const uint64_t both[] = {OWN, PEER}, own[] = {OWN};
	struct node_worker *linked =
		listing(f, "n", 11, "score:1", both, array_len(both));
	struct node_worker *unlinked =
		listing(f, "m", 12, "score:1", own, array_len(own));
	struct node_worker *bored = listing(f, "o", 13, "score:2", own, 1);
	const LinkFrame *said;

	moves_heard(&f->m, PEER, "score:1", top(4));
	assert_false(behind_any(&linked->behind));
	assert_false(behind_any(&bored->behind));
	assert_true(behind_any(&unlinked->behind));
	nodes_flush(&f->n->nodes, 2000);
	assert_int_equal(f->n->sent.count, 1);
	said = sent_decode(&f->n->sent, 0);
	assert_int_equal(said->receiver_epoch, 12);
	assert_string_equal(said->moved[0]->channel, "score:1");
	assert_int_equal(said->moved[0]->top->offset, 4);
	assert_int_equal(f->n->nodes.counters.moved_told, 1);
	/* Our own are routed. */
	moves_heard(&f->m, OWN, "score:1", top(5));
	assert_false(behind_any(&unlinked->behind));
	/* One that lists more than we remember is told too much. */
	nodes_disconnected(&f->n->nodes, linked);
	{
		uint64_t many[NODES_LISTED_MAX + 1] = {PEER};

		linked = listing(f, "n", 14, "score:1", many, array_len(many));
	}
	moves_heard(&f->m, PEER, "score:1", top(6));
	assert_true(behind_any(&linked->behind));
}

/* Only those that are READY: others ask for tops anyway. */
static void test_moves_heard_while_syncing(void **state)
{
	struct fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);
	Stentor__Link__V1__Interest in = STENTOR__LINK__V1__INTEREST__INIT;
	LinkFrame content = FRAME_INIT;
	uint64_t key = interest_key(f->n, "score:1");
	struct node_worker *w;

	say_hello(f->n, &h, 11, 1000);
	w = worker_of(f->n, 11);
	nodes_connected(&f->n->nodes, w, 1000);
	in.add = &key;
	in.n_add = 1;
	content.interest = &in;
	worker_speaks(f->n, w, &content, 1000);
	moves_heard(&f->m, PEER, "score:1", top(4));
	moves_heard(&f->m, PEER, NULL, top(0));
	assert_false(behind_any(&w->behind));
}

static void test_moves_missed(void **state)
{
	struct fixture *f = *state;
	const uint64_t peers[] = {PEER, OTHER}, all[] = {OWN, OTHER, PEER};
	const uint64_t some[] = {OWN, PEER};
	struct node_worker *linked =
		listing(f, "n", 11, "score:1", all, array_len(all));
	struct node_worker *unlinked =
		listing(f, "m", 12, "score:2", some, array_len(some));

	nodes_set_peers(&f->n->nodes, peers, array_len(peers));
	moves_heard(&f->m, 0, NULL, top(0));
	assert_false(behind_any(&linked->behind));
	assert_true(unlinked->behind.unnamed);
	nodes_flush(&f->n->nodes, 2000);
	assert_true(sent_decode(&f->n->sent, 0)->moved_unnamed);
	assert_int_equal(f->n->nodes.counters.moved_unnamed, 1);
}

/* What was missed of one dispatcher concerns those without a link to that one,
 * whatever peers our store has told us of so far: it may be none yet. */
static void test_moves_missed_of_one(void **state)
{
	struct fixture *f = *state;
	const uint64_t both[] = {OWN, PEER}, others[] = {OWN, OTHER};
	struct node_worker *linked = listing(f, "n", 11, "score:1", both, 2);
	struct node_worker *unlinked =
		listing(f, "m", 12, "score:1", others, 2);
	/* READY, but no heartbeat has said yet whom it is linked to. */
	struct node_worker *unheard = add_worker(f->n, "o", 0, 13, "score:1");

	moves_heard(&f->m, PEER, NULL, top(0));
	assert_int_equal(f->m.counters.missed, 1);
	assert_false(behind_any(&linked->behind));
	assert_true(unlinked->behind.unnamed);
	assert_true(unheard->behind.unnamed);
	/* Our own are routed. */
	nodes_flush(&f->n->nodes, 2000);
	moves_heard(&f->m, OWN, NULL, top(0));
	assert_int_equal(f->m.counters.missed, 1);
	assert_false(behind_any(&unheard->behind));
}

/* The same of a top: who has not said yet what it is linked to is told. */
static void test_moves_heard_before_a_heartbeat(void **state)
{
	struct fixture *f = *state;
	struct node_worker *unheard = add_worker(f->n, "o", 0, 13, "score:1");

	moves_heard(&f->m, PEER, "score:1", top(4));
	assert_true(behind_any(&unheard->behind));
	assert_false(unheard->behind.unnamed);
}

static void test_moves_instances_are_told(void **state)
{
	struct fixture *f = *state;
	const uint64_t peers[] = {PEER, OTHER};
	Stentor__Link__V1__Hello h = hello_of("n", 0);
	const Stentor__Link__V1__Heartbeat *beat;
	struct node_worker *w;

	nodes_set_peers(&f->n->nodes, peers, array_len(peers));
	say_hello(f->n, &h, 11, 1000);
	w = worker_of(f->n, 11);
	nodes_connected(&f->n->nodes, w, 1000);
	assert_int_equal(sent_decode(&f->n->sent, 0)->hello_ack->instance, OWN);
	worker_speaks(f->n, w, NULL, 1000);
	nodes_tick(&f->n->nodes, 2000);
	beat = sent_decode(&f->n->sent, 1)->heartbeat;
	assert_int_equal(beat->n_instances, 3);
	assert_int_equal(beat->instances[0], OWN);
	assert_int_equal(beat->instances[2], OTHER);
	assert_int_equal(beat->wall_us, 1000);
}

/* --- doubts ------------------------------------------------------------ */

static void test_moves_doubts_are_looked_up(void **state)
{
	struct fixture *f = *state;
	const uint64_t both[] = {OWN, PEER};
	struct node_worker *w = listing(f, "n", 11, "score:1", both, 2);
	struct store_tops *t;

	f->store.fault = "down";
	moves_doubt(&f->m, "score:1");
	moves_doubt(&f->m, "score:2");
	moves_doubt(&f->m, "score:1"); /* once */
	assert_int_equal(f->m.count, 2);
	moves_tick(&f->m);
	assert_null(fakestore_take_tops(&f->store));
	f->store.fault = NULL;
	moves_tick(&f->m);
	moves_tick(&f->m); /* one operation at a time */
	t = fakestore_take_tops(&f->store);
	assert_null(fakestore_take_tops(&f->store));
	assert_int_equal(t->count, 2);
	assert_string_equal(t->channels[0], "score:1");
	/* It fails: they stay in doubt. */
	t->rc = ERR_UNAVAILABLE;
	t->done(t);
	assert_false(behind_any(&w->behind));
	assert_int_equal(f->m.count, 2);
	moves_tick(&f->m);
	t = fakestore_take_tops(&f->store);
	t->rc = 0;
	t->places[0] = top(7);
	t->places[1] = top(0);
	t->done(t);
	assert_int_equal(f->m.count, 0);
	/* All are told: the message did not come by any link. */
	assert_true(behind_any(&w->behind));
	nodes_flush(&f->n->nodes, 2000);
	assert_int_equal(sent_decode(&f->n->sent, 0)->n_moved, 1);
	assert_int_equal(sent_decode(&f->n->sent, 0)->moved[0]->top->offset, 7);
	moves_tick(&f->m);
	assert_null(fakestore_take_tops(&f->store));
}

static void test_moves_doubts_are_paced_and_bounded(void **state)
{
	struct fixture *f = *state;
	const uint64_t own[] = {OWN};
	struct node_worker *w = listing(f, "n", 11, "score:1", own, 1);
	struct store_tops *t;
	char name[16];

	for (unsigned i = 0; i < MOVES_DOUBTS_MAX; i++) {
		snprintf(name, sizeof(name), "c%u", i);
		moves_doubt(&f->m, name);
	}
	moves_tick(&f->m);
	t = fakestore_take_tops(&f->store);
	assert_int_equal(t->count, MOVES_READ);
	t->rc = ERR_UNAVAILABLE;
	for (unsigned i = 0; i < MOVES_READ; i++) {
		snprintf(name, sizeof(name), "d%u", i);
		moves_doubt(&f->m, name);
	}
	assert_int_equal(f->m.count, MOVES_DOUBTS_MAX);
	assert_false(f->m.unnamed);
	t->done(t); /* too many now */
	assert_true(f->m.unnamed);
	assert_int_equal(f->m.count, 0);
	assert_false(behind_any(&w->behind));
	f->store.fault = "down";
	moves_tick(&f->m);
	assert_true(f->m.unnamed);
	f->store.fault = NULL;
	moves_tick(&f->m);
	assert_true(w->behind.unnamed);
	assert_false(f->m.unnamed);
	moves_close(&f->m);
	moves_doubt(&f->m, "score:1");
	moves_tick(&f->m);
	assert_null(fakestore_take_tops(&f->store));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_moves_heard),
		TEST(test_moves_heard_while_syncing),
		TEST(test_moves_missed),
		TEST(test_moves_missed_of_one),
		TEST(test_moves_heard_before_a_heartbeat),
		TEST(test_moves_instances_are_told),
		TEST(test_moves_doubts_are_looked_up),
		TEST(test_moves_doubts_are_paced_and_bounded),
	};

	return cmocka_run_group_tests_name("moves", tests, NULL, NULL);
}

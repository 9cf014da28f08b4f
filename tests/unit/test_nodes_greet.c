#include "tests/unit/nodes_fixture.h"

#define REASON(name) STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_##name

static const Stentor__Link__V1__Refuse *refusal(struct nodes_fixture *f,
						unsigned i)
{
	const Stentor__Link__V1__Refuse *r = sent_decode(&f->sent, i)->refuse;

	assert_non_null(r);
	assert_int_equal(r->reason,
			 STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_STORE);
	return r;
}

static void test_greet_tell_their_store(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);
	struct node_worker *w;

	nodes_set_store(&f->nodes, 5);
	h.store = 5;
	say_hello(f, &h, 11, 1000);
	w = worker_of(f, 11);
	nodes_connected(&f->nodes, w, 1000);
	assert_int_equal(sent_decode(&f->sent, 0)->hello_ack->store, 5);
	worker_speaks(f, w, NULL, 1000);
	nodes_tick(&f->nodes, 3000);
	assert_int_equal(sent_decode(&f->sent, 1)->heartbeat->store, 5);
	assert_int_equal(f->nodes.strangers, 0);
}

static void test_greet_refuse_another_store(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);
	struct node_worker *w;

	f->nodes.config.store_embedded = true;
	nodes_set_store(&f->nodes, 5);
	h.store = 6;
	say_hello(f, &h, 11, 1000);
	w = worker_of(f, 11);
	assert_int_equal(w->phase, NODE_WORKER_REFUSED);
	assert_true(nodes_settled(&f->nodes));
	/* So far anybody may have said so. */
	assert_false(nodes_outvoted(&f->nodes));
	nodes_connected(&f->nodes, w, 1000);
	assert_true(nodes_outvoted(&f->nodes));
	assert_int_equal(f->sent.count, 1);
	assert_non_null(strstr(refusal(f, 0)->text, "start one dispatcher"));
	/* Told again with each hello, and gone with its silence. */
	say_hello(f, &h, 11, 1500);
	assert_int_equal(f->sent.count, 2);
	refusal(f, 1);
	assert_int_equal(f->nodes.counters.stores_differ, 1);
	nodes_tick(&f->nodes, 1500 + NODES_REFUSED_MS - 1);
	assert_int_equal(f->nodes.strangers, 1);
	nodes_tick(&f->nodes, 1500 + NODES_REFUSED_MS);
	assert_int_equal(f->nodes.strangers, 0);
	assert_int_equal(f->nodes.worker_count, 0);
	assert_int_equal(f->nodes.counters.links_lost, 0);
}

/* Its positions come from nowhere any more: it is welcome. */
static void test_greet_store_differs_no_longer(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);

	nodes_set_store(&f->nodes, 5);
	h.store = 6;
	say_hello(f, &h, 11, 1000);
	nodes_connected(&f->nodes, worker_of(f, 11), 1000);
	refusal(f, 0);
	h.store = 0;
	say_hello(f, &h, 11, 1500);
	assert_int_equal(f->nodes.strangers, 0);
	assert_int_equal(worker_of(f, 11)->phase, NODE_WORKER_CONNECTING);
	nodes_connected(&f->nodes, worker_of(f, 11), 1500);
	assert_non_null(sent_decode(&f->sent, 1)->hello_ack);
}

/* The store lost its identity, and has another: those who have the former one
 * have it from us, and follow. Others are strangers as before. */
static void test_greet_store_was_emptied(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");
	Stentor__Link__V1__Heartbeat beat = STENTOR__LINK__V1__HEARTBEAT__INIT;
	LinkFrame content = FRAME_INIT;

	content.heartbeat = &beat;
	nodes_set_store(&f->nodes, 5);
	beat.store = 5;
	worker_speaks(f, w, &content, 1100);
	nodes_set_store(&f->nodes, 7);
	assert_int_equal(w->phase, NODE_WORKER_READY);
	worker_speaks(f, w, &content, 1200); /* on its way already */
	assert_int_equal(w->phase, NODE_WORKER_READY);
	beat.store = 7;
	worker_speaks(f, w, &content, 1300);
	assert_int_equal(w->phase, NODE_WORKER_READY);
	beat.store = 6;
	worker_speaks(f, w, &content, 1400);
	assert_int_equal(w->phase, NODE_WORKER_REFUSED);
}

/* A link that stands ends when either side learns of its store. */
static void test_greet_store_is_known_later(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");
	struct node_worker *other = add_worker(f, "m", 0, 12, "a");
	Stentor__Link__V1__Heartbeat beat = STENTOR__LINK__V1__HEARTBEAT__INIT;
	LinkFrame content = FRAME_INIT;
	const uint16_t *ids;

	beat.store = 6;
	content.heartbeat = &beat;
	worker_speaks(f, w, &content, 1100);
	assert_int_equal(w->phase, NODE_WORKER_READY);
	queue_some(f, w, 100);
	nodes_set_store(&f->nodes, 5);
	assert_int_equal(w->phase, NODE_WORKER_REFUSED);
	assert_int_equal(other->phase, NODE_WORKER_READY);
	assert_int_equal(f->sent.count, 1);
	refusal(f, 0);
	/* Not routed to, and nothing more is said. */
	assert_int_equal(
		interest_lookup(&f->nodes.interest, interest_key(f, "a"), &ids),
		1);
	assert_int_equal(ids[0], other->id);
	assert_false(nodes_flush(&f->nodes, 2000));
	assert_int_equal(f->sent.count, 1);
	/* The other one has its positions from another store meanwhile. */
	worker_speaks(f, other, &content, 1200);
	assert_int_equal(other->phase, NODE_WORKER_REFUSED);
	assert_int_equal(f->nodes.strangers, 2);
	/* What it still sends is not looked at. */
	worker_speaks(f, other, NULL, 1300);
	assert_int_equal(f->nodes.strangers, 2);
}

/* One stray among others is refused alone. */
static void test_greet_strangers_are_outvoted(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("stray", 0);

	nodes_set_store(&f->nodes, 5);
	add_worker(f, "n", 0, 11, "a");
	h.store = 6;
	say_hello(f, &h, 21, 1000);
	nodes_connected(&f->nodes, worker_of(f, 21), 1000);
	assert_int_equal(f->nodes.strangers, 1);
	assert_false(nodes_outvoted(&f->nodes)); /* as many: we go on */
	h = hello_of("stray", 1);
	h.store = 6;
	say_hello(f, &h, 22, 1000);
	assert_false(nodes_outvoted(&f->nodes));
	nodes_connected(&f->nodes, worker_of(f, 22), 1000);
	assert_true(nodes_outvoted(&f->nodes));
	/* It tries again, under a new epoch: link and vote stay. */
	say_hello(f, &h, 23, 2000);
	assert_null(worker_of(f, 22));
	assert_true(worker_of(f, 23)->connected);
	assert_true(nodes_outvoted(&f->nodes));
	/* Another process of that name must show first that it is there. */
	h.incarnation++;
	say_hello(f, &h, 24, 2000);
	assert_false(nodes_outvoted(&f->nodes));
	nodes_disconnected(&f->nodes, worker_of(f, 21));
	assert_int_equal(f->nodes.strangers, 0);
}

/* One that was linked comes back with another store: it has been dialled, which
 * counts before its new link is up, and after another hello. */
static void test_greet_stranger_that_was_linked(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);

	nodes_set_store(&f->nodes, 5);
	add_worker(f, "n", 0, 11, "a");
	h.store = 6;
	say_hello(f, &h, 12, 2000);
	assert_false(worker_of(f, 12)->connected);
	assert_int_equal(f->nodes.strangers, 1);
	say_hello(f, &h, 13, 2100);
	assert_null(worker_of(f, 12));
	assert_false(worker_of(f, 13)->connected);
	assert_int_equal(f->nodes.strangers, 1);
	/* Elsewhere it would be anybody. */
	h.link_address = (char *)"tcp://w:2";
	say_hello(f, &h, 14, 2200);
	assert_int_equal(f->nodes.strangers, 0);
	assert_int_equal(f->nodes.worker_count, 1);
}

/* --- a full routing table ---------------------------------------------- */

static void announce(struct nodes_fixture *f, struct node_worker *w,
		     uint64_t from, unsigned count, uint64_t now_ms)
{
	Stentor__Link__V1__Interest in = STENTOR__LINK__V1__INTEREST__INIT;
	LinkFrame content = FRAME_INIT;
	uint64_t keys[1000];

	for (unsigned i = 0; i < count; i++)
		keys[i] = from + i;
	in.add = keys;
	in.n_add = count;
	content.interest = &in;
	worker_speaks(f, w, &content, now_ms);
}

static void want_all(struct nodes_fixture *f, unsigned from, unsigned count)
{
	for (unsigned i = from; i < from + count; i++)
		assert_int_equal(
			interest_want_all(&f->nodes.interest, (uint16_t)i), 0);
}

/* Refused because the table, of 1,000 pairs, is full with 500 of `other`. */
static struct node_worker *refused_for_full(struct nodes_fixture *f,
					    struct node_worker **other)
{
	struct node_worker *w = add_worker(f, "n", 0, 11, NULL);

	want_all(f, 100, INTEREST_ALL_MAX);
	*other = add_worker(f, "m", 0, 10, NULL);
	announce(f, *other, 5000, 500, 2000);
	announce(f, w, 1, 600, 2000);
	assert_int_equal(w->phase, NODE_WORKER_REFUSED);
	while (interest_sweep(&f->nodes.interest, 1))
		;
	sent_clear(&f->sent);
	return w;
}

/* Each hello is answered by the one link, whatever attempt it is of: to dial,
 * and to take its snapshot, would only fill the table again. */
static void test_greet_full_keeps_its_link(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);
	struct node_worker *other, *w = refused_for_full(f, &other);
	unsigned opened = f->opened;

	for (unsigned i = 0; i < 4; i++) {
		uint64_t now_ms = 7000 + i / 2 * 5000;

		say_hello(f, &h, 12 + i / 2, now_ms); /* each one twice */
		assert_ptr_equal(worker_of(f, 12 + i / 2), w);
		assert_int_equal(w->phase, NODE_WORKER_REFUSED);
		assert_int_equal(f->sent.count, i + 1);
		assert_int_equal(sent_decode(&f->sent, i)->refuse->reason,
				 REASON(FULL));
		assert_int_equal(sent_decode(&f->sent, i)->receiver_epoch,
				 12 + i / 2);
		assert_int_equal(w->link.last_rx_ms, now_ms);
	}
	assert_int_equal(f->opened, opened);
	assert_int_equal(f->nodes.worker_count, 2);
	/* It has another store by now, and is told that. */
	nodes_set_store(&f->nodes, 5);
	h.store = 6;
	say_hello(f, &h, 14, 17000);
	assert_int_equal(sent_decode(&f->sent, 4)->refuse->reason,
			 REASON(STORE));
	assert_int_equal(f->nodes.strangers, 1);
	assert_int_equal(f->opened, opened);
}

/* What it had announced fits by now, or it may be sent everything. */
static void test_greet_full_no_longer(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);
	struct node_worker *other, *w = refused_for_full(f, &other);

	nodes_disconnected(&f->nodes, other);
	say_hello(f, &h, 12, 7000); /* not swept yet */
	assert_int_equal(w->phase, NODE_WORKER_REFUSED);
	while (interest_sweep(&f->nodes.interest, 1))
		;
	say_hello(f, &h, 12, 7000);
	assert_int_equal(worker_of(f, 12)->phase, NODE_WORKER_CONNECTING);
	assert_int_equal(f->nodes.worker_count, 1);
	nodes_disconnected(&f->nodes, worker_of(f, 12));
	for (unsigned i = 0; i < INTEREST_ALL_MAX; i++)
		interest_drop_worker(&f->nodes.interest, (uint16_t)(100 + i));
	w = refused_for_full(f, &other);
	interest_drop_worker(&f->nodes.interest, 100);
	say_hello(f, &h, 13, 7000);
	assert_int_equal(worker_of(f, 13)->phase, NODE_WORKER_CONNECTING);
}

/* Nobody can be kept out by hellos alone. */
static void test_greet_hellos_are_dialled_at_most(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);

	nodes_set_store(&f->nodes, 5);
	f->nodes.dialling = NODES_CONNECTING_MAX - 1;
	h.store = 6;
	say_hello(f, &h, 11, 1000);
	assert_non_null(worker_of(f, 11)); /* refused, but being dialled */
	h = hello_of("m", 0);
	say_hello(f, &h, 12, 1000);
	assert_null(worker_of(f, 12));
	nodes_connected(&f->nodes, worker_of(f, 11), 1000);
	say_hello(f, &h, 12, 1000);
	assert_non_null(worker_of(f, 12));
	f->nodes.dialling = 1;
}

/* --- two of one name --------------------------------------------------- */

static Stentor__Link__V1__Hello started(uint64_t started_ms,
					uint64_t incarnation)
{
	Stentor__Link__V1__Hello h = hello_of("n", 0);

	h.started = started_ms;
	h.incarnation = incarnation;
	return h;
}

/* The elder one, READY and interested in "a". */
static struct node_worker *elder(struct nodes_fixture *f, uint64_t started_ms)
{
	Stentor__Link__V1__Hello h = started(started_ms, 5);

	return greet_worker(f, &h, 11, "a");
}

static void test_greet_younger_is_refused(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = elder(f, 100);
	Stentor__Link__V1__Hello h = started(101, 6);
	struct node_worker *young;

	say_hello(f, &h, 21, 2000);
	assert_ptr_equal(worker_of(f, 11), w);
	assert_int_equal(w->phase, NODE_WORKER_READY);
	young = worker_of(f, 21);
	assert_int_equal(young->phase, NODE_WORKER_REFUSED);
	assert_int_equal(f->nodes.counters.names_taken, 1);
	nodes_connected(&f->nodes, young, 2000);
	assert_int_equal(f->sent.count, 0); /* maybe its elder is just going */
	say_hello(f, &h, 21, 2500);
	assert_int_equal(f->sent.count, 1);
	assert_int_equal(sent_decode(&f->sent, 0)->refuse->reason,
			 REASON(NAME));
	assert_int_equal(sent_decode(&f->sent, 0)->receiver_epoch, 21);
	assert_int_equal(f->nodes.counters.names_taken, 1);
	assert_int_equal(f->nodes.strangers, 0);
	/* It tries anew: one entry at most is kept of it. */
	say_hello(f, &h, 22, 3000);
	assert_null(worker_of(f, 21));
	assert_int_equal(worker_of(f, 22)->phase, NODE_WORKER_REFUSED);
	assert_int_equal(f->nodes.worker_count, 2);
	assert_int_equal(w->phase, NODE_WORKER_READY);
}

/* Its elder goes: it is let in by its next hello. */
static void test_greet_younger_comes_in(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = elder(f, 100);
	Stentor__Link__V1__Hello h = started(101, 6);

	say_hello(f, &h, 21, 2000);
	nodes_connected(&f->nodes, worker_of(f, 21), 2000);
	nodes_disconnected(&f->nodes, w);
	say_hello(f, &h, 21, 2500);
	assert_int_equal(worker_of(f, 21)->phase, NODE_WORKER_CONNECTING);
	assert_int_equal(f->nodes.worker_count, 1);
}

/* A restarted one comes in at once where the old link is down, one whose
 * elder has stopped when that is silent for long enough. */
static void test_greet_silent_elder_gives_way(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = started(101, 6);

	elder(f, 100);
	say_hello(f, &h, 21, 1000 + LINK_DEAD_MS - 1);
	assert_int_equal(worker_of(f, 21)->phase, NODE_WORKER_REFUSED);
	say_hello(f, &h, 22, 1000 + LINK_DEAD_MS);
	assert_int_equal(worker_of(f, 22)->phase, NODE_WORKER_CONNECTING);
	assert_null(worker_of(f, 11));
	assert_null(worker_of(f, 21));
	assert_int_equal(f->nodes.counters.names_taken, 1);
}

static void replaces(struct nodes_fixture *f, uint64_t old_started,
		     uint64_t new_started, uint64_t new_incarnation)
{
	Stentor__Link__V1__Hello h = started(new_started, new_incarnation);

	elder(f, old_started);
	say_hello(f, &h, 21, 1100);
	assert_null(worker_of(f, 11));
	assert_int_equal(worker_of(f, 21)->phase, NODE_WORKER_CONNECTING);
	nodes_disconnected(&f->nodes, worker_of(f, 21));
}

static void test_greet_who_gives_way(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = started(100, 6);

	replaces(f, 100, 99, 6); /* the elder comes later */
	replaces(f, 100, 100, 4);
	replaces(f, 100, 101, 5); /* the same process */
	replaces(f, 0, 101, 6);	  /* those that do not tell */
	replaces(f, 100, 0, 6);
	elder(f, 100);
	say_hello(f, &h, 21, 1100); /* as old: the greater incarnation */
	assert_int_equal(worker_of(f, 21)->phase, NODE_WORKER_REFUSED);
}

/* Whoever has another store has no claim to the name, however old it is. */
static void test_greet_stranger_takes_no_name(void **state)
{
	struct nodes_fixture *f = *state;
	const uint64_t starts[] = {99, 101, 0};
	struct node_worker *w = elder(f, 100);

	nodes_set_store(&f->nodes, 5);
	for (unsigned i = 0; i < array_len(starts); i++) {
		Stentor__Link__V1__Hello h = started(starts[i], 6);
		struct node_worker *stray;

		h.store = 6;
		say_hello(f, &h, 21 + i, 2000);
		assert_ptr_equal(worker_of(f, 11), w);
		assert_int_equal(w->phase, NODE_WORKER_READY);
		stray = worker_of(f, 21 + i);
		assert_int_equal(stray->refused_for, REASON(STORE));
		/* One entry at most is kept of it, whichever is found first. */
		assert_int_equal(f->nodes.worker_count, 2);
	}
	assert_int_equal(f->nodes.counters.names_taken, 0);
}

/* Of two that are there the name is whose link stands, also where that one has
 * greeted anew since the stranger came. */
static void test_greet_name_beside_a_stranger(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello stray = started(101, 6);
	Stentor__Link__V1__Hello again = started(100, 5);
	Stentor__Link__V1__Hello young = started(102, 7);

	nodes_set_store(&f->nodes, 5);
	elder(f, 100);
	stray.store = 6;
	say_hello(f, &stray, 21, 1000);
	greet_worker(f, &again, 12, "a");
	say_hello(f, &young, 31, 1100);
	assert_int_equal(worker_of(f, 12)->phase, NODE_WORKER_READY);
	assert_int_equal(worker_of(f, 21)->refused_for, REASON(STORE));
	assert_int_equal(worker_of(f, 31)->refused_for, REASON(NAME));
}

/* What it is refused for changes, and with that whether it is a stranger. */
static void test_greet_refused_for_something_else(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = started(101, 6);
	struct node_worker *young;

	nodes_set_store(&f->nodes, 5);
	elder(f, 100);
	say_hello(f, &h, 21, 2000);
	young = worker_of(f, 21);
	nodes_connected(&f->nodes, young, 2000);
	assert_int_equal(young->refused_for, REASON(NAME));
	assert_int_equal(f->nodes.strangers, 0);
	h.store = 6;
	say_hello(f, &h, 21, 2500);
	assert_ptr_equal(worker_of(f, 21), young);
	assert_int_equal(young->refused_for, REASON(STORE));
	assert_int_equal(f->nodes.strangers, 1);
	assert_int_equal(f->sent.count, 1);
	assert_int_equal(sent_decode(&f->sent, 0)->refuse->reason,
			 REASON(STORE));
	say_hello(f, &h, 21, 2600); /* not counted twice */
	assert_int_equal(f->nodes.strangers, 1);
	assert_int_equal(f->nodes.counters.stores_differ, 1);
	h.store = 5;
	say_hello(f, &h, 22, 2700);
	assert_int_equal(worker_of(f, 22)->refused_for, REASON(NAME));
	assert_int_equal(f->nodes.strangers, 0);
	assert_int_equal(f->nodes.worker_count, 2);
	assert_int_equal(worker_of(f, 11)->phase, NODE_WORKER_READY);
}

int main(void)
{
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, nodes_set_up, nodes_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_greet_tell_their_store),
		TEST(test_greet_refuse_another_store),
		TEST(test_greet_store_differs_no_longer),
		TEST(test_greet_store_is_known_later),
		TEST(test_greet_store_was_emptied),
		TEST(test_greet_strangers_are_outvoted),
		TEST(test_greet_stranger_that_was_linked),
		TEST(test_greet_full_keeps_its_link),
		TEST(test_greet_full_no_longer),
		TEST(test_greet_hellos_are_dialled_at_most),
		TEST(test_greet_younger_is_refused),
		TEST(test_greet_younger_comes_in),
		TEST(test_greet_silent_elder_gives_way),
		TEST(test_greet_who_gives_way),
		TEST(test_greet_stranger_takes_no_name),
		TEST(test_greet_name_beside_a_stranger),
		TEST(test_greet_refused_for_something_else),
	};

	return cmocka_run_group_tests_name("nodes_greet", tests, NULL, NULL);
}

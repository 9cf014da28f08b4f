#include "tests/unit/logs_fixture.h"

/* --- in order ---------------------------------------------------------- */

static void test_logs_becomes_known(void **state)
{
	struct fixture *f = *state;

	logs_open(&f->logs, f->a, LOGS_SINCE_NOW);
	turn(f, 0);
	logs_resync(&f->logs, false);
	turn(f, SWEEP_MS);
	assert_int_equal(f->tops_asked, 0); /* not announced */
	deliver(f, 0, 6);
	deliver(f, 0, 4);
	deliver(f, 0, 5);
	deliver(f, 0, 5);
	expect(f, "");
	logs_announced(&f->logs, f->a);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 1);
	assert_string_equal(f->tops_channel, "a");
	answer_tops(f, 0, 4);
	expect(f, "k0:4 p0:5 p0:6 ");
	assert_true(f->a->log->place.epoch != 0);
	assert_int_equal(f->logs.held_bytes, 0);
	deliver(f, 0, 7);
	expect(f, "p0:7 ");
	assert_false(logs_waiting(&f->logs));
}

static void test_logs_early_deliveries(void **state)
{
	struct fixture *f = *state;
	struct log *log = logs_open(&f->logs, f->a, LOGS_SINCE_NOW);

	/* Of a log that is younger than the top. */
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	deliver(f, 1, 9);
	deliver(f, 5, 1);
	deliver(f, 3, 2);
	answer_tops(f, 2, 0);
	expect(f, "k2:0 ");
	turn(f, 0);
	assert_memory_equal(&f->known, &((struct place){5, 1}),
			    sizeof(f->known));
	answer_tops(f, 5, 1);
	/* That of epoch 3 has gone, with its log. */
	expect(f, "m5:0!epoch[2:1-5:0] p5:1 ");
	logs_close(&f->logs, f->a);

	/* Of one that is older. */
	log = logs_open(&f->logs, f->a, LOGS_SINCE_NOW);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	deliver(f, 1, 9);
	answer_tops(f, 2, 1);
	expect(f, "k2:1 ");
	assert_int_equal(log->held.bytes, 0);
	deliver(f, 2, 2);
	expect(f, "p2:2 ");
	logs_close(&f->logs, f->a);

	/* So many that they were let go: fetched. */
	log = logs_open(&f->logs, f->a, LOGS_SINCE_NOW);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	for (unsigned i = 8; i < 100; i++)
		deliver(f, 0, i);
	assert_true(log->held.bytes < HELD_MAX);
	assert_true(f->logs.counters.held_dropped > 0);
	answer_tops(f, 0, 7);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 1);
	assert_int_equal(f->after, 7);
}

static void test_logs_doubles(void **state)
{
	struct fixture *f = *state;

	follow(f, 3, 5);
	deliver(f, 3, 5);
	deliver(f, 3, 1);
	deliver(f, 2, 6);
	expect(f, "");
	assert_int_equal(f->logs.counters.doubles, 3);
	deliver(f, 3, 6);
	expect(f, "p3:6 ");
	assert_string_equal(f->data, "x goal key");
	assert_int_equal(f->a->log->place.offset, 6);
}

/* Links overtake one another: nothing is fetched for that. */
static void test_logs_overtaking(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 0);
	deliver(f, 0, 3);
	deliver(f, 0, 3);
	assert_true(logs_waiting(&f->logs));
	assert_int_equal(f->logs.counters.doubles, 1);
	turn(f, LOGS_HOLE_MS - 1);
	deliver(f, 0, 5);
	deliver(f, 0, 2);
	expect(f, "");
	deliver(f, 0, 1);
	expect(f, "p0:1 p0:2 p0:3 ");
	assert_string_equal(f->data, "x goal key");
	/* A hole that came up since has its own time. */
	turn(f, LOGS_HOLE_MS - 1);
	assert_int_equal(f->histories_asked, 0);
	deliver(f, 0, 4);
	expect(f, "p0:4 p0:5 ");
	turn(f, 10 * LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 0);
	assert_false(logs_waiting(&f->logs));
	assert_int_equal(f->logs.counters.holes, 1);
}

/* --- holes ------------------------------------------------------------- */

static void test_logs_fetches_a_hole(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 2);
	deliver(f, 0, 6);
	turn(f, LOGS_HOLE_MS);
	assert_false(logs_waiting(&f->logs));
	assert_int_equal(f->histories_asked, 1);
	assert_string_equal(f->history_channel, "a");
	assert_int_equal(f->epoch, 0);
	assert_int_equal(f->after, 2);
	assert_int_equal(f->messages_max, 3); /* no more than what lacks */
	/* While it is under way one comes late, others are held. */
	deliver(f, 0, 3);
	deliver(f, 0, 8);
	deliver(f, 0, 7);
	turn(f, 5 * LOGS_HOLE_MS);
	expect(f, "p0:3 ");
	assert_int_equal(f->histories_asked, 1);
	answer_history(f, 0, 6, 1, 3, 5);
	expect(f, "p0:4 p0:5 p0:6 p0:7 p0:8 ");
	assert_int_equal(f->logs.counters.fetched, 2);
	turn(f, 5 * LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 1);
}

/* The hole is filled before the answer: that is ignored. */
static void test_logs_fetch_is_overtaken(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 2);
	deliver(f, 0, 4);
	turn(f, LOGS_HOLE_MS);
	deliver(f, 0, 3);
	expect(f, "p0:3 p0:4 ");
	answer_history(f, 0, 4, 1, 3, 3);
	expect(f, "");
}

static void test_logs_fetches_in_steps(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 0);
	logs_resync(&f->logs, false);
	turn(f, 0);
	answer_tops(f, 0, 600);
	assert_int_equal(f->logs.counters.behind, 1);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->messages_max, LOGS_FETCH);
	answer_history(f, 0, 600, 1, 1, 2);
	expect(f, "p0:1 p0:2 ");
	turn(f, 0); /* at once */
	assert_int_equal(f->histories_asked, 2);
	assert_int_equal(f->after, 2);
	answer_history(f, 0, 600, 1, 3, 3);
	deliver(f, 0, 4);
	turn(f, 0);
	assert_int_equal(f->after, 3);
	expect(f, "p0:3 p0:4 ");
	answer_history(f, 0, 600, 1, 4, 5); /* one of them a double */
	expect(f, "p0:5 ");
}

/* Held deliveries are let go when they are too many: fetched later. */
static void test_logs_held_memory_is_bounded(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 0);
	for (unsigned i = 2; i < 100; i++) {
		deliver(f, 0, i);
		assert_true(f->logs.held_bytes <= HELD_MAX);
	}
	assert_true(f->logs.counters.held_dropped > 0);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 99, 1, 1, 99);
	assert_int_equal(f->a->log->place.offset, 99);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 1);
}

/* One delivery is larger than all that may be held. */
static void test_logs_held_too_large(void **state)
{
	struct fixture *f = *state;
	static char data[HELD_MAX + 1];

	memset(data, 'x', HELD_MAX);
	follow(f, 0, 0);
	deliver_data(f, 0, 2, data);
	assert_int_equal(f->logs.held_bytes, 0);
	deliver(f, 0, 1);
	expect(f, "p0:1 ");
	turn(f, LOGS_HOLE_MS);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 1);
	answer_history(f, 0, 2, 1, 2, 2);
	expect(f, "p0:2 ");
}

/* What the store has no more is told, but what is held of it is passed on. */
static void test_logs_expired(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 2);
	deliver(f, 0, 5);
	deliver(f, 0, 9);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 9, 8, 8, 9);
	expect(f, "s0:4 p0:5 s0:7 p0:8 p0:9 ");

	/* None is left, or less than is said. */
	deliver(f, 0, 12);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 12, 13, 1, 0);
	expect(f, "s0:11 p0:12 ");
	logs_resync(&f->logs, false);
	turn(f, 0);
	answer_tops(f, 0, 15);
	/* It is said to be there, but does not come: it is asked again. */
	for (unsigned i = 0; i < LOGS_EMPTY_MAX; i++) {
		expect(f, "");
		turn(f, LOGS_HOLE_MS);
		assert_int_equal(f->after, 12);
		answer_history(f, 0, 15, 13, 1, 0);
	}
	expect(f, "s0:15 ");
	assert_int_equal(f->logs.counters.malformed, LOGS_EMPTY_MAX - 1);
	deliver(f, 0, 19);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 19, 1, 17, 18);
	expect(f, "s0:16 p0:17 p0:18 p0:19 ");
}

/* --- tops -------------------------------------------------------------- */

static void test_logs_resync_finds_the_tail(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 3);
	logs_resync(&f->logs, false);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 1);
	/* Once more while it is under way: it may have been read before. */
	logs_resync(&f->logs, false);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 1);
	answer_tops(f, 0, 3);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 2);
	answer_tops(f, 0, 5);
	expect(f, "");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 3);
	answer_history(f, 0, 5, 1, 4, 5);
	expect(f, "p0:4 p0:5 ");
	turn(f, 0);
	assert_int_equal(f->tops_asked, 2);
}

/* A client claims to be ahead: told when we are there. */
static void test_logs_ask(void **state)
{
	struct fixture *f = *state;
	uint64_t first, second;

	follow(f, 0, 10);
	logs_ask(&f->logs, f->a);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 1);
	answer_tops(f, 0, 10);
	expect(f, "k0:10 ");
	first = logs_ask(&f->logs, f->a);
	turn(f, 0);
	/* It may have been read before this one, who does not hold up the
	 * first. */
	second = logs_ask(&f->logs, f->a);
	answer_tops(f, 0, 10);
	expect(f, "k0:10 ");
	assert_true(logs_told(f->a->log, first));
	assert_false(logs_told(f->a->log, second));
	turn(f, 0);
	answer_tops(f, 0, 12);
	expect(f, "");
	assert_false(logs_told(f->a->log, second));
	deliver(f, 0, 11);
	deliver(f, 0, 12);
	deliver(f, 0, 13);
	expect(f, "p0:11 p0:12 k0:12 p0:13 ");
	assert_true(logs_told(f->a->log, second));
	logs_ask(&f->logs, f->a);
	turn(f, 0);
	answer_tops(f, 0, 9);
	/* Of no other epoch, so it is no news. */
	expect(f, "k0:13 ");
	logs_ask(&f->logs, f->a);
	turn(f, 0);
	answer_tops(f, 0, 20);
	deliver(f, 1, 1);
	turn(f, 0);
	answer_tops(f, 1, 1);
	expect(f, "m1:0!epoch[0:14-1:0] p1:1 k1:1 ");
}

/* Those that nobody asked for in SWEEP_MS, LOGS_TOPS at a time. */
static void test_logs_sweep(void **state)
{
	struct fixture *f = *state;
	static struct channel *many[3 * LOGS_TOPS];
	char name[20];
	unsigned asked = 0, turns = 0;

	for (unsigned i = 0; i < array_len(many); i++) {
		snprintf(name, sizeof(name), "c%u", i);
		many[i] = channels_get(&f->channels, name, strlen(name));
		logs_open(&f->logs, many[i], LOGS_SINCE_NOW);
		logs_announced(&f->logs, many[i]);
	}
	turn(f, 0);
	assert_int_equal(f->tops_asked, 3);
	for (unsigned i = 3; i > 0; i--) {
		f->tops_id = i;
		answer_tops(f, 0, 1);
	}
	for (unsigned i = 0; i < array_len(many); i++)
		assert_true(many[i]->log->place.epoch != 0);
	f->tops_asked = 0;
	turn(f, SWEEP_MS - 1);
	assert_int_equal(f->tops_asked, 0);
	turn(f, 1);
	assert_int_equal(f->tops_asked, 1);
	for (uint64_t end = f->now_ms + SWEEP_MS; f->now_ms < end; turns++) {
		assert_true(f->tops_asked <= 1);
		if (f->tops_asked == 1) {
			asked += (unsigned)f->tops_count;
			answer_tops(f, 0, 1);
		}
		f->tops_asked = 0;
		turn(f, 100);
	}
	assert_true(asked >= array_len(many));
	assert_true(asked <= 2 * array_len(many));
	for (unsigned i = 0; i < array_len(many); i++) {
		logs_close(&f->logs, many[i]);
		channels_forget(&f->channels, many[i]);
	}
}

/* A log that is closed while its top or a hole is asked for. */
static void test_logs_close(void **state)
{
	struct fixture *f = *state;
	struct channel *b = channels_get(&f->channels, "b", 1);

	logs_open(&f->logs, b, LOGS_SINCE_NOW);
	logs_announced(&f->logs, b);
	logs_open(&f->logs, f->a, LOGS_SINCE_NOW);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	assert_int_equal(f->tops_count, 2);
	logs_close(&f->logs, b);
	channels_forget(&f->channels, b);
	answer_tops(f, 0, 5);
	expect(f, "k0:5 ");
	deliver(f, 0, 7);
	turn(f, LOGS_HOLE_MS);
	logs_resync(&f->logs, false);
	turn(f, 0);
	logs_close(&f->logs, f->a);
	answer_history(f, 0, 7, 1, 6, 6);
	answer_tops(f, 0, 7);
	expect(f, "");
	logs_open(&f->logs, f->a, LOGS_SINCE_NOW);
	logs_announced(&f->logs, f->a);
	turn(f, 0); /* under way at the end: tear_down() */
}

/* --- nonsense ---------------------------------------------------------- */

static void test_logs_nonsense(void **state)
{
	struct fixture *f = *state;
	HistoryAnswer history = STENTOR__LINK__V1__HISTORY_ANSWER__INIT;
	TopsAnswer tops = STENTOR__LINK__V1__TOPS_ANSWER__INIT;

	follow(f, 0, 5);
	deliver(f, 0, 0);
	deliver(f, -(uint64_t)E, 7);
	assert_int_equal(f->logs.counters.malformed, 2);
	/* Nothing of the kind: the store is told of it, and begins anew. */
	deliver(f, 0, UINT64_MAX);
	deliver(f, 0, UINT64_MAX - 7);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->messages_max, LOGS_FETCH);
	answer_history(f, 0, 5, 6, 1, 0);
	expect(f, "");
	turn(f, 0);
	assert_true(f->known.offset == UINT64_MAX);
	answer_era(f, 2, 5, 0, 5);
	expect(f, "m2:5!rewound[0:6-0:-1] ");
	assert_int_equal(f->logs.held_bytes, 0);
	turn(f, 2 * LOGS_HOLE_MS);
	assert_false(logs_waiting(&f->logs));

	/* An epoch that never was: likewise. */
	deliver(f, 1000, 7);
	expect(f, "");
	turn(f, LOGS_HOLE_MS);
	assert_memory_equal(&f->known, &((struct place){1000, 7}),
			    sizeof(f->known));
	answer_era(f, 1001, 5, 2, 5);
	/* That it was there can't be excluded. */
	expect(f, "m1001:5!rewound[2:6-1001:5] ");
	assert_int_equal(f->logs.held_bytes, 0);
	turn(f, 0); /* the store is told of an epoch that it did not name */
	answer_era(f, 1001, 5, 2, 5);

	/* Answers without what was asked for: asked again. */
	deliver(f, 1001, 7);
	turn(f, LOGS_HOLE_MS);
	history.id = f->history_id;
	questions_history(&f->questions, &history, f->now_ms);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 1001, 7, UINT64_MAX, 1, 0);
	expect(f, "s1001:6 p1001:7 ");
	logs_resync(&f->logs, false);
	turn(f, 0);
	f->tops_asked = 0;
	tops.id = f->tops_id;
	questions_tops(&f->questions, &tops, f->now_ms);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 0); /* by the sweep, not at once */
	turn(f, SWEEP_MS);
	assert_int_equal(f->tops_asked, 1);
	answer_tops(f, -(uint64_t)E, 0);
	expect(f, "");
	assert_int_equal(f->logs.counters.malformed, 5);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_logs_becomes_known),
		TEST(test_logs_early_deliveries),
		TEST(test_logs_doubles),
		TEST(test_logs_overtaking),
		TEST(test_logs_fetches_a_hole),
		TEST(test_logs_fetch_is_overtaken),
		TEST(test_logs_fetches_in_steps),
		TEST(test_logs_held_memory_is_bounded),
		TEST(test_logs_held_too_large),
		TEST(test_logs_expired),
		TEST(test_logs_resync_finds_the_tail),
		TEST(test_logs_ask),
		TEST(test_logs_sweep),
		TEST(test_logs_close),
		TEST(test_logs_nonsense),
	};

	return cmocka_run_group_tests_name("logs", tests, NULL, NULL);
}

/* What logs.c does when a log is another one, when only its top is told, when
 * the sweep finds it, and for readers who were there before it. */
#include "tests/unit/logs_fixture.h"

/* --- another log ---------------------------------------------------------- */

static void test_epochs_new_log(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	deliver(f, 2, 1); /* the older one was read to its end */
	answered_new(f, 2, 1);
	expect(f, "m2:0 p2:1 ");
	deliver(f, 4, 3); /* the new one's beginning is lacking */
	answered_new(f, 4, 3);
	expect(f, "m4:0 ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->epoch, 4);
	assert_int_equal(f->after, 0);
	answer_history(f, 4, 3, 1, 1, 2);
	expect(f, "p4:1 p4:2 p4:3 ");
	deliver(f, 4, 6); /* it ends with a hole */
	deliver(f, 5, 1);
	answered_new(f, 5, 1);
	expect(f, "m5:0!epoch[4:4-5:0] p5:1 ");
	assert_int_equal(f->logs.held_bytes, 0);
	logs_resync(&f->logs, false); /* we may have missed its last */
	deliver(f, 6, 1);
	answered_new(f, 6, 1);
	expect(f, "m6:0!epoch[5:2-6:0] p6:1 ");
	/* Of the older one, late. */
	deliver(f, 7, 1);
	answered_new(f, 7, 1);
	deliver(f, 6, 3);
	expect(f, "m7:0 p7:1 l7:1!epoch[6:2-6:3] ");
}

/* Ours came and went, and then another came. */
static void test_epochs_gone(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	deliver(f, 9, 3);
	answered(f, 9, 3, 7, 2);
	expect(f, "m9:0!epoch[1:6-9:0] ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 0);
	answer_history(f, 9, 3, 1, 1, 2);
	expect(f, "p9:1 p9:2 p9:3 ");
}

static void test_epochs_absent(void **state)
{
	struct fixture *f = *state;

	follow(f, 10, 0);
	deliver(f, 12, 1);
	answered_new(f, 12, 1);
	expect(f, "m12:0 p12:1 ");
	logs_resync(&f->logs, true); /* before it there was nothing to lose */
	expect(f, "");
	logs_close(&f->logs, f->a);
	follow(f, 10, 0);
	deliver(f, 10, 1); /* made in the same millisecond */
	expect(f, "p10:1 ");

	/* Expired; what we read to its end is no gap. */
	logs_ask(&f->logs, f->a);
	answered_new(f, 20, 0);
	expect(f, "m20:0 k20:0 ");
	/* A link was lost: no log has come and gone in so short a time, */
	logs_resync(&f->logs, true);
	expect(f, "l20:0!epoch[10:2-20:0] ");
	deliver(f, 21 + TTL_MS / 2, 1);
	answered_new(f, 21 + TTL_MS / 2, 1);
	expect(f, "m2521:0 p2521:1 ");
	logs_close(&f->logs, f->a);
	/* but in so long a time perhaps. */
	follow(f, 10, 0);
	logs_resync(&f->logs, true);
	expect(f, "");
	deliver(f, 10 + TTL_MS, 1);
	answered_new(f, 10 + TTL_MS, 1);
	expect(f, "m5010:0!epoch[10:1-5010:0] p5010:1 ");
	/* Made, and emptied before it was asked for. */
	logs_close(&f->logs, f->a);
	follow(f, 10, 0);
	deliver(f, 15, 1);
	answered_new(f, 20, 0);
	expect(f, "m20:0!epoch[10:1-20:0] ");
	/* Made, and gone back, since there was none: we would have heard. */
	logs_close(&f->logs, f->a);
	follow(f, 10, 0);
	deliver(f, 30, 2);
	answered(f, 30, 2, 15, 1);
	expect(f, "m30:0 ");
}

/* The log is another one when the hole is fetched. */
static void test_epochs_fetch_finds_another(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	deliver(f, 1, 8);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 3, 2, 1, 1, 0);
	expect(f, "");
	answered_new(f, 3, 2);
	expect(f, "m3:0!epoch[1:6-3:0] ");
	assert_int_equal(f->logs.held_bytes, 0);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->epoch, 3);
	answer_history(f, 3, 2, 1, 1, 2);
	expect(f, "p3:1 p3:2 ");
	/* In the answer there is nothing of ours, and it is not fetched again
	 * until the top is known. */
	deliver(f, 3, 5);
	turn(f, LOGS_HOLE_MS);
	f->histories_asked = 0;
	answer_history(f, 4, 2, 1, 1, 0);
	turn(f, 10 * LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 0);
	answer_era(f, 4, 2, 3, 2);
	expect(f, "m4:2!rewound[3:3-3:5] ");
}

/* The store is behind what was delivered: it is asked with that, and does not
 * lose what comes. */
static void test_epochs_fetch_finds_less(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	deliver(f, 1, 9);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 1, 7, 1, 6, 7);
	expect(f, "p1:6 p1:7 ");
	turn(f, 0);
	assert_memory_equal(&f->known, &((struct place){1, 9}),
			    sizeof(f->known));
	answer_era(f, 2, 7, 1, 7);
	expect(f, "m2:7!rewound[1:8-1:9] ");
	assert_int_equal(f->logs.held_bytes, 0);
	/* It was read before, for another worker: it is there. */
	deliver(f, 2, 9);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 2, 7, 1, 1, 0);
	turn(f, 0);
	answer_era(f, 2, 9, 1, 7);
	expect(f, "");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 7);
	answer_history(f, 2, 9, 1, 8, 8);
	expect(f, "p2:8 p2:9 ");
}

/* --- tops that have moved ------------------------------------------------- */

static void test_epochs_moved_is_a_hole(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	logs_moved(&f->logs, f->a, (struct place){1 + E, 5}, f->now_ms);
	assert_false(logs_waiting(&f->logs));
	logs_moved(&f->logs, f->a, (struct place){1 + E, 7}, f->now_ms);
	assert_true(logs_waiting(&f->logs));
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 1);
	assert_int_equal(f->after, 5);
	assert_int_equal(f->messages_max, 2);
	answer_history(f, 1, 7, 1, 6, 7);
	expect(f, "p1:6 p1:7 ");
	assert_int_equal(f->tops_asked, 0);
	/* It comes by another link: nothing is read. */
	logs_moved(&f->logs, f->a, (struct place){1 + E, 8}, f->now_ms);
	deliver(f, 1, 8);
	expect(f, "p1:8 ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 1);
	/* Of another epoch. */
	logs_moved(&f->logs, f->a, (struct place){2 + E, 9}, f->now_ms);
	answered(f, 2, 9, 1, 8);
	expect(f, "m2:8 ");
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 2, 9, 1, 9, 9);
	expect(f, "p2:9 ");
	/* How far is not said. */
	logs_moved(&f->logs, f->a, (struct place){2 + E, 0}, f->now_ms);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 2);
	answer_tops(f, 2, 10);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 9);
}

/* What is said before the place is known. */
static void test_epochs_moved_before_it_is_known(void **state)
{
	struct fixture *f = *state;

	logs_open(&f->logs, f->a, LOGS_SINCE_NOW);
	logs_moved(&f->logs, f->a, (struct place){0, 0}, f->now_ms);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 0); /* not announced */
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	logs_moved(&f->logs, f->a, (struct place){1 + E, 7}, f->now_ms);
	answer_tops(f, 1, 5);
	expect(f, "k1:5 ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 5);
}

/* More than could be named: all are asked for, but not all the time. */
static void test_epochs_moved_unnamed(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	for (unsigned i = 0; i < 10; i++) {
		logs_moved_unnamed(&f->logs);
		turn(f, LOGS_LOOK_MS / 10 - 1);
		if (i == 0) {
			assert_int_equal(f->tops_asked, 1);
			answer_tops(f, 1, 7);
			turn(f, 0);
		}
	}
	assert_int_equal(f->tops_asked, 1);
	turn(f, LOGS_LOOK_MS / 5);
	assert_int_equal(f->tops_asked, 2);
	/* In doubt, because it is not known how far they went. */
	answer_era(f, 2, 7, 1, 7);
	expect(f, "m2:5!rewound[1:8-2:7] ");
	turn(f, 10 * LOGS_LOOK_MS);
	assert_int_equal(f->logs.counters.swept, 0);
}

/* --- the sweep ------------------------------------------------------------ */

/* What it alone finds is counted; what comes by itself is not. */
static void test_epochs_swept(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	turn(f, SWEEP_MS);
	assert_int_equal(f->tops_asked, 1);
	answer_tops(f, 1, 6);
	deliver(f, 1, 6); /* it was on its way */
	expect(f, "p1:6 ");
	deliver(f, 1, 8);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 1, 8, 1, 7, 7);
	expect(f, "p1:7 p1:8 ");
	assert_int_equal(f->logs.counters.swept, 0);
	turn(f, SWEEP_MS);
	assert_int_equal(f->tops_asked, 2);
	answer_tops(f, 1, 9);
	turn(f, LOGS_FOUND_MS - 1);
	assert_int_equal(f->tops_asked, 2); /* it may be on its way */
	turn(f, LOGS_AGAIN_MS);
	assert_int_equal(f->tops_asked, 3);
	assert_int_equal(f->logs.counters.swept, 0);
	answer_tops(f, 1, 9);
	assert_int_equal(f->logs.counters.swept, 1);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 1, 9, 1, 9, 9);
	expect(f, "p1:9 ");
	/* Nor is one asked that was asked for another reason. */
	turn(f, SWEEP_MS / 2);
	logs_resync(&f->logs, true);
	turn(f, 0);
	answer_tops(f, 1, 9);
	f->tops_asked = 0;
	turn(f, SWEEP_MS - 1);
	assert_int_equal(f->tops_asked, 0);
	/* A link that changed asks too: that is not the sweep. */
	turn(f, 1);
	assert_int_equal(f->tops_asked, 1);
	logs_resync(&f->logs, true);
	turn(f, 0);
	answer_tops(f, 1, 10);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 1, 10, 1, 10, 10);
	assert_int_equal(f->logs.counters.swept, 1);
	assert_int_equal(f->logs.counters.behind, 2);
}

/* What it has found is known by other means when it looks again, though not all
 * of that has come: it is being fetched, slowly. */
static void test_epochs_swept_while_fetching(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	turn(f, SWEEP_MS);
	answer_tops(f, 1, 7);
	deliver(f, 1, 8);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 1);
	turn(f, LOGS_FOUND_MS);
	assert_int_equal(f->tops_asked, 2);
	answer_tops(f, 1, 9);
	assert_int_equal(f->logs.counters.swept, 0);
	answer_history(f, 1, 9, 1, 6, 7);
	expect(f, "p1:6 p1:7 p1:8 ");
	/* The ninth may still be on its way. */
	turn(f, LOGS_FOUND_MS);
	assert_int_equal(f->tops_asked, 3);
	answer_tops(f, 1, 9);
	assert_int_equal(f->logs.counters.swept, 1);
}

/* --- who was there before the log ----------------------------------------- */

static void test_epochs_since(void **state)
{
	struct fixture *f = *state;
	static char data[HELD_MAX];

	/* The log was made after they came: all of it is owed. */
	logs_open(&f->logs, f->a, 5 + E);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	answer_tops(f, 5, 2);
	expect(f, "k5:0 ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 0);
	answer_history(f, 5, 2, 1, 1, 2);
	expect(f, "p5:1 p5:2 ");
	logs_close(&f->logs, f->a);

	/* By its oldest era. */
	logs_open(&f->logs, f->a, 7 + E);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	answer_era(f, 7, 2, 6, 2);
	expect(f, "k7:2 ");
	logs_close(&f->logs, f->a);

	/* It was there: what came meanwhile is owed. */
	logs_open(&f->logs, f->a, 6 + E);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	deliver(f, 5, 3);
	deliver(f, 5, 4);
	answer_tops(f, 5, 4);
	expect(f, "k5:2 p5:3 p5:4 ");
	logs_close(&f->logs, f->a);

	/* Nothing did. */
	logs_open(&f->logs, f->a, 6 + E);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	answer_tops(f, 5, 4);
	expect(f, "k5:4 ");
	logs_close(&f->logs, f->a);

	/* It did, and was too much to hold. */
	memset(data, 'x', HELD_MAX - 1);
	logs_open(&f->logs, f->a, 6 + E);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	deliver(f, 5, 3);
	deliver_data(f, 5, 4, data);
	assert_int_equal(f->logs.held_bytes, 0);
	answer_tops(f, 5, 4);
	expect(f, "k5:2 ");
	logs_close(&f->logs, f->a);

	/* In an epoch that was left meanwhile. */
	logs_open(&f->logs, f->a, 6 + E);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	deliver(f, 4, 3);
	answer_era(f, 5, 4, 4, 3);
	expect(f, "k5:2 p5:3 ");
}

/* No epoch is that great: nobody asks for it, and nothing is held. */
static void test_epochs_too_great(void **state)
{
	struct fixture *f = *state;
	const uint64_t most = PLACE_EPOCH_MAX - E;

	follow(f, 1, 5);
	deliver(f, most + 1, 6);
	assert_int_equal(f->logs.counters.malformed, 1);
	assert_int_equal(f->logs.held_bytes, 0);
	logs_moved(&f->logs, f->a, (struct place){most + 1 + E, 6}, f->now_ms);
	turn(f, 0);
	answer_tops(f, most + 1, 7);
	assert_int_equal(f->logs.counters.malformed, 2);
	deliver(f, 1, 6);
	expect(f, "p1:6 ");
	deliver(f, most, 7);
	answered(f, most, 7, 1, 6);
	assert_int_equal(f->logs.counters.malformed, 2);
	assert_true(f->a->log->place.epoch == PLACE_EPOCH_MAX);
}

static void test_epochs_level_or_not(void **state)
{
	struct fixture *f = *state;

	logs_open(&f->logs, f->a, LOGS_SINCE_NOW);
	assert_false(log_level(f->a->log));
	logs_close(&f->logs, f->a);
	follow(f, 1, 5);
	assert_true(log_level(f->a->log));
	deliver(f, 1, 7);
	assert_false(log_level(f->a->log)); /* behind a hole */
	deliver(f, 1, 6);
	assert_true(log_level(f->a->log));
	deliver(f, 2, 8);
	assert_false(log_level(f->a->log)); /* moving */
}

static void test_epochs_open_at(void **state)
{
	struct fixture *f = *state;

	logs_open_at(&f->logs, f->a, (struct place){5 + E, 3});
	deliver(f, 5, 4);
	expect(f, "p5:4 ");
	turn(f, 0);
	assert_int_equal(f->tops_asked, 1);
	assert_int_equal(f->known.offset, 4);
	answer_tops(f, 5, 6);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 4);
	answer_history(f, 5, 6, 1, 5, 6);
	expect(f, "p5:5 p5:6 ");
	logs_close(&f->logs, f->a);
	/* What there was after it nobody knows. */
	logs_open_at(&f->logs, f->a, (struct place){5 + E, 3});
	turn(f, 0);
	answer_era(f, 6, 4, 5, 4);
	expect(f, "m6:3!rewound[5:5-6:4] ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_epochs_new_log),
		TEST(test_epochs_gone),
		TEST(test_epochs_absent),
		TEST(test_epochs_fetch_finds_another),
		TEST(test_epochs_fetch_finds_less),
		TEST(test_epochs_moved_is_a_hole),
		TEST(test_epochs_moved_before_it_is_known),
		TEST(test_epochs_moved_unnamed),
		TEST(test_epochs_swept),
		TEST(test_epochs_swept_while_fetching),
		TEST(test_epochs_since),
		TEST(test_epochs_too_great),
		TEST(test_epochs_level_or_not),
		TEST(test_epochs_open_at),
	};

	return cmocka_run_group_tests_name("logs_moved", tests, NULL, NULL);
}

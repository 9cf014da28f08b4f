/* What logs.c does when a log is in another epoch: each row of its table. */
#include "tests/unit/logs_fixture.h"

/* --- the log has an era with ours --------------------------------------- */

/* The store lost 8 and 9; we had all: nothing to tell, nothing doubled. */
static void test_epochs_level(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 9);
	deliver(f, 2, 8);
	expect(f, "");
	assert_int_equal(f->logs.held_bytes > 0, true);
	turn(f, 0);
	/* What we have seen goes with the question. */
	assert_memory_equal(&f->known, &((struct place){2, 8}),
			    sizeof(f->known));
	answer_era(f, 2, 8, 1, 7);
	expect(f, "m2:7 p2:8 ");
	assert_int_equal(f->logs.counters.moved, 1);
	deliver(f, 2, 9);
	expect(f, "p2:9 ");
	assert_int_equal(f->histories_asked, 0);
}

/* Messages that we lack are there in the new epoch: none is lost. */
static void test_epochs_behind(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	deliver(f, 2, 8);
	answered(f, 2, 8, 1, 7);
	expect(f, "m2:5 ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->epoch, 2);
	assert_int_equal(f->after, 5);
	assert_int_equal(f->messages_max, 2);
	answer_history(f, 2, 8, 1, 6, 7);
	expect(f, "p2:6 p2:7 p2:8 ");
}

/* What was known to be there, and is not any more, is told exactly. */
static void test_epochs_known_to_be_lost(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	deliver(f, 1, 9); /* and so are 6 to 8 */
	deliver(f, 2, 8);
	answered(f, 2, 8, 1, 7);
	expect(f, "m2:5!rewound[1:8-1:9] ");
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 2, 8, 1, 6, 7);
	expect(f, "p2:6 p2:7 p2:8 ");

	/* Told by a top, and we had more than was left. */
	logs_close(&f->logs, f->a);
	follow(f, 1, 9);
	logs_moved(&f->logs, f->a, (struct place){1 + E, 12}, f->now_ms);
	deliver(f, 2, 8);
	answered(f, 2, 8, 1, 7);
	expect(f, "m2:7!rewound[1:10-1:12] p2:8 ");
}

/* A link has changed, or there is a dispatcher that we have no link to. */
static void test_epochs_doubt(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 9);
	logs_resync(&f->logs, false);
	turn(f, 0);
	answer_era(f, 2, 8, 1, 7);
	expect(f, "m2:7!rewound[1:10-2:7] ");
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 2, 8, 1, 8, 8);
	expect(f, "p2:8 ");

	/* The doubt is over with the answer; of a link it is not. */
	f->apart = true;
	deliver(f, 3, 7);
	answered(f, 3, 7, 2, 6);
	expect(f, "m3:6!rewound[2:9-3:6] p3:7 ");
	f->apart = false;
	deliver(f, 4, 7);
	answered(f, 4, 7, 3, 6);
	expect(f, "m4:6 p4:7 ");
	/* In doubt what is known does not bound what was lost. */
	deliver(f, 4, 10);
	logs_resync(&f->logs, false);
	turn(f, 0);
	answer_era(f, 5, 7, 4, 7);
	expect(f, "m5:7!rewound[4:8-5:7] ");
}

/* The doubt is for the answer that was asked after the link changed. */
static void test_epochs_doubt_ends_with_the_right_answer(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 3);
	logs_ask(&f->logs, f->a);
	turn(f, 0);
	logs_resync(&f->logs, false);
	answer_tops(f, 1, 3);
	expect(f, "");
	turn(f, 0);
	answer_era(f, 2, 3, 1, 3);
	expect(f, "m2:3!rewound[1:4-2:3] k2:3 ");
	turn(f, 0);
	logs_resync(&f->logs, false);
	turn(f, 0);
	answer_tops(f, 2, 3);
	deliver(f, 3, 4);
	answered(f, 3, 4, 2, 3);
	expect(f, "m3:3 p3:4 ");
}

/* A dispatcher could not say how far a log went. */
static void test_epochs_doubt_of_an_unknown_top(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 3);
	logs_moved(&f->logs, f->a, (struct place){0, 0}, f->now_ms);
	turn(f, 0);
	answer_era(f, 2, 3, 1, 3);
	expect(f, "m2:3!rewound[1:4-2:3] ");
}

/* --- the earlier epoch by a slower link ---------------------------------- */

/* Before the move is done they are passed on as ever. */
static void test_epochs_older_before_the_move(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 6);
	deliver(f, 2, 8);
	turn(f, 0);
	deliver(f, 1, 7);
	deliver(f, 1, 8);
	expect(f, "p1:7 p1:8 ");
	deliver(f, 1, 10);
	answer_era(f, 2, 8, 1, 7);
	expect(f, "m2:7!rewound[1:9-1:10] p2:8 ");
	assert_int_equal(f->logs.held_bytes, 0);
}

/* Held messages of the earlier epoch have their place in the new one. */
static void test_epochs_held_are_carried(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 3);
	deliver(f, 1, 5);
	deliver(f, 1, 6);
	deliver(f, 2, 6); /* the same */
	deliver(f, 2, 8);
	answered(f, 2, 8, 1, 7);
	expect(f, "m2:3 ");
	deliver(f, 1, 4);
	expect(f, "p2:4 p2:5 p2:6 ");
	deliver(f, 1, 7);
	expect(f, "p2:7 p2:8 ");
	assert_int_equal(f->histories_asked, 0);
	assert_int_equal(f->logs.held_bytes, 0);
}

/* After it, what both have is the same; what is lost is told, once. */
static void test_epochs_older_after_the_move(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 6);
	deliver(f, 2, 8);
	answered(f, 2, 8, 1, 7);
	expect(f, "m2:6 ");
	deliver(f, 1, 6);
	expect(f, "");
	deliver(f, 1, 9);
	expect(f, "l2:6!rewound[1:8-1:9] ");
	deliver(f, 1, 8);
	deliver(f, 1, 9);
	logs_moved(&f->logs, f->a, (struct place){1 + E, 9}, f->now_ms);
	expect(f, "");
	deliver(f, 1, 7);
	expect(f, "p2:7 p2:8 ");
	logs_moved(&f->logs, f->a, (struct place){1 + E, 11}, f->now_ms);
	expect(f, "l2:8!rewound[1:10-1:11] ");
	/* What both have is no news either. */
	logs_moved(&f->logs, f->a, (struct place){1 + E, 7}, f->now_ms);
	deliver(f, 0, 3); /* of an epoch that nobody knows */
	expect(f, "");
}

/* It was told already that nobody knows what there was. */
static void test_epochs_older_in_doubt(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 6);
	f->apart = true;
	deliver(f, 2, 7);
	answered(f, 2, 7, 1, 6);
	expect(f, "m2:6!rewound[1:7-2:6] p2:7 ");
	deliver(f, 1, 9);
	expect(f, "");
}

/* The store went back behind the beginning of our epoch, 2, which went on from
 * 1:6, and knows it no more. What both have of 1 is not told again. */
static void test_epochs_forgotten_by_the_store(void **state)
{
	struct fixture *f = *state;
	struct place claim = {E + 2, 5};
	struct gap gap;

	follow(f, 1, 6);
	deliver(f, 2, 7);
	answered(f, 2, 7, 1, 6);
	expect(f, "m2:6 p2:7 ");
	deliver(f, 3, 9); /* the store has 8, of epoch 1 */
	answered(f, 3, 9, 1, 8);
	expect(f, "m3:6!rewound[2:8-3:6] ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 6);
	/* The store is told what it has forgotten. */
	assert_memory_equal(&f->known, &((struct place){3, 9}),
			    sizeof(f->known));
	assert_int_equal(f->known_eras, 2);
	f->eras[1] = (struct place){1, 8};
	answer_era(f, 3, 9, 2, 6);
	f->eras[1] = (struct place){0, 0};
	turn(f, 0);

	/* Once more: 2 is not forgotten by us. */
	deliver(f, 4, 6);
	answered(f, 4, 6, 3, 5);
	expect(f, "m4:5!rewound[3:7-3:9] p4:6 ");
	assert_true(past_map(f->a->log->past, &claim, &gap));
	assert_int_equal(claim.epoch, E + 4);
	assert_int_equal(claim.offset, 5);
	assert_int_equal(gap.reason, GAP_REWOUND);
	claim = (struct place){E + 2, 7};
	assert_true(past_map(f->a->log->past, &claim, &gap));
	assert_int_equal(claim.offset, 5);
}

/* What we passed on of epoch 1, and then lost to 2, comes back in 3. */
static void test_epochs_come_back(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 8);
	deliver(f, 2, 7);
	answered(f, 2, 7, 1, 6);
	expect(f, "m2:6 p2:7 ");
	deliver(f, 3, 10); /* the store has 1:1 to 1:9 */
	answered(f, 3, 10, 1, 9);
	expect(f, "m3:8!rewound[2:8-3:6] ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 8);
}

/* What may have been on its way by a link that has ended. */
static void test_epochs_older_lost_with_its_link(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 6);
	deliver(f, 2, 7);
	answered(f, 2, 7, 1, 6);
	expect(f, "m2:6 p2:7 ");
	logs_resync(&f->logs, false);
	expect(f, "");
	logs_resync(&f->logs, true);
	expect(f, "l2:7!rewound[1:7-2:6] ");
	logs_resync(&f->logs, true); /* once */
	deliver(f, 1, 9);
	expect(f, "");
	turn(f, 0);
	answer_tops(f, 2, 7);

	/* Long after the move nothing of the kind is under way. */
	deliver(f, 3, 8);
	answered(f, 3, 8, 2, 7);
	expect(f, "m3:7 p3:8 ");
	turn(f, LOGS_LATE_MS);
	logs_resync(&f->logs, true);
	expect(f, "");
	answer_tops(f, 3, 8); /* of the sweep */
	turn(f, 0);
	answer_tops(f, 3, 8);
	deliver(f, 4, 9);
	answered(f, 4, 9, 3, 8);
	expect(f, "m4:8 p4:9 ");
	logs_resync(&f->logs, true);
	expect(f, "l4:9!rewound[3:9-4:8] ");
}

/* The store was emptied, and asked before it had anything again: that there was
 * no log was an epoch too, but none that anything could be lost of. */
static void test_epochs_older_lost_behind_none(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 6);
	logs_ask(&f->logs, f->a);
	answered_new(f, 2, 0);
	expect(f, "m2:0 k2:0 ");
	deliver(f, 3, 1);
	answered_new(f, 3, 1);
	expect(f, "m3:0 p3:1 ");
	logs_resync(&f->logs, true);
	expect(f, "l3:1!epoch[1:7-2:0] ");
	logs_resync(&f->logs, true); /* once */
	expect(f, "");
}

/* What the later step has lost was told; of the one before it, more comes. */
static void test_epochs_older_lost_by_two_steps(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 6);
	deliver(f, 2, 7);
	answered(f, 2, 7, 1, 6);
	deliver(f, 3, 7);
	answered(f, 3, 7, 2, 6);
	expect(f, "m2:6 p2:7 m3:6 p3:7 ");
	deliver(f, 1, 7);
	expect(f, "l3:7!rewound[1:7-1:7] ");
	deliver(f, 1, 7);
	expect(f, "");
	logs_resync(&f->logs, true);
	expect(f, "l3:7!rewound[1:8-2:6] l3:7!rewound[2:8-3:6] ");
}

/* --- several epochs ------------------------------------------------------ */

static struct gap mapped(struct fixture *f, struct place *at)
{
	struct gap gap;

	at->epoch += E;
	assert_true(past_map(f->a->log->past, at, &gap));
	at->epoch -= E;
	gap.from.epoch -= E;
	gap.to.epoch -= E;
	return gap;
}

#define expect_gap(gap, why, e1, o1, e2, o2)             \
	do {                                             \
		assert_int_equal((gap).reason, why);     \
		assert_int_equal((gap).from.epoch, e1);  \
		assert_int_equal((gap).from.offset, o1); \
		assert_int_equal((gap).to.epoch, e2);    \
		assert_int_equal((gap).to.offset, o2);   \
	} while (0)

/* Places that are several epochs old. */
static void test_epochs_places_of_long_ago(void **state)
{
	struct fixture *f = *state;
	struct place at = {1, 9};
	struct gap gap;

	follow(f, 1, 9);
	deliver(f, 2, 8);
	answered(f, 2, 8, 1, 7);
	deliver(f, 3, 9);
	f->eras[1] = (struct place){1, 7};
	answered(f, 3, 9, 2, 8);
	expect(f, "m2:7 p2:8 m3:8 p3:9 ");
	/* It had all there was. */
	assert_int_equal(mapped(f, &at).reason, -1);
	assert_int_equal(at.offset, 7);
	at = (struct place){1, 8};
	gap = mapped(f, &at);
	expect_gap(gap, GAP_REWOUND, 1, 9, 1, 9);
	at = (struct place){1, 3};
	gap = mapped(f, &at);
	expect_gap(gap, GAP_REWOUND, 1, 8, 1, 9);
	assert_int_equal(at.offset, 3);
	at = (struct place){2, 8};
	assert_int_equal(mapped(f, &at).reason, -1);
	assert_int_equal(at.offset, 8);

	/* The next step loses 9, which none of those has. */
	f->eras[1] = (struct place){2, 8};
	f->eras[2] = (struct place){1, 7};
	deliver(f, 4, 9);
	answered(f, 4, 9, 3, 8);
	expect(f, "m4:8 p4:9 ");
	at = (struct place){3, 9};
	assert_int_equal(mapped(f, &at).reason, -1);
	at = (struct place){1, 9};
	gap = mapped(f, &at);
	expect_gap(gap, GAP_REWOUND, 1, 10, 4, 7);
}

/* Eras from before our time: nobody here knows what they had. */
static void test_epochs_before_our_time(void **state)
{
	struct fixture *f = *state;
	struct place at = {3, 12};
	struct gap gap;

	logs_open(&f->logs, f->a, LOGS_SINCE_NOW);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	assert_int_equal(f->known.epoch, 0);
	answer_era(f, 5, 20, 3, 10);
	expect(f, "k5:20 ");
	gap = mapped(f, &at);
	expect_gap(gap, GAP_REWOUND, 3, 13, 5, 10);
	assert_int_equal(at.epoch, 5);
	assert_int_equal(at.offset, 10);
	/* Nor are they told to those who are here. */
	deliver(f, 3, 11);
	expect(f, "");
}

/* What was held of an epoch between is lost, and told. */
static void test_epochs_one_between(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	deliver(f, 2, 6);
	deliver(f, 2, 7);
	f->eras[1] = (struct place){1, 5};
	answered(f, 3, 7, 2, 6);
	expect(f, "m3:5!rewound[1:6-3:5] p3:6 ");
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 3, 7, 1, 7, 7);
	expect(f, "p3:7 ");
	/* Not the newest that came. */
	deliver(f, 4, 8);
	deliver(f, 5, 8);
	f->eras[1] = (struct place){3, 7};
	answered(f, 5, 8, 4, 7);
	expect(f, "m5:7!rewound[3:8-5:7] p5:8 ");
	/* It was there in both: nothing is lost. */
	deliver(f, 6, 9);
	deliver(f, 6, 10);
	f->eras[1] = (struct place){5, 8};
	answered(f, 7, 10, 6, 10);
	expect(f, "m7:8 p7:9 p7:10 ");
	/* Told by a top alone. */
	logs_moved(&f->logs, f->a, (struct place){8 + E, 13}, f->now_ms);
	f->eras[1] = (struct place){7, 10};
	answered(f, 9, 12, 8, 12);
	expect(f, "m9:10!rewound[7:11-9:10] ");
}

/* The answer was read before the epoch that something came of. */
static void test_epochs_asks_until_it_is_there(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	logs_ask(&f->logs, f->a);
	turn(f, 0);
	deliver(f, 3, 6);
	answer_tops(f, 1, 5);
	expect(f, ""); /* it moved since that was asked */
	answered(f, 2, 5, 1, 5);
	expect(f, "m2:5 k2:5 ");
	/* Not at once: who answers may be far behind, or its epoch a lie. */
	f->tops_asked = 0;
	turn(f, LOGS_AGAIN_MS - 1);
	assert_int_equal(f->tops_asked, 0);
	deliver(f, 3, 6);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 0);
	f->eras[1] = (struct place){1, 5};
	turn(f, 1);
	assert_int_equal(f->tops_asked, 1);
	answer_era(f, 3, 6, 2, 5);
	expect(f, "m3:5 p3:6 ");
	/* One that was read long ago changes nothing. */
	logs_ask(&f->logs, f->a);
	turn(f, 0);
	answer_tops(f, 2, 9);
	expect(f, "k3:6 ");
}

/* Too many are held: they are fetched. */
static void test_epochs_held_memory_is_bounded(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	turn(f, 0);
	for (unsigned i = 6; i < 100; i++) {
		deliver(f, 2, i);
		assert_true(f->logs.held_bytes <= HELD_MAX);
	}
	answered(f, 2, 99, 1, 5);
	expect(f, "m2:5 ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 5);
	answer_history(f, 2, 99, 1, 6, 99);
	assert_int_equal(f->a->log->place.offset, 99);
}

/* Of an epoch between nothing else tells that it was there. */
static void test_epochs_held_between_is_let_go(void **state)
{
	struct fixture *f = *state;
	static char data[HELD_MAX];

	logs_open(&f->logs, f->a, LOGS_SINCE_NOW);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	deliver(f, 1, 6);
	memset(data, 'x', HELD_MAX - 1);
	deliver_data(f, 2, 6, data);
	assert_int_equal(f->logs.held_bytes, 0);
	answer_tops(f, 1, 5);
	expect(f, "k1:5 ");
	answered(f, 2, 6, 1, 5);
	expect(f, "m2:5!rewound[1:6-2:5] ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_epochs_level),
		TEST(test_epochs_behind),
		TEST(test_epochs_known_to_be_lost),
		TEST(test_epochs_doubt),
		TEST(test_epochs_doubt_ends_with_the_right_answer),
		TEST(test_epochs_doubt_of_an_unknown_top),
		TEST(test_epochs_older_before_the_move),
		TEST(test_epochs_held_are_carried),
		TEST(test_epochs_older_after_the_move),
		TEST(test_epochs_older_in_doubt),
		TEST(test_epochs_forgotten_by_the_store),
		TEST(test_epochs_come_back),
		TEST(test_epochs_older_lost_with_its_link),
		TEST(test_epochs_older_lost_behind_none),
		TEST(test_epochs_older_lost_by_two_steps),
		TEST(test_epochs_places_of_long_ago),
		TEST(test_epochs_before_our_time),
		TEST(test_epochs_one_between),
		TEST(test_epochs_asks_until_it_is_there),
		TEST(test_epochs_held_memory_is_bounded),
		TEST(test_epochs_held_between_is_let_go),
	};

	return cmocka_run_group_tests_name("logs_epochs", tests, NULL, NULL);
}

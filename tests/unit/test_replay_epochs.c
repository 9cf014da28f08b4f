/* What clients get and are told when the store has gone back, when their place
 * can't be honoured, and when their channels change class. */
#include "tests/unit/replay_fixture.h"

static const char *gap_range(uint64_t e1, uint64_t o1, uint64_t e2, uint64_t o2)
{
	static char text[256];

	snprintf(text, sizeof(text),
		 "\"from\":{\"epoch\":\"%llu\",\"offset\":\"%llu\"},"
		 "\"to\":{\"epoch\":\"%llu\",\"offset\":\"%llu\"}}",
		 (unsigned long long)e1, (unsigned long long)o1,
		 (unsigned long long)e2, (unsigned long long)o2);
	return text;
}

#define expect_gap(e1, o1, e2, o2) \
	assert_non_null(strstr(last_gap, gap_range(e1, o1, e2, o2)))

/* The store has only the first `base` messages of its log any more. */
static void go_back(struct fixture *f, uint64_t base)
{
	memmove(f->eras + 1, f->eras, 6 * sizeof(f->eras[0]));
	f->eras[0] = (struct place){f->top.epoch, base};
	for (unsigned i = 1; f->eras[i].epoch != 0; i++)
		f->eras[i].offset = min_of(f->eras[i].offset, base);
	f->top = (struct place){f->top.epoch + 1, base};
}

/* --- the store goes back ------------------------------------------------ */

static void test_replay_level_is_told_nothing(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	join(f, 0, "a", NULL);
	settled(f, 0);
	go_back(f, 7);
	f->top.offset = 9;
	deliver(f, "a", 8);
	deliver(f, "a", 9);
	assert_string_equal(taken(f, 0), "");
	assert_string_equal(settled(f, 0), "m8 m9 ");
	assert_string_equal(last_id, id_of(EPOCH + 1, 9));
}

static void test_replay_doubt_is_told(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	join(f, 0, "a", NULL);
	settled(f, 0);
	go_back(f, 7);
	logs_resync(&f->w.logs, true);
	assert_string_equal(settled(f, 0), "gap:rewound ");
	expect_gap(EPOCH, 10, EPOCH + 1, 7);
	/* Behind it. */
	assert_string_equal(gap_id, id_of(EPOCH + 1, 7));
	deliver(f, "a", 8);
	assert_string_equal(taken(f, 0), "m8 ");
	assert_string_equal(last_id, id_of(EPOCH + 1, 8));
	/* A dispatcher is named that we have no link to. */
	f->link->peers[0] = 77;
	f->link->peer_count = 1;
	go_back(f, 8);
	f->top.offset = 9;
	deliver(f, "a", 9);
	assert_string_equal(settled(f, 0), "gap:rewound m9 ");
}

/* What was known of, and is lost before it came. */
static void test_replay_lost_is_told_exactly(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 5;
	join(f, 0, "a", NULL);
	settled(f, 0);
	deliver(f, "a", 9);
	go_back(f, 7);
	f->top.offset = 8;
	deliver(f, "a", 8);
	assert_string_equal(settled(f, 0), "gap:rewound m6 m7 m8 ");
	expect_gap(EPOCH, 8, EPOCH, 9);
	/* It has yet to get what is there. */
	assert_string_equal(gap_id, id_of(EPOCH + 1, 5));
	/* By a slower link, one more that is lost. */
	deliver_at(f, "a", EPOCH, 10);
	assert_string_equal(taken(f, 0), "gap:rewound ");
	expect_gap(EPOCH, 10, EPOCH, 10);
	assert_string_equal(gap_id, id_of(EPOCH + 1, 8));
}

/* A client that is ahead of us, where the store loses what it had. */
static void test_replay_ahead_of_what_is_lost(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 5;
	join(f, 1, "a", NULL);
	settled(f, 1);
	f->top.offset = 9;
	join(f, 0, "a", id_of(EPOCH, 9));
	turn(f);
	answer(f); /* the top; 6 to 9 are fetched now */
	turn(f);
	go_back(f, 7);
	f->top.offset = 9;
	deliver(f, "a", 8);
	deliver(f, "a", 9);
	assert_string_equal(settled(f, 0), "ready m8 m9 ");
	assert_string_equal(taken(f, 1), "gap:rewound m6 m7 m8 m9 ");
	expect_gap(EPOCH, 8, EPOCH, 9);
}

/* Pages that were read before are of no use after it. */
static void test_replay_pages_are_of_one_epoch(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	join(f, 1, "a", id_of(EPOCH, 4));
	assert_string_equal(settled(f, 1), "ready m5 m6 m7 m8 m9 ");
	join(f, 0, "a", id_of(EPOCH, 5));
	join(f, 2, "a", id_of(EPOCH, 8));
	turn(f); /* a page is shared, or asked for */
	go_back(f, 7);
	f->top.offset = 10;
	deliver(f, "a", 8);
	assert_string_equal(taken(f, 1), "");
	/* It was given its page before the news came. */
	assert_string_equal(settled(f, 0), "ready m6 m7 m8 m9 m8 m9 m10 ");
	assert_string_equal(settled(f, 2), "ready m9 m8 m9 m10 ");
	assert_string_equal(taken(f, 1), "m8 m9 m10 ");
	/* One that comes now gets all that is new, and nothing of before. */
	join(f, 3, "a", id_of(EPOCH, 5));
	assert_string_equal(settled(f, 3),
			    "gap:rewound ready m6 m7 m8 m9 m10 ");
	expect_gap(EPOCH, 8, EPOCH, 9);
	join(f, 4, "a", id_of(EPOCH, 9));
	assert_string_equal(settled(f, 4), "ready m8 m9 m10 ");
}

/* Replays under way are moved: what is missing is told to each by its place. */
static void test_replay_under_way(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	join(f, 1, "a", NULL);
	settled(f, 1);
	join(f, 0, "a", id_of(EPOCH, 3));
	join(f, 2, "a", id_of(EPOCH, 8));
	turn(f); /* the page is asked for, and not answered */
	go_back(f, 7);
	f->top.offset = 8;
	deliver(f, "a", 8);
	assert_string_equal(settled(f, 0), "ready gap:rewound m4 m5 m6 m7 m8 ");
	expect_gap(EPOCH, 8, EPOCH, 9);
	assert_string_equal(gap_id, id_of(EPOCH + 1, 3));
	assert_string_equal(taken(f, 2), "ready gap:rewound m8 ");
	expect_gap(EPOCH, 9, EPOCH, 9);
	assert_string_equal(taken(f, 1), "m8 ");
}

/* One that found nothing at its place waits for the top, which it never reaches:
 * then its log moves. */
static void test_replay_at_what_is_lost(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	join(f, 1, "a", NULL);
	settled(f, 1);
	f->top.offset = 6; /* lost, and nobody has said so yet */
	join(f, 0, "a", id_of(EPOCH, 8));
	assert_string_equal(settled(f, 0), "ready ");
	go_back(f, 6);
	f->top.offset = 7;
	deliver(f, "a", 7);
	assert_string_equal(settled(f, 0), "gap:rewound m7 ");
	expect_gap(EPOCH, 9, EPOCH, 9);
	assert_string_equal(taken(f, 1), "m7 ");
}

/* The first of a channel is held too, until it has what it missed. */
static void test_replay_first_comer_is_held(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	join(f, 0, "a", id_of(EPOCH, 6));
	turn(f);
	answer(f); /* the top */
	turn(f);   /* the page is asked for */
	deliver(f, "a", 10);
	f->top.offset = 10;
	assert_string_equal(taken(f, 0), "ready ");
	assert_string_equal(settled(f, 0), "m7 m8 m9 m10 ");
}

/* The log's place skips what is not kept, or learns late what was lost: who is
 * ahead of that is not told, nor who is yet to be judged. */
static void test_replay_skipped_and_lost(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 3;
	join(f, 0, "a", NULL);
	settled(f, 0);
	f->top.offset = 9;
	join(f, 1, "a", id_of(EPOCH, 8));
	turn(f);
	answer(f); /* 4 to 9 are fetched now; that one is ahead */
	f->first = 8;
	join(f, 2, "a", id_of(EPOCH, 99)); /* not judged yet */
	assert_string_equal(settled(f, 0), "gap:expired m8 m9 ");
	expect_gap(EPOCH, 4, EPOCH, 7);
	assert_string_equal(taken(f, 1), "ready m9 ");
	assert_string_equal(settled(f, 2), "gap:unknown ready m8 m9 ");
	leave(&f->sessions[2]);

	go_back(f, 9);
	f->top.offset = 10;
	deliver(f, "a", 10);
	settled(f, 0);
	taken(f, 1);
	join(f, 3, "a", id_of(EPOCH + 1, 99));
	turn(f); /* asked */
	deliver_at(f, "a", EPOCH, 12);
	assert_string_equal(taken(f, 0), "gap:rewound ");
	assert_string_equal(taken(f, 3), "");
	assert_string_equal(settled(f, 3), "gap:unknown ready m8 m9 m10 ");

	/* Nothing of it was owed to who came later, unless it had a place
	 * there. */
	join(f, 4, "a", NULL);
	join(f, 5, "a", id_of(EPOCH, 9));
	assert_string_equal(settled(f, 4), "ready ");
	assert_string_equal(taken(f, 5), "gap:rewound ready m10 ");
	deliver_at(f, "a", EPOCH, 14);
	assert_string_equal(taken(f, 0), "gap:rewound ");
	assert_string_equal(taken(f, 4), "");
	assert_string_equal(taken(f, 5), "gap:rewound ");
	expect_gap(EPOCH, 13, EPOCH, 14);
}

/* Many in the same place are told the same, and it is written once. */
static void test_replay_gap_is_shared(void **state)
{
	struct fixture *f = *state;
	struct frame *gap[4];

	f->top.offset = 9;
	for (unsigned i = 0; i < 4; i++) {
		join(f, i, i == 2 ? "a b" : "a", NULL);
		settled(f, i);
	}
	f->top.offset = 20;
	f->first = 15;
	deliver(f, "a", 20);
	for (unsigned n = 0; n < 10; n++) {
		turn(f);
		answer(f);
	}
	for (unsigned i = 0; i < 4; i++) {
		struct outq *q = &f->sessions[i].out;

		gap[i] = q->ring[q->head];
	}
	assert_ptr_equal(gap[0], gap[1]);
	assert_ptr_not_equal(gap[0], gap[2]); /* it has an id of its own */
	assert_ptr_equal(gap[0], gap[3]);
	assert_int_equal(gap[0]->refs, 3);
	assert_int_equal(metric_get(&f->w.metrics, NM_GAPS, GAP_EXPIRED), 4);
	for (unsigned i = 0; i < 4; i++)
		assert_non_null(strstr(taken(f, i), "gap:expired m15 "));
}

/* --- claims -------------------------------------------------------------- */

static void test_claim_of_an_earlier_epoch(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	go_back(f, 7);
	f->top.offset = 8;
	go_back(f, 8);
	f->top.offset = 9;
	/* Nobody here knows what those epochs had. */
	join(f, 0, "a", id_of(EPOCH, 9));
	assert_string_equal(settled(f, 0), "gap:rewound ready m8 m9 ");
	expect_gap(EPOCH, 10, EPOCH + 2, 7);
	assert_string_equal(gap_id, id_of(EPOCH + 2, 7));
	join(f, 1, "a", id_of(EPOCH, 5));
	assert_string_equal(settled(f, 1), "gap:rewound ready m6 m7 m8 m9 ");
	expect_gap(EPOCH, 8, EPOCH + 2, 7);
	join(f, 2, "a", id_of(EPOCH + 1, 8));
	assert_string_equal(settled(f, 2), "gap:rewound ready m9 ");
	expect_gap(EPOCH + 1, 9, EPOCH + 2, 8);
	/* What it is owed of it has expired. */
	f->first = 8;
	leave(&f->sessions[0]);
	leave(&f->sessions[1]);
	leave(&f->sessions[2]);
	join(f, 3, "a", id_of(EPOCH, 5));
	assert_string_equal(settled(f, 3),
			    "gap:rewound ready gap:expired m8 m9 ");
	expect_gap(EPOCH + 2, 6, EPOCH + 2, 7);
}

/* The gap's id is the place behind it: who comes back at once is told it once,
 * and gets what is kept. */
static void test_claim_is_told_once(void **state)
{
	struct fixture *f = *state;
	const char *claims[] = {"!!!", NULL, NULL};
	char wrong[128], gone[128];

	strcpy(wrong, id_of(EPOCH, 99));
	strcpy(gone, id_of(EPOCH - 5, 3));
	claims[1] = wrong;
	claims[2] = gone;
	f->top.offset = 2;
	for (unsigned i = 0; i < array_len(claims); i++) {
		join(f, 2 * i, "a", claims[i]);
		assert_non_null(strstr(settled(f, 2 * i), "ready m1 m2 "));
		join(f, 2 * i + 1, "a", gap_id);
		assert_string_equal(settled(f, 2 * i + 1), "ready m1 m2 ");
	}
}

/* With several channels it is over all of them, as far as they were told. */
static void test_claim_is_told_once_of_several(void **state)
{
	struct fixture *f = *state;
	char first[128], second[128];
	struct session *s = &f->sessions[0];

	f->top.offset = 2;
	join(f, 0, "a b", "!!!");
	for (unsigned n = 0; n < 5 && !s->ready; n++) {
		turn(f);
		answer(f);
	}
	assert_string_equal(settled(f, 0),
			    "gap:malformed gap:malformed ready m1 m2 m1 m2 ");
	strcpy(second, gap_id);
	/* Cut between the two: the other is told then. */
	join(f, 1, "a b", second);
	assert_string_equal(settled(f, 1), "ready m1 m2 m1 m2 ");
	place_encode(first, f->sessions[0].list_hash,
		     (struct place[]){{EPOCH, 0}, {1, 1}}, 2);
	join(f, 2, "a b", first);
	assert_string_equal(settled(f, 2), "gap:epoch ready m1 m2 m1 m2 ");
}

/* Where nothing is kept, and nothing can have been missed. */
static void test_claim_on_nothing(void **state)
{
	struct fixture *f = *state;

	join(f, 0, "a", "!!!");
	assert_string_equal(settled(f, 0), "ready ");
	join(f, 1, "a", id_of(EPOCH - 5, 0));
	assert_string_equal(settled(f, 1), "ready ");
	join(f, 2, "a", id_of(EPOCH - 5, 4));
	assert_string_equal(settled(f, 2), "gap:epoch ready ");
	expect_gap(EPOCH - 5, 5, EPOCH, 0);
	join(f, 3, "a", id_of(EPOCH - 2 * 86400000ull, 0));
	assert_string_equal(settled(f, 3), "ready ");
	join(f, 4, "a", id_of(EPOCH + 99, 0));
	assert_string_equal(settled(f, 4), "ready ");
	deliver(f, "a", 1);
	assert_string_equal(taken(f, 0), "m1 ");
	assert_string_equal(taken(f, 4), "m1 ");
}

/* A client of a faster node is in the next epoch already. */
static void test_claim_of_a_later_epoch(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	join(f, 1, "a", NULL);
	settled(f, 1);
	go_back(f, 7);
	f->top.offset = 8;
	join(f, 0, "a", id_of(EPOCH + 1, 8));
	assert_string_equal(settled(f, 0), "ready ");
	assert_string_equal(settled(f, 1), "m8 ");
	deliver(f, "a", 9);
	assert_string_equal(taken(f, 0), "m9 ");
}

/* It saw that there was no log; then one was made, and gone back. */
static void test_claim_before_the_log(void **state)
{
	struct fixture *f = *state;

	f->top = (struct place){EPOCH + 50, 3};
	go_back(f, 2);
	f->top.offset = 3;
	join(f, 0, "a", id_of(EPOCH, 0));
	assert_string_equal(settled(f, 0), "gap:rewound ready m1 m2 m3 ");
	expect_gap(EPOCH + 50, 3, EPOCH + 51, 2);
	/* After it was made. */
	join(f, 1, "a", id_of(EPOCH + 51, 0));
	assert_string_equal(settled(f, 1), "ready m1 m2 m3 ");
	join(f, 2, "a", id_of(EPOCH + 99, 0));
	assert_string_equal(settled(f, 2), "gap:unknown ready m1 m2 m3 ");
}

/* What is kept no more does not become a second gap for who is told that it
 * can't be known what it missed; another log's beginning does. */
static void test_claim_and_what_expired(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 3;
	f->first = 3;
	join(f, 0, "a", "!!!");
	assert_string_equal(settled(f, 0), "gap:malformed ready m3 ");
	join(f, 1, "a", id_of(EPOCH - 5, 9));
	assert_string_equal(settled(f, 1), "gap:epoch ready gap:expired m3 ");
	expect_gap(EPOCH, 1, EPOCH, 2);
}

/* --- class changes ---------------------------------------------------------
 */

/* The dispatchers have the new rules, we don't: streams go on, also those of
 * several channels, and have a place. */
static void test_class_dispatcher_is_first(void **state)
{
	struct fixture *f = *state;
	char id[128];

	set_history(f, 0);
	intake_apply_rules(&f->w);
	f->top = (struct place){EPOCH * 2, 0}; /* later than any clock */
	join(f, 0, "a b", NULL);
	assert_string_equal(settled(f, 0), "ready ");
	last_id[0] = '\0';
	deliver(f, "b", 0);
	assert_string_equal(taken(f, 0), "m0 ");
	assert_string_equal(last_id, "");
	/* Out of order and twice: in order, once. */
	f->top.offset = 2;
	deliver(f, "a", 2);
	deliver(f, "a", 1);
	deliver(f, "a", 1);
	assert_string_equal(taken(f, 0), "m1 m2 ");
	strcpy(id, last_id);
	deliver(f, "b", 0);
	assert_string_equal(taken(f, 0), "m0 ");
	/* A hole is filled. */
	f->top.offset = 5;
	deliver(f, "a", 5);
	assert_string_equal(settled(f, 0), "m3 m4 m5 ");
	/* Our rules come: nothing new, nothing twice. */
	set_history(f, 10);
	intake_apply_rules(&f->w);
	deliver(f, "a", 5);
	deliver(f, "a", 6);
	/* Of b they are the first to tell that it has a log. */
	assert_string_equal(settled(f, 0), "m6 m1 m2 m3 m4 m5 ");
	/* It resumes exactly, on a node that has none of the new rules. */
	leave(&f->sessions[0]);
	set_history(f, 0);
	intake_apply_rules(&f->w);
	f->top.offset = 6;
	join(f, 1, "a b", id);
	assert_string_equal(settled(f, 1), "ready m3 m4 m5 m6 ");
}

/* What was stored between the dispatcher's rules and ours, and came by no link:
 * all of a log that was made after the subscriber came. */
static void test_class_owed_since(void **state)
{
	struct fixture *f = *state;

	set_history(f, 0);
	intake_apply_rules(&f->w);
	join(f, 0, "a", NULL);
	settled(f, 0);
	f->top = (struct place){EPOCH * 2, 3};
	set_history(f, 10);
	intake_apply_rules(&f->w);
	assert_string_equal(settled(f, 0), "m1 m2 m3 ");
	/* A dispatcher says so before the rules. */
	set_history(f, 0);
	intake_apply_rules(&f->w);
	join(f, 1, "b", NULL);
	settled(f, 1);
	{
		LinkFrame frame = STENTOR__LINK__V1__FRAME__INIT;
		Stentor__Link__V1__Moved moved = STENTOR__LINK__V1__MOVED__INIT;
		LinkPlace top = STENTOR__LINK__V1__PLACE__INIT;

		top.epoch = f->top.epoch;
		top.offset = 3;
		moved.channel = (char *)"b";
		moved.top = &top;
		frame.n_moved = 1;
		frame.moved = &(Stentor__Link__V1__Moved *){&moved};
		intake_moved(&f->w, &frame);
	}
	assert_string_equal(settled(f, 1), "m1 m2 m3 ");
}

/* The channel ceases to keep history here before it does elsewhere, and keeps
 * it again: from where it was left. */
static void test_class_left_and_found(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 3;
	join(f, 0, "a", NULL);
	settled(f, 0);
	set_history(f, 0);
	intake_apply_rules(&f->w);
	assert_int_equal(f->w.logs.count, 0);
	deliver(f, "a", 0);
	assert_string_equal(taken(f, 0), "m0 ");
	f->top.offset = 6;
	deliver(f, "a", 6); /* 4 and 5 are on their way, or lost */
	assert_string_equal(settled(f, 0), "m4 m5 m6 ");
	/* Other rules that say nothing of it leave it as it is. */
	intake_apply_rules(&f->w);
	assert_int_equal(f->w.logs.count, 1);
	set_history(f, 10);
	intake_apply_rules(&f->w);
	set_history(f, 0);
	intake_apply_rules(&f->w);
	assert_int_equal(f->w.logs.count, 0);
	f->top.offset = 8;
	set_history(f, 10);
	intake_apply_rules(&f->w);
	assert_string_equal(settled(f, 0), "m7 m8 ");
}

/* Whoever comes when all have left is owed nothing of what they were. */
/* A log that somebody is behind stays, and goes when nobody is left. */
static void test_class_left_while_behind(void **state)
{
	struct fixture *f = *state;
	static char seen[8192];

	f->top.offset = 300;
	join(f, 0, "a", NULL);
	join(f, 1, "a", id_of(EPOCH, 10));
	settled(f, 0);
	while (strstr(taken(f, 1), "m128 ") == NULL) {
		turn(f); /* the first page; the second was not asked for */
		answer(f);
	}
	join(f, 2, "a", id_of(EPOCH, 310));
	match_all.history_latest = 2;
	join(f, 3, "a", NULL);
	turn(f); /* 2 and 3 wait for the top, and their page */
	deliver(f, "a", 301);
	set_history(f, 0);
	intake_apply_rules(&f->w);
	assert_non_null(f->sessions[0].first.channel->log);
	assert_string_equal(taken(f, 0), "m301 ");
	f->top.offset = 301;
	strcpy(seen, settled(f, 1));
	assert_non_null(strstr(seen, "m129 m130 "));
	assert_non_null(strstr(seen, "m300 m301 "));
	assert_null(strstr(seen, "gap"));
	assert_non_null(strstr(taken(f, 2), "gap:unknown ready "));
	deliver(f, "a", 0);
	assert_string_equal(settled(f, 0), "m0 ");
	assert_string_equal(settled(f, 1), "m0 ");
	leave(&f->sessions[2]);
	leave(&f->sessions[3]);
	/* All are level now. */
	set_history(f, 10);
	intake_apply_rules(&f->w);
	set_history(f, 0);
	intake_apply_rules(&f->w);
	assert_null(f->sessions[0].first.channel->log);
	deliver(f, "a", 0);
	assert_string_equal(taken(f, 0), "m0 ");
}

static void test_class_left_by_all(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 3;
	join(f, 0, "a", NULL);
	settled(f, 0);
	set_history(f, 0);
	intake_apply_rules(&f->w);
	leave(&f->sessions[0]);
	join(f, 1, "a", NULL);
	settled(f, 1);
	f->top.offset = 9;
	deliver(f, "a", 9);
	assert_string_equal(settled(f, 1), "m9 ");
}

/* What no log can place has no id. */
static void test_class_no_place(void **state)
{
	struct fixture *f = *state;

	set_history(f, 0);
	intake_apply_rules(&f->w);
	join(f, 0, "a b", NULL);
	assert_string_equal(settled(f, 0), "ready ");
	last_id[0] = '\0';
	deliver_at(f, "a", 0, 5);
	assert_string_equal(taken(f, 0), "m5 ");
	assert_string_equal(last_id, "");
}

/* A log that was there before its subscriber: from what comes on. */
static void test_class_older_log(void **state)
{
	struct fixture *f = *state;

	set_history(f, 0);
	intake_apply_rules(&f->w);
	join(f, 0, "a", NULL);
	settled(f, 0);
	f->top.offset = 7;
	deliver(f, "a", 7);
	assert_string_equal(settled(f, 0), "m7 ");
	assert_string_equal(last_id, id_of(EPOCH, 7));
	/* Somebody else's place makes us look: nobody is owed what was. */
	join(f, 1, "b", NULL);
	settled(f, 1);
	f->top.offset = 9;
	join(f, 2, "b", NULL);
	settled(f, 2);
	place_encode(last_id, place_list_hash(&(const char *){"b"}, 1),
		     &(struct place){EPOCH, 8}, 1);
	join(f, 3, "b", last_id);
	assert_string_equal(settled(f, 3), "ready m9 ");
	assert_string_equal(taken(f, 1), "");
	deliver(f, "b", 10);
	assert_string_equal(taken(f, 1), "m10 ");
	assert_string_equal(taken(f, 3), "m10 ");
	/* Unless the log was made after they came. */
	join(f, 4, "c", NULL);
	settled(f, 4);
	f->top = (struct place){EPOCH * 2, 2};
	place_encode(last_id, place_list_hash(&(const char *){"c"}, 1),
		     &(struct place){EPOCH * 2, 2}, 1);
	join(f, 5, "c", last_id);
	assert_string_equal(settled(f, 5), "ready ");
	assert_string_equal(taken(f, 4), "m1 m2 ");
}

/* A place in a channel of which no store can tell anything: never silence, and
 * it does not wait for one. */
static void test_class_no_store(void **state)
{
	struct fixture *f = *state;

	set_history(f, 0);
	intake_apply_rules(&f->w);
	f->w.announcer.store = 0;
	join(f, 0, "a", id_of(EPOCH, 8));
	turn(f);
	assert_string_equal(taken(f, 0), "gap:unknown ready ");
	assert_non_null(strstr(last_gap, "\"offset\":\"9\"},\"to\":null}"));
	deliver(f, "a", 0);
	assert_string_equal(taken(f, 0), "m0 ");
	/* Nor does anybody else. */
	join(f, 2, "a", NULL);
	turn(f);
	assert_string_equal(taken(f, 2), "ready ");
	deliver(f, "a", 0);
	assert_string_equal(taken(f, 2), "m0 ");
	/* Where there is one after all, they are at its place. */
	f->top.offset = 4;
	settled(f, 2);
	deliver(f, "a", 5);
	assert_string_equal(taken(f, 2), "m5 ");
	assert_string_equal(last_id, id_of(EPOCH, 5));
	/* An id that can't be read says nothing of it. */
	join(f, 1, "b", "!!!");
	turn(f);
	assert_string_equal(taken(f, 1), "ready ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_replay_level_is_told_nothing),
		TEST(test_replay_doubt_is_told),
		TEST(test_replay_lost_is_told_exactly),
		TEST(test_replay_ahead_of_what_is_lost),
		TEST(test_replay_pages_are_of_one_epoch),
		TEST(test_replay_under_way),
		TEST(test_replay_at_what_is_lost),
		TEST(test_replay_first_comer_is_held),
		TEST(test_replay_skipped_and_lost),
		TEST(test_replay_gap_is_shared),
		TEST(test_claim_of_an_earlier_epoch),
		TEST(test_claim_is_told_once),
		TEST(test_claim_is_told_once_of_several),
		TEST(test_claim_on_nothing),
		TEST(test_claim_of_a_later_epoch),
		TEST(test_claim_before_the_log),
		TEST(test_claim_and_what_expired),
		TEST(test_class_dispatcher_is_first),
		TEST(test_class_owed_since),
		TEST(test_class_left_and_found),
		TEST(test_class_left_while_behind),
		TEST(test_class_left_by_all),
		TEST(test_class_no_place),
		TEST(test_class_older_log),
		TEST(test_class_no_store),
	};

	return cmocka_run_group_tests_name("replay_epochs", tests, NULL, NULL);
}

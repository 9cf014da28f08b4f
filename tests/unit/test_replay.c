#include "tests/unit/replay_fixture.h"

/* --- tests ------------------------------------------------------------- */

static void test_replay_fresh_is_live(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 5;
	join(f, 0, "a", NULL);
	turn(f);
	/* Not before the place is known. */
	assert_string_equal(taken(f, 0), "");
	assert_string_equal(settled(f, 0), "ready ");
	assert_string_equal(last_id, id_of(EPOCH, 5));
	deliver(f, "a", 5);
	deliver(f, "a", 6);
	assert_string_equal(taken(f, 0), "m6 ");
	assert_string_equal(last_id, id_of(EPOCH, 6));
	/* The next comes to a place that is known: at once. */
	join(f, 1, "a", NULL);
	turn(f);
	assert_string_equal(taken(f, 1), "ready ");
	assert_string_equal(last_id, id_of(EPOCH, 6));
}

static void test_replay_resumes(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	join(f, 0, "a", id_of(EPOCH, 6));
	join(f, 1, "a", id_of(EPOCH, 4));
	join(f, 2, "a", id_of(EPOCH, 9));
	turn(f);
	answer(f);
	turn(f);
	assert_string_equal(taken(f, 2), "ready ");
	/* One page for both. */
	assert_int_equal(f->asked_count, 1);
	assert_string_equal(settled(f, 0), "ready m7 m8 m9 ");
	assert_string_equal(taken(f, 1), "ready m5 m6 m7 m8 m9 ");
	settled(f, 1);
	deliver(f, "a", 10);
	for (unsigned i = 0; i < 3; i++)
		assert_string_equal(taken(f, i), "m10 ");
	assert_int_equal(metric_get(&f->w.metrics, NM_RESUME, RESUME_REPLAYED),
			 2);
	assert_int_equal(metric_get(&f->w.metrics, NM_RESUME, RESUME_CURRENT),
			 1);
	assert_int_equal(f->w.streams.replays.count, 0);
}

/* What comes while a client is behind comes to it after what it missed. */
static void test_replay_then_live_in_order(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 3;
	join(f, 1, "a", NULL);
	settled(f, 1);
	join(f, 0, "a", id_of(EPOCH, 1));
	turn(f);
	deliver(f, "a", 4);
	f->top.offset = 4;
	answer(f); /* the page was read before, or after: it has 4 */
	turn(f);
	deliver(f, "a", 5);
	f->top.offset = 5;
	assert_string_equal(taken(f, 0), "ready m2 m3 m4 ");
	deliver(f, "a", 6);
	f->top.offset = 6;
	assert_string_equal(settled(f, 0), "m5 m6 ");
	deliver(f, "a", 7);
	assert_string_equal(taken(f, 0), "m7 ");
	assert_string_equal(taken(f, 1), "m4 m5 m6 m7 ");
}

static void test_replay_many_pages(void **state)
{
	struct fixture *f = *state;
	char expected[8192] = "ready ";
	uint64_t from = 100, to = 2 * PAGE_MESSAGES + 10;

	f->top.offset = to;
	for (uint64_t i = from + 1; i <= to; i++)
		sprintf(expected + strlen(expected), "m%llu ",
			(unsigned long long)i);
	join(f, 0, "a", id_of(EPOCH, from));
	assert_string_equal(settled(f, 0), expected);
	assert_int_equal(f->w.streams.replays.pages.asked, 3);
}

static void test_replay_claims_that_fail(void **state)
{
	struct fixture *f = *state;
	struct {
		const char *claim, *seen;
	} cases[] = {
		{strdup(id_of(EPOCH - 1, 5)), "gap:epoch ready m1 m2 "},
		{strdup(id_of(EPOCH, 99)), "gap:unknown ready m1 m2 "},
		{strdup(id_of(EPOCH + 1, 1)), "gap:unknown ready m1 m2 "},
		{strdup(id_of(EPOCH - 2 * 86400000ull, 0)),
		 "gap:epoch ready m1 m2 "},
		{strdup("!!!"), "gap:malformed ready m1 m2 "},
		{strdup("17"), "gap:malformed ready m1 m2 "},
	};

	/* The gap, then what the log still has, then live. */
	f->top.offset = 2;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		join(f, i, "a", cases[i].claim);
		assert_string_equal(settled(f, i), cases[i].seen);
		assert_string_equal(gap_id, id_of(EPOCH, 0));
		assert_string_equal(last_id, id_of(EPOCH, 2));
		free((char *)cases[i].claim);
	}
	assert_int_equal(metric_get(&f->w.metrics, NM_RESUME, RESUME_GAP), 6);
	deliver(f, "a", 3);
	for (unsigned i = 0; i < 6; i++)
		assert_string_equal(taken(f, i), "m3 ");
}

/* A client that was on a faster node is ahead of us: no double, no gap. */
static void test_replay_client_ahead(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 5;
	join(f, 1, "a", NULL);
	settled(f, 1);
	f->top.offset = 7;
	join(f, 0, "a", id_of(EPOCH, 7));
	turn(f);
	assert_string_equal(taken(f, 0), "");
	assert_string_equal(settled(f, 0), "ready ");
	assert_string_equal(last_id, id_of(EPOCH, 7));
	deliver(f, "a", 6);
	deliver(f, "a", 7);
	deliver(f, "a", 8);
	assert_string_equal(taken(f, 0), "m8 ");
}

#define CROWD 200 /* more than a fan-out serves at once */

/* Who comes with a place that nobody knows concerns nobody else: a fan-out
 * under way goes on as it was, and others don't wait longer. */
static void test_replay_forged_places(void **state)
{
	struct fixture *f = *state;
	struct channel *ch;

	f->top.offset = 5;
	for (unsigned i = 0; i < CROWD; i++)
		join(f, i, "a", NULL);
	for (unsigned i = 0; i < CROWD; i++)
		settled(f, i);
	ch = channels_find(&f->w.channels, "a", 1);
	join(f, CROWD, "a", id_of(EPOCH, 7)); /* ahead, and true */
	streams_ready(&f->w.streams, TURN_BUDGET);
	logs_run(&f->w.logs, worker_now(&f->w));
	questions_run(&f->w.questions, worker_now(&f->w));
	assert_int_equal(f->asked_count, 1);
	/* Another before each answer. */
	for (unsigned i = 1; i <= 5; i++) {
		join(f, CROWD + i, "a", id_of(EPOCH, 1000000));
		streams_ready(&f->w.streams, TURN_BUDGET);
		f->top.offset = 7;
		if (i == 1) {
			deliver(f, "a", 6);
			assert_non_null(ch->job);
		}
		answer(f);
		assert_non_null(ch->job);
		if (i == 2)
			deliver(f, "a", 7);
		logs_run(&f->w.logs, worker_now(&f->w));
		questions_run(&f->w.questions, worker_now(&f->w));
	}
	streams_ready(&f->w.streams, TURN_BUDGET);
	assert_true(f->sessions[CROWD].ready);
	assert_string_equal(taken(f, 0), "");
	turn(f);
	assert_string_equal(taken(f, 0), "m6 m7 ");
	assert_string_equal(taken(f, CROWD), "ready ");
	assert_string_equal(last_id, id_of(EPOCH, 7));
	answer(f);
	turn(f);
	for (unsigned i = 1; i <= 5; i++)
		assert_non_null(strstr(settled(f, CROWD + i), "unknown"));
}

/* A message without a position, of a dispatcher with other rules, is on its
 * way when the log's place becomes known: the fan-out's marker is no
 * subscription. */
static void test_replay_known_during_a_fanout(void **state)
{
	struct fixture *f = *state;
	struct channel *ch;

	for (unsigned i = 0; i < SESSIONS; i++)
		join(f, i, "a", NULL);
	turn(f);
	ch = channels_find(&f->w.channels, "a", 1);
	deliver_at(f, "a", 0, 0);
	fanout_run(&f->w.fanout, TURN_BUDGET); /* not all at once */
	assert_non_null(ch->job);
	answer(f);
	assert_null(ch->job);
	for (unsigned i = 0; i < SESSIONS; i++)
		assert_string_equal(settled(f, i), "m0 ready ");
}

static void test_replay_expired(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	f->first = 8;
	join(f, 0, "a", id_of(EPOCH, 4));
	assert_string_equal(settled(f, 0), "ready gap:expired m8 m9 ");
	/* Nothing is left at all. */
	f->first = 10;
	leave(&f->sessions[0]);
	join(f, 1, "b", NULL);
	settled(f, 1);
	join(f, 2, "a", id_of(EPOCH, 2));
	assert_string_equal(settled(f, 2), "ready gap:expired ");
	assert_string_equal(last_id, id_of(EPOCH, 9)); /* the gap's */
	deliver(f, "a", 10);
	assert_string_equal(taken(f, 2), "m10 ");
}

static void test_replay_before_the_first(void **state)
{
	struct fixture *f = *state;

	/* No log: the place is the clock's. */
	join(f, 0, "a", NULL);
	assert_string_equal(settled(f, 0), "ready ");
	assert_string_equal(last_id, id_of(EPOCH, 0));
	/* The log is made, and the client was away. */
	leave(&f->sessions[0]);
	f->top = (struct place){EPOCH + 50, 2};
	join(f, 1, "a", id_of(EPOCH, 0));
	assert_string_equal(settled(f, 1), "ready m1 m2 ");
}

static void test_replay_latest(void **state)
{
	struct fixture *f = *state;

	match_all.history_latest = 3;
	f->top.offset = 9;
	join(f, 0, "a", NULL);
	assert_string_equal(settled(f, 0), "ready m7 m8 m9 ");
	/* Fewer are left: no gap, for it has missed nothing. */
	f->first = 9;
	join(f, 1, "b", NULL);
	assert_string_equal(settled(f, 1), "ready m9 ");
	/* A client that comes back gets what it missed instead. */
	join(f, 2, "a", id_of(EPOCH, 9));
	assert_string_equal(settled(f, 2), "ready ");
}

/* With several channels each event has an id of its own, over all of them. */
static void test_replay_several_channels(void **state)
{
	struct fixture *f = *state;
	char id[128];

	f->top.offset = 2;
	join(f, 0, "a b", NULL);
	assert_string_equal(settled(f, 0), "ready ");
	deliver(f, "a", 3);
	deliver(f, "b", 3);
	deliver(f, "a", 4);
	assert_string_equal(taken(f, 0), "m3 m3 m4 ");
	strcpy(id, last_id);
	leave(&f->sessions[0]);
	f->top.offset = 5;
	join(f, 1, "a b", id);
	assert_string_equal(settled(f, 1), "ready m5 m4 m5 ");
	/* It is not valid for another list. */
	join(f, 2, "b a", id);
	assert_string_equal(settled(f, 2), "gap:malformed gap:malformed ready "
					   "m1 m2 m3 m4 m5 m1 m2 m3 m4 m5 ");
}

/* Memory: pages wait for one another, and all are served. */
static void test_replay_budget(void **state)
{
	struct fixture *f = *state;
	size_t most = 0;
	unsigned done = 0;

	f->w.streams.replays.bytes_max = 4 * PAGE_BYTES;
	f->w.streams.replays.pages.bytes_max = 3 * PAGE_BYTES;
	f->top.offset = 100;
	for (unsigned i = 0; i < SESSIONS; i++) {
		char name[16];
		struct place place = {EPOCH, 0};
		char id[PLACE_ID_SIZE(1)];

		sprintf(name, "c%u", i);
		place_encode(id, place_list_hash(&(const char *){name}, 1),
			     &place, 1);
		join(f, i, name, id);
	}
	for (unsigned n = 0; n < 10000 && done < SESSIONS; n++) {
		turn(f);
		for (unsigned k = 0; k < f->asked_count; k++)
			check(f->asked[k] != NULL);
		answer(f);
		most = max_of(most, f->w.streams.replays.pages.bytes +
					    f->w.streams.replays.queued_bytes);
		done = 0;
		for (unsigned i = 0; i < SESSIONS; i++) {
			taken(f, i);
			done += f->sessions[i].ready &&
				f->sessions[i].replays == 0;
		}
	}
	assert_int_equal(done, SESSIONS);
	assert_in_range(most, 1, 4 * PAGE_BYTES);
	assert_int_equal(metric_get(&f->w.metrics, NM_REPLAYED, 0),
			 100 * SESSIONS);
}

/* A page that is larger than what is reserved for one waits for as much room as
 * it needs, and the loop sleeps meanwhile. */
static void test_replay_crowd_waits(void **state)
{
	struct fixture *f = *state;
	struct replays *rs = &f->w.streams.replays;
	struct page *large = NULL;
	struct channel *ch;

	rs->bytes_max = 8 * PAGE_BYTES;
	f->top.offset = PAGE_MESSAGES;
	for (unsigned i = 0; i < 2; i++) {
		const char *name = i == 0 ? "a" : "b";
		struct place place = {EPOCH, 0};
		char id[PLACE_ID_SIZE(1)];

		place_encode(id, place_list_hash(&name, 1), &place, 1);
		join(f, i, name, id);
	}
	ch = f->sessions[1].first.channel;
	while (list_empty(&ch->pages) || large->state != PAGE_LOADED) {
		turn(f);
		answer(f);
		if (!list_empty(&ch->pages))
			large = container_of(ch->pages.next, struct page,
					     in_channel);
	}
	rs->pages.bytes += 2 * PAGE_BYTES - 1 - large->bytes;
	large->bytes = 2 * PAGE_BYTES - 1; /* all there is for queues */
	turn(f);
	assert_true(rs->queued_bytes > 0);
	assert_true(rs->queued_bytes < PAGE_BYTES);
	assert_false(list_empty(&rs->crowded));
	assert_false(replays_pending(rs));
	taken(f, 0);
	assert_true(replays_pending(rs));
	turn(f);
	assert_string_not_equal(taken(f, 1), "");
	turn(f);
	assert_false(replays_pending(rs));
}

static void test_replay_leaves_nothing_behind(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 50;
	for (unsigned i = 0; i < 8; i++)
		join(f, i, "a", id_of(EPOCH, i));
	turn(f); /* places are asked for */
	leave(&f->sessions[0]);
	answer(f);
	turn(f); /* pages are asked for */
	leave(&f->sessions[1]);
	answer(f);
	turn(f); /* and given */
	leave(&f->sessions[2]);
	turn(f);
	for (unsigned i = 3; i < 8; i++)
		leave(&f->sessions[i]);
	assert_int_equal(f->w.streams.replays.count, 0);
	assert_int_equal(f->w.streams.replays.queued_bytes, 0);
	assert_int_equal(f->w.streams.replays.pages.bytes, 0);
}

/* New rules: the channel gains and loses its history under its subscribers. */
static void test_replay_rules_change(void **state)
{
	struct fixture *f = *state;

	set_history(f, 0);
	intake_apply_rules(&f->w);
	join(f, 0, "a", NULL);
	assert_string_equal(settled(f, 0), "ready ");
	deliver(f, "a", 0);
	assert_string_equal(taken(f, 0), "m0 ");
	/* Of a log that was there before it came nothing is owed, also where
	 * newcomers get the latest. */
	match_all.history_latest = 2;
	set_history(f, 10);
	f->top.offset = 4;
	intake_apply_rules(&f->w);
	assert_string_equal(settled(f, 0), "");
	deliver(f, "a", 5);
	assert_string_equal(taken(f, 0), "m5 ");
	assert_string_equal(last_id, id_of(EPOCH, 5));
	set_history(f, 0);
	intake_apply_rules(&f->w);
	deliver(f, "a", 0);
	assert_string_equal(taken(f, 0), "m0 ");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_replay_fresh_is_live),
		TEST(test_replay_resumes),
		TEST(test_replay_then_live_in_order),
		TEST(test_replay_many_pages),
		TEST(test_replay_claims_that_fail),
		TEST(test_replay_client_ahead),
		TEST(test_replay_forged_places),
		TEST(test_replay_known_during_a_fanout),
		TEST(test_replay_expired),
		TEST(test_replay_before_the_first),
		TEST(test_replay_latest),
		TEST(test_replay_several_channels),
		TEST(test_replay_budget),
		TEST(test_replay_crowd_waits),
		TEST(test_replay_leaves_nothing_behind),
		TEST(test_replay_rules_change),
	};

	return cmocka_run_group_tests_name("replay", tests, NULL, NULL);
}

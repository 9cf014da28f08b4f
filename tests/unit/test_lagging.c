/* What becomes of streams whose reader does not keep up. */
#include "common/base/clock.h"
#include "connnode/stream/lagging.h"
#include "tests/unit/replay_fixture.h"

static void deliver_keyed(struct fixture *f, uint64_t offset, const char *key)
{
	LinkDelivery d;
	char data[24];

	fill(&d, data, f->top.epoch, offset);
	d.channel = (char *)"a";
	d.conflation_key = (char *)key;
	intake_deliveries(&f->w, &(LinkDelivery *){&d}, 1);
}

static void test_lagging_drop_oldest_tells(void **state)
{
	struct fixture *f = *state;

	match_all.lagging = LAGGING_DROP_OLDEST;
	f->w.sessions.limits.queue_bytes_max = 600;
	join(f, 0, "a", NULL);
	settled(f, 0);
	block(f, 0, true);
	for (uint64_t i = 1; i <= 20; i++)
		deliver(f, "a", i);
	assert_in_range(f->sessions[0].out.bytes, 1, 600 + 200);
	block(f, 0, false);
	/* The first was with the kernel. What follows the gap is whole. */
	assert_non_null(strstr(taken(f, 0), "m1 gap:lagging m"));
	assert_string_equal(last_id, id_of(EPOCH, 20));
	assert_false(f->sessions[0].doomed);
}

static void test_lagging_conflate(void **state)
{
	struct fixture *f = *state;

	match_all.lagging = LAGGING_CONFLATE;
	join(f, 0, "a", NULL);
	settled(f, 0);
	deliver_keyed(f, 1, "score");
	deliver_keyed(f, 2, "score");
	/* It keeps up: it gets all. */
	assert_string_equal(taken(f, 0), "m1 m2 ");
	block(f, 0, true);
	for (uint64_t i = 3; i <= 22; i++)
		deliver_keyed(f, i, i % 2 ? "score" : "time");
	deliver(f, "a", 23);
	block(f, 0, false);
	assert_string_equal(taken(f, 0), "m3 m21 m22 m23 ");
	assert_string_equal(last_id, id_of(EPOCH, 23));
	assert_int_equal(
		metric_get(&f->w.metrics, NM_DROPPED,
			   PRIORITY_NORMAL * DROP_REASONS + DROP_CONFLATED),
		17);
}

static void test_lagging_close(void **state)
{
	struct fixture *f = *state;

	f->w.sessions.limits.queue_bytes_max = 600;
	join(f, 0, "a", NULL);
	join(f, 1, "a", NULL);
	settled(f, 0);
	taken(f, 1);
	block(f, 0, true);
	for (uint64_t i = 1; i <= 20; i++) {
		deliver(f, "a", i);
		taken(f, 1);
	}
	assert_true(f->sessions[0].doomed);
	assert_false(f->sessions[1].doomed);
	list_remove(&f->sessions[0].in_dirty);
}

/* A message of `size` bytes, that lives for `ttl_ms`. */
static void deliver_large(struct fixture *f, const char *channel,
			  uint64_t offset, size_t size, uint32_t ttl_ms)
{
	static char bytes[65536];
	LinkDelivery d;
	char data[24];

	fill(&d, data, f->top.epoch, offset);
	memset(bytes, 'x', size);
	memcpy(bytes, data, strlen(data));
	d.data.data = (uint8_t *)bytes;
	d.data.len = size;
	d.channel = (char *)channel;
	d.published_us = clock_wall_us() - 1000000;
	d.ttl_ms = ttl_ms;
	intake_deliveries(&f->w, &(LinkDelivery *){&d}, 1);
}

/* The messages by their numbers, without the rest of their text. */
static const char *numbers(const char *seen)
{
	static char text[8192];
	char *to = text;

	for (bool word = true; *seen != '\0'; seen++) {
		if (*seen == 'x' && word)
			continue;
		*to++ = *seen;
	}
	*to = '\0';
	return text;
}

/* What has expired is no backlog: nobody is closed for it. */
static void test_lagging_expired_is_no_backlog(void **state)
{
	struct fixture *f = *state;

	f->w.sessions.limits.queue_bytes_max = 3000;
	join(f, 0, "a", NULL);
	settled(f, 0);
	block(f, 0, true);
	deliver_large(f, "a", 1, 100, 0);
	for (uint64_t i = 2; i <= 40; i++)
		deliver_large(f, "a", i, 500, 10);
	assert_false(f->sessions[0].doomed);
	deliver_large(f, "a", 41, 500, 60000);
	block(f, 0, false);
	assert_string_equal(last_id, id_of(EPOCH, 0));
	taken(f, 0);
	assert_string_equal(last_id, id_of(EPOCH, 41));
	assert_in_range(
		metric_get(&f->w.metrics, NM_DROPPED,
			   PRIORITY_NORMAL * DROP_REASONS + DROP_EXPIRED),
		30, 39);
	/* What lives is. */
	block(f, 0, true);
	for (uint64_t i = 42; i <= 60; i++)
		deliver_large(f, "a", i, 500, 60000);
	assert_true(f->sessions[0].doomed);
	list_remove(&f->sessions[0].in_dirty);
}

/* Messages nearly as large as the queue: the newest stays, what goes is told,
 * and the stream with it. */
static void test_lagging_drop_oldest_large(void **state)
{
	struct fixture *f = *state;

	match_all.lagging = LAGGING_DROP_OLDEST;
	f->w.sessions.limits.queue_bytes_max = 3000;
	join(f, 0, "a", NULL);
	settled(f, 0);
	block(f, 0, true);
	for (uint64_t i = 1; i <= 6; i++) {
		deliver_large(f, "a", i, 2500, 0);
		assert_false(f->sessions[0].doomed);
		assert_in_range(f->sessions[0].out.bytes, 1, 3000 + 2800);
	}
	block(f, 0, false);
	/* The first is with the kernel. */
	assert_string_equal(numbers(taken(f, 0)), "m1 gap:lagging m6 ");
	assert_non_null(strstr(last_gap, "\"offset\":\"2\"},\"to\""));
	assert_non_null(strstr(last_gap, "\"offset\":\"5\"}}"));
	assert_string_equal(gap_id, id_of(EPOCH, 5));
	assert_string_equal(last_id, id_of(EPOCH, 6));

	/* The same without history: no word, but the newest. */
	set_history(f, 0);
	intake_apply_rules(&f->w);
	block(f, 0, true);
	for (uint64_t i = 1; i <= 6; i++)
		deliver_large(f, "a", 0, 2500, 0);
	block(f, 0, false);
	assert_string_equal(numbers(taken(f, 0)), "m0 m0 ");
	assert_false(f->sessions[0].doomed);
}

/* What may not be missed fills the queue: the message goes, and is told; the
 * other channel decides about the stream. */
static void test_lagging_drop_oldest_beside_close(void **state)
{
	static struct rule two[2];
	struct fixture *f = *state;

	two[0] = two[1] = match_all;
	two[0].pattern = (char *)"a";
	two[0].lagging = LAGGING_DROP_OLDEST;
	f->rules = (struct rules){.rule = two, .count = 2};
	f->w.sessions.limits.queue_bytes_max = 3000;
	join(f, 0, "a b", NULL);
	settled(f, 0);
	block(f, 0, true);
	deliver_large(f, "b", 1, 100, 0);
	deliver_large(f, "b", 2, 2500, 0);
	deliver_large(f, "a", 1, 1000, 0);
	deliver_large(f, "a", 2, 1000, 0);
	assert_false(f->sessions[0].doomed);
	block(f, 0, false);
	assert_string_equal(numbers(taken(f, 0)), "m1 gap:lagging m2 ");
	block(f, 0, true);
	deliver_large(f, "b", 3, 100, 0);
	deliver_large(f, "b", 4, 2500, 0);
	deliver_large(f, "b", 5, 2500, 0);
	assert_true(f->sessions[0].doomed);
	list_remove(&f->sessions[0].in_dirty);
}

/* The gap's id, with several channels: where the client is when it has read
 * just that. */
static void test_lagging_gap_has_a_place(void **state)
{
	struct fixture *f = *state;
	struct place places[3];

	match_all.lagging = LAGGING_DROP_OLDEST;
	f->w.sessions.limits.queue_bytes_max = 3000;
	join(f, 0, "a b c", NULL);
	settled(f, 0);
	block(f, 0, true);
	deliver_large(f, "a", 1, 100, 0); /* with the kernel */
	deliver_large(f, "c", 1, 1200, 0);
	deliver_large(f, "b", 1, 700, 0);
	deliver_large(f, "b", 2, 700, 0);
	deliver_large(f, "b", 3, 700, 0);
	assert_false(f->sessions[0].doomed);
	block(f, 0, false);
	assert_string_equal(numbers(taken(f, 0)),
			    "m1 gap:lagging gap:lagging m2 m3 ");
	/* Behind c's, b's is still to come. */
	assert_int_equal(place_decode(gap_id_before, f->sessions[0].list_hash,
				      places, 3),
			 0);
	assert_int_equal(places[0].offset, 1);
	assert_int_equal(places[1].offset, 0);
	assert_int_equal(places[2].offset, 1);
	assert_int_equal(
		place_decode(gap_id, f->sessions[0].list_hash, places, 3), 0);
	assert_int_equal(places[0].offset, 1);
	assert_int_equal(places[1].offset, 1);
	assert_int_equal(places[2].offset, 1);
}

/* One gap tells several losses, also those of two epochs. */
static void test_lagging_over_two_epochs(void **state)
{
	struct fixture *f = *state;

	match_all.lagging = LAGGING_DROP_OLDEST;
	f->w.sessions.limits.queue_bytes_max = 3000;
	join(f, 0, "a", NULL);
	settled(f, 0);
	block(f, 0, true);
	for (uint64_t i = 1; i <= 4; i++)
		deliver_large(f, "a", i, 800, 0);
	f->top.offset = 4;
	f->eras[0] = (struct place){EPOCH, 3};
	f->top = (struct place){EPOCH + 1, 6};
	for (uint64_t i = 4; i <= 6; i++)
		deliver_large(f, "a", i, 800, 0);
	for (unsigned i = 0; i < 10; i++) {
		turn(f);
		answer(f);
	}
	assert_false(f->sessions[0].doomed);
	block(f, 0, false);
	assert_non_null(strstr(numbers(taken(f, 0)), "m1 gap:lagging m"));
	assert_non_null(strstr(last_gap, "\"offset\":\"2\"},\"to\""));
	assert_string_equal(last_id, id_of(EPOCH + 1, 6));
}

/* Over its budget, but it was level before and has a moment. */
static void test_lagging_burst_is_forgiven(void **state)
{
	struct fixture *f = *state;

	f->w.sessions.limits.queue_bytes_max = 3000;
	f->w.sessions.limits.queue_burst_bytes = 10000;
	f->w.sessions.limits.queue_grace_ms = 1000;
	join(f, 0, "a", NULL);
	settled(f, 0);
	block(f, 0, true);
	for (uint64_t i = 1; i <= 8; i++)
		deliver_large(f, "a", i, 1000, 0);
	assert_false(f->sessions[0].doomed);
	f->loop.time += 999;
	deliver_large(f, "a", 9, 100, 0);
	assert_false(f->sessions[0].doomed);
	/* It takes all, and the next burst is another. */
	block(f, 0, false);
	taken(f, 0);
	f->sessions[0].lags = f->sessions[0].bursts = false;
	f->loop.time += 1000;
	block(f, 0, true);
	for (uint64_t i = 10; i <= 15; i++)
		deliver_large(f, "a", i, 1000, 0);
	assert_false(f->sessions[0].doomed);
	f->loop.time += 1000;
	deliver_large(f, "a", 16, 100, 0);
	assert_true(f->sessions[0].doomed);
	assert_int_equal(f->sessions[0].cause, CLOSED_SLOW);
	list_remove(&f->sessions[0].in_dirty);
}

/* Nor is more forgiven than that; nor, once the rule has acted, anything until
 * it is level again. */
static void test_lagging_burst_is_bounded(void **state)
{
	struct fixture *f = *state;
	unsigned i = 1;

	match_all.lagging = LAGGING_DROP_OLDEST;
	f->w.sessions.limits.queue_bytes_max = 3000;
	f->w.sessions.limits.queue_burst_bytes = 6000;
	f->w.sessions.limits.queue_grace_ms = 1000;
	join(f, 0, "a", NULL);
	settled(f, 0);
	block(f, 0, true);
	while (f->sessions[0].out.bytes <= 5000)
		deliver_large(f, "a", i++, 1000, 0);
	deliver_large(f, "a", i++, 1000, 0);
	assert_true(f->sessions[0].out.bytes <= 3000);
	for (unsigned k = 0; k < 8; k++) {
		deliver_large(f, "a", i++, 1000, 0);
		assert_true(f->sessions[0].out.bytes <= 3000);
	}
	block(f, 0, false);
	assert_non_null(strstr(numbers(taken(f, 0)), "gap:lagging"));
	f->sessions[0].lags = f->sessions[0].bursts = false;
	block(f, 0, true);
	for (unsigned k = 0; k < 5; k++)
		deliver_large(f, "a", i++, 1000, 0);
	assert_true(f->sessions[0].out.bytes > 3000);
}

/* All queues together: the longest give way, by their rules if that helps. */
static void test_lagging_longest_give_way(void **state)
{
	struct fixture *f = *state;
	size_t before = frames_bytes();

	f->w.sessions.limits.queue_bytes_max =
		f->w.sessions.limits.queue_burst_bytes = 1u << 20;
	join(f, 0, "a", NULL);
	join(f, 1, "b", NULL);
	match_all.lagging = LAGGING_DROP_OLDEST;
	set_history(f, 1000);
	join(f, 2, "c", NULL);
	for (unsigned i = 0; i < 3; i++)
		settled(f, i);
	for (unsigned i = 0; i < 3; i++)
		block(f, i, true);
	for (unsigned i = 1; i <= 20; i++)
		deliver_large(f, "c", i, 10000, 0);
	match_all.lagging = LAGGING_CLOSE;
	for (unsigned i = 1; i <= 10; i++)
		deliver_large(f, "a", i, 10000, 0);
	deliver_large(f, "b", 1, 10000, 0);
	f->w.sessions.limits.memory_max = before + 350000;
	assert_false(lagging_pending(&f->w.sessions));
	f->w.sessions.limits.memory_max = before + 150000;
	assert_true(lagging_pending(&f->w.sessions));
	match_all.lagging = LAGGING_DROP_OLDEST;
	assert_int_equal(lagging_run(&f->w.sessions, 100), 1);
	assert_false(lagging_pending(&f->w.sessions));
	match_all.lagging = LAGGING_CLOSE;
	assert_false(f->sessions[2].doomed);
	assert_true(f->sessions[2].out.bytes < 20000);
	/* What can't be missed goes with its connection. */
	f->w.sessions.limits.memory_max = before + 40000;
	assert_int_equal(lagging_run(&f->w.sessions, 100), 1);
	assert_true(f->sessions[0].doomed);
	assert_false(f->sessions[1].doomed);
	assert_int_equal(metric_get(&f->w.metrics, NM_GAVE_WAY, 0), 2);
	/* Its budget is its bound. */
	f->w.sessions.limits.memory_max = 0;
	assert_int_equal(lagging_run(&f->w.sessions, 1), 1);
	assert_true(lagging_pending(&f->w.sessions));
	/* Each goes once, although what the kernel has of it is still there. */
	assert_int_equal(lagging_run(&f->w.sessions, 100), 1);
	assert_false(lagging_pending(&f->w.sessions));
	assert_int_equal(metric_get(&f->w.metrics, NM_GAVE_WAY, 0), 4);
	for (unsigned i = 0; i < 3; i++) {
		block(f, i, false);
		list_remove(&f->sessions[i].in_dirty);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_lagging_drop_oldest_tells),
		TEST(test_lagging_conflate),
		TEST(test_lagging_close),
		TEST(test_lagging_expired_is_no_backlog),
		TEST(test_lagging_drop_oldest_large),
		TEST(test_lagging_drop_oldest_beside_close),
		TEST(test_lagging_gap_has_a_place),
		TEST(test_lagging_over_two_epochs),
		TEST(test_lagging_burst_is_forgiven),
		TEST(test_lagging_burst_is_bounded),
		TEST(test_lagging_longest_give_way),
	};

	return cmocka_run_group_tests_name("lagging", tests, NULL, NULL);
}

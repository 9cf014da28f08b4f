/* What a store does with time, which real ones can't be told: memlog can. */
#include "tests/unit/unit.h"

#include "common/base/err.h"
#include "dispatcher/store/eras.h"
#include "dispatcher/store/memlog.h"

#include <stdio.h>
#include <string.h>

#define T0     1700000000000ull
#define WINDOW 300000
#define TTL    60000

static struct store_append append_at(struct memlogs *m, uint64_t now_ms,
				     const char *channel, const char *key,
				     const char *text)
{
	struct store_append a = {
		.channel = channel,
		.record = text,
		.len = strlen(text),
		.size = 4,
		.ttl_ms = TTL,
		.idempotency_key = key,
	};

	snprintf(a.message_id, sizeof(a.message_id), "id-%s", text);
	memlogs_append(m, &a, now_ms);
	return a;
}

static struct store_read read_at(struct memlogs *m, uint64_t now_ms,
				 const char *channel, uint64_t after)
{
	struct store_read r = {
		.channel = channel,
		.after = after,
		.records_max = 100,
		.bytes_max = 1 << 20,
	};

	memlogs_read(m, &r, now_ms);
	return r;
}

static struct store_place top_at(struct memlogs *m, uint64_t now_ms,
				 const char *channel)
{
	struct store_place top;
	struct store_tops t = {
		.channels = &channel, .count = 1, .places = &top};

	memlogs_tops(m, &t, now_ms);
	return top;
}

static int setup(void **state)
{
	static struct memlogs m;

	memlogs_init(&m, 1 << 20, WINDOW);
	*state = &m;
	return 0;
}

static int teardown(void **state)
{
	memlogs_fini(*state);
	return 0;
}

static void test_memlog_counts(void **state)
{
	struct memlogs *m = *state;

	for (uint64_t i = 1; i <= 20; i++) {
		struct store_append a = append_at(m, T0, "a", "", "x");

		assert_int_equal(a.rc, 0);
		assert_int_equal(a.place.offset, i);
		assert_true(a.place.epoch > T0);
		assert_true(a.place.epoch < T0 + 10);
	}
	assert_int_equal(top_at(m, T0, "a").offset, 20);
	assert_int_equal(read_at(m, T0, "a", 0).first, 17);
	assert_int_equal(read_at(m, T0, "a", 0).count, 4);
	assert_int_equal(read_at(m, T0, "a", 18).count, 2);
	assert_int_equal(read_at(m, T0, "a", 18).records[0].offset, 19);
}

static void test_memlog_ttl(void **state)
{
	struct memlogs *m = *state;
	struct store_place old = append_at(m, T0, "a", "", "x").place;
	struct store_read r;

	assert_int_equal(read_at(m, T0 + TTL - 1, "a", 0).count, 1);
	r = read_at(m, T0 + TTL, "a", 0);
	assert_int_equal(r.count, 0);
	assert_int_equal(r.first, 2);
	assert_int_equal(r.top.offset, 1);
	assert_int_equal(append_at(m, T0 + TTL + 1, "a", "", "y").place.offset,
			 2);
	assert_int_equal(read_at(m, T0 + TTL + 1, "a", 0).count, 1);
	assert_int_equal(top_at(m, T0 + TTL + 1, "a").epoch, old.epoch);
}

/* Each by its own age, a clock that goes back or not. */
static void test_memlog_ttl_by_age(void **state)
{
	struct memlogs *m = *state;
	struct store_read r;

	append_at(m, T0, "a", "", "x");
	append_at(m, T0 + 1000, "a", "", "y");
	append_at(m, T0 + 500, "a", "", "z"); /* counts as of 1000 */
	assert_int_equal(read_at(m, T0 + TTL - 1, "a", 0).count, 3);
	r = read_at(m, T0 + TTL, "a", 0);
	assert_int_equal(r.count, 2);
	assert_int_equal(r.first, 2);
	assert_int_equal(read_at(m, T0 + TTL + 999, "a", 0).count, 2);
	append_at(m, T0 + TTL + 999, "a", "", "w");
	r = read_at(m, T0 + TTL + 1000, "a", 0);
	assert_int_equal(r.count, 1);
	assert_int_equal(r.first, 4);
}

/* After the counting was forgotten too, it starts anew in a greater epoch,
 * whatever the clock does. */
static void test_memlog_forgets(void **state)
{
	struct memlogs *m = *state;
	uint64_t late = T0 + 2 * TTL + 1 + TTL + MEMLOG_LINGER_MS;
	struct store_place old = append_at(m, T0, "a", "", "x").place;
	struct store_place none, anew;

	memlogs_trim(m, 10, T0 + TTL + MEMLOG_LINGER_MS - 1);
	assert_int_equal(m->logs.count, 1);
	memlogs_trim(m, 10, late);
	assert_int_equal(m->logs.count, 0);
	assert_int_equal(m->bytes, 0);
	none = top_at(m, T0, "a");
	assert_int_equal(none.offset, 0);
	assert_true(none.epoch > old.epoch);
	anew = append_at(m, T0 - 5, "a", "", "y").place;
	assert_int_equal(anew.offset, 1);
	assert_true(anew.epoch > none.epoch);
}

static void test_memlog_idempotency(void **state)
{
	struct memlogs *m = *state;
	struct store_append first = append_at(m, T0, "a", "k", "x"), again;

	again = append_at(m, T0 + WINDOW - 1, "a", "k", "y");
	assert_true(again.duplicate);
	assert_int_equal(again.place.offset, first.place.offset);
	assert_string_equal(again.message_id, "id-x");
	assert_false(append_at(m, T0, "b", "k", "z").duplicate);
	again = append_at(m, T0 + WINDOW, "a", "k", "w");
	assert_false(again.duplicate);
	assert_int_equal(again.place.offset, 2);
	memlogs_trim(m, 10, T0 + 2 * WINDOW);
	assert_int_equal(m->keys.count, 0);
}

/* --- gone back --------------------------------------------------------- */

static void test_memlog_eras(void **state)
{
	struct store_eras e = {0};
	struct store_place top = {40, 6};

	(void)state;
	eras_begin(&e, (struct store_place){10, 9});
	eras_begin(&e, (struct store_place){20, 12});
	eras_begin(&e, (struct store_place){30, 5});
	assert_int_equal(e.count, 3);
	for (unsigned i = 0; i < 3; i++) { /* nothing is left behind 5 */
		assert_int_equal(e.era[i].epoch, 30 - 10 * i);
		assert_int_equal(e.era[i].offset, 5);
	}
	assert_true(eras_have(&e, top, (struct store_place){40, 6}));
	assert_false(eras_have(&e, top, (struct store_place){40, 7}));
	assert_true(eras_have(&e, top, (struct store_place){10, 5}));
	assert_false(eras_have(&e, top, (struct store_place){10, 6}));
	assert_false(eras_have(&e, top, (struct store_place){15, 1}));
	for (uint64_t i = 0; i < 20; i++)
		eras_begin(&e, (struct store_place){40 + i, 5 + i});
	assert_int_equal(e.count, STORE_ERAS_MAX);
	assert_int_equal(e.era[0].epoch, 59);
	assert_int_equal(e.era[STORE_ERAS_MAX - 1].offset,
			 5 + 20 - STORE_ERAS_MAX);
}

/* The answer outlives the log: the message is in nobody's, and comes anew. */
static void test_memlog_answer_of_no_log(void **state)
{
	struct memlogs *m = *state;
	uint64_t late = T0 + TTL + MEMLOG_LINGER_MS;
	struct store_append a;

	m->idempotency_ms = 2 * late;
	append_at(m, T0, "a", "", "x");
	assert_false(append_at(m, T0, "a", "k", "y").duplicate);
	append_at(m, T0, "a", "l", "y");
	assert_true(append_at(m, late - 1, "a", "k", "z").duplicate);
	a = append_at(m, late, "a", "k", "w");
	assert_false(a.duplicate);
	assert_int_equal(a.place.offset, 1);
	a = append_at(m, late, "a", "k", "v");
	assert_true(a.duplicate);
	assert_int_equal(a.place.offset, 1);
	assert_string_equal(a.message_id, "id-w");
	a = append_at(m, late, "a", "l", "u"); /* there is another log */
	assert_false(a.duplicate);
	assert_int_equal(a.place.offset, 2);
}

/* Full is told, changes nothing, and ends when something has expired. */
static void test_memlog_full(void **state)
{
	struct memlogs *m = *state;
	uint64_t offset = 0;
	struct store_append a;

	m->bytes_max = 4096;
	for (unsigned i = 0; i < 100; i++) {
		char key[16];

		snprintf(key, sizeof(key), "%u", i);
		a = append_at(m, T0, "a", key, "x");
		if (a.rc != 0)
			break;
		offset = a.place.offset;
	}
	assert_int_equal(a.rc, ERR_FULL);
	assert_true(m->bytes <= m->bytes_max);
	assert_int_equal(top_at(m, T0, "a").offset, offset);
	memlogs_trim(m, 1000, T0 + WINDOW);
	a = append_at(m, T0 + WINDOW, "a", "again", "x");
	assert_int_equal(a.rc, 0);
	assert_int_equal(a.place.offset, offset + 1);
}

/* Many logs: a trim looks at some, the next at others. */
static void test_memlog_trim_steps(void **state)
{
	struct memlogs *m = *state;
	char channel[16];

	for (unsigned i = 0; i < 100; i++) {
		snprintf(channel, sizeof(channel), "c%u", i);
		append_at(m, T0, channel, "", "x");
	}
	for (unsigned i = 1; i <= 10; i++) {
		memlogs_trim(m, 10, T0 + TTL + MEMLOG_LINGER_MS);
		assert_int_equal(m->logs.count, 100 - 10 * i);
	}
}

int main(void)
{
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
	const struct CMUnitTest tests[] = {
		CASE(test_memlog_counts),
		CASE(test_memlog_ttl),
		CASE(test_memlog_forgets),
		CASE(test_memlog_idempotency),
		CASE(test_memlog_full),
		CASE(test_memlog_trim_steps),
		CASE(test_memlog_ttl_by_age),
		CASE(test_memlog_eras),
		CASE(test_memlog_answer_of_no_log),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "connnode/link/skew.h"

#include "common/base/check.h"

#include "tests/unit/unit.h"

#define MS 1000

/* At `ms` of the monotonic clock our wall clock is at 1000 s + that + `set_ms`,
 * and theirs is `ahead_ms` ahead; it takes `delay_ms` to tell. */
static bool heard(struct skew *s, uint64_t ms, int64_t set_ms, int64_t ahead_ms,
		  int64_t delay_ms)
{
	int64_t ours_ms = 1000000 + (int64_t)ms + set_ms;

	return skew_add(s, (uint64_t)(ours_ms + ahead_ms - delay_ms) * MS,
			(uint64_t)ours_ms * MS, ms);
}

static void test_skew_least_delay_counts(void **state)
{
	struct skew s = {0};

	(void)state;
	heard(&s, 0, 0, 100, 30);
	assert_int_equal(s.us, 70 * MS);
	heard(&s, 1000, 0, 100, 5);
	assert_int_equal(s.us, 95 * MS);
	for (unsigned i = 2; i < SKEW_SAMPLES + 1; i++) {
		heard(&s, i * 1000, 0, 100, 40);
		assert_int_equal(s.us, 95 * MS);
	}
	heard(&s, 9000, 0, 100, 40); /* that one is forgotten */
	assert_int_equal(s.us, 60 * MS);
	/* A link that stood still once. */
	heard(&s, 10000, 0, 100, 3000);
	heard(&s, 11000, 0, 100, 2000);
	assert_int_equal(s.us, 60 * MS);
}

static void test_skew_behind(void **state)
{
	struct skew s = {0};

	(void)state;
	heard(&s, 0, 0, -10000, 1);
	assert_int_equal(s.us, -10001 * MS);
	assert_int_equal(skew_absolute_us(&s), 10001 * MS);
	assert_int_equal(skew_ours(&s, 5000 * MS), 15001 * MS);
	assert_int_equal(skew_ours(&s, 0), 0);
	heard(&s, 1000, 0, 10000, 0);
	assert_int_equal(s.us, 10000 * MS);
	assert_int_equal(skew_ours(&s, 15000 * MS), 5000 * MS);
	assert_int_equal(skew_ours(&s, 5000 * MS), 1); /* it was told */
}

/* Their clock is set back: three that agree. */
static void test_skew_theirs_is_set(void **state)
{
	struct skew s = {0};

	(void)state;
	for (unsigned i = 0; i < 10; i++)
		heard(&s, i * 1000, 0, 8000, 1);
	heard(&s, 10000, 0, 2000, 1);
	heard(&s, 11000, 0, 2000, 4);
	assert_int_equal(s.us, 7999 * MS);
	heard(&s, 12000, 0, 2000, 2);
	assert_int_equal(s.us, 1999 * MS);
	heard(&s, 13000, 0, 2000, 3);
	assert_int_equal(s.us, 1999 * MS);
	/* And ahead, at once. */
	heard(&s, 14000, 0, 5000, 3);
	assert_int_equal(s.us, 4997 * MS);
}

/* Ours is set, either way. */
static void test_skew_ours_is_set(void **state)
{
	struct skew s = {0};

	(void)state;
	for (unsigned i = 0; i < 10; i++)
		heard(&s, i * 1000, 0, 100, 1);
	heard(&s, 10000, 5000, 100 - 5000, 1);
	assert_int_equal(s.us, -4901 * MS);
	heard(&s, 11000, -5000, 100 + 5000, 1);
	assert_int_equal(s.us, 5099 * MS);
	/* Slowly, by a time service, is no step. */
	for (unsigned i = 12; i < 20; i++)
		heard(&s, i * 1000, -5000 + i, 5100 - i, 50);
	assert_int_equal(s.us, (5100 - 12 - 50) * MS);
}

static void test_skew_is_warned_of_once(void **state)
{
	struct skew s = {0};

	(void)state;
	assert_false(heard(&s, 0, 0, 499, 0));
	assert_true(heard(&s, 1000, 0, 2000, 0));
	for (unsigned i = 2; i < 12; i++)
		assert_false(heard(&s, i * 1000, 0, 2000, i));
	assert_true(heard(&s, 12000, 0, 9000, 0));
	for (unsigned i = 13; i < 16; i++) /* set right */
		assert_false(heard(&s, i * 1000, 0, 10, 0));
	assert_true(heard(&s, 16000, 0, 700, 0));
}

/* What no clock tells is not taken for one, and nothing overflows. */
static void test_skew_absurd(void **state)
{
	const uint64_t absurd[] = {1, INT64_MAX, UINT64_MAX,
				   (uint64_t)INT64_MAX + 1};
	struct skew s = {0};

	(void)state;
	heard(&s, 0, 0, 100, 0);
	for (unsigned i = 0; i < array_len(absurd); i++) {
		assert_false(
			skew_add(&s, absurd[i], 1700000000ull * 1000000, 1000));
		assert_int_equal(s.us, 100 * MS);
	}
	assert_int_equal(skew_ours(&s, 1), 1);
	assert_int_equal(skew_ours(&s, INT64_MAX), INT64_MAX);
	assert_int_equal(skew_ours(&s, UINT64_MAX), UINT64_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_skew_least_delay_counts),
		cmocka_unit_test(test_skew_behind),
		cmocka_unit_test(test_skew_theirs_is_set),
		cmocka_unit_test(test_skew_ours_is_set),
		cmocka_unit_test(test_skew_is_warned_of_once),
		cmocka_unit_test(test_skew_absurd),
	};

	return cmocka_run_group_tests_name("skew", tests, NULL, NULL);
}

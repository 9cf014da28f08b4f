#include "connnode/node/load.h"

#include "common/base/check.h"
#include "tests/unit/unit.h"

static const struct load_limits limits = {
	.streams = 1000,
	.accepts = 100,
	.sent_bytes = 1000000,
	.queue_age_us = 500000,
};

static void test_load_rates_follow(void **state UNUSED)
{
	struct load l;

	load_init(&l, &limits, 0);
	for (uint64_t s = 1; s <= 20; s++)
		load_look(&l, s * 1000, 10, s * 50, s * 2000, 0);
	assert_in_range(l.accepts, 49, 50);
	assert_in_range(l.sent_bytes, 1990, 2000);
	assert_in_range(l.fullness, 490, 500); /* accepts are its fullest */
	for (uint64_t s = 21; s <= 40; s++)
		load_look(&l, s * 1000, 10, 1000, 40000, 0);
	assert_int_equal(l.accepts, 0);
	assert_int_equal(l.fullness, 10);
}

static void test_load_by_each_limit(void **state UNUSED)
{
	struct load_limits none = {0};
	struct load l;

	load_init(&l, &limits, 0);
	load_look(&l, 1000, 900, 0, 0, 0);
	assert_int_equal(l.fullness, 900);
	load_look(&l, 2000, 0, 0, 1000000, 0);
	assert_int_equal(l.fullness, 300);
	load_look(&l, 3000, 0, 0, 1000000, 600000);
	assert_int_equal(l.fullness, 1200);
	load_init(&l, &none, 0);
	load_look(&l, 1000, 1000000, 1000000, 1000000, 1000000);
	assert_int_equal(l.fullness, 0);
}

/* The greatest age of a second shows, even if it was over at the look. */
static void test_load_oldest_of_a_second(void **state UNUSED)
{
	struct load l;

	load_init(&l, &limits, 0);
	load_look(&l, 500, 0, 0, 0, 250000);
	assert_int_equal(l.queue_age_us, 0);
	load_look(&l, 1000, 0, 0, 0, 100);
	assert_int_equal(l.queue_age_us, 250000);
	assert_int_equal(l.fullness, 500);
	load_look(&l, 2000, 0, 0, 0, 100);
	assert_int_equal(l.queue_age_us, 100);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_load_rates_follow),
		cmocka_unit_test(test_load_by_each_limit),
		cmocka_unit_test(test_load_oldest_of_a_second),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

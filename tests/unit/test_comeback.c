#include "connnode/stream/comeback.h"

#include "common/base/check.h"
#include "tests/unit/unit.h"

#define WINDOW_MS 60000
#define LEAST_MS  1000

static void test_comeback_one_alone_comes_soon(void **state UNUSED)
{
	struct comeback c;

	comeback_init(&c, WINDOW_MS, 0);
	assert_int_equal(comeback_ms(&c, 10, 1000, LEAST_MS), LEAST_MS);
	assert_int_equal(comeback_window_ms(&c, 10, 1000), 1);
	assert_int_equal(comeback_window_ms(&c, 20, 1000), 0);
}

/* 20,000 are turned away at once; in no second may many more than 1,000 come
 * back. */
static void test_comeback_flattens_a_storm(void **state UNUSED)
{
	unsigned in_second[64] = {0}, busiest = 0;
	struct comeback c;

	comeback_init(&c, WINDOW_MS, 0);
	for (unsigned i = 0; i < 20000; i++)
		in_second[comeback_ms(&c, 0, 1000, LEAST_MS) / 1000]++;
	for (unsigned i = 0; i < 64; i++)
		busiest = busiest > in_second[i] ? busiest : in_second[i];
	assert_in_range(busiest, 1000, 1150);
	assert_in_range(comeback_window_ms(&c, 0, 1000), 19990, 20010);
	assert_in_range(comeback_window_ms(&c, 5000, 1000), 14990, 15010);
	assert_int_equal(comeback_window_ms(&c, 30000, 1000), 0);
}

static void test_comeback_window_has_an_end(void **state UNUSED)
{
	unsigned early = 0;
	struct comeback c;

	comeback_init(&c, WINDOW_MS, 0);
	for (unsigned i = 0; i < 100000; i++)
		assert_true(comeback_ms(&c, 0, 1000, LEAST_MS) <=
			    LEAST_MS + WINDOW_MS * 5 / 4);
	assert_int_equal(comeback_window_ms(&c, 0, 1000), WINDOW_MS);
	/* Behind its end they are spread over all of it. */
	for (unsigned i = 0; i < 1000; i++)
		early += comeback_ms(&c, 0, 1000, LEAST_MS) <
			 LEAST_MS + WINDOW_MS / 2;
	assert_in_range(early, 350, 650);
}

static void test_comeback_room(void **state UNUSED)
{
	/* There is room here. */
	assert_int_equal(comeback_room(9, 6000, 500, WINDOW_MS, false), 500);
	assert_int_equal(comeback_room(9, 6000, 0, WINDOW_MS, false),
			 UINT32_MAX);
	/* Or elsewhere. */
	assert_int_equal(comeback_room(6000, 6000, 500, WINDOW_MS, true), 500);
	/* Nowhere: as many as stream here come over the window. */
	assert_int_equal(comeback_room(6000, 6000, 500, WINDOW_MS, false), 100);
	assert_int_equal(comeback_room(1, 1, 500, WINDOW_MS, false), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_comeback_one_alone_comes_soon),
		cmocka_unit_test(test_comeback_flattens_a_storm),
		cmocka_unit_test(test_comeback_window_has_an_end),
		cmocka_unit_test(test_comeback_room),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "connnode/stream/scrutiny.h"

#include "common/base/check.h"
#include "tests/unit/unit.h"

#include <arpa/inet.h>

#define RATE	  100
#define WINDOW_MS 60000

static struct sockaddr_in address(unsigned host)
{
	return (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(host)};
}

static bool take(struct scrutiny *s, unsigned host, uint64_t now_ms)
{
	struct sockaddr_in a = address(host);

	return scrutiny_take(s, (struct sockaddr *)&a, now_ms);
}

static void failed(struct scrutiny *s, unsigned host, unsigned times)
{
	struct sockaddr_in a = address(host);

	while (times-- > 0)
		scrutiny_failed(s, (struct sockaddr *)&a);
}

static unsigned taken(struct scrutiny *s, unsigned host, uint64_t now_ms)
{
	unsigned n = 0;

	while (n < 10 * RATE && take(s, host, now_ms))
		n++;
	return n;
}

static void test_scrutiny_has_a_budget(void **state UNUSED)
{
	struct scrutiny s;

	scrutiny_init(&s, RATE, WINDOW_MS, 0);
	assert_int_equal(taken(&s, 1, 0), RATE);
	assert_int_equal(taken(&s, 2, 0), 0);
	assert_int_equal(taken(&s, 2, 100), RATE / 10);
	scrutiny_fini(&s);
}

static void test_scrutiny_leaves_half_to_others(void **state UNUSED)
{
	struct scrutiny s;

	scrutiny_init(&s, RATE, WINDOW_MS, 0);
	/* By a random one, one in thousands shares another's fate. */
	s.key = (struct hash_key){0};
	/* A token that has just expired makes nobody a suspect. */
	failed(&s, 1, SCRUTINY_SUSPECT - 1);
	assert_int_equal(taken(&s, 1, 0), RATE);
	failed(&s, 1, 1);
	failed(&s, 2, 100000);
	assert_int_equal(taken(&s, 1, 999) + taken(&s, 2, 999), RATE / 2);
	assert_int_equal(taken(&s, 3, 999), RATE / 2 - 1);
	scrutiny_fini(&s);
}

static void test_scrutiny_forgets(void **state UNUSED)
{
	struct scrutiny s;

	scrutiny_init(&s, RATE, WINDOW_MS, 0);
	failed(&s, 1, SCRUTINY_SUSPECT);
	assert_int_equal(taken(&s, 1, 500), RATE / 2);
	assert_int_equal(taken(&s, 1, 2000), RATE);
	failed(&s, 1, 100000);
	assert_int_equal(taken(&s, 1, 4000), RATE / 2);
	assert_int_equal(taken(&s, 1, 5000000), RATE);
	scrutiny_fini(&s);
}

static void test_scrutiny_off(void **state UNUSED)
{
	struct scrutiny s;

	scrutiny_init(&s, 0, WINDOW_MS, 0);
	failed(&s, 1, 1000);
	assert_int_equal(taken(&s, 1, 0), 10 * RATE);
	scrutiny_fini(&s);
}

/* The smallest budget is not "any" for suspects. */
static void test_scrutiny_of_one(void **state UNUSED)
{
	struct scrutiny s;

	scrutiny_init(&s, 1, WINDOW_MS, 0);
	failed(&s, 1, SCRUTINY_SUSPECT);
	assert_int_equal(taken(&s, 1, 0), 1);
	scrutiny_fini(&s);
}

static void test_scrutiny_queues_who_is_over(void **state UNUSED)
{
	struct scrutiny s;
	uint32_t last = 0;

	scrutiny_init(&s, RATE, WINDOW_MS, 0);
	for (unsigned i = 0; i < 10 * RATE; i++)
		last = scrutiny_later_ms(&s, 0, 1000);
	assert_in_range(last, 1000 + 7000, 1000 + 13000);
	scrutiny_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_scrutiny_has_a_budget),
		cmocka_unit_test(test_scrutiny_leaves_half_to_others),
		cmocka_unit_test(test_scrutiny_forgets),
		cmocka_unit_test(test_scrutiny_off),
		cmocka_unit_test(test_scrutiny_of_one),
		cmocka_unit_test(test_scrutiny_queues_who_is_over),
	};

	return cmocka_run_group_tests_name("scrutiny", tests, NULL, NULL);
}

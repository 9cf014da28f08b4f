#include "common/ds/limits.h"

#include "common/base/check.h"
#include "tests/unit/unit.h"

#include <arpa/inet.h>
#include <string.h>

static struct sockaddr_storage address(const char *text)
{
	struct sockaddr_storage s = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&s;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&s;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		s.ss_family = AF_INET;
	} else {
		assert_int_equal(inet_pton(AF_INET6, text, &v6->sin6_addr), 1);
		s.ss_family = AF_INET6;
	}
	return s;
}

static bool enter(struct limits *l, const char *text,
		  struct limits_address **entry)
{
	struct sockaddr_storage s = address(text);

	return limits_enter(l, (struct sockaddr *)&s, entry);
}

static void test_limits_per_address(void **state UNUSED)
{
	struct limits_address *a[2], *b, *none;
	struct limits l;

	limits_init(&l, 2, 0, 0);
	assert_true(enter(&l, "10.0.0.1", &a[0]));
	assert_true(enter(&l, "::ffff:10.0.0.1", &a[1]));
	assert_false(enter(&l, "10.0.0.1", &none));
	assert_null(none);
	assert_true(enter(&l, "10.0.0.2", &b));
	limits_leave(&l, a[0]);
	assert_true(enter(&l, "10.0.0.1", &a[0]));
	limits_leave(&l, a[0]);
	limits_leave(&l, a[1]);
	limits_leave(&l, b);
	limits_fini(&l);
}

static void test_limits_networks(void **state UNUSED)
{
	struct limits_address *a, *b, *none;
	struct limits l;

	limits_init(&l, 1, 0, 0);
	assert_true(enter(&l, "2001:db8:1:2::1", &a));
	assert_false(enter(&l, "2001:db8:1:2:ffff::9", &none));
	assert_true(enter(&l, "2001:db8:1:3::1", &b));
	limits_leave(&l, a);
	limits_leave(&l, b);
	limits_fini(&l);
}

static void test_limits_off(void **state UNUSED)
{
	struct limits_address *none;
	struct limits l;

	limits_init(&l, 0, 0, 0);
	for (unsigned i = 0; i < 10; i++)
		assert_true(enter(&l, "10.0.0.1", &none));
	assert_null(none);
	limits_leave(&l, none);
	for (unsigned i = 0; i < 1000; i++)
		assert_true(limits_take(&l, 0));
	limits_fini(&l);
}

static unsigned taken(struct limits *l, uint64_t now_ms)
{
	unsigned n = 0;

	while (n < 1000 && limits_take(l, now_ms))
		n++;
	return n;
}

static void test_limits_rate(void **state UNUSED)
{
	struct limits l;

	limits_init(&l, 0, 10, 5000);
	assert_int_equal(taken(&l, 5000), 10);
	assert_int_equal(taken(&l, 5099), 0);
	assert_int_equal(taken(&l, 5100), 1);
	assert_int_equal(taken(&l, 5600), 5);
	assert_false(limits_left(&l, 5600));
	assert_true(limits_left(&l, 5700));
	assert_true(limits_left(&l, 5700)); /* it takes nothing */
	assert_int_equal(taken(&l, 5700), 1);
	/* However long nobody came. */
	assert_int_equal(taken(&l, 5000000000), 10);
	limits_fini(&l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits_per_address),
		cmocka_unit_test(test_limits_networks),
		cmocka_unit_test(test_limits_off),
		cmocka_unit_test(test_limits_rate),
	};

	return cmocka_run_group_tests_name("limits", tests, NULL, NULL);
}

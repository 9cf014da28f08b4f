#include "connnode/stream/backlog.h"

#include "tests/unit/unit.h"

static void test_backlog_finds_the_longest(void **state)
{
	struct backlog b;
	struct list e[3];
	uint8_t class[3] = {0};

	(void)state;
	backlog_init(&b);
	for (unsigned i = 0; i < 3; i++)
		list_init(&e[i]);
#define set(i, bytes) backlog_set(&b, &e[i], &class[i], bytes)
	assert_null(backlog_longest(&b));
	set(0, BACKLOG_LEAST - 1);
	assert_null(backlog_longest(&b));
	set(0, BACKLOG_LEAST);
	set(1, 40 * BACKLOG_LEAST);
	set(2, 10 * BACKLOG_LEAST);
	assert_ptr_equal(backlog_longest(&b), &e[1]);
	set(1, 41 * BACKLOG_LEAST);
	assert_ptr_equal(backlog_longest(&b), &e[1]);
	set(1, 0);
	assert_ptr_equal(backlog_longest(&b), &e[2]);
	set(2, SIZE_MAX);
	assert_ptr_equal(backlog_longest(&b), &e[2]);
	set(2, 1);
	assert_ptr_equal(backlog_longest(&b), &e[0]);
	set(0, 0);
	assert_null(backlog_longest(&b));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_backlog_finds_the_longest),
	};

	return cmocka_run_group_tests_name("backlog", tests, NULL, NULL);
}

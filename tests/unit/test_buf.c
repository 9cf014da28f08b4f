#include "common/ds/buf.h"

#include "common/base/err.h"
#include "tests/unit/unit.h"

#include <string.h>

static void test_buf_append_grows_up_to_the_maximum(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 1000);
	for (int i = 0; i < 100; i++)
		assert_int_equal(buf_append(&b, "0123456789", 10), 0);
	assert_int_equal(b.len, 1000);
	assert_true(b.cap <= 1001);
	assert_memory_equal(b.bytes + 990, "0123456789", 10);
	buf_fini(&b);
}

static void test_buf_full_changes_nothing(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 5);
	assert_int_equal(buf_append(&b, "abc", 3), 0);
	assert_int_equal(buf_append(&b, "def", 3), ERR_FULL);
	assert_null(buf_extend(&b, 3));
	assert_null(buf_extend(&b, SIZE_MAX));
	assert_int_equal(buf_printf(&b, "%d", 123), ERR_FULL);
	assert_int_equal(b.len, 3);
	assert_int_equal(buf_printf(&b, "%d", 12), 0);
	assert_memory_equal(b.bytes, "abc12", 5);
	assert_int_equal(buf_append(&b, "", 0), 0);
	buf_fini(&b);
}

static void test_buf_extend_gives_the_place(void **state)
{
	struct buf b;
	char *place;

	(void)state;
	buf_init(&b, 100000);
	assert_non_null(buf_extend(&b, 0));
	assert_int_equal(buf_append(&b, "x", 1), 0);
	place = buf_extend(&b, 5000);
	assert_ptr_equal(place, b.bytes + 1);
	memset(place, 'y', 5000);
	assert_int_equal(b.len, 5001);
	assert_int_equal(b.bytes[5000], 'y');
	buf_fini(&b);
}

static void test_buf_consume_forgets_the_front(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 10);
	buf_consume(&b, 0);
	assert_int_equal(buf_append(&b, "abcdef", 6), 0);
	buf_consume(&b, 4);
	assert_int_equal(b.len, 2);
	assert_memory_equal(b.bytes, "ef", 2);
	assert_int_equal(buf_append(&b, "12345678", 8), 0);
	buf_consume(&b, 10);
	assert_int_equal(b.len, 0);
	buf_fini(&b);
}

static void test_buf_clear_keeps_small_memory(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 1 << 20);
	assert_int_equal(buf_append(&b, "x", 1), 0);
	buf_clear(&b, 4096);
	assert_int_equal(b.len, 0);
	assert_non_null(b.bytes);
	assert_non_null(buf_extend(&b, 100000));
	buf_clear(&b, 4096);
	assert_null(b.bytes);
	assert_int_equal(b.cap, 0);
	assert_int_equal(buf_append(&b, "again", 5), 0);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_buf_append_grows_up_to_the_maximum),
		cmocka_unit_test(test_buf_full_changes_nothing),
		cmocka_unit_test(test_buf_extend_gives_the_place),
		cmocka_unit_test(test_buf_consume_forgets_the_front),
		cmocka_unit_test(test_buf_clear_keeps_small_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

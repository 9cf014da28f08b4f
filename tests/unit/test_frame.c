#include "common/ds/frame.h"

#include "tests/unit/unit.h"

#include <string.h>

static void test_frame_holds_a_copy(void **state)
{
	char text[] = "event";
	struct frame *f = frame_from(text, 5);

	(void)state;
	memset(text, 'x', 5);
	assert_int_equal(f->len, 5);
	assert_memory_equal(f->bytes, "event", 5);
	frame_release(f);
}

/* That the last release frees, and no earlier one, is asan's to see. */
static void test_frame_lives_until_the_last_release(void **state)
{
	struct frame *f = frame_new(3);

	(void)state;
	memcpy(f->bytes, "abc", 3);
	assert_int_equal(f->refs, 1);
	assert_ptr_equal(frame_hold(f), f);
	assert_int_equal(f->refs, 2);
	frame_release(f);
	assert_int_equal(f->refs, 1);
	assert_memory_equal(f->bytes, "abc", 3);
	frame_release(f);
}

static void test_frame_may_be_empty(void **state)
{
	struct frame *f = frame_from("", 0);

	(void)state;
	assert_int_equal(f->len, 0);
	frame_release(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_frame_holds_a_copy),
		cmocka_unit_test(test_frame_lives_until_the_last_release),
		cmocka_unit_test(test_frame_may_be_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

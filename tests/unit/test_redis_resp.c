/* What is read of a server's answers. */
#include "dispatcher/store/redis_internal.h"
#include "tests/unit/unit.h"

#include <string.h>

static void test_resp_numbers(void **state)
{
	const char *at = "12 18446744073709551615";
	const char *none[] = {
		"", " 1", "-1", "1x", "0x1", "1.5", "18446744073709551616"};
	uint64_t n;

	(void)state;
	assert_true(redis_number(&at, &n));
	assert_int_equal(n, 12);
	assert_true(redis_number(&at, &n));
	assert_int_equal(n, UINT64_MAX);
	assert_string_equal(at, "");
	assert_false(redis_number(&at, &n));
	for (size_t i = 0; i < array_len(none); i++) {
		at = none[i];
		assert_false(redis_number(&at, &n));
		assert_ptr_equal(at, none[i]);
	}
	at = NULL;
	assert_false(redis_number(&at, &n));
}

/* Of HMGET: what is not there is no number, nor is what more follows. */
static void test_resp_elements(void **state)
{
	struct redis_reply nil = {.type = REDIS_REPLY_NIL};
	struct redis_reply one = {.type = REDIS_REPLY_STRING, .text = "7"};
	struct redis_reply two = {.type = REDIS_REPLY_STRING, .text = "7 8"};
	struct redis_reply *elements[] = {&nil, &one, &two};
	struct redis_reply reply = {.type = REDIS_REPLY_ARRAY,
				    .elements = elements,
				    .count = array_len(elements)};
	uint64_t n;

	(void)state;
	assert_false(redis_element_number(&reply, 0, &n));
	assert_true(redis_element_number(&reply, 1, &n));
	assert_int_equal(n, 7);
	assert_false(redis_element_number(&reply, 2, &n));
	assert_false(redis_element_number(&reply, 3, &n));
}

static void test_resp_keys(void **state)
{
	char text[REDIS_KEY_SIZE];
	struct redis_arg key = redis_key(text, "a:b", "k:", "once");

	(void)state;
	assert_string_equal(text, "stentor:{a:b}:k:once");
	assert_int_equal(key.len, strlen(text));
	redis_key(text, "a", "meta", "");
	assert_string_equal(text, "stentor:{a}:meta");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_resp_numbers),
		cmocka_unit_test(test_resp_elements),
		cmocka_unit_test(test_resp_keys),
	};

	return cmocka_run_group_tests_name("redis_resp", tests, NULL, NULL);
}

/* Channel names: the alphabet and the length, and nothing else. */
#include "common/codec/channel.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

static void test_channel_accepts_names(void **state)
{
	static const char *const names[] = {
		"a", "score:42", "user/7@x.y~z-_", "ABC.xyz:019", "/", "-"};

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_true(channel_name_valid(names[i], strlen(names[i])));
}

static void test_channel_allows_exactly_its_alphabet(void **state)
{
	static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz"
				       "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				       "0123456789_.:~@/-";

	(void)state;
	for (int c = 0; c < 256; c++) {
		char name[3] = {'a', (char)c, 'b'};
		bool allowed = memchr(alphabet, c, sizeof(alphabet) - 1);

		assert_int_equal(channel_name_valid(name, 3), allowed);
		assert_int_equal(channel_name_valid(name + 1, 1), allowed);
	}
}

static void test_channel_bounds_the_length(void **state)
{
	char name[CHANNEL_NAME_MAX + 1];

	(void)state;
	memset(name, 'x', sizeof(name));
	assert_false(channel_name_valid(name, 0));
	assert_true(channel_name_valid(name, CHANNEL_NAME_MAX));
	assert_false(channel_name_valid(name, CHANNEL_NAME_MAX + 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_channel_accepts_names),
		cmocka_unit_test(test_channel_allows_exactly_its_alphabet),
		cmocka_unit_test(test_channel_bounds_the_length),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

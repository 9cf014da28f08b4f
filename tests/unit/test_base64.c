/* Base64 in both alphabets, padded or not. */
#include "common/base/err.h"
#include "common/codec/base64.h"
#include "tests/unit/unit.h"

#include <string.h>

static void expect(const char *text, const char *bytes)
{
	uint8_t out[64];
	size_t len = 99;

	assert_int_equal(base64_decode(text, strlen(text), out, &len), 0);
	assert_int_equal(len, strlen(bytes));
	assert_memory_equal(out, bytes, len);
}

/* RFC 4648, section 10. */
static void test_base64_vectors(void **state)
{
	(void)state;
	expect("", "");
	expect("Zg==", "f");
	expect("Zm8=", "fo");
	expect("Zm9v", "foo");
	expect("Zm9vYg", "foob");
	expect("Zm9vYmE", "fooba");
	expect("Zm9vYmFy", "foobar");
	expect("-_8", "\xfb\xff");
	expect("+/8=", "\xfb\xff");
}

static void test_base64_refuses(void **state)
{
	static const char *const bad[] = {
		"Z", "Zg=", "Zg===", "====", "Zm9v=", "Zm 9", "Zg=a", "=Zg="};
	uint8_t out[64];
	size_t len;

	(void)state;
	for (size_t i = 0; i < array_len(bad); i++)
		assert_int_equal(
			base64_decode(bad[i], strlen(bad[i]), out, &len),
			ERR_MALFORMED);
}

static void test_base64_in_place(void **state)
{
	char text[] = "Zm9vYmFy";
	size_t len;

	(void)state;
	assert_int_equal(base64_decode(text, 8, (uint8_t *)text, &len), 0);
	assert_int_equal(len, 6);
	assert_memory_equal(text, "foobar", 6);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_base64_vectors),
		cmocka_unit_test(test_base64_refuses),
		cmocka_unit_test(test_base64_in_place),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

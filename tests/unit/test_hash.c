#include "common/base/hash.h"

#include "tests/unit/unit.h"

#include <stdbool.h>

/* Appendix A of the SipHash paper; further lengths from its reference code. */
static const struct hash_key reference_key = {0x0706050403020100u,
					      0x0f0e0d0c0b0a0908u};

static void test_hash_is_siphash_2_4(void **state)
{
	uint8_t input[16];

	(void)state;
	for (uint8_t i = 0; i < sizeof(input); i++)
		input[i] = i;
	assert_true(hash_bytes(&reference_key, input, 15) ==
		    0xa129ca6149be45e5u);
	assert_true(hash_bytes(&reference_key, input, 0) ==
		    0x726fdb47dd0e0e31u);
	assert_true(hash_bytes(&reference_key, input, 1) ==
		    0x74f839c593dc67fdu);
	assert_true(hash_bytes(&reference_key, input, 8) ==
		    0x93f5f5799a932462u);
}

static void test_hash_does_not_care_for_alignment(void **state)
{
	uint8_t bytes[32] = {0};

	(void)state;
	for (uint8_t i = 0; i < 15; i++)
		bytes[1 + i] = i;
	assert_true(hash_bytes(&reference_key, bytes + 1, 15) ==
		    0xa129ca6149be45e5u);
}

static void test_hash_depends_on_the_key(void **state)
{
	struct hash_key a = hash_key_random(), b = hash_key_random();

	(void)state;
	assert_true(a.k0 != b.k0 && a.k1 != b.k1);
	assert_true(hash_bytes(&a, "score:42", 8) !=
		    hash_bytes(&b, "score:42", 8));
}

static void test_random_below_stays_below(void **state)
{
	bool seen[10] = {false};

	(void)state;
	assert_int_equal(random_below(0), 0);
	assert_int_equal(random_below(1), 0);
	for (unsigned i = 0; i < 1000; i++) {
		uint64_t n = random_below(10);

		assert_true(n < 10);
		seen[n] = true;
	}
	for (unsigned i = 0; i < 10; i++)
		assert_true(seen[i]);
	assert_true(random_nonzero() != random_nonzero());
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hash_is_siphash_2_4),
		cmocka_unit_test(test_hash_does_not_care_for_alignment),
		cmocka_unit_test(test_hash_depends_on_the_key),
		cmocka_unit_test(test_random_below_stays_below),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

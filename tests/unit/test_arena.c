#include "common/ds/arena.h"

#include "common/base/check.h"
#include "tests/unit/unit.h"

#include <string.h>

static void test_arena_pieces(void **state UNUSED)
{
	struct arena a;
	uint8_t *pieces[100];

	arena_init(&a, 10u << 20);
	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < array_len(pieces); i++) {
			size_t size = 1 + i * 37 % 5000;

			pieces[i] = arena_alloc(&a, size);
			assert_non_null(pieces[i]);
			assert_int_equal((uintptr_t)pieces[i] % 16, 0);
			memset(pieces[i], (int)i, size);
		}
		for (unsigned i = 0; i < array_len(pieces); i++) {
			assert_int_equal(pieces[i][0], i);
			assert_int_equal(pieces[i][i * 37 % 5000], i);
		}
		arena_reset(&a);
	}
	arena_fini(&a);
}

static void test_arena_maximum(void **state UNUSED)
{
	struct arena a;

	arena_init(&a, 100000);
	assert_null(arena_alloc(&a, 100001));
	assert_null(arena_alloc(&a, SIZE_MAX));
	assert_non_null(arena_alloc(&a, 50000));
	assert_null(arena_alloc(&a, 60000));
	assert_non_null(arena_alloc(&a, 15000));
	/* What is left of the maximum is given out, though not a chunk. */
	assert_non_null(arena_alloc(&a, 30000));
	assert_true(a.held <= 100000);
	arena_fini(&a);
	assert_int_equal(a.held, 0);
}

static void test_arena_keeps_a_little(void **state UNUSED)
{
	struct arena a;
	void *first;

	arena_init(&a, 64u << 20);
	first = arena_alloc(&a, 10);
	assert_non_null(arena_alloc(&a, 20u << 20));
	arena_reset(&a);
	assert_true(a.held > 0);
	assert_true(a.held <= ARENA_KEEP);
	assert_ptr_equal(arena_alloc(&a, 10), first);
	arena_fini(&a);
	arena_fini(&a); /* empty is allowed */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_arena_pieces),
		cmocka_unit_test(test_arena_maximum),
		cmocka_unit_test(test_arena_keeps_a_little),
	};

	return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}

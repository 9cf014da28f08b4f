#include "common/ds/slab.h"

#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

#define SIZE  1000u
#define COUNT 2000u

static size_t resident_pages(void)
{
	FILE *file = fopen("/proc/self/statm", "r");
	size_t size, resident;

	assert_non_null(file);
	assert_int_equal(fscanf(file, "%zu %zu", &size, &resident), 2);
	fclose(file);
	return resident;
}

static void test_slab_objects_are_aligned_and_apart(void **state)
{
	static uint8_t *objects[COUNT];
	struct slab s;

	(void)state;
	slab_init(&s, SIZE);
	assert_int_equal(s.object_size, 1008);
	for (unsigned i = 0; i < COUNT; i++) {
		objects[i] = slab_alloc(&s);
		assert_int_equal((uintptr_t)objects[i] % 16, 0);
		memset(objects[i], (int)(i % 251), SIZE);
	}
	assert_int_equal(s.used, COUNT);
	for (unsigned i = 0; i < COUNT; i++) {
		assert_int_equal(objects[i][0], i % 251);
		assert_int_equal(objects[i][SIZE - 1], i % 251);
		slab_free(&s, objects[i]);
	}
	assert_int_equal(s.used, 0);
	slab_fini(&s);
}

static void test_slab_freed_object_is_the_next_given_out(void **state)
{
	struct slab s;
	void *a, *b;

	(void)state;
	slab_init(&s, 48);
	a = slab_alloc(&s);
	b = slab_alloc(&s);
	assert_ptr_not_equal(a, b);
	slab_free(&s, a);
	assert_ptr_equal(slab_alloc(&s), a);
	slab_free(&s, b);
	slab_free(&s, a);
	slab_fini(&s);
}

/* Thread sanitizer keeps shadow pages of what it saw. */
#ifdef __SANITIZE_THREAD__
#define assert_resident(fact) (void)(fact)
#else
#define assert_resident(fact) assert_true(fact)
#endif

static void test_slab_returns_memory(void **state)
{
	static void *objects[COUNT];
	size_t before, full, after;
	struct slab s;

	(void)state;
	slab_init(&s, SIZE);
	before = resident_pages();
	for (unsigned i = 0; i < COUNT; i++) {
		objects[i] = slab_alloc(&s);
		memset(objects[i], 1, SIZE);
	}
	full = resident_pages();
	assert_resident(full >= before + COUNT * SIZE / 4096 * 9 / 10);
	/* Every other one first, so that chunks empty out of order. */
	for (unsigned i = 0; i < COUNT; i += 2)
		slab_free(&s, objects[i]);
	assert_int_equal(s.empty_chunks, 0);
	for (unsigned i = 1; i < COUNT; i += 2)
		slab_free(&s, objects[i]);
	after = resident_pages();
	assert_int_equal(s.empty_chunks, 2);
	assert_resident(after <= full - COUNT * SIZE / 4096 * 8 / 10);
	slab_fini(&s);
}

static void test_slab_fills_partial_chunks_before_empty_ones(void **state)
{
	static void *objects[COUNT];
	struct slab s;
	void *one;

	(void)state;
	slab_init(&s, SIZE);
	for (unsigned i = 0; i < 3 * s.per_chunk; i++)
		objects[i] = slab_alloc(&s);
	for (unsigned i = 0; i < s.per_chunk; i++)
		slab_free(&s, objects[i]);
	slab_free(&s, objects[2 * s.per_chunk]);
	assert_int_equal(s.empty_chunks, 1);
	one = slab_alloc(&s);
	assert_ptr_equal(one, objects[2 * s.per_chunk]);
	assert_int_equal(s.empty_chunks, 1);
	for (size_t i = s.per_chunk; i < 3 * s.per_chunk; i++)
		slab_free(&s, objects[i]);
	slab_fini(&s);
}

static void test_slab_takes_one_object_a_chunk(void **state)
{
	struct slab s;
	void *a, *b;

	(void)state;
	slab_init(&s, 60000);
	a = slab_alloc(&s);
	b = slab_alloc(&s);
	memset(a, 1, 60000);
	memset(b, 2, 60000);
	slab_free(&s, a);
	slab_free(&s, b);
	slab_fini(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_slab_objects_are_aligned_and_apart),
		cmocka_unit_test(test_slab_freed_object_is_the_next_given_out),
		cmocka_unit_test(test_slab_returns_memory),
		cmocka_unit_test(
			test_slab_fills_partial_chunks_before_empty_ones),
		cmocka_unit_test(test_slab_takes_one_object_a_chunk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

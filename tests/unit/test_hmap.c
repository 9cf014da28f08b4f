#include "common/ds/hmap.h"

#include "common/base/check.h"
#include "tests/unit/unit.h"

#include <stdbool.h>

#define ENTRIES 1000u

struct entry {
	unsigned key;
	struct hmap_node node;
};

static struct entry *find(const struct hmap *map, unsigned key, uint64_t hash)
{
	hmap_for_each_hash (node, map, hash) {
		struct entry *e = container_of(node, struct entry, node);

		if (e->key == key)
			return e;
	}
	return NULL;
}

static void test_hmap_empty(void **state)
{
	struct hmap map;

	(void)state;
	hmap_init(&map);
	assert_null(hmap_first(&map, 1));
	assert_null(hmap_iterate(&map, NULL));
	hmap_fini(&map);
}

static void test_hmap_finds_what_was_inserted(void **state)
{
	static struct entry entries[ENTRIES];
	struct hmap map;

	(void)state;
	hmap_init(&map);
	for (unsigned i = 0; i < ENTRIES; i++) {
		entries[i].key = i;
		hmap_insert(&map, &entries[i].node, i * 7919u);
	}
	assert_int_equal(map.count, ENTRIES);
	for (unsigned i = 0; i < ENTRIES; i++)
		assert_ptr_equal(find(&map, i, i * 7919u), &entries[i]);
	assert_null(find(&map, ENTRIES, ENTRIES * 7919u));
	for (unsigned i = 0; i < ENTRIES; i += 2)
		hmap_remove(&map, &entries[i].node);
	assert_int_equal(map.count, ENTRIES / 2);
	for (unsigned i = 0; i < ENTRIES; i++)
		assert_ptr_equal(find(&map, i, i * 7919u),
				 i % 2 ? &entries[i] : NULL);
	hmap_fini(&map);
}

static void test_hmap_keeps_load_at_most_one(void **state)
{
	static struct entry entries[ENTRIES];
	struct hmap map;

	(void)state;
	hmap_init(&map);
	for (unsigned i = 0; i < ENTRIES; i++) {
		hmap_insert(&map, &entries[i].node, i);
		assert_true(map.count <= map.mask + 1);
	}
	assert_int_equal(map.mask, 1023);
	hmap_fini(&map);
}

static void test_hmap_equal_hashes_stand_side_by_side(void **state)
{
	struct entry entries[3] = {{.key = 0}, {.key = 1}, {.key = 2}};
	struct hmap map;

	(void)state;
	hmap_init(&map);
	for (unsigned i = 0; i < 3; i++)
		hmap_insert(&map, &entries[i].node, 42);
	for (unsigned i = 0; i < 3; i++)
		assert_ptr_equal(find(&map, i, 42), &entries[i]);
	/* The same bucket, another hash. */
	assert_null(hmap_first(&map, 42 + map.mask + 1));
	hmap_remove(&map, &entries[1].node);
	assert_null(find(&map, 1, 42));
	assert_ptr_equal(find(&map, 2, 42), &entries[2]);
	hmap_fini(&map);
}

static void test_hmap_iterate_visits_each_once(void **state)
{
	static struct entry entries[ENTRIES];
	static bool seen[ENTRIES];
	struct hmap_node *node, *next;
	unsigned count = 0;
	struct hmap map;

	(void)state;
	hmap_init(&map);
	for (unsigned i = 0; i < ENTRIES; i++) {
		entries[i].key = i;
		hmap_insert(&map, &entries[i].node, i / 3 * 31);
	}
	/* Removing each as soon as its successor is known. */
	for (node = hmap_iterate(&map, NULL); node; node = next) {
		struct entry *e = container_of(node, struct entry, node);

		next = hmap_iterate(&map, node);
		assert_false(seen[e->key]);
		seen[e->key] = true;
		hmap_remove(&map, node);
		count++;
	}
	assert_int_equal(count, ENTRIES);
	assert_int_equal(map.count, 0);
	hmap_fini(&map);
}

/* What is there stays to be found, walked and removed while it moves to new
 * buckets, a few with each insert. */
static void test_hmap_grows_step_by_step(void **state)
{
	static struct entry entries[ENTRIES];
	struct hmap map;
	size_t steps = 0;

	(void)state;
	hmap_init(&map);
	for (unsigned i = 0; i < ENTRIES; i++) {
		size_t moved = map.old != NULL ? map.moved : 0, there = 0;

		entries[i].key = i;
		hmap_insert(&map, &entries[i].node, i / 2 * 7919u);
		if (map.old != NULL) {
			assert_in_range(map.moved, moved, moved + HMAP_MOVES);
			steps++;
		}
		for (unsigned k = 0; k <= i; k++)
			assert_ptr_equal(find(&map, k, k / 2 * 7919u),
					 k % 8 == 7 && k + 1 < i ? NULL
								 : &entries[k]);
		for (struct hmap_node *n = hmap_iterate(&map, NULL); n != NULL;
		     n = hmap_iterate(&map, n))
			there++;
		assert_int_equal(there, map.count);
		if (i % 8 == 0 && i > 0)
			hmap_remove(&map, &entries[i - 1].node);
	}
	assert_true(steps > ENTRIES / 10);
	hmap_fini(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hmap_empty),
		cmocka_unit_test(test_hmap_finds_what_was_inserted),
		cmocka_unit_test(test_hmap_keeps_load_at_most_one),
		cmocka_unit_test(test_hmap_equal_hashes_stand_side_by_side),
		cmocka_unit_test(test_hmap_iterate_visits_each_once),
		cmocka_unit_test(test_hmap_grows_step_by_step),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

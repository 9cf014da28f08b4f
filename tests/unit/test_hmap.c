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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hmap_empty),
		cmocka_unit_test(test_hmap_finds_what_was_inserted),
		cmocka_unit_test(test_hmap_keeps_load_at_most_one),
		cmocka_unit_test(test_hmap_equal_hashes_stand_side_by_side),
		cmocka_unit_test(test_hmap_iterate_visits_each_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "common/ds/hmap.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <stdlib.h>

#define BUCKETS_MIN 16u

void hmap_init(struct hmap *map)
{
	*map = (struct hmap){0};
}

void hmap_fini(struct hmap *map)
{
	free(map->old);
	free(map->buckets);
	*map = (struct hmap){0};
}

static struct hmap_node **bucket_of(const struct hmap *map, uint64_t hash)
{
	if (unlikely(map->old != NULL) && (hash & map->old_mask) >= map->moved)
		return &map->old[hash & map->old_mask];
	return &map->buckets[hash & map->mask];
}

static void link_node(struct hmap *map, struct hmap_node *node)
{
	struct hmap_node **bucket = bucket_of(map, node->hash);

	node->next = *bucket;
	*bucket = node;
}

/* The next few of the old buckets. */
static void move_on(struct hmap *map)
{
	for (unsigned i = 0; i < HMAP_MOVES && map->moved <= map->old_mask;
	     i++) {
		struct hmap_node *node = map->old[map->moved++];

		while (node) {
			struct hmap_node *next = node->next;

			link_node(map, node);
			node = next;
		}
	}
	if (map->moved <= map->old_mask)
		return;
	free(map->old);
	map->old = NULL;
}

static void grow(struct hmap *map)
{
	size_t size = map->buckets ? (map->mask + 1) * 2 : BUCKETS_MIN;

	check(map->old == NULL);
	map->old = map->buckets;
	map->old_mask = map->mask;
	map->moved = 0;
	map->buckets = xcalloc(size, sizeof(struct hmap_node *));
	map->mask = size - 1;
}

void hmap_insert(struct hmap *map, struct hmap_node *node, uint64_t hash)
{
	if (!map->buckets || map->count > map->mask)
		grow(map);
	if (unlikely(map->old != NULL))
		move_on(map);
	node->hash = hash;
	link_node(map, node);
	map->count++;
}

void hmap_remove(struct hmap *map, struct hmap_node *node)
{
	struct hmap_node **link;

	check(map->count > 0);
	link = bucket_of(map, node->hash);
	while (*link != node) {
		check(*link != NULL); /* else it is not in the map */
		link = &(*link)->next;
	}
	*link = node->next;
	node->next = NULL;
	map->count--;
}

static struct hmap_node *skip_to(struct hmap_node *node, uint64_t hash)
{
	while (node && node->hash != hash)
		node = node->next;
	return node;
}

struct hmap_node *hmap_first(const struct hmap *map, uint64_t hash)
{
	if (!map->buckets)
		return NULL;
	return skip_to(*bucket_of(map, hash), hash);
}

struct hmap_node *hmap_next_equal(const struct hmap_node *node)
{
	return skip_to(node->next, node->hash);
}

static struct hmap_node *first_from(const struct hmap *map, size_t i)
{
	for (; i <= map->mask; i++) {
		if (map->buckets[i])
			return map->buckets[i];
	}
	return NULL;
}

/* Of the old buckets, or else of the new ones. */
static struct hmap_node *first_from_old(const struct hmap *map, size_t i)
{
	for (; map->old != NULL && i <= map->old_mask; i++) {
		if (map->old[i])
			return map->old[i];
	}
	return first_from(map, 0);
}

struct hmap_node *hmap_iterate(const struct hmap *map,
			       const struct hmap_node *node)
{
	if (!map->buckets)
		return NULL;
	if (node == NULL)
		return first_from_old(map, map->moved);
	if (node->next)
		return node->next;
	if (map->old != NULL && (node->hash & map->old_mask) >= map->moved)
		return first_from_old(map, (node->hash & map->old_mask) + 1);
	return first_from(map, (node->hash & map->mask) + 1);
}

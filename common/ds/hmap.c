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
	free(map->buckets);
	*map = (struct hmap){0};
}

static void link_node(struct hmap *map, struct hmap_node *node)
{
	struct hmap_node **bucket = &map->buckets[node->hash & map->mask];

	node->next = *bucket;
	*bucket = node;
}

static void grow(struct hmap *map)
{
	struct hmap_node **old = map->buckets;
	size_t old_size = old ? map->mask + 1 : 0;
	size_t size = old ? old_size * 2 : BUCKETS_MIN;

	map->buckets = xcalloc(size, sizeof(struct hmap_node *));
	map->mask = size - 1;
	for (size_t i = 0; i < old_size; i++) {
		struct hmap_node *node = old[i];

		while (node) {
			struct hmap_node *next = node->next;

			link_node(map, node);
			node = next;
		}
	}
	free(old);
}

void hmap_insert(struct hmap *map, struct hmap_node *node, uint64_t hash)
{
	if (!map->buckets || map->count > map->mask)
		grow(map);
	node->hash = hash;
	link_node(map, node);
	map->count++;
}

void hmap_remove(struct hmap *map, struct hmap_node *node)
{
	struct hmap_node **link;

	check(map->count > 0);
	link = &map->buckets[node->hash & map->mask];
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
	return skip_to(map->buckets[hash & map->mask], hash);
}

struct hmap_node *hmap_next_equal(const struct hmap_node *node)
{
	return skip_to(node->next, node->hash);
}

struct hmap_node *hmap_iterate(const struct hmap *map,
			       const struct hmap_node *node)
{
	size_t i = 0;

	if (!map->buckets)
		return NULL;
	if (node) {
		if (node->next)
			return node->next;
		i = (node->hash & map->mask) + 1;
	}
	for (; i <= map->mask; i++)
		if (map->buckets[i])
			return map->buckets[i];
	return NULL;
}

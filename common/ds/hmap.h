/* hmap.h - intrusive chained hash map (pure).
 *
 * The caller embeds a struct hmap_node, hashes its key (hash.h where strangers
 * choose it) and compares keys itself:
 *
 *	hmap_for_each_hash(node, &map, hash) {
 *		struct thing *t = container_of(node, struct thing, by_name);
 *		if (strcmp(t->name, name) == 0)
 *			return t;
 *	}
 *
 * Grows by doubling at load 1, never shrinks below what it grew to. What is
 * there moves to the new buckets with the inserts that follow, HMAP_MOVES of the
 * old ones each, so that no insert costs more than another (a million nodes at
 * once took 130 ms). All nodes of one hash are in one bucket at any time.
 */
#ifndef STENTOR_DS_HMAP_H
#define STENTOR_DS_HMAP_H

#include <stddef.h>
#include <stdint.h>

struct hmap_node {
	struct hmap_node *next;
	uint64_t hash;
};

/* Two would do, as twice as many inserts as old buckets go before the next
 * doubling. */
#define HMAP_MOVES 4

struct hmap {
	struct hmap_node **buckets; /* NULL until the first insert */
	size_t mask;
	size_t count;
	struct hmap_node **old; /* while it grows; those below `moved` are empty
				 */
	size_t old_mask, moved;
};

void hmap_init(struct hmap *map);
/* Frees the buckets; the nodes are the caller's. */
void hmap_fini(struct hmap *map);
void hmap_insert(struct hmap *map, struct hmap_node *node, uint64_t hash);
/* The node must be in the map. */
void hmap_remove(struct hmap *map, struct hmap_node *node);

/* Next node with this hash, from `node` on (internal to the macro). */
struct hmap_node *hmap_first(const struct hmap *map, uint64_t hash);
struct hmap_node *hmap_next_equal(const struct hmap_node *node);

#define hmap_for_each_hash(node, map, hash_)                            \
	for (struct hmap_node *node = hmap_first((map), (hash_)); node; \
	     node = hmap_next_equal(node))

/* Any node after `node` in table order, NULL at the end; start with NULL. The
 * map must not change in between, except that `node` itself may be removed
 * once its successor has been taken. */
struct hmap_node *hmap_iterate(const struct hmap *map,
			       const struct hmap_node *node);

#endif

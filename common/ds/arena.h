/* arena.h - bump allocator for what lives as long as one decoded batch (pure).
 *
 * Everything that decoding a message allocates is freed at once by
 * arena_reset(), which keeps the memory up to ARENA_KEEP for the next. Total
 * size is bounded by `max`: past it arena_alloc() returns NULL, which a
 * protobuf-c unpack turns into a failed decode, so a small hostile input can't
 * make us hold much.
 */
#ifndef STENTOR_DS_ARENA_H
#define STENTOR_DS_ARENA_H

#include <stddef.h>

#define ARENA_CHUNK ((size_t)64 << 10)
#define ARENA_KEEP  ((size_t)1 << 20)

struct arena_chunk;

struct arena {
	struct arena_chunk *first, *current;
	size_t held, max;
};

void arena_init(struct arena *a, size_t max);
void arena_fini(struct arena *a);
/* Aligned to 16, not zeroed; NULL past the maximum. */
void *arena_alloc(struct arena *a, size_t size);
void arena_reset(struct arena *a);

#endif

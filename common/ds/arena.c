#include "common/ds/arena.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <stdint.h>
#include <stdlib.h>

struct arena_chunk {
	struct arena_chunk *next;
	size_t size, used;
	_Alignas(16) uint8_t bytes[];
};

void arena_init(struct arena *a, size_t max)
{
	*a = (struct arena){.max = max};
}

static void free_from(struct arena *a, struct arena_chunk *chunk)
{
	while (chunk != NULL) {
		struct arena_chunk *next = chunk->next;

		a->held -= chunk->size;
		free(chunk);
		chunk = next;
	}
}

void arena_fini(struct arena *a)
{
	free_from(a, a->first);
	check(a->held == 0);
	*a = (struct arena){.max = a->max};
}

static struct arena_chunk *chunk_new(struct arena *a, size_t least)
{
	size_t size = max_of(least, ARENA_CHUNK);
	struct arena_chunk *chunk;

	if (size > a->max - a->held)
		size = least;
	if (size > a->max - a->held)
		return NULL;
	chunk = xmalloc(sizeof(*chunk) + size);
	chunk->next = NULL;
	chunk->size = size;
	chunk->used = 0;
	a->held += size;
	return chunk;
}

void *arena_alloc(struct arena *a, size_t size)
{
	struct arena_chunk *chunk = a->current;
	void *memory;

	if (size > a->max)
		return NULL;
	size = (size + 15) & ~(size_t)15;
	while (chunk != NULL && chunk->size - chunk->used < size)
		chunk = chunk->next;
	if (chunk == NULL) {
		chunk = chunk_new(a, size);
		if (chunk == NULL)
			return NULL;
		if (a->current != NULL) {
			chunk->next = a->current->next;
			a->current->next = chunk;
		} else {
			a->first = chunk;
		}
	}
	a->current = chunk;
	memory = chunk->bytes + chunk->used;
	chunk->used += size;
	return memory;
}

void arena_reset(struct arena *a)
{
	struct arena_chunk **end = &a->first;
	size_t kept = 0;

	while (*end != NULL && kept + (*end)->size <= ARENA_KEEP) {
		(*end)->used = 0;
		kept += (*end)->size;
		end = &(*end)->next;
	}
	free_from(a, *end);
	*end = NULL;
	a->current = a->first;
}

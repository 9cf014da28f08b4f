#include "common/ds/slab.h"

#include "common/base/check.h"

#include <sanitizer/asan_interface.h> /* empty macros unless it is on */
#include <stdint.h>
#include <sys/mman.h>

#define CHUNK_SIZE     65536u
#define CHUNK_HEADER   64u
#define EMPTY_KEEP_MAX 2u
#define ALIGNMENT      16u

/* Aligned to its size, so that an object's address leads to it. */
struct chunk {
	struct list partial;
	struct slab *slab;
	struct object *freed; /* given out once and returned */
	size_t used;	      /* objects in use */
	size_t fresh;	      /* objects from here on were never touched */
};

struct object {
	struct object *next;
};

_Static_assert(sizeof(struct chunk) <= CHUNK_HEADER, "the header has grown");

static void *map_pages(size_t size)
{
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	check(memory != MAP_FAILED);
	return memory;
}

static void unmap_pages(void *memory, size_t size)
{
	int failed = size > 0 ? munmap(memory, size) : 0;

	check(!failed);
}

/* The kernel puts mappings side by side, so after the first the plain attempt
 * is aligned; else one of twice the size has an aligned part. */
static void *map_chunk(void)
{
	char *memory = map_pages(CHUNK_SIZE);
	size_t before;

	if ((uintptr_t)memory % CHUNK_SIZE == 0)
		return memory;
	unmap_pages(memory, CHUNK_SIZE);
	memory = map_pages(2 * (size_t)CHUNK_SIZE);
	before = -(uintptr_t)memory % CHUNK_SIZE;
	unmap_pages(memory, before);
	unmap_pages(memory + before + CHUNK_SIZE, CHUNK_SIZE - before);
	return memory + before;
}

static void chunk_add(struct slab *s)
{
	struct chunk *c = map_chunk();

	*c = (struct chunk){.slab = s};
	ASAN_POISON_MEMORY_REGION((char *)c + CHUNK_HEADER,
				  CHUNK_SIZE - CHUNK_HEADER);
	list_init(&c->partial);
	list_push_back(&s->partial, &c->partial);
	s->empty_chunks++;
}

static void chunk_remove(struct slab *s, struct chunk *c)
{
	list_remove(&c->partial);
	s->empty_chunks--;
	ASAN_UNPOISON_MEMORY_REGION(c, CHUNK_SIZE);
	unmap_pages(c, CHUNK_SIZE);
}

void slab_init(struct slab *s, size_t object_size)
{
	check(object_size > 0);
	check(object_size <= CHUNK_SIZE - CHUNK_HEADER);
	object_size = (object_size + ALIGNMENT - 1) & ~(size_t)(ALIGNMENT - 1);
	*s = (struct slab){
		.object_size = object_size,
		.per_chunk = (CHUNK_SIZE - CHUNK_HEADER) / object_size,
	};
	list_init(&s->partial);
}

void slab_fini(struct slab *s)
{
	check(s->used == 0);
	list_for_each_safe (node, &s->partial)
		chunk_remove(s, container_of(node, struct chunk, partial));
	check(s->empty_chunks == 0);
}

void *slab_alloc(struct slab *s)
{
	struct object *object;
	struct chunk *c;

	if (list_empty(&s->partial))
		chunk_add(s);
	c = container_of(s->partial.next, struct chunk, partial);
	object = c->freed;
	if (object) {
		ASAN_UNPOISON_MEMORY_REGION(object, s->object_size);
		c->freed = object->next;
	} else {
		object = (struct object *)((char *)c + CHUNK_HEADER +
					   c->fresh++ * s->object_size);
		ASAN_UNPOISON_MEMORY_REGION(object, s->object_size);
	}
	if (c->used++ == 0)
		s->empty_chunks--;
	if (c->used == s->per_chunk)
		list_remove(&c->partial);
	s->used++;
	return object;
}

void slab_free(struct slab *s, void *memory)
{
	struct chunk *c = (struct chunk *)((uintptr_t)memory &
					   ~(uintptr_t)(CHUNK_SIZE - 1));
	struct object *object = memory;

	check(c->slab == s);
	check(c->used > 0);
	object->next = c->freed;
	c->freed = object;
	ASAN_POISON_MEMORY_REGION(object, s->object_size);
	if (c->used-- == s->per_chunk)
		list_push_front(&s->partial, &c->partial);
	s->used--;
	if (c->used > 0)
		return;
	s->empty_chunks++;
	list_remove(&c->partial);
	list_push_back(&s->partial, &c->partial);
	if (s->empty_chunks > EMPTY_KEEP_MAX)
		chunk_remove(s, c);
}

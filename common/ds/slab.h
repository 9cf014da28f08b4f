/* slab.h - allocator of equal objects (pure).
 *
 * Objects come in chunks of about 64 KiB, so an object costs its size and no
 * heap header, and a freed one is the next that is given out. Chunks are
 * returned to the system by slab_fini(), or when all their objects are free
 * and the slab holds more than one other empty chunk.
 */
#ifndef STENTOR_DS_SLAB_H
#define STENTOR_DS_SLAB_H

#include "common/ds/list.h"

#include <stddef.h>

struct slab {
	size_t object_size;  /* rounded up to 16 */
	size_t per_chunk;    /* objects a chunk has room for */
	size_t used;	     /* objects given out */
	size_t empty_chunks; /* kept, with no object in use */
	struct list partial; /* chunks with free objects, empty ones last */
};

void slab_init(struct slab *s, size_t object_size);
/* No object may be in use. */
void slab_fini(struct slab *s);
/* Not zeroed; aligned to 16. Never NULL. */
void *slab_alloc(struct slab *s) __attribute__((returns_nonnull));
void slab_free(struct slab *s, void *object);

#endif

/* backlog.h - which streams have the longest queues (pure).
 *
 * What waits for slow readers is bounded for each stream, and for all of a
 * worker's together: then those with most of it give way first. They are found
 * by the order of magnitude of their queues, in lists by powers of two; what is
 * less than BACKLOG_LEAST is on no list, so that a stream that keeps up never
 * moves.
 */
#ifndef STENTOR_CONNNODE_STREAM_BACKLOG_H
#define STENTOR_CONNNODE_STREAM_BACKLOG_H

#include "common/ds/list.h"

#include <stddef.h>
#include <stdint.h>

#define BACKLOG_LEAST	4096u /* bytes */
#define BACKLOG_CLASSES 24    /* 4 KiB, 8 KiB ... */

struct backlog {
	struct list by_size[BACKLOG_CLASSES];
};

void backlog_init(struct backlog *b);

static inline uint8_t backlog_class(size_t bytes)
{
	size_t units = bytes / BACKLOG_LEAST;
	unsigned class = units == 0 ? 0 : 64u - (unsigned)__builtin_clzl(units);

	return (uint8_t)(class < BACKLOG_CLASSES ? class : BACKLOG_CLASSES - 1);
}

void backlog_move(struct backlog *b, struct list *in_size, uint8_t class);

/* The stream's queue has so many bytes now. `in_size` is its place in the
 * lists and *class where that is: its owner's memory, 0 at first. */
static inline void backlog_set(struct backlog *b, struct list *in_size,
			       uint8_t *class, size_t bytes)
{
	uint8_t now = backlog_class(bytes);

	if (now == *class)
		return;
	*class = now;
	backlog_move(b, in_size, now);
}

/* One of the longest; NULL: none is long. */
struct list *backlog_longest(const struct backlog *b);

#endif

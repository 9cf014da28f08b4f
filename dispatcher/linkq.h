/* linkq.h - bounded priority queue of one link to a worker (pure: no I/O).
 *
 * Holds references to frames (ready-encoded protobuf fields) until the link
 * takes them for a batch. Two things decide about a message:
 *
 *	lane	    its channel's class: what goes first. FIFO inside a lane,
 *		    and a channel has one lane, so a channel's order holds.
 *	drop class  its own class, usually the same: what is lost first when
 *		    the queue is full.
 *
 * Limits: bytes_max bytes of frames, and one frame for each LINKQ_FRAME_BYTES
 * of that, because a small frame costs memory too. A newcomer that does not
 * fit displaces the oldest frames of lower drop classes, droppable before
 * normal, or is refused: droppable displaces nothing, critical is never
 * displaced.
 *
 * A lower lane that waits is sent at least one byte for every LINKQ_SHARE
 * bytes of other lanes, so that no lane starves.
 */
#ifndef STENTOR_DISPATCHER_LINKQ_H
#define STENTOR_DISPATCHER_LINKQ_H

#include "common/base/config.h"
#include "common/ds/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINKQ_SHARE	  8
#define LINKQ_FRAME_BYTES 64

enum linkq_reason {
	LINKQ_REFUSED, /* a newcomer that found no room */
	LINKQ_EVICTED, /* displaced by a more important newcomer */
	LINKQ_CLEARED, /* the link was lost */
};
#define LINKQ_REASONS 3

/* Lost messages by drop class; only ever grow. */
struct linkq_drops {
	uint64_t messages[PRIORITY_CLASSES][LINKQ_REASONS];
};

/* Frames, and the bytes in them. */
struct linkq_sum {
	uint32_t frames;
	size_t bytes;
};

struct linkq_entry {
	struct frame *frame; /* NULL: was evicted */
	enum priority drop_class;
};

/* A ring; positions count up for ever and are masked for access. */
struct linkq_lane {
	struct linkq_entry *ring; /* NULL until the first push */
	uint32_t cap;		  /* a power of two */
	uint64_t head, tail;
	uint32_t frames; /* tail - head without the evicted ones */
	uint32_t of[PRIORITY_CLASSES];	   /* of these, by drop class */
	uint64_t oldest[PRIORITY_CLASSES]; /* nothing of the class before it */
	uint64_t owed; /* bytes of others since it was its turn */
};

struct linkq {
	struct linkq_lane lanes[PRIORITY_CLASSES];
	struct linkq_sum held[PRIORITY_CLASSES]; /* by drop class */
	struct linkq_sum all, max;
	struct linkq_drops drops;
};

void linkq_init(struct linkq *q, size_t bytes_max);
/* Releases every frame, as linkq_clear() does. */
void linkq_fini(struct linkq *q);

/* Queues a frame, on which it holds a reference of its own. ERR_FULL: refused
 * and counted, nothing else changed. */
int linkq_push(struct linkq *q, struct frame *frame, enum priority lane,
	       enum priority drop_class) MUST_CHECK;

/* True if a frame of `bytes` would be accepted now. */
bool linkq_room(const struct linkq *q, enum priority drop_class, size_t bytes);

/* Moves frames for one batch, with the queue's references, to `frames` and
 * returns how many; *bytes is their sum. At most `frames_max` frames and
 * `bytes_max` bytes, but the first may be larger if it is alone. */
size_t linkq_fill(struct linkq *q, struct frame **frames, size_t frames_max,
		  size_t bytes_max, size_t *bytes);

/* Releases every frame and counts it as LINKQ_CLEARED. */
void linkq_clear(struct linkq *q);

static inline bool linkq_empty(const struct linkq *q)
{
	return q->all.frames == 0;
}

static inline size_t linkq_bytes(const struct linkq *q)
{
	return q->all.bytes;
}

/* Borrowed for the queue's life. */
static inline const struct linkq_drops *linkq_drops(const struct linkq *q)
{
	return &q->drops;
}

void linkq_drops_add(struct linkq_drops *to, const struct linkq_drops *from);
uint64_t linkq_drops_total(const struct linkq_drops *drops);

#endif

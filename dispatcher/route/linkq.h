/* linkq.h - bounded priority queue of one link to a worker, and the bound that
 * all queues have together (pure: no I/O).
 *
 * Holds references to frames (ready-encoded protobuf fields) until the link
 * takes them for a batch. Two things decide about a message:
 *
 *	lane	    its channel's class: what goes first. FIFO inside a lane,
 *		    and a channel has one lane, so a channel's order holds.
 *	drop class  its own class, usually the same: what is lost first when
 *		    the queue is full. A message that the store keeps has the
 *		    class *kept*: it is never lost, for the worker can be told
 *		    instead where its channel's log has got to.
 *
 * Limits: bytes_max bytes of frames, and one frame for each LINKQ_FRAME_BYTES
 * of that, because a small frame costs memory too. A newcomer that does not
 * fit displaces the oldest frames of lower drop classes, droppable before
 * normal, or is refused: droppable displaces nothing, critical and kept are
 * never displaced by the queue's own newcomers.
 *
 * The *pool* bounds what all queues cost: each frame once, however many queues
 * hold it, with what it takes beside its bytes, and the rings. A newcomer that
 * the pool has no room for displaces from the queue that holds most: droppable,
 * then normal, then kept; from its own queue only what is less than itself. So
 * a worker that takes nothing gives way to those that do. The fullest queue is
 * found by its size within a quarter, in O(1): queues of a size stand in a list
 * for each quarter of a power of two. Under the bound all that costs a compare.
 *
 * A lower lane that waits is sent at least one byte for every LINKQ_SHARE
 * bytes of other lanes, so that no lane starves.
 */
#ifndef STENTOR_DISPATCHER_ROUTE_LINKQ_H
#define STENTOR_DISPATCHER_ROUTE_LINKQ_H

#include "common/base/config.h"
#include "common/ds/frame.h"
#include "common/ds/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINKQ_SHARE	  8
#define LINKQ_FRAME_BYTES 64
#define LINKQ_CLASSES	  (PRIORITY_CLASSES + 1) /* the last one: kept */
#define LINKQ_POOL_SIZES  160			 /* quarters of powers of two */

enum linkq_reason {
	LINKQ_REFUSED, /* a newcomer that found no room */
	LINKQ_EVICTED, /* displaced by a more important newcomer */
	LINKQ_CLEARED, /* the link was lost */
};
#define LINKQ_REASONS 3

/* Lost messages by drop class; only ever grow. None is a kept one. */
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
	unsigned drop_class; /* enum priority, or kept */
};

/* A ring; positions count up for ever and are masked for access. */
struct linkq_lane {
	struct linkq_entry *ring; /* NULL until the first push */
	uint32_t cap;		  /* a power of two */
	uint64_t head, tail;
	uint32_t frames;	    /* tail - head without the evicted ones */
	uint32_t of[LINKQ_CLASSES]; /* of these, by drop class */
	uint64_t oldest[LINKQ_CLASSES]; /* nothing of the class before it */
	uint64_t owed; /* bytes of others since it was its turn */
};

struct linkq;

struct linkq_pool {
	size_t bytes, max;
	size_t firm; /* bytes of critical frames in queues: nothing displaces
		      * them */
	/* A kept message is displaced: its worker is to be told; `delivery` is
	 * borrowed. */
	void (*on_kept)(void *ctx, struct linkq *q,
			const struct frame *delivery, enum priority lane);
	void *ctx;
	uint64_t displaced; /* frames, of any class */
	/* private */
	unsigned floor_shift; /* queues below that size stand in no list */
	unsigned top;	      /* no list above it has a queue */
	struct list by_size[LINKQ_POOL_SIZES]; /* struct linkq.in_pool */
};

struct linkq {
	struct linkq_lane lanes[PRIORITY_CLASSES];
	struct linkq_sum held[LINKQ_CLASSES]; /* by drop class */
	struct linkq_sum all, max;
	struct linkq_drops drops;
	struct linkq_pool *pool; /* NULL: none */
	struct list in_pool;
	unsigned size; /* its list's number; 0: none */
};

/* For at most `queues_max` queues. */
void linkq_pool_init(struct linkq_pool *p, size_t max, unsigned queues_max);
/* Displaces until `bytes` more would fit. False: they can't. */
bool linkq_pool_reserve(struct linkq_pool *p, size_t bytes) MUST_CHECK;
/* Something else that counts, while it fits; linkq_pool_give_back() later. */
bool linkq_pool_take(struct linkq_pool *p, size_t bytes) MUST_CHECK;
void linkq_pool_give_back(struct linkq_pool *p, size_t bytes);

/* `pool` NULL: only the queue's own limits hold. */
void linkq_init(struct linkq *q, size_t bytes_max, struct linkq_pool *pool);
/* Releases every frame, as linkq_clear() does. */
void linkq_fini(struct linkq *q);

/* Queues a frame, on which it holds a reference of its own. ERR_FULL: refused
 * and counted, nothing else changed. */
int linkq_push(struct linkq *q, struct frame *frame, enum priority lane,
	       enum priority drop_class) MUST_CHECK;
/* Of a message that the store keeps. ERR_FULL: refused; that is no loss and not
 * counted. */
int linkq_push_kept(struct linkq *q, struct frame *frame,
		    enum priority lane) MUST_CHECK;

/* True if a frame of `bytes` would be accepted now, as far as the queue itself
 * is concerned. */
bool linkq_room(const struct linkq *q, enum priority drop_class, size_t bytes);

/* Bytes that pushing a frame on the lane would add to the pool, beside those of
 * the frame (linkq_frame_cost()). */
size_t linkq_growth(const struct linkq *q, enum priority lane);
size_t linkq_frame_cost(const struct frame *frame);

/* Moves frames for one batch, with the queue's references, to `frames` and
 * returns how many; *bytes is their sum. At most `frames_max` frames and
 * `bytes_max` bytes, but the first may be larger if it is alone. */
size_t linkq_fill(struct linkq *q, struct frame **frames, size_t frames_max,
		  size_t bytes_max, size_t *bytes);
/* The batch has left: gives one of its frames back, which until then counts in
 * the pool. */
void linkq_release(struct linkq *q, struct frame *frame);

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

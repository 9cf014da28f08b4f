/* outq.h - what one connection still has to be sent (pure).
 *
 * A ring of references to frames; the first may have been taken in part:
 *
 *	frames:  [ first ][ second ] ... [ last ]
 *	          ^^^^^ sent
 *
 * Two slots lie in the struct, so that a connection that keeps up never
 * allocates. How much may wait is the owner's decision (lagging.c): the queue
 * tells its bytes and gives up messages on demand. A message that is begun
 * stays, and so do the first `keep` frames, whose bytes somebody has borrowed
 * or encrypted. A frame glued to a message goes with it.
 *
 * Where a frame was taken out of the middle its slot is empty until the head
 * comes by. So each operation costs no more than what it removes; but to look
 * for what has expired is a walk, made when something has.
 */
#ifndef STENTOR_CONNNODE_STREAM_OUTQ_H
#define STENTOR_CONNNODE_STREAM_OUTQ_H

#include "common/ds/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#define OUTQ_INLINE 2

struct outq {
	struct frame **ring;  /* `slots`, or memory of its own */
	uint32_t cap;	      /* a power of two */
	uint32_t head, count; /* slots, with empty ones between */
	uint32_t live;	      /* of them, those that are not empty */
	uint32_t base;	      /* number of the first, counted from any */
	uint32_t sent;	      /* bytes of the first that were taken */
	uint32_t expiring;    /* frames that have a time to live */
	bool glued;	      /* the frame before the first belongs to it */
	size_t bytes;	      /* not yet taken */
	struct outq_lag *lag; /* what makes dropping cheap; NULL: not needed */
	struct frame *slots[OUTQ_INLINE];
};

void outq_init(struct outq *q);
/* Releases what is left. */
void outq_fini(struct outq *q);

/* Holds a reference of its own. */
void outq_push(struct outq *q, struct frame *f);

/* Up to `max` vectors of up to `bytes_max` bytes (at least one frame);
 * borrowed until the queue changes. */
size_t outq_iov(const struct outq *q, struct iovec *iov, size_t max,
		size_t bytes_max);

/* Releases all but the first `keep` frames. */
void outq_clear(struct outq *q, uint32_t keep);

/* Bytes of the first frame that were not taken. */
static inline size_t outq_first_left(const struct outq *q)
{
	return q->count > 0 ? q->ring[q->head]->len - q->sent : 0;
}

/* Counts `bytes` as taken. */
void outq_sent(struct outq *q, size_t bytes);
/* The first frame, with the queue's reference, if it was taken whole. */
struct frame *outq_pop_sent(struct outq *q);

/* Puts a frame before all that are not begun; holds a reference of its own. */
void outq_push_front(struct outq *q, struct frame *f, uint32_t keep);

/* The oldest frame about a position in that channel which may still go; NULL if
 * there is none. Borrowed. */
const struct frame *outq_first_of(const struct outq *q, const void *channel,
				  uint32_t keep);
/* Whether no message waits but what is begun or kept. */
bool outq_only_begun(const struct outq *q, uint32_t keep);

/* Each removes the oldest message that ... and returns it with the queue's
 * reference; NULL if there is none. */
/* ... a slow reader may miss, */
struct frame *outq_drop_oldest(struct outq *q, uint32_t keep);
/* ... has this conflation key, */
struct frame *outq_drop_equal(struct outq *q, uint64_t conflation,
			      uint32_t keep);
/* ... is none, but was put there about this channel, */
struct frame *outq_drop_note(struct outq *q, const void *channel,
			     uint32_t keep);

/* Removes all messages that have expired; each goes to `dropped`, which takes
 * the queue's reference. Returns how many. */
size_t outq_drop_expired(struct outq *q, uint64_t now_us, uint32_t keep,
			 void (*dropped)(void *ctx, struct frame *f),
			 void *ctx);

static inline bool outq_empty(const struct outq *q)
{
	return q->count == 0;
}

#endif

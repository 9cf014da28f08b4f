#include "connnode/outq.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <stdlib.h>

void outq_init(struct outq *q)
{
	*q = (struct outq){.cap = OUTQ_INLINE};
	q->ring = q->slots;
}

static struct frame **slot(const struct outq *q, uint32_t i)
{
	return &q->ring[(q->head + i) & (q->cap - 1)];
}

void outq_fini(struct outq *q)
{
	for (uint32_t i = 0; i < q->count; i++)
		frame_release(*slot(q, i));
	if (q->ring != q->slots)
		free(q->ring);
	outq_init(q);
}

void outq_clear(struct outq *q, uint32_t keep)
{
	uint32_t first = keep;

	if (first == 0 && q->sent > 0)
		first = 1;
	while (q->count > first) {
		struct frame *f = *slot(q, --q->count);

		q->bytes -= f->len;
		q->expiring -= f->expires_us != 0;
		frame_release(f);
	}
}

static void grow(struct outq *q)
{
	struct frame **ring = xmalloc(2 * q->cap * sizeof(*ring));

	for (uint32_t i = 0; i < q->count; i++)
		ring[i] = *slot(q, i);
	if (q->ring != q->slots)
		free(q->ring);
	q->ring = ring;
	q->head = 0;
	q->cap *= 2;
}

/* Back to the slots in the struct, once a backlog has gone. */
static void shrink(struct outq *q)
{
	if (q->ring == q->slots || q->count > 0)
		return;
	free(q->ring);
	q->ring = q->slots;
	q->cap = OUTQ_INLINE;
	q->head = 0;
}

void outq_push(struct outq *q, struct frame *f)
{
	check(f->len > 0); /* to a socket nothing may be said by nothing */
	if (q->count == q->cap)
		grow(q);
	*slot(q, q->count) = frame_hold(f);
	q->count++;
	q->bytes += f->len;
	q->expiring += f->expires_us != 0;
}

/* The first frame that may go, or before which another may come: what is begun
 * stays, to the end of a frame that another is glued to. */
static uint32_t first_free(const struct outq *q, uint32_t keep)
{
	uint32_t first = keep;

	if (first == 0 && (q->sent > 0 || q->glued))
		first = 1;
	if (first > 0 && first <= q->count && (*slot(q, first - 1))->glued)
		first++;
	return min_of(first, q->count);
}

bool outq_only_begun(const struct outq *q, uint32_t keep)
{
	for (uint32_t i = first_free(q, keep); i < q->count; i++) {
		if ((*slot(q, i))->accepted_us != 0)
			return false;
	}
	return true;
}

void outq_push_front(struct outq *q, struct frame *f, uint32_t keep)
{
	uint32_t at = first_free(q, keep);

	outq_push(q, f);
	for (uint32_t i = q->count - 1; i > at; i--)
		*slot(q, i) = *slot(q, i - 1);
	*slot(q, at) = f;
}

size_t outq_iov(const struct outq *q, struct iovec *iov, size_t max,
		size_t bytes_max)
{
	size_t bytes = 0, n = 0;

	while (n < q->count && n < max && (n == 0 || bytes < bytes_max)) {
		struct frame *f = *slot(q, (uint32_t)n);
		size_t skip = n == 0 ? q->sent : 0;

		iov[n].iov_base = f->bytes + skip;
		iov[n].iov_len = f->len - skip;
		bytes += iov[n].iov_len;
		n++;
	}
	return n;
}

void outq_sent(struct outq *q, size_t bytes)
{
	check(bytes <= q->bytes);
	q->bytes -= bytes;
	q->sent += (uint32_t)bytes;
}

struct frame *outq_pop_sent(struct outq *q)
{
	struct frame *f;

	if (q->count == 0)
		return NULL;
	f = *slot(q, 0);
	if (q->sent < f->len)
		return NULL;
	q->sent -= f->len;
	q->head = (q->head + 1) & (q->cap - 1);
	q->count--;
	q->expiring -= f->expires_us != 0;
	q->glued = f->glued;
	shrink(q);
	return f;
}

/* Takes a frame out of the queue, with the queue's reference. */
static struct frame *take(struct outq *q, uint32_t at)
{
	struct frame *f = *slot(q, at);

	/* Close the hole from the side of the head: it is near. */
	for (uint32_t k = at; k > 0; k--)
		*slot(q, k) = *slot(q, k - 1);
	q->head = (q->head + 1) & (q->cap - 1);
	q->count--;
	q->bytes -= f->len;
	q->expiring -= f->expires_us != 0;
	return f;
}

/* Likewise, with what is glued to it. */
static struct frame *take_message(struct outq *q, uint32_t at, uint32_t first)
{
	if (at > first && (*slot(q, at - 1))->glued)
		frame_release(take(q, --at));
	return take(q, at);
}

struct frame *outq_drop_oldest(struct outq *q, uint32_t keep)
{
	uint32_t first = first_free(q, keep);

	for (uint32_t i = first; i < q->count; i++) {
		if ((*slot(q, i))->droppable)
			return take_message(q, i, first);
	}
	return NULL;
}

struct frame *outq_drop_equal(struct outq *q, uint64_t conflation,
			      uint32_t keep)
{
	uint32_t first = first_free(q, keep);

	for (uint32_t i = first; i < q->count; i++) {
		if ((*slot(q, i))->conflation == conflation)
			return take_message(q, i, first);
	}
	return NULL;
}

const struct frame *outq_first_of(const struct outq *q, const void *channel,
				  uint32_t keep)
{
	for (uint32_t i = first_free(q, keep); i < q->count; i++) {
		const struct frame *f = *slot(q, i);

		if (f->channel == channel && f->offset != 0)
			return f;
	}
	return NULL;
}

struct frame *outq_drop_note(struct outq *q, const void *channel, uint32_t keep)
{
	for (uint32_t i = first_free(q, keep); i < q->count; i++) {
		const struct frame *f = *slot(q, i);

		if (f->accepted_us == 0 && f->channel == channel)
			return take(q, i);
	}
	return NULL;
}

struct frame *outq_drop_expired(struct outq *q, uint64_t now_us, uint32_t keep)
{
	uint32_t first = first_free(q, keep);

	for (uint32_t i = first; q->expiring > 0 && i < q->count; i++) {
		uint64_t expires_us = (*slot(q, i))->expires_us;

		if (expires_us != 0 && expires_us <= now_us)
			return take_message(q, i, first);
	}
	return NULL;
}

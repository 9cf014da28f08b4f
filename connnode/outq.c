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
	if (q->count == q->cap)
		grow(q);
	*slot(q, q->count) = frame_hold(f);
	q->count++;
	q->bytes += f->len;
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
	shrink(q);
	return f;
}

struct frame *outq_drop_oldest(struct outq *q, bool keep_first)
{
	for (uint32_t i = keep_first || q->sent > 0; i < q->count; i++) {
		struct frame *f = *slot(q, i);

		if (f->accepted_us == 0)
			continue;
		/* Close the hole from the side of the head: it is near. */
		for (uint32_t k = i; k > 0; k--)
			*slot(q, k) = *slot(q, k - 1);
		q->head = (q->head + 1) & (q->cap - 1);
		q->count--;
		q->bytes -= f->len;
		return f;
	}
	return NULL;
}

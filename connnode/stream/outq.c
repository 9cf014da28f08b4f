#include "connnode/stream/outq.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <stdlib.h>

/* Frames that may be conflated, by their keys: open addressing, a key's frames
 * in the order of the queue. Entries of frames that have gone are found out by
 * their numbers. */
struct entry {
	uint64_t key; /* 0: free */
	uint32_t number;
};

struct outq_lag {
	uint32_t undroppable; /* no frame before that number may be missed */
	uint64_t expires_us;  /* no frame expires before; 0: not known */
	struct entry *entries;
	uint32_t used, cap; /* a power of two; 0: no key was asked for */
};

void outq_init(struct outq *q)
{
	*q = (struct outq){.cap = OUTQ_INLINE};
	q->ring = q->slots;
}

static struct frame **slot(const struct outq *q, uint32_t i)
{
	return &q->ring[(q->head + i) & (q->cap - 1)];
}

static void lag_free(struct outq *q)
{
	if (q->lag != NULL)
		free(q->lag->entries);
	free(q->lag);
	q->lag = NULL;
}

static void forget(struct outq *q, struct frame *f)
{
	q->live--;
	q->bytes -= f->len;
	q->expiring -= f->expires_us != 0;
}

void outq_fini(struct outq *q)
{
	for (uint32_t i = 0; i < q->count; i++) {
		if (*slot(q, i) != NULL)
			frame_release(*slot(q, i));
	}
	if (q->ring != q->slots)
		free(q->ring);
	lag_free(q);
	outq_init(q);
}

void outq_clear(struct outq *q, uint32_t keep)
{
	uint32_t first = keep;

	if (first == 0 && q->sent > 0)
		first = 1;
	while (q->count > first) {
		struct frame *f = *slot(q, --q->count);

		if (f == NULL)
			continue;
		forget(q, f);
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

static void entries_build(struct outq *q);

/* Without the empty slots; frames get new numbers. */
static void compact(struct outq *q)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < q->count; i++) {
		if (*slot(q, i) != NULL)
			*slot(q, n++) = *slot(q, i);
	}
	check(n == q->live);
	q->count = n;
	q->lag->undroppable = q->base;
	if (q->lag->cap > 0)
		entries_build(q);
}

static void make_slot(struct outq *q)
{
	if (q->count < q->cap)
		return;
	if (q->live <= q->cap / 2)
		compact(q);
	else
		grow(q);
}

/* Back to the slots in the struct, once a backlog has gone. */
static void shrink(struct outq *q)
{
	if (q->count > 0)
		return;
	lag_free(q);
	if (q->ring == q->slots)
		return;
	free(q->ring);
	q->ring = q->slots;
	q->cap = OUTQ_INLINE;
	q->head = 0;
}

/* --- keys -------------------------------------------------------------- */

static bool is_stale(const struct outq *q, const struct entry *e)
{
	uint32_t i = e->number - q->base;

	return i >= q->count || *slot(q, i) == NULL ||
	       (*slot(q, i))->conflation != e->key;
}

static uint32_t home(const struct outq_lag *lag, uint64_t key)
{
	return (uint32_t)(key * 0x9e3779b97f4a7c15u >> 32) & (lag->cap - 1);
}

static void entry_put(struct outq_lag *lag, uint64_t key, uint32_t number)
{
	uint32_t at = home(lag, key);

	while (lag->entries[at].key != 0)
		at = (at + 1) & (lag->cap - 1);
	lag->entries[at] = (struct entry){key, number};
	lag->used++;
}

/* What stands behind it moves up, so that every entry is still found. */
static void entry_remove(struct outq_lag *lag, uint32_t hole)
{
	uint32_t mask = lag->cap - 1, at = (hole + 1) & mask;

	for (; lag->entries[at].key != 0; at = (at + 1) & mask) {
		uint32_t from = home(lag, lag->entries[at].key);

		if (((at - from) & mask) < ((at - hole) & mask))
			continue; /* it may not stand before its home */
		lag->entries[hole] = lag->entries[at];
		hole = at;
	}
	lag->entries[hole].key = 0;
	lag->used--;
}

/* Anew, from the queue: with room for twice as many. */
static void entries_build(struct outq *q)
{
	struct outq_lag *lag = q->lag;
	uint32_t cap = 16;

	while (cap < 4 * q->count)
		cap *= 2;
	free(lag->entries);
	lag->entries = xcalloc(cap, sizeof(*lag->entries));
	lag->cap = cap;
	lag->used = 0;
	for (uint32_t i = 0; i < q->count; i++) {
		const struct frame *f = *slot(q, i);

		if (f != NULL && f->conflation != 0)
			entry_put(lag, f->conflation, q->base + i);
	}
}

static struct outq_lag *lag_of(struct outq *q)
{
	if (q->lag == NULL) {
		q->lag = xcalloc(1, sizeof(*q->lag));
		q->lag->undroppable = q->base;
	}
	return q->lag;
}

/* --- in and out -------------------------------------------------------- */

void outq_push(struct outq *q, struct frame *f)
{
	struct outq_lag *lag = q->lag;

	check(f->len > 0); /* to a socket nothing may be said by nothing */
	make_slot(q);
	*slot(q, q->count) = frame_hold(f);
	q->count++;
	q->live++;
	q->bytes += f->len;
	q->expiring += f->expires_us != 0;
	if (likely(lag == NULL))
		return;
	if (f->expires_us != 0)
		lag->expires_us = min_of(lag->expires_us, f->expires_us);
	if (f->conflation == 0 || lag->cap == 0)
		return;
	if (2 * lag->used < lag->cap)
		entry_put(lag, f->conflation, q->base + q->count - 1);
	else
		entries_build(q);
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
		const struct frame *f = *slot(q, i);

		if (f != NULL && f->accepted_us != 0)
			return false;
	}
	return true;
}

/* What is begun is near the head: it moves, and not all the others. */
void outq_push_front(struct outq *q, struct frame *f, uint32_t keep)
{
	uint32_t at = first_free(q, keep);

	check(f->len > 0);
	make_slot(q);
	q->head = (q->head - 1) & (q->cap - 1);
	q->base--;
	q->count++;
	for (uint32_t i = 0; i < at; i++)
		*slot(q, i) = *slot(q, i + 1);
	*slot(q, at) = frame_hold(f);
	q->live++;
	q->bytes += f->len;
	q->expiring += f->expires_us != 0;
}

size_t outq_iov(const struct outq *q, struct iovec *iov, size_t max,
		size_t bytes_max)
{
	size_t bytes = 0, n = 0;

	for (uint32_t i = 0;
	     i < q->count && n < max && (n == 0 || bytes < bytes_max); i++) {
		struct frame *f = *slot(q, i);
		size_t skip = n == 0 ? q->sent : 0;

		if (f == NULL)
			continue;
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

static void keep_within(const struct outq *q, uint32_t *number)
{
	int32_t at = (int32_t)(*number - q->base);

	if (at < 0)
		*number = q->base;
	else if ((uint32_t)at > q->count)
		*number = q->base + q->count;
}

/* Neither the first slot nor the last is ever an empty one. Numbers at the end
 * will be given again. */
static void skip_empty(struct outq *q)
{
	while (q->count > 0 && *slot(q, q->count - 1) == NULL)
		q->count--;
	while (q->count > 0 && *slot(q, 0) == NULL) {
		q->head = (q->head + 1) & (q->cap - 1);
		q->base++;
		q->count--;
	}
	if (q->lag != NULL)
		keep_within(q, &q->lag->undroppable);
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
	q->live--;
	q->expiring -= f->expires_us != 0;
	q->glued = f->glued;
	*slot(q, 0) = NULL;
	skip_empty(q);
	shrink(q);
	return f;
}

/* --- dropping ---------------------------------------------------------- */

/* Takes a frame out of the queue, with the queue's reference. */
static struct frame *take(struct outq *q, uint32_t at)
{
	struct frame *f = *slot(q, at);

	*slot(q, at) = NULL;
	forget(q, f);
	return f;
}

/* Likewise, with what is glued to it. */
static struct frame *take_message(struct outq *q, uint32_t at, uint32_t first)
{
	struct frame *f = *slot(q, at);

	if (at > first && *slot(q, at - 1) != NULL && (*slot(q, at - 1))->glued)
		frame_release(take(q, at - 1));
	take(q, at);
	skip_empty(q);
	return f;
}

struct frame *outq_drop_oldest(struct outq *q, uint32_t keep)
{
	struct outq_lag *lag = lag_of(q);
	uint32_t first = first_free(q, keep);
	uint32_t from = lag->undroppable - q->base;
	uint32_t i;

	for (i = max_of(first, from); i < q->count; i++) {
		if (*slot(q, i) != NULL && (*slot(q, i))->droppable)
			break;
	}
	if (first <= from) /* else some were not looked at */
		lag->undroppable = q->base + i;
	return i < q->count ? take_message(q, i, first) : NULL;
}

struct frame *outq_drop_equal(struct outq *q, uint64_t conflation,
			      uint32_t keep)
{
	struct outq_lag *lag = lag_of(q);
	uint32_t first = first_free(q, keep), at;

	if (lag->cap == 0)
		entries_build(q);
	at = home(lag, conflation);
	while (lag->entries[at].key != 0) {
		const struct entry *e = &lag->entries[at];
		uint32_t i = e->number - q->base;

		if (e->key != conflation) {
			at = (at + 1) & (lag->cap - 1);
		} else if (is_stale(q, e)) {
			entry_remove(lag, at);
		} else if (i < first) {
			at = (at + 1) & (lag->cap - 1);
		} else {
			entry_remove(lag, at);
			return take_message(q, i, first);
		}
	}
	return NULL;
}

const struct frame *outq_first_of(const struct outq *q, const void *channel,
				  uint32_t keep)
{
	for (uint32_t i = first_free(q, keep); i < q->count; i++) {
		const struct frame *f = *slot(q, i);

		if (f != NULL && f->channel == channel && f->offset != 0)
			return f;
	}
	return NULL;
}

struct frame *outq_drop_note(struct outq *q, const void *channel, uint32_t keep)
{
	for (uint32_t i = first_free(q, keep); i < q->count; i++) {
		struct frame *f = *slot(q, i);

		if (f == NULL || f->accepted_us != 0 || f->channel != channel)
			continue;
		take(q, i);
		skip_empty(q);
		return f;
	}
	return NULL;
}

/* A walk takes out all that has expired, and knows when it need walk again. */
size_t outq_drop_expired(struct outq *q, uint64_t now_us, uint32_t keep,
			 void (*dropped)(void *ctx, struct frame *f), void *ctx)
{
	struct outq_lag *lag;
	uint64_t least = UINT64_MAX;
	size_t count = 0;

	if (q->expiring == 0)
		return 0;
	lag = lag_of(q);
	if (lag->expires_us > now_us)
		return 0;
	for (uint32_t first = first_free(q, keep), i = q->count; i-- > first;) {
		struct frame *f = *slot(q, i);

		if (f == NULL || f->expires_us == 0)
			continue;
		if (f->expires_us > now_us) {
			least = min_of(least, f->expires_us);
			continue;
		}
		if (i > first && *slot(q, i - 1) != NULL &&
		    (*slot(q, i - 1))->glued)
			frame_release(take(q, i - 1));
		dropped(ctx, take(q, i));
		count++;
	}
	lag->expires_us = least;
	skip_empty(q);
	return count;
}

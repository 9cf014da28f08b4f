/* nodes_batch.c - what waits for the workers, and its way out in batches. */
#include "common/base/err.h"
#include "dispatcher/route/nodes_internal.h"

#include <string.h>

void nodes_want_flush(struct nodes *n, struct node_worker *w)
{
	if (list_empty(&w->in_pending))
		list_push_back(&n->pending, &w->in_pending);
}

uint64_t nodes_under_way(const struct node_worker *w)
{
	return w->link.tx_bytes - w->link.peer_ack_bytes;
}

/* --- queueing ---------------------------------------------------------- */

static void nodes_queued(struct nodes *n, struct node_worker *w)
{
	if (n->pressure < NODES_CALM_BURST)
		w->prompt = true;
	if (n->pressure < NODES_PRESSURE_MAX)
		n->pressure++;
	nodes_want_flush(n, w);
}

int nodes_queue(struct nodes *n, struct node_worker *w, struct frame *delivery,
		enum priority lane, enum priority drop_class)
{
	int rc = linkq_push(&w->queue, delivery, lane, drop_class);

	if (rc == 0)
		nodes_queued(n, w);
	return rc;
}

bool nodes_queue_kept(struct nodes *n, struct node_worker *w,
		      struct frame *delivery, enum priority lane, uint64_t key,
		      const char *channel, struct place place)
{
	if (!behind_has(&w->behind, key, channel) &&
	    linkq_push_kept(&w->queue, delivery, lane) == 0) {
		nodes_queued(n, w);
		return true;
	}
	nodes_moved(n, w, key, channel, lane, place);
	return false;
}

bool nodes_reserve(struct nodes *n, const uint16_t *ids, size_t count,
		   const struct frame *delivery, enum priority lane)
{
	size_t need = linkq_frame_cost(delivery);

	for (size_t i = 0; i < count; i++) {
		const struct linkq *q = &n->by_id[ids[i]]->queue;

		if (!linkq_room(q, PRIORITY_CRITICAL, delivery->len))
			return false;
		need += linkq_growth(q, lane);
	}
	return linkq_pool_reserve(&n->pool, need);
}

/* --- logs whose messages did not go by a link -------------------------- */

void nodes_moved(struct nodes *n, struct node_worker *w, uint64_t key,
		 const char *channel, enum priority lane, struct place top)
{
	behind_mark(&w->behind, key, channel, lane, top);
	nodes_want_flush(n, w);
}

void nodes_moved_unnamed(struct nodes *n, struct node_worker *w)
{
	behind_mark_all(&w->behind);
	nodes_want_flush(n, w);
}

/* The pool displaces a delivery of a kept message. */
static void nodes_on_kept(void *ctx, struct linkq *q,
			  const struct frame *delivery, enum priority lane)
{
	struct nodes *n = ctx;
	struct node_worker *w = container_of(q, struct node_worker, queue);
	const LinkFrame *f = link_frame_decode(&n->displaced, delivery->bytes,
					       delivery->len);
	const LinkDelivery *d;

	/* It is ours, and a message by itself. */
	check(f != NULL && f->n_deliveries == 1);
	d = f->deliveries[0];
	nodes_moved(n, w, hash_bytes(&n->key, d->channel, strlen(d->channel)),
		    d->channel, lane, (struct place){d->epoch, d->offset});
	arena_reset(&n->displaced);
}

void nodes_pool_init(struct nodes *n)
{
	size_t max = n->config.queues_bytes;

	linkq_pool_init(&n->pool, max > 0 ? max : SIZE_MAX / 2,
			INTEREST_WORKERS_MAX);
	n->pool.on_kept = nodes_on_kept;
	n->pool.ctx = n;
	arena_init(&n->displaced, LINK_DECODED_MAX);
}

/* There is room for what the worker is told, and for what it will ask for then:
 * half of its queue is empty, and it is none of those that make the pool full.
 * Else it would be told once for each message that is displaced. */
static bool has_room_again(const struct nodes *n, const struct linkq *q)
{
	return q->all.bytes <= q->max.bytes / 2 &&
	       q->all.frames <= q->max.frames / 2 &&
	       (q->size == 0 || n->pool.bytes <= n->pool.max / 4 * 3);
}

/* Puts what the worker is behind on into its queue, as far as that may be. */
static void tell_moved(struct nodes *n, struct node_worker *w)
{
	for (unsigned lane = 0; lane < PRIORITY_CLASSES;) {
		bool unnamed = w->behind.unnamed;
		unsigned count;
		struct frame *f;
		int rc;

		if (!behind_any(&w->behind) || !has_room_again(n, &w->queue))
			return;
		f = behind_tell(&w->behind, lane, &count);
		if (f == NULL) {
			lane++;
			continue;
		}
		rc = nodes_reserve(n, &w->id, 1, f, lane)
			     ? nodes_queue(n, w, f, lane, PRIORITY_CRITICAL)
			     : ERR_FULL;
		frame_release(f);
		if (rc != 0)
			return;
		behind_told(&w->behind, lane, count);
		n->counters.moved_told += count;
		n->counters.moved_unnamed += unnamed && !w->behind.unnamed;
	}
}

void nodes_tell_worker(struct nodes *n, struct node_worker *w,
		       struct frame *control)
{
	/* What finds no room counts as a message that was dropped; this does
	 * not get lost. */
	if (!nodes_reserve(n, &w->id, 1, control, PRIORITY_CRITICAL) ||
	    nodes_queue(n, w, control, PRIORITY_CRITICAL, PRIORITY_CRITICAL) !=
		    0)
		w->untold = true;
}

void nodes_tell(struct nodes *n, struct frame *control)
{
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
		struct node_worker *w = n->by_id[i];

		if (w != NULL && w->phase == NODE_WORKER_READY)
			nodes_tell_worker(n, w, control);
	}
}

/* --- batches ----------------------------------------------------------- */

static bool batch_due(const struct node_worker *w, uint64_t now_ms)
{
	return w->batch_count > 0 || w->prompt ||
	       linkq_bytes(&w->queue) >= NODES_BATCH_BYTES ||
	       now_ms - w->batch_at_ms >= NODES_BATCH_MS;
}

/* Bytes of a batch, if the link's credit allows a whole one, and what all links
 * have under way; a single message may be larger. A link without much under way
 * may always send: its own acknowledgements wake it, not others'. */
static size_t batch_room(const struct nodes *n, const struct node_worker *w)
{
	uint64_t share = n->pool.max / NODES_UNDER_WAY_SHARE;

	if (link_state_credit(&w->link) < NODES_BATCH_BYTES_MAX ||
	    (n->under_way >= share &&
	     nodes_under_way(w) >= NODES_BATCH_BYTES_MAX))
		return 0;
	return NODES_BATCH_BYTES_MAX;
}

/* ERR_AGAIN: pushed back; the batch stays and goes first next time. */
static int nodes_send_batch(struct nodes *n, struct node_worker *w,
			    uint64_t now_ms)
{
	uint8_t head[LINK_HEADER_MAX];
	struct iovec pieces[NODES_BATCH_FRAMES + 1];
	struct link_header h = link_state_next(&w->link);
	int rc;

	pieces[0] = (struct iovec){head, link_header_encode(head, &h)};
	for (unsigned i = 0; i < w->batch_count; i++)
		pieces[i + 1] =
			(struct iovec){w->batch[i]->bytes, w->batch[i]->len};
	rc = n->ops->send(n->ctx, w, pieces, w->batch_count + 1);
	if (rc != 0)
		return rc;
	link_state_sent(&w->link, pieces[0].iov_len + w->batch_bytes);
	n->under_way += pieces[0].iov_len + w->batch_bytes;
	for (unsigned i = 0; i < w->batch_count; i++)
		linkq_release(&w->queue, w->batch[i]);
	w->messages_sent += w->batch_count;
	w->batch_count = 0;
	w->batch_bytes = 0;
	w->batch_at_ms = now_ms;
	w->ack_due = false;
	w->prompt = false;
	n->counters.batches++;
	return 0;
}

/* Sends what may go now. True while something has to wait for its time or for
 * the socket; what waits for credit is woken by the acknowledgement. */
static bool nodes_flush_worker(struct nodes *n, struct node_worker *w,
			       uint64_t now_ms)
{
	if (!w->connected || w->phase == NODE_WORKER_REFUSED)
		return false;
	tell_moved(n, w);
	while (!linkq_empty(&w->queue) || w->batch_count > 0) {
		if (!batch_due(w, now_ms))
			break;
		if (w->batch_count == 0) {
			size_t room = batch_room(n, w);

			if (room == 0)
				break;
			w->batch_count = (unsigned)linkq_fill(
				&w->queue, w->batch, NODES_BATCH_FRAMES, room,
				&w->batch_bytes);
		}
		if (nodes_send_batch(n, w, now_ms) != 0)
			return true;
		tell_moved(n, w);
	}
	if (w->ack_due && nodes_send_in_sequence(n, w, NULL) != 0)
		return true;
	return !linkq_empty(&w->queue) && batch_room(n, w) > 0;
}

bool nodes_flush(struct nodes *n, uint64_t now_ms)
{
	uint64_t leaked = (now_ms - n->flushed_ms) * NODES_CALM_PER_MS;
	struct list waiting, *node;

	n->flushed_ms = now_ms;
	n->pressure -= min_of(n->pressure, leaked);
	list_init(&waiting);
	while ((node = list_pop_front(&n->pending)) != NULL) {
		struct node_worker *w =
			container_of(node, struct node_worker, in_pending);
		bool waits = nodes_flush_worker(n, w, now_ms);

		/* What it was told meanwhile has put it there again. */
		list_remove(&w->in_pending);
		if (waits)
			list_push_back(&waiting, &w->in_pending);
	}
	list_splice_back(&n->pending, &waiting);
	return !list_empty(&n->pending);
}

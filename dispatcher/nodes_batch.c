/* nodes_batch.c - what waits for the workers, and its way out in batches. */
#include "common/base/err.h"
#include "dispatcher/nodes_internal.h"

void nodes_want_flush(struct nodes *n, struct node_worker *w)
{
	if (list_empty(&w->in_pending))
		list_push_back(&n->pending, &w->in_pending);
}

int nodes_queue(struct nodes *n, struct node_worker *w, struct frame *delivery,
		enum priority lane, enum priority drop_class)
{
	int rc = linkq_push(&w->queue, delivery, lane, drop_class);

	if (rc != 0)
		return rc;
	if (n->pressure < NODES_CALM_BURST)
		w->prompt = true;
	if (n->pressure < NODES_PRESSURE_MAX)
		n->pressure++;
	nodes_want_flush(n, w);
	return 0;
}

void nodes_tell_worker(struct nodes *n, struct node_worker *w,
		       struct frame *control)
{
	/* What finds no room counts as a message that was dropped; this does
	 * not get lost. */
	if (!linkq_room(&w->queue, PRIORITY_CRITICAL, control->len) ||
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

static bool batch_due(const struct node_worker *w, uint64_t now_ms)
{
	return w->batch_count > 0 || w->prompt ||
	       linkq_bytes(&w->queue) >= NODES_BATCH_BYTES ||
	       now_ms - w->batch_at_ms >= NODES_BATCH_MS;
}

/* Bytes of a batch, if the link's credit allows a whole one; a single message
 * may be larger. */
static size_t batch_room(const struct node_worker *w)
{
	return link_state_credit(&w->link) < NODES_BATCH_BYTES_MAX
		       ? 0
		       : NODES_BATCH_BYTES_MAX;
}

/* ERR_AGAIN: pushed back; the batch stays and goes first next time. */
static int send_batch(struct nodes *n, struct node_worker *w, uint64_t now_ms)
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
	for (unsigned i = 0; i < w->batch_count; i++)
		frame_release(w->batch[i]);
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
static bool flush_worker(struct nodes *n, struct node_worker *w,
			 uint64_t now_ms)
{
	if (!w->connected || w->phase == NODE_WORKER_REFUSED)
		return false;
	while (!linkq_empty(&w->queue) || w->batch_count > 0) {
		if (!batch_due(w, now_ms))
			break;
		if (w->batch_count == 0) {
			size_t room = batch_room(w);

			if (room == 0)
				break;
			w->batch_count = (unsigned)linkq_fill(
				&w->queue, w->batch, NODES_BATCH_FRAMES, room,
				&w->batch_bytes);
		}
		if (send_batch(n, w, now_ms) != 0)
			return true;
	}
	if (w->ack_due && nodes_send_in_sequence(n, w, NULL) != 0)
		return true;
	return !linkq_empty(&w->queue) && batch_room(w) > 0;
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

		if (flush_worker(n, w, now_ms))
			list_push_back(&waiting, &w->in_pending);
	}
	list_splice_back(&n->pending, &waiting);
	return !list_empty(&n->pending);
}

#include "dispatcher/links.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdlib.h>

static uint64_t links_now_ms(const struct links *l)
{
	return uv_now(l->loop);
}

/* --- what nodes.c asks for --------------------------------------------- */

/* A link's socket, and what its events need to find their way back. */
struct link_socket {
	struct links *links;
	struct node_worker *worker;
	struct nng_outbox *outbox;
};

static void links_on_link_event(void *ctx, bool up)
{
	struct link_socket *s = ctx;
	struct links *l = s->links;

	if (up)
		nodes_connected(l->parts.nodes, s->worker, links_now_ms(l));
	else
		nodes_disconnected(l->parts.nodes, s->worker);
}

static int open_link(void *ctx, struct node_worker *w)
{
	struct links *l = ctx;
	struct link_socket *s = xcalloc(1, sizeof(*s));
	int rc;

	s->links = l;
	s->worker = w;
	rc = nng_outbox_open(l->loop, w->link_address, &l->tls,
			     links_on_link_event, s, &s->outbox);
	if (rc != 0) {
		log_warn("LINK-DIAL", "node=%s worker=%u address=%s err=%s",
			 w->node->name, w->index, w->link_address,
			 err_name(rc));
		free(s);
		return rc;
	}
	w->socket = s;
	return 0;
}

static void close_link(void *ctx UNUSED, struct node_worker *w)
{
	struct link_socket *s = w->socket;

	w->socket = NULL;
	nng_outbox_close(s->outbox);
	free(s);
}

static int links_send_frame(void *ctx UNUSED, struct node_worker *w,
			    const struct iovec *pieces, size_t count)
{
	struct link_socket *s = w->socket;

	return nng_outbox_send(s->outbox, pieces, count);
}

static void links_on_counted(void *ctx, uint64_t id, uint64_t subscribers)
{
	struct links *l = ctx;

	counts_answer(l->parts.counts, id, subscribers);
}

static void links_on_history(void *ctx, struct node_worker *w,
			     const HistoryQuery *query)
{
	struct links *l = ctx;

	history_ask(l->parts.history, w, query);
}

static void links_on_tops(void *ctx, struct node_worker *w,
			  const TopsQuery *query)
{
	struct links *l = ctx;

	history_ask_tops(l->parts.history, w, query);
}

/* Who has not heard of all workers yet, or not lately, has nothing to say of
 * the fleet. */
static bool links_advise(void *ctx, const struct node_worker *w,
			 FleetWord *word)
{
	const struct links *l = ctx;
	bool knows = *l->parts.settled && fleet_sighted(l->parts.fleet);

	if (knows)
		fleet_advise(l->parts.fleet, w, word);
	return knows;
}

static void links_on_ready(void *ctx, struct node_worker *w)
{
	struct links *l = ctx;

	access_brief(l->parts.access, w);
}

static void links_on_revocations(void *ctx, const LinkFrame *f)
{
	struct links *l = ctx;

	access_heard(l->parts.access, f);
}

static uint64_t links_wall_ms(void *ctx UNUSED)
{
	return clock_wall_ms();
}

const struct nodes_ops links_ops = {
	.open = open_link,
	.close = close_link,
	.send = links_send_frame,
	.history = links_on_history,
	.tops = links_on_tops,
	.brief = links_on_ready,
	.revocations = links_on_revocations,
	.advise = links_advise,
	.counted = links_on_counted,
	.wall_ms = links_wall_ms,
};

/* --- the loop's turns -------------------------------------------------- */

static void links_on_message(void *ctx, uint32_t pipe UNUSED,
			     const uint8_t *bytes, size_t len)
{
	struct links *l = ctx;

	nodes_receive(l->parts.nodes, bytes, len, links_now_ms(l));
}

static void links_on_batch_timer(uv_timer_t *timer UNUSED)
{
	/* The turn that it starts ends with a flush. */
}

/* Runs before the loop sleeps: what this turn queued leaves together. */
static void links_on_flush(uv_prepare_t *prepare)
{
	struct links *l = prepare->data;
	bool waiting = access_run(l->parts.access);

	waiting |= nodes_flush(l->parts.nodes, links_now_ms(l));
	if (waiting && !uv_is_active((uv_handle_t *)&l->batch))
		uv_timer_start(&l->batch, links_on_batch_timer, 1, 0);
}

int links_start(struct links *l, uv_loop_t *loop,
		const struct links_parts *parts, const char *listen,
		const struct nng_tls_files *tls)
{
	int rc;

	*l = (struct links){.parts = *parts, .loop = loop, .tls = *tls};
	rc = nng_inbox_open(loop, listen, &l->tls, links_on_message, NULL, l,
			    &l->inbox);
	if (rc != 0) {
		log_error("LINK-LISTEN", "address=%s err=%s", listen,
			  err_name(rc));
		return rc;
	}
	uv_prepare_init(loop, &l->flush);
	uv_timer_init(loop, &l->batch);
	l->flush.data = l;
	uv_prepare_start(&l->flush, links_on_flush);
	return 0;
}

void links_stop(struct links *l)
{
	uv_close((uv_handle_t *)&l->flush, NULL);
	uv_close((uv_handle_t *)&l->batch, NULL);
	nng_inbox_stop(l->inbox);
}

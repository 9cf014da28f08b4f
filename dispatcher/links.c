/* links.c - the shell around nodes.c: nng sockets, timers, the loop's turns. */
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/version.h"
#include "dispatcher/dispatcher.h"

#include <stdio.h>
#include <stdlib.h>

#define TICK_MS 100

static uint64_t now_ms(const struct dispatcher *d)
{
	return uv_now(d->loop);
}

/* --- what nodes.c asks for --------------------------------------------- */

/* A link's socket, and what its events need to find their way back. */
struct link_socket {
	struct dispatcher *dispatcher;
	struct node_worker *worker;
	struct nng_outbox *outbox;
};

static void on_link_event(void *ctx, bool up)
{
	struct link_socket *s = ctx;
	struct dispatcher *d = s->dispatcher;

	if (up)
		nodes_connected(&d->nodes, s->worker, now_ms(d));
	else
		nodes_disconnected(&d->nodes, s->worker);
}

static int open_link(void *ctx, struct node_worker *w)
{
	struct dispatcher *d = ctx;
	struct link_socket *s = xcalloc(1, sizeof(*s));
	int rc;

	s->dispatcher = d;
	s->worker = w;
	rc = nng_outbox_open(d->loop, w->link_address, &d->link_tls,
			     on_link_event, s, &s->outbox);
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

static int send_frame(void *ctx UNUSED, struct node_worker *w,
		      const struct iovec *pieces, size_t count)
{
	struct link_socket *s = w->socket;

	return nng_outbox_send(s->outbox, pieces, count);
}

static void on_counted(void *ctx, uint64_t id, uint64_t subscribers)
{
	struct dispatcher *d = ctx;

	counts_answer(&d->counts, id, subscribers);
}

static void on_history(void *ctx, struct node_worker *w,
		       const HistoryQuery *query)
{
	struct dispatcher *d = ctx;

	history_ask(&d->history, w, query);
}

static void on_tops(void *ctx, struct node_worker *w, const TopsQuery *query)
{
	struct dispatcher *d = ctx;

	history_ask_tops(&d->history, w, query);
}

/* Who has not heard of all workers yet, or not lately, has nothing to say of
 * the fleet. */
static bool advise(void *ctx, const struct node_worker *w, FleetWord *word)
{
	const struct dispatcher *d = ctx;
	bool knows = d->settled && fleet_sighted(&d->fleet);

	if (knows)
		fleet_advise(&d->fleet, w, word);
	return knows;
}

static void on_ready(void *ctx, struct node_worker *w)
{
	struct dispatcher *d = ctx;

	access_brief(&d->access, w);
}

static void on_revocations(void *ctx, const LinkFrame *f)
{
	struct dispatcher *d = ctx;

	access_heard(&d->access, f);
}

static uint64_t wall_ms(void *ctx UNUSED)
{
	return clock_wall_ms();
}

static const struct nodes_ops ops = {
	.open = open_link,
	.close = close_link,
	.send = send_frame,
	.history = on_history,
	.tops = on_tops,
	.brief = on_ready,
	.revocations = on_revocations,
	.advise = advise,
	.counted = on_counted,
	.wall_ms = wall_ms,
};

/* --- the loop's turns -------------------------------------------------- */

static void on_message(void *ctx, uint32_t pipe UNUSED, const uint8_t *bytes,
		       size_t len)
{
	struct dispatcher *d = ctx;

	nodes_receive(&d->nodes, bytes, len, now_ms(d));
}

static void on_batch_timer(uv_timer_t *timer UNUSED)
{
	/* The turn that it starts ends with a flush. */
}

/* Runs before the loop sleeps: what this turn queued leaves together. */
static void on_flush(uv_prepare_t *prepare)
{
	struct dispatcher *d = prepare->data;
	bool waiting = access_run(&d->access);

	waiting |= nodes_flush(&d->nodes, now_ms(d));
	if (waiting && !uv_is_active((uv_handle_t *)&d->batch))
		uv_timer_start(&d->batch, on_batch_timer, 1, 0);
}

/* The workers had time to report, and those that began to are in the table; or
 * it takes too long. */
static bool settled(const struct dispatcher *d)
{
	uint64_t passed_ms = now_ms(d) - d->started_ms;

	return passed_ms >= d->options.settle_ms &&
	       (nodes_settled(&d->nodes) ||
		passed_ms >= d->options.settle_max_ms);
}

static void settle(struct dispatcher *d)
{
	d->settled = d->publisher.open = true;
	d->settle_missed = nodes_awaited(&d->nodes);
	log_info("SETTLED", "workers=%u missed=%u dialling=%u ms=%llu",
		 d->nodes.in_phase[NODE_WORKER_READY], d->settle_missed,
		 d->nodes.dialling,
		 (unsigned long long)(now_ms(d) - d->started_ms));
}

const char *dispatcher_unready(struct dispatcher *d)
{
	const char *fault;

	if (d->draining)
		return "draining";
	if (!d->settled)
		return "settling: waiting for workers to report";
	if (d->keeps_history && nodes_outvoted(&d->nodes))
		return "another store is in use by the cluster";
	if (d->publisher.blind) {
		snprintf(d->unready, sizeof(d->unready),
			 "cut off from most connection nodes: %u workers are "
			 "linked here, another dispatcher sees %llu",
			 d->nodes.in_phase[NODE_WORKER_READY],
			 (unsigned long long)d->peers_see);
		return d->unready;
	}
	if (!d->keeps_history || d->store == NULL ||
	    (d->store_up_ms != 0 &&
	     now_ms(d) - d->store_up_ms <= STORE_GRACE_MS))
		return NULL;
	fault = storage_fault(d);
	snprintf(d->unready, sizeof(d->unready),
		 "the store is not available: %s",
		 fault != NULL ? fault : "it has just come up");
	return d->unready;
}

static void check_ready(struct dispatcher *d)
{
	const char *unready;

	d->publisher.blind = fleet_cut_off(
		&d->fleet, d->nodes.in_phase[NODE_WORKER_READY], d->peers_see);
	if (d->draining)
		return;
	if (!d->settled && settled(d))
		settle(d);
	unready = dispatcher_unready(d);
	if (d->ready == (unready == NULL))
		return;
	d->ready = unready == NULL;
	health_set_all(d->health, d->services, d->ready);
	if (d->ready)
		log_info("READY", "workers=%u", d->nodes.worker_count);
	else
		log_error("UNREADY", "reason=\"%s\"", unready);
}

static void on_tick(uv_timer_t *timer)
{
	struct dispatcher *d = timer->data;
	uint64_t now = now_ms(d);
	uint64_t late = now > d->tick_due_ms ? now - d->tick_due_ms : 0;

	metric_observe_us(&d->metrics, DM_LOOP_LAG, 0, late * 1000, 1);
	d->tick_due_ms = now + TICK_MS;
	fleet_look(&d->fleet, &d->nodes, now);
	nodes_tick(&d->nodes, now);
	counts_tick(&d->counts, now);
	storage_tick(d, now);
	publisher_service_tick(&d->publishing);
	check_ready(d);
}

int links_start(struct dispatcher *d)
{
	const struct dispatcher_options *o = &d->options;
	struct nodes_config config = {
		.name = o->process.name,
		.version = stentor_version,
		.token = o->process.link_token,
		.config_hash = d->rules.hash,
		.instance = d->instance,
		.store_embedded = store_embedded(d->store),
		.workers_max = o->workers_max,
		.queue_bytes = o->link_queue_bytes,
		.queues_bytes = o->link_queues_bytes,
		.interest_max = o->interest_max,
	};
	struct fleet_config fleet = {
		.rebalance = o->rebalance,
		.margin_percent = o->rebalance_margin,
		.rate_permille = o->rebalance_rate,
		.calm_ms = o->rebalance_calm_ms,
	};
	struct history_store store = storage_history(d);
	int rc;

	d->link_tls = process_link_tls(&o->process);
	nodes_init(&d->nodes, &config, &ops, d);
	fleet_init(&d->fleet, &fleet, now_ms(d));
	counts_init(&d->counts, &d->nodes);
	history_init(&d->history, &d->nodes, &store);
	moves_init(&d->moves, &d->nodes, &d->rules, &store);
	storage_rules(d);
	rc = nng_inbox_open(d->loop, o->process.link_listen, &d->link_tls,
			    on_message, NULL, d, &d->inbox);
	if (rc != 0) {
		log_error("LINK-LISTEN", "address=%s err=%s",
			  o->process.link_listen, err_name(rc));
		nodes_fini(&d->nodes);
		return rc;
	}
	d->started_ms = now_ms(d);
	d->tick_due_ms = d->started_ms + TICK_MS;
	uv_prepare_init(d->loop, &d->flush);
	uv_timer_init(d->loop, &d->batch);
	uv_timer_init(d->loop, &d->tick);
	d->flush.data = d->batch.data = d->tick.data = d;
	uv_prepare_start(&d->flush, on_flush);
	uv_timer_start(&d->tick, on_tick, TICK_MS, TICK_MS);
	return 0;
}

void links_stop(struct dispatcher *d)
{
	uv_close((uv_handle_t *)&d->flush, NULL);
	uv_close((uv_handle_t *)&d->batch, NULL);
	uv_close((uv_handle_t *)&d->tick, NULL);
	nng_inbox_stop(d->inbox);
	moves_fini(&d->moves);
	history_fini(&d->history);
	nodes_fini(&d->nodes);
}

/* storage.c - the shell around the store: its life, what publish.c and
 * history.c ask of it, and what it means for the dispatcher. */
#include "common/base/err.h"
#include "common/base/hash.h"
#include "dispatcher/dispatcher.h"

#include <stdio.h>

#define TRIM_MS	  1000
#define REPORT_MS 1000
/* At the end, for appends whose callers were told that they may have been
 * done: what is appended by then is routed. */
#define LATE_MAX_MS 2000

/* --- what publish.c and history.c ask for ------------------------------ */

static void append(void *ctx, struct store_append *a)
{
	struct dispatcher *d = ctx;

	store_append(d->store, a);
}

static const char *fault(void *ctx)
{
	return storage_fault(ctx);
}

static void read_log(void *ctx, struct store_read *r)
{
	struct dispatcher *d = ctx;

	store_read(d->store, r);
}

static void read_tops(void *ctx, struct store_tops *t)
{
	struct dispatcher *d = ctx;

	store_tops(d->store, t);
}

static void doubt(void *ctx, const char *channel)
{
	struct dispatcher *d = ctx;

	moves_doubt(&d->moves, channel);
}

struct publish_store storage_publish(struct dispatcher *d)
{
	return (struct publish_store){
		.append = append,
		.fault = fault,
		.ctx = d,
		.doubt = doubt,
	};
}

struct history_store storage_history(struct dispatcher *d)
{
	return (struct history_store){
		.read = read_log,
		.tops = read_tops,
		.fault = fault,
		.ctx = d,
	};
}

const char *storage_fault(struct dispatcher *d)
{
	const struct store_state *state;

	if (d->store == NULL)
		return "shutting down";
	if (nodes_outvoted(&d->nodes))
		return "another store is in use by the cluster";
	state = store_state(d->store);
	if (state->up)
		return NULL;
	return state->fault[0] != '\0' ? state->fault : "not reached yet";
}

/* --- other dispatchers of the store ------------------------------------- */

static void on_moved(void *ctx, uint64_t by, const char *channel,
		     struct store_place top)
{
	struct dispatcher *d = ctx;

	moves_heard(&d->moves, by, channel, top);
}

/* Tells them what we see, and remembers what they do. */
static void exchange(struct dispatcher *d)
{
	const struct store_state *state = store_state(d->store);
	uint64_t peers[STORE_PEERS_MAX];

	store_report(d->store, d->nodes.in_phase[NODE_WORKER_READY]);
	d->peers_see = 0;
	for (unsigned i = 0; i < state->peer_count; i++) {
		peers[i] = state->peers[i].instance;
		d->peers_see = max_of(d->peers_see, state->peers[i].workers);
	}
	nodes_set_peers(&d->nodes, peers, state->peer_count);
}

/* --- its life ---------------------------------------------------------- */

int storage_open(struct dispatcher *d)
{
	const struct dispatcher_options *o = &d->options;
	const struct store_config config = {
		.url = o->store,
		.password = o->store_password,
		.tls_ca = o->store_tls_ca,
		.tls_cert = o->store_tls_cert,
		.tls_key = o->store_tls_key,
		.queue_bytes = o->store_queue_bytes,
		.timeout_ms = o->store_timeout_ms,
		.idempotency_ms = o->idempotency_seconds * 1000,
		.map_bytes = o->store_map_bytes,
		.replicas = o->store_replicas,
		.instance = d->instance,
		.moved = on_moved,
		.ctx = d,
	};
	char text[STORE_FAULT_SIZE] = "";
	int rc = store_open(d->loop, &config, &d->store, text);

	if (rc != 0)
		fprintf(stderr, "stentor-dispatcher: --store: %s\n",
			text[0] != '\0' ? text : err_text(rc));
	return rc;
}

/* The identity matters to the cluster only if some channel has positions. */
static void tell_identity(struct dispatcher *d)
{
	nodes_set_store(&d->nodes,
			d->keeps_history ? store_state(d->store)->identity : 0);
}

void storage_rules(struct dispatcher *d)
{
	d->keeps_history = false;
	for (size_t i = 0; i < d->rules.count; i++)
		d->keeps_history |= rule_reliable(&d->rules.rule[i]);
	if (d->store != NULL)
		tell_identity(d);
}

static void on_closed(void *ctx)
{
	struct dispatcher *d = ctx;

	d->on_closed(d);
}

/* No publish waits for it; that some are late is not waited for for ever. What
 * is in doubt then, or marked behind, or routed and not sent, may go untold: the
 * links end after the store has closed, and each worker that we could tell asks
 * for the tops of all its logs when its link ends, and when one comes back. */
static void maybe_close(struct dispatcher *d, uint64_t now_ms)
{
	struct store *store = d->store;

	if (publish_late(&d->publisher) > 0 && now_ms < d->store_end_ms)
		return;
	moves_close(&d->moves);
	d->store = NULL;
	store_close(store, on_closed, d);
}

void storage_tick(struct dispatcher *d, uint64_t now_ms)
{
	if (d->store == NULL)
		return;
	moves_tick(&d->moves);
	if (d->on_closed != NULL) {
		maybe_close(d, now_ms);
		return;
	}
	tell_identity(d);
	if (store_state(d->store)->up)
		d->store_up_ms = now_ms;
	if (now_ms - d->store_report_ms >= REPORT_MS) {
		d->store_report_ms = now_ms;
		exchange(d);
	}
	if (now_ms - d->store_trim_ms < TRIM_MS)
		return;
	d->store_trim_ms = now_ms;
	store_trim(d->store);
}

void storage_close(struct dispatcher *d, void (*closed)(struct dispatcher *d))
{
	check(publish_pending(&d->publisher) == 0);
	history_close(&d->history);
	d->on_closed = closed;
	d->store_end_ms = uv_now(d->loop) + LATE_MAX_MS;
	maybe_close(d, uv_now(d->loop));
}

#include "dispatcher/publish/storage.h"

#include "common/base/err.h"

#include <stdio.h>

#define TRIM_MS	  1000
#define REPORT_MS 1000
/* At the end, for appends whose callers were told that they may have been
 * done: what is appended by then is routed. */
#define LATE_MAX_MS 2000

/* --- what publish.c and history.c ask for ------------------------------ */

static void storage_append(void *ctx, struct store_append *a)
{
	struct storage *s = ctx;

	store_append(s->store, a);
}

static const char *storage_on_fault(void *ctx)
{
	return storage_fault(ctx);
}

static void storage_read(void *ctx, struct store_read *r)
{
	struct storage *s = ctx;

	store_read(s->store, r);
}

static void storage_tops(void *ctx, struct store_tops *t)
{
	struct storage *s = ctx;

	store_tops(s->store, t);
}

static void storage_doubt(void *ctx, const char *channel)
{
	struct storage *s = ctx;

	moves_doubt(s->parts.moves, channel);
}

struct publish_store storage_publish(struct storage *s)
{
	return (struct publish_store){
		.append = storage_append,
		.fault = storage_on_fault,
		.ctx = s,
		.doubt = storage_doubt,
	};
}

struct history_store storage_history(struct storage *s)
{
	return (struct history_store){
		.read = storage_read,
		.tops = storage_tops,
		.fault = storage_on_fault,
		.ctx = s,
	};
}

const char *storage_fault(struct storage *s)
{
	const struct store_state *state;

	if (s->store == NULL)
		return "shutting down";
	if (nodes_outvoted(s->parts.nodes))
		return "another store is in use by the cluster";
	state = store_state(s->store);
	if (state->up)
		return NULL;
	return state->fault[0] != '\0' ? state->fault : "not reached yet";
}

/* --- other dispatchers of the store ------------------------------------- */

static void storage_on_moved(void *ctx, uint64_t by, const char *channel,
			     struct store_place top)
{
	struct storage *s = ctx;

	moves_heard(s->parts.moves, by, channel, top);
}

/* Tells them what we see, and remembers what they do. */
static void storage_exchange(struct storage *s)
{
	const struct store_state *state = store_state(s->store);
	uint64_t peers[STORE_PEERS_MAX];

	store_report(s->store, s->parts.nodes->in_phase[NODE_WORKER_READY]);
	s->peers_see = 0;
	for (unsigned i = 0; i < state->peer_count; i++) {
		peers[i] = state->peers[i].instance;
		s->peers_see = max_of(s->peers_see, state->peers[i].workers);
	}
	nodes_set_peers(s->parts.nodes, peers, state->peer_count);
}

/* --- its life ---------------------------------------------------------- */

int storage_open(struct storage *s, uv_loop_t *loop,
		 const struct storage_parts *parts,
		 const struct store_config *config)
{
	struct store_config with_us = *config;
	char text[STORE_FAULT_SIZE] = "";
	int rc;

	*s = (struct storage){.parts = *parts, .loop = loop};
	with_us.moved = storage_on_moved;
	with_us.ctx = s;
	rc = store_open(loop, &with_us, &s->store, text);
	if (rc != 0)
		fprintf(stderr, "stentor-dispatcher: --store: %s\n",
			text[0] != '\0' ? text : err_text(rc));
	return rc;
}

/* The identity matters to the cluster only if some channel has positions. */
static void storage_tell_identity(struct storage *s)
{
	nodes_set_store(s->parts.nodes,
			s->keeps_history ? store_state(s->store)->identity : 0);
}

void storage_rules(struct storage *s)
{
	s->keeps_history = false;
	for (size_t i = 0; i < s->parts.rules->count; i++)
		s->keeps_history |= rule_reliable(&s->parts.rules->rule[i]);
	if (s->store != NULL)
		storage_tell_identity(s);
}

/* No publish waits for it; that some are late is not waited for for ever. What
 * is in doubt then, or marked behind, or routed and not sent, may go untold: the
 * links end after the store has closed, and each worker that we could tell asks
 * for the tops of all its logs when its link ends, and when one comes back. */
static void storage_maybe_close(struct storage *s, uint64_t now_ms)
{
	struct store *store = s->store;

	if (publish_late(s->parts.publisher) > 0 && now_ms < s->end_ms)
		return;
	moves_close(s->parts.moves);
	s->store = NULL;
	store_close(store, s->on_closed, s->ctx);
}

void storage_tick(struct storage *s, uint64_t now_ms)
{
	if (s->store == NULL)
		return;
	moves_tick(s->parts.moves);
	if (s->on_closed != NULL) {
		storage_maybe_close(s, now_ms);
		return;
	}
	storage_tell_identity(s);
	if (store_state(s->store)->up)
		s->up_ms = now_ms;
	if (now_ms - s->report_ms >= REPORT_MS) {
		s->report_ms = now_ms;
		storage_exchange(s);
	}
	if (now_ms - s->trim_ms < TRIM_MS)
		return;
	s->trim_ms = now_ms;
	store_trim(s->store);
}

bool storage_lately_up(const struct storage *s, uint64_t now_ms)
{
	return !s->keeps_history || s->store == NULL ||
	       (s->up_ms != 0 && now_ms - s->up_ms <= STORAGE_GRACE_MS);
}

void storage_close(struct storage *s, void (*on_closed)(void *ctx), void *ctx)
{
	check(publish_pending(s->parts.publisher) == 0);
	history_close(s->parts.history);
	s->on_closed = on_closed;
	s->ctx = ctx;
	s->end_ms = uv_now(s->loop) + LATE_MAX_MS;
	storage_maybe_close(s, uv_now(s->loop));
}

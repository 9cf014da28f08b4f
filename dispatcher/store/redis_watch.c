/* What the dispatchers of one Redis tell one another.
 *
 *	on_reply() of an append --> moved() --gathered--> turn() --PUBLISH--+
 *	tick(): each second, present ------------------------------PUBLISH--+
 *	                                                                    |
 *	config.moved() <-- heard() <-- the watch, in SUBSCRIBE mode <-------+
 *
 * PUBLISH goes over an ordinary connection to a node that is ready, the same
 * one as long as it is. The watch is a connection of its own, to a node of the
 * store too: a Cluster's bus carries messages to all of them. What this
 * dispatcher publishes comes back to it; when it does not, the watch is deaf,
 * and is made again with the next node.
 *
 * A peer's messages are numbered (redis_news.h), so it shows when some were
 * missed. While nobody else is there, tops are not published, only counted. A
 * watch that does not stand can't tell: then they are.
 *
 * An append of which nobody knows whether it was done is told as one to look
 * at, not before all masters have been ready since: the connection that it was
 * in has been ended by then.
 */
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "dispatcher/store/redis_internal.h"
#include "dispatcher/store/redis_news.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHANNEL	    "stentor:moved"
#define PRESENT_MS  1000  /* between two messages of presence */
#define ANSWER_MS   50	  /* the same where one was asked for */
#define LOST_MS	    3000  /* of silence: a peer is gone, the watch is deaf */
#define REFUSED_MS  30000 /* before what an ACL forbids is tried again */
#define PUBLISH_MAX 64	  /* messages under way; more tops are gathered */

struct peer {
	uint64_t number; /* of the last news heard of */
	uint64_t heard_ms;
	bool since; /* the watch was made again: the next number is taken */
};

struct redis_watch {
	struct redis_store *s;
	struct redis_node *node;
	bool was_heard, refused; /* the subscription, once; by an ACL */
	unsigned turn;		 /* which node is next */

	struct redis_node *publisher; /* NULL: none is ready */
	unsigned under_way;	      /* PUBLISHes */
	uint64_t forbidden_until_ms;  /* PUBLISH */
	bool warned;

	uint64_t number;     /* of the last of our news */
	uint64_t present_ms; /* when we last said so */
	bool present_due, asks;
	uint64_t echo_due_ms; /* our own message is heard by then; 0 */
	struct redis_gathered gathered, looks;
	struct peer peers[STORE_PEERS_MAX]; /* as those of the state */
	struct buf message;
};

static bool is_heard(const struct redis_watch *w)
{
	return w->node->state == REDIS_NODE_READY;
}

static void warn_once(struct redis_watch *w, const char *what,
		      const struct redis_reply *reply)
{
	if (w->warned)
		return;
	w->warned = true;
	log_warn("STORE-REDIS-NEWS",
		 "%s is refused (\"%.120s\"): other dispatchers' messages are "
		 "found later",
		 what, reply->text != NULL ? reply->text : "");
}

/* --- publishing ----------------------------------------------------------- */

/* The node that is published to; the same one as long as it is ready. */
static struct redis_node *publisher(struct redis_watch *w)
{
	struct redis_node *ready = NULL;

	list_for_each (at, &w->s->nodes) {
		struct redis_node *node =
			container_of(at, struct redis_node, in_nodes);

		if (node->state != REDIS_NODE_READY || node->doomed != NULL)
			continue;
		if (node == w->publisher)
			return node;
		if (ready == NULL)
			ready = node;
	}
	w->publisher = ready;
	return ready;
}

static void on_published(struct redis_request *q UNUSED,
			 struct redis_node *node,
			 const struct redis_reply *reply, bool unsent UNUSED)
{
	struct redis_watch *w = node->s->watch;
	uint64_t now = uv_now(node->s->store.loop);

	if (w == NULL)
		return;
	check(w->under_way > 0);
	w->under_way--;
	if (reply == NULL)
		return;
	if (redis_error_is(reply, "NOPERM")) {
		w->forbidden_until_ms = now + REFUSED_MS;
		warn_once(w, "PUBLISH", reply);
	}
	if (reply->type == REDIS_REPLY_INTEGER && w->echo_due_ms == 0)
		w->echo_due_ms = now + LOST_MS;
}

static void publish(struct redis_watch *w, struct redis_node *to)
{
	const struct redis_arg args[] = {
		redis_arg_text("PUBLISH"),
		redis_arg_text(CHANNEL),
		{w->message.bytes, w->message.len},
	};

	w->under_way++;
	redis_node_tell(to, on_published, args, array_len(args));
	buf_clear(&w->message, REDIS_NEWS_BYTES);
}

static void publish_state(struct redis_watch *w, struct redis_node *to,
			  enum redis_news_kind kind)
{
	const struct redis_news n = {
		.kind = kind,
		.flags = kind == NEWS_PRESENT && w->asks ? NEWS_ASKS : 0,
		.instance = w->s->store.config.instance,
		.number = w->number,
		.workers = w->s->store.workers,
	};

	check(redis_news_write(&w->message, &n) == 0);
	publish(w, to);
	w->asks = w->present_due = false;
	w->present_ms = uv_now(w->s->store.loop);
}

static void publish_moved(struct redis_watch *w, struct redis_node *to)
{
	const struct redis_news n = {
		.kind = NEWS_MOVED,
		.instance = w->s->store.config.instance,
		.number = ++w->number,
	};
	unsigned before = w->gathered.count;

	check(redis_gathered_write(&w->gathered, &w->message, &n) == 0);
	metric_add(&w->s->store.metrics, SM_MOVED, STORE_MOVED_SENT,
		   before - w->gathered.count);
	publish(w, to);
}

/* Somebody listens, or may. */
static bool is_published(const struct redis_watch *w)
{
	return w->s->store.state.peer_count > 0 || !is_heard(w);
}

static bool has_news(const struct redis_watch *w)
{
	return w->gathered.count > 0 || w->gathered.overflow;
}

static bool has_room(const struct redis_watch *w, const struct redis_node *to)
{
	return w->under_way < PUBLISH_MAX && to->out.len < REDIS_OUT_MAX;
}

/* Every master has been ready since what is to be looked at was in doubt. */
static bool all_ready(const struct redis_store *s)
{
	unsigned masters = 0;

	list_for_each (at, &s->nodes) {
		const struct redis_node *node =
			container_of(at, struct redis_node, in_nodes);

		if (node->slots == 0)
			continue;
		if (node->state != REDIS_NODE_READY)
			return false;
		masters++;
	}
	return masters > 0;
}

static void tell_looks(struct redis_watch *w)
{
	for (unsigned i = 0; i < w->looks.count; i++)
		redis_gathered_add(&w->gathered, w->looks.moved[i].channel,
				   w->looks.moved[i].top);
	w->gathered.overflow |= w->looks.overflow;
	redis_gathered_init(&w->looks);
}

static void tell_gathered(struct redis_watch *w, struct redis_node *to)
{
	if (w->gathered.overflow) {
		/* The number that nobody gets says so. */
		w->number++;
		w->present_due = true;
		w->gathered.overflow = false;
	}
	while (w->gathered.count > 0 && has_room(w, to))
		publish_moved(w, to);
}

/* What is due is queued for the node, and leaves with what else is. */
static void tell(struct redis_watch *w)
{
	uint64_t now = uv_now(w->s->store.loop);
	struct redis_node *to;

	if (w->looks.count > 0 && all_ready(w->s))
		tell_looks(w);
	if (!has_news(w) && !w->present_due)
		return;
	to = publisher(w);
	if (to == NULL || now < w->forbidden_until_ms)
		return;
	tell_gathered(w, to);
	if (w->present_due && has_room(w, to) &&
	    now - w->present_ms >= ANSWER_MS)
		publish_state(w, to, NEWS_PRESENT);
}

void redis_watch_turn(struct redis_store *s)
{
	if (s->watch != NULL && !s->store.closing)
		tell(s->watch);
}

void redis_watch_moved(struct redis_store *s, const char *channel,
		       struct store_place top)
{
	struct redis_watch *w = s->watch;

	if (w == NULL || s->store.closing)
		return;
	if (top.epoch == 0)
		redis_gathered_add(&w->looks, channel, top);
	else if (is_published(w))
		redis_gathered_add(&w->gathered, channel, top);
	else
		w->number++;
	redis_wake(s);
}

/* --- who else is there ---------------------------------------------------- */

static void miss(struct redis_watch *w, uint64_t by)
{
	const struct store_config *c = &w->s->store.config;

	metric_add(&w->s->store.metrics, SM_MOVED, STORE_MOVED_MISSED, 1);
	if (c->moved != NULL)
		c->moved(c->ctx, by, NULL, (struct store_place){0, 0});
}

static unsigned peer_find(const struct redis_watch *w, uint64_t instance)
{
	const struct store_state *state = &w->s->store.state;
	unsigned i = 0;

	while (i < state->peer_count && state->peers[i].instance != instance)
		i++;
	return i;
}

static void peer_forget(struct redis_watch *w, unsigned i, const char *why)
{
	struct store_state *state = &w->s->store.state;

	log_info("STORE-PEER-GONE", "instance=%016" PRIx64 " reason=%s",
		 state->peers[i].instance, why);
	state->peer_count--;
	state->peers[i] = state->peers[state->peer_count];
	w->peers[i] = w->peers[state->peer_count];
}

static bool peer_add(struct redis_watch *w, const struct redis_news *n)
{
	struct store_state *state = &w->s->store.state;

	if (state->peer_count == STORE_PEERS_MAX)
		return false;
	log_info("STORE-PEER", "instance=%016" PRIx64, n->instance);
	/* It is told at once that we are here. */
	w->present_due = true;
	redis_wake(w->s);
	w->peers[state->peer_count] = (struct peer){0};
	state->peers[state->peer_count++] =
		(struct store_peer){.instance = n->instance};
	return true;
}

/* Takes note of who speaks, and whether something of it was missed. */
static void peer_heard(struct redis_watch *w, const struct redis_news *n)
{
	struct store_state *state = &w->s->store.state;
	uint64_t before = n->kind == NEWS_MOVED ? n->number - 1 : n->number;
	unsigned i = peer_find(w, n->instance);
	struct peer *p = &w->peers[i];
	bool missed;

	if (i == state->peer_count && (n->kind == NEWS_GONE || !peer_add(w, n)))
		return;
	missed = !p->since && before > p->number;
	p->since = false;
	p->number = max_of(p->number, n->number);
	p->heard_ms = uv_now(w->s->store.loop);
	if (n->kind == NEWS_PRESENT)
		state->peers[i].workers = n->workers;
	if (n->kind == NEWS_GONE)
		peer_forget(w, i, "left");
	if (missed)
		miss(w, n->instance);
}

/* Its last news may have been on their way. */
static void forget_silent(struct redis_watch *w, uint64_t now_ms)
{
	struct store_state *state = &w->s->store.state;

	for (unsigned i = 0; i < state->peer_count;) {
		uint64_t by = state->peers[i].instance;

		if (now_ms - w->peers[i].heard_ms < LOST_MS) {
			i++;
			continue;
		}
		peer_forget(w, i, "silent");
		if (is_heard(w))
			miss(w, by);
	}
}

/* --- hearing -------------------------------------------------------------- */

static void hear_moved(struct redis_watch *w, struct redis_news *n)
{
	const struct store_config *c = &w->s->store.config;
	char channel[CHANNEL_NAME_MAX + 1];
	struct store_place top;

	metric_add(&w->s->store.metrics, SM_MOVED, STORE_MOVED_HEARD, n->count);
	while (n->count > 0 && !w->s->store.closing) {
		redis_news_next(n, channel, &top);
		if (c->moved != NULL)
			c->moved(c->ctx, n->instance, channel, top);
	}
}

/* ["message", channel, bytes] */
void redis_watch_heard(struct redis_node *node, const struct redis_reply *reply)
{
	struct redis_watch *w = node->s->watch;
	const char *bytes = redis_element_text(reply, 2);
	struct redis_news n;

	if (w == NULL || node->s->store.closing)
		return;
	if (bytes == NULL ||
	    !redis_news_read(bytes, reply->elements[2]->len, &n)) {
		metric_add(&node->s->store.metrics, SM_NEWS_IGNORED, 0, 1);
		return;
	}
	if (n.instance == node->s->store.config.instance) {
		w->echo_due_ms = 0;
		return;
	}
	peer_heard(w, &n);
	if (n.flags & NEWS_ASKS) {
		w->present_due = true;
		redis_wake(w->s);
	}
	if (n.kind == NEWS_MOVED)
		hear_moved(w, &n);
}

static void on_subscribed(struct redis_request *q UNUSED,
			  struct redis_node *node,
			  const struct redis_reply *reply, bool unsent UNUSED)
{
	struct redis_watch *w = node->s->watch;

	if (w == NULL || reply == NULL || node->doomed != NULL)
		return;
	w->refused = redis_error_is(reply, "NOPERM");
	if (reply->type != REDIS_REPLY_ARRAY) {
		if (w->refused)
			warn_once(w, "SUBSCRIBE", reply);
		redis_node_doom(node, "it refuses a subscription");
		return;
	}
	redis_node_ready(node);
	w->echo_due_ms = 0;
	w->present_due = w->asks = true;
	redis_wake(node->s);
	for (unsigned i = 0; i < array_len(w->peers); i++)
		w->peers[i].since = true;
	if (w->was_heard && !node->s->store.closing)
		miss(w, 0);
	w->was_heard = true;
}

void redis_watch_begin(struct redis_node *node)
{
	const struct redis_arg listen[] = {
		redis_arg_text("SUBSCRIBE"),
		redis_arg_text(CHANNEL),
	};

	redis_setup_begin(node);
	redis_node_tell(node, on_subscribed, listen, 2);
}

/* --- the connection ------------------------------------------------------- */

/* The server is no part of the store any more. */
static bool is_astray(const struct redis_watch *w)
{
	list_for_each (at, &w->s->nodes)
		if (redis_node_is(container_of(at, struct redis_node, in_nodes),
				  &w->node->address))
			return false;
	return true;
}

void redis_watch_lost(struct redis_node *node)
{
	struct redis_watch *w = node->s->watch;

	if (w == NULL)
		return;
	w->turn++;
	w->echo_due_ms = 0;
	if (w->refused)
		node->retry_at_ms = uv_now(node->s->store.loop) + REFUSED_MS;
}

static void watch_node(struct redis_watch *w, uint64_t now_ms)
{
	const struct redis_node *to;

	if (w->node->state == REDIS_NODE_WAITING) {
		to = redis_ready_node(w->s, w->turn);
		if (to == NULL)
			return;
		w->node->address = to->address;
		snprintf(w->node->name, sizeof(w->node->name), "watch %.240s",
			 to->name);
	} else if (is_astray(w)) {
		redis_node_leave(w->node);
	} else if (is_heard(w) && w->echo_due_ms != 0 &&
		   now_ms > w->echo_due_ms) {
		redis_node_drop(w->node, "what is published is not heard");
	}
	redis_node_tick(w->node, now_ms);
}

void redis_watch_tick(struct redis_store *s, uint64_t now_ms)
{
	struct redis_watch *w = s->watch;

	if (w == NULL)
		return;
	watch_node(w, now_ms);
	forget_silent(w, now_ms);
	w->present_due |= now_ms - w->present_ms >= PRESENT_MS;
	metric_set(&s->store.metrics, SM_NEWS_UP, 0, is_heard(w));
	if (w->present_due || has_news(w) || w->looks.count > 0)
		redis_wake(s);
}

/* --- life ----------------------------------------------------------------- */

void redis_watch_open(struct redis_store *s)
{
	static const struct redis_address nowhere;
	struct redis_watch *w;

	if (s->store.config.instance == 0)
		return;
	w = xcalloc(1, sizeof(*w));
	w->s = s;
	w->node = redis_node_new(s, &nowhere);
	w->node->watch = true;
	redis_gathered_init(&w->gathered);
	redis_gathered_init(&w->looks);
	buf_init(&w->message, REDIS_NEWS_BYTES);
	s->watch = w;
}

void redis_watch_close(struct redis_store *s)
{
	struct redis_watch *w = s->watch;
	struct redis_node *to;

	if (w == NULL)
		return;
	to = publisher(w);
	if (to != NULL && uv_now(s->store.loop) >= w->forbidden_until_ms) {
		tell_gathered(w, to);
		/* What is not told, or not known yet, the others find by a
		 * number that nobody gets. */
		if (w->looks.count > 0 || has_news(w) ||
		    s->store.state.queue_bytes > 0)
			w->number++;
		publish_state(w, to, NEWS_GONE);
		redis_node_flush(to);
	}
	s->watch = NULL;
	redis_node_free(w->node);
	buf_fini(&w->message);
	free(w);
}

/* The order of a slot's requests.
 *
 *	waiting --send--> under way --reply--> done
 *	   ^                  |
 *	   +---- returned <---+  refused before it was done, or never left
 *
 * All that is under way of a slot is at one server, in one connection, so it
 * takes effect in the order in which it left. What comes back is put before all
 * that waits, and nothing of the slot leaves until nothing is under way: then
 * the order is whole again. A later append of the same channel that went
 * through meanwhile makes one that came back fail instead.
 *
 * An append whose time is over stays under way, answered. Its reply is what its
 * caller hears late; refused, it is not sent again.
 */
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "dispatcher/store/redis_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void redis_slots_init(struct redis_store *s)
{
	s->slots = xcalloc(REDIS_SLOTS, sizeof(*s->slots));
	for (size_t i = 0; i < REDIS_SLOTS; i++) {
		list_init(&s->slots[i].in_blocked);
		list_init(&s->slots[i].waiting);
		list_init(&s->slots[i].returned);
	}
}

/* --- sending ------------------------------------------------------------- */

static struct redis_op *first_waiting(const struct redis_slot *slot)
{
	return container_of(slot->waiting.next, struct redis_op, in_slot);
}

/* Where the op is to go now; NULL: nowhere yet. */
static struct redis_node *destination(const struct redis_slot *slot,
				      struct redis_op *op)
{
	struct redis_node *node = slot->master;

	if (op->retry_at_ms > uv_now(op->s->store.loop))
		return NULL;
	if (op->ask != NULL)
		node = redis_cluster_node(op->s, op->ask);
	return node != NULL && node->state == REDIS_NODE_READY &&
			       node->doomed == NULL
		       ? node
		       : NULL;
}

static bool send_first(struct redis_slot *slot)
{
	struct redis_op *op = first_waiting(slot);
	struct redis_node *node = destination(slot, op);
	const struct redis_arg asking = redis_arg_text("ASKING");

	if (node == NULL || (op->ask != NULL && slot->sent > 0))
		return false;
	if (op->ask != NULL)
		redis_node_tell(node, NULL, &asking, 1);
	if (!redis_op_send(op, node))
		return false;
	slot->alone = op->ask != NULL;
	free(op->ask);
	op->ask = NULL;
	list_remove(&op->in_slot);
	slot->sent++;
	return true;
}

static void slot_kick(struct redis_store *s, struct redis_slot *slot)
{
	bool order = slot->sent == 0;

	if (order) {
		list_splice_back(&slot->returned, &slot->waiting);
		list_splice_back(&slot->waiting, &slot->returned);
		slot->moved = slot->alone = false;
	}
	while (!list_empty(&slot->waiting) && list_empty(&slot->returned) &&
	       !slot->moved && !slot->alone && send_first(slot))
		;
	if (list_empty(&slot->waiting) && list_empty(&slot->returned))
		list_remove(&slot->in_blocked);
	else if (list_empty(&slot->in_blocked))
		list_push_back(&s->blocked, &slot->in_blocked);
}

void redis_slots_kick(struct redis_store *s)
{
	struct list blocked, *at;

	list_init(&blocked);
	list_splice_back(&blocked, &s->blocked);
	while ((at = list_pop_front(&blocked)))
		slot_kick(s, container_of(at, struct redis_slot, in_blocked));
}

void redis_op_submit(struct redis_op *op)
{
	struct redis_slot *slot = &op->s->slots[op->slot];

	op->begun_ms = uv_now(op->s->store.loop);
	list_push_back(&slot->waiting, &op->in_slot);
	slot_kick(op->s, slot);
}

void redis_slot_assign(struct redis_store *s, unsigned number,
		       struct redis_node *master)
{
	struct redis_slot *slot = &s->slots[number];

	if (slot->master == master)
		return;
	if (slot->master != NULL)
		slot->master->slots--;
	if (master != NULL)
		master->slots++;
	slot->master = master;
	slot->moved = slot->sent > 0;
}

/* --- coming back --------------------------------------------------------- */

enum fate {
	FATE_RETRY,   /* not done: again */
	FATE_REFRESH, /* the same, and the cluster has changed */
	FATE_SCRIPTS, /* the same, the scripts first */
	FATE_REPLICA, /* the same, but this is no master any more */
	FATE_MOVED,
	FATE_ASK,
	FATE_FULL,
	FATE_EXISTS,
	FATE_GONE, /* not done, and no use to try again soon */
};

static const struct {
	const char *word;
	enum fate fate;
} errors[] = {
	{"MOVED", FATE_MOVED},	    {"ASK", FATE_ASK},
	{"TRYAGAIN", FATE_RETRY},   {"CLUSTERDOWN", FATE_REFRESH},
	{"NOSCRIPT", FATE_SCRIPTS}, {"LOADING", FATE_RETRY},
	{"BUSY", FATE_RETRY},	    {"MASTERDOWN", FATE_REFRESH},
	{"READONLY", FATE_REPLICA}, {"OOM", FATE_FULL},
	{"MISCONF", FATE_FULL},	    {"NOREPLICAS", FATE_GONE},
	{"NOAUTH", FATE_GONE},	    {"NOPERM", FATE_GONE},
	{"WRONGPASS", FATE_GONE},   {"EXISTS", FATE_EXISTS},
};

/* It has not been done and may be sent again. */
static void op_return(struct redis_op *op, uint64_t pause_ms)
{
	struct redis_slot *slot = &op->s->slots[op->slot];

	op->retry_at_ms = uv_now(op->s->store.loop) + pause_ms;
	list_push_back(&slot->returned, &op->in_slot);
}

static void op_redirect(struct redis_op *op, struct redis_node *from,
			const struct redis_reply *reply, bool ask)
{
	struct redis_address to;

	if (!redis_cluster_target(from, reply->text, &to) ||
	    op->redirections == REDIS_REDIRECTIONS_MAX) {
		redis_suspect(op->s);
		redis_op_end(op, ERR_UNAVAILABLE, true, false);
		return;
	}
	op->redirections++;
	if (ask) {
		op->ask = xmalloc(sizeof(*op->ask));
		*op->ask = to;
	} else {
		struct redis_node *master = redis_cluster_node(op->s, &to);

		if (master != NULL)
			redis_slot_assign(op->s, op->slot, master);
		redis_suspect(op->s);
	}
	op_return(op, 0);
}

static void op_refused(struct redis_op *op, struct redis_node *node,
		       const struct redis_reply *reply)
{
	for (size_t i = 0; i < array_len(errors); i++) {
		if (!redis_error_is(reply, errors[i].word))
			continue;
		switch (errors[i].fate) {
		case FATE_MOVED:
		case FATE_ASK:
			op_redirect(op, node, reply,
				    errors[i].fate == FATE_ASK);
			return;
		case FATE_SCRIPTS:
			if (node->scripts_due == 0)
				redis_setup_scripts(node);
			op_return(op, 0);
			return;
		case FATE_REPLICA:
			redis_node_doom(node, "it is a replica");
			op_return(op, REDIS_RETRY_MS);
			return;
		case FATE_REFRESH:
			redis_suspect(op->s);
			op_return(op, REDIS_RETRY_MS);
			return;
		case FATE_RETRY:
			op_return(op, REDIS_RETRY_MS);
			return;
		case FATE_FULL:
			redis_op_end(op, ERR_FULL, true, false);
			return;
		case FATE_EXISTS:
			redis_op_end(op, ERR_EXISTS, true, false);
			return;
		case FATE_GONE:
			redis_op_end(op, ERR_UNAVAILABLE, true, false);
			return;
		}
	}
	log_error("STORE-REDIS-ERROR", "server=%s error=\"%.200s\"", node->name,
		  reply->text);
	redis_op_end(op, ERR_IO, true, false);
}

/* An append went through: those of its channel that came back before it would
 * overtake it now. */
static void fail_overtaken(struct redis_slot *slot, const struct redis_op *by)
{
	list_for_each_safe (at, &slot->returned) {
		struct redis_op *op =
			container_of(at, struct redis_op, in_slot);

		if (op->kind != REDIS_APPEND ||
		    strcmp(op->append->channel, by->append->channel) != 0)
			continue;
		list_remove(&op->in_slot);
		redis_op_end(op, ERR_UNAVAILABLE, true, false);
	}
}

/* The last that is heard of one that was answered before. */
static void op_late(struct redis_op *op, int rc, bool definite)
{
	struct redis_op ended = *op;
	struct store_append *a = ended.append;

	slab_free(&ended.s->ops, op);
	if (!ended.late)
		return;
	a->rc = rc;
	a->definite = rc != 0 && definite;
	a->duplicate = rc == 0 && ended.duplicate;
	redis_append_moved(ended.s, a);
	store_append_late(&ended.s->store, a);
}

static void op_end(struct redis_op *op, int rc, bool definite)
{
	if (op->answered)
		op_late(op, rc, definite);
	else
		redis_op_end(op, rc, definite, false);
}

static void op_done(struct redis_op *op, struct redis_slot *slot,
		    struct redis_node *node, const struct redis_reply *reply)
{
	int rc = redis_op_take(op, reply);

	if (rc != 0) {
		redis_node_doom(node, "an answer that makes no sense");
		op_end(op, ERR_UNAVAILABLE, false);
		return;
	}
	if (op->kind == REDIS_APPEND) {
		op->duplicate = op->append->duplicate;
		if (!list_empty(&slot->returned))
			fail_overtaken(slot, op);
		if (op->s->store.config.replicas > 0) {
			list_push_back(&node->unconfirmed, &op->in_slot);
			return;
		}
	}
	op_end(op, 0, false);
}

static void op_lost(struct redis_op *op, bool unsent)
{
	/* What only asks may be asked again. */
	if ((unsent || op->kind != REDIS_APPEND) && !op->s->store.closing)
		op_return(op, 0);
	else
		redis_op_end(op, ERR_UNAVAILABLE, unsent, false);
}

/* The reply, if it is one, to what was answered already. */
static void op_overdue(struct redis_op *op, struct redis_slot *slot,
		       struct redis_node *node, const struct redis_reply *reply,
		       bool unsent)
{
	if (!op->late) /* the caller's struct is gone */
		slab_free(&op->s->ops, op);
	else if (reply == NULL)
		op_late(op, ERR_UNAVAILABLE, unsent);
	else if (reply->type == REDIS_REPLY_ERROR)
		op_late(op, ERR_UNAVAILABLE, true);
	else
		op_done(op, slot, node, reply);
}

void redis_op_replied(struct redis_request *q, struct redis_node *node,
		      const struct redis_reply *reply, bool unsent)
{
	struct redis_op *op = container_of(q, struct redis_op, request);
	struct redis_store *s = op->s;
	struct redis_slot *slot = &s->slots[op->slot];

	check(slot->sent > 0);
	slot->sent--;
	slot->alone = false;
	if (op->answered)
		op_overdue(op, slot, node, reply, unsent);
	else if (reply == NULL)
		op_lost(op, unsent);
	else if (reply->type == REDIS_REPLY_ERROR)
		op_refused(op, node, reply);
	else
		op_done(op, slot, node, reply);
	if (!list_empty(&slot->waiting) || !list_empty(&slot->returned) ||
	    slot->moved)
		slot_kick(s, slot);
}

void redis_slots_confirm(struct list *ops, int rc)
{
	struct list *at;

	while ((at = list_pop_front(ops)))
		op_end(container_of(at, struct redis_op, in_slot), rc, false);
}

/* --- too old ------------------------------------------------------------- */

static void expire_list(struct list *ops, uint64_t before_ms, bool all)
{
	struct list old, *at;

	list_init(&old);
	list_for_each_safe (node, ops) {
		struct redis_op *op =
			container_of(node, struct redis_op, in_slot);

		if (!all && op->begun_ms > before_ms)
			continue;
		list_remove(node);
		list_push_back(&old, node);
	}
	while ((at = list_pop_front(&old)))
		redis_op_end(container_of(at, struct redis_op, in_slot),
			     ERR_UNAVAILABLE, true, false);
}

static void expire_blocked(struct redis_store *s, uint64_t before_ms, bool all)
{
	struct list blocked, *at;

	list_init(&blocked);
	list_splice_back(&blocked, &s->blocked);
	while ((at = list_pop_front(&blocked))) {
		struct redis_slot *slot =
			container_of(at, struct redis_slot, in_blocked);

		expire_list(&slot->returned, before_ms, all);
		expire_list(&slot->waiting, before_ms, all);
		slot_kick(s, slot);
	}
}

/* Requests keep their place under way; only their callers are told. They left
 * in about the order of their age. */
static void expire_sent(struct redis_node *node, uint64_t before_ms)
{
	list_for_each (at_sent, &node->sent) {
		struct redis_request *q =
			container_of(at_sent, struct redis_request, in_node);
		struct redis_op *op = container_of(q, struct redis_op, request);

		if (q->done != redis_op_replied || op->answered)
			continue;
		if (op->begun_ms > before_ms)
			break;
		redis_op_end(op, ERR_UNAVAILABLE, op->kind != REDIS_APPEND,
			     true);
	}
	list_for_each (at, &node->unconfirmed) {
		struct redis_op *op =
			container_of(at, struct redis_op, in_slot);

		if (op->answered)
			continue;
		if (op->begun_ms > before_ms)
			break;
		redis_op_end(op, ERR_UNAVAILABLE, false, true);
	}
}

static bool awaited(const struct redis_op *op)
{
	return op->kind == REDIS_APPEND &&
	       (op->answered ? op->late : op->append->late != NULL);
}

bool redis_slots_await(const struct redis_node *node)
{
	list_for_each (at, &node->sent) {
		struct redis_request *q =
			container_of(at, struct redis_request, in_node);

		if (q->done == redis_op_replied &&
		    awaited(container_of(q, struct redis_op, request)))
			return true;
	}
	list_for_each (at, &node->unconfirmed)
		if (awaited(container_of(at, struct redis_op, in_slot)))
			return true;
	return false;
}

void redis_slots_expire(struct redis_store *s, uint64_t now_ms, bool all)
{
	uint64_t timeout = s->store.config.timeout_ms;
	uint64_t before = now_ms > timeout ? now_ms - timeout : 0;

	list_for_each (at, &s->nodes)
		expire_sent(container_of(at, struct redis_node, in_nodes),
			    before);
	expire_blocked(s, before, all);
}

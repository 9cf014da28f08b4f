/* nodes_greet.c - who gets a link: hellos, and what is refused.
 *
 * A worker that is refused keeps its entry, and its socket, so that it can be
 * told why, however often it greets anew; it is dropped when its hellos end, or
 * for a link that may stand. One of the same node and index as a living worker
 * is dialled too: it is another process, and can't be told by the other one's
 * link. So a worker of a name may have one namesake, which is REFUSED for its
 * name:
 *
 *	hello of a younger one --> dialled --next hello--> told, or let in if
 *						its elder has gone meanwhile
 */
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "dispatcher/route/nodes_internal.h"

#include <string.h>

/* --- sending ----------------------------------------------------------- */

/* Outside the sequence; the worker asks again if it gets lost. */
static void send_greeting(struct nodes *n, struct node_worker *w,
			  struct link_header h, LinkFrame *f)
{
	struct frame *control = link_control_encode(f);
	size_t sent;
	int rc = nodes_send_frame(n, w, &h, control, &sent);

	if (rc != 0)
		log_debug("GREETING-LOST", "node=%s worker=%u err=%s",
			  w->node->name, w->index, err_name(rc));
	frame_release(control);
}

static void acknowledge_hello(struct nodes *n, struct node_worker *w)
{
	Stentor__Link__V1__HelloAck ack = STENTOR__LINK__V1__HELLO_ACK__INIT;
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;

	ack.protocol = LINK_PROTOCOL;
	ack.dispatcher = (char *)n->config.name;
	ack.version = (char *)n->config.version;
	ack.config_hash = n->config.config_hash;
	ack.store = n->config.store;
	ack.instance = n->config.instance;
	ack.hash_key.len = sizeof(n->key);
	ack.hash_key.data = (uint8_t *)&n->key;
	f.hello_ack = &ack;
	send_greeting(n, w, link_state_greeting(&w->link), &f);
}

/* Tells the worker, over its existing link, why an attempt is turned down. */
static void tell_refusal(struct nodes *n, struct node_worker *w, uint64_t epoch,
			 RefuseReason reason, const char *text)
{
	Stentor__Link__V1__Refuse r = STENTOR__LINK__V1__REFUSE__INIT;
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;
	struct link_header h = link_state_greeting(&w->link);

	r.reason = reason;
	r.text = (char *)text;
	f.refuse = &r;
	h.receiver_epoch = epoch;
	send_greeting(n, w, h, &f);
}

void nodes_reset(struct nodes *n, struct node_worker *w, const char *text)
{
	tell_refusal(n, w, w->link.peer_epoch, REFUSED_FOR(RESET), text);
}

/* --- refused workers --------------------------------------------------- */

bool nodes_store_differs(const struct nodes *n, uint64_t store)
{
	return store != 0 && n->config.store != 0 && store != n->config.store &&
	       store != n->former_store;
}

static const char *refusal_text(const struct nodes *n, RefuseReason reason)
{
	if (reason == REFUSED_FOR(NAME))
		return "an elder worker of this node name and index is alive: "
		       "give each node a name of its own (--name)";
	if (reason == REFUSED_FOR(FULL))
		return "the routing table is full (--interest-max)";
	return n->config.store_embedded
		       ? "another dispatcher is in use, and this one's store "
			 "(memory: or lmdb:) is not shared: start one "
			 "dispatcher, or use redis://"
		       : "the worker's positions come from another store: all "
			 "dispatchers must have the same --store";
}

static void count_refusal(struct nodes *n, const struct node_worker *w,
			  RefuseReason reason)
{
	if (reason == REFUSED_FOR(STORE)) {
		n->counters.stores_differ++;
		log_error("STORE-DIFFERS",
			  "node=%s worker=%u ours=%016llx theirs=%016llx "
			  "text=\"%s\"",
			  w->node->name, w->index,
			  (unsigned long long)n->config.store,
			  (unsigned long long)w->store,
			  refusal_text(n, reason));
	} else if (reason == REFUSED_FOR(NAME)) {
		n->counters.names_taken++;
		log_error("NAME-TAKEN", "node=%s worker=%u address=%s",
			  w->node->name, w->index, w->link_address);
	} else {
		log_error("WORKER-REFUSED", "node=%s worker=%u text=\"%s\"",
			  w->node->name, w->index, refusal_text(n, reason));
	}
}

static void say_why(struct nodes *n, struct node_worker *w)
{
	if (w->connected)
		tell_refusal(n, w, w->link.peer_epoch, w->refused_for,
			     refusal_text(n, w->refused_for));
}

static void end_relations(struct nodes *n, struct node_worker *w,
			  RefuseReason reason)
{
	/* It may be refused for something else by now: who is a stranger is
	 * counted by the phase that it leaves and the one that it gets. */
	if (w->phase == NODE_WORKER_REFUSED)
		n->strangers -= nodes_is_stranger(w);
	w->refused_for = reason;
	if (w->phase == NODE_WORKER_REFUSED)
		n->strangers += nodes_is_stranger(w);
	else
		nodes_set_phase(n, w, NODE_WORKER_REFUSED);
	interest_drop_worker(&n->interest, w->id);
	linkq_clear(&w->queue);
	behind_fini(&w->behind);
	list_remove(&w->in_pending);
	count_refusal(n, w, reason);
}

void nodes_refuse(struct nodes *n, struct node_worker *w, RefuseReason reason)
{
	if (w->phase != NODE_WORKER_REFUSED || w->refused_for != reason)
		end_relations(n, w, reason);
	say_why(n, w);
}

void nodes_set_store(struct nodes *n, uint64_t identity)
{
	if (identity == n->config.store)
		return;
	if (identity != 0 && n->config.store != 0)
		n->former_store = n->config.store;
	n->config.store = identity;
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
		struct node_worker *w = n->by_id[i];

		if (w != NULL && nodes_store_differs(n, w->store))
			nodes_refuse(n, w, REFUSED_FOR(STORE));
	}
}

bool nodes_is_stranger(const struct node_worker *w)
{
	return w->phase == NODE_WORKER_REFUSED && w->dialled &&
	       w->refused_for == REFUSED_FOR(STORE);
}

bool nodes_outvoted(const struct nodes *n)
{
	return n->strangers > n->in_phase[NODE_WORKER_READY];
}

/* --- hellos ------------------------------------------------------------ */

/* What is kept of a hello, from whoever says it. */
static bool texts_too_long(const Hello *h)
{
	return strlen(h->link_address) > NODES_TEXT_MAX ||
	       strlen(h->listen_address) > NODES_TEXT_MAX ||
	       strlen(h->dialed) > NODES_TEXT_MAX ||
	       strlen(h->version) > NODES_TEXT_MAX;
}

static const char *hello_fault(const struct nodes *n, const LinkFrame *f)
{
	const Hello *h = f->hello;

	if (f->sender_epoch == 0 || h->incarnation == 0)
		return "no epoch";
	if (h->protocol + 1 < LINK_PROTOCOL || h->protocol > LINK_PROTOCOL + 1)
		return "protocol version";
	if (strcmp(h->token, n->config.token) != 0)
		return "token";
	if (h->node[0] == '\0' || strlen(h->node) > NODES_NAME_MAX)
		return "node name";
	if (strncmp(h->link_address, "tcp://", 6) != 0 &&
	    strncmp(h->link_address, "tls+tcp://", 10) != 0)
		return "link address";
	if (texts_too_long(h))
		return "text too long";
	if (n->dialling >= NODES_CONNECTING_MAX)
		return "too many workers are being dialled";
	return NULL;
}

uint64_t nodes_sane(uint64_t told)
{
	return min_of(told, (uint64_t)1 << 40);
}

/* What there is already under the name and index of a hello. */
struct namesakes {
	struct node_worker *same;    /* this very attempt */
	struct node_worker *old;     /* the one that has the name */
	struct node_worker *refused; /* one that wanted it too */
};

static struct namesakes find_namesakes(const struct nodes *n,
				       const LinkFrame *f)
{
	struct node *node = nodes_find(n, f->hello->node);
	struct namesakes found = {NULL, NULL, NULL};

	if (node == NULL)
		return found;
	list_for_each (each, &node->workers) {
		struct node_worker *w =
			container_of(each, struct node_worker, in_node);

		if (w->index != f->hello->worker)
			continue;
		if (w->link.peer_epoch == f->sender_epoch)
			found.same = w;
		if (w->phase == NODE_WORKER_REFUSED &&
		    (w->refused_for == REFUSED_FOR(NAME) ||
		     w->incarnation == f->hello->incarnation))
			found.refused = w;
		else if (found.old == NULL ||
			 found.old->phase == NODE_WORKER_REFUSED)
			found.old = w;
	}
	return found;
}

/* Two processes have one name: the elder one stays, if it lives, and whoever has
 * our store. A worker that does not tell when it was started gives way, as one
 * that came back. */
static bool name_is_taken(const struct nodes *n, const struct node_worker *old,
			  const Hello *h, uint64_t now_ms)
{
	if (old == NULL || old->incarnation == h->incarnation)
		return false;
	if ((old->phase != NODE_WORKER_SYNCING &&
	     old->phase != NODE_WORKER_READY) ||
	    link_state_dead(&old->link, now_ms))
		return false;
	if (nodes_store_differs(n, h->store))
		return true;
	if (old->started == 0 || h->started == 0)
		return false;
	return old->started != h->started ? old->started < h->started
					  : old->incarnation < h->incarnation;
}

/* One process reached us under two addresses. */
static bool linked_already(const struct node_worker *old, const Hello *h,
			   uint64_t now_ms)
{
	return old != NULL && old->incarnation == h->incarnation &&
	       strcmp(old->dialed, h->dialed) != 0 &&
	       !link_state_dead(&old->link, now_ms);
}

/* Whether what it has announced can be kept, or it can be sent everything. */
static bool has_room_for(const struct nodes *n, const struct node_worker *w)
{
	return n->interest.all_count < INTEREST_ALL_MAX ||
	       nodes_interest_fits(n, w);
}

/* The worker says hello again within the same attempt. False: it may have
 * another one, for what it was refused for is over. */
static bool greet_again(struct nodes *n, struct node_worker *w,
			const struct node_worker *old, const Hello *hello,
			uint64_t now_ms)
{
	w->store = hello->store;
	if (nodes_store_differs(n, w->store)) {
		nodes_refuse(n, w, REFUSED_FOR(STORE));
	} else if (w->phase != NODE_WORKER_REFUSED) {
		if (w->connected)
			acknowledge_hello(n, w);
		return true;
	} else if (w->refused_for == REFUSED_FOR(NAME)
			   ? name_is_taken(n, old, hello, now_ms)
			   : w->refused_for == REFUSED_FOR(FULL) &&
				     !has_room_for(n, w)) {
		say_why(n, w);
	} else {
		return false;
	}
	/* It lives as long as it says hello, and only if it was dialled. */
	if (w->connected)
		w->link.last_rx_ms = now_ms;
	return true;
}

/* Whether it has been dialled back; who says hello anew in the same place is
 * as good as before, so that a vote does not come and go with its hellos. */
static bool vouched_for(const struct node_worker *before, const Hello *h)
{
	return before != NULL && before->dialled &&
	       before->incarnation == h->incarnation &&
	       strcmp(before->link_address, h->link_address) == 0;
}

/* Who was refused greets under a new epoch each time. As long as there is
 * nothing else to say to it, the link that it was told by serves: a new one
 * would be dialled, and for a full table filled, only to be ended again. */
static void keep_refused(struct namesakes *found, const LinkFrame *f)
{
	struct node_worker *w = found->refused;

	if (found->same != NULL || w == NULL || !w->connected ||
	    !vouched_for(w, f->hello))
		return;
	w->link.peer_epoch = f->sender_epoch;
	found->same = w;
}

static void nodes_admit(struct nodes *n, const LinkFrame *f, bool taken,
			bool vouched, uint64_t now_ms)
{
	struct node_worker *w = nodes_worker_new(n, f, now_ms);

	if (w == NULL) {
		n->counters.hellos_refused++;
		log_warn("WORKERS-FULL", "node=%s worker=%u workers_max=%llu",
			 f->hello->node, f->hello->worker,
			 (unsigned long long)n->config.workers_max);
		return;
	}
	w->dialled = vouched;
	log_info("WORKER-HELLO", "node=%s worker=%u address=%s version=%s",
		 w->node->name, w->index, w->link_address, f->hello->version);
	if (n->ops->open(n->ctx, w) != 0)
		nodes_worker_drop(n, w, "address");
	else if (nodes_store_differs(n, w->store))
		nodes_refuse(n, w, REFUSED_FOR(STORE));
	else if (taken)
		nodes_refuse(n, w, REFUSED_FOR(NAME));
}

void nodes_take_hello(struct nodes *n, const LinkFrame *f, uint64_t now_ms)
{
	const Hello *hello = f->hello;
	const char *fault = hello_fault(n, f);
	struct namesakes found;
	bool taken, vouched;

	n->counters.hellos++;
	if (fault != NULL) {
		n->counters.hellos_refused++;
		log_warn("HELLO-REFUSED", "fault=\"%s\"", fault);
		return;
	}
	found = find_namesakes(n, f);
	keep_refused(&found, f);
	if (found.same != NULL &&
	    greet_again(n, found.same, found.old, hello, now_ms))
		return;
	if (linked_already(found.old, hello, now_ms)) {
		n->counters.hellos_refused++;
		tell_refusal(n, found.old, f->sender_epoch,
			     REFUSED_FOR(DUPLICATE),
			     "this dispatcher is linked already, by another "
			     "address");
		return;
	}
	taken = name_is_taken(n, found.old, hello, now_ms);
	vouched = vouched_for(found.old, hello) ||
		  vouched_for(found.refused, hello);
	if (found.refused != NULL)
		nodes_worker_drop(n, found.refused, "replaced");
	if (found.old != NULL && !taken)
		nodes_worker_drop(n, found.old, "replaced");
	nodes_admit(n, f, taken, vouched, now_ms);
}

void nodes_connected(struct nodes *n, struct node_worker *w, uint64_t now_ms)
{
	n->dialling -= !w->connected;
	n->strangers -= nodes_is_stranger(w);
	w->connected = w->dialled = true;
	n->strangers += nodes_is_stranger(w);
	w->link.last_rx_ms = now_ms;
	if (w->phase == NODE_WORKER_REFUSED) {
		/* Its elder may be about to go: its next hello tells. */
		if (w->refused_for != REFUSED_FOR(NAME))
			say_why(n, w);
		return;
	}
	acknowledge_hello(n, w);
	if (w->phase == NODE_WORKER_CONNECTING)
		nodes_set_phase(n, w, NODE_WORKER_SYNCING);
}

void nodes_disconnected(struct nodes *n, struct node_worker *w)
{
	nodes_worker_drop(n, w, "connection");
}

#include "dispatcher/nodes_internal.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

typedef Stentor__Link__V1__Hello Hello;
typedef Stentor__Link__V1__Interest Interest;
typedef Stentor__Link__V1__RefuseReason RefuseReason;

void nodes_init(struct nodes *n, const struct nodes_config *config,
		const struct nodes_ops *ops, void *ctx)
{
	*n = (struct nodes){
		.config = *config,
		.ops = ops,
		.ctx = ctx,
		.key = hash_key_random(),
	};
	check(config->workers_max <= INTEREST_WORKERS_MAX);
	list_init(&n->nodes);
	list_init(&n->pending);
	hmap_init(&n->by_epoch);
	interest_init(&n->interest, config->interest_max);
	arena_init(&n->arena, LINK_DECODED_MAX);
}

/* --- membership -------------------------------------------------------- */

struct node *nodes_find(const struct nodes *n, const char *name)
{
	list_for_each (each, &n->nodes) {
		struct node *node = container_of(each, struct node, in_nodes);

		if (strcmp(node->name, name) == 0)
			return node;
	}
	return NULL;
}

static void replace_text(char **text, const char *by)
{
	free(*text);
	*text = xstrdup(by);
}

/* Lists stay sorted, for people to read. */
static struct list *node_before(struct nodes *n, const char *name)
{
	struct list *before = &n->nodes;

	list_for_each (each, &n->nodes) {
		if (strcmp(container_of(each, struct node, in_nodes)->name,
			   name) < 0)
			before = each;
	}
	return before;
}

static struct list *worker_before(struct node *node, uint32_t index)
{
	struct list *before = &node->workers;

	list_for_each (each, &node->workers) {
		if (container_of(each, struct node_worker, in_node)->index <
		    index)
			before = each;
	}
	return before;
}

static struct node *node_get(struct nodes *n, const Hello *hello)
{
	struct node *node = nodes_find(n, hello->node);

	if (node == NULL) {
		node = xcalloc(1, sizeof(*node));
		node->name = xstrdup(hello->node);
		list_init(&node->workers);
		list_insert_after(node_before(n, hello->node), &node->in_nodes);
	}
	replace_text(&node->version, hello->version);
	replace_text(&node->listen_address, hello->listen_address);
	return node;
}

static void node_free_if_empty(struct node *node)
{
	if (!list_empty(&node->workers))
		return;
	list_remove(&node->in_nodes);
	free(node->name);
	free(node->version);
	free(node->listen_address);
	free(node);
}

static struct node_worker *worker_find(const struct node *node, uint32_t index)
{
	list_for_each (each, &node->workers) {
		struct node_worker *w =
			container_of(each, struct node_worker, in_node);

		if (w->index == index)
			return w;
	}
	return NULL;
}

struct node_worker *nodes_worker(const struct nodes *n, uint64_t epoch)
{
	hmap_for_each_hash (each, &n->by_epoch, epoch) {
		return container_of(each, struct node_worker, by_epoch);
	}
	return NULL;
}

/* An id whose last owner has been swept out of the routing table. */
static int free_id(struct nodes *n)
{
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
		uint16_t id =
			(uint16_t)((n->next_id + i) % INTEREST_WORKERS_MAX);

		if (n->by_id[id] == NULL &&
		    interest_worker_clean(&n->interest, id)) {
			n->next_id =
				(uint16_t)((id + 1) % INTEREST_WORKERS_MAX);
			return id;
		}
	}
	return -1;
}

static void worker_free(struct nodes *n, struct node_worker *w)
{
	struct node *node = w->node;

	list_remove(&w->in_node);
	list_remove(&w->in_pending);
	hmap_remove(&n->by_epoch, &w->by_epoch);
	n->by_id[w->id] = NULL;
	n->worker_count--;
	n->connecting -= w->phase == NODE_WORKER_CONNECTING;
	n->refused -= w->phase == NODE_WORKER_REFUSED;
	for (unsigned i = 0; i < w->batch_count; i++)
		frame_release(w->batch[i]);
	linkq_clear(&w->queue);
	linkq_drops_add(&n->dropped, linkq_drops(&w->queue));
	linkq_fini(&w->queue);
	free(w->link_address);
	free(w->dialed);
	free(w);
	node_free_if_empty(node);
}

static void worker_drop(struct nodes *n, struct node_worker *w,
			const char *reason)
{
	log_warn("WORKER-DOWN", "node=%s worker=%u reason=%s", w->node->name,
		 w->index, reason);
	if (w->phase != NODE_WORKER_CONNECTING &&
	    w->phase != NODE_WORKER_REFUSED)
		n->counters.links_lost++;
	interest_drop_worker(&n->interest, w->id);
	if (w->socket != NULL)
		n->ops->close(n->ctx, w);
	worker_free(n, w);
}

void nodes_fini(struct nodes *n)
{
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
		struct node_worker *w = n->by_id[i];

		if (w == NULL)
			continue;
		if (w->socket != NULL)
			n->ops->close(n->ctx, w);
		worker_free(n, w);
	}
	check(list_empty(&n->nodes));
	hmap_fini(&n->by_epoch);
	interest_fini(&n->interest);
	arena_fini(&n->arena);
}

/* --- sending ----------------------------------------------------------- */

static int send_control(struct nodes *n, struct node_worker *w,
			const struct link_header *h,
			const struct frame *control, size_t *sent)
{
	uint8_t head[LINK_HEADER_MAX];
	struct iovec pieces[2] = {
		{head, link_header_encode(head, h)},
		{(void *)(control ? control->bytes : NULL),
		 control ? control->len : 0},
	};

	*sent = pieces[0].iov_len + pieces[1].iov_len;
	if (!w->connected)
		return ERR_AGAIN;
	return n->ops->send(n->ctx, w, pieces, control ? 2 : 1);
}

int nodes_send_in_sequence(struct nodes *n, struct node_worker *w,
			   const struct frame *control)
{
	struct link_header h = link_state_next(&w->link);
	size_t sent;
	int rc = send_control(n, w, &h, control, &sent);

	if (rc == 0) {
		link_state_sent(&w->link, sent);
		w->ack_due = false;
	}
	return rc;
}

void nodes_send_control(struct nodes *n, struct node_worker *w,
			struct frame *control)
{
	int rc = nodes_send_in_sequence(n, w, control);

	if (rc != 0)
		log_debug("CONTROL-LOST", "node=%s worker=%u err=%s",
			  w->node->name, w->index, err_name(rc));
	frame_release(control);
}

/* Outside the sequence; the worker asks again if it gets lost. */
static void send_greeting(struct nodes *n, struct node_worker *w,
			  struct link_header h, LinkFrame *f)
{
	struct frame *control = link_control_encode(f);
	size_t sent;
	int rc = send_control(n, w, &h, control, &sent);

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
	ack.hash_key.len = sizeof(n->key);
	ack.hash_key.data = (uint8_t *)&n->key;
	f.hello_ack = &ack;
	send_greeting(n, w, link_state_greeting(&w->link), &f);
}

/* Tells the worker, over its existing link, why an attempt is turned down. */
static void refuse(struct nodes *n, struct node_worker *w, uint64_t epoch,
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

/* --- one store for all ------------------------------------------------- */

/* Two stores would hand out two truths about the same channel. */
static bool store_differs(const struct nodes *n, uint64_t store)
{
	return store != 0 && n->config.store != 0 && store != n->config.store;
}

static const char *store_refusal(const struct nodes *n)
{
	return n->config.store_embedded
		       ? "another dispatcher is in use, and this one's store "
			 "(memory: or lmdb:) is not shared: start one "
			 "dispatcher, or use redis://"
		       : "the worker's positions come from another store: all "
			 "dispatchers must have the same --store";
}

/* Says why; on the first time ends what there was between the two. */
static void worker_refuse(struct nodes *n, struct node_worker *w)
{
	if (w->phase != NODE_WORKER_REFUSED) {
		n->connecting -= w->phase == NODE_WORKER_CONNECTING;
		n->refused++;
		n->counters.stores_differ++;
		w->phase = NODE_WORKER_REFUSED;
		interest_drop_worker(&n->interest, w->id);
		linkq_clear(&w->queue);
		list_remove(&w->in_pending);
		log_error("STORE-DIFFERS",
			  "node=%s worker=%u ours=%016llx theirs=%016llx "
			  "text=\"%s\"",
			  w->node->name, w->index,
			  (unsigned long long)n->config.store,
			  (unsigned long long)w->store, store_refusal(n));
	}
	if (w->connected)
		refuse(n, w, w->link.peer_epoch,
		       STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_STORE,
		       store_refusal(n));
}

void nodes_set_store(struct nodes *n, uint64_t identity)
{
	if (identity == n->config.store)
		return;
	n->config.store = identity;
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
		struct node_worker *w = n->by_id[i];

		if (w != NULL && store_differs(n, w->store))
			worker_refuse(n, w);
	}
}

/* --- greetings --------------------------------------------------------- */

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
	if (n->connecting >= NODES_CONNECTING_MAX)
		return "too many workers are being dialled";
	return NULL;
}

/* No node holds or does that much; sums of them overflow nothing. */
static uint64_t sane(uint64_t told)
{
	return min_of(told, (uint64_t)1 << 40);
}

static void worker_add(struct nodes *n, const LinkFrame *f, uint64_t now_ms)
{
	const Hello *hello = f->hello;
	int id = n->worker_count < n->config.workers_max ? free_id(n) : -1;
	struct node_worker *w;

	if (id < 0) {
		n->counters.hellos_refused++;
		log_warn("WORKERS-FULL", "node=%s worker=%u workers_max=%llu",
			 hello->node, hello->worker,
			 (unsigned long long)n->config.workers_max);
		return;
	}
	w = xcalloc(1, sizeof(*w));
	w->id = (uint16_t)id;
	w->node = node_get(n, hello);
	w->index = hello->worker;
	w->incarnation = hello->incarnation;
	w->connections_max = sane(hello->connections_max);
	w->config_hash = hello->config_hash;
	w->store = hello->store;
	w->link_address = xstrdup(hello->link_address);
	w->dialed = xstrdup(hello->dialed);
	w->since_wall_ms = n->ops->wall_ms(n->ctx);
	list_init(&w->in_pending);
	list_insert_after(worker_before(w->node, w->index), &w->in_node);
	linkq_init(&w->queue, n->config.queue_bytes);
	link_state_init(&w->link, random_nonzero(), now_ms);
	w->link.peer_epoch = f->sender_epoch;
	hmap_insert(&n->by_epoch, &w->by_epoch, w->link.epoch);
	n->by_id[id] = w;
	n->worker_count++;
	n->connecting++;
	log_info("WORKER-HELLO", "node=%s worker=%u address=%s version=%s",
		 hello->node, hello->worker, hello->link_address,
		 hello->version);
	if (n->ops->open(n->ctx, w) != 0)
		worker_drop(n, w, "address");
	else if (store_differs(n, w->store))
		worker_refuse(n, w);
}

/* The worker says hello again within the same attempt. False: it may have
 * another one, for what it was refused for is over. */
static bool greet_again(struct nodes *n, struct node_worker *w,
			const Hello *hello)
{
	w->store = hello->store;
	if (store_differs(n, w->store))
		worker_refuse(n, w);
	else if (w->phase == NODE_WORKER_REFUSED)
		return false;
	else if (w->connected)
		acknowledge_hello(n, w);
	return true;
}

static void take_hello(struct nodes *n, const LinkFrame *f, uint64_t now_ms)
{
	const Hello *hello = f->hello;
	const char *fault = hello_fault(n, f);
	struct node *node;
	struct node_worker *old;

	n->counters.hellos++;
	if (fault != NULL) {
		n->counters.hellos_refused++;
		log_warn("HELLO-REFUSED", "fault=\"%s\"", fault);
		return;
	}
	node = nodes_find(n, hello->node);
	old = node ? worker_find(node, hello->worker) : NULL;
	if (old != NULL && old->link.peer_epoch == f->sender_epoch &&
	    greet_again(n, old, hello))
		return;
	if (old != NULL && old->incarnation == hello->incarnation &&
	    strcmp(old->dialed, hello->dialed) != 0 &&
	    !link_state_dead(&old->link, now_ms)) {
		n->counters.hellos_refused++;
		refuse(n, old, f->sender_epoch,
		       STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_DUPLICATE,
		       "this dispatcher is linked already, by another address");
		return;
	}
	if (old != NULL)
		worker_drop(n, old, "replaced");
	worker_add(n, f, now_ms);
}

void nodes_connected(struct nodes *n, struct node_worker *w, uint64_t now_ms)
{
	w->connected = true;
	w->link.last_rx_ms = now_ms;
	if (w->phase == NODE_WORKER_REFUSED) {
		worker_refuse(n, w);
		return;
	}
	acknowledge_hello(n, w);
	if (w->phase == NODE_WORKER_CONNECTING) {
		w->phase = NODE_WORKER_SYNCING;
		n->connecting--;
	}
}

void nodes_disconnected(struct nodes *n, struct node_worker *w)
{
	worker_drop(n, w, "connection");
}

/* --- frames ------------------------------------------------------------ */

static void brief(struct nodes *n, struct node_worker *w)
{
	w->untold = false;
	if (n->ops->brief != NULL)
		n->ops->brief(n->ctx, w);
}

static void take_interest(struct nodes *n, struct node_worker *w,
			  const Interest *in)
{
	for (size_t i = 0; i < in->n_add; i++) {
		if (interest_add(&n->interest, in->add[i], w->id) == ERR_FULL)
			n->counters.interest_full++;
	}
	for (size_t i = 0; i < in->n_remove; i++)
		interest_remove(&n->interest, in->remove[i], w->id);
	if (in->snapshot_end && w->phase == NODE_WORKER_SYNCING) {
		w->phase = NODE_WORKER_READY;
		log_info("WORKER-READY", "node=%s worker=%u channels=%llu",
			 w->node->name, w->index,
			 (unsigned long long)interest_worker_entries(
				 &n->interest, w->id));
		brief(n, w);
	}
	w->ack_due = true;
}

static void take_load(struct node_worker *w,
		      const Stentor__Link__V1__Load *load)
{
	w->load = (struct node_load){
		.accepts = sane(load->accepts),
		.accepts_max = sane(load->accepts_max),
		.sent_bytes = sane(load->sent_bytes),
		.queue_age_us = sane(load->queue_age_us),
		.fullness = sane(load->fullness),
		.leave_per_ks = sane(load->leave_per_ks),
		.drain_left_ms = sane(load->drain_left_ms),
	};
}

static void take_heartbeat(struct nodes *n, struct node_worker *w,
			   const Stentor__Link__V1__Heartbeat *beat)
{
	w->connections = sane(beat->connections);
	w->draining = beat->draining;
	w->store = beat->store;
	if (beat->config_hash != 0)
		w->config_hash = beat->config_hash;
	if (beat->load != NULL)
		take_load(w, beat->load);
	if (store_differs(n, w->store))
		worker_refuse(n, w);
}

static void take_questions(struct nodes *n, struct node_worker *w,
			   const LinkFrame *f)
{
	if (n->ops->history == NULL || n->ops->tops == NULL)
		return;
	for (size_t i = 0; i < f->n_history_queries; i++)
		n->ops->history(n->ctx, w, f->history_queries[i]);
	for (size_t i = 0; i < f->n_tops_queries; i++)
		n->ops->tops(n->ctx, w, f->tops_queries[i]);
}

static void take_frame(struct nodes *n, struct node_worker *w,
		       const LinkFrame *f, size_t len, uint64_t now_ms)
{
	struct link_header h = link_frame_header(f);
	int rc;

	/* It is about to hear of it, or its silence ends the link. */
	if (w->phase == NODE_WORKER_REFUSED)
		return;
	rc = link_state_receive(&w->link, &h, len, now_ms);
	if (rc == ERR_GAP) {
		n->counters.gaps++;
		/* The worker greets anew at once and so replaces this link; if
		 * it does not hear us, silence ends the link. */
		refuse(n, w, w->link.peer_epoch,
		       STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_RESET,
		       "a frame is missing");
		return;
	}
	if (rc != 0) {
		n->counters.frames_stale++;
		return;
	}
	if (f->heartbeat != NULL)
		take_heartbeat(n, w, f->heartbeat);
	if (w->phase == NODE_WORKER_REFUSED)
		return;
	if (f->interest != NULL)
		take_interest(n, w, f->interest);
	for (size_t i = 0; i < f->n_count_answers; i++)
		n->ops->counted(n->ctx, f->count_answers[i]->id,
				f->count_answers[i]->subscribers);
	take_questions(n, w, f);
	if (f->n_revocations > 0 && n->ops->revocations != NULL)
		n->ops->revocations(n->ctx, f);
	/* An acknowledgement may have brought credit for what waits. */
	if (w->ack_due || w->batch_count > 0 || !linkq_empty(&w->queue))
		nodes_want_flush(n, w);
}

void nodes_receive(struct nodes *n, const void *bytes, size_t len,
		   uint64_t now_ms)
{
	LinkFrame *f = link_frame_decode(&n->arena, bytes, len);
	struct node_worker *w;

	if (f == NULL) {
		n->counters.frames_malformed++;
	} else if (f->hello != NULL) {
		take_hello(n, f, now_ms);
	} else if ((w = nodes_worker(n, f->receiver_epoch)) != NULL) {
		take_frame(n, w, f, len, now_ms);
	} else {
		n->counters.frames_stale++;
	}
	arena_reset(&n->arena);
}

/* --- time -------------------------------------------------------------- */

static void tick_worker(struct nodes *n, struct node_worker *w, uint64_t now_ms)
{
	Stentor__Link__V1__Heartbeat beat = STENTOR__LINK__V1__HEARTBEAT__INIT;
	Stentor__Link__V1__Fleet fleet = STENTOR__LINK__V1__FLEET__INIT;
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;
	struct frame *control;

	if (link_state_dead(&w->link, now_ms)) {
		worker_drop(n, w,
			    w->phase == NODE_WORKER_CONNECTING ? "unreachable"
							       : "silent");
		return;
	}
	if (w->untold && w->phase == NODE_WORKER_READY)
		brief(n, w);
	/* Nothing in sequence before the worker has shown, by its first frame,
	 * that it knows our epoch. */
	if (!w->connected || w->link.rx_seq == 0 || now_ms < w->beat_at_ms ||
	    w->phase == NODE_WORKER_REFUSED)
		return;
	beat.store = n->config.store;
	beat.config_hash = n->config.config_hash;
	if (n->ops->advise != NULL && n->ops->advise(n->ctx, w, &fleet))
		beat.fleet = &fleet;
	f.heartbeat = &beat;
	control = link_control_encode(&f);
	if (nodes_send_in_sequence(n, w, control) == 0)
		w->beat_at_ms = now_ms + LINK_HEARTBEAT_MS;
	frame_release(control);
}

void nodes_tick(struct nodes *n, uint64_t now_ms)
{
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
		if (n->by_id[i] != NULL)
			tick_worker(n, n->by_id[i], now_ms);
	}
	interest_sweep(&n->interest, NODES_SWEEP_SHARDS);
}

bool nodes_settled(const struct nodes *n)
{
	list_for_each (each, &n->nodes) {
		struct node *node = container_of(each, struct node, in_nodes);

		list_for_each (in_node, &node->workers) {
			struct node_worker *w = container_of(
				in_node, struct node_worker, in_node);

			if (w->phase == NODE_WORKER_CONNECTING ||
			    w->phase == NODE_WORKER_SYNCING)
				return false;
		}
	}
	return true;
}

#include "dispatcher/route/nodes_internal.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

typedef Stentor__Link__V1__Interest Interest;

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
	nodes_pool_init(n);
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

void nodes_set_phase(struct nodes *n, struct node_worker *w,
		     enum node_worker_phase phase)
{
	n->in_phase[w->phase]--;
	n->strangers -= nodes_is_stranger(w);
	w->phase = phase;
	n->in_phase[w->phase]++;
	n->strangers += nodes_is_stranger(w);
}

struct node_worker *nodes_worker_new(struct nodes *n, const LinkFrame *f,
				     uint64_t now_ms)
{
	const Hello *hello = f->hello;
	int id = n->worker_count < n->config.workers_max ? free_id(n) : -1;
	struct node_worker *w;

	if (id < 0)
		return NULL;
	w = xcalloc(1, sizeof(*w));
	w->id = (uint16_t)id;
	w->node = node_get(n, hello);
	w->index = hello->worker;
	w->incarnation = hello->incarnation;
	w->started = hello->started;
	w->logs = hello->logs;
	w->connections_max = nodes_sane(hello->connections_max);
	w->config_hash = hello->config_hash;
	w->store = hello->store;
	w->link_address = xstrdup(hello->link_address);
	w->dialed = xstrdup(hello->dialed);
	w->since_wall_ms = n->ops->wall_ms(n->ctx);
	list_init(&w->in_pending);
	list_insert_after(worker_before(w->node, w->index), &w->in_node);
	linkq_init(&w->queue, n->config.queue_bytes, &n->pool);
	behind_init(&w->behind, &n->pool);
	link_state_init(&w->link, random_nonzero(), now_ms);
	w->link.peer_epoch = f->sender_epoch;
	hmap_insert(&n->by_epoch, &w->by_epoch, w->link.epoch);
	n->by_id[id] = w;
	n->worker_count++;
	n->dialling++;
	n->in_phase[w->phase]++;
	return w;
}

static void worker_free(struct nodes *n, struct node_worker *w)
{
	struct node *node = w->node;

	list_remove(&w->in_node);
	list_remove(&w->in_pending);
	hmap_remove(&n->by_epoch, &w->by_epoch);
	n->by_id[w->id] = NULL;
	n->worker_count--;
	n->dialling -= !w->connected;
	n->in_phase[w->phase]--;
	n->strangers -= nodes_is_stranger(w);
	n->under_way -= nodes_under_way(w);
	for (unsigned i = 0; i < w->batch_count; i++)
		linkq_release(&w->queue, w->batch[i]);
	behind_fini(&w->behind);
	linkq_clear(&w->queue);
	linkq_drops_add(&n->dropped, linkq_drops(&w->queue));
	linkq_fini(&w->queue);
	free(w->link_address);
	free(w->dialed);
	free(w);
	node_free_if_empty(node);
}

void nodes_worker_drop(struct nodes *n, struct node_worker *w,
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
	check(n->pool.bytes == 0 && n->pool.firm == 0 && n->under_way == 0);
	arena_fini(&n->displaced);
	arena_fini(&n->arena);
}

/* --- sending ----------------------------------------------------------- */

int nodes_send_frame(struct nodes *n, struct node_worker *w,
		     const struct link_header *h, const struct frame *control,
		     size_t *sent)
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
	int rc = nodes_send_frame(n, w, &h, control, &sent);

	if (rc == 0) {
		link_state_sent(&w->link, sent);
		n->under_way += sent;
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

/* --- frames ------------------------------------------------------------ */

static void nodes_brief(struct nodes *n, struct node_worker *w)
{
	w->untold = false;
	if (n->ops->brief != NULL)
		n->ops->brief(n->ctx, w);
}

/* Keeps a key, or else sends the worker everything: it is told that what it
 * announced stands. False: neither is possible, and its link has ended. */
static bool keep_key(struct nodes *n, struct node_worker *w, uint64_t key)
{
	if (interest_add(&n->interest, key, w->id) != ERR_FULL)
		return true;
	if (interest_make_room(&n->interest))
		return interest_add(&n->interest, key, w->id) != ERR_FULL;
	n->counters.interest_full++;
	if (interest_want_all(&n->interest, w->id) != 0) {
		nodes_refuse(n, w, REFUSED_FOR(FULL));
		return false;
	}
	log_error("INTEREST-FULL",
		  "node=%s worker=%u interest_max=%llu "
		  "what=\"it is sent everything\"",
		  w->node->name, w->index,
		  (unsigned long long)n->config.interest_max);
	return true;
}

bool nodes_interest_fits(const struct nodes *n, const struct node_worker *w)
{
	const struct interest *t = &n->interest;
	uint64_t spare = t->pairs_max / NODES_RENEW_SPARE;

	return t->pairs + w->keys + spare <= t->pairs_max;
}

static void nodes_take_interest(struct nodes *n, struct node_worker *w,
				const Interest *in)
{
	/* Also of one that is refused: it may come back when that fits. */
	w->keys += in->n_add;
	for (size_t i = 0; i < in->n_add; i++) {
		if (!keep_key(n, w, in->add[i]))
			return;
	}
	for (size_t i = 0; i < in->n_remove; i++)
		interest_remove(&n->interest, in->remove[i], w->id);
	w->keys -= min_of(w->keys, (uint64_t)in->n_remove);
	if (in->snapshot_end && w->phase == NODE_WORKER_SYNCING) {
		nodes_set_phase(n, w, NODE_WORKER_READY);
		log_info("WORKER-READY", "node=%s worker=%u channels=%llu",
			 w->node->name, w->index, (unsigned long long)w->keys);
		nodes_brief(n, w);
	}
	w->ack_due = true;
}

static void nodes_take_load(struct node_worker *w,
			    const Stentor__Link__V1__Load *load)
{
	w->load = (struct node_load){
		.accepts = nodes_sane(load->accepts),
		.accepts_max = nodes_sane(load->accepts_max),
		.sent_bytes = nodes_sane(load->sent_bytes),
		.queue_age_us = nodes_sane(load->queue_age_us),
		.fullness = nodes_sane(load->fullness),
		.leave_per_ks = nodes_sane(load->leave_per_ks),
		.drain_left_ms = nodes_sane(load->drain_left_ms),
	};
}

static void nodes_take_heartbeat(struct nodes *n, struct node_worker *w,
				 const Stentor__Link__V1__Heartbeat *beat)
{
	w->connections = nodes_sane(beat->connections);
	w->draining = beat->draining;
	w->store = beat->store;
	if (beat->config_hash != 0)
		w->config_hash = beat->config_hash;
	if (beat->load != NULL)
		nodes_take_load(w, beat->load);
	w->listed_count = beat->n_instances <= NODES_LISTED_MAX
				  ? (unsigned)beat->n_instances
				  : 0;
	for (unsigned i = 0; i < w->listed_count; i++)
		w->listed[i] = beat->instances[i];
	if (nodes_store_differs(n, w->store))
		nodes_refuse(n, w, REFUSED_FOR(STORE));
}

static void nodes_take_questions(struct nodes *n, struct node_worker *w,
				 const LinkFrame *f)
{
	if (n->ops->history == NULL || n->ops->tops == NULL)
		return;
	for (size_t i = 0; i < f->n_history_queries; i++)
		n->ops->history(n->ctx, w, f->history_queries[i]);
	for (size_t i = 0; i < f->n_tops_queries; i++)
		n->ops->tops(n->ctx, w, f->tops_queries[i]);
}

static void nodes_take_frame(struct nodes *n, struct node_worker *w,
			     const LinkFrame *f, size_t len, uint64_t now_ms)
{
	struct link_header h = link_frame_header(f);
	uint64_t under_way = nodes_under_way(w);
	int rc;

	/* It is about to hear of it, or its silence ends the link. */
	if (w->phase == NODE_WORKER_REFUSED)
		return;
	rc = link_state_receive(&w->link, &h, len, now_ms);
	if (rc == ERR_GAP) {
		n->counters.gaps++;
		/* The worker greets anew at once and so replaces this link; if
		 * it does not hear us, silence ends the link. */
		nodes_reset(n, w, "a frame is missing");
		return;
	}
	if (rc != 0) {
		n->counters.frames_stale++;
		return;
	}
	n->under_way -= under_way - nodes_under_way(w);
	if (f->heartbeat != NULL)
		nodes_take_heartbeat(n, w, f->heartbeat);
	if (w->phase == NODE_WORKER_REFUSED)
		return;
	if (f->interest != NULL)
		nodes_take_interest(n, w, f->interest);
	if (w->phase == NODE_WORKER_REFUSED)
		return;
	for (size_t i = 0; i < f->n_count_answers; i++)
		n->ops->counted(n->ctx, f->count_answers[i]->id,
				f->count_answers[i]->subscribers);
	nodes_take_questions(n, w, f);
	if (f->n_revocations > 0 && n->ops->revocations != NULL)
		n->ops->revocations(n->ctx, f);
	/* An acknowledgement may have brought credit for what waits. */
	if (w->ack_due || w->batch_count > 0 || !linkq_empty(&w->queue) ||
	    behind_any(&w->behind))
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
		nodes_take_hello(n, f, now_ms);
	} else if ((w = nodes_worker(n, f->receiver_epoch)) != NULL) {
		nodes_take_frame(n, w, f, len, now_ms);
	} else {
		n->counters.frames_stale++;
	}
	arena_reset(&n->arena);
}

/* --- time -------------------------------------------------------------- */

void nodes_set_peers(struct nodes *n, const uint64_t *peers, unsigned count)
{
	n->peer_count = min_of(count, (unsigned)NODES_PEERS_MAX);
	for (unsigned i = 0; i < n->peer_count; i++)
		n->peers[i] = peers[i];
}

bool nodes_lists(const struct node_worker *w, uint64_t instance)
{
	for (unsigned i = 0; i < w->listed_count; i++) {
		if (w->listed[i] == instance)
			return true;
	}
	return false;
}

bool nodes_lists_all(const struct nodes *n, const struct node_worker *w)
{
	for (unsigned i = 0; i < n->peer_count; i++) {
		if (!nodes_lists(w, n->peers[i]))
			return false;
	}
	return true;
}

/* Ourselves, and the others of our store. */
static size_t fill_instances(const struct nodes *n,
			     uint64_t out[NODES_PEERS_MAX + 1])
{
	if (n->config.instance == 0)
		return 0;
	out[0] = n->config.instance;
	for (unsigned i = 0; i < n->peer_count; i++)
		out[1 + i] = n->peers[i];
	return 1 + n->peer_count;
}

/* One that is refused is greeted seldom. */
static bool nodes_silent(const struct node_worker *w, uint64_t now_ms)
{
	if (w->phase == NODE_WORKER_REFUSED && w->connected)
		return now_ms - w->link.last_rx_ms >= NODES_REFUSED_MS;
	return link_state_dead(&w->link, now_ms);
}

static void tick_worker(struct nodes *n, struct node_worker *w, uint64_t now_ms)
{
	Stentor__Link__V1__Heartbeat beat = STENTOR__LINK__V1__HEARTBEAT__INIT;
	Stentor__Link__V1__Fleet fleet = STENTOR__LINK__V1__FLEET__INIT;
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;
	uint64_t instances[NODES_PEERS_MAX + 1];
	struct frame *control;

	if (nodes_silent(w, now_ms)) {
		nodes_worker_drop(n, w,
				  w->phase == NODE_WORKER_CONNECTING
					  ? "unreachable"
					  : "silent");
		return;
	}
	if (w->untold && w->phase == NODE_WORKER_READY)
		nodes_brief(n, w);
	/* Nothing in sequence before the worker has shown, by its first frame,
	 * that it knows our epoch. */
	if (!w->connected || w->link.rx_seq == 0 || now_ms < w->beat_at_ms ||
	    w->phase == NODE_WORKER_REFUSED)
		return;
	beat.store = n->config.store;
	beat.wall_us = n->ops->wall_ms(n->ctx) * 1000;
	beat.n_instances = fill_instances(n, instances);
	beat.instances = instances;
	beat.config_hash = n->config.config_hash;
	if (n->ops->advise != NULL && n->ops->advise(n->ctx, w, &fleet))
		beat.fleet = &fleet;
	f.heartbeat = &beat;
	control = link_control_encode(&f);
	if (nodes_send_in_sequence(n, w, control) == 0)
		w->beat_at_ms = now_ms + LINK_HEARTBEAT_MS;
	frame_release(control);
}

/* Has one worker that is sent everything greet anew when what it announces
 * fits by now. */
static void renew_interest(struct nodes *n, uint64_t now_ms)
{
	const struct interest *t = &n->interest;

	if (t->all_count == 0 || now_ms < n->renew_at_ms)
		return;
	n->renew_at_ms = now_ms + NODES_RENEW_MS;
	for (unsigned i = 0; i < t->all_count; i++) {
		struct node_worker *w = n->by_id[t->all[i]];

		if (w->phase != NODE_WORKER_READY || !nodes_interest_fits(n, w))
			continue;
		log_info("INTEREST-FITS", "node=%s worker=%u channels=%llu",
			 w->node->name, w->index, (unsigned long long)w->keys);
		nodes_reset(n, w, "what it announces fits now");
		return;
	}
}

void nodes_tick(struct nodes *n, uint64_t now_ms)
{
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
		if (n->by_id[i] != NULL)
			tick_worker(n, n->by_id[i], now_ms);
	}
	interest_sweep(&n->interest, NODES_SWEEP_SHARDS);
	renew_interest(n, now_ms);
}

/* A worker that has positions compares them with a store that no other
 * dispatcher has: if that has gone back, nothing may be appended before. */
static bool compares(const struct nodes *n, const struct node_worker *w)
{
	return w->phase == NODE_WORKER_READY && n->config.store_embedded &&
	       w->logs > 0 && !w->compared;
}

unsigned nodes_awaited(const struct nodes *n)
{
	unsigned count = n->in_phase[NODE_WORKER_SYNCING];

	if (!n->config.store_embedded)
		return count;
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++)
		count += n->by_id[i] != NULL && compares(n, n->by_id[i]);
	return count;
}

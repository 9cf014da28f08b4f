#include "connnode/link/announcer_internal.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

typedef Stentor__Link__V1__HelloAck HelloAck;

/* Before a dispatcher is greeted again that will hardly have us. */
#define REFUSED_MS (10 * LINK_GREET_MS)

void announcer_init(struct announcer *a, struct channels *channels,
		    const struct announcer_identity *identity,
		    const struct announcer_ops *ops, void *ctx)
{
	*a = (struct announcer){
		.channels = channels,
		.ops = ops,
		.ctx = ctx,
		.identity = *identity,
		.load = STENTOR__LINK__V1__LOAD__INIT,
	};
	list_init(&a->upstreams);
	list_init(&a->unannounced);
	arena_init(&a->arena, LINK_DECODED_MAX);
}

/* Nobody is left to be told. */
static void forget_all(struct announcer *a)
{
	struct channels *c = a->channels;
	struct hmap_node *n;

	while ((n = hmap_iterate(&c->by_name, NULL)) != NULL) {
		struct channel *ch = container_of(n, struct channel, by_name);

		list_remove(&ch->unannounced);
		ch->announced = false;
		channels_forget(c, ch);
	}
}

static void upstream_free(struct upstream *u);

void announcer_fini(struct announcer *a)
{
	forget_all(a);
	list_for_each_safe (node, &a->upstreams)
		upstream_free(
			container_of(node, struct upstream, in_announcer));
	arena_fini(&a->arena);
}

struct upstream *announcer_add(struct announcer *a, const char *address)
{
	struct upstream *u = xcalloc(1, sizeof(*u));

	u->address = xstrdup(address);
	u->phase = UPSTREAM_DOWN;
	list_init(&u->queue);
	list_push_back(&a->upstreams, &u->in_announcer);
	return u;
}

static void queue_clear(struct upstream *u)
{
	struct list *node;

	while ((node = list_pop_front(&u->queue)) != NULL) {
		struct upstream_frame *f =
			container_of(node, struct upstream_frame, in_queue);

		frame_release(f->control);
		free(f);
	}
	u->queue_bytes = 0;
	u->mark_count = 0;
	u->snapshot_seq = 0;
}

static void upstream_free(struct upstream *u)
{
	queue_clear(u);
	list_remove(&u->in_announcer);
	free(u->address);
	free(u->own_address);
	free(u->name);
	free(u);
}

/* --- sending ----------------------------------------------------------- */

static int send_frame(struct announcer *a, struct upstream *u,
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
	return a->ops->send(a->ctx, u, pieces, control ? 2 : 1);
}

static int send_in_sequence(struct announcer *a, struct upstream *u,
			    const struct frame *control)
{
	struct link_header h;
	size_t bytes;
	int rc;

	u->link.hold_acks = a->hold_acks;
	h = link_state_next(&u->link);
	rc = send_frame(a, u, &h, control, &bytes);
	if (rc == 0)
		link_state_sent(&u->link, bytes);
	return rc;
}

/* Remembers which sequence number confirms a generation. When too many are
 * under way the newest mark stands for its predecessor: later, never sooner. */
static void mark(struct upstream *u, uint64_t generation)
{
	struct upstream_mark *m;

	if (generation == 0)
		return;
	if (u->mark_count < UPSTREAM_MARKS)
		u->mark_count++;
	m = &u->marks[(u->mark_first + u->mark_count - 1) % UPSTREAM_MARKS];
	*m = (struct upstream_mark){u->link.tx_seq, generation};
}

static void take_acks(struct announcer *a, struct upstream *u)
{
	while (u->mark_count > 0 &&
	       u->marks[u->mark_first].seq <= u->link.peer_ack) {
		u->confirmed = u->marks[u->mark_first].generation;
		u->mark_first = (u->mark_first + 1) % UPSTREAM_MARKS;
		u->mark_count--;
	}
	if (u->snapshot_seq == 0 || u->snapshot_seq > u->link.peer_ack)
		return;
	u->snapshot_seq = 0;
	u->knows_all = true;
	if (a->ops->link_changed != NULL)
		a->ops->link_changed(a->ctx, u, true);
}

/* Memory of a frame that waits: small ones cost more than their bytes. */
static size_t cost(const struct frame *control)
{
	return sizeof(struct upstream_frame) + sizeof(*control) + control->len;
}

static void pump(struct announcer *a, struct upstream *u)
{
	while (!list_empty(&u->queue)) {
		struct upstream_frame *f = container_of(
			u->queue.next, struct upstream_frame, in_queue);

		if (send_in_sequence(a, u, f->control) != 0)
			return;
		mark(u, f->generation);
		if (f->snapshot_end)
			u->snapshot_seq = u->link.tx_seq;
		list_remove(&f->in_queue);
		u->queue_bytes -= cost(f->control);
		frame_release(f->control);
		free(f);
	}
}

/* Takes the frame. */
struct upstream_frame *announcer_enqueue(struct upstream *u,
					 struct frame *control)
{
	struct upstream_frame *f = xcalloc(1, sizeof(*f));

	f->control = control;
	list_push_back(&u->queue, &f->in_queue);
	u->queue_bytes += cost(control);
	return f;
}

static void greet(struct announcer *a, struct upstream *u, uint64_t now_ms)
{
	const struct announcer_identity *id = &a->identity;
	Stentor__Link__V1__Hello hello = STENTOR__LINK__V1__HELLO__INIT;
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;
	struct link_header h = link_state_greeting(&u->link);
	struct frame *control;
	size_t sent;
	int rc;

	hello.protocol = LINK_PROTOCOL;
	hello.node = (char *)id->node;
	hello.worker = id->worker;
	hello.incarnation = id->incarnation;
	hello.link_address =
		u->own_address ? u->own_address : (char *)id->link_address;
	hello.listen_address = (char *)id->listen_address;
	hello.dialed = u->address;
	hello.version = (char *)id->version;
	hello.config_hash = id->config_hash;
	hello.connections_max = id->connections_max;
	hello.token = (char *)id->token;
	hello.store = a->store;
	hello.started = id->started_ms;
	hello.logs = a->logs;
	f.hello = &hello;
	control = link_control_encode(&f);
	rc = send_frame(a, u, &h, control, &sent);
	if (rc != 0 && rc != ERR_AGAIN)
		log_warn("HELLO-FAILED", "dispatcher=%s err=%s", u->address,
			 err_name(rc));
	frame_release(control);
	u->greetings++;
	u->speak_at_ms = now_ms + LINK_GREET_MS;
}

/* --- life of a link ---------------------------------------------------- */

/* While a dispatcher that counts on it is UP, the store is what it is. */
static void forget_store(struct announcer *a)
{
	list_for_each (node, &a->upstreams) {
		const struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (u->phase == UPSTREAM_UP && u->store == a->store)
			return;
	}
	a->store = 0;
}

/* The one place where a phase changes, except for becoming UP. */
static void end_link(struct announcer *a, struct upstream *u,
		     enum upstream_phase phase)
{
	bool lost = u->phase == UPSTREAM_UP;
	struct frame *beat;

	queue_clear(u);
	u->confirmed = 0;
	u->phase = phase;
	u->store = 0;
	u->fleet = (struct fleet_heard){0};
	u->skew = (struct skew){0};
	u->instance = u->peer_count = 0;
	u->knows_all = u->peers_known = false;
	if (!lost)
		return;
	a->counters.links_lost++;
	forget_store(a);
	/* Ahead of any question after tops: whoever answers that one tells us
	 * from now on what this dispatcher appends. */
	beat = announcer_heartbeat(a);
	announcer_tell(a, NULL, beat);
	frame_release(beat);
	if (a->ops->link_changed != NULL)
		a->ops->link_changed(a->ctx, u, false);
}

void announcer_remove(struct announcer *a, struct upstream *u)
{
	end_link(a, u, UPSTREAM_DOWN);
	upstream_free(u);
}

static void restart(struct announcer *a, struct upstream *u, uint64_t now_ms)
{
	end_link(a, u, UPSTREAM_GREETING);
	u->greetings = 0;
	link_state_init(&u->link, random_nonzero(), now_ms);
}

void announcer_own_address(struct upstream *u, const char *link_address)
{
	free(u->own_address);
	u->own_address = xstrdup(link_address);
}

void announcer_connected(struct announcer *a, struct upstream *u,
			 uint64_t now_ms)
{
	restart(a, u, now_ms);
	greet(a, u, now_ms);
}

static void link_down(struct announcer *a, struct upstream *u,
		      const char *reason)
{
	if (u->phase != UPSTREAM_DOWN)
		log_warn("LINK-DOWN", "dispatcher=%s name=%s reason=%s",
			 u->address, u->name ? u->name : "?", reason);
	end_link(a, u, UPSTREAM_DOWN);
}

void announcer_disconnected(struct announcer *a, struct upstream *u)
{
	link_down(a, u, "connection");
}

/* A dispatcher process keeps one link with us, the newest. What still comes by
 * an older one, dialled to another of its addresses, would be out of order. */
static void end_older_links(struct announcer *a, const struct upstream *u,
			    uint64_t now_ms)
{
	list_for_each (node, &a->upstreams) {
		struct upstream *older =
			container_of(node, struct upstream, in_announcer);

		if (older != u && older->phase == UPSTREAM_UP &&
		    memcmp(&older->key, &u->key, sizeof(u->key)) == 0)
			restart(a, older, now_ms);
	}
}

/* Those that had another store than we may have the same now. */
static void greet_refused(struct announcer *a, uint64_t now_ms)
{
	list_for_each (node, &a->upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (u->phase == UPSTREAM_GREETING)
			u->speak_at_ms = now_ms;
	}
}

/* What a dispatcher tells of its store. False: its positions are of another
 * than those we have; the link was ended. */
static bool take_store(struct announcer *a, struct upstream *u, uint64_t store,
		       uint64_t now_ms)
{
	if (store == 0 || store == u->store)
		return true;
	/* The store that we follow was emptied, and has another identity: logs
	 * are looked at as if the link had just come up. */
	if (a->store != 0 && u->store == a->store && u->phase == UPSTREAM_UP &&
	    !announcer_others_follow(a, u)) {
		log_warn("STORE-IDENTITY",
			 "dispatcher=%s name=%s was=%016llx is=%016llx",
			 u->address, u->name, (unsigned long long)a->store,
			 (unsigned long long)store);
		a->store = store;
		greet_refused(a, now_ms);
		if (a->ops->link_changed != NULL)
			a->ops->link_changed(a->ctx, u, true);
	}
	if (a->store != 0 && store != a->store) {
		a->counters.store_refused++;
		log_error("STORE-DIFFERS",
			  "dispatcher=%s name=%s store=%016llx ours=%016llx",
			  u->address, u->name, (unsigned long long)store,
			  (unsigned long long)a->store);
		restart(a, u, now_ms);
		u->speak_at_ms = now_ms + REFUSED_MS;
		return false;
	}
	a->store = u->store = store;
	return true;
}

static void link_up(struct announcer *a, struct upstream *u, const LinkFrame *f,
		    uint64_t now_ms)
{
	const HelloAck *ack = f->hello_ack;

	if (u->phase != UPSTREAM_GREETING ||
	    ack->hash_key.len != sizeof(u->key) || f->sender_epoch == 0) {
		a->counters.frames_stale++;
		return;
	}
	memcpy(&u->key, ack->hash_key.data, sizeof(u->key));
	free(u->name);
	u->name = xstrdup(ack->dispatcher);
	if (!take_store(a, u, ack->store, now_ms))
		return;
	u->instance = ack->instance;
	u->link.peer_epoch = f->sender_epoch;
	u->link.last_rx_ms = now_ms;
	u->phase = UPSTREAM_UP;
	u->speak_at_ms = now_ms;
	end_older_links(a, u, now_ms);
	log_info("LINK-UP", "dispatcher=%s name=%s version=%s", u->address,
		 u->name, ack->version);
	u->config_hash = ack->config_hash;
	if (u->config_hash != a->identity.config_hash)
		log_warn("CONFIG-DIFFERS",
			 "dispatcher=%s name=%s what=\"rules differ from "
			 "ours; a rollout under way?\"",
			 u->address, u->name);
	announcer_snapshot(a, u);
	pump(a, u);
}

static void refused(struct announcer *a, struct upstream *u,
		    const Stentor__Link__V1__Refuse *r, uint64_t now_ms)
{
	log_warn("LINK-REFUSED", "dispatcher=%s reason=%d text=\"%s\"",
		 u->address, (int)r->reason, r->text);
	restart(a, u, now_ms);
	/* A broken sequence is greeted at once, all else after a while. */
	if (r->reason == STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_RESET)
		greet(a, u, now_ms);
	else if (r->reason ==
		 STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_NAME)
		/* The elder may just be ending. */
		u->speak_at_ms = now_ms + 2 * LINK_GREET_MS;
	else
		u->speak_at_ms = now_ms + REFUSED_MS;
}

static void answer_counts(struct announcer *a, struct upstream *u,
			  const LinkFrame *f)
{
	for (size_t i = 0; i < f->n_count_queries; i++) {
		const Stentor__Link__V1__CountQuery *q = f->count_queries[i];
		Stentor__Link__V1__CountAnswer answer =
			STENTOR__LINK__V1__COUNT_ANSWER__INIT;
		Stentor__Link__V1__CountAnswer *answers[1] = {&answer};
		LinkFrame reply = STENTOR__LINK__V1__FRAME__INIT;
		struct channel *ch = channels_find(a->channels, q->channel,
						   strlen(q->channel));

		answer.id = q->id;
		answer.subscribers = ch ? ch->subscribers : 0;
		reply.n_count_answers = 1;
		reply.count_answers = answers;
		announcer_enqueue(u, link_control_encode(&reply));
	}
}

static void take_fleet(struct upstream *u, const Stentor__Link__V1__Fleet *f)
{
	u->fleet = (struct fleet_heard){
		.known = true,
		.takers = f->takers,
		.leave_per_ks = min_of(f->leave_per_ks, FLEET_LEAVE_MAX),
		.surplus = f->surplus,
		.full = f->full,
	};
}

static void take_clock(struct announcer *a, struct upstream *u,
		       uint64_t theirs_us, uint64_t now_ms)
{
	if (theirs_us == 0 || a->ops->wall_us == NULL)
		return;
	if (skew_add(&u->skew, theirs_us, a->ops->wall_us(a->ctx), now_ms))
		log_warn("CLOCK-SKEW",
			 "dispatcher=%s name=%s ahead_ms=%lld what=\"its clock "
			 "differs from ours; taken into account\"",
			 u->address, u->name, (long long)(u->skew.us / 1000));
}

static void take_heartbeat(struct announcer *a, struct upstream *u,
			   const Stentor__Link__V1__Heartbeat *beat,
			   uint64_t now_ms)
{
	if (beat->config_hash != 0)
		u->config_hash = beat->config_hash;
	if (beat->fleet != NULL)
		take_fleet(u, beat->fleet);
	take_clock(a, u, beat->wall_us, now_ms);
	u->peers_known = beat->n_instances <= ANNOUNCER_PEERS_MAX;
	u->peer_count = (unsigned)min_of(beat->n_instances,
					 (size_t)ANNOUNCER_PEERS_MAX);
	for (unsigned i = 0; i < u->peer_count; i++)
		u->peers[i] = beat->instances[i];
}

/* Into our clock's time. Before the first heartbeat, which comes at once, that
 * is not known: what is live was accepted just now, and of what was kept we
 * can't say that it has expired. */
static void take_times(const struct announcer *a, const struct upstream *u,
		       const LinkFrame *f)
{
	bool unknown = u->skew.count == 0 && u->instance != 0 &&
		       a->ops->wall_us != NULL;
	uint64_t now_us = unknown ? a->ops->wall_us(a->ctx) : 0;

	for (size_t i = 0; i < f->n_deliveries; i++) {
		LinkDelivery *d = f->deliveries[i];

		d->published_us =
			unknown ? now_us : skew_ours(&u->skew, d->published_us);
	}
	for (size_t i = 0; i < f->n_history_answers; i++) {
		LinkHistoryAnswer *h = f->history_answers[i];

		for (size_t k = 0; k < h->n_messages; k++) {
			LinkDelivery *d = h->messages[k];

			d->published_us = skew_ours(&u->skew, d->published_us);
			if (unknown)
				d->ttl_ms = 0;
		}
	}
}

static void take_frame(struct announcer *a, struct upstream *u,
		       const LinkFrame *f, size_t len, uint64_t now_ms)
{
	struct link_header h = link_frame_header(f);
	int rc = link_state_receive(&u->link, &h, len, now_ms);

	if (rc == ERR_GAP) {
		a->counters.gaps++;
		log_warn("LINK-GAP", "dispatcher=%s name=%s", u->address,
			 u->name);
		restart(a, u, now_ms);
		greet(a, u, now_ms);
		return;
	}
	if (rc != 0) {
		a->counters.frames_stale++;
		return;
	}
	if (f->heartbeat != NULL &&
	    !take_store(a, u, f->heartbeat->store, now_ms))
		return;
	if (f->heartbeat != NULL)
		take_heartbeat(a, u, f->heartbeat, now_ms);
	take_acks(a, u);
	take_times(a, u, f);
	if (f->n_deliveries > 0)
		a->ops->deliver(a->ctx, f->deliveries, f->n_deliveries);
	if (f->n_history_answers + f->n_tops_answers > 0 &&
	    a->ops->answers != NULL)
		a->ops->answers(a->ctx, f, now_ms);
	if ((f->n_moved > 0 || f->moved_unnamed) && a->ops->moved != NULL)
		a->ops->moved(a->ctx, f);
	if (f->n_revocations > 0 && a->ops->revocations != NULL)
		a->ops->revocations(a->ctx, f);
	if (f->drain != NULL && a->ops->drain != NULL)
		a->ops->drain(a->ctx, f->drain);
	answer_counts(a, u, f);
}

void announcer_receive(struct announcer *a, const void *bytes, size_t len,
		       uint64_t now_ms)
{
	LinkFrame *f = link_frame_decode(&a->arena, bytes, len);
	struct upstream *u = NULL;

	if (f == NULL) {
		a->counters.frames_malformed++;
		arena_reset(&a->arena);
		return;
	}
	list_for_each (node, &a->upstreams) {
		struct upstream *each =
			container_of(node, struct upstream, in_announcer);

		if (each->phase != UPSTREAM_DOWN &&
		    each->link.epoch == f->receiver_epoch)
			u = each;
	}
	if (u == NULL)
		a->counters.frames_stale++;
	else if (f->refuse != NULL)
		refused(a, u, f->refuse, now_ms);
	else if (f->hello_ack != NULL)
		link_up(a, u, f, now_ms);
	else if (u->phase == UPSTREAM_UP)
		take_frame(a, u, f, len, now_ms);
	else
		a->counters.frames_stale++;
	arena_reset(&a->arena);
}

static bool ack_wanted(const struct announcer *a, const struct upstream *u)
{
	return !a->hold_acks && link_state_owed(&u->link) >= LINK_ACK_BYTES;
}

uint64_t announcer_due_ms(const struct announcer *a)
{
	return list_empty(&a->unannounced) ? UINT64_MAX : a->announce_at_ms;
}

void announcer_flush(struct announcer *a, uint64_t now_ms)
{
	if (now_ms >= a->announce_at_ms)
		announcer_announce(a, now_ms);
	list_for_each (node, &a->upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (u->phase != UPSTREAM_UP)
			continue;
		pump(a, u);
		/* A frame without content: its header acknowledges. Pushed
		 * back, the next turn tries again. */
		if (ack_wanted(a, u) && send_in_sequence(a, u, NULL) != 0)
			continue;
	}
}

static void tick_up(struct announcer *a, struct upstream *u, uint64_t now_ms)
{
	struct frame *beat;
	bool full = u->queue_bytes > ANNOUNCER_QUEUE_MAX;

	if (full || link_state_dead(&u->link, now_ms)) {
		link_down(a, u, full ? "queue" : "silent");
		a->ops->redial(a->ctx, u);
		return;
	}
	/* Heartbeats are sent on time even when other frames just were: they
	 * carry the load that the dispatchers show and balance by. */
	if (now_ms < u->speak_at_ms || !list_empty(&u->queue))
		return;
	beat = announcer_heartbeat(a);
	if (send_in_sequence(a, u, beat) == 0)
		u->speak_at_ms = now_ms + LINK_HEARTBEAT_MS;
	frame_release(beat);
}

void announcer_tick(struct announcer *a, uint64_t now_ms)
{
	list_for_each_safe (node, &a->upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (u->phase == UPSTREAM_UP) {
			tick_up(a, u, now_ms);
		} else if (u->phase == UPSTREAM_GREETING &&
			   now_ms >= u->speak_at_ms) {
			if (u->greetings < ANNOUNCER_GREETINGS_MAX) {
				greet(a, u, now_ms);
				continue;
			}
			link_down(a, u, "unanswered");
			a->ops->redial(a->ctx, u);
		}
	}
}

/* --- questions --------------------------------------------------------- */

const struct upstream *announcer_ask(struct announcer *a, struct frame *control,
				     const struct upstream *except)
{
	struct upstream *next = NULL;

	list_for_each (node, &a->upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (u->phase != UPSTREAM_UP)
			continue;
		if (next == NULL || next == except ||
		    (u != except && u->asked < next->asked))
			next = u;
	}
	if (next == NULL)
		return NULL;
	next->asked = ++a->asks;
	announcer_enqueue(next, frame_hold(control));
	return next;
}

void announcer_tell(struct announcer *a, struct upstream *u,
		    struct frame *control)
{
	list_for_each (node, &a->upstreams) {
		struct upstream *each =
			container_of(node, struct upstream, in_announcer);

		if (each->phase == UPSTREAM_UP && (u == NULL || u == each))
			announcer_enqueue(each, frame_hold(control));
	}
}

void announcer_hurry(struct announcer *a)
{
	list_for_each (node, &a->upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (u->phase == UPSTREAM_UP)
			u->speak_at_ms = 0;
	}
}

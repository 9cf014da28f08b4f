/* fleet.h - dispatchers and connection nodes made of the real cores, and the
 * frames between them.
 *
 * Links are real (hello, snapshot, heartbeats, both sides' epochs and
 * sequences) and lose nothing; loss is what sim.c is about. A worker's channels
 * go to the first dispatcher only: the others' tables would be the same, and
 * 100 MB each.
 */
#ifndef STENTOR_TESTS_SIM_SCALE_FLEET_H
#define STENTOR_TESTS_SIM_SCALE_FLEET_H

#include "common/base/mem.h"
#include "common/codec/linkwire.h"
#include "common/ds/limits.h"
#include "connnode/node/load.h"
#include "connnode/node/pace.h"
#include "connnode/stream/comeback.h"
#include "dispatcher/route/fleet.h"
#include "tests/sim/scale/plan.h"
#include "tests/sim/world.h"

#include <sys/uio.h>

#define MATCHES	 64 /* channels that many follow */
#define WORD_MAX 512

struct sim_worker;

/* The worker's side of a link. */
struct sim_link {
	struct sim_worker *worker;
	struct node_worker *peer; /* NULL: down */
	struct link_state state;
	struct fleet_heard heard;
};

/* Interest keys that the first dispatcher has not been told of. */
struct keys {
	uint64_t *key;
	size_t count, cap;
};

enum node_state { NODE_STARTS, NODE_SERVES, NODE_DRAINS, NODE_GONE };

struct sim_worker {
	struct sim_node *node;
	unsigned index;
	struct list streams; /* struct client.in_place, oldest first */
	uint64_t count, begun;
	struct sim_link links[DISPATCHERS_MAX];
	struct fleet_heard heard;
	struct pace pace;
	struct comeback comeback;
	struct limits limits;
	struct load load;
	uint32_t on_match[MATCHES]; /* its streams by channel */
	uint64_t matches;	    /* that are not 0 */
	struct keys add, remove;
};

struct sim_node {
	enum node_state state;
	bool lost;   /* it was killed, and answers nobody */
	bool listed; /* by the load balancer */
	unsigned number, version;
	uint64_t ready_ms; /* when it serves, or did */
	uint64_t drain_ms; /* when it began to drain */
	uint64_t gone_ms;
	uint64_t gave_ms;  /* last time it sent one away to level */
	unsigned episodes; /* of that, since the fleet changed */
	uint64_t begun_second, begun_row; /* streams (report.h) */
	struct sim_worker worker[WORKERS];
};

struct sim_dispatcher {
	struct nodes nodes;
	struct fleet fleet;
	struct sim_link *greeting; /* whose hello is being received */
};

static struct {
	const struct plan *plan;
	struct sim_dispatcher dispatcher[DISPATCHERS_MAX];
	struct sim_node *node[NODES_MAX];
	unsigned nodes, numbered;
	struct arena arena;
} cluster;

static uint64_t node_streams(const struct sim_node *n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < WORKERS; i++)
		sum += n->worker[i].count;
	return sum;
}

static uint64_t node_begun(const struct sim_node *n)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < WORKERS; i++)
		sum += n->worker[i].begun;
	return sum;
}

/* --- what a dispatcher does -------------------------------------------- */

static int on_open(void *ctx, struct node_worker *w)
{
	struct sim_dispatcher *d = ctx;

	w->socket = d->greeting;
	d->greeting->peer = w;
	return 0;
}

static void on_close(void *ctx UNUSED, struct node_worker *w)
{
	((struct sim_link *)w->socket)->peer = NULL;
	w->socket = NULL;
}

static void worker_hears(struct sim_link *link, const LinkFrame *f, size_t len)
{
	struct link_header h = link_frame_header(f);
	const Stentor__Link__V1__Fleet *fleet;

	if (f->hello_ack != NULL) {
		link->state.peer_epoch = h.sender_epoch;
		return;
	}
	if (link_state_receive(&link->state, &h, len, world.now_ms) != 0)
		fail("a frame to a worker is out of sequence");
	fleet = f->heartbeat != NULL ? f->heartbeat->fleet : NULL;
	if (fleet == NULL)
		return;
	link->heard = (struct fleet_heard){
		.known = true,
		.takers = fleet->takers,
		.leave_per_ks = fleet->leave_per_ks,
		.surplus = fleet->surplus,
		.full = fleet->full,
	};
}

static int on_send(void *ctx UNUSED, struct node_worker *w,
		   const struct iovec *pieces, size_t count)
{
	struct sim_link *link = w->socket;
	uint8_t bytes[WORD_MAX];
	size_t len = 0;
	LinkFrame *f;

	if (link->worker->node->lost)
		return 0;
	for (size_t i = 0; i < count; i++) {
		check(len + pieces[i].iov_len <= sizeof(bytes));
		if (pieces[i].iov_len > 0)
			memcpy(bytes + len, pieces[i].iov_base,
			       pieces[i].iov_len);
		len += pieces[i].iov_len;
	}
	f = link_frame_decode(&cluster.arena, bytes, len);
	check(f != NULL);
	worker_hears(link, f, len);
	arena_reset(&cluster.arena);
	return 0;
}

static bool on_advise(void *ctx, const struct node_worker *w, FleetWord *word)
{
	const struct fleet *f = &((struct sim_dispatcher *)ctx)->fleet;
	bool knows = fleet_sighted(f);

	if (knows)
		fleet_advise(f, w, word);
	return knows;
}

static uint64_t on_wall(void *ctx UNUSED)
{
	return world.now_ms;
}

static const struct nodes_ops nodes_ops = {
	.open = on_open,
	.close = on_close,
	.send = on_send,
	.advise = on_advise,
	.wall_ms = on_wall,
};

static void dispatcher_tick(struct sim_dispatcher *d)
{
	fleet_look(&d->fleet, &d->nodes, world.now_ms);
	nodes_tick(&d->nodes, world.now_ms);
	nodes_flush(&d->nodes, world.now_ms);
}

/* --- what a worker sends ----------------------------------------------- */

static void link_send(struct sim_dispatcher *d, struct sim_link *link,
		      const struct link_header *h, const struct frame *content)
{
	uint8_t bytes[LINK_HEADER_MAX + 8 * 4096 + 256];
	size_t len = link_header_encode(bytes, h);

	check(len + content->len <= sizeof(bytes));
	memcpy(bytes + len, content->bytes, content->len);
	len += content->len;
	if (h->seq != 0)
		link_state_sent(&link->state, len);
	nodes_receive(&d->nodes, bytes, len, world.now_ms);
}

static void link_speak(struct sim_dispatcher *d, struct sim_link *link,
		       const struct frame *content)
{
	struct link_header h = link_state_next(&link->state);

	link_send(d, link, &h, content);
}

static void link_greet(struct sim_dispatcher *d, struct sim_link *link)
{
	const struct sim_worker *w = link->worker;
	Stentor__Link__V1__Hello hello = STENTOR__LINK__V1__HELLO__INIT;
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;
	struct link_header h;
	struct frame *content;
	char name[24];

	snprintf(name, sizeof(name), "node-%u", w->node->number);
	link_state_init(&link->state, random_nonzero(), world.now_ms);
	link->heard = (struct fleet_heard){0};
	hello.protocol = LINK_PROTOCOL;
	hello.node = name;
	hello.worker = w->index;
	hello.incarnation = 1 + world.now_ms;
	hello.connections_max = cluster.plan->connections_max / WORKERS;
	hello.link_address = hello.dialed = (char *)"tcp://w:1";
	f.hello = &hello;
	content = link_control_encode(&f);
	h = link_state_greeting(&link->state);
	d->greeting = link;
	link_send(d, link, &h, content);
	frame_release(content);
	if (link->peer == NULL)
		fail("a worker was refused");
	nodes_connected(&d->nodes, link->peer, world.now_ms);
}

/* Frames of an interest; `snapshot` if the last one ends one. */
static void link_interest(struct sim_dispatcher *d, struct sim_link *link,
			  struct keys *add, struct keys *remove, bool snapshot)
{
	size_t added = 0, removed = 0;

	do {
		Stentor__Link__V1__Interest in =
			STENTOR__LINK__V1__INTEREST__INIT;
		LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;
		struct frame *content;

		in.n_add = min_of(add->count - added, (size_t)2048);
		in.add = add->key + added;
		in.n_remove = min_of(remove->count - removed, (size_t)2048);
		in.remove = remove->key + removed;
		added += in.n_add;
		removed += in.n_remove;
		in.snapshot_end = snapshot && added == add->count;
		f.interest = &in;
		content = link_control_encode(&f);
		link_speak(d, link, content);
		frame_release(content);
	} while (added < add->count || removed < remove->count);
	add->count = remove->count = 0;
}

static void key_put(struct keys *keys, uint64_t key)
{
	if (keys->count == keys->cap) {
		keys->cap = max_of(2 * keys->cap, (size_t)64);
		keys->key = xrealloc(keys->key, keys->cap * sizeof(*keys->key));
	}
	keys->key[keys->count++] = key;
}

static void worker_announces(struct sim_worker *w)
{
	if (!w->node->lost && w->add.count + w->remove.count > 0)
		link_interest(&cluster.dispatcher[0], &w->links[0], &w->add,
			      &w->remove, false);
}

static void worker_beats(struct sim_worker *w)
{
	Stentor__Link__V1__Heartbeat beat = STENTOR__LINK__V1__HEARTBEAT__INIT;
	Stentor__Link__V1__Load load = STENTOR__LINK__V1__LOAD__INIT;
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;
	struct frame *content;

	load.accepts = w->load.accepts;
	load.accepts_max = w->load.limits.accepts;
	load.fullness = w->load.fullness;
	load.leave_per_ks = w->pace.per_ks;
	load.drain_left_ms = pace_left_ms(&w->pace, world.now_ms);
	beat.connections = w->count;
	beat.draining = w->pace.draining;
	beat.load = &load;
	f.heartbeat = &beat;
	content = link_control_encode(&f);
	worker_announces(w);
	for (unsigned i = 0; i < cluster.plan->dispatchers; i++)
		link_speak(&cluster.dispatcher[i], &w->links[i], content);
	frame_release(content);
}

static void worker_listens(struct sim_worker *w)
{
	w->heard = (struct fleet_heard){0};
	for (unsigned i = 0; i < cluster.plan->dispatchers; i++)
		fleet_heard_add(&w->heard, &w->links[i].heard);
}

/* --- life of a node ---------------------------------------------------- */

static void worker_init(struct sim_worker *w, struct sim_node *node,
			unsigned index)
{
	const struct plan *plan = cluster.plan;
	struct load_limits limits = {
		.streams = plan->connections_max / WORKERS,
		.accepts = plan->rate_max,
	};

	w->node = node;
	w->index = index;
	list_init(&w->streams);
	pace_init(&w->pace, world.now_ms);
	comeback_init(&w->comeback, RETRY_WINDOW_MS, world.now_ms);
	limits_init(&w->limits, 0, plan->rate_max, world.now_ms);
	load_init(&w->load, &limits, world.now_ms);
	for (unsigned i = 0; i < plan->dispatchers; i++)
		w->links[i].worker = w;
}

/* A new node; it serves from `ready_ms` on. */
static void node_add(uint64_t ready_ms, unsigned version)
{
	struct sim_node *n = xcalloc(1, sizeof(*n));

	if (cluster.nodes == NODES_MAX)
		fail("too many nodes");
	n->number = cluster.numbered++;
	n->version = version;
	n->ready_ms = ready_ms;
	cluster.node[cluster.nodes++] = n;
}

static void fleet_changes(void)
{
	for (unsigned i = 0; i < cluster.nodes; i++)
		cluster.node[i]->episodes = 0;
}

static void node_serve(struct sim_node *n)
{
	struct keys none = {0};

	fleet_changes();
	n->state = NODE_SERVES;
	for (unsigned i = 0; i < WORKERS; i++) {
		struct sim_worker *w = &n->worker[i];

		worker_init(w, n, i);
		for (unsigned j = 0; j < cluster.plan->dispatchers; j++) {
			link_greet(&cluster.dispatcher[j], &w->links[j]);
			link_interest(&cluster.dispatcher[j], &w->links[j],
				      &none, &none, true);
		}
	}
	trace("node %llu serves", n->number);
}

static void node_drain(struct sim_node *n)
{
	n->state = NODE_DRAINS;
	n->drain_ms = world.now_ms;
	for (unsigned i = 0; i < WORKERS; i++) {
		pace_drain(&n->worker[i].pace, world.now_ms,
			   cluster.plan->drain_ms);
		worker_beats(&n->worker[i]);
	}
	trace("node %llu drains %llu streams", n->number, node_streams(n));
}

/* Its processes end in order, or are lost without a word. All streams have left
 * already. */
static void node_end(struct sim_node *n)
{
	trace(n->lost ? "node %llu is lost" : "node %llu ends", n->number);
	check(node_streams(n) == 0);
	fleet_changes();
	n->state = NODE_GONE;
	n->gone_ms = world.now_ms;
	for (unsigned i = 0; i < WORKERS && !n->lost; i++) {
		for (unsigned j = 0; j < cluster.plan->dispatchers; j++)
			nodes_disconnected(&cluster.dispatcher[j].nodes,
					   n->worker[i].links[j].peer);
	}
}

static bool node_forgotten(const struct sim_node *n)
{
	for (unsigned i = 0; i < WORKERS; i++) {
		for (unsigned j = 0; j < cluster.plan->dispatchers; j++) {
			if (n->worker[i].links[j].peer != NULL)
				return false;
		}
	}
	return n->state == NODE_GONE && !n->listed;
}

static void node_free(struct sim_node *n)
{
	for (unsigned i = 0; i < WORKERS; i++) {
		struct sim_worker *w = &n->worker[i];

		if (w->node != NULL)
			limits_fini(&w->limits);
		free(w->add.key);
		free(w->remove.key);
	}
	free(n);
}

static void nodes_sweep(void)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < cluster.nodes; i++) {
		if (node_forgotten(cluster.node[i]))
			node_free(cluster.node[i]);
		else
			cluster.node[kept++] = cluster.node[i];
	}
	cluster.nodes = kept;
}

/* --- the whole --------------------------------------------------------- */

static void cluster_begin(const struct plan *plan)
{
	struct nodes_config config = {
		.name = "d",
		.version = "",
		.token = "",
		.workers_max = 2048,
		.queue_bytes = 1u << 20,
		.interest_max = 20000000,
	};
	struct fleet_config fleet = {
		.rebalance = true,
		.margin_percent = 15,
		.rate_permille = 5,
		.calm_ms =
			getenv("CALM") ? (uint64_t)atoi(getenv("CALM")) : 30000,
	};

	memset(&cluster, 0, sizeof(cluster));
	cluster.plan = plan;
	arena_init(&cluster.arena, LINK_DECODED_MAX);
	for (unsigned i = 0; i < plan->dispatchers; i++) {
		struct sim_dispatcher *d = &cluster.dispatcher[i];

		nodes_init(&d->nodes, &config, &nodes_ops, d);
		fleet_init(&d->fleet, &fleet, world.now_ms);
	}
}

static void cluster_end(void)
{
	for (unsigned i = 0; i < cluster.plan->dispatchers; i++)
		nodes_fini(&cluster.dispatcher[i].nodes);
	for (unsigned i = 0; i < cluster.nodes; i++)
		node_free(cluster.node[i]);
	arena_fini(&cluster.arena);
}

#endif

/* cluster.h - dispatchers made of the real pure cores, and the whole: with the
 * workers (workers.h) and what they are owed (tracks.h), the network (net.h), the
 * store (store.h) and what dispatchers tell one another by it (news.h).
 *
 * What links.c, storage.c, uplink.c, intake.c and worker.c do in the programs
 * is done here and in workers.h, in the same order, without a loop: a process
 * takes a turn when something reached it, when its tick is due or when
 * nodes_flush() asked for one.
 *
 * A cluster may have, in some runs, for all their time: queues too small for
 * what is published; workers that some dispatchers, or all, can't dial back;
 * one dispatcher of another store, and workers that follow that because they
 * met it first; "moved" that workers don't hear, or news that are forgotten,
 * which only the sweep can mend.
 */
#ifndef STENTOR_TESTS_SIM_CLUSTER_H
#define STENTOR_TESTS_SIM_CLUSTER_H

#include "tests/sim/workers.h"

#define STRAY_MS 5000 /* the dispatcher of another store is started after */

/* --- dispatcher -------------------------------------------------------- */

static int on_dispatcher_open(void *ctx, struct node_worker *w)
{
	struct sim_dispatcher *d = ctx;

	struct wire *wire =
		wire_open(&d->process, process_at(w->link_address), w);

	wire->barred = d->barred[w->index];
	w->socket = wire;
	return 0;
}

static void on_dispatcher_close(void *ctx UNUSED, struct node_worker *w)
{
	wire_close(w->socket);
	w->socket = NULL;
}

static int on_dispatcher_send(void *ctx UNUSED, struct node_worker *w,
			      const struct iovec *pieces, size_t count)
{
	return wire_send(w->socket, pieces, count);
}

static void on_dispatcher_counted(void *ctx, uint64_t id, uint64_t subscribers)
{
	struct sim_dispatcher *d = ctx;

	counts_answer(&d->counts, id, subscribers);
}

static uint64_t on_dispatcher_wall(void *ctx UNUSED)
{
	return world.now_ms;
}

static void on_dispatcher_history(void *ctx, struct node_worker *w,
				  const HistoryQuery *query)
{
	history_ask(&((struct sim_dispatcher *)ctx)->history, w, query);
}

static void on_dispatcher_tops(void *ctx, struct node_worker *w,
			       const TopsQuery *query)
{
	history_ask_tops(&((struct sim_dispatcher *)ctx)->history, w, query);
}

static void on_append(void *ctx, struct store_append *a)
{
	store_submit(((struct sim_dispatcher *)ctx)->index, SIM_APPEND, a);
}

static void on_read(void *ctx, struct store_read *r)
{
	store_submit(((struct sim_dispatcher *)ctx)->index, SIM_READ, r);
}

static void on_read_tops(void *ctx, struct store_tops *t)
{
	store_submit(((struct sim_dispatcher *)ctx)->index, SIM_TOPS, t);
}

static void on_doubt(void *ctx, const char *channel)
{
	moves_doubt(&((struct sim_dispatcher *)ctx)->moves, channel);
}

/* Sometimes a dispatcher knows that the store is down. */
static const char *on_fault(void *ctx)
{
	const struct sim_dispatcher *d = ctx;

	if (nodes_outvoted(&d->nodes))
		return "another store is in use by the cluster";
	return world.now_ms < store.down_until_ms && chance(500) ? "down"
								 : NULL;
}

static const struct nodes_ops dispatcher_ops = {
	.open = on_dispatcher_open,
	.close = on_dispatcher_close,
	.send = on_dispatcher_send,
	.history = on_dispatcher_history,
	.tops = on_dispatcher_tops,
	.counted = on_dispatcher_counted,
	.wall_ms = on_dispatcher_wall,
};

static void dispatcher_receive(struct process *p, const struct process *from,
			       const uint8_t *bytes, size_t len)
{
	struct sim_dispatcher *d =
		container_of(p, struct sim_dispatcher, process);

	if (from != NULL)
		d->heard_ms[container_of(from, struct sim_worker, process)
				    ->index] = world.now_ms;
	nodes_receive(&d->nodes, bytes, len, world.now_ms);
}

static void dispatcher_event(struct process *p, void *owner, bool up)
{
	struct sim_dispatcher *d =
		container_of(p, struct sim_dispatcher, process);
	struct node_worker *w = owner;

	trace(up ? "d%llu: socket to w%llu up" : "d%llu: socket to w%llu down",
	      d->index, w->index);
	if (up)
		nodes_connected(&d->nodes, w, world.now_ms);
	else
		nodes_disconnected(&d->nodes, w);
}

static void dispatcher_start(struct sim_dispatcher *d)
{
	struct nodes_config config = {
		.name = d->process.name,
		.version = "",
		.token = "",
		.instance = d->index + 1 + 10 * (d->process.instance + 1),
		.workers_max = ENTRIES_MAX,
		.queue_bytes = cluster.queue_bytes,
		.interest_max = 10 * WORKERS_MAX * CHANNELS,
	};
	const struct publish_store appends = {
		.append = on_append,
		.fault = on_fault,
		.ctx = d,
		.doubt = on_doubt,
	};
	const struct history_store reads = {
		.read = on_read,
		.tops = on_read_tops,
		.fault = on_fault,
		.ctx = d,
	};

	d->process.alive = true;
	d->process.instance++;
	d->tick_ms = d->started_ms = world.now_ms;
	d->again_ms = NEVER;
	nodes_init(&d->nodes, &config, &dispatcher_ops, d);
	nodes_set_store(&d->nodes, STORE_ID + d->store);
	publisher_init(&d->publisher, &d->nodes, &rules, 64u << 10, &appends);
	history_init(&d->history, &d->nodes, &reads);
	counts_init(&d->counts, &d->nodes);
	moves_init(&d->moves, &d->nodes, &rules, &reads);
	news_open(d->index, d->store, config.instance, &d->moves);
	trace("d%llu: starts, instance %llu", d->index, d->process.instance);
}

static void dispatcher_stop(struct sim_dispatcher *d)
{
	trace("d%llu: dies", d->index);
	cluster.total.links += d->nodes.counters.links_lost;
	history_close(&d->history);
	moves_close(&d->moves);
	store_forsake(d->index);
	news_close(d->index, chance(300));
	publisher_fini(&d->publisher);
	moves_fini(&d->moves);
	history_fini(&d->history);
	nodes_fini(&d->nodes);
	d->process.alive = d->process.busy = false;
}

static void dispatcher_turn(struct sim_dispatcher *d)
{
	bool tick = world.now_ms >= d->tick_ms;

	d->process.busy |= store_step(d->index);
	d->process.busy |= news_step(d->index);
	if (!tick && !d->process.busy && world.now_ms < d->again_ms)
		return;
	d->process.busy = false;
	if (tick) {
		d->tick_ms = world.now_ms + TICK_MS;
		nodes_tick(&d->nodes, world.now_ms);
		counts_tick(&d->counts, world.now_ms);
		moves_tick(&d->moves);
		news_report(d->index);
		if (world.now_ms - d->started_ms >= SETTLE_MS &&
		    nodes_settled(&d->nodes))
			d->publisher.open = true;
	}
	d->again_ms = NEVER;
	if (nodes_flush(&d->nodes, world.now_ms))
		d->again_ms = world.now_ms + 1;
}

/* --- the whole --------------------------------------------------------- */

/* Whether a dispatcher sends a channel's messages to a worker. */
static bool routed(const struct sim_dispatcher *d,
		   const struct node_worker *side, unsigned channel)
{
	const char *name = channel_names[channel];
	uint64_t key = hash_bytes(&d->nodes.key, name, strlen(name));
	const uint16_t *ids;
	size_t count = interest_lookup(&d->nodes.interest, key, &ids);

	for (size_t i = 0; i < count; i++) {
		if (ids[i] == side->id)
			return true;
	}
	return false;
}

/* The dispatcher's side of a link that both sides hold to be up, or NULL. */
static struct node_worker *linked(struct sim_dispatcher *d,
				  struct sim_worker *w)
{
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
		struct node_worker *side = d->nodes.by_id[i];

		if (side == NULL || side->index != w->index ||
		    side->phase != NODE_WORKER_READY)
			continue;
		list_for_each (node, &w->announcer.upstreams) {
			struct upstream *u = container_of(node, struct upstream,
							  in_announcer);

			if (u->phase == UPSTREAM_UP &&
			    u->link.epoch == side->link.peer_epoch &&
			    u->link.peer_epoch == side->link.epoch)
				return side;
		}
	}
	return NULL;
}

/* Whoever is told that a subscription stands must be in the table of every
 * dispatcher that the worker holds a link to, unless that link is lost and the
 * worker does not know it yet. */
static void check_promise(const struct sim_worker *w, unsigned channel)
{
	list_for_each (node, &w->announcer.upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);
		struct sim_dispatcher *d = container_of(
			process_at(u->address), struct sim_dispatcher, process);

		if (u->phase != UPSTREAM_UP || !d->process.alive)
			continue;
		for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
			const struct node_worker *side = d->nodes.by_id[i];

			if (side != NULL &&
			    side->link.epoch == u->link.peer_epoch &&
			    !routed(d, side, channel))
				fail("w%u: ready on %s, which d%u can't route",
				     w->index, channel_names[channel],
				     d->index);
		}
	}
}

/* From now on each ready subscriber whose link stands must get it. */
static void expect_message(struct sim_dispatcher *d, unsigned channel)
{
	for (unsigned i = 0; i < cluster.workers; i++) {
		struct sim_worker *w = &cluster.worker[i];
		const struct node_worker *side;

		if (!w->process.alive || w->on_channel[channel] == 0 ||
		    (side = linked(d, w)) == NULL)
			continue;
		list_for_each (node, &w->subscribers) {
			struct subscriber *s = container_of(
				node, struct subscriber, in_worker);
			struct feed *f = &s->feeds[d->index];

			if (s->channel != channel || !s->ready)
				continue;
			if (f->instance != d->process.instance)
				feed_clear(f);
			f->instance = d->process.instance;
			feed_expect(f, side->link.epoch, d->publisher.accepted);
		}
	}
}

static void on_published(void *ctx, const struct publish_result *r)
{
	struct place place = {r->place.epoch, r->place.offset};
	unsigned number;

	if (r->code != GRPC_OK)
		return;
	number = number_of(channel_number(ctx), place.epoch);
	if (number == LOGS || message_at(number, place) == NULL)
		fail("%s: acknowledged at %llu:%llu, which never was",
		     (const char *)ctx, (unsigned long long)place.epoch,
		     (unsigned long long)place.offset);
	message_at(number, place)->owed = true;
	trace("%llu:%llu is acknowledged", place.epoch, place.offset);
}

static void publish(struct sim_dispatcher *d, unsigned channel, size_t len)
{
	static char data[64u << 10];
	Stentor__V1__PublishRequest q = STENTOR__V1__PUBLISH_REQUEST__INIT;
	struct publish_result r;
	int head = snprintf(data, sizeof(data), "%u%llu ", d->index,
			    (unsigned long long)d->process.instance);

	len = max_of(len, (size_t)head);
	memset(data + head, 'x', len - (size_t)head);
	data[len] = '\0';
	q.channel = (char *)channel_names[channel];
	q.data = data;
	d->process.busy = true;
	if (!publish_message(&d->publisher, &q, world.now_ms * 1000, &r,
			     on_published, (void *)channel_names[channel]))
		return;
	trace("d%llu: publish %llu on channel %llu, code %llu", d->index,
	      d->publisher.accepted, channel, r.code);
	if (r.code == GRPC_OK && !cluster.drops)
		expect_message(d, channel);
}

static void cluster_turn(void)
{
	net_step();
	for (unsigned i = 0; i < cluster.workers; i++) {
		if (cluster.worker[i].process.alive)
			worker_turn(&cluster.worker[i]);
	}
	for (unsigned i = 0; i < cluster.dispatchers; i++) {
		if (cluster.dispatcher[i].process.alive)
			dispatcher_turn(&cluster.dispatcher[i]);
	}
}

/* In some runs some workers can't be dialled by some dispatchers, or by any. */
static void draw_barred(void)
{
	unsigned rate = sweep_may_find() || chance(300) ? 250 : 0;

	for (unsigned i = 0; i < cluster.dispatchers * cluster.workers; i++) {
		struct sim_dispatcher *d =
			&cluster.dispatcher[i / cluster.workers];

		d->barred[i % cluster.workers] = chance(rate);
		cluster.barred |= d->barred[i % cluster.workers];
	}
}

static void cluster_begin(void)
{
	net_init();
	news_begin();
	store_begin();
	memset(&cluster, 0, sizeof(cluster));
	cluster.dispatchers = 1 + (unsigned)below(DISPATCHERS_MAX);
	cluster.workers = 1 + (unsigned)below(WORKERS_MAX);
	cluster.alias = chance(250);
	cluster.tight = chance(150);
	cluster.drops = cluster.tight || chance(150);
	cluster.queue_bytes = cluster.tight   ? QUEUE_TIGHT
			      : cluster.drops ? QUEUE_NARROW
					      : QUEUE_BYTES;
	cluster.held_bytes = chance(300) ? HELD_FEW : HELD_BYTES;
	cluster.quiet = chance(150);
	cluster.stray = cluster.dispatchers > 2 && chance(300);
	cluster.marks_loss = chance(100) ? 300 : 0;
	/* Without it all that is lacking must be found by what links, marks and
	 * other dispatchers tell. */
	cluster.sweep_ms =
		sweep_may_find() || chance(500) ? SWEEP_MS : SWEEP_NEVER;
	draw_barred();
	for (unsigned i = 0; i < cluster.dispatchers; i++) {
		struct sim_dispatcher *d = &cluster.dispatcher[i];

		d->index = i;
		snprintf(d->process.name, PROCESS_NAME, "d%u", i);
		d->process.receive = dispatcher_receive;
		d->process.event = dispatcher_event;
		/* The stray one comes later, mostly: who follows which store is
		 * settled by then, but for workers that are started again. */
		d->store = cluster.stray && i == cluster.dispatchers - 1;
		if (d->store == 0 || chance(300))
			dispatcher_start(d);
		else
			d->dead_until_ms = world.now_ms + STRAY_MS;
	}
	for (unsigned i = 0; i < cluster.workers; i++) {
		struct sim_worker *w = &cluster.worker[i];

		w->index = i;
		snprintf(w->process.name, PROCESS_NAME, "w%u", i);
		snprintf(w->address, sizeof(w->address), "tcp://w%u", i);
		/* Two workers a node, so that nodes have several. */
		snprintf(w->node, sizeof(w->node), "node%u", i / 2);
		w->process.receive = worker_receive;
		w->process.event = worker_event;
		worker_start(w);
	}
}

static void cluster_end(void)
{
	for (unsigned i = 0; i < cluster.workers; i++)
		worker_stop(&cluster.worker[i]);
	for (unsigned i = 0; i < cluster.dispatchers; i++)
		dispatcher_stop(&cluster.dispatcher[i]);
	store_end();
	net_fini();
}

#endif

/* scenario.h - a match day: what happens, and in which order. */
#ifndef STENTOR_TESTS_SIM_SCALE_SCENARIO_H
#define STENTOR_TESTS_SIM_SCALE_SCENARIO_H

#include "tests/sim/scale/autoscaler.h"
#include "tests/sim/scale/clients.h"

#include <time.h>

#define BEAT_STEPS  (LINK_HEARTBEAT_MS / STEP_MS)
#define CHECK_STEPS 100
#define SETTLE_MS   (3 * MINUTE)
#define RESET_MS    1000 /* within which clients of a lost node notice */

static struct {
	uint64_t steps;
	uint64_t entries, bytes; /* of the routing table, at most */
	uint64_t links_bytes;	 /* of its workers, then */
	double snapshot_ms;	 /* of a node, CPU */
	uint64_t snapshot_keys;
} day;

/* --- a worker's tick --------------------------------------------------- */

static void send_away(struct sim_worker *w, uint64_t due)
{
	uint64_t count = min_of(due, w->count);

	if (count == 0)
		return;
	if (w->pace.draining)
		report_drained(count, due == UINT64_MAX);
	else
		report_given(w->node, count);
	while (count-- > 0) {
		struct client *c =
			container_of(w->streams.next, struct client, in_place);

		c->retry_ms = worker_retry_ms();
		client_drop(c, 0);
	}
}

static void worker_tick(struct sim_worker *w)
{
	unsigned turn = w->node->number * WORKERS + w->index;

	worker_listens(w);
	send_away(w, pace_due(&w->pace, world.now_ms, w->count, &w->heard));
	load_look(&w->load, world.now_ms, w->count, w->begun, 0, 0);
	if ((day.steps + turn) % BEAT_STEPS == 0)
		worker_beats(w);
}

static void node_tick(struct sim_node *n)
{
	if (n->state != NODE_SERVES && n->state != NODE_DRAINS)
		return;
	for (unsigned i = 0; i < WORKERS; i++)
		worker_tick(&n->worker[i]);
	if (n->state == NODE_DRAINS && node_streams(n) == 0) {
		report_drain_over(n);
		node_end(n);
	}
}

/* --- the routing table ------------------------------------------------- */

/* It says exactly who has subscribers, but for what is still to be told. */
static void check_table(void)
{
	struct interest *t = &cluster.dispatcher[0].nodes.interest;

	for (unsigned i = 0; i < cluster.nodes; i++) {
		for (unsigned k = 0; k < WORKERS; k++) {
			const struct sim_worker *w =
				&cluster.node[i]->worker[k];
			const struct node_worker *peer = w->links[0].peer;

			if (peer != NULL && !cluster.node[i]->lost &&
			    interest_worker_entries(t, peer->id) +
					    w->add.count !=
				    w->count + w->matches + w->remove.count)
				fail("the table is wrong about node %u worker "
				     "%u",
				     cluster.node[i]->number, k);
		}
	}
	if (interest_entries(t) < day.entries)
		return;
	day.entries = interest_entries(t);
	day.bytes = interest_bytes(t);
	day.links_bytes = cluster.dispatcher[0].nodes.worker_count *
			  sizeof(struct node_worker);
}

static double cpu_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* Breaks a worker's link and makes it anew, with all its channels. */
static void worker_snapshot(struct sim_worker *w)
{
	struct sim_dispatcher *d = &cluster.dispatcher[0];
	char own[CHANNEL_NAME_SIZE];
	double begun;

	w->add.count = w->remove.count = 0;
	list_for_each (node, &w->streams) {
		own_name(own, number_of(container_of(node, struct client,
						     in_place)));
		announce(&w->add, own);
	}
	for (unsigned i = 0; i < MATCHES; i++) {
		if (w->on_match[i] > 0)
			announce(&w->add, messages.name[i]);
	}
	day.snapshot_keys += w->add.count;
	begun = cpu_ms();
	nodes_disconnected(&d->nodes, w->links[0].peer);
	link_greet(d, &w->links[0]);
	link_interest(d, &w->links[0], &w->add, &w->remove, true);
	day.snapshot_ms += cpu_ms() - begun;
}

static void node_snapshot(void)
{
	struct sim_node *n = cluster.node[0];

	check(n->state == NODE_SERVES);
	for (unsigned i = 0; i < WORKERS; i++)
		worker_snapshot(&n->worker[i]);
}

/* --- time -------------------------------------------------------------- */

static void step(void)
{
	world.now_ms += STEP_MS;
	day.steps++;
	messages_tick();
	clients_tick();
	for (unsigned i = 0; i < cluster.nodes; i++)
		node_tick(cluster.node[i]);
	for (unsigned i = 0; i < cluster.plan->dispatchers; i++)
		dispatcher_tick(&cluster.dispatcher[i]);
	balancer_tick();
	nodes_sweep();
	autoscaler_tick();
	if (day.steps % CHECK_STEPS == 0)
		check_table();
	report_tick(clients.present, autoscaler.replicas);
}

static void run_ms(uint64_t ms)
{
	uint64_t end_ms = world.now_ms + ms;

	while (world.now_ms < end_ms)
		step();
}

/* False: it took longer. */
static bool run_until(bool (*over)(void), uint64_t ms)
{
	uint64_t end_ms = world.now_ms + ms;

	while (world.now_ms < end_ms) {
		step();
		if (over())
			return true;
	}
	return false;
}

/* --- what happens ------------------------------------------------------ */

static void node_lose(struct sim_node *n)
{
	n->lost = true;
	for (unsigned i = 0; i < WORKERS; i++) {
		struct sim_worker *w = &n->worker[i];

		while (!list_empty(&w->streams))
			client_drop(container_of(w->streams.next, struct client,
						 in_place),
				    below(RESET_MS));
	}
	node_end(n);
}

/* So many at once; new ones start after `absent_ms`. */
static void lose(unsigned count, uint64_t absent_ms)
{
	while (count > 0) {
		struct sim_node *n = cluster.node[below(cluster.nodes)];

		if (n->state != NODE_SERVES)
			continue;
		node_lose(n);
		count--;
	}
	autoscaler.absent_until_ms = world.now_ms + absent_ms;
}

/* The oldest ones. */
static void drain(unsigned count)
{
	for (unsigned i = 0; count > 0; i++) {
		struct sim_node *n = cluster.node[i];

		if (n->state != NODE_SERVES)
			continue;
		node_drain(n);
		count--;
	}
}

static bool is_released(void)
{
	struct census c = census_take();

	return c.fresh == c.there && c.draining == 0 &&
	       c.serving == autoscaler.replicas;
}

/* To what was wanted for a while. */
static bool is_shrunk(void)
{
	struct census c = census_take();

	for (unsigned i = 0; i < HISTORY_SYNCS; i++) {
		if (autoscaler.wanted[i] != autoscaler.replicas)
			return false;
	}
	return c.draining == 0 && c.there == autoscaler.replicas;
}

static void day_begin(const struct plan *plan, uint64_t seed, FILE *rows)
{
	world_begin(seed);
	memset(&day, 0, sizeof(day));
	cluster_begin(plan);
	messages_begin_day();
	clients_begin();
	autoscaler_begin();
	report_begin(rows);
}

static void day_end(void)
{
	clients_end();
	cluster_end();
	memlogs_fini(&messages.logs);
}

#endif

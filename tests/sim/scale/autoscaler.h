/* autoscaler.h - KEDA, which asks any dispatcher for the sum of connections as
 * service/scaler.c answers it; the HorizontalPodAutoscaler's arithmetic on it;
 * and the controller that starts, releases and ends nodes.
 *
 *	wanted = ceil(sum / target), unless within a tenth of what there is
 *	up:   by 4 nodes or to twice as many, whichever is more, in 30 s
 *	down: by one node a minute, to the most that was wanted in 5 minutes
 */
#ifndef STENTOR_TESTS_SIM_SCALE_AUTOSCALER_H
#define STENTOR_TESTS_SIM_SCALE_AUTOSCALER_H

#include "tests/sim/scale/fleet.h"

#define SYNC_MS		  15000
#define UP_MS		  30000
#define UP_NODES	  4
#define DOWN_MS		  60000
#define STABLE_MS	  (5 * MINUTE)
#define START_MIN_MS	  20000
#define START_MAX_MS	  40000
#define HISTORY_SYNCS	  (STABLE_MS / SYNC_MS)
#define TOLERANCE_PERCENT 10

static struct {
	unsigned replicas; /* that are to be there */
	unsigned min;
	unsigned version; /* of nodes that start now */
	uint64_t sync_ms, absent_until_ms;
	/* What was wanted and what there was to be at the last syncs; the
	 * newest is first. */
	unsigned wanted[HISTORY_SYNCS], had[HISTORY_SYNCS];
} autoscaler;

/* --- how many ---------------------------------------------------------- */

static unsigned wanted_by_sum(void)
{
	const struct sim_dispatcher *d =
		&cluster.dispatcher[below(cluster.plan->dispatchers)];
	uint64_t target = cluster.plan->target;
	uint64_t sum = d->fleet.sums.connections;
	uint64_t now = autoscaler.replicas * target;
	uint64_t off = sum > now ? sum - now : now - sum;

	if (!fleet_sighted(&d->fleet) || off * 100 <= now * TOLERANCE_PERCENT)
		return autoscaler.replicas;
	return (unsigned)((sum + target - 1) / target);
}

/* Replicas that there were `ms` ago, after the sync of then. */
static unsigned had_before(uint64_t ms)
{
	return autoscaler.had[ms / SYNC_MS - 2];
}

static unsigned limited(unsigned wanted)
{
	unsigned up = had_before(UP_MS), down = had_before(DOWN_MS);
	unsigned now = autoscaler.replicas, most = wanted;

	if (wanted > now)
		return max_of(now,
			      min_of(wanted, max_of(up + UP_NODES, 2 * up)));
	for (unsigned i = 0; i < HISTORY_SYNCS; i++)
		most = max_of(most, autoscaler.wanted[i]);
	return min_of(now, max_of(most, max_of(down, 1u) - 1));
}

static void autoscaler_sync(void)
{
	unsigned wanted = max_of(wanted_by_sum(), autoscaler.min);
	unsigned next = limited(wanted);
	size_t older = sizeof(autoscaler.had) - sizeof(autoscaler.had[0]);

	memmove(autoscaler.had + 1, autoscaler.had, older);
	memmove(autoscaler.wanted + 1, autoscaler.wanted, older);
	autoscaler.had[0] = autoscaler.replicas;
	autoscaler.wanted[0] = wanted;
	if (next != autoscaler.replicas)
		trace("%llu nodes instead of %llu", next, autoscaler.replicas);
	autoscaler.replicas = next;
}

/* --- which ones -------------------------------------------------------- */

struct census {
	unsigned there, fresh, serving, draining; /* there: starting, serving */
	struct sim_node *oldest_stale, *newest;	  /* that serve */
};

static struct census census_take(void)
{
	struct census c = {0};

	for (unsigned i = 0; i < cluster.nodes; i++) {
		struct sim_node *n = cluster.node[i];
		bool fresh = n->version == autoscaler.version;

		c.draining += n->state == NODE_DRAINS;
		if (n->state != NODE_SERVES && n->state != NODE_STARTS)
			continue;
		c.there++;
		c.fresh += fresh;
		if (n->state != NODE_SERVES)
			continue;
		c.serving++;
		c.newest = n;
		if (!fresh && c.oldest_stale == NULL)
			c.oldest_stale = n;
	}
	return c;
}

static void start_some(unsigned count)
{
	while (count-- > 0)
		node_add(world.now_ms + START_MIN_MS +
				 below(START_MAX_MS - START_MIN_MS),
			 autoscaler.version);
}

/* New nodes first, then an old one goes for each that serves; at most `surge`
 * are on the way out. */
static void release_some(struct census *c)
{
	unsigned surge = cluster.plan->surge,
		 most = autoscaler.replicas + surge;

	start_some(min_of(most - min_of(most, c->there),
			  autoscaler.replicas -
				  min_of(autoscaler.replicas, c->fresh)));
	while (c->oldest_stale != NULL && c->serving > autoscaler.replicas &&
	       c->draining < surge) {
		node_drain(c->oldest_stale);
		*c = census_take();
	}
}

static void controller_tick(void)
{
	struct census c = census_take();

	if (world.now_ms < autoscaler.absent_until_ms)
		return;
	if (c.fresh < c.there) {
		release_some(&c);
		return;
	}
	start_some(autoscaler.replicas - min_of(autoscaler.replicas, c.there));
	if (c.there > autoscaler.replicas && c.newest != NULL)
		node_drain(c.newest);
}

static void autoscaler_tick(void)
{
	if (world.now_ms - autoscaler.sync_ms >= SYNC_MS) {
		autoscaler.sync_ms = world.now_ms;
		autoscaler_sync();
	}
	controller_tick();
	for (unsigned i = 0; i < cluster.nodes; i++) {
		struct sim_node *n = cluster.node[i];

		if (n->state == NODE_STARTS && world.now_ms >= n->ready_ms)
			node_serve(n);
	}
}

static void autoscaler_begin(void)
{
	memset(&autoscaler, 0, sizeof(autoscaler));
	autoscaler.min = autoscaler.replicas = cluster.plan->nodes_min;
	autoscaler.sync_ms = world.now_ms;
	for (unsigned i = 0; i < HISTORY_SYNCS; i++)
		autoscaler.had[i] = autoscaler.wanted[i] = autoscaler.replicas;
	for (unsigned i = 0; i < autoscaler.replicas; i++)
		node_add(world.now_ms, 0);
}

#endif

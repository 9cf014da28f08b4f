/* balancer.h - where a connection goes: to any node that is listed, or to the
 * less loaded one of two (what Envoy calls least request).
 *
 * It learns of nodes as in Kubernetes, some seconds late: of one that serves or
 * drains when its readiness was probed, of one that was lost when its probes
 * have failed.
 */
#ifndef STENTOR_TESTS_SIM_SCALE_BALANCER_H
#define STENTOR_TESTS_SIM_SCALE_BALANCER_H

#include "tests/sim/scale/fleet.h"

#define NOTICE_MIN_MS 1000
#define NOTICE_MAX_MS 6000
#define LOST_MS	      10000

static struct {
	struct sim_node *listed[NODES_MAX];
	unsigned count;
} balancer;

static bool is_noticed(const struct sim_node *n, uint64_t changed_ms)
{
	/* Each node has its own delay. */
	uint64_t span = NOTICE_MAX_MS - NOTICE_MIN_MS;
	uint64_t delay = NOTICE_MIN_MS + n->number * 7919u % span;

	return world.now_ms - changed_ms >= (n->lost ? LOST_MS : delay);
}

static bool is_listed(const struct sim_node *n)
{
	switch (n->state) {
	case NODE_STARTS:
		return false;
	case NODE_SERVES:
		return n->listed || is_noticed(n, n->ready_ms);
	case NODE_DRAINS:
		return n->listed && !is_noticed(n, n->drain_ms);
	default:
		return n->listed && !is_noticed(n, n->gone_ms);
	}
}

static void balancer_tick(void)
{
	balancer.count = 0;
	for (unsigned i = 0; i < cluster.nodes; i++) {
		struct sim_node *n = cluster.node[i];

		n->listed = is_listed(n);
		if (n->listed)
			balancer.listed[balancer.count++] = n;
	}
}

/* NULL: there is none. */
static struct sim_node *balancer_pick(void)
{
	struct sim_node *one, *other;

	if (balancer.count == 0)
		return NULL;
	one = balancer.listed[below(balancer.count)];
	if (cluster.plan->balance == BALANCE_RANDOM)
		return one;
	other = balancer.listed[below(balancer.count)];
	return node_streams(other) < node_streams(one) ? other : one;
}

#endif

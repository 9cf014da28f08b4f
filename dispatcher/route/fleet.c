#include "dispatcher/route/fleet.h"

#include <string.h>

#define PER_KS 1000 /* leave_per_ks of one stream a second */
/* Four standard deviations of what a load balancer that chooses at random
 * leaves on a node. */
#define CHANCE 16

void fleet_init(struct fleet *f, const struct fleet_config *config,
		uint64_t now_ms)
{
	*f = (struct fleet){
		.config = *config,
		.peak_since_ms = now_ms,
		.changed_ms = now_ms,
	};
}

/* --- one node ---------------------------------------------------------- */

static struct node_worker *worker_at(struct list *in_node)
{
	return container_of(in_node, struct node_worker, in_node);
}

static uint64_t spare_accepts(const struct node_worker *w)
{
	uint64_t max =
		w->load.accepts_max ? w->load.accepts_max : FLEET_ACCEPTS_ANY;

	return max - min_of(max, w->load.accepts);
}

/* Adds up its workers. Those that are not in the routing table yet, or drain,
 * take nobody; of those that are refused nothing is known. */
static void look_at(struct node *node)
{
	node->sum = (struct node_sum){0};
	list_for_each (each, &node->workers) {
		const struct node_worker *w = worker_at(each);
		struct node_sum *sum = &node->sum;

		if (w->phase == NODE_WORKER_REFUSED)
			continue;
		sum->connections += w->connections;
		sum->connections_max += w->connections_max;
		sum->accepts += w->load.accepts;
		sum->sent_bytes += w->load.sent_bytes;
		sum->queue_age_us =
			max_of(sum->queue_age_us, w->load.queue_age_us);
		sum->fullness = max_of(sum->fullness, w->load.fullness);
		if (w->draining)
			sum->draining += w->connections;
		else if (w->phase == NODE_WORKER_READY) {
			sum->spare += spare_accepts(w);
			sum->takes = true;
		}
		sum->drains |= w->draining;
	}
	node->sum.takes &= !node->sum.drains;
}

/* --- level ------------------------------------------------------------- */

/* Streams that the node would hold if all takers were equally full. */
static uint64_t level_of(const struct fleet *f, const struct node *node)
{
	return f->taken_max == 0
		       ? 0
		       : (uint64_t)((double)f->taken *
				    (double)node->sum.connections_max /
				    (double)f->taken_max);
}

/* Begins above the margin and ends at a quarter of it, so that it does not
 * begin and end and begin. */
static void weigh(struct fleet *f, struct node *node)
{
	uint64_t level = level_of(f, node);
	uint64_t surplus =
		node->sum.connections - min_of(node->sum.connections, level);
	uint64_t margin = level * f->config.margin_percent / 100;

	if (!f->calm || !node->sum.takes || f->sums.takers < 2)
		node->above = false;
	else if (node->above)
		node->above = surplus > margin / 4;
	else
		node->above =
			surplus > margin && surplus * surplus > CHANCE * level;
	node->surplus = node->above ? surplus : 0;
	if (node->above)
		f->above += node->sum.connections;
}

/* --- the fleet --------------------------------------------------------- */

static void add_up(struct fleet *f, const struct node *node)
{
	const struct node_sum *sum = &node->sum;

	f->sums.nodes++;
	f->sums.connections += sum->connections;
	f->sums.connections_max += sum->connections_max;
	f->sums.accepts += sum->accepts;
	f->sums.sent_bytes += sum->sent_bytes;
	f->sums.queue_age_us += sum->queue_age_us;
	f->sums.fullness += sum->fullness;
	f->draining += sum->draining;
	f->staying += !sum->drains;
	if (!sum->takes)
		return;
	f->sums.takers++;
	f->taken += sum->connections;
	f->taken_max += sum->connections_max;
	f->spare += sum->spare;
}

/* Differs when another node is there, or another takes streams. */
static uint64_t fingerprint(const struct node *node)
{
	return (uint64_t)(uintptr_t)node * 2 + node->sum.takes;
}

/* A node that drains will go, and is not missed then. */
static void take_leave(struct fleet *f)
{
	f->peak -= min_of(f->peak, (uint64_t)1);
	f->peak_before -= min_of(f->peak_before, (uint64_t)1);
}

static void fleet_remember(struct fleet *f, uint64_t now_ms)
{
	if (now_ms - f->peak_since_ms >= FLEET_MEMORY_MS) {
		f->peak_before = f->peak;
		f->peak = 0;
		f->peak_since_ms = now_ms;
	}
	f->peak = max_of(f->peak, f->staying);
}

bool fleet_sighted(const struct fleet *f)
{
	return f->sums.nodes > 0 &&
	       2 * f->staying >= max_of(f->peak, f->peak_before);
}

bool fleet_cut_off(const struct fleet *f, uint64_t workers, uint64_t peers_see)
{
	return !fleet_sighted(f) && peers_see > workers;
}

void fleet_look(struct fleet *f, struct nodes *n, uint64_t now_ms)
{
	uint64_t members = 0;

	f->sums = (struct fleet_sums){0};
	f->taken = f->taken_max = f->spare = f->draining = f->above =
		f->staying = 0;
	list_for_each (each, &n->nodes) {
		struct node *node = container_of(each, struct node, in_nodes);
		bool drained = node->sum.drains;

		look_at(node);
		if (node->sum.drains && !drained)
			take_leave(f);
		add_up(f, node);
		members = members * 31 + fingerprint(node);
	}
	fleet_remember(f, now_ms);
	if (members != f->members)
		f->changed_ms = now_ms;
	f->members = members;
	f->calm = f->config.rebalance && f->draining == 0 &&
		  now_ms - f->changed_ms >= f->config.calm_ms;
	list_for_each (each, &n->nodes)
		weigh(f, container_of(each, struct node, in_nodes));
}

/* --- one worker -------------------------------------------------------- */

static uint64_t free_places(uint64_t held, uint64_t max)
{
	return max - min_of(max, held);
}

/* Streams that fit into the other takers. */
static uint64_t room_elsewhere(const struct fleet *f, const struct node *node)
{
	const struct node_sum *own = &node->sum;
	uint64_t room = free_places(f->taken, f->taken_max);

	return own->takes
		       ? room - min_of(room, free_places(own->connections,
							 own->connections_max))
		       : room;
}

static bool full_elsewhere(const struct fleet *f, const struct node *node)
{
	const struct node_sum *own = &node->sum;
	uint64_t max = f->taken_max - (own->takes ? own->connections_max : 0);

	return room_elsewhere(f, node) * FLEET_FULL_SHARE <= max;
}

/* Of what the takers can take, what one worker's share is; streams in 1,000 s.
 * `node` is left out: nobody goes to where he came from. */
static uint64_t share(const struct fleet *f, const struct node *node,
		      uint64_t streams, uint64_t of)
{
	uint64_t spare = f->spare - (node->sum.takes ? node->sum.spare : 0);

	spare = min_of(spare / FLEET_SPARE_SHARE,
		       room_elsewhere(f, node) / FLEET_TRAVEL_S);
	return of == 0 ? 0
		       : (uint64_t)((double)spare * PER_KS * (double)streams /
				    (double)of);
}

void fleet_advise(const struct fleet *f, const struct node_worker *w,
		  FleetWord *out)
{
	const struct node *node = w->node;
	uint64_t held = node->sum.connections;

	out->takers = (uint32_t)(f->sums.takers - node->sum.takes);
	out->full = full_elsewhere(f, node);
	if (w->draining) {
		out->leave_per_ks =
			share(f, node, max_of(w->connections, (uint64_t)1),
			      max_of(f->draining, (uint64_t)1));
	} else if (node->above) {
		out->surplus = node->surplus * w->connections / held;
		out->leave_per_ks =
			min_of(w->connections * f->config.rate_permille,
			       share(f, node, w->connections, f->above));
	}
}

uint64_t fleet_drain_eta_ms(const struct node *node)
{
	uint64_t eta = 0;

	list_for_each (each, &node->workers) {
		const struct node_worker *w = worker_at(each);
		uint64_t ms = w->load.drain_left_ms;

		if (!w->draining || w->connections == 0)
			continue;
		if (w->load.leave_per_ks > 0)
			ms = min_of(ms, w->connections * 1000 * PER_KS /
						w->load.leave_per_ks);
		eta = max_of(eta, ms);
	}
	return eta;
}

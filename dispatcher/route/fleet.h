/* fleet.h - what all connection nodes together hold and can take, and what
 * that means for each of them (pure).
 *
 * The workers' heartbeats say what each holds. Every dispatcher hears all of
 * them, so every dispatcher comes to the same answers, and none leads:
 *
 *	- the sums that an autoscaler follows (service/scaler.c)
 *	- how many streams a second may leave a worker that drains: together no
 *	  more than half of what the takers - nodes that take new streams - can
 *	  begin beyond what they begin anyway, nor than fits into them
 *	- whether it is worth it to look for a place soon
 *	- which nodes hold so many more than the fleet's level that they are to
 *	  send some away after a scale-out, and how fast
 *
 * A node is above the level if it holds more than its share by `margin_percent`
 * and by more than chance explains; then it is told its surplus until it is
 * level. While a node drains, and for `calm_ms` after one came or went, none
 * is: a rolling release settles first.
 */
#ifndef STENTOR_DISPATCHER_ROUTE_FLEET_H
#define STENTOR_DISPATCHER_ROUTE_FLEET_H

#include "dispatcher/route/nodes.h"

#include <stdbool.h>
#include <stdint.h>

typedef Stentor__Link__V1__Fleet FleetWord;

/* Streams that a worker without a limit of its own is taken to begin a second.
 */
#define FLEET_ACCEPTS_ANY 10000
/* The takers' spare rate is shared between those who are sent to them and
 * everybody else who comes. */
#define FLEET_SPARE_SHARE 2
/* Who has lost sight of more than half of the nodes there were lately, those
 * that drained apart, is cut off himself, more likely than not. */
#define FLEET_MEMORY_MS 60000
/* Of so many places one is free: who is sent there finds it taken. */
#define FLEET_FULL_SHARE 20
/* Clients are on their way for some seconds: no more of them than fit. */
#define FLEET_TRAVEL_S 10

struct fleet_config {
	bool rebalance;
	uint64_t margin_percent;
	uint64_t rate_permille; /* of a node's streams, a second */
	uint64_t calm_ms;
};

struct fleet_sums {
	uint64_t nodes, takers, connections, connections_max;
	uint64_t accepts;      /* a second */
	uint64_t sent_bytes;   /* a second */
	uint64_t queue_age_us; /* of each node's slowest worker, added up */
	uint64_t fullness;     /* thousandths of a node, added up */
};

struct fleet {
	struct fleet_config config;
	struct fleet_sums sums;
	/* private */
	uint64_t taken, taken_max;  /* streams that takers hold, and can */
	uint64_t spare;		    /* streams a second they could take more */
	uint64_t draining;	    /* streams of workers that drain */
	uint64_t above;		    /* streams of nodes above the level */
	uint64_t staying;	    /* nodes that do not drain */
	uint64_t peak, peak_before; /* the most, lately and before that */
	uint64_t peak_since_ms;
	uint64_t members; /* which nodes there were */
	uint64_t changed_ms;
	bool calm;
};

void fleet_init(struct fleet *f, const struct fleet_config *config,
		uint64_t now_ms);
/* Looks at all nodes; each tick. */
void fleet_look(struct fleet *f, struct nodes *n, uint64_t now_ms);
/* False: what it knows of the fleet is not to be acted upon. */
bool fleet_sighted(const struct fleet *f);
/* It sees `workers`, while another dispatcher of its store sees `peers_see`,
 * and it has lost sight of most nodes: it is he who is cut off. */
bool fleet_cut_off(const struct fleet *f, uint64_t workers, uint64_t peers_see);
/* What the worker is to be told, by the last look. */
void fleet_advise(const struct fleet *f, const struct node_worker *w,
		  FleetWord *out);
/* Milliseconds until the node is empty, at its pace; 0: it does not drain. */
uint64_t fleet_drain_eta_ms(const struct node *node);

#endif

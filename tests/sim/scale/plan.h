/* plan.h - how large a simulated fleet is, who comes, and for how long. */
#ifndef STENTOR_TESTS_SIM_SCALE_PLAN_H
#define STENTOR_TESTS_SIM_SCALE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

#define STEP_MS		100 /* of the clock; a tick of workers, dispatchers */
#define WORKERS		4   /* of a node */
#define DISPATCHERS_MAX 10
#define NODES_MAX	400 /* that are there, or were just now */
#define RETRY_MIN_MS	1000
#define RETRY_MAX_MS	5000
#define RETRY_WINDOW_MS 120000
#define SECOND		1000u
#define MINUTE		60000u

enum balance { BALANCE_RANDOM, BALANCE_LEAST };

struct plan {
	uint32_t clients;    /* at the peak */
	uint32_t first;	     /* before and after */
	uint64_t session_ms; /* mean, until a client goes or loses its stream */
	double own_per_s;    /* messages to each client's own channel */
	double match_per_s;  /* to each of the shared ones */

	unsigned dispatchers;
	unsigned nodes_min;
	uint64_t connections_max; /* of a node */
	uint64_t target;	  /* of a node, for the autoscaler */
	uint64_t rate_max;	  /* streams that a worker may begin a second */
	uint64_t drain_ms;
	enum balance balance;

	unsigned surge;	    /* nodes more, during a release */
	unsigned few, more; /* nodes that are lost, and added */
	uint64_t ramp_ms, plateau_ms, lost_ms, added_ms, leave_ms;
	/* At most, for what ends by itself. */
	uint64_t release_ms, shrink_ms;
};

/* The size of the talk: 5 million connections on 100 nodes. */
static const struct plan plan_full = {
	.clients = 5000000,
	.first = 500000,
	.session_ms = 20 * MINUTE,
	/* 1 billion messages a day, and four times that rate at the peak */
	.own_per_s = 4 * 1e9 / 86400 / 5e6,
	.match_per_s = 0.5,
	.dispatchers = 10,
	.nodes_min = 10,
	.connections_max = 70000,
	.target = 47500,
	.rate_max = 500,
	.drain_ms = 120 * SECOND,
	.surge = 10,
	.few = 5,
	.more = 30,
	.ramp_ms = 15 * MINUTE,
	.plateau_ms = 10 * MINUTE,
	.lost_ms = 10 * MINUTE,
	.added_ms = 15 * MINUTE,
	.leave_ms = 20 * MINUTE,
	.release_ms = 60 * MINUTE,
	.shrink_ms = 120 * MINUTE,
};

/* The same in a few seconds: 30,000 on 10 nodes. */
static const struct plan plan_small = {
	.clients = 30000,
	.first = 6000,
	.session_ms = 20 * MINUTE,
	.own_per_s = 4 * 1e9 / 86400 / 5e6,
	.match_per_s = 0.5,
	.dispatchers = 3,
	.nodes_min = 2,
	.connections_max = 4200,
	.target = 3000,
	.rate_max = 30,
	.drain_ms = 120 * SECOND,
	.surge = 2,
	.few = 1,
	.more = 4,
	.ramp_ms = 10 * MINUTE,
	.plateau_ms = 3 * MINUTE,
	.lost_ms = 5 * MINUTE,
	.added_ms = 10 * MINUTE,
	.leave_ms = 5 * MINUTE,
	.release_ms = 20 * MINUTE,
	.shrink_ms = 20 * MINUTE,
};

#endif

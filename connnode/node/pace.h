/* pace.h - how fast a worker sends its streams away, to drain or to even out
 * the fleet (pure).
 *
 * Drain: evenly over the first four fifths of its time, PACE_LEAST a second at
 * least, but no faster than the other nodes can take them, which dispatchers
 * know (fleet.h); while they can take none, nobody goes. In the last fifth the
 * rest goes evenly whatever the others say, and at the end all that is left, so
 * that even then the fleet sees a slope. Where no other node takes streams
 * there is nobody to wait for.
 *
 * Balance: the surplus that dispatchers tell of, at the rate they tell. A load
 * balancer that sends those clients back here would make them go round in
 * circles: after as many as the worker held when it began it rests, each time
 * twice as long, until it has been level once.
 */
#ifndef STENTOR_CONNNODE_NODE_PACE_H
#define STENTOR_CONNNODE_NODE_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_LEAST	 50		    /* streams a second */
#define PACE_REST_MS	 (10u * 60 * 1000)  /* the first time */
#define PACE_REST_MAX_MS (160u * 60 * 1000) /* and in the end */

/* More is not believed. */
#define FLEET_LEAVE_MAX ((uint64_t)1 << 40)

/* What dispatchers say of the fleet: link.proto, Fleet. */
struct fleet_heard {
	bool known; /* some dispatcher did say */
	uint32_t takers;
	uint64_t leave_per_ks, surplus;
	bool full; /* the others have next to no room */
};

/* The others can take who is sent away from here. */
bool fleet_heard_takes(const struct fleet_heard *fleet);
/* Adds what one more dispatcher says: where they differ, the least is done. */
void fleet_heard_add(struct fleet_heard *all, const struct fleet_heard *one);

struct pace {
	bool draining;
	uint64_t begun_ms, end_ms; /* of the drain */
	uint64_t per_ks; /* streams that leave in 1,000 s, at the pace in force
			  */
	/* private */
	double owed; /* streams that should have left by now */
	uint64_t at_ms;
	uint64_t balance_left; /* may still go before the rest; 0: at rest */
	uint64_t rest_ms, rest_until_ms;
};

void pace_init(struct pace *p, uint64_t now_ms);
/* From now on the worker drains, within `total_ms`; again: within a new time.
 */
void pace_drain(struct pace *p, uint64_t now_ms, uint64_t total_ms);
void pace_stop(struct pace *p);
/* How many of the worker's streams are to be sent away now; to be called again
 * and again, and each time obeyed. UINT64_MAX: all. */
uint64_t pace_due(struct pace *p, uint64_t now_ms, uint64_t streams,
		  const struct fleet_heard *fleet);
/* Until what is left of a drain goes at once; 0: no drain, or over. */
uint64_t pace_left_ms(const struct pace *p, uint64_t now_ms);

#endif

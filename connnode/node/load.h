/* load.h - what a worker does, and how full that makes it (pure).
 *
 * Rates are those of the last few seconds. `fullness` is the greatest of what
 * it holds, begins and sends and of how long messages wait, each as thousandths
 * of its limit: by it an autoscaler sees which worker has no room, whatever
 * for.
 */
#ifndef STENTOR_CONNNODE_NODE_LOAD_H
#define STENTOR_CONNNODE_NODE_LOAD_H

#include <stdint.h>

#define LOAD_LOOK_MS 1000

struct load_limits { /* 0: not counted */
	uint64_t streams, accepts, sent_bytes, queue_age_us;
};

struct load {
	struct load_limits limits;
	uint64_t accepts;      /* streams begun a second */
	uint64_t sent_bytes;   /* a second */
	uint64_t queue_age_us; /* the greatest within a second */
	uint64_t fullness;
	/* private */
	uint64_t begun, sent, looked_ms; /* at the last look */
	uint64_t oldest_us;		 /* the greatest age since then */
	double accept_rate, sent_rate;
};

void load_init(struct load *l, const struct load_limits *limits,
	       uint64_t now_ms);
/* Each tick; looks every LOAD_LOOK_MS. `begun` and `sent` only grow. */
void load_look(struct load *l, uint64_t now_ms, uint64_t streams,
	       uint64_t begun, uint64_t sent, uint64_t queue_age_us);

#endif

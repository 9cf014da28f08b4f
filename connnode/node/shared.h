/* shared.h - what a worker shows its supervisor: a page of shared memory that
 * it writes and the supervisor reads. No message, no lock; it survives the
 * worker, so that its counters are not lost with it.
 */
#ifndef STENTOR_CONNNODE_NODE_SHARED_H
#define STENTOR_CONNNODE_NODE_SHARED_H

#include "common/io/auth.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What an operator told the node last: drain, or take streams again. In shared
 * memory it is one word, number first, so that it is exchanged whole: a worker
 * and its supervisor may write at once, and orders may follow one another. */
struct drain_order {
	uint64_t number;  /* greater is newer; 0: none */
	uint64_t seconds; /* 0: drain-seconds */
	bool drains;
};
#define ORDER_NUMBER_MAX  (((uint64_t)1 << 46) - 1) /* ms since 1970 */
#define ORDER_SECONDS_MAX (((uint64_t)1 << 17) - 1)

/* Revocations that a worker has heard of. Only it has links to hear them by,
 * but the admin port, where revoked tokens knock too, is the supervisor's; and
 * a worker that is started again reads what it knew. */
struct shared_revocations {
	uint64_t begun, told; /* in all, since the node began */
	struct auth_revocation ring[AUTH_REVOCATIONS_MAX];
};

/* Written by the worker while it lives, by the supervisor before and after;
 * volatile, because the other process reads them meanwhile. */
struct worker_shared {
	volatile uint64_t beat_ms; /* monotonic, of the loop's last tick */
	volatile uint64_t ready;   /* listening, and linked to a dispatcher */
	volatile uint64_t draining;
	volatile uint64_t streams;
	volatile uint64_t tls_expires_s;	/* its certificate; 0: none */
	volatile uint64_t accepts, accepts_max; /* load.h; a second */
	volatile uint64_t queue_age_us, fullness;
	volatile uint64_t retry_window_ms; /* comeback.h */
	volatile uint64_t clock_skew_us;   /* announcer.h */
	uint64_t order; /* the supervisor keeps the newest of all */
	struct shared_revocations revocations;
	uint64_t cells[]; /* metrics */
};

/* Makes the memory; returns a descriptor to hand to a worker, and the
 * supervisor's mapping. */
int shared_create(struct worker_shared **out);
/* Maps it in the worker. */
struct worker_shared *shared_attach(int fd);
size_t shared_size(void);

/* From either side: takes the order if it is newer than what is there. */
void shared_give_order(struct worker_shared *shared,
		       const struct drain_order *order);
struct drain_order shared_order(const struct worker_shared *shared);

/* In the worker: a revocation for the supervisor, over the oldest if there are
 * AUTH_REVOCATIONS_MAX. */
void shared_revoke(struct worker_shared *shared,
		   const struct auth_revocation *r);
/* In the supervisor: the next one, and counts it in *taken (from 0 on). False:
 * there is none. Adds to *lost those overwritten before they were taken. */
bool shared_revoked(struct worker_shared *shared, uint64_t *taken,
		    uint64_t *lost, struct auth_revocation *r);

#endif

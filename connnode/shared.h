/* shared.h - what a worker shows its supervisor: a page of shared memory that
 * it writes and the supervisor reads. No message, no lock; it survives the
 * worker, so that its counters are not lost with it.
 */
#ifndef STENTOR_CONNNODE_SHARED_H
#define STENTOR_CONNNODE_SHARED_H

#include <stddef.h>
#include <stdint.h>

/* What an operator told the node last: drain, or take streams again. */
struct drain_order {
	volatile uint64_t number; /* written last; greater is newer */
	volatile uint64_t drains;
	volatile uint64_t seconds; /* 0: drain-seconds */
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
	struct drain_order order; /* the supervisor keeps the newest of all */
	uint64_t cells[];	  /* metrics */
};

/* Makes the memory; returns a descriptor to hand to a worker, and the
 * supervisor's mapping. */
int shared_create(struct worker_shared **out);
/* Maps it in the worker. */
struct worker_shared *shared_attach(int fd);
size_t shared_size(void);

#endif

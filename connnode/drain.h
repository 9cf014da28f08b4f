/* drain.h - how a worker's clients leave: at a pace, so that the rest of the
 * fleet sees a slope and not a cliff.
 *
 * From worker_drain() on, new streams are told to come back elsewhere, and the
 * open ones are sent away, oldest first, evenly over drain-seconds (but at
 * least DRAIN_LEAST a second), each with its own `retry:`. At the deadline all
 * that are left go at once. The worker's loop ends when none is left.
 */
#ifndef STENTOR_CONNNODE_DRAIN_H
#define STENTOR_CONNNODE_DRAIN_H

#include "connnode/worker.h"

#define DRAIN_LEAST    50   /* streams a second */
#define DRAIN_GRACE_MS 2000 /* after the deadline, for last bytes to leave */

/* Idempotent. */
void worker_drain(struct worker *w);
/* Each WORKER_TICK_MS while draining. */
void drain_tick(struct worker *w);

#endif

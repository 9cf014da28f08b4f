/* drain.h - how a worker's streams are sent away: at a pace (pace.h), so that
 * the rest of the fleet sees a slope and not a cliff.
 *
 * A drain begins by SIGTERM (then the worker ends when it is empty, or its time
 * is over) or by an operator's order (then it stays, not ready, until it is
 * told to take streams again). The port is closed once the other nodes can take
 * its clients (worker.c, tend_port()); new streams until then are told to come
 * back. The open ones are sent away, oldest first, each with its own `retry:`.
 * Orders are kept in the page shared with the supervisor, which hands the
 * newest to all workers of the node: one that is started again drains on.
 *
 * Without a drain, streams that the fleet has less of elsewhere leave
 * ("rebalance").
 */
#ifndef STENTOR_CONNNODE_STREAM_DRAIN_H
#define STENTOR_CONNNODE_STREAM_DRAIN_H

#include "common/codec/linkwire.h"
#include "connnode/link/announcer.h"
#include "connnode/node/pace.h"
#include "connnode/node/shared.h"
#include "connnode/stream/session.h"

#define DRAIN_GRACE_MS 2000 /* after the deadline, for last bytes to leave */

/* Whose these are is the owner's business. */
struct drain_use {
	struct sessions *sessions;
	struct announcer *announcer;
	struct worker_shared *shared;
	struct metrics *metrics;
	uint64_t seconds; /* where an order says nothing else */
};

struct drain {
	struct drain_use use;
	bool ending;		  /* SIGTERM */
	struct drain_order order; /* that is followed */
	struct pace pace;
};

void drain_init(struct drain *d, const struct drain_use *use);
/* SIGTERM; idempotent. The loop is stopped when all are gone. */
void drain_end(struct drain *d);
/* An operator's order from a dispatcher; one that is not newer than what is
 * known is no news. */
void drain_ordered(struct drain *d, const Stentor__Link__V1__DrainOrder *o);
/* Every 100 ms or so: follows the order in the shared page, sends away who is
 * due. */
void drain_tick(struct drain *d);

#endif

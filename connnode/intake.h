/* intake.h - what comes from the dispatchers, and where it goes:
 *
 *	delivery --with a position--> logs.c --in order--> fanout.c
 *	         --without one---------------------------> fanout.c
 *	answer   --> questions.c --> logs.c (tops, holes), pages.c
 *
 * Processes read new rules one after another. So a channel that is ephemeral by
 * ours gets a log all the same when a message with a position comes for it: the
 * dispatcher's rules say that it keeps history. Its subscribers get what is
 * stored from then on, in order, whenever our rules come.
 *
 * Wires the pure modules to the worker; owns nothing.
 */
#ifndef STENTOR_CONNNODE_INTAKE_H
#define STENTOR_CONNNODE_INTAKE_H

#include "common/codec/linkwire.h"

struct channel;
struct worker;

void intake_init(struct worker *w);
/* When every subscription is gone. */
void intake_fini(struct worker *w);
/* The announcer, with this worker's identity: before the uplink. */
void intake_announce(struct worker *w);
/* Each WORKER_TICK_MS. */
void intake_tick(struct worker *w);

/* Deliveries of one frame, in order; borrowed. */
void intake_deliveries(struct worker *w, LinkDelivery *const *deliveries,
		       size_t count);
/* A frame that says which logs have moved; borrowed. */
void intake_moved(struct worker *w, const LinkFrame *f);

/* New rules: channels that begin or cease to keep history. */
void intake_apply_rules(struct worker *w);

#endif

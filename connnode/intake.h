/* intake.h - what comes from the dispatchers, and where it goes:
 *
 *	delivery --with a position--> logs.c --in order--> fanout.c
 *	         --without one---------------------------> fanout.c
 *	answer   --> questions.c --> logs.c (tops, holes), replay.c (pages)
 *
 * Wires the pure modules to the worker; owns nothing.
 */
#ifndef STENTOR_CONNNODE_INTAKE_H
#define STENTOR_CONNNODE_INTAKE_H

#include "common/codec/linkwire.h"

struct worker;

void intake_init(struct worker *w);
/* When every subscription is gone. */
void intake_fini(struct worker *w);

/* Deliveries of one frame, in order; borrowed. */
void intake_deliveries(struct worker *w, LinkDelivery *const *deliveries,
		       size_t count);
/* A frame with answers to questions; borrowed. */
void intake_answers(struct worker *w, const LinkFrame *f);

/* New rules: channels that begin or cease to keep history. */
void intake_apply_rules(struct worker *w);

#endif

/* announcer_internal.h - what announcer.c and announcer_interest.c share (pure).
 */
#ifndef STENTOR_CONNNODE_LINK_ANNOUNCER_INTERNAL_H
#define STENTOR_CONNNODE_LINK_ANNOUNCER_INTERNAL_H

#include "connnode/link/announcer.h"

/* Waits for its turn on the link; takes the caller's reference. */
struct upstream_frame *announcer_enqueue(struct upstream *u,
					 struct frame *control);

/* All announced channels, for a link that has just come up. */
void announcer_snapshot(struct announcer *a, struct upstream *u);
/* What has changed since it was told, to all that are UP. */
void announcer_announce(struct announcer *a, uint64_t now_ms);

#endif

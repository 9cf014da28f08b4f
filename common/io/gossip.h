/* gossip.h - revoked tokens on their way through the cluster.
 *
 * There is no place where they are kept for all: each process keeps what it
 * heard (auth.h) and tells it to those it is linked to, dispatchers to workers
 * and workers to dispatchers; who hears of one that it knew does not tell it
 * on. So every process learns of each as long as one that knows it lives.
 */
#ifndef STENTOR_IO_GOSSIP_H
#define STENTOR_IO_GOSSIP_H

#include "common/codec/linkwire.h"
#include "common/io/auth.h"

#define GOSSIP_PER_FRAME 128

/* A control frame that tells up to GOSSIP_PER_FRAME that are new; one
 * reference, the caller's. NULL: nothing is new. To be called once a turn, and
 * again in the next while auth_has_news(): a frame for each revocation would
 * cost each link a message of its own. */
struct frame *gossip_news(struct auth *a);

/* All that are kept, for a link that came up: `tell` gets each control frame
 * (borrowed). */
void gossip_all(const struct auth *a,
		void (*tell)(void *ctx, struct frame *control), void *ctx);

/* What a frame tells. New ones reach auth_start()'s on_revoked, from inside. */
void gossip_take(struct auth *a, const LinkFrame *f);

#endif

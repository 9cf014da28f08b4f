/* fanout.h - one message to all subscribers of its channel in this worker (pure).
 *
 * A message is rendered once for each format that has subscribers. Channels of
 * up to FANOUT_INLINE subscribers are served at once, while the turn lasts:
 * FANOUT_TURN subscribers over all of them (those of up to FANOUT_TINY always:
 * how many messages a turn takes in is bounded). For more, the channel gets a
 * job, whose cursor walks the channel's subscriptions, FANOUT_SLICE in a turn
 * over all jobs, round robin: so neither a broadcast to 15,000 connections nor
 * a burst over hundreds of channels holds up the messages of others. Messages
 * that arrive for a channel while its job runs wait for the next walk, and all
 * that wait go together.
 *
 * The cursor is a marker in the list of subscriptions; nothing else in that
 * list is without a session.
 */
#ifndef STENTOR_CONNNODE_CHANNEL_FANOUT_H
#define STENTOR_CONNNODE_CHANNEL_FANOUT_H

#include "common/codec/linkwire.h"
#include "common/ds/frame.h"
#include "common/ds/list.h"
#include "connnode/channel/channels.h"

#include <stdbool.h>
#include <stddef.h>

#define FANOUT_INLINE 64
#define FANOUT_TINY   2
#define FANOUT_TURN   128
#define FANOUT_SLICE  256
#define FANOUT_PUSHES 4 /* cost a unit of the turn's budget */
/* Bytes of messages in jobs over which the dispatchers get no more
 * acknowledgements, and so stop sending. */
#define FANOUT_BACKLOG_MAX (8u << 20)

struct fanout_ops {
	/* A frame (borrowed) for one subscriber. */
	void (*push)(struct subscription *sub, struct frame *f);
	/* The job of a channel without subscribers has ended. */
	void (*forsaken)(void *ctx, struct channel *ch);
};

struct fanout {
	struct channels *channels;
	const struct fanout_ops *ops;
	void *ctx;
	struct list jobs; /* struct fanout_job.in_jobs */
	size_t backlog_bytes;
	unsigned turn_left; /* subscribers that are served at once */
};

void fanout_init(struct fanout *f, struct channels *channels,
		 const struct fanout_ops *ops, void *ctx);
void fanout_fini(struct fanout *f);
/* A message (borrowed) to the channel's subscribers; the next in order, where
 * it has a position. */
void fanout_message(struct fanout *f, struct channel *ch, const LinkDelivery *d,
		    uint64_t now_ms);
/* Ends the channel's job now, whatever it takes. */
void fanout_finish(struct fanout *f, struct channel *ch);
/* How long the oldest message of a job has waited, about. */
uint64_t fanout_age_ms(const struct fanout *f, uint64_t now_ms);
/* A stage of the turn (turn.h): jobs go on. */
unsigned fanout_run(struct fanout *f, unsigned budget);
static inline bool fanout_pending(const struct fanout *f)
{
	return !list_empty(&f->jobs);
}

#endif

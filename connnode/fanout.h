/* fanout.h - one message to all subscribers of its channel in this worker.
 *
 * A message is rendered once for each format that has subscribers. Up to
 * FANOUT_INLINE subscribers are served at once. For more, the channel gets a
 * job, whose cursor walks the channel's subscriptions, FANOUT_SLICE in a turn
 * over all jobs, round robin: so a broadcast to 15,000 connections does not
 * hold up the messages of other channels. Messages that arrive for a channel
 * while its job runs wait for the next walk, and all that wait go together.
 *
 * The cursor is a marker in the list of subscriptions; nothing else in that
 * list is without a session.
 */
#ifndef STENTOR_CONNNODE_FANOUT_H
#define STENTOR_CONNNODE_FANOUT_H

#include "common/codec/linkwire.h"
#include "common/ds/list.h"

#include <stdbool.h>
#include <stddef.h>

#define FANOUT_INLINE 64
#define FANOUT_SLICE  256
/* Bytes of messages in jobs over which the dispatchers get no more
 * acknowledgements, and so stop sending. */
#define FANOUT_BACKLOG_MAX (8u << 20)

struct worker;
struct channel;

struct fanout {
	struct list jobs; /* struct fanout_job.in_jobs */
	size_t backlog_bytes;
};

void fanout_init(struct fanout *f);
void fanout_fini(struct fanout *f);
/* A message (borrowed) to the channel's subscribers; the next in order, where
 * it has a position. */
void fanout_message(struct worker *w, struct channel *ch,
		    const LinkDelivery *d);
/* Ends the channel's job now, whatever it takes. */
void fanout_finish(struct worker *w, struct channel *ch);
/* How long the oldest message of a job has waited, about. */
uint64_t fanout_age_ms(const struct worker *w);
/* One slice. True while jobs are left. */
bool fanout_run(struct worker *w);

#endif

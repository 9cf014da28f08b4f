/* lagging.h - messages for streams whose sockets don't keep up.
 *
 * A queue that is over queue-bytes-max is written first. What the kernel does
 * not take then is forgiven for queue-grace-ms, up to queue-burst-bytes, to a
 * stream that was level before: a burst is no fault of its reader. After that,
 * until it is level again, the channel's `lagging` rule acts: `close` (it comes
 * back and resumes), `drop_oldest` (and tells the gap, where the channel keeps
 * history), `conflate`. That one acts as soon as the socket takes no more: what
 * waits is replaced by what is newer of the same key.
 *
 * And all of a worker's together: when frames take more than its share of
 * memory-max, those with most waiting give way first (backlog.h).
 */
#ifndef STENTOR_CONNNODE_STREAM_LAGGING_H
#define STENTOR_CONNNODE_STREAM_LAGGING_H

#include "connnode/channel/channels.h"

#include <stdbool.h>
#include <stdint.h>

struct frame;
struct session;
struct sessions;

/* Queues a message (borrowed) of one of the session's channels, or does what
 * the rule says. */
void lagging_push(struct session *s, struct subscription *sub, struct frame *f);

/* A stage of the turn (turn.h): those with most waiting give way. */
unsigned lagging_run(struct sessions *all, unsigned budget);
bool lagging_pending(const struct sessions *all);

#endif

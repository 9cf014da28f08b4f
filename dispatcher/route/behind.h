/* behind.h - the logs of which one worker is to hear the top, because their
 * messages did not go by its link (pure).
 *
 * A *mark* is a channel and the newest top that is known of its log. A worker
 * that has one is told `Moved` when its link has room again, and fetches the
 * rest. At most BEHIND_MAX marks are kept, and only while the pool of the
 * links' queues has room for them; then it is `unnamed`: more logs have moved
 * than can be named, and the worker asks for the tops of all that it has.
 *
 * Marks leave by the lane of their channel, the oldest first, so that they come
 * behind what of the channel waits there.
 */
#ifndef STENTOR_DISPATCHER_ROUTE_BEHIND_H
#define STENTOR_DISPATCHER_ROUTE_BEHIND_H

#include "common/codec/place.h"
#include "common/ds/hmap.h"
#include "common/ds/list.h"
#include "dispatcher/route/linkq.h"

#include <stdbool.h>

#define BEHIND_MAX	1024
#define BEHIND_TOLD_MAX 128 /* marks of one frame */

struct behind {
	struct hmap by_channel;		     /* empty until the first mark */
	struct list marks[PRIORITY_CLASSES]; /* by lane, the oldest first */
	unsigned count;
	bool unnamed;
	struct linkq_pool *pool;
};

void behind_init(struct behind *b, struct linkq_pool *pool);
void behind_fini(struct behind *b);

static inline bool behind_any(const struct behind *b)
{
	return b->count > 0 || b->unnamed;
}

/* True if the channel is marked, by name or because all are. `key` is any hash
 * of the name, always the same. */
bool behind_has(const struct behind *b, uint64_t key, const char *channel);

/* Marks a channel, or moves its mark to a greater top; epoch 0: not known, and
 * so it stays. */
void behind_mark(struct behind *b, uint64_t key, const char *channel,
		 enum priority lane, struct place top);
/* Marks all. */
void behind_mark_all(struct behind *b);

/* What is to be said next by a lane, as a control frame of *count marks; the
 * caller's reference. `unnamed` goes by the lowest one. NULL: nothing. */
struct frame *behind_tell(const struct behind *b, enum priority lane,
			  unsigned *count);
/* That has been queued. */
void behind_told(struct behind *b, enum priority lane, unsigned count);

#endif

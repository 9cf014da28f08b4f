/* replay.h - what a client missed, read from the store and given to it at its
 * own pace, until it is level with the live messages.
 *
 * Every subscription to a reliable channel begins held:
 *
 *	CLAIMED --place of the log known--> (claims to be ahead: ASKED, the top
 *	   |                                 is looked up) --> resolved
 *	   +--> RUNNING --page, drained, page ...--> level: live, and it ends
 *
 * Resolved means: the client's claim is honoured, or it is told a gap and goes
 * on with what the log still has. A claim in an earlier epoch is moved into the
 * present one (past.h). A client without a claim begins at the log's place, or
 * with the rule's latest messages.
 *
 * What is replayed comes in pages (pages.h). A stream gets one page, and the
 * next when the kernel has taken it all. Memory: pages, and the bytes of pages
 * that wait in streams' queues (counted for each stream), are at most
 * replay-bytes-max; above that a page waits to be read, and a stream to be given
 * its page. While streams wait, one that does not take its page within
 * REPLAY_DRAIN_MS is closed: it keeps them waiting. Work of one turn is bounded
 * too, so that live messages pass between.
 */
#ifndef STENTOR_CONNNODE_STREAM_REPLAY_H
#define STENTOR_CONNNODE_STREAM_REPLAY_H

#include "common/codec/place.h"
#include "common/ds/slab.h"
#include "connnode/channel/fanout.h"
#include "connnode/channel/logs.h"
#include "connnode/channel/pages.h"
#include "connnode/link/announcer.h"

#include <stdbool.h>

#define REPLAY_SLICE	32u /* streams served in a turn */
#define REPLAY_WORK	4u  /* units of the turn's budget each */
#define REPLAY_DRAIN_MS 2000

struct session;

/* Whose these are is the owner's business. */
struct replays_use {
	struct channels *channels;
	struct questions *questions;
	struct logs *logs;
	struct fanout *fanout;
	const struct announcer *announcer; /* of which store positions are */
	struct metrics *metrics;
};

struct replays_ops {
	/* What the client misses, as a frame (counted; one reference, the
	 * caller's); the place behind that is where its subscription is now. */
	struct frame *(*gap)(struct session *s, const struct channel *ch,
			     const struct gap *gap);
	/* A log's place became known, or is not needed any more: a session
	 * that is not ready yet may be so now. */
	void (*placed)(struct session *s);
};

struct replays {
	struct replays_use use;
	const struct replays_ops *ops;
	size_t bytes_max;
	struct slab slab; /* struct replay */
	struct pages pages;
	struct list running;  /* session.in_replays: may be served */
	struct list draining; /* likewise: waits for its kernel, oldest first */
	struct list crowded;  /* likewise: waits for memory */
	size_t queued_bytes;  /* of pages, in streams' queues */
	uint64_t count;	      /* subscriptions held */
};

void replays_init(struct replays *rs, const struct replays_use *use,
		  const struct replays_ops *ops, size_t bytes_max);
/* At the end, when no subscription is left. */
void replays_fini(struct replays *rs);

/* Holds a subscription of a channel that has a log. `claim` NULL: the client
 * has none. */
void replay_begin(struct replays *rs, struct subscription *sub,
		  const struct place *claim);

/* Where the subscription's client is: what its `id:` says. Epoch 0: the channel
 * is ephemeral. */
struct place subscription_place(const struct subscription *sub);

/* True when the places of all logs that the session needs are known. Asks for
 * what has to be asked for. */
bool replays_placed(struct replays *rs, struct session *s);
/* Honours the claims; queues gaps. Before the session is told ready. */
void replays_resolve(struct session *s);
/* And after: subscriptions that are level are live, the others are replayed. */
void replays_start(struct replays *rs, struct session *s);
/* All that was queued for the session has been taken (and replay_bytes of it
 * were a page). */
void replay_drained(struct replays *rs, struct session *s);
/* The session leaves. */
void replays_leave(struct replays *rs, struct session *s);

/* A stage of the turn (turn.h), and whether it has more to do at once. */
unsigned replays_run(struct replays *rs, unsigned budget, uint64_t now_ms);
bool replays_pending(const struct replays *rs);
/* Every 100 ms or so: what nobody needs, and who is too slow. */
void replays_tick(struct replays *rs, uint64_t now_ms);

/* From logs.h: the log's place is known, or is about to move, or messages were
 * lost. */
void replays_known(struct replays *rs, struct channel *ch);
void replays_skipped(struct replays *rs, struct channel *ch, uint64_t to);
void replays_moved(struct replays *rs, struct channel *ch, struct place to);
void replays_lost(struct replays *rs, struct channel *ch,
		  const struct gap *gap);
/* The channel's log is about to be closed (new rules, and nobody is behind; or no
 * subscriber): its pages go. */
void replays_log_closed(struct replays *rs, struct channel *ch);

#endif

/* logs.h - this worker's place in the log of each reliable channel (pure).
 *
 * Every message of such a channel has a position (epoch, offset), counted by
 * the store. A log's place here says: everything up to it was passed on.
 *
 *	opened --> UNKNOWN --top asked and answered--> FOLLOWING
 *						       |     ^
 *				a hole that stays      v     | filled
 *						      FETCHING
 *
 * A delivery at offset + 1 is passed on, at or below is a double and dropped.
 * Above it is a hole: it is held, and if the hole is not filled by another
 * dispatcher's link within LOGS_HOLE_MS, the missing range is fetched from the
 * store, through any dispatcher, and passed on in order. After a link to a
 * dispatcher was lost or came up, the tops of all logs are asked for, and what
 * is lacking is fetched; a slow sweep does the same as a safety net.
 *
 * A greater epoch is a new log: the place moves to its beginning. A smaller one
 * is a double. A top below our place, in our epoch, means that the store has
 * lost messages: the place moves back, and the subscribers are told a gap.
 * Messages that the store has no more (`first` is beyond what is lacking) are
 * told as a gap too; nothing is ever left out in silence.
 *
 * Held deliveries are bounded (held_max over all logs): above that they are let
 * go, all of the log that exceeds it, and fetched when their turn comes.
 */
#ifndef STENTOR_CONNNODE_LOGS_H
#define STENTOR_CONNNODE_LOGS_H

#include "common/codec/place.h"
#include "connnode/channels.h"
#include "connnode/questions.h"

#define LOGS_HOLE_MS	 10  /* for messages that overtook one another */
#define LOGS_TOPS	 256 /* channels of one question */
#define LOGS_FETCH	 256 /* messages of one question */
#define LOGS_FETCH_BYTES (128u << 10)

enum gap_reason {
	GAP_EXPIRED,   /* the store does not keep the messages any more */
	GAP_EPOCH,     /* the place belongs to a log that is gone */
	GAP_UNKNOWN,   /* the place is beyond the log's end */
	GAP_MALFORMED, /* the client's id is none of ours, or of other channels
			*/
	GAP_REWOUND,   /* the store has lost messages that were delivered */
	GAP_LAGGING,   /* dropped: the client did not keep up */
};
#define GAP_REASONS 6
extern const char *const gap_names[GAP_REASONS + 1];

struct log {
	struct channel *channel;
	struct place place;
	bool known;
	/* private */
	struct logs *logs;
	/* The greatest position known to exist. Its epoch is place.epoch, and
	 * that of all that is held; or, while the place is not known, the
	 * greatest that was delivered. */
	struct place seen;
	struct list held; /* struct held, by offset */
	size_t held_bytes;
	/* A hole, from place.offset on */
	struct list in_holes; /* it waits for its time */
	uint64_t hole_at;     /* place.offset when that began */
	uint64_t hole_ms;
	struct question fetch;
	struct place fetch_from, fetch_seen; /* when it was asked */
	/* Its top */
	struct list in_asks;	  /* to be asked, or in a batch that is */
	bool unasked;		  /* not before it is announced */
	bool asked;		  /* in a batch */
	bool again;		  /* once more after that */
	bool doubt;		  /* we may have missed the log's end */
	bool report;		  /* `known` once more, at report_at */
	uint64_t report_at;	  /* offset; UINT64_MAX: not answered yet */
	struct place asked_place; /* when it was asked; epoch 0: not known */
	uint32_t asked_index;	  /* in the batch */
	struct list in_all;
};

/* None of them may close the channel's log or deliver to it. */
struct logs_ops {
	/* The next message in order; after the call the log's place is its
	 * position. Borrowed. */
	void (*pass)(void *ctx, struct channel *ch, const LinkDelivery *d);
	/* The place is known for the first time, or logs_ask() is answered:
	 * log->place. */
	void (*known)(void *ctx, struct channel *ch);
	/* The log's place is about to move from log->place to `to` without
	 * passing on what lies between: subscribers are told a gap if `reason`
	 * is not negative (a new epoch after a log that was read to its end is
	 * no gap). All subscribers' places move along. */
	void (*moved)(void *ctx, struct channel *ch, struct place to,
		      int reason);
};

struct logs {
	struct questions *questions;
	const struct logs_ops *ops;
	void *ctx;
	size_t held_max, held_bytes;
	struct list all;     /* struct log.in_all; the sweep asks the first */
	struct list holes;   /* struct log.in_holes, the oldest first */
	struct list asks;    /* struct log.in_asks */
	struct list batches; /* tops that are being asked */
	uint64_t count;
	uint64_t now_ms, sweep_ms, sweep_due_ms;
	struct {
		uint64_t doubles, holes, fetches, fetched, held_dropped,
			resyncs, behind, /* found by tops */
			rewinds, malformed;
	} counters;
};

/* `held_max`: bytes; `sweep_ms`: in which all tops are asked once. */
void logs_init(struct logs *l, struct questions *questions,
	       const struct logs_ops *ops, void *ctx, size_t held_max,
	       uint64_t sweep_ms);
/* Every log must be closed. */
void logs_fini(struct logs *l);

/* channel->log for a channel that has none. Its place is asked for as soon as
 * logs_announced() says so. */
struct log *logs_open(struct logs *l, struct channel *ch);
void logs_close(struct logs *l, struct channel *ch);

/* All live dispatchers know of our interest in the channel: what is published
 * from now on reaches us, so its top may be asked for. Idempotent. */
void logs_announced(struct logs *l, struct channel *ch);
/* Asks for the top though the place is known: a client claims to be ahead. When
 * the place has reached what is answered, `known` is called again. */
void logs_ask(struct logs *l, struct channel *ch);

/* A delivery with a position, for a channel that has a log. */
void logs_deliver(struct logs *l, struct channel *ch, const LinkDelivery *d,
		  uint64_t now_ms);
/* A link to a dispatcher was lost, or has acknowledged our interest anew. */
void logs_resync(struct logs *l);
/* Every turn that had something, and every few milliseconds while
 * logs_waiting(); what it asks leaves with questions_run(). */
void logs_run(struct logs *l, uint64_t now_ms);
/* True while a hole waits for its time. */
bool logs_waiting(const struct logs *l);

#endif

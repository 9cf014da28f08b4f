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
 * store, through any dispatcher, and passed on in order. A dispatcher that
 * could not send a message, or whose store has it from another one, says that
 * the top has moved: a hole too. After a link to a dispatcher was lost or came
 * up, the tops of all logs are asked for, and what is lacking is fetched. A
 * slow sweep does the same as a safety net: it should find nothing.
 *
 * A store that may have gone back gives its logs a new epoch (store.h). What
 * comes of a greater epoch is held until the top, with the log's eras, is
 * answered; then the place moves, and what was lost is told: past.h. It is
 * known that nothing was lost if we are linked to every dispatcher of the store
 * and no link has changed since the top was answered last; else it is in
 * *doubt*, and told. With every question for a top goes what we have seen, so
 * that the store notices too.
 *
 * Messages that the store has no more (`first` is beyond what is lacking) are
 * told as a gap; nothing is ever left out in silence.
 *
 * Held deliveries are bounded (held_max over all logs): above that they are let
 * go, all of the log that exceeds it, and fetched when their turn comes.
 */
#ifndef STENTOR_CONNNODE_CHANNEL_LOGS_H
#define STENTOR_CONNNODE_CHANNEL_LOGS_H

#include "common/codec/place.h"
#include "connnode/channel/channels.h"
#include "connnode/channel/held.h"
#include "connnode/channel/past.h"
#include "connnode/channel/questions.h"

#define LOGS_HOLE_MS	 10  /* for messages that overtook one another */
#define LOGS_TOPS	 512 /* channels of one question */
#define LOGS_FETCH	 256 /* messages of one question */
#define LOGS_FETCH_BYTES (128u << 10)
#define LOGS_EMPTY_MAX	 3 /* answers without what is said to be there */
/* A top that is not as it is to be is asked for once more after that: messages
 * came of an epoch that is beyond it. */
#define LOGS_AGAIN_MS 1000
/* What the sweep found has come by itself until then, or by the end of a link
 * that was silent (LINK_DEAD_MS), or it is fetched. */
#define LOGS_FOUND_MS 6000
/* What was appended before the epoch changed has been answered by then (late
 * answers take twice the store's time-out), and has come by a slower link, or
 * that link has ended (LINK_DEAD_MS). */
#define LOGS_LATE_MS 8000
/* Between two times that all tops are asked because a dispatcher could not name
 * the logs that have moved. */
#define LOGS_LOOK_MS 1000

struct log {
	struct channel *channel;
	struct place place; /* epoch 0: not known yet */
	struct past *past;  /* of its earlier epochs; NULL: none */
	/* private */
	struct logs *logs;
	/* The greatest position known to exist in the place's epoch, and in a
	 * greater one (epoch 0: nothing of the kind). */
	struct place seen, next;
	struct held held;
	uint64_t since_ms; /* logs_open() */
	/* The least that came while its place was not known; epoch 0: none */
	struct place first;
	/* A hole, from place.offset on */
	struct list in_holes; /* it waits for its time */
	uint64_t hole_at;     /* place.offset when that began */
	uint64_t hole_ms;
	struct question fetch;
	struct place fetch_from, fetch_seen; /* when it was asked */
	unsigned empty; /* answers that gave nothing, although it is there */
	/* Its top */
	struct list in_asks; /* to be asked, or in a batch that is */
	bool unasked;	     /* not before it is announced */
	bool asked;	     /* in a batch */
	bool again;	     /* once more after that */
	bool sweeping;	     /* asked by the sweep alone */
	bool doubt;	     /* we may have missed the log's end */
	/* Questions for its top: sent, the last that somebody waits for, the
	 * last that was answered, and that `known` was called for, which it is
	 * when the place is at report_at. */
	uint64_t asks, wanted, answered, reported, report_at;
	uint32_t asked_index; /* in the batch */
	uint64_t looked_ms;   /* its top was answered, or the sweep was here */
	uint64_t found;	      /* offset that the sweep found; 0: none */
	uint64_t found_ms;
	struct list in_looks; /* to be looked at again */
	uint64_t look_ms;
	struct list in_all;
};

/* Somebody waits for the next question that is sent: one that is under way may
 * have been answered before this moment. Returns its number. */
static inline uint64_t log_want(struct log *log)
{
	if (log->wanted <= log->reported)
		log->reported = log->asks; /* nobody waits for these */
	log->wanted = log->asks + 1;
	return log->wanted;
}

/* Whether `known` is to be called for somebody who waits. */
static inline bool log_tells(const struct log *log)
{
	return log->wanted > log->reported && log->answered > log->reported &&
	       log->place.offset >= log->report_at;
}

static inline bool log_known(const struct log *log)
{
	return log->place.epoch != 0;
}

/* None of them may close the channel's log or deliver to it. */
struct logs_ops {
	/* The next message in order; after the call the log's place is its
	 * position. Borrowed. */
	void (*pass)(void *ctx, struct channel *ch, const LinkDelivery *d);
	/* The place is known for the first time, or logs_ask() is answered:
	 * log->place. */
	void (*known)(void *ctx, struct channel *ch);
	/* The place is about to move, to offset `to` of the same epoch: what
	 * lies between is not kept any more, a gap. */
	void (*skipped)(void *ctx, struct channel *ch, uint64_t to);
	/* The place is about to move to another epoch. Each subscriber's moves
	 * by past_map(), which tells its gap. */
	void (*moved)(void *ctx, struct channel *ch, struct place to);
	/* All subscribers lack messages of an earlier epoch, as it turns out
	 * only now. */
	void (*lost)(void *ctx, struct channel *ch, const struct gap *gap);
	/* Whether there is a link to every dispatcher of the store. */
	bool (*whole)(void *ctx);
};

struct logs {
	struct questions *questions;
	const struct logs_ops *ops;
	void *ctx;
	size_t held_max, held_bytes;
	struct list all;     /* struct log.in_all, by looked_ms */
	struct list holes;   /* struct log.in_holes, the oldest first */
	struct list asks;    /* struct log.in_asks */
	struct list batches; /* tops that are being asked */
	struct list looks;   /* struct log.in_looks, by look_ms */
	uint64_t count;
	uint64_t now_ms, sweep_ms, sweep_due_ms;
	bool look; /* logs_moved_unnamed(), not before look_due_ms */
	uint64_t look_due_ms;
	struct {
		uint64_t doubles, holes, fetched, held_dropped;
		uint64_t behind; /* found by tops */
		uint64_t swept;	 /* by the sweep alone */
		uint64_t moved;	 /* to another epoch */
		uint64_t malformed;
	} counters;
};

/* `held_max`: bytes; `sweep_ms`: no log's top is left unasked for longer. */
void logs_init(struct logs *l, struct questions *questions,
	       const struct logs_ops *ops, void *ctx, size_t held_max,
	       uint64_t sweep_ms);
/* Every log must be closed. */
void logs_fini(struct logs *l);

/* channel->log for a channel that has none. Its place is asked for as soon as
 * logs_announced() says so: the top; or, where there are subscribers since
 * `since_ms` (ms since 1970) who are owed what comes (LOGS_SINCE_NOW: none),
 * before that: where the log begins if it was made later, or before the first
 * message that came meanwhile. */
#define LOGS_SINCE_NOW UINT64_MAX
struct log *logs_open(struct logs *l, struct channel *ch, uint64_t since_ms);
/* The same, at a place that is known. */
struct log *logs_open_at(struct logs *l, struct channel *ch,
			 struct place place);
void logs_close(struct logs *l, struct channel *ch);
/* All that is known to be in it has come. */
bool log_level(const struct log *log);

/* All live dispatchers know of our interest in the channel: what is published
 * from now on reaches us, so its top may be asked for. Idempotent. */
void logs_announced(struct logs *l, struct channel *ch);
/* Asks for the top though the place is known: a client claims to be ahead. When
 * the place has reached what is answered, `known` is called again, and
 * logs_told() the number that is returned. Whoever asks later, however often,
 * does not put that off. */
uint64_t logs_ask(struct logs *l, struct channel *ch);
static inline bool logs_told(const struct log *log, uint64_t ask)
{
	return log->reported >= ask;
}

/* A delivery with a position, for a channel that has a log. */
void logs_deliver(struct logs *l, struct channel *ch, const LinkDelivery *d,
		  uint64_t now_ms);
/* A dispatcher says that the log reaches to `top`; offset 0: further than it
 * did. */
void logs_moved(struct logs *l, struct channel *ch, struct place top,
		uint64_t now_ms);
/* More logs than it could name. */
void logs_moved_unnamed(struct logs *l);
/* A link to a dispatcher was lost, or has acknowledged our interest anew. */
void logs_resync(struct logs *l, bool lost);
/* Every turn that had something, and every few milliseconds while
 * logs_waiting(); what it asks leaves with questions_run(). */
void logs_run(struct logs *l, uint64_t now_ms);
/* True while a hole waits for its time. */
bool logs_waiting(const struct logs *l);

#endif

/* store.h - where the logs of reliable channels are kept. The lowest room: it
 * knows of no worker and no message, only of channels' names and of bytes.
 *
 *	in	store_append(), store_read(), store_tops()
 *	out	the `done` of each, once; `moved`, for what other dispatchers
 *		have appended
 *
 * A channel's log counts its messages 1, 2, 3 ... without holes, within an
 * epoch: the store's clock (milliseconds since 1970) when the log was made,
 * greater than any earlier epoch of that channel. The store is the only one
 * that counts. What it keeps of a message is a *record*, opaque bytes.
 *
 * A position is given once. Where a store may have gone back (a restart that
 * lost its tail, a fail-over, a restored copy), a log that was counted before
 * gets a new epoch before anything else is appended to it. What the log still
 * has is carried over: it keeps its offsets, and counting goes on behind it.
 *
 *	epoch 100:  1 2 3 4 5 6 7 (8 9 lost)
 *	epoch 200:  1 2 3 4 5 6 7  8'         eras: {100, 7}
 *
 * The log's *eras* tell for each earlier epoch up to which offset it and the
 * present one are the same, so that a reader's place is moved exactly. Within
 * an epoch a log's top never goes back. A store notices by an identity of its
 * own history (redis.h, lmdblog.h), and besides by what it is told (known, in
 * struct store_tops).
 *
 * One implementation a kind, chosen by URL:
 *
 *	memory:			memory.c   in this process; the reference
 *	lmdb:PATH		lmdb.c     embedded; one dispatcher
 *	redis://...		redis.c    shared; single, Sentinel, Cluster
 *
 * Everything is asynchronous, on the loop's thread: an operation's struct is
 * embedded in the caller's own, borrowed with all it points to from the call
 * until its `done` runs, which happens exactly once and never inside the call.
 * Stores batch by themselves what is submitted within a turn of the loop.
 * Appends of one channel are done in the order in which they were submitted.
 *
 * Bounded: appends that wait, or whose `late` is to come, hold at most
 * config.queue_bytes; one more fails with ERR_FULL. Every operation ends within
 * config.timeout_ms or so.
 */
#ifndef STENTOR_DISPATCHER_STORE_STORE_H
#define STENTOR_DISPATCHER_STORE_STORE_H

#include "common/base/check.h"
#include "common/base/metrics.h"
#include "common/ds/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define STORE_MESSAGE_ID_SIZE	  40  /* with the final zero */
#define STORE_IDEMPOTENCY_KEY_MAX 128 /* bytes of [!-~] */
#define STORE_TOPS_MAX		  512 /* channels of one store_tops() */
#define STORE_FAULT_SIZE	  256
#define STORE_ERAS_MAX		  8  /* of a log that are remembered */
#define STORE_PEERS_MAX		  64 /* dispatchers of one store */
/* No clock says more (in Lua's numbers it is exact); a greater epoch that is
 * `known` is nobody's and not believed: epochs must not be used up. */
#define STORE_KNOWN_MAX ((uint64_t)1 << 52)

struct store;
struct uv_loop_s;

/* A place in a log. No log: the store's clock and offset 0. */
struct store_place {
	uint64_t epoch, offset;
};

/* An earlier epoch of a log: messages up to `offset` are the same in it and in
 * the present one. */
struct store_era {
	uint64_t epoch, offset;
};

/* The newest first; mostly none. A place in an epoch that is neither the log's
 * nor among them belongs to a log that is gone. */
struct store_eras {
	unsigned count;
	struct store_era era[STORE_ERAS_MAX];
};

/* Appends one message.
 *
 * rc: 0: durable, and `place` is its position;
 *     ERR_UNAVAILABLE: the store is gone, slow or moving; whether the message
 *       was appended is not known unless `definite` is set;
 *     ERR_FULL: no room (queue_bytes, disk, memory of the store): not appended;
 *     ERR_EXISTS: the idempotency key was used with another digest: not
 *       appended;
 *     ERR_IO: the store is broken (corrupt, read-only): not appended. */
struct store_append {
	const char *channel;
	const void *record;
	size_t len;
	/* The rule's: at most `size` messages are given, and each until it is
	 * `ttl_ms` old (0: for ever), as the newest append says. */
	uint32_t size;
	uint64_t ttl_ms;
	/* "" for none. The same key on the same channel within
	 * config.idempotency_ms appends nothing and returns the first answer,
	 * as long as the log still has that message's position: a message
	 * that the store has lost is appended again. */
	const char *idempotency_key;
	uint64_t digest; /* of what is published, beside the key */
	/* In: this message's id. Out: the first one's, if `duplicate`. */
	char message_id[STORE_MESSAGE_ID_SIZE];
	void (*done)(struct store_append *a);
	/* Not NULL: where `done` was told ERR_UNAVAILABLE and not `definite`,
	 * all stays borrowed until this runs, exactly once: `rc` 0, it was
	 * appended after all, at `place`; else ERR_UNAVAILABLE: certainly not
	 * (`definite`), or that can't be known any more. At the latest while
	 * the store closes, and about config.timeout_ms after `done`; at once
	 * after it where nothing can be learned (memory and lmdb, whose
	 * commits have no time-out). */
	void (*late)(struct store_append *a);
	/* out */
	int rc;
	bool definite; /* failed, and certainly not appended */
	bool busy;     /* ERR_FULL, of queue_bytes alone: passes by itself */
	bool duplicate;
	struct store_place place;
	/* private */
	struct list in_store;
	uint64_t started_ns;
};

struct store_record {
	uint64_t offset;
	const uint8_t *bytes;
	size_t len;
};

/* Reads records of a log in order.
 *
 * rc: 0; ERR_UNAVAILABLE; ERR_IO. No log, or one of another epoch than was
 * meant, is 0 without records: look at `top`. */
struct store_read {
	const char *channel;
	uint64_t epoch; /* of the log that is meant; 0: whichever there is */
	uint64_t after; /* records with a greater offset */
	bool latest;	/* the newest records_max instead; `after` is ignored */
	uint32_t records_max;
	size_t bytes_max; /* of records; the first comes whatever its size */
	void (*done)(struct store_read *r);
	/* out; records are valid until `done` returns */
	int rc;
	struct store_place top;
	struct store_eras eras;
	uint64_t first; /* least offset still there; top.offset + 1: none */
	const struct store_record *records;
	size_t count;
	/* private */
	struct list in_store;
	uint64_t started_ns;
};

/* Reads the tops of many logs. rc as for store_read.
 *
 * `known` says what somebody has seen of each log. One that has not got so far
 * has gone back: it gets a new epoch in this very operation, greater than the
 * one that is known. Whoever has followed a log may know epochs of it that the
 * store has forgotten, because it went back behind their beginning: the log
 * learns them (known_eras). Where there is no log, its next epoch will be greater, and
 * so is the clock that is told. */
struct store_tops {
	const char *const *channels;
	const struct store_place *known; /* for each; epoch 0: nothing. NULL:
					  * of none */
	/* Of the epoch that is known, for each. NULL: of none. */
	const struct store_eras *known_eras;
	size_t count; /* at most STORE_TOPS_MAX */
	/* out: the caller's memory for `count` of each; eras NULL: of no
	 * interest */
	struct store_place *places;
	struct store_eras *eras;
	void (*done)(struct store_tops *t);
	int rc; /* out */
	/* private */
	struct list in_store;
	uint64_t started_ns;
};

struct store_config {
	const char *url, *password; /* "" for none; borrowed */
	uint64_t queue_bytes;	    /* 64 MiB: of appends that wait */
	uint64_t timeout_ms;	    /* 2000: of one operation */
	uint64_t idempotency_ms;    /* 5 min */
	uint64_t map_bytes;	    /* memory, lmdb: most it may grow to */
	uint64_t replicas; /* redis: that must have it before it is durable */
	/* rediss: PEM files, borrowed during store_open(): the authorities that
	 * are trusted ("" or NULL: the system's), and what is shown. */
	const char *tls_ca, *tls_cert, *tls_key;

	/* This dispatcher, among those of the store. 0: it has no name, and
	 * neither tells nor hears. */
	uint64_t instance;
	/* The dispatcher `by` has appended to a log, up to `top`; {0, 0}:
	 * perhaps it has, look. channel NULL: some such news may have been
	 * missed, of `by` or (0) of anyone. NULL: not listened to. Never
	 * called inside a call. */
	void (*moved)(void *ctx, uint64_t by, const char *channel,
		      struct store_place top);
	void *ctx;
};

/* Another dispatcher of the same store, as heard lately. */
struct store_peer {
	uint64_t instance;
	uint64_t workers; /* that it sees */
};

/* What a store says of itself; for readiness, metrics and links. */
struct store_state {
	bool up;	   /* operations may be tried */
	uint64_t identity; /* of the store, for its life; 0: not known yet */
	char fault[STORE_FAULT_SIZE]; /* why it is not up; "" */
	uint64_t bytes, bytes_max;    /* used, where it is known; else 0 */
	size_t queue_bytes;	      /* appends that wait, or are open */
	struct store_peer peers[STORE_PEERS_MAX];
	unsigned peer_count;
};

enum store_op { STORE_APPEND, STORE_READ, STORE_TOPS, STORE_TRIM };
#define STORE_OPS 4
extern const char *const store_op_names[STORE_OPS + 1];

enum store_metric {
	SM_DURATION,	  /* histogram store_op_duration_seconds{op} */
	SM_ERRORS,	  /* store_errors_total{op} */
	SM_BATCH_APPENDS, /* store_appended_total: divide by batches */
	SM_BATCHES,	  /* store_batches_total */
	SM_DUPLICATES,	  /* store_duplicates_total */
	SM_LATE,	  /* store_late_total */
	SM_HISTORIES,	  /* store_histories_total */
	SM_ERAS,	  /* store_eras_total */
	SM_QUEUE_BYTES,
	SM_UP,
	SM_BYTES,
	SM_BYTES_MAX,
	SM_PEERS,
	SM_MOVED,	 /* store_moved_total{direction} */
	SM_NEWS_UP,	 /* store_news_up */
	SM_NEWS_IGNORED, /* store_news_ignored_total */
	SM_RECONNECTS,
	SM_COUNT
};
/* Labels of SM_MOVED: channels told to others, and by others; and times that
 * something may have been missed. */
enum store_moved { STORE_MOVED_SENT, STORE_MOVED_HEARD, STORE_MOVED_MISSED };
extern const struct metric_desc store_metrics[SM_COUNT];

/* ERR_CONFIG, with a text for people in `fault`, for what can't become right by
 * waiting: an unknown URL, a path that can't be written, a corrupt file, one
 * that another dispatcher has open. A Redis that is not there yet is no error:
 * the store is not `up`, and tries. */
int store_open(struct uv_loop_s *loop, const struct store_config *config,
	       struct store **out, char fault[STORE_FAULT_SIZE]) MUST_CHECK;
/* No operation may follow. What waits ends (done with ERR_UNAVAILABLE where it
 * was not begun), then `closed` runs and the store is freed. */
void store_close(struct store *s, void (*closed)(void *ctx), void *ctx);

void store_append(struct store *s, struct store_append *a);
void store_read(struct store *s, struct store_read *r);
void store_tops(struct store *s, struct store_tops *t);
/* Forgets what has expired, some at a time; the owner calls it every second
 * or so. Redis does that by itself. */
void store_trim(struct store *s);
/* What the other dispatchers of the store are to hear of this one. */
void store_report(struct store *s, uint64_t workers);

/* The directory that a store of this URL writes to, within it; NULL: none. */
const char *store_directory(const char *url);
/* True if the kind serves one dispatcher only. */
bool store_embedded(const struct store *s);
const struct store_state *store_state(const struct store *s);
/* Its counters, to be rendered; valid until it is closed. */
const struct metrics *store_counters(struct store *s);

#endif

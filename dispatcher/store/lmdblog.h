/* lmdblog.h - the logs of reliable channels in an LMDB file; lmdb.c's
 * synchronous half, which runs on worker threads and is told what time it is.
 *
 * The path is a directory, created if there is none (its parent must exist),
 * with data.mdb and lock.mdb of LMDB and dispatcher.lock, which this process
 * holds as long as the store is open: a second one is refused.
 *
 * What is kept, numbers in keys big-endian, in values little-endian:
 *
 *	(main)	"stentor"		format, identity, epoch, sequence
 *	logs	channel			epoch, top, first, kept, last, ttl, due
 *	records	epoch, offset		the record
 *	keys	channel 0 key		expires, epoch, offset, message id
 *	expiry	time, sequence		'L' channel, or 'K' and a key of `keys`
 *
 * An epoch is greater than all before it, so it names a log by itself. `expiry`
 * is what trimming goes by: one entry a log at `due`, pushed on when it turns
 * out that there were later messages, and one for each key.
 *
 * A log's messages expire together, `ttl_ms` after the last append (0: never).
 * Its epoch and its counting stay max(ttl_ms, LMDBLOG_LINGER_MS) longer.
 * Records over the rule's size are not given any more at once, but deleted some
 * at a time (`kept` follows `first`): far fewer pages change.
 *
 * Threads: one writer at a time (append, trim, recover) and one reader beside
 * it (read, tops), except beside recover. What only the writer touches says so.
 * Functions return 0 or LMDB's own code, negative, or an errno, positive;
 * lmdblog_err() makes it ours.
 */
#ifndef STENTOR_DISPATCHER_STORE_LMDBLOG_H
#define STENTOR_DISPATCHER_STORE_LMDBLOG_H

#include "common/base/hash.h"
#include "common/ds/arena.h"
#include "common/ds/hmap.h"
#include "dispatcher/store/store.h"

#include <lmdb.h>

#define LMDBLOG_FORMAT	    1u
#define LMDBLOG_LINGER_MS   (24u * 3600 * 1000)
#define LMDBLOG_TRIM_STEPS  2000  /* records and entries of one trim */
#define LMDBLOG_CACHED_LOGS 65536 /* that the writer has in memory */

/* What the file's main record holds, less the format. */
struct lmdblog_global {
	uint64_t identity; /* drawn when the file was made */
	uint64_t epoch;	   /* no log has, or had, a greater one */
	uint64_t sequence; /* of the last entry of `expiry` */
};

/* Whether more may be tried after a failure. */
enum lmdblog_health {
	LMDBLOG_WELL,
	LMDBLOG_RETRY, /* after lmdblog_recover() */
	LMDBLOG_DEAD,  /* the file is corrupt */
};

struct lmdblog_answer;

struct lmdblog {
	const char *path; /* borrowed */
	uint64_t map_bytes, idempotency_ms;
	int lock_fd;
	MDB_env *env; /* NULL only after a failed lmdblog_recover() */
	MDB_dbi main, logs, records, keys, expiry;
	/* the writer's */
	struct lmdblog_global global;
	uint64_t used;	/* bytes, as of the last commit */
	bool unsettled; /* it may have freed pages */
	struct hash_key hash_key;
	struct hmap cache;    /* logs by channel */
	struct log **touched; /* by this transaction */
	size_t touched_count, touched_cap;
	struct lmdblog_answer *answers; /* duplicates of this transaction */
	size_t answer_count, answer_cap;
};

/* ERR_CONFIG and a text for people in `fault`. */
int lmdblog_open(struct lmdblog *l, const char *path, uint64_t map_bytes,
		 uint64_t idempotency_ms, uint64_t now_ms,
		 char fault[STORE_FAULT_SIZE]) MUST_CHECK;
void lmdblog_close(struct lmdblog *l);

/* One transaction for all, more only where the map is full: that is told to
 * those that do not fit, and is no failure of the call. Sets each one's
 * results; what they say after a failure is definite unless the disk broke
 * while it was told where the newest transaction is. */
int lmdblog_append(struct lmdblog *l, struct store_append *const *appends,
		   size_t count, uint64_t now_ms);

/* Set the operation's results. Records are in `arena`. */
int lmdblog_read(const struct lmdblog *l, MDB_txn *txn, struct store_read *r,
		 struct arena *arena, uint64_t now_ms);
int lmdblog_tops(const struct lmdblog *l, MDB_txn *txn, struct store_tops *t,
		 uint64_t now_ms);

/* Deletes what has expired, at most LMDBLOG_TRIM_STEPS; `more`: there is. */
int lmdblog_trim(struct lmdblog *l, uint64_t now_ms, bool *more);

/* After a failure: opens the file anew where LMDB wants it, and tries whether
 * there is room on the disk. */
int lmdblog_recover(struct lmdblog *l);

int lmdblog_err(int rc);
enum lmdblog_health lmdblog_health(int rc);

#endif

/* lmdblog.h - the logs of reliable channels in an LMDB file; lmdb.c's
 * synchronous half, which runs on worker threads and is told what time it is.
 *
 * The path is a directory, created if there is none (its parent must exist),
 * with data.mdb and lock.mdb of LMDB, `history`, and dispatcher.lock, which
 * this process holds as long as the store is open: a second one is refused.
 *
 * What is kept, numbers in keys big-endian, in values little-endian:
 *
 *	(main)	"stentor"		format, identity, epoch, sequence,
 *					commit, history
 *	logs	channel			epoch, top, first, kept, last, ttl, due,
 *					id, history, timed, untimed, eras
 *	records	id, offset		time, the record
 *	keys	channel 0 key		expires, epoch, offset, digest,
 *					message id
 *	expiry	time, sequence		'L' channel, or 'K' and a key of `keys`
 *
 * An epoch is greater than all before it, so a log's first one names it by
 * itself: its records stay where they are when it gets another. `expiry` is
 * what trimming goes by: one entry a log at `due`, pushed on as long as there
 * are messages, and one for each key.
 *
 * A file of format 1 is of format 2 once it was opened, and an older program
 * refuses it. What stands in it is rewritten as it is used (lmdblog_meta.c):
 * its records have no time and its keys no digest.
 *
 * Each message is given until it is `ttl_ms` old (0: for ever), and deleted in
 * some eighth of that time. The log's epoch and its counting stay max(ttl_ms,
 * LMDBLOG_LINGER_MS) longer than the last one. Records over the rule's size are
 * not given any more at once, but deleted some at a time (`kept` follows
 * `first`): far fewer pages change.
 *
 * Gone back: lmdblog_history.c tells how it is noticed at lmdblog_open() and
 * lmdblog_recover() that an older copy was put in the file's place. A snapshot
 * of a whole volume, put back with all inodes, can't be seen from inside; what
 * workers have seen shows it (`known`, store.h).
 *
 * Threads: one writer at a time (append, renew, trim, recover) and one reader
 * beside it (read, tops), except beside recover. What only the writer touches
 * says so. Functions return 0 or LMDB's own code, negative, or an errno,
 * positive; lmdblog_err() makes it ours.
 */
#ifndef STENTOR_DISPATCHER_STORE_LMDBLOG_H
#define STENTOR_DISPATCHER_STORE_LMDBLOG_H

#include "common/base/hash.h"
#include "common/ds/arena.h"
#include "common/ds/hmap.h"
#include "dispatcher/store/store.h"

#include <lmdb.h>

#define LMDBLOG_FORMAT	    2u
#define LMDBLOG_LINGER_MS   (24u * 3600 * 1000)
#define LMDBLOG_TRIM_STEPS  2000  /* records and entries of one trim */
#define LMDBLOG_CACHED_LOGS 65536 /* that the writer has in memory */

/* What the file's main record holds, less the format. */
struct lmdblog_global {
	uint64_t identity; /* drawn when the file was made */
	uint64_t epoch;	   /* no log has, or had, a greater one */
	uint64_t sequence; /* of the last entry of `expiry` */
	uint64_t commit;   /* how many there were that counted something */
	uint64_t history;  /* drawn when it may have gone back; 0: never */
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
	int lock_fd, dir_fd;
	MDB_env *env; /* NULL only after a failed lmdblog_recover() */
	MDB_dbi main, logs, records, keys, expiry;
	/* the writer's */
	struct lmdblog_global global;
	int history_fd;	     /* -1: there is no such file */
	uint64_t history_ms; /* when it was made */
	uint64_t histories;  /* how often the file may have gone back */
	uint64_t eras;	     /* new epochs that logs got for it */
	uint64_t used;	     /* bytes, as of the last commit */
	bool unsettled;	     /* it may have freed pages */
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

/* Set the operation's results. Records are in `arena`. A log that the
 * transaction does not see was made after `made_ms`. `behind`: some log may
 * have gone back, and lmdblog_renew() has to do it. */
int lmdblog_read(const struct lmdblog *l, MDB_txn *txn, struct store_read *r,
		 struct arena *arena, uint64_t now_ms, uint64_t made_ms);
int lmdblog_tops(const struct lmdblog *l, MDB_txn *txn, struct store_tops *t,
		 uint64_t made_ms, bool *behind);

/* Gives the logs that have gone back new epochs, in one transaction for all,
 * and sets the operations' results, `rc` among them. Where the map is full that
 * is tried by halves: what could be done then stays, also of an operation that
 * failed. */
int lmdblog_renew(struct lmdblog *l, struct store_tops *const *tops,
		  size_t count, uint64_t now_ms);

/* Deletes what has expired, at most LMDBLOG_TRIM_STEPS; `more`: there is. */
int lmdblog_trim(struct lmdblog *l, uint64_t now_ms, bool *more);

/* After a failure: opens the file anew where LMDB wants it, and tries whether
 * there is room on the disk. */
int lmdblog_recover(struct lmdblog *l);

int lmdblog_err(int rc);
enum lmdblog_health lmdblog_health(int rc);

#endif

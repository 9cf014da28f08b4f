/* lmdblog_internal.h - what the lmdblog*.c files share. */
#ifndef STENTOR_DISPATCHER_STORE_LMDBLOG_INTERNAL_H
#define STENTOR_DISPATCHER_STORE_LMDBLOG_INTERNAL_H

#include "common/codec/channel.h"
#include "common/codec/place.h"
#include "dispatcher/store/lmdblog.h"

#include <endian.h>
#include <string.h>

/* A write transaction, and the room that is left to appends in it. */
struct write_txn {
	MDB_txn *txn;
	MDB_cursor *records;
	struct lmdblog_global before; /* what an abort goes back to */
	uint64_t now_ms;
	int64_t room;  /* bytes */
	uint64_t eras; /* that were begun */
};

/* What `logs` holds of a channel. Records kept..top are in the file, those
 * before `first` only until somebody deletes them; some from there on may have
 * expired. */
struct log_meta {
	uint64_t epoch, top, first, kept;
	uint64_t last_ms; /* when the newest was appended; never goes back */
	uint64_t ttl_ms;
	uint64_t due_ms;     /* of its entry in `expiry`; 0: it has none */
	uint64_t id;	     /* in its records' keys: its first epoch */
	uint64_t history;    /* the store's, as its epoch began */
	uint64_t timed;	     /* records from here on begin with their time */
	uint64_t untimed_ms; /* and that of those before it */
	struct store_eras eras;
};

/* A log in the writer's cache. */
struct log {
	struct hmap_node by_channel;
	struct log_meta meta;
	struct list pending; /* appends of this transaction */
	size_t pending_count;
	uint32_t size; /* the rule's, as the last append told */
	bool touched;  /* by this transaction: to be written */
	char channel[CHANNEL_NAME_MAX + 1];
};

/* `expiry` says what an entry is about by the first byte of its value. */
#define ENTRY_LOG 'L'
#define ENTRY_KEY 'K'

/* --- values ------------------------------------------------------------ */

static inline MDB_val val_of(const void *bytes, size_t len)
{
	return (MDB_val){len, (void *)bytes};
}

static inline void le_put(uint8_t *to, const uint64_t *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t n = htole64(numbers[i]);

		memcpy(to + 8 * i, &n, 8);
	}
}

static inline void le_get(uint64_t *numbers, const uint8_t *from, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		memcpy(&numbers[i], from + 8 * i, 8);
		numbers[i] = le64toh(numbers[i]);
	}
}

/* A key of two numbers, which sort as they count. */
struct pair_key {
	uint8_t bytes[16];
};

static inline struct pair_key pair_key(uint64_t first, uint64_t second)
{
	struct pair_key key;
	uint64_t be[2] = {htobe64(first), htobe64(second)};

	memcpy(key.bytes, be, sizeof(be));
	return key;
}

static inline int pair_of(MDB_val key, uint64_t *first, uint64_t *second)
{
	uint64_t be[2];

	if (key.mv_size != sizeof(be))
		return MDB_CORRUPTED;
	memcpy(be, key.mv_data, sizeof(be));
	*first = be64toh(be[0]);
	*second = be64toh(be[1]);
	return 0;
}

#define META_NUMBERS  11
#define META_SIZE     ((size_t)META_NUMBERS * 8)
#define META_SIZE_MAX (META_SIZE + STORE_ERAS_MAX * 16)
#define RECORD_TIME   8 /* bytes that a record begins with */
#define EPOCH_MAX     PLACE_EPOCH_MAX

int meta_decode(struct log_meta *meta, MDB_val value);
/* Returns the size. */
size_t meta_encode(uint8_t to[META_SIZE_MAX], const struct log_meta *meta);

/* Takes a record's time from its value. */
int record_decode(const struct log_meta *meta, uint64_t offset, MDB_val *value,
		  uint64_t *ms);
int record_time(const struct lmdblog *l, MDB_txn *txn,
		const struct log_meta *meta, uint64_t offset, uint64_t *ms);
/* The first of the records up to `last` that has not expired, or last + 1. */
int meta_first(const struct lmdblog *l, MDB_txn *txn,
	       const struct log_meta *meta, uint64_t last, uint64_t now_ms,
	       uint64_t *first);

static inline bool has_expired(const struct log_meta *meta, uint64_t ms,
			       uint64_t now_ms)
{
	return meta->ttl_ms > 0 && now_ms >= ms && now_ms - ms >= meta->ttl_ms;
}

/* Not to find what another record speaks of is corruption. */
static inline int must_exist(int rc)
{
	return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
}

/* As the transaction sees it. */
int global_read(const struct lmdblog *l, MDB_txn *txn,
		struct lmdblog_global *global);
int global_put(struct lmdblog *l, MDB_txn *txn);

/* --- the file `history` ------------------------------------------------ */

/* Reads it. True if the file may have gone back: there is a new history, to be
 * made durable before anything else happens. */
bool history_judge(struct lmdblog *l, uint64_t now_ms);
/* Makes it anew. */
void history_replace(struct lmdblog *l, bool sync, uint64_t now_ms);
/* After each commit. */
void history_commit(struct lmdblog *l, uint64_t now_ms);

/* --- transactions ------------------------------------------------------ */

/* write_end() commits where `rc` is 0, else gives all up: then the cache is
 * empty and the globals are what they were. Returns what went wrong first. */
int write_begin(struct lmdblog *l, struct write_txn *t, uint64_t now_ms);
int write_end(struct lmdblog *l, struct write_txn *t, int rc);
/* LMDB uses pages again in the second transaction after the one that freed
 * them; while everything fails for a full map there would be none. */
void write_settle(struct lmdblog *l, uint64_t now_ms);

/* The log of a channel, from the cache or the file; MDB_NOTFOUND. */
int log_load(struct lmdblog *l, struct write_txn *t, const char *channel,
	     struct log **out);
/* That; and if it was counted under another history, it has a new epoch. */
int log_load_counted(struct lmdblog *l, struct write_txn *t,
		     const char *channel, struct log **out);
/* A new epoch, greater than `known` too. */
void log_begin_era(struct lmdblog *l, struct write_txn *t, struct log *log,
		   uint64_t known);
struct log *log_add(struct lmdblog *l, const char *channel);
void log_forget(struct lmdblog *l, struct log *log);
void log_touch(struct lmdblog *l, struct log *log);
void cache_bound(struct lmdblog *l);
/* Deletes up to `count` of the oldest records: those before `first`, and if
 * `expired` those that have. `first` follows. */
int log_delete(struct lmdblog *l, struct write_txn *t, struct log *log,
	       uint64_t count, bool expired);

int expiry_put(struct lmdblog *l, struct write_txn *t, uint64_t time_ms,
	       char what, const void *name, size_t len);
/* Sets the log's entry; `due_ms` becomes `time_ms`. */
int log_set_due(struct lmdblog *l, struct write_txn *t, struct log *log,
		uint64_t time_ms);

#endif

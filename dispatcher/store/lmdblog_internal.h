/* lmdblog_internal.h - what the lmdblog*.c files share. */
#ifndef STENTOR_DISPATCHER_STORE_LMDBLOG_INTERNAL_H
#define STENTOR_DISPATCHER_STORE_LMDBLOG_INTERNAL_H

#include "common/codec/channel.h"
#include "dispatcher/store/lmdblog.h"

#include <endian.h>
#include <string.h>

/* A write transaction, and the room that is left to appends in it. */
struct write_txn {
	MDB_txn *txn;
	MDB_cursor *records;
	struct lmdblog_global before; /* what an abort goes back to */
	uint64_t now_ms;
	int64_t room; /* bytes */
};

/* What `logs` holds of a channel. Records kept..top are in the file, those
 * before `first` only until somebody deletes them. */
struct log_meta {
	uint64_t epoch, top, first, kept;
	uint64_t last_ms, ttl_ms;
	uint64_t due_ms; /* of its entry in `expiry`; 0: it has none */
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

#define META_SIZE (sizeof(struct log_meta))
_Static_assert(META_SIZE == 7 * 8, "log_meta is seven numbers");

int meta_decode(struct log_meta *meta, MDB_val value);

static inline bool messages_expired(const struct log_meta *meta,
				    uint64_t now_ms)
{
	return meta->ttl_ms > 0 && now_ms >= meta->last_ms + meta->ttl_ms;
}

/* Not to find what another record speaks of is corruption. */
static inline int must_exist(int rc)
{
	return rc == MDB_NOTFOUND ? MDB_CORRUPTED : rc;
}

/* The greatest epoch so far, as the transaction sees it. */
int global_epoch(const struct lmdblog *l, MDB_txn *txn, uint64_t *epoch);

/* --- transactions ------------------------------------------------------ */

/* write_end() commits where `rc` is 0, else gives all up: then the cache is
 * empty and the globals are what they were. Returns what went wrong first. */
int write_begin(struct lmdblog *l, struct write_txn *t, uint64_t now_ms);
int write_end(struct lmdblog *l, struct write_txn *t, int rc);

/* The log of a channel, from the cache or the file; MDB_NOTFOUND. */
int log_load(struct lmdblog *l, struct write_txn *t, const char *channel,
	     struct log **out);
struct log *log_add(struct lmdblog *l, const char *channel);
void log_forget(struct lmdblog *l, struct log *log);
void log_touch(struct lmdblog *l, struct log *log);
/* Deletes the `count` oldest records. */
int log_delete(struct lmdblog *l, struct write_txn *t, struct log *log,
	       uint64_t count);

int expiry_put(struct lmdblog *l, struct write_txn *t, uint64_t time_ms,
	       char what, const void *name, size_t len);
/* Sets the log's entry; `due_ms` becomes `time_ms`. */
int log_set_due(struct lmdblog *l, struct write_txn *t, struct log *log,
		uint64_t time_ms);

#endif

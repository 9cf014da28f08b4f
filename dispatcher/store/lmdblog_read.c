/* lmdblog_read.c - records and tops, from a read transaction. */
#include "dispatcher/store/lmdblog_internal.h"

#include <errno.h>

/* MDB_NOTFOUND: no such log. */
static int meta_get(const struct lmdblog *l, MDB_txn *txn, const char *channel,
		    struct log_meta *meta)
{
	MDB_val key = val_of(channel, strlen(channel)), value;
	int rc = mdb_get(txn, l->logs, &key, &value);

	return rc ? rc : meta_decode(meta, value);
}

/* No log: a place before that of any log made after this transaction. Such a
 * log's epoch is greater than all that were before it, and than `now_ms`. */
static int no_log(const struct lmdblog *l, MDB_txn *txn, uint64_t now_ms,
		  struct store_place *place)
{
	uint64_t epoch;
	int rc = global_epoch(l, txn, &epoch);

	*place = (struct store_place){max_of(epoch, now_ms), 0};
	return rc;
}

static int copy_record(struct store_record *to, struct arena *arena,
		       uint64_t offset, MDB_val value)
{
	uint8_t *bytes = arena_alloc(arena, value.mv_size + 1);

	if (bytes == NULL)
		return ENOMEM;
	memcpy(bytes, value.mv_data, value.mv_size);
	*to = (struct store_record){offset, bytes, value.mv_size};
	return 0;
}

/* Records from..top, up to the read's limits. */
static int read_records(MDB_cursor *cursor, struct store_read *r,
			struct arena *arena, uint64_t from)
{
	uint64_t left =
		min_of(r->top.offset + 1 - from, (uint64_t)r->records_max);
	struct store_record *records;
	struct pair_key pair = pair_key(r->top.epoch, from);
	MDB_val key = val_of(pair.bytes, sizeof(pair.bytes)), value;
	MDB_cursor_op op = MDB_SET_KEY;
	size_t bytes = 0;

	records = arena_alloc(arena, left * sizeof(*records));
	if (records == NULL)
		return ENOMEM;
	r->records = records;
	for (; left > 0; left--, from++, op = MDB_NEXT) {
		uint64_t epoch, offset;
		int rc = must_exist(mdb_cursor_get(cursor, &key, &value, op));

		if (rc == 0)
			rc = pair_of(key, &epoch, &offset);
		if (rc == 0 && (epoch != r->top.epoch || offset != from))
			rc = MDB_CORRUPTED;
		bytes += rc == 0 ? value.mv_size : 0;
		if (rc == 0 && r->count > 0 && bytes > r->bytes_max)
			return 0;
		if (rc == 0)
			rc = copy_record(&records[r->count++], arena, from,
					 value);
		if (rc != 0)
			return rc;
	}
	return 0;
}

int lmdblog_read(const struct lmdblog *l, MDB_txn *txn, struct store_read *r,
		 struct arena *arena, uint64_t now_ms)
{
	struct log_meta meta;
	MDB_cursor *cursor;
	uint64_t from;
	int rc = meta_get(l, txn, r->channel, &meta);

	r->first = 1;
	if (rc == MDB_NOTFOUND)
		return no_log(l, txn, now_ms, &r->top);
	if (rc != 0)
		return rc;
	r->top = (struct store_place){meta.epoch, meta.top};
	r->first = messages_expired(&meta, now_ms) ? meta.top + 1 : meta.first;
	if (r->epoch != 0 && r->epoch != meta.epoch)
		return 0;
	if (r->first > meta.top || (!r->latest && r->after >= meta.top) ||
	    r->records_max == 0)
		return 0;
	from = r->first;
	if (!r->latest)
		from = max_of(from, r->after + 1);
	else if (meta.top - from + 1 > r->records_max)
		from = meta.top + 1 - r->records_max;
	rc = mdb_cursor_open(txn, l->records, &cursor);
	if (rc != 0)
		return rc;
	rc = read_records(cursor, r, arena, from);
	mdb_cursor_close(cursor);
	return rc;
}

int lmdblog_tops(const struct lmdblog *l, MDB_txn *txn, struct store_tops *t,
		 uint64_t now_ms)
{
	for (size_t i = 0; i < t->count; i++) {
		struct log_meta meta;
		int rc = meta_get(l, txn, t->channels[i], &meta);

		if (rc == 0)
			t->places[i] =
				(struct store_place){meta.epoch, meta.top};
		else if (rc == MDB_NOTFOUND)
			rc = no_log(l, txn, now_ms, &t->places[i]);
		if (rc != 0)
			return rc;
	}
	return 0;
}

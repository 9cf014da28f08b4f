/* lmdblog_read.c - records and tops, from a read transaction. */
#include "dispatcher/store/eras.h"
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
 * log's epoch is greater than all that were before it, and than `made_ms`. */
static struct store_place no_log(const struct lmdblog_global *global,
				 uint64_t made_ms)
{
	return (struct store_place){max_of(global->epoch, made_ms), 0};
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
static int read_records(MDB_cursor *cursor, const struct log_meta *meta,
			struct store_read *r, struct arena *arena,
			uint64_t from)
{
	uint64_t left =
		min_of(r->top.offset + 1 - from, (uint64_t)r->records_max);
	struct store_record *records;
	struct pair_key pair = pair_key(meta->id, from);
	MDB_val key = val_of(pair.bytes, sizeof(pair.bytes)), value;
	MDB_cursor_op op = MDB_SET_KEY;
	size_t bytes = 0;

	records = arena_alloc(arena, left * sizeof(*records));
	if (records == NULL)
		return ENOMEM;
	r->records = records;
	for (; left > 0; left--, from++, op = MDB_NEXT) {
		uint64_t id, offset, ms;
		int rc = must_exist(mdb_cursor_get(cursor, &key, &value, op));

		if (rc == 0)
			rc = pair_of(key, &id, &offset);
		if (rc == 0 && (id != meta->id || offset != from))
			rc = MDB_CORRUPTED;
		if (rc == 0)
			rc = record_decode(meta, offset, &value, &ms);
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
		 struct arena *arena, uint64_t now_ms, uint64_t made_ms)
{
	struct lmdblog_global global;
	struct log_meta meta;
	MDB_cursor *cursor;
	uint64_t from;
	int rc = meta_get(l, txn, r->channel, &meta);

	r->first = 1;
	if (rc == MDB_NOTFOUND) {
		rc = global_read(l, txn, &global);
		if (rc == 0)
			r->top = no_log(&global, made_ms);
		return rc;
	}
	if (rc == 0)
		rc = meta_first(l, txn, &meta, meta.top, now_ms, &r->first);
	if (rc != 0)
		return rc;
	r->top = (struct store_place){meta.epoch, meta.top};
	r->eras = meta.eras;
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
	rc = read_records(cursor, &meta, r, arena, from);
	mdb_cursor_close(cursor);
	return rc;
}

int lmdblog_tops(const struct lmdblog *l, MDB_txn *txn, struct store_tops *t,
		 uint64_t made_ms, bool *behind)
{
	struct lmdblog_global global;
	int rc = global_read(l, txn, &global);

	*behind = false;
	for (size_t i = 0; i < t->count && rc == 0; i++) {
		struct log_meta meta = {.history = global.history};

		rc = meta_get(l, txn, t->channels[i], &meta);
		t->places[i] = (struct store_place){meta.epoch, meta.top};
		if (rc == MDB_NOTFOUND) {
			rc = 0;
			t->places[i] = no_log(&global, made_ms);
		}
		if (t->eras)
			t->eras[i] = meta.eras;
		if (rc == 0 && t->known && t->known_eras &&
		    eras_learn_all(&meta.eras, t->places[i], t->known[i],
				   &t->known_eras[i]))
			*behind = true;
		if (meta.history != global.history ||
		    (t->known && t->known[i].epoch != 0 &&
		     eras_behind(t->places[i], t->known[i])))
			*behind = true;
	}
	return rc;
}

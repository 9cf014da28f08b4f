/* lmdblog_trim.c - deletes what has expired, along `expiry`. */
#include "dispatcher/store/lmdblog_internal.h"

static int entry_delete(struct lmdblog *l, struct write_txn *t,
			struct pair_key pair)
{
	MDB_val key = val_of(pair.bytes, sizeof(pair.bytes));

	return must_exist(mdb_del(t->txn, l->expiry, &key, NULL));
}

/* The key may have been used anew after its window: then it has a later entry
 * too. */
static int key_expire(struct lmdblog *l, struct write_txn *t, MDB_val name)
{
	uint64_t expires_ms;
	MDB_val value;
	int rc = mdb_get(t->txn, l->keys, &name, &value);

	if (rc != 0)
		return rc == MDB_NOTFOUND ? 0 : rc;
	if (value.mv_size < 8)
		return MDB_CORRUPTED;
	le_get(&expires_ms, value.mv_data, 1);
	if (t->now_ms < expires_ms)
		return 0;
	return mdb_del(t->txn, l->keys, &name, NULL);
}

/* What is told of a channel without a log must be greater than the epoch of
 * any that it had. */
static int log_remove(struct lmdblog *l, struct write_txn *t, struct log *log)
{
	MDB_val key = val_of(log->channel, strlen(log->channel));
	int rc = must_exist(mdb_del(t->txn, l->logs, &key, NULL));

	l->global.epoch = max_of(t->now_ms, l->global.epoch + 1);
	for (size_t i = 0; i < l->touched_count; i++)
		if (l->touched[i] == log)
			l->touched[i--] = l->touched[--l->touched_count];
	log_forget(l, log);
	return rc;
}

/* Nothing of the log is left to delete; what comes next, and when. A log that
 * is in use is looked at again when an eighth of its messages' time has passed.
 */
static int log_next_due(struct lmdblog *l, struct write_txn *t, struct log *log)
{
	const struct log_meta *meta = &log->meta;
	uint64_t ms, due_ms;
	int rc;

	if (meta->first <= meta->top) {
		rc = record_time(l, t->txn, meta, meta->first, &ms);
		due_ms = max_of(ms + meta->ttl_ms,
				t->now_ms + meta->ttl_ms / 8 + 1);
		return rc ? rc : log_set_due(l, t, log, due_ms);
	}
	due_ms = meta->last_ms + meta->ttl_ms +
		 max_of(meta->ttl_ms, (uint64_t)LMDBLOG_LINGER_MS);
	if (t->now_ms < due_ms)
		return log_set_due(l, t, log, due_ms);
	return log_remove(l, t, log);
}

/* `*done`: the entry has had its effect. Counts what was deleted in `steps`. */
static int log_expire(struct lmdblog *l, struct write_txn *t,
		      const char *channel, uint64_t due_ms, uint64_t *steps,
		      bool *done)
{
	uint64_t before, left = LMDBLOG_TRIM_STEPS - *steps;
	struct log *log;
	int rc = log_load(l, t, channel, &log);

	*done = true;
	if (rc != 0)
		return rc == MDB_NOTFOUND ? 0 : rc;
	if (log->meta.due_ms != due_ms)
		return 0;
	if (log->meta.ttl_ms == 0) {
		log->meta.due_ms = 0;
		log_touch(l, log);
		return 0;
	}
	before = log->meta.kept;
	rc = log_delete(l, t, log, left, true);
	*steps += log->meta.kept - before;
	*done = log->meta.kept - before < left;
	if (rc != 0 || !*done)
		return rc;
	return log_next_due(l, t, log);
}

/* One entry that is due. */
static int entry_expire(struct lmdblog *l, struct write_txn *t, MDB_val key,
			MDB_val value, uint64_t *steps)
{
	uint8_t copy[512]; /* what it points at moves with the first change */
	uint64_t time_ms, sequence;
	bool done = true;
	int rc = pair_of(key, &time_ms, &sequence);

	if (rc != 0 || value.mv_size < 2 || value.mv_size >= sizeof(copy))
		return MDB_CORRUPTED;
	memcpy(copy, value.mv_data, value.mv_size);
	copy[value.mv_size] = '\0';
	if (copy[0] == ENTRY_LOG && value.mv_size > 1 + CHANNEL_NAME_MAX)
		return MDB_CORRUPTED;
	if (copy[0] == ENTRY_LOG)
		rc = log_expire(l, t, (const char *)copy + 1, time_ms, steps,
				&done);
	else
		rc = key_expire(l, t, val_of(copy + 1, value.mv_size - 1));
	if (rc == 0 && done)
		rc = entry_delete(l, t, pair_key(time_ms, sequence));
	++*steps;
	return rc;
}

/* The oldest entry, if it is due; else MDB_NOTFOUND. */
static int next_due(struct lmdblog *l, MDB_txn *txn, uint64_t now_ms,
		    MDB_val *key, MDB_val *value)
{
	uint64_t time_ms, sequence;
	MDB_cursor *cursor;
	int rc = mdb_cursor_open(txn, l->expiry, &cursor);

	if (rc != 0)
		return rc;
	rc = mdb_cursor_get(cursor, key, value, MDB_FIRST);
	mdb_cursor_close(cursor);
	if (rc == 0)
		rc = pair_of(*key, &time_ms, &sequence);
	if (rc == 0 && time_ms > now_ms)
		rc = MDB_NOTFOUND;
	return rc;
}

static bool anything_due(struct lmdblog *l, uint64_t now_ms, int *rc)
{
	MDB_val key, value;
	MDB_txn *txn;

	*rc = l->env ? mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn)
		     : MDB_PANIC;
	if (*rc != 0)
		return false;
	*rc = next_due(l, txn, now_ms, &key, &value);
	mdb_txn_abort(txn);
	if (*rc == MDB_NOTFOUND)
		*rc = 0;
	else if (*rc == 0)
		return true;
	return false;
}

/* Nothing is written where nothing is due. */
int lmdblog_trim(struct lmdblog *l, uint64_t now_ms, bool *more)
{
	struct write_txn t;
	uint64_t steps = 0;
	int rc;

	*more = false;
	if (!anything_due(l, now_ms, &rc))
		return rc;
	rc = write_begin(l, &t, now_ms);
	if (rc != 0)
		return rc;
	while (rc == 0 && steps < LMDBLOG_TRIM_STEPS) {
		MDB_val key, value;

		rc = next_due(l, t.txn, now_ms, &key, &value);
		if (rc == 0)
			rc = entry_expire(l, &t, key, value, &steps);
	}
	*more = rc == 0;
	return write_end(l, &t, rc == MDB_NOTFOUND ? 0 : rc);
}

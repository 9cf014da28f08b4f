/* lmdblog_meta.c - what stands in the file about a log and its records, and how
 * old they are. Nothing in it is believed that can't be.
 *
 * A value of `logs` is META_NUMBERS numbers and two for each era. One of format
 * 1 has the first META_1_NUMBERS only: the log was never counted otherwise, and
 * its records have no time of their own; they count as old as the last one.
 */
#include "dispatcher/store/lmdblog_internal.h"

#define META_1_NUMBERS 7

/* A greater offset or epoch is corruption: no log counts that far, so that none
 * wraps. */
#define OFFSET_MAX (UINT64_MAX / 2)

static bool eras_valid(const struct log_meta *meta)
{
	uint64_t newer = meta->epoch;

	for (unsigned i = 0; i < meta->eras.count; i++) {
		const struct store_era *era = &meta->eras.era[i];

		if (era->epoch >= newer || era->epoch < meta->id ||
		    era->offset > meta->top)
			return false;
		newer = era->epoch;
	}
	return true;
}

static bool meta_valid(const struct log_meta *meta)
{
	return meta->id > 0 && meta->id <= meta->epoch &&
	       meta->epoch <= EPOCH_MAX && meta->kept > 0 &&
	       meta->kept <= meta->first && meta->top <= OFFSET_MAX &&
	       meta->first <= meta->top + 1 && meta->timed > 0 &&
	       meta->timed <= meta->top + 1 && eras_valid(meta);
}

int meta_decode(struct log_meta *meta, MDB_val value)
{
	uint64_t n[META_SIZE_MAX / 8];
	size_t count = value.mv_size / 8, eras;

	if (value.mv_size % 8 != 0 || count > array_len(n) ||
	    (count != META_1_NUMBERS &&
	     (count < META_NUMBERS || (count - META_NUMBERS) % 2 != 0)))
		return MDB_CORRUPTED;
	le_get(n, value.mv_data, count);
	*meta = (struct log_meta){n[0],
				  n[1],
				  n[2],
				  n[3],
				  n[4],
				  n[5],
				  n[6],
				  .id = n[0],
				  .timed = n[1] + 1,
				  .untimed_ms = n[4]};
	if (count != META_1_NUMBERS) {
		meta->id = n[7];
		meta->history = n[8];
		meta->timed = n[9];
		meta->untimed_ms = n[10];
		eras = (count - META_NUMBERS) / 2;
		meta->eras.count = (unsigned)eras;
		for (size_t i = 0; i < eras; i++)
			meta->eras.era[i] =
				(struct store_era){n[META_NUMBERS + 2 * i],
						   n[META_NUMBERS + 2 * i + 1]};
	}
	return meta_valid(meta) ? 0 : MDB_CORRUPTED;
}

size_t meta_encode(uint8_t to[META_SIZE_MAX], const struct log_meta *meta)
{
	uint64_t n[META_SIZE_MAX / 8] = {
		meta->epoch,   meta->top,    meta->first,     meta->kept,
		meta->last_ms, meta->ttl_ms, meta->due_ms,    meta->id,
		meta->history, meta->timed,  meta->untimed_ms};
	size_t count = META_NUMBERS;

	for (unsigned i = 0; i < meta->eras.count; i++) {
		n[count++] = meta->eras.era[i].epoch;
		n[count++] = meta->eras.era[i].offset;
	}
	le_put(to, n, count);
	return count * 8;
}

/* --- records ----------------------------------------------------------- */

int record_decode(const struct log_meta *meta, uint64_t offset, MDB_val *value,
		  uint64_t *ms)
{
	*ms = meta->untimed_ms;
	if (offset < meta->timed)
		return 0;
	if (value->mv_size < RECORD_TIME)
		return MDB_CORRUPTED;
	le_get(ms, value->mv_data, 1);
	value->mv_data = (uint8_t *)value->mv_data + RECORD_TIME;
	value->mv_size -= RECORD_TIME;
	return 0;
}

int record_time(const struct lmdblog *l, MDB_txn *txn,
		const struct log_meta *meta, uint64_t offset, uint64_t *ms)
{
	struct pair_key pair = pair_key(meta->id, offset);
	MDB_val key = val_of(pair.bytes, sizeof(pair.bytes)), value;
	int rc;

	if (offset < meta->timed) {
		*ms = meta->untimed_ms;
		return 0;
	}
	rc = must_exist(mdb_get(txn, l->records, &key, &value));
	return rc ? rc : record_decode(meta, offset, &value, ms);
}

/* Times are in order, so what has expired is found by halves; mostly it is
 * nothing. */
int meta_first(const struct lmdblog *l, MDB_txn *txn,
	       const struct log_meta *meta, uint64_t last, uint64_t now_ms,
	       uint64_t *first)
{
	uint64_t end = last + 1, middle = meta->first, ms;

	*first = meta->first;
	if (meta->ttl_ms == 0)
		return 0;
	while (*first < end) {
		int rc = record_time(l, txn, meta, middle, &ms);

		if (rc != 0)
			return rc;
		if (has_expired(meta, ms, now_ms))
			*first = middle + 1;
		else
			end = middle;
		middle = *first + (end - *first) / 2;
	}
	return 0;
}

/* lmdblog_eras.c - new epochs of logs that may have gone back. */
#include "dispatcher/store/eras.h"

#include "dispatcher/store/lmdblog_internal.h"

void log_begin_era(struct lmdblog *l, struct write_txn *t, struct log *log,
		   uint64_t known)
{
	struct store_place was = {log->meta.epoch, log->meta.top};

	eras_begin(&log->meta.eras, was);
	l->global.epoch = max_of(l->global.epoch, max_of(was.epoch, known));
	l->global.epoch = max_of(t->now_ms, l->global.epoch + 1);
	log->meta.epoch = l->global.epoch;
	log->meta.history = l->global.history;
	log_touch(l, log);
	t->eras++;
}

int log_load_counted(struct lmdblog *l, struct write_txn *t,
		     const char *channel, struct log **out)
{
	int rc = log_load(l, t, channel, out);

	if (rc == 0 && (*out)->meta.history != l->global.history)
		log_begin_era(l, t, *out, 0);
	return rc;
}

/* Logs that are made later have greater epochs than is told here. */
static void renew_none(struct lmdblog *l, const struct write_txn *t,
		       struct store_place known, struct store_place *place)
{
	*place =
		(struct store_place){max_of(l->global.epoch, t->now_ms - 1), 0};
	if (known.epoch == 0 || !eras_behind(*place, known))
		return;
	l->global.epoch = max_of(place->epoch, known.epoch) + 1;
	place->epoch = l->global.epoch;
}

static int renew_one(struct lmdblog *l, struct write_txn *t,
		     struct store_tops *tops, size_t i)
{
	const struct store_place none = {0, 0};
	struct store_place known = tops->known ? tops->known[i] : none;
	struct log *log;
	int rc = log_load_counted(l, t, tops->channels[i], &log);

	if (rc == MDB_NOTFOUND) {
		renew_none(l, t, known, &tops->places[i]);
		return 0;
	}
	if (rc != 0)
		return rc;
	tops->places[i] = (struct store_place){log->meta.epoch, log->meta.top};
	if (known.epoch != 0 && eras_behind(tops->places[i], known))
		log_begin_era(l, t, log, known.epoch);
	tops->places[i].epoch = log->meta.epoch;
	if (tops->known_eras && eras_learn_all(&log->meta.eras, tops->places[i],
					       known, &tops->known_eras[i]))
		log_touch(l, log);
	if (tops->eras)
		tops->eras[i] = log->meta.eras;
	return 0;
}

/* In one transaction: of each operation the channels `from` to `to`, or its
 * last. */
static int renew_in_one(struct lmdblog *l, struct store_tops *const *tops,
			size_t count, size_t from, size_t to, uint64_t now_ms)
{
	struct write_txn t;
	int rc = write_begin(l, &t, now_ms);

	if (rc != 0)
		return rc;
	for (size_t i = 0; i < count; i++)
		for (size_t k = from; k < min_of(to, tops[i]->count) && rc == 0;
		     k++)
			rc = renew_one(l, &t, tops[i], k);
	return write_end(l, &t, rc);
}

static int renew_batch(struct lmdblog *l, struct store_tops *const *tops,
		       size_t count, size_t from, size_t to, uint64_t now_ms)
{
	int rc = renew_in_one(l, tops, count, from, to, now_ms);

	if (rc != MDB_MAP_FULL || !l->unsettled)
		return rc;
	write_settle(l, now_ms);
	return renew_in_one(l, tops, count, from, to, now_ms);
}

static bool is_full(int rc)
{
	return rc != 0 && lmdblog_health(rc) == LMDBLOG_WELL;
}

/* One operation, or by halves what of it fits. That stays: when the operation
 * is asked again there is less to do. Ends at the first half that does not fit,
 * for others would need as much. */
static int renew_halves(struct lmdblog *l, struct store_tops *tops, size_t from,
			size_t to, uint64_t now_ms)
{
	size_t half = from + (to - from) / 2;
	int rc = renew_batch(l, &tops, 1, from, to, now_ms);

	if (!is_full(rc) || to - from <= 1)
		return rc;
	rc = renew_halves(l, tops, from, half, now_ms);
	return rc != 0 ? rc : renew_halves(l, tops, half, to, now_ms);
}

int lmdblog_renew(struct lmdblog *l, struct store_tops *const *tops,
		  size_t count, uint64_t now_ms)
{
	bool full;
	int rc;

	cache_bound(l);
	rc = renew_batch(l, tops, count, 0, SIZE_MAX, now_ms);
	full = is_full(rc);
	if (full)
		rc = 0;
	for (size_t i = 0; i < count; i++) {
		if (full && rc == 0)
			rc = renew_halves(l, tops[i], 0, tops[i]->count,
					  now_ms);
		tops[i]->rc = lmdblog_err(rc);
	}
	return rc;
}

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

int lmdblog_renew(struct lmdblog *l, struct store_tops *const *tops,
		  size_t count, uint64_t now_ms)
{
	struct write_txn t;
	int rc;

	cache_bound(l);
	rc = write_begin(l, &t, now_ms);
	if (rc != 0)
		return rc;
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < tops[i]->count && rc == 0; k++)
			rc = renew_one(l, &t, tops[i], k);
	return write_end(l, &t, rc);
}

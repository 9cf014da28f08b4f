/* lmdblog_append.c - a batch of appends in one transaction.
 *
 * First each append gets its position, in the order of the batch, from logs in
 * memory; then the records are put log by log, in the order of their keys, so
 * that neighbours go into the same page with one descent of the tree.
 */
#include "common/base/err.h"
#include "common/base/mem.h"
#include "dispatcher/store/eras.h"
#include "dispatcher/store/lmdblog_internal.h"

#include <stdlib.h>

/* Records of one log over its size are deleted this many at a time, or a
 * quarter of its size. */
#define TRIM_SLACK 64u
/* And in one transaction at most so many more than came. */
#define TRIM_BURST 256u

/* Bytes that an entry takes beside key and value, and what half-filled pages
 * make of it. */
#define ENTRY_ROOM(bytes) (2 * ((bytes) + 16))
/* Larger values have pages of their own. */
#define INLINE_MAX 2000u
#define PAGE	   4096u

#define KEY_NAME_MAX (CHANNEL_NAME_MAX + 1 + STORE_IDEMPOTENCY_KEY_MAX)

/* What `keys` holds: expires, epoch, offset, digest, message id; in an entry of
 * format 1 no digest. */
#define KEY_NUMBERS	  4
#define KEY_1_NUMBERS	  3
#define KEY_SIZE(numbers) ((numbers)*8 + STORE_MESSAGE_ID_SIZE)

/* The message id of a duplicate's first; told only after the commit, because
 * until then the append's own may be needed again. */
struct lmdblog_answer {
	struct store_append *append;
	char message_id[STORE_MESSAGE_ID_SIZE];
};

/* --- logs -------------------------------------------------------------- */

static uint64_t channel_hash(const struct lmdblog *l, const char *channel)
{
	return hash_bytes(&l->hash_key, channel, strlen(channel));
}

struct log *log_add(struct lmdblog *l, const char *channel)
{
	struct log *log = xcalloc(1, sizeof(*log));
	size_t len = strlen(channel);

	check(len < sizeof(log->channel));
	memcpy(log->channel, channel, len + 1);
	list_init(&log->pending);
	hmap_insert(&l->cache, &log->by_channel, channel_hash(l, channel));
	return log;
}

void log_forget(struct lmdblog *l, struct log *log)
{
	hmap_remove(&l->cache, &log->by_channel);
	free(log);
}

int log_load(struct lmdblog *l, struct write_txn *t, const char *channel,
	     struct log **out)
{
	MDB_val key = val_of(channel, strlen(channel)), value;
	struct log_meta meta;
	int rc;

	hmap_for_each_hash (node, &l->cache, channel_hash(l, channel)) {
		*out = container_of(node, struct log, by_channel);
		if (strcmp((*out)->channel, channel) == 0)
			return 0;
	}
	rc = mdb_get(t->txn, l->logs, &key, &value);
	if (rc == 0)
		rc = meta_decode(&meta, value);
	if (rc != 0)
		return rc;
	*out = log_add(l, channel);
	(*out)->meta = meta;
	return 0;
}

void log_touch(struct lmdblog *l, struct log *log)
{
	if (log->touched)
		return;
	log->touched = true;
	if (l->touched_count == l->touched_cap) {
		l->touched_cap = max_of(2 * l->touched_cap, (size_t)64);
		l->touched = xrealloc(l->touched,
				      l->touched_cap * sizeof(*l->touched));
	}
	l->touched[l->touched_count++] = log;
}

int expiry_put(struct lmdblog *l, struct write_txn *t, uint64_t time_ms,
	       char what, const void *name, size_t len)
{
	struct pair_key pair = pair_key(time_ms, ++l->global.sequence);
	MDB_val key = val_of(pair.bytes, sizeof(pair.bytes));
	uint8_t bytes[1 + KEY_NAME_MAX];
	MDB_val value = val_of(bytes, 1 + len);

	check(len <= KEY_NAME_MAX);
	bytes[0] = (uint8_t)what;
	memcpy(bytes + 1, name, len);
	return mdb_put(t->txn, l->expiry, &key, &value, 0);
}

int log_set_due(struct lmdblog *l, struct write_txn *t, struct log *log,
		uint64_t time_ms)
{
	log->meta.due_ms = time_ms;
	log_touch(l, log);
	return expiry_put(l, t, time_ms, ENTRY_LOG, log->channel,
			  strlen(log->channel));
}

/* The record at the cursor, which has to be `offset` of the log. */
static int is_record(const struct log_meta *meta, uint64_t offset, MDB_val key,
		     MDB_val value, uint64_t *ms)
{
	uint64_t id, at;
	int rc = pair_of(key, &id, &at);

	if (rc != 0 || id != meta->id || at != offset)
		return MDB_CORRUPTED;
	return record_decode(meta, offset, &value, ms);
}

int log_delete(struct lmdblog *l, struct write_txn *t, struct log *log,
	       uint64_t count, bool expired)
{
	struct log_meta *meta = &log->meta;
	struct pair_key pair = pair_key(meta->id, meta->kept);
	MDB_val key = val_of(pair.bytes, sizeof(pair.bytes)), value;
	MDB_cursor_op op = MDB_SET_KEY;
	uint64_t ms;

	log_touch(l, log);
	for (; count > 0; count--, op = MDB_NEXT) {
		int rc;

		if (meta->kept > meta->top ||
		    (meta->kept >= meta->first && !expired))
			return 0;
		rc = must_exist(mdb_cursor_get(t->records, &key, &value, op));
		if (rc == 0)
			rc = is_record(meta, meta->kept, key, value, &ms);
		if (rc != 0)
			return rc;
		if (meta->kept >= meta->first &&
		    !has_expired(meta, ms, t->now_ms))
			return 0;
		rc = mdb_cursor_del(t->records, 0);
		if (rc != 0)
			return rc;
		meta->kept++;
		meta->first = max_of(meta->first, meta->kept);
	}
	return 0;
}

/* --- positions --------------------------------------------------------- */

static size_t key_name(uint8_t name[KEY_NAME_MAX], const struct store_append *a)
{
	size_t channel_len = strlen(a->channel) + 1;
	size_t key_len = strlen(a->idempotency_key);

	check(channel_len + key_len <= KEY_NAME_MAX);
	memcpy(name, a->channel, channel_len);
	memcpy(name + channel_len, a->idempotency_key, key_len);
	return channel_len + key_len;
}

static void remember_answer(struct lmdblog *l, struct store_append *a,
			    const void *message_id)
{
	struct lmdblog_answer *answer;

	if (l->answer_count == l->answer_cap) {
		l->answer_cap = max_of(2 * l->answer_cap, (size_t)64);
		l->answers = xrealloc(l->answers,
				      l->answer_cap * sizeof(*l->answers));
	}
	answer = &l->answers[l->answer_count++];
	answer->append = a;
	memcpy(answer->message_id, message_id, STORE_MESSAGE_ID_SIZE);
	answer->message_id[STORE_MESSAGE_ID_SIZE - 1] = '\0';
}

/* MDB_NOTFOUND: the key was not used within its window, or for a message that
 * the log does not have. */
static int find_duplicate(struct lmdblog *l, struct write_txn *t, MDB_val name,
			  const struct log *log, struct store_append *a)
{
	uint64_t n[KEY_NUMBERS] = {0};
	struct store_place top;
	bool digested;
	MDB_val value;
	int rc = mdb_get(t->txn, l->keys, &name, &value);

	if (rc != 0)
		return rc;
	digested = value.mv_size == KEY_SIZE(KEY_NUMBERS);
	if (!digested && value.mv_size != KEY_SIZE(KEY_1_NUMBERS))
		return MDB_CORRUPTED;
	le_get(n, value.mv_data, digested ? KEY_NUMBERS : KEY_1_NUMBERS);
	if (t->now_ms >= n[0] || log == NULL)
		return MDB_NOTFOUND;
	top = (struct store_place){log->meta.epoch, log->meta.top};
	if (!eras_have(&log->meta.eras, top, (struct store_place){n[1], n[2]}))
		return MDB_NOTFOUND;
	if (digested && n[3] != a->digest) {
		a->rc = ERR_EXISTS;
		a->definite = true;
		return 0;
	}
	remember_answer(l, a,
			(const uint8_t *)value.mv_data + value.mv_size -
				STORE_MESSAGE_ID_SIZE);
	a->duplicate = true;
	a->place = (struct store_place){top.epoch, n[2]};
	return 0;
}

static int remember_key(struct lmdblog *l, struct write_txn *t, MDB_val name,
			const struct store_append *a)
{
	uint64_t expires_ms = t->now_ms + l->idempotency_ms;
	const uint64_t n[KEY_NUMBERS] = {expires_ms, a->place.epoch,
					 a->place.offset, a->digest};
	uint8_t bytes[KEY_SIZE(KEY_NUMBERS)];
	MDB_val value = val_of(bytes, sizeof(bytes));
	int rc;

	le_put(bytes, n, KEY_NUMBERS);
	memcpy(bytes + KEY_NUMBERS * 8, a->message_id, STORE_MESSAGE_ID_SIZE);
	rc = mdb_put(t->txn, l->keys, &name, &value, 0);
	if (rc != 0)
		return rc;
	return expiry_put(l, t, expires_ms, ENTRY_KEY, name.mv_data,
			  name.mv_size);
}

static struct log *log_create(struct lmdblog *l, struct write_txn *t,
			      const char *channel)
{
	struct log *log = log_add(l, channel);

	l->global.epoch = max_of(t->now_ms, l->global.epoch + 1);
	log->meta = (struct log_meta){
		.epoch = l->global.epoch,
		.id = l->global.epoch,
		.history = l->global.history,
		.first = 1,
		.kept = 1,
		.timed = 1,
	};
	return log;
}

static int64_t room_for(const struct store_append *a)
{
	size_t len = a->len + RECORD_TIME;
	size_t room =
		len > INLINE_MAX ? (len / PAGE + 1) * PAGE : ENTRY_ROOM(len);
	size_t name = strlen(a->channel) + strlen(a->idempotency_key);

	room += ENTRY_ROOM(sizeof(struct pair_key) + META_SIZE);
	if (*a->idempotency_key)
		room += ENTRY_ROOM(KEY_SIZE(KEY_NUMBERS) + 2 * name);
	return (int64_t)room;
}

/* What has expired by the old ttl is not given again by a longer one. By a
 * shorter one, some is deleted later than it could be. */
static int log_set_ttl(struct lmdblog *l, struct write_txn *t, struct log *log,
		       uint64_t ttl_ms)
{
	uint64_t stored = log->meta.top - log->pending_count;
	int rc = 0;

	if (log->meta.first <= stored)
		rc = meta_first(l, t->txn, &log->meta, stored, t->now_ms,
				&log->meta.first);
	log->meta.ttl_ms = ttl_ms;
	return rc;
}

static int log_push(struct lmdblog *l, struct write_txn *t, struct log *log,
		    struct store_append *a)
{
	int rc = 0;

	log_touch(l, log);
	if (log->meta.ttl_ms != a->ttl_ms)
		rc = log_set_ttl(l, t, log, a->ttl_ms);
	log->meta.last_ms = max_of(log->meta.last_ms, t->now_ms);
	log->size = a->size;
	list_push_back(&log->pending, &a->in_store);
	log->pending_count++;
	a->place = (struct store_place){log->meta.epoch, ++log->meta.top};
	return rc;
}

/* Gives the append its position; its record is put later. */
static int place_append(struct lmdblog *l, struct write_txn *t,
			struct store_append *a)
{
	uint8_t bytes[KEY_NAME_MAX];
	MDB_val name = {0, bytes};
	struct log *log = NULL;
	int rc = log_load_counted(l, t, a->channel, &log);

	if (rc != 0 && rc != MDB_NOTFOUND)
		return rc;
	if (rc == MDB_NOTFOUND)
		log = NULL;
	if (*a->idempotency_key) {
		name.mv_size = key_name(bytes, a);
		rc = find_duplicate(l, t, name, log, a);
		if (rc != MDB_NOTFOUND)
			return rc;
	}
	t->room -= room_for(a);
	if (t->room < 0) {
		a->rc = ERR_FULL;
		t->room += room_for(a);
		return 0;
	}
	if (log == NULL)
		log = log_create(l, t, a->channel);
	rc = log_push(l, t, log, a);
	if (rc == 0 && *a->idempotency_key)
		rc = remember_key(l, t, name, a);
	return rc;
}

/* --- records ----------------------------------------------------------- */

static int trim_to_size(struct lmdblog *l, struct write_txn *t, struct log *log,
			uint64_t appended)
{
	uint64_t slack = min_of(log->size / 4, TRIM_SLACK), over;

	if (log->meta.top > log->size)
		log->meta.first =
			max_of(log->meta.first, log->meta.top - log->size + 1);
	over = log->meta.first - log->meta.kept;
	if (over <= slack)
		return 0;
	return log_delete(l, t, log, min_of(over, TRIM_BURST + 2 * appended),
			  false);
}

/* The entry may be missing, or come too late: it is then about forgetting the
 * log. It loses its meaning with `due_ms`. */
static int log_set_expiry(struct lmdblog *l, struct write_txn *t,
			  struct log *log)
{
	const struct log_meta *meta = &log->meta;
	uint64_t ms;
	int rc;

	if (meta->ttl_ms == 0 ||
	    (meta->due_ms != 0 && meta->due_ms <= meta->last_ms + meta->ttl_ms))
		return 0;
	rc = record_time(l, t->txn, meta, meta->first, &ms);
	return rc ? rc : log_set_due(l, t, log, ms + meta->ttl_ms);
}

/* Its time, then the bytes: straight into the page. */
static int put_record(struct write_txn *t, const struct log *log,
		      const struct store_append *a)
{
	struct pair_key pair = pair_key(log->meta.id, a->place.offset);
	MDB_val key = val_of(pair.bytes, sizeof(pair.bytes));
	MDB_val value = {RECORD_TIME + a->len, NULL};
	int rc = mdb_cursor_put(t->records, &key, &value,
				MDB_NOOVERWRITE | MDB_RESERVE);

	if (rc != 0)
		return rc;
	le_put(value.mv_data, &log->meta.last_ms, 1);
	memcpy((uint8_t *)value.mv_data + RECORD_TIME, a->record, a->len);
	return 0;
}

static int put_records(struct lmdblog *l, struct write_txn *t, struct log *log)
{
	uint64_t appended = log->pending_count;
	struct list *node;
	int rc;

	log->pending_count = 0;
	while ((node = list_pop_front(&log->pending))) {
		rc = put_record(
			t, log,
			container_of(node, struct store_append, in_store));
		if (rc != 0)
			return rc;
	}
	if (appended == 0)
		return 0;
	rc = log_set_expiry(l, t, log);
	if (rc != 0)
		return rc;
	return trim_to_size(l, t, log, appended);
}

static int by_id(const void *a, const void *b)
{
	uint64_t x = (*(struct log *const *)a)->meta.id;
	uint64_t y = (*(struct log *const *)b)->meta.id;

	return (x > y) - (x < y);
}

static int fill_transaction(struct lmdblog *l, struct write_txn *t,
			    struct store_append *const *appends, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int rc = place_append(l, t, appends[i]);

		if (rc != 0)
			return rc;
	}
	if (l->touched_count == 0)
		return 0;
	qsort(l->touched, l->touched_count, sizeof(struct log *), by_id);
	for (size_t i = 0; i < l->touched_count; i++) {
		int rc = put_records(l, t, l->touched[i]);

		if (rc != 0)
			return rc;
	}
	return 0;
}

/* --- batches ----------------------------------------------------------- */

static void tell_answers(struct lmdblog *l)
{
	for (size_t i = 0; i < l->answer_count; i++)
		memcpy(l->answers[i].append->message_id,
		       l->answers[i].message_id, STORE_MESSAGE_ID_SIZE);
	l->answer_count = 0;
}

/* After a commit that failed LMDB may be unable to say which transaction is
 * the newest one; it then refuses to begin another. */
static bool definite(const struct lmdblog *l)
{
	MDB_txn *txn;

	if (l->env == NULL || mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn))
		return false;
	mdb_txn_abort(txn);
	return true;
}

static void fail_all(struct store_append *const *appends, size_t count, int rc,
		     bool known)
{
	for (size_t i = 0; i < count; i++) {
		appends[i]->rc = known ? lmdblog_err(rc) : ERR_UNAVAILABLE;
		appends[i]->definite = known;
		appends[i]->duplicate = false;
		appends[i]->place = (struct store_place){0, 0};
	}
}

static int append_batch(struct lmdblog *l, struct store_append *const *appends,
			size_t count, uint64_t now_ms)
{
	struct write_txn t;
	int rc = write_begin(l, &t, now_ms);

	if (rc != 0) {
		fail_all(appends, count, rc, true);
		return rc;
	}
	for (size_t i = 0; i < count; i++) {
		appends[i]->rc = 0;
		appends[i]->definite = appends[i]->duplicate = false;
		list_init(&appends[i]->in_store);
	}
	rc = fill_transaction(l, &t, appends, count);
	rc = write_end(l, &t, rc);
	if (rc == 0)
		tell_answers(l);
	else
		fail_all(appends, count, rc, definite(l));
	return rc;
}

/* Where the map is full all the same, halves are tried, down to single ones:
 * nothing is written for those that do not fit. */
int lmdblog_append(struct lmdblog *l, struct store_append *const *appends,
		   size_t count, uint64_t now_ms)
{
	size_t half = count / 2;
	int rc, second;

	cache_bound(l);
	rc = append_batch(l, appends, count, now_ms);
	if (rc == MDB_MAP_FULL && l->unsettled) {
		write_settle(l, now_ms);
		rc = append_batch(l, appends, count, now_ms);
	}
	if (rc == 0 || lmdblog_health(rc) != LMDBLOG_WELL)
		return rc;
	if (count == 1)
		return 0; /* it was told */
	rc = lmdblog_append(l, appends, half, now_ms);
	second = lmdblog_append(l, appends + half, count - half, now_ms);
	return rc ? rc : second;
}

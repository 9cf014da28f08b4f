/* The file of the embedded store, without a loop and told what time it is. */
#include "tests/unit/lmdblog_fixture.h"

/* --- what goes when ---------------------------------------------------- */

static void test_lmdblog_ttl(void **state)
{
	struct fixture *f = *state;
	struct store_place old = append_at(f, T0, "a", "", "x").place;
	struct store_read r;

	assert_true(old.epoch > T0);
	append_at(f, T0 + 1000, "a", "", "y");
	append_at(f, T0 + 500, "a", "", "z"); /* counts as of 1000 */
	trim_at(f, T0 + TTL - 1);
	assert_int_equal(read_at(f, T0 + TTL - 1, "a").count, 3);
	r = read_at(f, T0 + TTL, "a"); /* it need not be trimmed for that */
	assert_int_equal(r.count, 2);
	assert_int_equal(r.first, 2);
	assert_int_equal(r.records[0].bytes[0], 'y');
	assert_int_equal(read_at(f, T0 + TTL + 999, "a").first, 2);
	assert_int_equal(entries(f, f->log.records), 3);
	trim_at(f, T0 + TTL);
	assert_int_equal(entries(f, f->log.records), 2);
	assert_int_equal(read_at(f, T0 + TTL + 999, "a").count, 2);
	r = read_at(f, T0 + TTL + 1000, "a");
	assert_int_equal(r.count, 0);
	assert_int_equal(r.first, 4);
	assert_int_equal(r.top.offset, 3);
	/* That the log is looked at again may take an eighth of the time. */
	trim_at(f, T0 + TTL + TTL / 8 + 1);
	assert_int_equal(entries(f, f->log.records), 0);
	r = read_at(f, T0 + 2 * TTL, "a");
	assert_int_equal(r.first, 4);
	assert_int_equal(r.top.epoch, old.epoch);
}

/* A channel that is never silent: what is kept beyond its time, and the entries
 * about it, are few. */
static void test_lmdblog_ttl_of_busy(void **state)
{
	struct fixture *f = *state;
	const unsigned step_ms = TTL / 50;

	for (uint64_t ms = 0; ms < 10 * TTL; ms += step_ms) {
		struct store_append a = message("a", "", "x", 1);
		struct store_append *batch[] = {&a};
		struct store_read r;

		a.size = 1000;
		assert_int_equal(lmdblog_append(&f->log, batch, 1, T0 + ms), 0);
		trim_at(f, T0 + ms);
		assert_in_range(entries(f, f->log.records), 1, 50 + 50 / 8 + 2);
		assert_in_range(entries(f, f->log.expiry), 1, 2);
		r = read_at(f, T0 + ms, "a");
		assert_int_equal(r.count, min_of(ms / step_ms + 1, 50u));
		assert_int_equal(r.first + r.count - 1, r.top.offset);
	}
}

/* Found by halves: every number of messages, every number of expired ones. */
static void test_lmdblog_ttl_first(void **state)
{
	struct fixture *f = *state;

	for (uint64_t count = 1; count <= 20; count++) {
		append_at(f, T0 + count, "a", "", "x");
		for (uint64_t gone = 0; gone <= count; gone++) {
			struct store_read r = read_at(f, T0 + TTL + gone, "a");

			assert_int_equal(r.first, gone + 1);
			assert_int_equal(r.count, count - gone);
		}
	}
}

/* A rule that changes: what had expired does not come back, and what has too
 * much time goes when the new one says. */
static void test_lmdblog_ttl_changes(void **state)
{
	struct fixture *f = *state;
	struct store_append a = message("a", "", "y", 1);
	struct store_append b = message("a", "", "z", 1);
	struct store_append *batch[] = {&a, &b};

	append_at(f, T0, "a", "", "w");
	append_at(f, T0 + 10, "a", "", "x");
	a.ttl_ms = 10 * TTL;
	b.ttl_ms = 20 * TTL; /* with one that is not stored yet */
	assert_int_equal(lmdblog_append(&f->log, batch, 2, T0 + TTL + 5), 0);
	assert_int_equal(read_at(f, T0 + TTL + 5, "a").first, 2);
	assert_int_equal(read_at(f, T0 + 19 * TTL, "a").first, 2);
	trim_at(f, T0 + TTL + 5); /* it will be looked at much later */
	a = message("a", "", "v", 1);
	a.ttl_ms = TTL / 2;
	assert_int_equal(lmdblog_append(&f->log, batch, 1, T0 + 2 * TTL), 0);
	assert_int_equal(read_at(f, T0 + 2 * TTL, "a").first, 5);
	trim_at(f, T0 + 2 * TTL + 1);
	assert_int_equal(entries(f, f->log.records), 1);
}

/* A message in the time between expiry and forgetting expires in its turn,
 * and does not bring back those before it. */
static void test_lmdblog_ttl_again(void **state)
{
	struct fixture *f = *state;
	uint64_t later = T0 + TTL + 5000;

	append_at(f, T0, "a", "", "x");
	trim_at(f, T0 + TTL);
	assert_int_equal(append_at(f, later, "a", "", "y").place.offset, 2);
	assert_int_equal(read_at(f, later, "a").count, 1);
	trim_at(f, later + TTL);
	assert_int_equal(entries(f, f->log.records), 0);
	append_at(f, later + 2 * TTL, "a", "", "z");
	append_at(f, later + 4 * TTL, "a", "", "z"); /* untrimmed before */
	assert_int_equal(read_at(f, later + 4 * TTL, "a").count, 1);
	assert_int_equal(read_at(f, later + 4 * TTL, "a").first, 4);
}

/* The clock going back does not matter, nor a restart. */
static void test_lmdblog_forgets(void **state)
{
	struct fixture *f = *state;
	uint64_t late = T0 + TTL + LMDBLOG_LINGER_MS;
	struct store_place old = append_at(f, T0, "a", "k", "x").place, none;

	trim_at(f, T0 + TTL);
	trim_at(f, late - 1);
	assert_int_equal(entries(f, f->log.logs), 1);
	trim_at(f, late);
	assert_int_equal(entries(f, f->log.logs), 0);
	assert_int_equal(entries(f, f->log.keys), 0);
	assert_int_equal(entries(f, f->log.expiry), 0);
	none = read_at(f, T0, "a").top;
	assert_int_equal(none.offset, 0);
	assert_true(none.epoch > old.epoch);
	reopen_log(f, MAP);
	assert_int_equal(read_at(f, T0, "a").top.epoch, none.epoch);
	assert_true(append_at(f, T0, "a", "", "y").place.epoch > none.epoch);
}

static void test_lmdblog_no_ttl(void **state)
{
	struct fixture *f = *state;
	struct store_append a = message("a", "", "x", 1);
	struct store_append *batch[] = {&a};

	a.ttl_ms = 0;
	assert_int_equal(lmdblog_append(&f->log, batch, 1, T0), 0);
	assert_int_equal(entries(f, f->log.expiry), 0);
	assert_int_equal(read_at(f, T0 + 365 * 86400000ull, "a").count, 1);
}

/* The answer outlives the log: the message is in nobody's, and comes anew. */
static void test_lmdblog_answer_of_no_log(void **state)
{
	struct fixture *f = *state;
	uint64_t late = T0 + TTL + LMDBLOG_LINGER_MS;
	struct store_append a;

	f->log.idempotency_ms = 2 * LMDBLOG_LINGER_MS;
	append_at(f, T0, "a", "", "x");
	assert_false(append_at(f, T0, "a", "k", "y").duplicate);
	append_at(f, T0, "a", "l", "y");
	trim_at(f, late - 1);
	assert_true(append_at(f, late - 1, "a", "k", "z").duplicate);
	trim_at(f, late);
	assert_int_equal(entries(f, f->log.keys), 2);
	a = append_at(f, late, "a", "k", "w");
	assert_false(a.duplicate);
	assert_int_equal(a.place.offset, 1);
	assert_string_equal(append_at(f, late, "a", "k", "v").message_id,
			    "id-w");
	a = append_at(f, late, "a", "l", "u"); /* there is another log */
	assert_false(a.duplicate);
	assert_int_equal(a.place.offset, 2);
}

static void test_lmdblog_keys(void **state)
{
	struct fixture *f = *state;
	struct store_append a = append_at(f, T0, "a", "k", "x");

	assert_false(a.duplicate);
	a = append_at(f, T0 + WINDOW - 1, "a", "k", "y");
	assert_true(a.duplicate);
	assert_int_equal(a.place.offset, 1);
	assert_string_equal(a.message_id, "id-x");
	a = append_at(f, T0 + WINDOW, "a", "k", "z"); /* used anew */
	assert_false(a.duplicate);
	trim_at(f, T0 + WINDOW + 1);
	assert_true(append_at(f, T0 + WINDOW + 2, "a", "k", "").duplicate);
	trim_at(f, T0 + 2 * WINDOW);
	assert_int_equal(entries(f, f->log.keys), 0);
}

/* What is over the size is never read, and deleted some at a time. */
static void test_lmdblog_size(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 1; i <= 1000; i++) {
		append_at(f, T0, "a", "", "x");
		assert_true(entries(f, f->log.records) <= 100 + 25);
	}
	assert_int_equal(read_at(f, T0, "a").first, 901);
	assert_int_equal(read_at(f, T0, "a").count, 100);
}

#define MANY_LOGS 5000

/* One trim does its share, not all. */
static void test_lmdblog_trim_steps(void **state)
{
	struct fixture *f = *state;
	struct store_append *a = xcalloc(MANY_LOGS, sizeof(*a));
	struct store_append **batch = xcalloc(MANY_LOGS, sizeof(*batch));
	char(*names)[16] = xcalloc(MANY_LOGS, sizeof(*names));
	bool more;

	for (unsigned i = 0; i < MANY_LOGS; i++) {
		snprintf(names[i], sizeof(names[i]), "c%u", i);
		a[i] = message(names[i], "", "x", 1);
		batch[i] = &a[i];
	}
	assert_int_equal(lmdblog_append(&f->log, batch, MANY_LOGS, T0), 0);
	assert_int_equal(entries(f, f->log.records), MANY_LOGS);
	assert_int_equal(lmdblog_trim(&f->log, T0 + TTL - 1, &more), 0);
	assert_false(more);
	assert_int_equal(lmdblog_trim(&f->log, T0 + TTL, &more), 0);
	assert_true(more);
	assert_in_range(entries(f, f->log.records), MANY_LOGS - 2000,
			MANY_LOGS - 500);
	trim_at(f, T0 + TTL);
	assert_int_equal(entries(f, f->log.records), 0);
	free(a);
	free(batch);
	free(names);
}

/* --- a full map -------------------------------------------------------- */

#define SMALL_MAP ((uint64_t)2 << 20)
#define CHUNK	  20000u

/* Appends until it is full; how many fitted. */
static unsigned fill(struct fixture *f, uint64_t now_ms, const uint8_t *chunk)
{
	for (unsigned count = 0; count < 1000; count++) {
		struct store_append a = message("a", "", chunk, CHUNK);
		struct store_append *batch[] = {&a};

		assert_int_equal(lmdblog_append(&f->log, batch, 1, now_ms), 0);
		if (a.rc != 0) {
			assert_int_equal(a.rc, ERR_FULL);
			return count;
		}
	}
	fail_msg("it never was full");
	return 0;
}

/* Full is told, and ends by itself when trimming has freed pages; the file
 * does not grow from one time to the next. */
static void test_lmdblog_full(void **state)
{
	struct fixture *f = *state;
	uint8_t *chunk = xcalloc(1, CHUNK);
	uint64_t now_ms = T0, used;
	unsigned first;

	reopen_log(f, SMALL_MAP);
	first = fill(f, now_ms, chunk);
	used = f->log.used;
	assert_in_range(first, 40, 100);
	assert_true(used <= SMALL_MAP);
	for (unsigned round = 0; round < 10; round++) {
		now_ms += TTL;
		trim_at(f, now_ms);
		assert_true(f->log.used < used / 10);
		assert_in_range(fill(f, now_ms, chunk), first * 3 / 4,
				first + 5); /* pages lie apart */
	}
	free(chunk);
}

/* In one batch, what fits is appended beside what does not. */
static void test_lmdblog_full_in_a_batch(void **state)
{
	struct fixture *f = *state;
	size_t big = SMALL_MAP;
	uint8_t *record = xcalloc(1, big);
	struct store_append a = message("a", "", record, 10);
	struct store_append b = message("a", "k", record, big);
	struct store_append c = message("a", "", record, 10);
	struct store_append *batch[] = {&a, &b, &c};

	reopen_log(f, SMALL_MAP);
	assert_int_equal(lmdblog_append(&f->log, batch, 3, T0), 0);
	assert_int_equal(a.rc, 0);
	assert_int_equal(b.rc, ERR_FULL);
	assert_int_equal(c.rc, 0);
	assert_int_equal(c.place.offset, 2);
	assert_int_equal(read_at(f, T0, "a").count, 2);
	assert_false(append_at(f, T0, "a", "k", "x").duplicate);
	free(record);
}

/* When our own reckoning finds room and LMDB does not, halves are tried. */
static void test_lmdblog_map_full(void **state)
{
	struct fixture *f = *state;
	uint8_t *record = xcalloc(1, SMALL_MAP);
	struct store_append a = message("a", "k", record, 10);
	struct store_append b = message("a", "", record, SMALL_MAP);
	struct store_append c = message("a", "k", record, 10);
	struct store_append *batch[] = {&a, &b, &c};

	reopen_log(f, SMALL_MAP);
	f->log.map_bytes = 64 << 20; /* not what LMDB was told */
	assert_int_equal(lmdblog_append(&f->log, batch, 3, T0), 0);
	assert_int_equal(a.rc, 0);
	assert_int_equal(a.place.offset, 1);
	assert_int_equal(b.rc, ERR_FULL);
	assert_int_equal(c.rc, 0);
	assert_true(c.duplicate);
	assert_int_equal(c.place.offset, 1);
	assert_int_equal(entries(f, f->log.records), 1);
	assert_int_equal(append_at(f, T0, "a", "", "x").place.offset, 2);
	free(record);
}

/* --- opening ----------------------------------------------------------- */

static void assert_refused(const char *path, const char *word)
{
	struct lmdblog other;
	char fault[STORE_FAULT_SIZE] = "";

	assert_int_equal(lmdblog_open(&other, path, MAP, WINDOW, T0, fault),
			 ERR_CONFIG);
	if (strstr(fault, word) == NULL)
		fail_msg("%s: %s", word, fault);
}

static void test_lmdblog_bad_paths(void **state)
{
	struct fixture *f = *state;
	char path[128];

	assert_refused("", "can't be created");
	assert_refused("/proc/stentor", "can't be created");
	assert_refused("/proc/sys", "can't be written");
	snprintf(path, sizeof(path), "%s/a/b", f->directory);
	assert_refused(path, "can't be created");
	snprintf(path, sizeof(path), "%s/data.mdb", f->directory);
	assert_refused(path, "not a directory");
	assert_refused(f->directory, "another dispatcher");
}

/* Overwrites the file from `offset` on. */
static void scribble(const struct fixture *f, off_t offset, uint8_t with,
		     size_t len)
{
	uint8_t *bytes = xmalloc(len);
	char path[128];
	int fd;

	memset(bytes, with, len);
	data_path(f, path);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, offset), (ssize_t)len);
	close(fd);
	free(bytes);
}

static void test_lmdblog_corrupt(void **state)
{
	struct fixture *f = *state;

	append_at(f, T0, "a", "", "x");
	lmdblog_close(&f->log);
	scribble(f, 0, 0x5a, 8192);
	assert_refused(f->directory, "corrupt");
	assert_refused(f->directory, "move it away");
	assert_int_equal(
		nftw(f->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
	open_log(f, MAP, T0);
	append_at(f, T0, "a", "", "x");
}

static void test_lmdblog_cut_short(void **state)
{
	struct fixture *f = *state;
	char path[128];

	for (unsigned i = 0; i < 1000; i++)
		append_at(f, T0, "a", "", "x");
	lmdblog_close(&f->log);
	data_path(f, path);
	assert_int_equal(truncate(path, 3 * 4096), 0);
	assert_refused(f->directory, "cut short");
	assert_int_equal(truncate(path, 0), 0);
	open_log(f, MAP, T0); /* as good as none */
}

/* Puts a key of our own choice into the main table. */
static void put_main(struct fixture *f, const char *key_text, uint64_t number,
		     size_t len)
{
	MDB_val key = {strlen(key_text), (void *)key_text};
	MDB_val value = {len, &number};
	MDB_txn *txn;

	assert_int_equal(mdb_txn_begin(f->log.env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_put(txn, f->log.main, &key, &value, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
}

static void test_lmdblog_other_format(void **state)
{
	struct fixture *f = *state;

	put_main(f, "stentor", 77, 8);
	lmdblog_close(&f->log);
	assert_refused(f->directory, "format 77");
	nftw(f->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	open_log(f, MAP, T0);
}

static void test_lmdblog_not_ours(void **state)
{
	struct fixture *f = *state;
	MDB_val key = {7, "stentor"};
	MDB_txn *txn;

	assert_int_equal(mdb_txn_begin(f->log.env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_del(txn, f->log.main, &key, NULL), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	lmdblog_close(&f->log);
	assert_refused(f->directory, "another program");
	nftw(f->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	open_log(f, MAP, T0);
}

/* Values that can't be: told as corruption, not believed. */
static void test_lmdblog_bad_values(void **state)
{
	struct fixture *f = *state;
	MDB_val key = {1, "a"}, value = {5, "short"};
	struct store_read r = {
		.channel = "a", .records_max = 1, .bytes_max = 1};
	struct store_append a = message("a", "", "x", 1);
	struct store_append *batch[] = {&a};
	MDB_txn *txn;

	assert_int_equal(mdb_txn_begin(f->log.env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_put(txn, f->log.logs, &key, &value, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	assert_int_equal(read_rc(f, T0, &r), MDB_CORRUPTED);
	assert_int_equal(lmdblog_append(&f->log, batch, 1, T0), MDB_CORRUPTED);
	assert_int_equal(a.rc, ERR_IO);
	assert_true(a.definite);
	assert_int_equal(lmdblog_health(MDB_CORRUPTED), LMDBLOG_DEAD);
}

/* A record that the log speaks of is gone. */
static void test_lmdblog_missing_record(void **state)
{
	struct fixture *f = *state;
	struct store_read r = {
		.channel = "a", .records_max = 10, .bytes_max = 100};
	MDB_txn *txn;
	bool more;

	append_at(f, T0, "a", "", "x");
	assert_int_equal(mdb_txn_begin(f->log.env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_drop(txn, f->log.records, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	assert_int_equal(read_rc(f, T0, &r), MDB_CORRUPTED);
	assert_int_equal(lmdblog_trim(&f->log, T0 + TTL, &more), MDB_CORRUPTED);
}

/* --- after a failure --------------------------------------------------- */

/* What LMDB wants after an error that it calls fatal. */
static void test_lmdblog_recovers(void **state)
{
	struct fixture *f = *state;
	struct store_place place = append_at(f, T0, "a", "", "x").place;
	struct store_append a = message("a", "", "y", 1);
	struct store_append *batch[] = {&a};

	assert_int_equal(lmdblog_recover(&f->log), 0); /* nothing was wrong */
	mdb_env_close(f->log.env);
	f->log.env = NULL;
	assert_int_equal(lmdblog_append(&f->log, batch, 1, T0), MDB_PANIC);
	assert_int_equal(a.rc, ERR_IO);
	assert_true(a.definite);
	assert_int_equal(lmdblog_health(MDB_PANIC), LMDBLOG_RETRY);
	assert_int_equal(lmdblog_recover(&f->log), 0);
	a = append_at(f, T0, "a", "", "z");
	assert_int_equal(a.place.epoch, place.epoch);
	assert_int_equal(a.place.offset, 2);
	assert_int_equal(read_at(f, T0, "a").count, 2);
}

/* Another file in its place has other positions. */
static void test_lmdblog_moved_away(void **state)
{
	struct fixture *f = *state;
	char from[128], to[160];

	append_at(f, T0, "a", "", "x");
	mdb_env_close(f->log.env);
	f->log.env = NULL;
	data_path(f, from);
	snprintf(to, sizeof(to), "%s.old", from);
	assert_int_equal(rename(from, to), 0);
	assert_int_equal(lmdblog_health(lmdblog_recover(&f->log)),
			 LMDBLOG_DEAD);
	mdb_env_close(f->log.env);
	f->log.env = NULL;
	assert_int_equal(rename(to, from), 0); /* and it is known again */
	assert_int_equal(lmdblog_recover(&f->log), 0);
	assert_int_equal(append_at(f, T0, "a", "", "y").place.offset, 2);
}

/* More logs than the writer keeps in memory. */
static void test_lmdblog_cache_bound(void **state)
{
	struct fixture *f = *state;
	const unsigned step = 8192, total = LMDBLOG_CACHED_LOGS + 2 * step;
	struct store_append *a = xcalloc(step, sizeof(*a));
	struct store_append **batch = xcalloc(step, sizeof(*batch));
	char(*names)[16] = xcalloc(step, sizeof(*names));

	reopen_log(f, MAP * 8);
	for (unsigned next = 0; next < total; next += step) {
		for (unsigned i = 0; i < step; i++) {
			snprintf(names[i], sizeof(names[i]), "c%u", next + i);
			a[i] = message(names[i], "", "x", 1);
			batch[i] = &a[i];
		}
		assert_int_equal(lmdblog_append(&f->log, batch, step, T0), 0);
		assert_true(f->log.cache.count <= LMDBLOG_CACHED_LOGS + step);
	}
	assert_int_equal(append_at(f, T0, "c0", "", "y").place.offset, 2);
	assert_int_equal(entries(f, f->log.logs), total);
	free(a);
	free(batch);
	free(names);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_lmdblog_ttl),
		CASE(test_lmdblog_ttl_again),
		CASE(test_lmdblog_ttl_of_busy),
		CASE(test_lmdblog_ttl_first),
		CASE(test_lmdblog_ttl_changes),
		CASE(test_lmdblog_answer_of_no_log),
		CASE(test_lmdblog_forgets),
		CASE(test_lmdblog_no_ttl),
		CASE(test_lmdblog_keys),
		CASE(test_lmdblog_size),
		CASE(test_lmdblog_trim_steps),
		CASE(test_lmdblog_full),
		CASE(test_lmdblog_full_in_a_batch),
		CASE(test_lmdblog_map_full),
		CASE(test_lmdblog_bad_paths),
		CASE(test_lmdblog_corrupt),
		CASE(test_lmdblog_cut_short),
		CASE(test_lmdblog_other_format),
		CASE(test_lmdblog_not_ours),
		CASE(test_lmdblog_bad_values),
		CASE(test_lmdblog_missing_record),
		CASE(test_lmdblog_recovers),
		CASE(test_lmdblog_moved_away),
		CASE(test_lmdblog_cache_bound),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

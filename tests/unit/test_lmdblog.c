/* The file of the embedded store, without a loop and told what time it is. */
#include "tests/unit/dir_copy.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "dispatcher/store/lmdblog.h"

#include <endian.h>
#include <ftw.h>
#include <stdlib.h>

#define T0     1700000000000ull
#define WINDOW 300000
#define TTL    60000
#define MAP    ((uint64_t)16 << 20)

struct fixture {
	char directory[64];
	struct lmdblog log;
	struct arena arena;
};

static int remove_entry(const char *path, const struct stat *st, int type,
			struct FTW *at)
{
	(void)st, (void)type, (void)at;
	return remove(path);
}

static void open_log(struct fixture *f, uint64_t map_bytes, uint64_t now_ms)
{
	char fault[STORE_FAULT_SIZE] = "";

	if (lmdblog_open(&f->log, f->directory, map_bytes, WINDOW, now_ms,
			 fault) != 0)
		fail_msg("%s", fault);
}

static void reopen_log(struct fixture *f, uint64_t map_bytes)
{
	lmdblog_close(&f->log);
	open_log(f, map_bytes, T0);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	snprintf(f->directory, sizeof(f->directory),
		 "/tmp/stentor-lmdblog-XXXXXX");
	if (mkdtemp(f->directory) == NULL)
		return -1;
	arena_init(&f->arena, (size_t)1 << 30);
	open_log(f, MAP, T0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	lmdblog_close(&f->log);
	arena_fini(&f->arena);
	nftw(f->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static struct store_append message(const char *channel, const char *key,
				   const void *record, size_t len)
{
	struct store_append a = {
		.channel = channel,
		.record = record,
		.len = len,
		.size = 100,
		.ttl_ms = TTL,
		.idempotency_key = key,
	};

	snprintf(a.message_id, sizeof(a.message_id), "id-%.8s",
		 (const char *)record);
	return a;
}

static struct store_append append_at(struct fixture *f, uint64_t now_ms,
				     const char *channel, const char *key,
				     const char *text)
{
	struct store_append a = message(channel, key, text, strlen(text));
	struct store_append *batch[] = {&a};

	assert_int_equal(lmdblog_append(&f->log, batch, 1, now_ms), 0);
	assert_int_equal(a.rc, 0);
	return a;
}

static int read_rc(struct fixture *f, uint64_t now_ms, struct store_read *r)
{
	MDB_txn *txn;
	int rc;

	arena_reset(&f->arena);
	assert_int_equal(mdb_txn_begin(f->log.env, NULL, MDB_RDONLY, &txn), 0);
	rc = lmdblog_read(&f->log, txn, r, &f->arena, now_ms, now_ms);
	mdb_txn_abort(txn);
	return rc;
}

static struct store_read read_at(struct fixture *f, uint64_t now_ms,
				 const char *channel)
{
	struct store_read r = {
		.channel = channel,
		.records_max = 1000,
		.bytes_max = 1 << 20,
	};

	assert_int_equal(read_rc(f, now_ms, &r), 0);
	return r;
}

/* Trims until there is nothing more to do. */
static void trim_at(struct fixture *f, uint64_t now_ms)
{
	bool more = true;

	for (unsigned i = 0; more; i++) {
		assert_int_equal(lmdblog_trim(&f->log, now_ms, &more), 0);
		assert_true(i < 1000);
	}
}

static size_t entries(struct fixture *f, MDB_dbi table)
{
	MDB_txn *txn;
	MDB_stat st;

	assert_int_equal(mdb_txn_begin(f->log.env, NULL, MDB_RDONLY, &txn), 0);
	assert_int_equal(mdb_stat(txn, table, &st), 0);
	mdb_txn_abort(txn);
	return st.ms_entries;
}

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

static void data_path(const struct fixture *f, char path[128])
{
	snprintf(path, 128, "%s/data.mdb", f->directory);
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

/* --- format 1 ---------------------------------------------------------- */

static void put_raw(MDB_txn *txn, MDB_dbi table, const void *key,
		    size_t key_len, const uint64_t *numbers, size_t count,
		    const char *rest, size_t rest_len)
{
	uint8_t bytes[256];
	MDB_val k = {key_len, (void *)key}, v = {count * 8 + rest_len, bytes};

	for (size_t i = 0; i < count; i++) {
		uint64_t n = htole64(numbers[i]);

		memcpy(bytes + 8 * i, &n, 8);
	}
	memcpy(bytes + 8 * count, rest, rest_len);
	assert_int_equal(mdb_put(txn, table, &k, &v, 0), 0);
}

/* The file as a program of format 1 leaves it: log "a" with "x" and "y" of T0,
 * the second under the key "k", not trimmed. */
static void make_format_1(struct fixture *f)
{
	const uint64_t epoch = T0 - 1000, pair[] = {htobe64(epoch), htobe64(1)};
	const uint64_t next[] = {htobe64(epoch), htobe64(2)};
	const uint64_t due[] = {htobe64(T0 + TTL), htobe64(1)};
	const uint64_t global[] = {1, 77, epoch, 1};
	const uint64_t meta[] = {epoch, 2, 1, 1, T0, TTL, T0 + TTL};
	const uint64_t answer[] = {T0 + WINDOW, epoch, 2};
	char path[128];
	MDB_txn *txn;

	assert_int_equal(mdb_txn_begin(f->log.env, NULL, 0, &txn), 0);
	put_raw(txn, f->log.main, "stentor", 7, global, 4, "", 0);
	put_raw(txn, f->log.logs, "a", 1, meta, 7, "", 0);
	put_raw(txn, f->log.records, pair, 16, NULL, 0, "x", 1);
	put_raw(txn, f->log.records, next, 16, NULL, 0, "y", 1);
	put_raw(txn, f->log.keys, "a\0k", 3, answer, 3,
		"id-y\0______________________________________", 40);
	put_raw(txn, f->log.expiry, due, 16, NULL, 0, "La", 2);
	assert_int_equal(mdb_txn_commit(txn), 0);
	lmdblog_close(&f->log);
	snprintf(path, sizeof(path), "%s/history", f->directory);
	assert_int_equal(unlink(path), 0);
}

static uint64_t format_of(struct fixture *f)
{
	MDB_val key = {7, "stentor"}, value;
	uint64_t format;
	MDB_txn *txn;

	assert_int_equal(mdb_txn_begin(f->log.env, NULL, MDB_RDONLY, &txn), 0);
	assert_int_equal(mdb_get(txn, f->log.main, &key, &value), 0);
	memcpy(&format, value.mv_data, sizeof(format));
	mdb_txn_abort(txn);
	return le64toh(format);
}

static void test_lmdblog_format_1(void **state)
{
	struct fixture *f = *state;
	struct store_append a;
	struct store_read r;

	make_format_1(f);
	open_log(f, MAP, T0);
	assert_int_equal(format_of(f), 2); /* an older program refuses it */
	assert_int_equal(f->log.histories, 0);
	assert_int_equal(f->log.global.identity, 77);
	r = read_at(f, T0, "a");
	assert_int_equal(r.count, 2);
	assert_int_equal(r.records[1].len, 1);
	assert_int_equal(r.records[1].bytes[0], 'y');

	a = message("a", "k", "w", 1);
	a.digest = 5; /* with none it can't be compared */
	assert_int_equal(
		lmdblog_append(&f->log, (struct store_append *[]){&a}, 1, T0),
		0);
	assert_true(a.duplicate);
	assert_string_equal(a.message_id, "id-y");
	a = append_at(f, T0 + 1000, "a", "", "z");
	assert_int_equal(a.place.epoch, T0 - 1000);
	assert_int_equal(a.place.offset, 3);
	r = read_at(f, T0 + TTL - 1, "a");
	assert_int_equal(r.count, 3);
	assert_int_equal(r.records[0].bytes[0], 'x');
	assert_int_equal(r.records[2].bytes[0], 'z');
	reopen_log(f, MAP);
	assert_int_equal(f->log.histories, 0);
	r = read_at(f, T0 + TTL, "a"); /* those without time: as old as "y" */
	assert_int_equal(r.first, 3);
	assert_int_equal(r.count, 1);
	trim_at(f, T0 + TTL);
	assert_int_equal(entries(f, f->log.records), 1);
	trim_at(f, T0 + 2 * TTL);
	assert_int_equal(entries(f, f->log.records), 0);
}

/* --- gone back --------------------------------------------------------- */

static struct store_place renew_at(struct fixture *f, uint64_t now_ms,
				   const char *channel,
				   struct store_place known,
				   struct store_eras *eras)
{
	struct store_place place;
	struct store_tops t = {.channels = &channel,
			       .known = &known,
			       .count = 1,
			       .places = &place,
			       .eras = eras};
	struct store_tops *all[] = {&t};

	assert_int_equal(lmdblog_renew(&f->log, all, 1, now_ms), 0);
	return place;
}

static bool behind_at(struct fixture *f, uint64_t now_ms, const char *channel,
		      struct store_place known)
{
	struct store_place place;
	struct store_tops t = {.channels = &channel,
			       .known = &known,
			       .count = 1,
			       .places = &place};
	MDB_txn *txn;
	bool behind;

	assert_int_equal(mdb_txn_begin(f->log.env, NULL, MDB_RDONLY, &txn), 0);
	assert_int_equal(lmdblog_tops(&f->log, txn, &t, now_ms, &behind), 0);
	mdb_txn_abort(txn);
	return behind;
}

#define DATA	 "data.mdb"
#define HISTORY	 "history"
#define IN_PLACE 0
#define BOTH	 NULL /* the whole directory */

struct way {
	const char *name, *what;
	int flags;
	const char *removed; /* then */
};

static const struct way ways[] = {
	{"cp of all", BOTH, COPY_ANEW, NULL},
	{"cp -a of all", BOTH, COPY_ANEW | COPY_TIMES, NULL},
	{"cp of all in place", BOTH, IN_PLACE, NULL},
	{"cp -a of all in place", BOTH, COPY_TIMES, NULL},
	{"cp", DATA, COPY_ANEW, NULL},
	{"cp -a", DATA, COPY_ANEW | COPY_TIMES, NULL},
	{"cp in place", DATA, IN_PLACE, NULL},
	{"cp -a in place", DATA, COPY_TIMES, NULL},
	{"all, and no history", BOTH, COPY_TIMES, HISTORY},
	{"no history", DATA, COPY_ANEW, HISTORY},
	{"no history, in place", DATA, COPY_TIMES, HISTORY},
};

static void remove_named(const char *directory, const char *name)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", directory, name);
	assert_int_equal(unlink(path), 0);
}

static void put_back(const struct fixture *f, const char *copy,
		     const struct way *way)
{
	if (way->what != BOTH)
		copy_one(way->what, copy, f->directory, way->flags);
	else
		copy_directory(copy, f->directory, way->flags);
	if (way->removed)
		remove_named(f->directory, way->removed);
}

/* Three messages are left of five, which were "4" and "5". */
static void assert_went_back(struct fixture *f, struct store_place lost,
			     uint64_t now_ms)
{
	struct store_place none = {0, 0}, place;
	struct store_eras eras;
	struct store_append a;
	struct store_read r;

	assert_int_equal(f->log.histories, 1);
	assert_int_equal(read_at(f, now_ms, "a").top.offset, 3);
	a = append_at(f, now_ms, "a", "k3", "");
	assert_true(a.duplicate);
	assert_true(a.place.epoch > lost.epoch);
	assert_int_equal(a.place.offset, 3);
	a = append_at(f, now_ms, "a", "k4", "x");
	assert_false(a.duplicate);
	assert_int_equal(a.place.offset, 4);
	r = read_at(f, now_ms, "a");
	assert_int_equal(r.count, 4);
	assert_int_equal(r.records[3].bytes[0], 'x');
	assert_int_equal(r.eras.count, 1);
	assert_int_equal(r.eras.era[0].epoch, lost.epoch);
	assert_int_equal(r.eras.era[0].offset, 3);
	/* Who asks for a top gets the new epoch too, nobody another one. */
	assert_true(behind_at(f, now_ms, "b", none));
	place = renew_at(f, now_ms, "b", none, &eras);
	assert_int_equal(place.offset, 1);
	assert_int_equal(eras.count, 1);
	assert_false(behind_at(f, now_ms, "b", none));
	assert_int_equal(f->log.eras, 2);
	reopen_log(f, MAP);
	assert_int_equal(f->log.histories, 0);
	assert_int_equal(renew_at(f, now_ms, "b", none, NULL).epoch,
			 place.epoch);
	assert_int_equal(append_at(f, now_ms, "a", "", "y").place.epoch,
			 a.place.epoch);
}

/* Each way to put a copy back, of a file that was copied open and closed. */
static void goes_back(struct fixture *f, const struct way *way, bool closed)
{
	uint64_t now_ms = T0 + 1000;
	struct store_place lost;
	char copy[128];

	print_message("%s, copied %s\n", way->name, closed ? "closed" : "open");
	snprintf(copy, sizeof(copy), "%s.copy", f->directory);
	append_at(f, T0, "b", "", "1");
	append_at(f, T0, "a", "k1", "1");
	append_at(f, T0, "a", "k2", "2");
	append_at(f, T0, "a", "k3", "3");
	if (closed)
		lmdblog_close(&f->log);
	copy_directory(f->directory, copy, COPY_TIMES);
	if (closed)
		open_log(f, MAP, T0);
	append_at(f, now_ms, "a", "k4", "4");
	lost = append_at(f, now_ms, "a", "k5", "5").place;
	assert_int_equal(lost.offset, 5);
	lmdblog_close(&f->log);
	put_back(f, copy, way);
	open_log(f, MAP, now_ms);
	assert_went_back(f, lost, now_ms);
	nftw(copy, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void test_lmdblog_put_back(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < 2 * array_len(ways); i++) {
		lmdblog_close(&f->log);
		remove_files(f->directory);
		open_log(f, MAP, T0);
		goes_back(f, &ways[i / 2], i % 2);
	}
}

static void history_path(const struct fixture *f, char path[128])
{
	snprintf(path, 128, "%s/" HISTORY, f->directory);
}

/* Writes over `history`; len 0: it ends there. */
static void history_spoil(const struct fixture *f, off_t offset, uint64_t n,
			  size_t len)
{
	char path[128];
	int fd;

	history_path(f, path);
	fd = open(path, O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	if (len == 0)
		assert_int_equal(ftruncate(fd, offset), 0);
	assert_int_equal(pwrite(fd, &n, len, offset), (ssize_t)len);
	close(fd);
}

#define COMMIT_AT 24

/* After a power failure `history` may be far behind, and then another file is
 * put in the place of the one that is damaged. */
static void test_lmdblog_put_back_unsynced(void **state)
{
	struct fixture *f = *state;
	struct store_place lost;
	char copy[128];

	snprintf(copy, sizeof(copy), "%s.copy", f->directory);
	append_at(f, T0, "b", "", "1");
	for (unsigned i = 1; i <= 3; i++)
		append_at(f, T0, "a", i == 3 ? "k3" : "", "x");
	copy_directory(f->directory, copy, 0);
	append_at(f, T0, "a", "k4", "4");
	lost = append_at(f, T0, "a", "", "5").place;
	lmdblog_close(&f->log);
	history_spoil(f, COMMIT_AT, 1, 8);
	copy_one(DATA, copy, f->directory, COPY_ANEW | COPY_TIMES);
	open_log(f, MAP, T0);
	assert_went_back(f, lost, T0);
	nftw(copy, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* Logs made faster than one a millisecond: their epochs are ahead of the clock,
 * and those that are lost are not given again. */
static void test_lmdblog_put_back_lost_epochs(void **state)
{
	struct fixture *f = *state;
	struct store_place lost = {0, 0};
	char copy[128], name[16];

	snprintf(copy, sizeof(copy), "%s.copy", f->directory);
	append_at(f, T0, "a", "", "1");
	copy_directory(f->directory, copy, 0);
	for (unsigned i = 0; i < 200; i++) {
		snprintf(name, sizeof(name), "c%u", i);
		lost = append_at(f, T0, name, "", "1").place;
	}
	assert_true(lost.epoch > T0 + 199);
	lmdblog_close(&f->log);
	copy_one(DATA, copy, f->directory, 0);
	open_log(f, MAP, T0 + 100);
	assert_true(append_at(f, T0 + 100, "a", "", "2").place.epoch >
		    lost.epoch);
	assert_true(append_at(f, T0 + 100, "c0", "", "1").place.epoch >
		    lost.epoch);
	nftw(copy, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* The same copy again, and a later copy than what is there, of before. */
static void test_lmdblog_put_back_again(void **state)
{
	struct fixture *f = *state;
	char early[128], late[128];
	uint64_t now_ms = T0 + 1000, epoch;

	snprintf(early, sizeof(early), "%s.early", f->directory);
	snprintf(late, sizeof(late), "%s.late", f->directory);
	append_at(f, T0, "a", "", "1");
	copy_directory(f->directory, early, 0);
	for (unsigned i = 0; i < 10; i++)
		epoch = append_at(f, now_ms, "a", "", "x").place.epoch;
	copy_directory(f->directory, late, 0);
	for (unsigned i = 0; i < 4; i++) {
		lmdblog_close(&f->log);
		copy_one(DATA, i == 3 ? late : early, f->directory, 0);
		open_log(f, MAP, now_ms);
		assert_int_equal(f->log.histories, 1);
		assert_true(append_at(f, now_ms, "a", "", "y").place.epoch !=
			    epoch);
		epoch = append_at(f, now_ms, "a", "", "y").place.epoch;
		now_ms += 1000;
	}
	nftw(early, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	nftw(late, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static void reopen_quietly(struct fixture *f, const char *what)
{
	open_log(f, MAP, T0);
	if (f->log.histories != 0)
		fail_msg("%s", what);
	append_at(f, T0, "a", "", "x");
	lmdblog_close(&f->log);
}

/* What is no reason for doubt: a kill between commit and `history`, a power
 * failure, other owners and modes, the directory moved. */
static void test_lmdblog_not_put_back(void **state)
{
	struct fixture *f = *state;
	char moved[128], path[128];
	struct store_place place = append_at(f, T0, "a", "", "x").place;

	lmdblog_close(&f->log);
	reopen_quietly(f, "a restart");
	history_spoil(f, COMMIT_AT, 1, 8);
	reopen_quietly(f, "history is behind");
	history_spoil(f, 0, 0, 0);
	reopen_quietly(f, "history is empty");
	data_path(f, path);
	assert_int_equal(chmod(path, 0660), 0);
	assert_int_equal(chown(path, getuid(), getgid()), 0);
	assert_int_equal(utimensat(AT_FDCWD, path, NULL, 0), 0);
	history_path(f, path);
	assert_int_equal(chmod(path, 0660), 0);
	assert_int_equal(utimensat(AT_FDCWD, path, NULL, 0), 0);
	reopen_quietly(f, "chmod, chown, touch");
	snprintf(moved, sizeof(moved), "%s.moved", f->directory);
	assert_int_equal(rename(f->directory, moved), 0);
	memcpy(f->directory, moved, sizeof(f->directory));
	f->directory[sizeof(f->directory) - 1] = '\0';
	reopen_quietly(f, "moved");
	open_log(f, MAP, T0);
	assert_int_equal(append_at(f, T0, "a", "", "x").place.epoch,
			 place.epoch);
}

/* A file that says nothing we can trust. */
static void test_lmdblog_history_spoilt(void **state)
{
	struct fixture *f = *state;
	const off_t sizes[] = {1, 8, 63, 65};

	for (off_t at = 0; at < 64; at += 8) {
		if (at == COMMIT_AT)
			continue;
		append_at(f, T0, "a", "", "x");
		lmdblog_close(&f->log);
		history_spoil(f, at, 0x1234567, 8);
		open_log(f, MAP, T0);
		assert_int_equal(f->log.histories, 1);
	}
	for (size_t i = 0; i < array_len(sizes); i++) {
		lmdblog_close(&f->log);
		history_spoil(f, sizes[i], 0, 0);
		open_log(f, MAP, T0);
		assert_int_equal(f->log.histories, 1);
	}
}

/* What is known makes eras; what fails in between makes none. */
static void test_lmdblog_renews(void **state)
{
	struct fixture *f = *state;
	struct store_place old = append_at(f, T0, "a", "", "x").place;
	struct store_place known = {old.epoch, 5}, places[2];
	const char *channels[] = {"a", "bad"};
	const struct store_place knowns[] = {known, {1, 1}};
	struct store_tops t = {.channels = channels,
			       .known = knowns,
			       .count = 2,
			       .places = places};
	struct store_tops *all[] = {&t};
	MDB_val key = {3, "bad"}, value = {5, "short"};
	MDB_txn *txn;

	assert_true(behind_at(f, T0, "a", known));
	assert_int_equal(mdb_txn_begin(f->log.env, NULL, 0, &txn), 0);
	assert_int_equal(mdb_put(txn, f->log.logs, &key, &value, 0), 0);
	assert_int_equal(mdb_txn_commit(txn), 0);
	assert_int_equal(lmdblog_renew(&f->log, all, 1, T0), MDB_CORRUPTED);
	assert_int_equal(read_at(f, T0, "a").top.epoch, old.epoch);
	assert_int_equal(f->log.eras, 0);
	assert_true(behind_at(f, T0, "a", known));
	places[0] = renew_at(f, T0, "a", known, NULL);
	assert_true(places[0].epoch > old.epoch);
	assert_int_equal(f->log.eras, 1);
	assert_false(behind_at(f, T0, "a", known));
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
}

/* Put back while the file was closed because of the disk. */
static void test_lmdblog_recovers_gone_back(void **state)
{
	struct fixture *f = *state;
	struct store_place old = append_at(f, T0, "a", "", "1").place;
	struct store_append a;
	char copy[128];

	snprintf(copy, sizeof(copy), "%s.copy", f->directory);
	copy_directory(f->directory, copy, 0);
	append_at(f, T0, "a", "", "2");
	mdb_env_close(f->log.env);
	f->log.env = NULL;
	copy_one(DATA, copy, f->directory, 0);
	assert_int_equal(lmdblog_recover(&f->log), 0);
	assert_int_equal(f->log.histories, 1);
	a = append_at(f, T0, "a", "", "3");
	assert_true(a.place.epoch > old.epoch);
	assert_int_equal(a.place.offset, 2);
	mdb_env_close(f->log.env);
	f->log.env = NULL;
	assert_int_equal(lmdblog_recover(&f->log), 0);
	assert_int_equal(f->log.histories, 1);
	assert_int_equal(append_at(f, T0, "a", "", "4").place.epoch,
			 a.place.epoch);
	nftw(copy, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
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
#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
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
		CASE(test_lmdblog_format_1),
		CASE(test_lmdblog_put_back),
		CASE(test_lmdblog_put_back_again),
		CASE(test_lmdblog_put_back_unsynced),
		CASE(test_lmdblog_put_back_lost_epochs),
		CASE(test_lmdblog_not_put_back),
		CASE(test_lmdblog_history_spoilt),
		CASE(test_lmdblog_renews),
		CASE(test_lmdblog_recovers_gone_back),
	};

	log_init("test", LOG_ERROR, false);

	return cmocka_run_group_tests(tests, NULL, NULL);
}

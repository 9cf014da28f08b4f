/* lmdblog_fixture.h - the file of the embedded store for a test, in a directory
 * of its own, and told what time it is.
 */
#ifndef STENTOR_TESTS_LMDBLOG_FIXTURE_H
#define STENTOR_TESTS_LMDBLOG_FIXTURE_H

#include "tests/unit/dir_copy.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "dispatcher/store/lmdblog.h"

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

static inline int remove_entry(const char *path, const struct stat *st,
			       int type, struct FTW *at)
{
	(void)st, (void)type, (void)at;
	return remove(path);
}

static inline void open_log(struct fixture *f, uint64_t map_bytes,
			    uint64_t now_ms)
{
	char fault[STORE_FAULT_SIZE] = "";

	if (lmdblog_open(&f->log, f->directory, map_bytes, WINDOW, now_ms,
			 fault) != 0)
		fail_msg("%s", fault);
}

static inline void reopen_log(struct fixture *f, uint64_t map_bytes)
{
	lmdblog_close(&f->log);
	open_log(f, map_bytes, T0);
}

static inline int setup(void **state)
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

static inline int teardown(void **state)
{
	struct fixture *f = *state;

	lmdblog_close(&f->log);
	arena_fini(&f->arena);
	nftw(f->directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	free(f);
	return 0;
}

static inline struct store_append message(const char *channel, const char *key,
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

static inline struct store_append append_at(struct fixture *f, uint64_t now_ms,
					    const char *channel,
					    const char *key, const char *text)
{
	struct store_append a = message(channel, key, text, strlen(text));
	struct store_append *batch[] = {&a};

	assert_int_equal(lmdblog_append(&f->log, batch, 1, now_ms), 0);
	assert_int_equal(a.rc, 0);
	return a;
}

static inline int read_rc(struct fixture *f, uint64_t now_ms,
			  struct store_read *r)
{
	MDB_txn *txn;
	int rc;

	arena_reset(&f->arena);
	assert_int_equal(mdb_txn_begin(f->log.env, NULL, MDB_RDONLY, &txn), 0);
	rc = lmdblog_read(&f->log, txn, r, &f->arena, now_ms, now_ms);
	mdb_txn_abort(txn);
	return rc;
}

static inline struct store_read read_at(struct fixture *f, uint64_t now_ms,
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
static inline void trim_at(struct fixture *f, uint64_t now_ms)
{
	bool more = true;

	for (unsigned i = 0; more; i++) {
		assert_int_equal(lmdblog_trim(&f->log, now_ms, &more), 0);
		assert_true(i < 1000);
	}
}

static inline size_t entries(struct fixture *f, MDB_dbi table)
{
	MDB_txn *txn;
	MDB_stat st;

	assert_int_equal(mdb_txn_begin(f->log.env, NULL, MDB_RDONLY, &txn), 0);
	assert_int_equal(mdb_stat(txn, table, &st), 0);
	mdb_txn_abort(txn);
	return st.ms_entries;
}

static inline void data_path(const struct fixture *f, char path[128])
{
	snprintf(path, 128, "%s/data.mdb", f->directory);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

#endif

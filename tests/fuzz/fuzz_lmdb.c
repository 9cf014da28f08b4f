/* Fuzz target: what stands in an LMDB file's tables. The input is a series of
 * entries, each: table, kind of key, length of the key, length of the value,
 * key, value; they are put as they are. Then the file is read, appended to,
 * given new epochs and trimmed as a store does it. Whatever an entry holds is
 * an error at most; what has been read is within what was asked for, and a new
 * epoch is greater than what was known.
 *
 * Pages of the file are LMDB's own business: it trusts them (CONTRIBUTING.md).
 */
#include "common/base/log.h"
#include "common/codec/linkwire.h"
#include "dispatcher/store/lmdblog_internal.h"
#include "tests/fuzz/fuzz.h"

#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAP_BYTES (16u << 20)
#define IDEM_MS	  5000
#define START_MS  100000
#define KEY_MAX	  511 /* LMDB's own limit */
#define HISTORY	  7   /* under which the logs should have been counted */

static const char *const channels[] = {"a", "b", "c"};
#define KEY "key" /* for idempotency */

/* One file for all inputs, without fsync; deleted at the end. */
static struct lmdblog log_;
static char directory[] = "/tmp/stentor-fuzz-lmdb-XXXXXX";
static pid_t owner;

static void delete_file(void)
{
	char path[PATH_MAX];

	if (getpid() != owner)
		return;
	lmdblog_close(&log_);
	for (unsigned i = 0; i < 4; i++) {
		static const char *const names[] = {
			"data.mdb", "lock.mdb", "history", "dispatcher.lock"};

		snprintf(path, sizeof(path), "%s/%s", directory, names[i]);
		unlink(path);
	}
	rmdir(directory);
}

static void open_once(void)
{
	char fault[STORE_FAULT_SIZE];
	int rc;

	if (log_.env != NULL)
		return;
	log_init("fuzz", LOG_ERROR, false);
	check(mkdtemp(directory) != NULL);
	rc = lmdblog_open(&log_, directory, MAP_BYTES, IDEM_MS, START_MS,
			  fault);
	check(rc == 0);
	rc = mdb_env_set_flags(log_.env, MDB_NOSYNC, 1);
	check(rc == 0);
	owner = getpid();
	atexit(delete_file);
}

/* An empty file again, and nothing remembered of the one before. */
static MDB_txn *clear(void)
{
	struct write_txn t;
	MDB_txn *txn;
	int rc = write_begin(&log_, &t, START_MS);

	check(rc == 0);
	check(write_end(&log_, &t, MDB_CORRUPTED) == MDB_CORRUPTED);
	rc = mdb_txn_begin(log_.env, NULL, 0, &txn);
	check(rc == 0);
	mdb_drop(txn, log_.logs, 0);
	mdb_drop(txn, log_.records, 0);
	mdb_drop(txn, log_.keys, 0);
	mdb_drop(txn, log_.expiry, 0);
	log_.global = (struct lmdblog_global){1, START_MS, 1, 1, HISTORY};
	rc = global_put(&log_, txn);
	check(rc == 0);
	return txn;
}

/* A key as the table has them, of few different ones; or any bytes. */
static MDB_val key_of(uint8_t kind, uint8_t *bytes, size_t len,
		      uint8_t room[KEY_MAX])
{
	struct pair_key pair;
	uint64_t numbers[2] = {0};

	if (kind % 4 == 0)
		return val_of(bytes, len);
	if (kind % 4 == 1) {
		const char *name = channels[kind / 4 % array_len(channels)];

		return val_of(name, strlen(name));
	}
	if (kind % 4 == 2) {
		return val_of("a\0" KEY, sizeof("a\0" KEY) - 1);
	}
	memcpy(numbers, bytes, min_of(len, sizeof(numbers)));
	pair = pair_key(numbers[0] % (2 * START_MS), kind / 4);
	memcpy(room, &pair, sizeof(pair));
	return val_of(room, sizeof(pair));
}

static void put_entry(MDB_txn *txn, struct fuzz_input *in)
{
	const MDB_dbi tables[] = {log_.logs, log_.records, log_.keys,
				  log_.expiry, log_.main};
	MDB_dbi table = tables[fuzz_byte(in) % array_len(tables)];
	uint8_t kind = fuzz_byte(in), room[KEY_MAX];
	size_t key_len = fuzz_byte(in), len = fuzz_byte(in);
	uint8_t *key_bytes = fuzz_bytes(in, &key_len);
	uint8_t *bytes = fuzz_bytes(in, &len);
	MDB_val key = table == log_.main
			      ? val_of("stentor", 7)
			      : key_of(kind, key_bytes, key_len, room);
	MDB_val value = val_of(bytes, len);

	if (key.mv_size > 0)
		(void)!mdb_put(txn, table, &key, &value, 0);
	free(bytes);
	free(key_bytes);
}

static void read_channel(MDB_txn *txn, const char *channel, uint64_t after,
			 bool latest, uint64_t now_ms)
{
	struct store_read r = {
		.channel = channel,
		.after = after,
		.latest = latest,
		.records_max = 5,
		.bytes_max = 300,
	};
	struct arena arena;

	arena_init(&arena, 1u << 20);
	if (lmdblog_read(&log_, txn, &r, &arena, now_ms, now_ms) == 0) {
		check(r.count <= r.records_max);
		for (size_t i = 0; i < r.count; i++) {
			check(latest || r.records[i].offset > after);
			check(i == 0 || r.records[i].offset ==
						r.records[i - 1].offset + 1);
			(void)link_record_valid(r.records[i].bytes,
						r.records[i].len);
		}
	}
	arena_fini(&arena);
}

static void read_all(uint64_t now_ms)
{
	struct store_place places[array_len(channels)];
	struct store_tops tops = {.channels = channels,
				  .count = array_len(channels),
				  .places = places};
	MDB_txn *txn;
	bool behind;
	int rc = mdb_txn_begin(log_.env, NULL, MDB_RDONLY, &txn);

	check(rc == 0);
	for (size_t i = 0; i < array_len(channels); i++) {
		read_channel(txn, channels[i], 0, false, now_ms);
		read_channel(txn, channels[i], 3, false, now_ms);
		read_channel(txn, channels[i], 0, true, now_ms);
	}
	(void)!lmdblog_tops(&log_, txn, &tops, now_ms, &behind);
	mdb_txn_abort(txn);
}

/* As if somebody had seen one more of each. */
static void renew_all(uint64_t now_ms)
{
	struct store_place places[array_len(channels)];
	struct store_place known[array_len(channels)];
	struct store_eras eras[array_len(channels)] = {0};
	struct store_tops tops = {.channels = channels,
				  .count = array_len(channels),
				  .places = places};
	struct store_tops *all[] = {&tops};

	if (lmdblog_renew(&log_, all, 1, now_ms) != 0)
		return;
	for (size_t i = 0; i < array_len(channels); i++)
		known[i] = (struct store_place){places[i].epoch,
						places[i].offset + 1};
	tops.known = known;
	tops.eras = eras;
	if (lmdblog_renew(&log_, all, 1, now_ms) != 0)
		return;
	for (size_t i = 0; i < array_len(channels); i++) {
		check(places[i].epoch > known[i].epoch);
		check(eras[i].count <= STORE_ERAS_MAX);
		check(places[i].offset == 0 ||
		      (eras[i].era[0].epoch == known[i].epoch &&
		       eras[i].era[0].offset == places[i].offset));
	}
}

static void append_all(uint64_t now_ms)
{
	for (size_t i = 0; i < 2 * array_len(channels); i++) {
		struct store_append a = {
			.channel = channels[i / 2],
			.record = "record",
			.len = 6,
			.size = 3,
			.ttl_ms = 10000,
			.idempotency_key = i % 2 == 0 ? "" : KEY,
			.message_id = "id",
		};
		struct store_append *batch[] = {&a};

		if (lmdblog_append(&log_, batch, 1, now_ms) != 0 || a.rc != 0)
			continue;
		check(a.duplicate || a.place.offset > 0);
		check(strlen(a.message_id) < sizeof(a.message_id));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	MDB_txn *txn;
	bool more;
	int rc;

	open_once();
	txn = clear();
	while (in.left > 0)
		put_entry(txn, &in);
	rc = mdb_txn_commit(txn);
	check(rc == 0);
	read_all(START_MS);
	(void)!lmdblog_trim(&log_, START_MS + 1000, &more);
	append_all(START_MS + 2000);
	read_all(START_MS + 2000);
	renew_all(START_MS + 3000);
	append_all(START_MS + 4000);
	read_all(START_MS + 4000);
	(void)!lmdblog_trim(&log_, 2 * START_MS, &more);
	read_all(2 * START_MS);
	return 0;
}

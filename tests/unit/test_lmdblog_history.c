/* The embedded store's file put back to an earlier state, in every way that
 * people and tools have for it, and files of format 1. */
#include "tests/unit/lmdblog_fixture.h"

#include "common/base/log.h"

#include <endian.h>

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

#define MANY 512 /* logs: their entries fill 20 pages or so */

/* LMDB gets so many pages more than it has used. */
static void leave_pages(struct fixture *f, size_t pages)
{
	MDB_envinfo info;
	MDB_stat stat;

	assert_int_equal(mdb_env_info(f->log.env, &info), 0);
	assert_int_equal(mdb_env_stat(f->log.env, &stat), 0);
	assert_int_equal(mdb_env_set_mapsize(f->log.env,
					     (info.me_last_pgno + 1 + pages) *
						     stat.ms_psize),
			 0);
}

/* Two operations, all of whose logs have gone back. */
struct many {
	char names[MANY][64];
	const char *channels[MANY];
	struct store_place knowns[MANY], places[MANY];
	struct store_tops tops[2], *all[2];
};

static struct many *many_new(struct fixture *f)
{
	struct many *m = xcalloc(1, sizeof(*m));

	for (unsigned i = 0; i < MANY; i++) {
		snprintf(m->names[i], sizeof(m->names[i]), "%060u", i);
		append_at(f, T0, m->names[i], "", "x");
		m->channels[i] = m->names[i];
	}
	for (unsigned i = 0; i < MANY; i++)
		m->knowns[i] = (struct store_place){f->log.global.epoch + 1, 5};
	for (unsigned i = 0; i < 2; i++) {
		unsigned at = i * MANY / 2;

		m->all[i] = &m->tops[i];
		m->tops[i] = (struct store_tops){.channels = m->channels + at,
						 .known = m->knowns + at,
						 .places = m->places + at,
						 .count = MANY / 2};
	}
	return m;
}

/* Of the operations, each log once. */
static void assert_renewed(const struct fixture *f, const struct many *m)
{
	assert_int_equal(m->tops[0].rc, 0);
	assert_int_equal(m->tops[1].rc, 0);
	assert_int_equal(f->log.eras, MANY);
	for (unsigned i = 0; i < MANY; i++)
		assert_true(m->places[i].epoch > m->knowns[i].epoch);
}

/* The map has room for what they add, but not for all of it in one transaction,
 * which writes every page anew. */
static void test_lmdblog_renews_by_halves(void **state)
{
	struct fixture *f = *state;
	struct many *m = many_new(f);

	leave_pages(f, 12);
	assert_int_equal(lmdblog_renew(&f->log, m->all, 2, T0), 0);
	assert_renewed(f, m);
	free(m);
}

/* It has none for what they add: what fits is done. When they are asked again
 * there is less to do. */
static void test_lmdblog_renews_what_fits(void **state)
{
	struct fixture *f = *state;
	struct many *m = many_new(f);

	leave_pages(f, 6);
	lmdblog_renew(&f->log, m->all, 2, T0);
	assert_int_equal(m->tops[0].rc, 0);
	assert_int_equal(m->tops[1].rc, ERR_FULL);
	assert_in_range(f->log.eras, MANY / 2 + 1, MANY - 1);
	leave_pages(f, 12);
	assert_int_equal(lmdblog_renew(&f->log, m->all, 2, T0), 0);
	assert_renewed(f, m);
	free(m);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_lmdblog_format_1),
		CASE(test_lmdblog_put_back),
		CASE(test_lmdblog_put_back_again),
		CASE(test_lmdblog_put_back_unsynced),
		CASE(test_lmdblog_put_back_lost_epochs),
		CASE(test_lmdblog_not_put_back),
		CASE(test_lmdblog_history_spoilt),
		CASE(test_lmdblog_renews),
		CASE(test_lmdblog_renews_by_halves),
		CASE(test_lmdblog_renews_what_fits),
		CASE(test_lmdblog_recovers_gone_back),
	};

	log_init("test", LOG_ERROR, false);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

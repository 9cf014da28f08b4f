/* lmdblog_open.c - opening, closing and mending the file. */
#include "common/base/err.h"
#include "dispatcher/store/lmdblog_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MODE	 0600
#define DIR_MODE	 0700
#define MAP_MIN		 ((uint64_t)1 << 20)
#define ROOM_NEEDED	 ((off_t)1 << 20) /* on the disk, to try again */
#define GLOBAL_KEY	 "stentor"
#define GLOBAL_NUMBERS	 6
#define GLOBAL_1_NUMBERS 4 /* of format 1 */

/* --- errors ------------------------------------------------------------ */

static bool no_space(int rc)
{
	return rc == ENOSPC || rc == EDQUOT || rc == EFBIG;
}

int lmdblog_err(int rc)
{
	if (rc == 0)
		return 0;
	if (no_space(rc) || rc == MDB_MAP_FULL || rc == MDB_TXN_FULL)
		return ERR_FULL;
	return ERR_IO;
}

enum lmdblog_health lmdblog_health(int rc)
{
	switch (rc) {
	case 0:
	case MDB_MAP_FULL:
	case MDB_TXN_FULL:
		return LMDBLOG_WELL;
	case MDB_PAGE_NOTFOUND:
	case MDB_CORRUPTED:
	case MDB_INVALID:
	case MDB_BAD_TXN:  /* by corruption that an earlier call met */
	case MDB_KEYEXIST: /* where none may be */
		return LMDBLOG_DEAD;
	default:
		return LMDBLOG_RETRY;
	}
}

PRINTF(3, 4)
static int fault_at(const struct lmdblog *l, char fault[STORE_FAULT_SIZE],
		    const char *format, ...)
{
	char what[STORE_FAULT_SIZE / 2];
	va_list args;

	va_start(args, format);
	vsnprintf(what, sizeof(what), format, args);
	va_end(args);
	snprintf(fault, STORE_FAULT_SIZE, "store lmdb:%.100s: %s", l->path,
		 what);
	return ERR_CONFIG;
}

/* --- opening ----------------------------------------------------------- */

/* The directory, and the lock that keeps others out. */
static int lock_directory(struct lmdblog *l, char fault[STORE_FAULT_SIZE])
{
	struct stat st;
	int n;

	if (mkdir(l->path, DIR_MODE) != 0 && errno != EEXIST)
		return fault_at(l, fault, "can't be created: %s",
				strerror(errno));
	if (stat(l->path, &st) != 0 || !S_ISDIR(st.st_mode))
		return fault_at(l, fault, "is not a directory");
	l->dir_fd = open(l->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (l->dir_fd < 0)
		return fault_at(l, fault, "can't be read: %s", strerror(errno));
	l->lock_fd = openat(l->dir_fd, "dispatcher.lock",
			    O_RDWR | O_CREAT | O_CLOEXEC, FILE_MODE);
	if (l->lock_fd < 0)
		return fault_at(l, fault, "can't be written: %s",
				strerror(errno));
	if (flock(l->lock_fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
	n = errno;
	if (n != EWOULDBLOCK)
		return fault_at(l, fault, "can't be locked: %s", strerror(n));
	return fault_at(l, fault,
			"another dispatcher has it open; an embedded store "
			"serves one, several need redis://");
}

/* A file cut short would be read behind its end: that kills the process. */
static int check_length(const struct lmdblog *l)
{
	MDB_envinfo info;
	MDB_stat main;
	struct stat st;
	int fd;

	mdb_env_info(l->env, &info);
	mdb_env_stat(l->env, &main);
	mdb_env_get_fd(l->env, &fd);
	if (fstat(fd, &st) != 0)
		return errno;
	if ((uint64_t)st.st_size <
	    (uint64_t)(info.me_last_pgno + 1) * main.ms_psize)
		return MDB_CORRUPTED;
	return 0;
}

static int open_env(struct lmdblog *l)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t map = max_of(l->map_bytes, MAP_MIN);
	int dead, rc = mdb_env_create(&l->env);

	if (rc != 0)
		return rc;
	mdb_env_set_maxdbs(l->env, 4);
	mdb_env_set_mapsize(l->env, (map + page - 1) / page * page);
	rc = mdb_env_open(l->env, l->path, MDB_NOTLS, FILE_MODE);
	if (rc == 0)
		rc = check_length(l);
	if (rc == 0)
		rc = mdb_reader_check(l->env, &dead);
	if (rc != 0) {
		mdb_env_close(l->env);
		l->env = NULL;
	}
	return rc;
}

static int open_tables(struct lmdblog *l, MDB_txn *txn)
{
	int rc = mdb_dbi_open(txn, "logs", MDB_CREATE, &l->logs);

	if (rc == 0)
		rc = mdb_dbi_open(txn, "records", MDB_CREATE, &l->records);
	if (rc == 0)
		rc = mdb_dbi_open(txn, "keys", MDB_CREATE, &l->keys);
	if (rc == 0)
		rc = mdb_dbi_open(txn, "expiry", MDB_CREATE, &l->expiry);
	return rc;
}

int global_put(struct lmdblog *l, MDB_txn *txn)
{
	const uint64_t numbers[GLOBAL_NUMBERS] = {
		LMDBLOG_FORMAT,	    l->global.identity, l->global.epoch,
		l->global.sequence, l->global.commit,	l->global.history};
	uint8_t bytes[sizeof(numbers)];
	MDB_val key = val_of(GLOBAL_KEY, strlen(GLOBAL_KEY));
	MDB_val value = val_of(bytes, sizeof(bytes));

	le_put(bytes, numbers, array_len(numbers));
	return mdb_put(txn, l->main, &key, &value, 0);
}

#define NOT_OURS (-1) /* neither LMDB's nor an errno */

/* The main record and its format, 0 for a file that was just made; or
 * NOT_OURS. */
static int global_get(MDB_dbi table, MDB_txn *txn, uint64_t *format,
		      struct lmdblog_global *global)
{
	MDB_val key = val_of(GLOBAL_KEY, strlen(GLOBAL_KEY)), value;
	uint64_t n[GLOBAL_NUMBERS] = {0};
	size_t count;
	MDB_stat main;
	int rc = mdb_get(txn, table, &key, &value);

	if (rc == MDB_NOTFOUND) {
		mdb_stat(txn, table, &main);
		*format = 0;
		return main.ms_entries == 0 ? 0 : NOT_OURS;
	}
	if (rc != 0)
		return rc;
	if (value.mv_size < sizeof(*format))
		return NOT_OURS;
	le_get(format, value.mv_data, 1);
	if (*format != 1 && *format != LMDBLOG_FORMAT)
		return 0;
	count = *format == 1 ? GLOBAL_1_NUMBERS : GLOBAL_NUMBERS;
	if (value.mv_size != count * 8)
		return MDB_CORRUPTED;
	le_get(n, value.mv_data, count);
	if (n[1] == 0 || n[2] == 0 || n[2] > EPOCH_MAX)
		return MDB_CORRUPTED;
	*global = (struct lmdblog_global){n[1], n[2], n[3], n[4], n[5]};
	return 0;
}

int global_read(const struct lmdblog *l, MDB_txn *txn,
		struct lmdblog_global *global)
{
	uint64_t format;
	int rc = global_get(l->main, txn, &format, global);

	return rc != 0 || format != LMDBLOG_FORMAT ? MDB_CORRUPTED : 0;
}

/* Pages that hold something. What LMDB keeps free is not counted. */
static uint64_t used_bytes(const struct lmdblog *l, MDB_txn *txn)
{
	const MDB_dbi tables[] = {l->logs, l->records, l->keys, l->expiry};
	uint64_t pages = 0;
	MDB_stat st = {0};

	for (size_t i = 0; i < array_len(tables); i++) {
		mdb_stat(txn, tables[i], &st);
		pages += st.ms_branch_pages + st.ms_leaf_pages +
			 st.ms_overflow_pages;
	}
	return pages * st.ms_psize;
}

/* Format 2 begins with a commit of its own. Before it, `history` is there:
 * later that there is none means something. */
static int begin_format(struct lmdblog *l, MDB_txn *txn, uint64_t format,
			uint64_t now_ms)
{
	bool went_back = history_judge(l, now_ms);

	if (format == 0) {
		l->global = (struct lmdblog_global){
			.identity = random_nonzero(), .epoch = now_ms};
	}
	if (format == LMDBLOG_FORMAT && !went_back)
		return 0;
	if (format != LMDBLOG_FORMAT)
		history_replace(l, true, now_ms);
	l->global.commit++;
	return global_put(l, txn);
}

/* Opens the tables; makes them in a new file. */
static int open_format(struct lmdblog *l, uint64_t now_ms, uint64_t *format)
{
	MDB_txn *txn;
	int rc = mdb_txn_begin(l->env, NULL, 0, &txn);

	if (rc != 0)
		return rc;
	l->global.identity = 0;
	rc = mdb_dbi_open(txn, NULL, 0, &l->main);
	if (rc == 0)
		rc = global_get(l->main, txn, format, &l->global);
	if (rc != 0 || *format > LMDBLOG_FORMAT) {
		mdb_txn_abort(txn);
		return rc;
	}
	rc = open_tables(l, txn);
	if (rc == 0)
		rc = begin_format(l, txn, *format, now_ms);
	if (rc != 0) {
		mdb_txn_abort(txn);
		return rc;
	}
	*format = LMDBLOG_FORMAT;
	l->used = used_bytes(l, txn);
	rc = mdb_txn_commit(txn);
	if (rc == 0)
		history_replace(l, true, now_ms);
	return rc;
}

static int explain(const struct lmdblog *l, int rc, uint64_t format,
		   char fault[STORE_FAULT_SIZE])
{
	if (rc == NOT_OURS)
		return fault_at(l, fault, "data.mdb is of another program");
	if (rc == MDB_VERSION_MISMATCH)
		return fault_at(l, fault, "data.mdb is of another LMDB");
	if (lmdblog_health(rc) == LMDBLOG_DEAD)
		return fault_at(l, fault,
				"data.mdb is corrupt or cut short (%s): "
				"restore it, or move it away",
				mdb_strerror(rc));
	if (rc != 0)
		return fault_at(l, fault, "can't be opened: %s",
				mdb_strerror(rc));
	return fault_at(l, fault, "has format %llu, this program's is %u",
			(unsigned long long)format, LMDBLOG_FORMAT);
}

int lmdblog_open(struct lmdblog *l, const char *path, uint64_t map_bytes,
		 uint64_t idempotency_ms, uint64_t now_ms,
		 char fault[STORE_FAULT_SIZE])
{
	uint64_t format = LMDBLOG_FORMAT;
	int rc;

	*l = (struct lmdblog){
		.path = path,
		.map_bytes = map_bytes,
		.idempotency_ms = idempotency_ms,
		.hash_key = hash_key_random(),
		.lock_fd = -1,
		.dir_fd = -1,
		.history_fd = -1,
	};
	hmap_init(&l->cache);
	rc = lock_directory(l, fault);
	if (rc != 0) {
		lmdblog_close(l);
		return rc;
	}
	rc = open_env(l);
	if (rc == 0)
		rc = open_format(l, now_ms, &format);
	/* The new files' names must be as durable as what is in them. */
	if (rc == 0 && fsync(l->dir_fd) != 0)
		rc = errno;
	if (rc == 0 && format == LMDBLOG_FORMAT)
		return 0;
	rc = explain(l, rc, format, fault);
	lmdblog_close(l);
	return rc;
}

static void cache_clear(struct lmdblog *l)
{
	struct hmap_node *node;

	while ((node = hmap_iterate(&l->cache, NULL)))
		log_forget(l, container_of(node, struct log, by_channel));
}

void cache_bound(struct lmdblog *l)
{
	if (l->cache.count > LMDBLOG_CACHED_LOGS)
		cache_clear(l);
}

static void close_file(int fd)
{
	if (fd >= 0)
		close(fd);
}

void lmdblog_close(struct lmdblog *l)
{
	cache_clear(l);
	hmap_fini(&l->cache);
	free(l->touched);
	free(l->answers);
	if (l->env)
		mdb_env_close(l->env);
	close_file(l->history_fd);
	close_file(l->dir_fd);
	close_file(l->lock_fd);
}

/* --- after a failure --------------------------------------------------- */

/* Takes the room from the disk, so that it is there for what comes. */
static int take_room(const struct lmdblog *l)
{
	struct stat st;
	int fd;

	mdb_env_get_fd(l->env, &fd);
	if (fstat(fd, &st) != 0)
		return errno;
	if ((uint64_t)(st.st_size + ROOM_NEEDED) > l->map_bytes)
		return 0;
	return posix_fallocate(fd, st.st_size, ROOM_NEEDED);
}

int lmdblog_recover(struct lmdblog *l)
{
	struct lmdblog_global before = l->global;
	uint64_t format;
	MDB_txn *txn;
	int rc = MDB_PANIC;

	if (l->env)
		rc = mdb_txn_begin(l->env, NULL, 0, &txn);
	if (rc == 0) {
		mdb_txn_abort(txn);
		return take_room(l);
	}
	if (l->env)
		mdb_env_close(l->env);
	l->env = NULL;
	cache_clear(l); /* the file may be another one now */
	rc = open_env(l);
	if (rc == 0)
		rc = open_format(l, before.epoch, &format);
	if (rc == 0 && l->global.identity != before.identity)
		rc = MDB_INVALID; /* somebody moved it away */
	if (rc != 0)
		l->global = before;
	return rc ? rc : take_room(l);
}

/* --- write transactions ------------------------------------------------ */

/* An eighth is kept back: changed pages need room beside the old ones, and
 * without any not even trimming could go on. */
int write_begin(struct lmdblog *l, struct write_txn *t, uint64_t now_ms)
{
	int rc = l->env ? mdb_txn_begin(l->env, NULL, 0, &t->txn) : MDB_PANIC;

	if (rc != 0)
		return rc;
	t->before = l->global;
	t->now_ms = now_ms;
	t->eras = 0;
	t->room = (int64_t)(l->map_bytes - l->map_bytes / 8) -
		  (int64_t)used_bytes(l, t->txn);
	rc = mdb_cursor_open(t->txn, l->records, &t->records);
	if (rc != 0)
		mdb_txn_abort(t->txn);
	return rc;
}

/* LMDB says EIO of a write that was cut short by a full disk. */
static int why_not_committed(const struct lmdblog *l, int rc)
{
	int room = rc == EIO ? take_room(l) : 0;

	return no_space(room) ? room : rc;
}

static void give_up(struct lmdblog *l, struct write_txn *t)
{
	l->global = t->before;
	l->touched_count = 0;
	l->answer_count = 0;
	cache_clear(l);
}

static int put_touched(struct lmdblog *l, struct write_txn *t)
{
	for (size_t i = 0; i < l->touched_count; i++) {
		struct log *log = l->touched[i];
		uint8_t bytes[META_SIZE_MAX];
		MDB_val key = val_of(log->channel, strlen(log->channel));
		MDB_val value = val_of(bytes, meta_encode(bytes, &log->meta));
		int rc;

		rc = mdb_put(t->txn, l->logs, &key, &value, 0);
		if (rc != 0)
			return rc;
		log->touched = false;
	}
	l->touched_count = 0;
	return 0;
}

int write_end(struct lmdblog *l, struct write_txn *t, int rc)
{
	bool counts = l->touched_count > 0 ||
		      memcmp(&l->global, &t->before, sizeof(t->before)) != 0;

	l->global.commit += counts;
	if (rc == 0)
		rc = put_touched(l, t);
	if (rc == 0 && counts)
		rc = global_put(l, t->txn);
	mdb_cursor_close(t->records);
	if (rc != 0) {
		mdb_txn_abort(t->txn);
	} else {
		l->used = used_bytes(l, t->txn);
		rc = mdb_txn_commit(t->txn);
		if (rc != 0)
			rc = why_not_committed(l, rc);
	}
	if (rc != 0) {
		give_up(l, t);
		return rc;
	}
	if (counts)
		history_commit(l, t->now_ms);
	l->eras += t->eras;
	l->unsettled = true;
	return 0;
}

void write_settle(struct lmdblog *l, uint64_t now_ms)
{
	for (unsigned i = 0; i < 2; i++) {
		struct write_txn t;

		if (write_begin(l, &t, now_ms) != 0)
			return;
		l->global.sequence++; /* something to commit */
		if (write_end(l, &t, 0) != 0)
			return;
	}
	l->unsettled = false;
}

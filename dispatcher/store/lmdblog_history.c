/* lmdblog_history.c - whether data.mdb has gone back to an earlier state.
 *
 * The file `history` beside it says how far data.mdb has got: the number of its
 * last commit, which data.mdb holds too. It is written after each commit and
 * not synced, so it may be behind data.mdb (a kill, a power failure), but is
 * never ahead: ahead means that an older data.mdb was put in its place. Both
 * files may have been put back together. So `history` names data.mdb and itself
 * by inode and time of birth, which no copy keeps (a file system that tells no
 * time of birth may give an inode again); and it is made anew at each
 * start and in use up to ten times a second, so that what is put back by
 * writing over the files lands in an inode that it does not name. Neither chown
 * nor chmod nor moving the directory changes any of it.
 *
 * Where there is doubt the store has a new history from then on: a log that was
 * counted under another one begins a new epoch first.
 *
 * What can't be seen from here: a whole volume put back, inodes and all, by a
 * snapshot. That is noticed by what others have seen (known, in store.h).
 */
#include "common/base/hash.h"
#include "common/base/log.h"
#include "dispatcher/store/lmdblog_internal.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAME	 "history"
#define NAME_NEW "history.new"
#define MAGIC	 UINT64_C(0x3179726f74736968) /* "history1" */

#define REPLACE_MS 100

/* New epochs must be greater than those that were lost. They run ahead of the
 * clock where logs are made faster than one a millisecond. */
#define EPOCH_LEAP ((uint64_t)1 << 24)

struct file_id {
	uint64_t inode, born_ns; /* 0: the file system does not tell */
};

/* The file's numbers, little-endian. */
enum {
	AT_MAGIC,
	AT_IDENTITY,
	AT_HISTORY,
	AT_COMMIT,
	AT_DATA,
	AT_SELF = AT_DATA + 2,
	NUMBERS = AT_SELF + 2
};

static struct file_id file_id(int fd)
{
	struct statx st;

	if (statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &st) != 0)
		return (struct file_id){0, 0};
	if (!(st.stx_mask & STATX_BTIME))
		return (struct file_id){st.stx_ino, 0};
	return (struct file_id){st.stx_ino,
				(uint64_t)st.stx_btime.tv_sec * 1000000000u +
					st.stx_btime.tv_nsec};
}

static struct file_id data_id(const struct lmdblog *l)
{
	int fd;

	mdb_env_get_fd(l->env, &fd);
	return file_id(fd);
}

static bool same_file(struct file_id a, const uint64_t b[2])
{
	return a.inode == b[0] &&
	       (a.born_ns == b[1] || a.born_ns == 0 || b[1] == 0);
}

/* --- judging ----------------------------------------------------------- */

/* What a power failure may leave of a file that was not synced. */
static bool blank(const uint8_t *bytes, ssize_t len)
{
	for (ssize_t i = 0; i < len; i++)
		if (bytes[i] != 0)
			return false;
	return len >= 0;
}

/* Why data.mdb may have gone back; NULL: it has not. */
static const char *doubt(const struct lmdblog *l)
{
	uint8_t bytes[NUMBERS * 8 + 1];
	uint64_t n[NUMBERS];
	ssize_t len;

	if (l->history_fd < 0)
		return l->global.commit > 0 ? "history is gone" : NULL;
	len = pread(l->history_fd, bytes, sizeof(bytes), 0);
	if (blank(bytes, len))
		return NULL;
	if (len != NUMBERS * 8)
		return "history is broken";
	le_get(n, bytes, NUMBERS);
	if (n[AT_MAGIC] != MAGIC)
		return "history is broken";
	if (n[AT_IDENTITY] != l->global.identity ||
	    n[AT_HISTORY] != l->global.history)
		return "history is of another data.mdb";
	if (n[AT_COMMIT] > l->global.commit)
		return "data.mdb is older than history";
	if (!same_file(data_id(l), &n[AT_DATA]))
		return "data.mdb is a copy";
	if (!same_file(file_id(l->history_fd), &n[AT_SELF]))
		return "history is a copy";
	return NULL;
}

bool history_judge(struct lmdblog *l, uint64_t now_ms)
{
	const char *reason;

	if (l->history_fd >= 0)
		close(l->history_fd);
	l->history_fd = openat(l->dir_fd, NAME, O_RDWR | O_CLOEXEC);
	if (l->global.identity == 0)
		return false; /* there was no data.mdb */
	reason = doubt(l);
	if (reason == NULL)
		return false;
	l->global.history = random_nonzero();
	l->global.epoch = max_of(l->global.epoch, now_ms) + EPOCH_LEAP;
	l->histories++;
	log_warn("STORE-WENT-BACK", "store=lmdb: path=\"%.100s\" reason=\"%s\"",
		 l->path, reason);
	return true;
}

/* --- keeping it -------------------------------------------------------- */

static bool history_fill(const struct lmdblog *l, int fd)
{
	const struct file_id data = data_id(l), self = file_id(fd);
	const uint64_t n[NUMBERS] = {
		[AT_MAGIC] = MAGIC,
		[AT_IDENTITY] = l->global.identity,
		[AT_HISTORY] = l->global.history,
		[AT_COMMIT] = l->global.commit,
		[AT_DATA] = data.inode,
		[AT_DATA + 1] = data.born_ns,
		[AT_SELF] = self.inode,
		[AT_SELF + 1] = self.born_ns,
	};
	uint8_t bytes[sizeof(n)];

	le_put(bytes, n, NUMBERS);
	return pwrite(fd, bytes, sizeof(bytes), 0) == (ssize_t)sizeof(bytes);
}

/* An exchange, because ext4 writes a file out that is renamed over another one:
 * that takes ten times as long, and producers wait. */
static bool history_rename(const struct lmdblog *l)
{
	if (renameat2(l->dir_fd, NAME_NEW, l->dir_fd, NAME, RENAME_EXCHANGE) !=
	    0)
		return renameat(l->dir_fd, NAME_NEW, l->dir_fd, NAME) == 0;
	(void)unlinkat(l->dir_fd, NAME_NEW, 0);
	return true;
}

/* Where it fails (a full disk) the old one stays, and is only behind. */
void history_replace(struct lmdblog *l, bool sync, uint64_t now_ms)
{
	bool filled;
	int fd;

	l->history_ms = now_ms;
	(void)unlinkat(l->dir_fd, NAME_NEW, 0);
	fd = openat(l->dir_fd, NAME_NEW, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC,
		    0600);
	if (fd < 0)
		return;
	filled = history_fill(l, fd) && (!sync || fsync(fd) == 0);
	if (!filled || !history_rename(l)) {
		close(fd);
		return;
	}
	if (l->history_fd >= 0)
		close(l->history_fd);
	l->history_fd = fd;
}

void history_commit(struct lmdblog *l, uint64_t now_ms)
{
	uint8_t bytes[8];

	if (l->history_fd < 0 || now_ms < l->history_ms ||
	    now_ms - l->history_ms >= REPLACE_MS) {
		history_replace(l, false, now_ms);
		return;
	}
	le_put(bytes, &l->global.commit, 1);
	(void)!pwrite(l->history_fd, bytes, sizeof(bytes), AT_COMMIT * 8);
}

/* lmdb: under the conformance suite, killed, put back to a copy, on a full
 * disk, on a slow one, and with a file that breaks.
 *
 * The program runs itself again for what has to happen in another process:
 *
 *	append DIRECTORY	appends until it is killed, tells what was done
 *	hold DIRECTORY		keeps LMDB's writer lock until stdin ends
 */
#define CONFORMANCE_PERSISTENT	 1
#define CONFORMANCE_KEEPS_EPOCHS 1
#include "tests/unit/dir_copy.h"
#include "tests/unit/store_conformance.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <lmdb.h>
#include <signal.h>
#include <spawn.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static char base[64], directory[96], url[128];

/* Each test begins with an empty store of its own. */
static void conformance_config(struct store_config *c)
{
	static unsigned count;

	snprintf(directory, sizeof(directory), "%s/%u", base, ++count);
	snprintf(url, sizeof(url), "lmdb:%s", directory);
	c->url = url;
}

static int remove_entry(const char *path, const struct stat *st UNUSED,
			int type UNUSED, struct FTW *at UNUSED)
{
	return remove(path);
}

/* --- another process --------------------------------------------------- */

struct child {
	pid_t pid;
	int in, out; /* its stdin, and its stdout for us to read */
};

static struct child child_start(const char *what)
{
	char *argv[] = {"test_store_lmdb", (char *)what, directory, NULL};
	posix_spawn_file_actions_t actions;
	int in[2], out[2];
	struct child c;

	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, in[0], 0);
	posix_spawn_file_actions_adddup2(&actions, out[1], 1);
	assert_int_equal(posix_spawn(&c.pid, "/proc/self/exe", &actions, NULL,
				     argv, environ),
			 0);
	posix_spawn_file_actions_destroy(&actions);
	close(in[0]);
	close(out[1]);
	c.in = in[1];
	c.out = out[0];
	return c;
}

static void child_end(struct child *c)
{
	close(c->in);
	close(c->out);
	assert_int_equal(waitpid(c->pid, NULL, 0), c->pid);
}

/* --- killed ------------------------------------------------------------ */

#define STREAMS 16 /* appends under way, each to a channel of its own */
#define KILL_AT 1000
#define KILLS	4

/* What the child tells of each append that is done. */
struct told {
	uint32_t channel, number;
	uint64_t epoch, offset;
};

struct stream {
	struct store_append a;
	struct store *store;
	uint32_t channel, number;
	char name[16], text[32], key[32];
};

static void stream_next(struct stream *s);

static void on_stream_done(struct store_append *a)
{
	struct stream *s = container_of(a, struct stream, a);
	struct told told = {s->channel, s->number, a->place.epoch,
			    a->place.offset};

	if (a->rc != 0 || write(1, &told, sizeof(told)) != sizeof(told))
		_exit(1);
	stream_next(s);
}

static void stream_next(struct stream *s)
{
	s->number++;
	snprintf(s->name, sizeof(s->name), "c%u", s->channel);
	snprintf(s->text, sizeof(s->text), "%u/%u", s->channel, s->number);
	snprintf(s->key, sizeof(s->key), "k%u", s->number);
	s->a = (struct store_append){
		.channel = s->name,
		.record = s->text,
		.len = strlen(s->text),
		.size = 100000,
		.ttl_ms = 600000,
		.idempotency_key = s->key,
		.done = on_stream_done,
	};
	memcpy(s->a.message_id, s->key, sizeof(s->key));
	store_append(s->store, &s->a);
}

static int append_until_killed(const char *path)
{
	static struct stream streams[STREAMS];
	struct store_config config = {
		.url = url,
		.password = "",
		.queue_bytes = 1 << 20,
		.timeout_ms = 5000,
		.idempotency_ms = 300000,
		.map_bytes = 64 << 20,
	};
	char fault[STORE_FAULT_SIZE];
	struct store *store;

	snprintf(url, sizeof(url), "lmdb:%s", path);
	if (store_open(uv_default_loop(), &config, &store, fault) != 0)
		return 1;
	for (uint32_t i = 0; i < STREAMS; i++) {
		streams[i].store = store;
		streams[i].channel = i;
		stream_next(&streams[i]);
	}
	return uv_run(uv_default_loop(), UV_RUN_DEFAULT);
}

/* Reads what the child tells; kills it in the midst. Returns the last that was
 * told of each channel. */
static void kill_in_the_midst(struct told last[STREAMS])
{
	struct child c = child_start("append");
	struct told told;
	unsigned count = 0;
	ssize_t n;

	while ((n = read(c.out, &told, sizeof(told))) == sizeof(told)) {
		assert_true(told.channel < STREAMS);
		assert_int_equal(told.offset, last[told.channel].offset + 1);
		last[told.channel] = told;
		if (++count == KILL_AT)
			assert_int_equal(kill(c.pid, SIGKILL), 0);
	}
	assert_true(n >= 0);
	assert_true(count >= KILL_AT);
	child_end(&c);
}

/* Whatever was told as done is there, in order; of what was under way at most
 * one more, because that is what was submitted. */
static void assert_all_there(struct conformance *f, const struct told *last)
{
	char name[16], text[32];
	struct reading r;

	snprintf(name, sizeof(name), "c%u", last->channel);
	for (uint64_t after = 0; after < last->offset; after += f->got_count) {
		read_init(f, &r, "", after);
		r.r.channel = name;
		read_wait(&r);
		assert_true(f->got_count > 0);
		for (size_t i = 0; i < f->got_count; i++) {
			snprintf(text, sizeof(text), "%u/%llu", last->channel,
				 (unsigned long long)(after + i + 1));
			assert_got(f, i, after + i + 1, text);
		}
	}
	assert_int_equal(r.r.top.epoch, last->epoch);
	assert_in_range(r.r.top.offset, last->offset, last->offset + 1);
}

static void kill_and_check(struct conformance *f, struct told last[STREAMS])
{
	conformance_close(f);
	kill_in_the_midst(last);
	conformance_open(f);
	for (unsigned i = 0; i < STREAMS; i++) {
		struct appending p;
		char key[32];

		assert_all_there(f, &last[i]);
		snprintf(key, sizeof(key), "k%u", last[i].number);
		append_init(f, &p, "", key, "again");
		snprintf(p.channel, sizeof(p.channel), "c%u", i);
		append_wait(&p);
		assert_true(p.a.duplicate);
		assert_int_equal(p.a.place.epoch, last[i].epoch);
		assert_int_equal(p.a.place.offset, last[i].offset);
		assert_string_equal(p.a.message_id, key);
	}
}

/* Wherever in a commit a kill comes, nobody takes the file for an older one. */
static void test_store_killed(void **state)
{
	struct conformance *f = *state;

	for (unsigned i = 0; i < KILLS; i++) {
		struct told last[STREAMS] = {{0}};

		conformance_config(&f->config);
		kill_and_check(f, last);
		assert_int_equal(
			metric_get(store_counters(f->store), SM_HISTORIES, 0),
			0);
	}
}

/* --- put back ---------------------------------------------------------- */

/* Two acknowledged messages are lost with what was written after the copy. */
static void test_store_put_back(void **state)
{
	struct conformance *f = *state;
	struct store_place lost, top, place;
	struct store_eras eras;
	struct appending p;
	char copy[128], text[8];

	snprintf(copy, sizeof(copy), "%s.copy", directory);
	append_text(f, "b", "1");
	for (unsigned i = 1; i <= 5; i++) {
		if (i == 4)
			copy_directory(directory, copy, 0);
		snprintf(text, sizeof(text), "%u", i);
		append_init(f, &p, "a", text, text);
		append_wait(&p);
		lost = p.a.place;
	}
	assert_int_equal(lost.offset, 5);
	conformance_close(f);
	copy_one("data.mdb", copy, directory, COPY_TIMES);
	conformance_open(f);
	assert_int_equal(metric_get(store_counters(f->store), SM_HISTORIES, 0),
			 1);

	place = assert_gone_back(f, "a", 3, lost);
	top = top_known(f, "b", NULL, &eras);
	assert_int_equal(top.offset, 1);
	assert_int_equal(eras.count, 1);
	assert_int_equal(append_text(f, "b", "2").epoch, top.epoch);
	assert_int_equal(metric_get(store_counters(f->store), SM_ERAS, 0), 2);
	conformance_reopen(f);
	assert_int_equal(metric_get(store_counters(f->store), SM_HISTORIES, 0),
			 0);
	assert_int_equal(top_of(f, "a").epoch, place.epoch);
	assert_int_equal(top_of(f, "b").epoch, top.epoch);
}

/* What is told of a log that is behind what is known of it while nothing can be
 * written; and the top of it all the same to who knows nothing. */
static void assert_not_renewed(struct conformance *f, const char *channel)
{
	struct store_place top = top_of(f, channel);
	struct store_place known = {top.epoch, top.offset + 1}, place;
	char name[NAME_SIZE];
	const char *names[] = {channel_name(f, name, channel)};
	struct topping p = {
		.f = f,
		.t = {.channels = names,
		      .known = &known,
		      .count = 1,
		      .places = &place,
		      .done = on_tops},
	};

	store_tops(f->store, &p.t);
	loop_until(f->l, p.done > 0);
	assert_int_equal(p.t.rc, ERR_UNAVAILABLE);
	assert_int_equal(top_of(f, channel).epoch, top.epoch);
}

/* --- a full disk ------------------------------------------------------- */

static void limit_files(rlim_t bytes)
{
	struct rlimit limit;

	assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

static off_t data_size(void)
{
	char path[128];
	struct stat st;

	snprintf(path, sizeof(path), "%s/data.mdb", directory);
	assert_int_equal(stat(path, &st), 0);
	return st.st_size;
}

/* A file that may not grow is as good as a full disk. */
static void test_store_disk_full(void **state)
{
	struct conformance *f = *state;
	char *record = xcalloc(1, 10000);
	uint64_t offset = append_text(f, "a", "x").offset;
	struct appending p;

	limit_files((rlim_t)data_size() + 200000);
	do {
		append_init(f, &p, "a", "", "");
		p.a.record = record;
		p.a.len = 10000;
		append_wait(&p);
		assert_true(p.a.rc != 0 || p.a.place.offset == ++offset);
	} while (p.a.rc == 0 && offset < 1000);
	assert_int_equal(p.a.rc, ERR_FULL);
	assert_true(p.a.definite);
	assert_false(store_state(f->store)->up);
	assert_true(store_state(f->store)->fault[0] != '\0');
	assert_int_equal(top_of(f, "a").offset, offset); /* reads go on */
	assert_not_renewed(f, "a");
	append_init(f, &p, "a", "", "y"); /* and appends fail at once */
	append_wait(&p);
	assert_int_equal(p.a.rc, ERR_FULL);

	limit_files(RLIM_INFINITY);
	loop_until(f->l, store_state(f->store)->up);
	assert_int_equal(append_text(f, "a", "z").offset, offset + 1);
	conformance_reopen(f);
	assert_int_equal(top_of(f, "a").offset, offset + 1);
	free(record);
}

/* --- a disk that stalls ------------------------------------------------ */

static int hold_writer_lock(const char *path)
{
	MDB_env *env;
	MDB_txn *txn;
	char byte;

	if (mdb_env_create(&env) != 0 ||
	    mdb_env_open(env, path, 0, 0600) != 0 ||
	    mdb_txn_begin(env, NULL, 0, &txn) != 0 || write(1, "h", 1) != 1)
		return 1;
	while (read(0, &byte, 1) > 0)
		;
	mdb_txn_abort(txn);
	mdb_env_close(env);
	return 0;
}

/* The batch under way waits, what is behind it is told, and then it is over. */
static void test_store_stalled(void **state)
{
	struct conformance *f = *state;
	struct appending first, second;
	struct child c;
	char byte;

	f->config.timeout_ms = 300;
	conformance_reopen(f);
	append_text(f, "b", "1");
	c = child_start("hold");
	assert_int_equal(read(c.out, &byte, 1), 1);
	append_init(f, &first, "a", "", "1");
	append_submit(&first);
	uv_run(&f->l->loop, UV_RUN_NOWAIT); /* its job begins */
	append_init(f, &second, "a", "", "2");
	append_wait(&second);
	assert_int_equal(second.a.rc, ERR_UNAVAILABLE);
	assert_true(second.a.definite);
	assert_false(store_state(f->store)->up);
	assert_non_null(strstr(store_state(f->store)->fault, "timeout_ms"));
	assert_int_equal(first.done, 0);
	assert_int_equal(top_of(f, "a").offset, 0);
	assert_not_renewed(f, "b");
	child_end(&c);
	loop_until(f->l, first.done > 0);
	assert_int_equal(first.a.rc, 0);
	assert_true(store_state(f->store)->up);
	assert_int_equal(append_text(f, "a", "2").offset, 2);
}

/* --- a file that breaks ------------------------------------------------ */

/* All pages but the two that LMDB begins with become zeros. */
static void break_file(void)
{
	size_t len = (size_t)data_size() - 8192;
	uint8_t *zeros = xcalloc(1, len);
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/data.mdb", directory);
	fd = open(path, O_WRONLY);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, zeros, len, 8192), (ssize_t)len);
	close(fd);
	free(zeros);
}

static void test_store_breaks(void **state)
{
	struct conformance *f = *state;
	struct appending p;
	struct reading r;

	append_text(f, "a", "x");
	break_file();
	read_init(f, &r, "a", 0);
	read_submit(&r);
	loop_until(f->l, r.done > 0);
	assert_int_equal(r.r.rc, ERR_IO);
	assert_false(store_state(f->store)->up);
	assert_non_null(strstr(store_state(f->store)->fault, "move it away"));
	append_init(f, &p, "a", "", "y");
	append_wait(&p);
	assert_int_equal(p.a.rc, ERR_IO);
	assert_true(p.a.definite);
	r.done = 0;
	read_submit(&r);
	loop_until(f->l, r.done > 0);
	assert_int_equal(r.r.rc, ERR_IO);
}

/* --- the rest ---------------------------------------------------------- */

static void test_store_second_opener(void **state)
{
	struct conformance *f = *state;
	char fault[STORE_FAULT_SIZE] = "";
	struct store *second = NULL;

	assert_true(store_embedded(f->store));
	assert_int_equal(store_open(&f->l->loop, &f->config, &second, fault),
			 ERR_CONFIG);
	assert_null(second);
	assert_non_null(strstr(fault, "another dispatcher"));
	assert_non_null(strstr(fault, directory));
}

static void test_store_metrics(void **state)
{
	struct conformance *f = *state;
	const struct metrics *m;

	append_text(f, "a", "x");
	m = store_counters(f->store);
	assert_int_equal(metric_get(m, SM_UP, 0), 1);
	assert_int_equal(metric_get(m, SM_BATCHES, 0), 1);
	assert_int_equal(metric_get(m, SM_BYTES_MAX, 0), f->config.map_bytes);
	assert_in_range(metric_get(m, SM_BYTES, 0), 4096, 1 << 20);
	conformance_reopen(f);
	m = store_counters(f->store);
	assert_in_range(metric_get(m, SM_BYTES, 0), 4096, 1 << 20);
}

static int run_all(void)
{
	const struct CMUnitTest tests[] = {
		CONFORMANCE_TESTS,
		CONFORMANCE_CASE(test_store_killed),
		CONFORMANCE_CASE(test_store_put_back),
		CONFORMANCE_CASE(test_store_disk_full),
		CONFORMANCE_CASE(test_store_stalled),
		CONFORMANCE_CASE(test_store_breaks),
		CONFORMANCE_CASE(test_store_second_opener),
		CONFORMANCE_CASE(test_store_metrics),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char *argv[])
{
	int failed;

	if (argc == 3 && strcmp(argv[1], "append") == 0)
		return append_until_killed(argv[2]);
	if (argc == 3 && strcmp(argv[1], "hold") == 0)
		return hold_writer_lock(argv[2]);
	signal(SIGXFSZ, SIG_IGN); /* the limit is an error of write() */
	snprintf(base, sizeof(base), "/tmp/stentor-lmdb-XXXXXX");
	if (mkdtemp(base) == NULL)
		return 1;
	failed = run_all();
	nftw(base, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
	return failed;
}

/* redis: a server that keeps nothing on its disk but what SAVE wrote, under the
 * conformance suite, and coming back with less than it had. */
#define CONFORMANCE_PERSISTENT	 1
#define CONFORMANCE_KEEPS_EPOCHS 0
#include "tests/unit/store_conformance.h"

#include "common/base/clock.h"
#include "dispatcher/store/redis_internal.h"
#include "tests/unit/redis_fixture.h"

static struct redis_server_process server, other;
static char url[64];

static void conformance_config(struct store_config *c)
{
	snprintf(url, sizeof(url), "redis://127.0.0.1:%u", server.port);
	c->url = url;
	c->timeout_ms = 2000;
}

static void set_args(struct redis_server_process *r, const char *appendonly,
		     const char *fsync)
{
	const char *const args[] = {
		"--save",
		"",
		"--appendonly",
		appendonly,
		"--appendfsync",
		fsync,
		"--repl-diskless-sync-delay",
		"0",
		NULL,
	};

	memcpy(r->args, args, sizeof(args));
}

static int group_setup(void **state UNUSED)
{
	redis_init(&server);
	set_args(&server, "no", "everysec");
	redis_start(&server);
	redis_init(&other);
	set_args(&other, "no", "everysec");
	return 0;
}

static int group_teardown(void **state UNUSED)
{
	redis_fini(&server);
	redis_fini(&other);
	return 0;
}

/* --- what is done to it --------------------------------------------------- */

/* Runs redis-cli; its answer is in `said`. */
static char said[1024];
static void command(const struct redis_server_process *r, const char *format,
		    ...) PRINTF(2, 3);
static void command(const struct redis_server_process *r, const char *format,
		    ...)
{
	char words[512];
	va_list args;

	va_start(args, format);
	vsnprintf(words, sizeof(words), format, args);
	va_end(args);
	assert_int_equal(
		shell(said, sizeof(said), "redis-cli -p %u %s", r->port, words),
		0);
	if (strncmp(said, "ERR", 3) == 0)
		fail_msg("%s: %s", words, said);
	said[strcspn(said, "\r\n")] = 0;
}

static void wait_down(struct conformance *f)
{
	loop_until(f->l, !store_state(f->store)->up);
}

static void wait_up(struct conformance *f)
{
	loop_until(f->l, store_state(f->store)->up);
}

/* As a machine does it that loses its power: the disk has what it has. */
static void restart(struct conformance *f)
{
	redis_kill(&server, SIGKILL);
	wait_down(f);
	redis_start(&server);
	wait_up(f);
}

static void turn_for(struct conformance *f, uint64_t ms)
{
	uint64_t until = clock_monotonic_ms() + ms;

	loop_until(f->l, clock_monotonic_ms() >= until);
}

/* Appends "1", "2" ... until there are `top`; the last one's place. */
static struct store_place fill(struct conformance *f, const char *channel,
			       unsigned top)
{
	struct store_place place = top_of(f, channel);
	char text[24];

	while (place.offset < top) {
		snprintf(text, sizeof(text), "%" PRIu64, place.offset + 1);
		place = append_text(f, channel, text);
	}
	return place;
}

/* The log is 1..top with these texts, and `eras` are its former epochs. */
static void assert_log(struct conformance *f, const char *channel,
		       struct store_place top, const struct store_era *eras,
		       unsigned count)
{
	struct reading r;

	read_init(f, &r, channel, 0);
	read_wait(&r);
	assert_int_equal(r.r.top.epoch, top.epoch);
	assert_int_equal(r.r.top.offset, top.offset);
	assert_int_equal(r.r.first, 1);
	assert_int_equal(f->got_count, top.offset);
	for (size_t i = 0; i < f->got_count; i++) {
		char text[24];

		snprintf(text, sizeof(text), "%zu", i + 1);
		assert_got(f, i, i + 1, text);
	}
	assert_int_equal(r.r.eras.count, count);
	for (unsigned i = 0; i < count; i++) {
		assert_int_equal(r.r.eras.era[i].epoch, eras[i].epoch);
		assert_int_equal(r.r.eras.era[i].offset, eras[i].offset);
	}
}

static struct store_era era(struct store_place place, uint64_t offset)
{
	return (struct store_era){place.epoch, offset};
}

/* --- it has lost its tail ------------------------------------------------- */

/* What is left keeps its places; counting goes on behind it, in a new epoch. */
static void test_redis_saved_then_killed(void **state)
{
	struct conformance *f = *state;
	struct store_place first = fill(f, "a", 4), second, third;

	command(&server, "save");
	fill(f, "a", 7);
	restart(f);
	second = append_text(f, "a", "5");
	assert_true(second.epoch > first.epoch);
	assert_int_equal(second.offset, 5);
	assert_log(f, "a", second, (struct store_era[]){era(first, 4)}, 1);
	/* Once, as long as it is the same server. */
	assert_int_equal(fill(f, "a", 6).epoch, second.epoch);

	command(&server, "save");
	restart(f);
	third = append_text(f, "a", "7");
	assert_true(third.epoch > second.epoch);
	assert_log(f, "a", third,
		   (struct store_era[]){era(second, 6), era(first, 4)}, 2);
}

/* Who asks for the top of such a log is told its new epoch: a place that was
 * lost, and comes back, is then one of a former one. */
static void test_redis_saved_then_asked(void **state)
{
	struct conformance *f = *state;
	struct store_place first = fill(f, "a", 4), top;

	command(&server, "save");
	fill(f, "a", 7);
	restart(f);
	top = top_of(f, "a");
	assert_true(top.epoch > first.epoch);
	assert_int_equal(top.offset, 4);
	assert_int_equal(metric_get(store_counters(f->store), SM_ERAS, 0), 1);
	assert_int_equal(top_of(f, "a").epoch, top.epoch);
	assert_log(f, "a", top, (struct store_era[]){era(first, 4)}, 1);
	assert_int_equal(append_text(f, "a", "5").epoch, top.epoch);
}

static void test_redis_saved_nothing(void **state)
{
	struct conformance *f = *state;
	struct store_place first, second;

	command(&server, "save");
	first = fill(f, "a", 3);
	restart(f);
	second = append_text(f, "a", "1");
	assert_true(second.epoch > first.epoch);
	assert_log(f, "a", second, NULL, 0);
}

/* Of more than STORE_ERAS_MAX the oldest are forgotten. */
static void test_redis_many_eras(void **state)
{
	struct conformance *f = *state;
	struct store_era eras[STORE_ERAS_MAX + 4];
	struct store_place top = {0, 0};
	char name[NAME_SIZE];

	channel_name(f, name, "a");
	for (unsigned i = 0; i < array_len(eras); i++) {
		top = append_text(f, "a", "x");
		eras[array_len(eras) - 1 - i] = era(top, top.offset);
		command(&server, "hset 'stentor:{%s}:meta' by another", name);
	}
	struct reading r;

	read_init(f, &r, "a", 0);
	read_wait(&r);
	assert_int_equal(r.r.top.offset, array_len(eras));
	assert_int_equal(f->got_count, array_len(eras));
	assert_int_equal(r.r.eras.count, STORE_ERAS_MAX);
	for (unsigned i = 0; i < STORE_ERAS_MAX; i++) {
		assert_int_equal(r.r.eras.era[i].epoch, eras[i + 1].epoch);
		assert_int_equal(r.r.eras.era[i].offset, eras[i + 1].offset);
	}
}

/* --- its log on disk ------------------------------------------------------ */

/* The server with an AOF of its own; ended by reset(). */
static void with_aof(struct conformance *f, const char *fsync)
{
	redis_kill(&server, SIGKILL);
	set_args(&server, "yes", fsync);
	redis_start(&server);
	wait_down(f);
	wait_up(f);
}

static void reset(void)
{
	redis_kill(&server, SIGKILL);
	shell(said, sizeof(said), "rm -rf '%s'/appendonlydir",
	      server.directory);
	set_args(&server, "no", "everysec");
	redis_start(&server);
}

static void test_redis_everysec_cut_off(void **state)
{
	struct conformance *f = *state;
	struct store_place first, second;
	unsigned long size;

	with_aof(f, "everysec");
	first = fill(f, "a", 4);
	do
		command(&server, "info persistence | grep aof_buffer_length");
	while (strcmp(said, "aof_buffer_length:0") != 0);
	shell(said, sizeof(said), "stat -c %%s '%s'/appendonlydir/*incr.aof",
	      server.directory);
	size = strtoul(said, NULL, 10);
	assert_true(size > 0);
	fill(f, "a", 7);
	redis_kill(&server, SIGKILL);
	/* Some bytes more than what was whole then. */
	shell(said, sizeof(said),
	      "truncate -s %lu '%s'/appendonlydir/*incr.aof", size + 40,
	      server.directory);
	wait_down(f);
	redis_start(&server);
	wait_up(f);
	second = append_text(f, "a", "5");
	assert_true(second.epoch > first.epoch);
	assert_log(f, "a", second, (struct store_era[]){era(first, 4)}, 1);
	reset();
}

/* It has lost nothing, so nothing changes. */
static void test_redis_always_restarted(void **state)
{
	struct conformance *f = *state;
	struct store_place first, place;

	with_aof(f, "always");
	first = fill(f, "a", 3);
	for (unsigned i = 0; i < 2; i++) {
		restart(f);
		place = append_text(f, "a", i == 0 ? "4" : "5");
		assert_int_equal(place.epoch, first.epoch);
	}
	assert_log(f, "a", place, NULL, 0);
	reset();
}

static bool has_durable_key(void)
{
	command(&server, "exists " REDIS_DURABLE_KEY);
	return said[0] == '1';
}

/* Another dispatcher has found a reason to. */
static void test_redis_always_taken_away(void **state)
{
	struct conformance *f = *state;
	struct store_place first;

	with_aof(f, "always");
	first = fill(f, "a", 3);
	command(&server, "del " REDIS_DURABLE_KEY);
	assert_true(append_text(f, "a", "4").epoch > first.epoch);
	reset();
}

/* Whether a restart may lose something is asked again and again. */
static void test_redis_always_no_more(void **state)
{
	struct conformance *f = *state;
	struct store_place first, second, third;

	with_aof(f, "always");
	first = fill(f, "a", 3);
	command(&server, "config set appendfsync everysec");
	loop_until(f->l, !has_durable_key());
	second = append_text(f, "a", "4");
	assert_true(second.epoch > first.epoch);
	command(&server, "config set appendfsync always");
	loop_until(f->l, has_durable_key());
	turn_for(f, 50);
	/* Counted by this very run: nothing is in doubt. */
	assert_int_equal(append_text(f, "a", "5").epoch, second.epoch);
	restart(f);
	third = append_text(f, "a", "6");
	assert_int_equal(third.epoch, second.epoch);
	assert_log(f, "a", third, (struct store_era[]){era(first, 3)}, 1);
	reset();
}

/* A copy of yesterday is put back behind the same name. */
static void test_redis_always_put_back(void **state)
{
	struct conformance *f = *state;
	struct store_place first, second, quiet;

	with_aof(f, "always");
	quiet = fill(f, "quiet", 2);
	first = fill(f, "a", 4);
	shell(said, sizeof(said), "cd '%s' && cp -a appendonlydir copy",
	      server.directory);
	fill(f, "quiet", 3);
	fill(f, "a", 7);
	redis_kill(&server, SIGKILL);
	shell(said, sizeof(said),
	      "cd '%s' && rm -rf appendonlydir && mv copy appendonlydir",
	      server.directory);
	wait_down(f);
	redis_start(&server);
	wait_up(f);
	second = append_text(f, "a", "5");
	assert_true(second.epoch > first.epoch);
	assert_log(f, "a", second, (struct store_era[]){era(first, 4)}, 1);
	second = append_text(f, "quiet", "3");
	assert_log(f, "quiet", second, (struct store_era[]){era(quiet, 2)}, 1);
	reset();
}

/* --- another's data, while the connection stands -------------------------- */

static void wait_synced(const struct redis_server_process *r)
{
	for (unsigned ms = 0; ms < REDIS_START_WAIT_MS; ms += 20) {
		command(r, "info replication | grep link_status || true");
		if (strcmp(said, "master_link_status:up") == 0)
			return;
		pause_ms(20);
	}
	fail_msg("no sync");
}

/* Made a replica, given an older copy, and made a master again, before anybody
 * here has turned. */
static void demoted_and_back(struct conformance *f)
{
	struct store_place first = fill(f, "a", 4), second;
	uint64_t reconnects =
		metric_get(store_counters(f->store), SM_RECONNECTS, 0);

	redis_start(&other);
	command(&other, "replicaof 127.0.0.1 %u", server.port);
	wait_synced(&other);
	command(&other, "replicaof no one");
	fill(f, "a", 6);
	command(&server, "replicaof 127.0.0.1 %u", other.port);
	wait_synced(&server);
	command(&server, "replicaof no one");
	uv_update_time(&f->l->loop);
	second = append_text(f, "a", "5");
	assert_int_equal(metric_get(store_counters(f->store), SM_RECONNECTS, 0),
			 reconnects);
	assert_true(second.epoch > first.epoch);
	assert_log(f, "a", second, (struct store_era[]){era(first, 4)}, 1);
	redis_kill(&other, SIGKILL);
}

static void test_redis_demoted_and_back(void **state)
{
	demoted_and_back(*state);
}

/* Its disk has all that it has answered, but of another's data. */
static void test_redis_always_demoted(void **state)
{
	with_aof(*state, "always");
	demoted_and_back(*state);
	reset();
}

/* --- answers -------------------------------------------------------------- */

static void append_key(struct conformance *f, struct appending *p,
		       const char *key, const char *text, uint64_t digest)
{
	append_init(f, p, "a", key, text);
	p->a.digest = digest;
	append_wait(p);
}

/* The answer and its message have survived, in whichever order it is seen. */
static void test_redis_answer_survives(void **state)
{
	struct conformance *f = *state;
	struct store_place first = append_text(f, "a", "1"), last;
	struct appending p;

	append_key(f, &p, "k", "2", 7);
	for (unsigned retried_first = 0; retried_first < 2; retried_first++) {
		command(&server, "save");
		restart(f);
		if (!retried_first)
			last = append_text(f, "a", "3");
		append_key(f, &p, "k", "2", 7);
		assert_int_equal(p.a.rc, 0);
		assert_true(p.a.duplicate);
		assert_string_equal(p.a.message_id, "id-2");
		assert_true(p.a.place.epoch > first.epoch);
		assert_int_equal(p.a.place.offset, 2);
		if (retried_first)
			last = append_text(f, "a", "4");
		assert_int_equal(last.epoch, p.a.place.epoch);
	}
	assert_int_equal(last.offset, 4);
	assert_int_equal(top_of(f, "a").offset, 4);
}

/* The answer is there, its message is not: it is appended again. */
static void test_redis_answer_outlives(void **state)
{
	struct conformance *f = *state;
	struct store_place first = fill(f, "a", 4), second;
	char name[NAME_SIZE];
	struct appending p;

	channel_name(f, name, "a");
	command(&server, "save");
	restart(f);
	second = append_text(f, "a", "5");
	command(&server, "set 'stentor:{%s}:k:lost' '%" PRIu64 " 6 id 7'", name,
		first.epoch);
	append_key(f, &p, "lost", "6", 7);
	assert_int_equal(p.a.rc, 0);
	assert_false(p.a.duplicate);
	assert_int_equal(p.a.place.epoch, second.epoch);
	assert_int_equal(p.a.place.offset, 6);
	append_key(f, &p, "lost", "6", 7);
	assert_true(p.a.duplicate);
	/* Nor is it where the whole log has gone. */
	command(&server, "del 'stentor:{%s}:meta'", name);
	append_key(f, &p, "lost", "1", 7);
	assert_false(p.a.duplicate);
	assert_int_equal(p.a.place.offset, 1);
	assert_log(f, "a", p.a.place, NULL, 0);
}

static void test_redis_answer_of_another(void **state)
{
	struct conformance *f = *state;
	char name[NAME_SIZE];
	struct appending p;

	append_key(f, &p, "k", "1", 7);
	append_key(f, &p, "k", "1", UINT64_MAX);
	assert_int_equal(p.a.rc, ERR_EXISTS);
	assert_true(p.a.definite);
	append_key(f, &p, "k", "1", 7);
	assert_int_equal(p.a.rc, 0);
	assert_true(p.a.duplicate);
	/* One without a digest, of the version before. */
	command(&server, "set 'stentor:{%s}:k:old' '%" PRIu64 " 1 id-old'",
		channel_name(f, name, "a"), p.a.place.epoch);
	append_key(f, &p, "old", "1", 7);
	assert_int_equal(p.a.rc, 0);
	assert_true(p.a.duplicate);
	assert_string_equal(p.a.message_id, "id-old");
}

/* --- what is known -------------------------------------------------------- */

struct asking {
	struct topping p;
	char name[NAME_SIZE];
	const char *names[1];
	struct store_place known, place;
	struct store_eras eras;
};

static void ask(struct conformance *f, struct asking *q, struct store *store,
		const char *channel, uint64_t epoch, uint64_t offset)
{
	*q = (struct asking){.p.f = f, .known = {epoch, offset}};
	q->names[0] = channel_name(f, q->name, channel);
	q->p.t = (struct store_tops){
		.channels = q->names,
		.known = &q->known,
		.count = 1,
		.places = &q->place,
		.eras = &q->eras,
		.done = on_tops,
	};
	store_tops(store, &q->p.t);
}

static void ask_wait(struct conformance *f, struct asking *q,
		     const char *channel, uint64_t epoch, uint64_t offset)
{
	ask(f, q, f->store, channel, epoch, offset);
	loop_until(f->l, q->p.done > 0);
	assert_int_equal(q->p.t.rc, 0);
}

static void test_redis_known(void **state)
{
	struct conformance *f = *state;
	struct store_place first = fill(f, "a", 4);
	struct asking q;

	ask_wait(f, &q, "a", first.epoch, 4);
	assert_int_equal(q.place.epoch, first.epoch);
	assert_int_equal(q.eras.count, 0);
	ask_wait(f, &q, "a", first.epoch - 1, 9);
	assert_int_equal(q.place.epoch, first.epoch);

	/* An epoch that the log has not come to. */
	ask_wait(f, &q, "a", first.epoch + 1000000, 2);
	assert_true(q.place.epoch > first.epoch + 1000000);
	assert_int_equal(q.place.offset, 4);
	assert_int_equal(q.eras.count, 1);
	assert_int_equal(q.eras.era[0].epoch, first.epoch);
	assert_int_equal(q.eras.era[0].offset, 4);
	assert_int_equal(append_text(f, "a", "5").epoch, q.place.epoch);

	/* There is no log, and no clock tells an earlier epoch. */
	ask_wait(f, &q, "none", first.epoch + 2000000, 2);
	assert_true(q.place.epoch > first.epoch + 2000000);
	assert_int_equal(q.place.offset, 0);
	assert_true(append_text(f, "none", "1").epoch > q.place.epoch);
	/* Nonsense makes none. */
	ask_wait(f, &q, "none2", UINT64_MAX, 2);
	assert_true(q.place.epoch < UINT64_MAX / 2);
}

static void on_second_closed(void *ctx)
{
	*(bool *)ctx = true;
}

/* Two dispatchers are told at once that a log has gone back. */
static void test_redis_known_to_two(void **state)
{
	struct conformance *f = *state;
	struct store_place first = fill(f, "a", 4), last;
	char fault[STORE_FAULT_SIZE];
	struct store *second;
	struct asking q[3];
	bool closed = false;

	assert_int_equal(store_open(&f->l->loop, &f->config, &second, fault),
			 0);
	loop_until(f->l, store_state(second)->up);
	ask(f, &q[0], f->store, "a", first.epoch, 7);
	ask(f, &q[1], second, "a", first.epoch, 9);
	ask(f, &q[2], second, "a", first.epoch, 4);
	loop_until(f->l, q[0].p.done && q[1].p.done && q[2].p.done);
	assert_true(q[0].place.epoch > first.epoch);
	assert_int_equal(q[1].place.epoch, q[0].place.epoch);
	assert_int_equal(q[1].eras.count, 1);
	assert_int_equal(q[1].eras.era[0].offset, 4);
	assert_int_equal(q[2].place.epoch, q[0].place.epoch);
	last = append_text(f, "a", "5");
	assert_int_equal(last.epoch, q[0].place.epoch);
	assert_log(f, "a", last, (struct store_era[]){era(first, 4)}, 1);
	store_close(second, on_second_closed, &closed);
	loop_run_until(f->l, &closed);
}

/* One script for 256 channels, and no write where nothing has gone back. */
static void test_redis_tops_are_cheap(void **state)
{
	struct conformance *f = *state;
	struct store_place tops[STORE_TOPS_MAX], known[STORE_TOPS_MAX];
	const char *names[STORE_TOPS_MAX];
	struct topping p = {
		.f = f,
		.t = {.channels = names,
		      .known = known,
		      .count = STORE_TOPS_MAX,
		      .places = tops,
		      .done = on_tops},
	};
	unsigned long calls, dirty;

	for (unsigned i = 0; i < STORE_TOPS_MAX; i++) {
		char name[16];

		snprintf(name, sizeof(name), "c%u", i);
		names[i] = channel_name(f, xmalloc(NAME_SIZE), name);
		known[i] = i % 4 == 0 ? append_text(f, name, "x")
				      : (struct store_place){0, 0};
	}
	command(&server, "config resetstat");
	command(&server, "info persistence | grep rdb_changes");
	dirty = strtoul(strchr(said, ':') + 1, NULL, 10);
	store_tops(f->store, &p.t);
	loop_until(f->l, p.done > 0);
	assert_int_equal(p.t.rc, 0);
	command(&server, "info commandstats | grep cmdstat_evalsha");
	calls = strtoul(strchr(said, '=') + 1, NULL, 10);
	assert_int_equal(calls, STORE_TOPS_MAX / REDIS_TOPS_MAX);
	command(&server, "info persistence | grep rdb_changes");
	assert_int_equal(strtoul(strchr(said, ':') + 1, NULL, 10), dirty);
	for (unsigned i = 0; i < STORE_TOPS_MAX; i++) {
		assert_int_equal(tops[i].offset, known[i].offset);
		free((void *)names[i]);
	}
}

/* --- age ------------------------------------------------------------------ */

static void append_aging(struct conformance *f, unsigned count)
{
	struct appending p;

	for (unsigned i = 0; i < count; i++) {
		append_init(f, &p, "a", "", "x");
		p.a.ttl_ms = 600;
		append_wait(&p);
		assert_int_equal(p.a.rc, 0);
	}
}

/* What is too old is not given, though newer ones keep the log alive. */
static void test_redis_each_expires(void **state)
{
	struct conformance *f = *state;
	struct reading r;

	append_aging(f, 20);
	turn_for(f, 350);
	append_aging(f, 3);
	read_init(f, &r, "a", 0);
	read_wait(&r);
	assert_int_equal(f->got_count, 23);
	turn_for(f, 300);
	read_wait(&r);
	assert_int_equal(r.r.first, 21);
	assert_int_equal(f->got_count, 3);
	assert_int_equal(f->got[0].offset, 21);
	r.r.latest = true;
	read_wait(&r);
	assert_int_equal(f->got_count, 3);
	turn_for(f, 300);
	read_wait(&r);
	assert_int_equal(f->got_count, 0);
	assert_int_equal(r.r.first, 24);
	assert_int_equal(r.r.top.offset, 23);
}

/* --- beside the version before -------------------------------------------- */

static void old_append(struct conformance *f, uint64_t epoch, unsigned offset,
		       const char *by)
{
	char name[NAME_SIZE];

	channel_name(f, name, "a");
	command(&server,
		"xadd 'stentor:{%s}:log' %" PRIu64 "-%u t %" PRIu64 " r %u",
		name, epoch, offset, clock_wall_ms(), offset);
	command(&server,
		"hset 'stentor:{%s}:meta' epoch %" PRIu64 " top %u "
		"oldest %" PRIu64 " %s %s",
		name, epoch, offset, clock_wall_ms(), by[0] ? "by" : "", by);
}

static void replid(char out[17])
{
	command(&server, "info replication | grep master_replid:");
	snprintf(out, 17, "%s", strchr(said, ':') + 1);
}

static void test_redis_upgrade(void **state)
{
	struct conformance *f = *state;
	struct store_place first = {1000, 4}, place;
	char by[17];

	replid(by);
	/* Counted in this history; with store-replicas nothing was noted. */
	for (unsigned i = 0; i < 2; i++) {
		for (unsigned k = 1; k <= 4; k++)
			old_append(f, first.epoch, k, i == 0 ? by : "");
		place = append_text(f, "a", "5");
		assert_int_equal(place.epoch, first.epoch);
		assert_log(f, "a", place, NULL, 0);
		/* Each writes what it knows. */
		old_append(f, first.epoch, 6, i == 0 ? by : "");
		assert_int_equal(append_text(f, "a", "7").epoch, first.epoch);
		command(&server, "flushall");
	}
	/* Counted in another. */
	for (unsigned k = 1; k <= 4; k++)
		old_append(f, first.epoch, k, "0123456789abcdef");
	place = append_text(f, "a", "5");
	assert_true(place.epoch > first.epoch);
	assert_log(f, "a", place, (struct store_era[]){era(first, 4)}, 1);
	/* One that knows no eras appends, */
	old_append(f, first.epoch, 6, by);
	assert_int_equal(append_text(f, "a", "7").epoch, place.epoch);
	place.offset = 7;
	assert_log(f, "a", place, (struct store_era[]){era(first, 4)}, 1);
	/* and begins a log anew. */
	char name[NAME_SIZE];

	command(&server, "del 'stentor:{%s}:log'", channel_name(f, name, "a"));
	old_append(f, place.epoch + 1, 1, by);
	first = append_text(f, "a", "2");
	assert_int_equal(first.epoch, place.epoch + 1);
	assert_log(f, "a", first, NULL, 0);
	/* By a clock that is behind: nobody is told an epoch twice. */
	command(&server, "hset 'stentor:{%s}:meta' eras '1 %" PRIu64 " 1 1'",
		name, first.epoch + 1000000);
	assert_int_equal(append_text(f, "a", "3").epoch, first.epoch + 1000001);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONFORMANCE_TESTS,
		CONFORMANCE_CASE(test_redis_saved_then_killed),
		CONFORMANCE_CASE(test_redis_saved_then_asked),
		CONFORMANCE_CASE(test_redis_saved_nothing),
		CONFORMANCE_CASE(test_redis_many_eras),
		CONFORMANCE_CASE(test_redis_everysec_cut_off),
		CONFORMANCE_CASE(test_redis_always_restarted),
		CONFORMANCE_CASE(test_redis_always_taken_away),
		CONFORMANCE_CASE(test_redis_always_no_more),
		CONFORMANCE_CASE(test_redis_always_put_back),
		CONFORMANCE_CASE(test_redis_demoted_and_back),
		CONFORMANCE_CASE(test_redis_always_demoted),
		CONFORMANCE_CASE(test_redis_answer_survives),
		CONFORMANCE_CASE(test_redis_answer_outlives),
		CONFORMANCE_CASE(test_redis_answer_of_another),
		CONFORMANCE_CASE(test_redis_known),
		CONFORMANCE_CASE(test_redis_known_to_two),
		CONFORMANCE_CASE(test_redis_tops_are_cheap),
		CONFORMANCE_CASE(test_redis_each_expires),
		CONFORMANCE_CASE(test_redis_upgrade),
	};

	signal(SIGPIPE, SIG_IGN); /* as the programs do */
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

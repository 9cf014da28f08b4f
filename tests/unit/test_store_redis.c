/* redis: a real server with its log on disk, under the conformance suite and
 * under what happens to servers. */
#define CONFORMANCE_PERSISTENT	 1
#define CONFORMANCE_KEEPS_EPOCHS 0
#include "tests/unit/store_conformance.h"

#include "tests/unit/redis_fixture.h"
#include "tests/unit/store_late.h"
#include "tests/unit/store_stream.h"

static struct redis_server_process server;
static char url[64];

static void conformance_config(struct store_config *c)
{
	snprintf(url, sizeof(url), "redis://127.0.0.1:%u", server.port);
	c->url = url;
	c->timeout_ms = 2000;
	c->instance = 1; /* so that it has a watch */
}

static int group_setup(void **state UNUSED)
{
	redis_init(&server);
	server.args[0] = "--appendonly";
	server.args[1] = "yes";
	server.args[2] = "--appendfsync";
	server.args[3] = "always";
	server.args[4] = "--save";
	server.args[5] = "";
	redis_start(&server);
	return 0;
}

static int group_teardown(void **state UNUSED)
{
	redis_fini(&server);
	return 0;
}

/* --- what happens to servers ---------------------------------------------- */

static void command(const char *words)
{
	char out[256];

	assert_int_equal(shell(out, sizeof(out), "redis-cli -p %u %s",
			       server.port, words),
			 0);
	if (strncmp(out, "ERR", 3) == 0)
		fail_msg("%s: %s", words, out);
}

static void test_redis_killed_and_restarted(void **state)
{
	struct conformance *f = *state;
	struct stream s;

	stream_start(&s, f, "killed");
	stream_fill(&s);
	command("bgrewriteaof");
	for (unsigned i = 0; i < 3; i++) {
		unsigned before = s.acknowledged;

		loop_until(f->l, s.acknowledged > before + 500);
		redis_kill(&server, SIGKILL);
		loop_until(f->l, !store_state(f->store)->up);
		assert_true(strstr(store_state(f->store)->fault, "127.0.0.1") !=
			    NULL);
		redis_start(&server);
		loop_until(f->l, store_state(f->store)->up);
	}
	stream_end(&s);
	assert_int_equal(metric_get(store_counters(f->store), SM_RECONNECTS, 0),
			 3);
}

/* Opens it while the server can't be used. */
static void open_down(struct conformance *f)
{
	char fault[STORE_FAULT_SIZE];

	assert_int_equal(store_open(&f->l->loop, &f->config, &f->store, fault),
			 0);
	f->closed = false;
}

/* Down for longer than an append may wait: it fails, certainly not done. */
static void test_redis_down(void **state)
{
	struct conformance *f = *state;
	struct appending p;

	f->config.timeout_ms = 300;
	conformance_reopen(f);
	append_text(f, "a", "1");
	redis_kill(&server, SIGKILL);
	loop_until(f->l, !store_state(f->store)->up);
	append_init(f, &p, "a", "", "2");
	append_wait(&p);
	assert_int_equal(p.a.rc, ERR_UNAVAILABLE);
	assert_true(p.a.definite);
	assert_true(strstr(store_state(f->store)->fault, "refused") != NULL);
	/* One that may still wait goes through when the server is back. */
	conformance_close(f);
	f->config.timeout_ms = 5000;
	open_down(f);
	append_init(f, &p, "a", "", "3");
	append_submit(&p);
	uv_run(&f->l->loop, UV_RUN_NOWAIT);
	redis_start(&server);
	loop_until(f->l, p.done > 0);
	assert_int_equal(p.a.rc, 0);
	assert_int_equal(p.a.place.offset, 2);
}

/* The server hangs with appends under way and wakes after they have timed out
 * and a new connection stands: what lay unread never overtakes. */
static void test_redis_hangs(void **state)
{
	struct conformance *f = *state;
	struct appending late, next;
	struct stream s;
	unsigned failed = 0;

	f->config.timeout_ms = 300;
	conformance_reopen(f);
	stream_start(&s, f, "hangs");
	stream_fill(&s);
	for (unsigned i = 0; i < 3; i++) {
		unsigned before = s.acknowledged;

		loop_until(f->l, s.acknowledged > before + 300);
		kill(server.pid, SIGSTOP);
		failed = s.failed;
		loop_until(f->l, s.failed > failed);
		loop_until(f->l, !store_state(f->store)->up);
		kill(server.pid, SIGCONT);
		loop_until(f->l, store_state(f->store)->up);
	}
	stream_end(&s);

	append_init(f, &late, "late", "", "late");
	kill(server.pid, SIGSTOP);
	append_wait(&late);
	assert_int_equal(late.a.rc, ERR_UNAVAILABLE);
	assert_false(late.a.definite);
	append_init(f, &next, "late", "", "next");
	append_submit(&next);
	kill(server.pid, SIGCONT);
	loop_until(f->l, next.done > 0);
	if (next.a.rc == 0) { /* whichever: it is the last */
		struct reading r;

		read_init(f, &r, "late", 0);
		read_wait(&r);
		assert_got(f, f->got_count - 1, next.a.place.offset, "next");
		assert_int_equal(r.r.top.offset, next.a.place.offset);
	}
}

/* --- heard late ------------------------------------------------------------
 */

/* A pause a little longer than an append may wait. */
static void test_redis_late(void **state)
{
	struct conformance *f = *state;
	struct listening l, again;
	struct store_place place;

	append_text(f, "a", "1");
	kill(server.pid, SIGSTOP);
	late_submit(f, &l, "a", "key", "2");
	turn_for(f, 1000); /* one of another age in the same connection */
	late_submit(f, &again, "a", "key", "again");
	turn_for(f, 1250);
	assert_int_equal(l.p.done, 1);
	assert_int_equal(l.p.a.rc, ERR_UNAVAILABLE);
	assert_false(l.p.a.definite);
	assert_int_equal(l.late, 0);
	assert_false(store_state(f->store)->up);
	assert_true(store_state(f->store)->queue_bytes > 0);
	kill(server.pid, SIGCONT);
	loop_until(f->l, l.late == 1 && again.p.done == 1);
	assert_int_equal(l.p.a.rc, 0);
	assert_int_equal(l.p.a.place.offset, 2);
	assert_false(l.p.a.duplicate);
	assert_int_equal(again.p.a.rc, 0);
	assert_true(again.p.a.duplicate);
	place = again.p.a.place;
	assert_int_equal(place.offset, 2);
	assert_int_equal(place.epoch, l.p.a.place.epoch);
	assert_int_equal(again.late, 0);
	assert_int_equal(late_count(f), 1);
	assert_int_equal(store_state(f->store)->queue_bytes, 0);
	/* In the connection that stood. */
	loop_until(f->l, store_state(f->store)->up);
	assert_int_equal(append_text(f, "a", "3").offset, 3);
	assert_int_equal(metric_get(store_counters(f->store), SM_RECONNECTS, 0),
			 0);
}

static void test_redis_late_duplicate(void **state)
{
	struct conformance *f = *state;
	struct listening l;

	f->config.timeout_ms = 300;
	conformance_reopen(f);
	late_submit(f, &l, "a", "key", "1");
	loop_until(f->l, l.p.done == 1);
	assert_int_equal(l.p.a.rc, 0);
	kill(server.pid, SIGSTOP);
	late_submit(f, &l, "a", "key", "2");
	late_wait_done(&l);
	assert_false(l.p.a.duplicate);
	kill(server.pid, SIGCONT);
	loop_until(f->l, l.late == 1);
	assert_int_equal(l.p.a.rc, 0);
	assert_true(l.p.a.duplicate);
	assert_string_equal(l.p.a.message_id, "id-1");
	assert_int_equal(l.p.a.place.offset, 1);
}

/* What is open counts: one more than the bound is refused. */
static void test_redis_late_bounded(void **state)
{
	struct conformance *f = *state;
	struct listening l;
	struct appending p;

	f->config.timeout_ms = 300;
	f->config.queue_bytes = 600;
	conformance_reopen(f);
	kill(server.pid, SIGSTOP);
	late_submit(f, &l, "a", "", "1");
	late_wait_done(&l);
	append_init(f, &p, "a", "", "2");
	append_wait(&p);
	assert_int_equal(p.a.rc, ERR_FULL);
	kill(server.pid, SIGCONT);
	loop_until(f->l, l.late == 1 && store_state(f->store)->up);
	assert_int_equal(append_text(f, "a", "3").offset, 2);
}

/* The server dies while it is waited for: nobody can know. */
static void test_redis_late_cut(void **state)
{
	struct conformance *f = *state;
	struct listening l;

	f->config.timeout_ms = 500;
	conformance_reopen(f);
	kill(server.pid, SIGSTOP);
	late_submit(f, &l, "a", "", "1");
	late_wait_done(&l);
	assert_int_equal(l.late, 0);
	redis_kill(&server, SIGKILL);
	loop_until(f->l, l.late == 1);
	assert_int_equal(l.p.a.rc, ERR_UNAVAILABLE);
	assert_false(l.p.a.definite);
	assert_int_equal(late_count(f), 0);
	redis_start(&server);
	loop_until(f->l, store_state(f->store)->up);
	append_text(f, "a", "2");
}

/* It has an end: the time-out again. */
static void test_redis_late_never(void **state)
{
	struct conformance *f = *state;
	struct listening l;
	uint64_t since;

	f->config.timeout_ms = 300;
	conformance_reopen(f);
	kill(server.pid, SIGSTOP);
	since = clock_monotonic_ms();
	late_submit(f, &l, "a", "", "1");
	loop_until(f->l, l.late == 1);
	since = clock_monotonic_ms() - since;
	assert_true(since >= 2 * f->config.timeout_ms && since < 1500);
	assert_int_equal(l.p.a.rc, ERR_UNAVAILABLE);
	kill(server.pid, SIGCONT);
	loop_until(f->l, store_state(f->store)->up);
	append_text(f, "a", "2");
}

static void test_redis_late_at_close(void **state)
{
	struct conformance *f = *state;
	struct listening l[3];

	f->config.timeout_ms = 500;
	conformance_reopen(f);
	kill(server.pid, SIGSTOP);
	late_submit(f, &l[0], "a", "", "1");
	late_wait_done(&l[0]);
	/* These wait, or have left, when it is closed. */
	late_submit(f, &l[1], "a", "", "2");
	late_submit(f, &l[2], "b", "", "3");
	conformance_close(f);
	kill(server.pid, SIGCONT);
	assert_int_equal(l[0].late, 1);
	assert_int_equal(l[0].p.a.rc, ERR_UNAVAILABLE);
	for (unsigned i = 1; i < array_len(l); i++) {
		assert_int_equal(l[i].p.done, 1);
		assert_int_equal(l[i].p.a.rc, ERR_UNAVAILABLE);
		assert_int_equal(l[i].late, !l[i].p.a.definite);
	}
}

#define LARGE	    (64u << 10)
#define LARGE_COUNT 400

/* More than the kernel and the node's own buffer take while nobody reads. */
static void test_redis_takes_nothing(void **state)
{
	struct conformance *f = *state;
	struct appending *p = xcalloc(LARGE_COUNT, sizeof(*p));
	char *record = xcalloc(1, LARGE);
	unsigned done = 0;

	f->config.timeout_ms = 10000; /* a machine may be slow too */
	conformance_reopen(f);
	kill(server.pid, SIGSTOP);
	for (unsigned i = 0; i < LARGE_COUNT; i++) {
		append_init(f, &p[i], i % 2 ? "a" : "b", "", "x");
		p[i].a.record = record;
		p[i].a.len = LARGE;
		p[i].all_done = &done;
		append_submit(&p[i]);
	}
	turn_for(f, 100);
	assert_int_equal(done, 0);
	kill(server.pid, SIGCONT);
	loop_until(f->l, done == LARGE_COUNT);
	for (unsigned i = 0; i < LARGE_COUNT; i++) {
		assert_int_equal(p[i].a.rc, 0);
		assert_int_equal(p[i].a.place.offset, i / 2 + 1);
	}
	free(record);
	free(p);
}

static void test_redis_scripts_forgotten(void **state)
{
	struct conformance *f = *state;
	struct stream s;

	stream_start(&s, f, "scripts");
	stream_fill(&s);
	for (unsigned i = 0; i < 5; i++) {
		unsigned before = s.acknowledged;

		command("script flush");
		loop_until(f->l, s.acknowledged > before + 100);
	}
	assert_int_equal(s.failed, 0);
	stream_end(&s);
}

/* Connections that others end: nothing that was sent is sent again. */
static void test_redis_connections_cut(void **state)
{
	struct conformance *f = *state;
	struct stream s;

	stream_start(&s, f, "cut");
	stream_fill(&s);
	for (unsigned i = 0; i < 10; i++) {
		unsigned before = s.acknowledged;

		command("client kill type normal");
		loop_until(f->l, s.acknowledged > before + 50);
	}
	stream_end(&s);
}

/* No position is ever given to two messages. */
static void test_redis_flushed(void **state)
{
	struct conformance *f = *state;
	struct store_place before = append_text(f, "a", "1"), after;
	uint64_t identity = store_state(f->store)->identity;

	for (unsigned i = 0; i < 20; i++) {
		command("flushall");
		assert_int_equal(top_of(f, "a").offset, 0);
		after = append_text(f, "a", "2");
		assert_true(after.epoch > before.epoch);
		assert_int_equal(after.offset, 1);
		before = after;
	}
	/* It is known by the same name when it is connected to again. */
	command("client kill type normal");
	loop_until(f->l, !store_state(f->store)->up);
	loop_until(f->l, store_state(f->store)->up);
	assert_int_equal(append_text(f, "a", "3").offset, 2);
	assert_int_equal(store_state(f->store)->identity, identity);
}

/* As eviction does it: any one of a channel's keys goes. */
static void test_redis_evicted(void **state)
{
	struct conformance *f = *state;
	struct store_place place, before = append_text(f, "a", "1");
	char words[256], name[NAME_SIZE];
	struct reading r;

	append_text(f, "a", "2");
	snprintf(words, sizeof(words), "del 'stentor:{%s}:log'",
		 channel_name(f, name, "a"));
	command(words);
	read_init(f, &r, "a", 0);
	read_wait(&r);
	assert_int_equal(f->got_count, 0);
	assert_int_equal(r.r.first, 3);
	place = append_text(f, "a", "3");
	assert_int_equal(place.epoch, before.epoch);
	assert_int_equal(place.offset, 3);
	/* Someone's clock was far ahead when the log was made. */
	snprintf(words, sizeof(words),
		 "xadd 'stentor:{%s}:log' 3000000000000-7 t 1 r x", name);
	command(words);
	snprintf(words, sizeof(words), "del 'stentor:{%s}:meta'", name);
	command(words);
	place = append_text(f, "a", "4");
	assert_int_equal(place.epoch, 3000000000001);
	assert_int_equal(place.offset, 1);
	read_init(f, &r, "a", 0);
	read_wait(&r);
	assert_int_equal(f->got_count, 1);
}

/* Entries go by their age while others come. */
static void test_redis_head_expires(void **state)
{
	struct conformance *f = *state;
	struct appending p;
	struct reading r;
	bool gone = false;

	for (unsigned i = 0; i < 10; i++)
		append_text(f, "a", "old");
	turn_for(f, 510);
	for (unsigned i = 0; i < 5 && !gone; i++) {
		append_init(f, &p, "a", "", "new");
		p.a.ttl_ms = 500;
		append_wait(&p);
		read_init(f, &r, "a", 0);
		read_wait(&r);
		gone = r.r.first > 10;
	}
	assert_true(gone);
	assert_got(f, 0, r.r.first, "new");
}

static void test_redis_out_of_memory(void **state)
{
	struct conformance *f = *state;
	struct appending p;

	append_text(f, "a", "1");
	command("config set maxmemory 1mb");
	append_init(f, &p, "a", "", "2");
	append_wait(&p);
	assert_int_equal(p.a.rc, ERR_FULL);
	assert_true(p.a.definite);
	assert_int_equal(top_of(f, "a").offset, 1);
	loop_until(f->l, store_state(f->store)->bytes_max == 1 << 20);
	command("config set maxmemory 0");
	assert_int_equal(append_text(f, "a", "3").offset, 2);
}

static void test_redis_becomes_replica(void **state)
{
	struct conformance *f = *state;
	struct store_place before = append_text(f, "a", "1");
	struct appending p;

	command("replicaof 127.0.0.1 1");
	append_init(f, &p, "a", "", "2");
	append_submit(&p);
	loop_until(f->l, !store_state(f->store)->up);
	assert_true(strstr(store_state(f->store)->fault, "replica") != NULL);
	command("replicaof no one");
	loop_until(f->l, p.done > 0);
	assert_int_equal(p.a.rc, 0);
	/* What a new master has of the old one's log may be torn. */
	assert_true(p.a.place.epoch > before.epoch);
	assert_int_equal(p.a.place.offset, 2);
}

static void test_redis_password(void **state)
{
	struct conformance *f = *state;
	char with[96];

	conformance_close(f);
	command("config set requirepass s3cret");
	open_down(f);
	loop_until(f->l, strstr(store_state(f->store)->fault, "wants a"));
	conformance_close(f);
	f->config.password = "wrong";
	open_down(f);
	loop_until(f->l, strstr(store_state(f->store)->fault, "refuses the"));
	assert_null(strstr(store_state(f->store)->fault, "wrong"));
	conformance_close(f);
	f->config.password = "s3cret";
	conformance_open(f);
	append_text(f, "a", "1");
	conformance_close(f);
	f->config.password = "";
	snprintf(with, sizeof(with), "redis://:s3%%63ret@127.0.0.1:%u",
		 server.port);
	f->config.url = with;
	conformance_open(f);
	append_text(f, "a", "2");
	conformance_close(f);
	command("-a s3cret --no-auth-warning config set requirepass \"''\"");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONFORMANCE_TESTS,
		CONFORMANCE_CASE(test_redis_killed_and_restarted),
		CONFORMANCE_CASE(test_redis_down),
		CONFORMANCE_CASE(test_redis_hangs),
		CONFORMANCE_CASE(test_redis_late),
		CONFORMANCE_CASE(test_redis_late_duplicate),
		CONFORMANCE_CASE(test_redis_late_bounded),
		CONFORMANCE_CASE(test_redis_late_cut),
		CONFORMANCE_CASE(test_redis_late_never),
		CONFORMANCE_CASE(test_redis_late_at_close),
		CONFORMANCE_CASE(test_redis_takes_nothing),
		CONFORMANCE_CASE(test_redis_scripts_forgotten),
		CONFORMANCE_CASE(test_redis_connections_cut),
		CONFORMANCE_CASE(test_redis_flushed),
		CONFORMANCE_CASE(test_redis_evicted),
		CONFORMANCE_CASE(test_redis_head_expires),
		CONFORMANCE_CASE(test_redis_out_of_memory),
		CONFORMANCE_CASE(test_redis_becomes_replica),
		CONFORMANCE_CASE(test_redis_password),
	};

	signal(SIGPIPE, SIG_IGN); /* as the programs do */
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

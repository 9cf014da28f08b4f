/* redis: servers that are not what they should be. */
#include "tests/unit/hostile_redis.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "dispatcher/store/redis.h"
#include "dispatcher/store/redis_internal.h"

#include <signal.h>

/* --- what it is ----------------------------------------------------------- */

/* It can't be used, and it is not asked all the time. */
static void assert_never_up(struct fixture *f, const char *words)
{
	uint64_t until;

	open_store(f, 200);
	loop_until(f->l, fault_says(f, words));
	f->connections = 0;
	until = clock_monotonic_ms() + 500;
	loop_until(f->l, clock_monotonic_ms() >= until);
	assert_true(f->connections <= 8);
	assert_true(fault_says(f, words));
}

static void test_redis_too_old(void **state)
{
	struct fixture *f = *state;

	f->info = "redis_version:6.2.14\r\nrole:master\r\n";
	assert_never_up(f, "below 7");
}

/* What a server before 7 says to INFO with several sections. */
static void test_redis_too_old_for_info(void **state)
{
	struct fixture *f = *state;

	f->info_error = "-ERR syntax error\r\n";
	assert_never_up(f, "below 7");
}

static void test_redis_valkey(void **state)
{
	struct fixture *f = *state;

	f->info = "redis_version:7.2.4\r\nserver_name:valkey\r\n"
		  "valkey_version:8.0.1\r\nrole:master\r\n";
	open_store(f, 200);
	loop_until(f->l, store_state(f->store)->up);
	assert_int_equal(store_state(f->store)->identity, 42);
}

static void test_redis_no_version(void **state)
{
	struct fixture *f = *state;

	f->info = "";
	assert_never_up(f, "version");
}

static void test_redis_loading(void **state)
{
	struct fixture *f = *state;

	f->info = GOOD_INFO "loading:1\r\n";
	open_store(f, 200);
	loop_until(f->l, fault_says(f, "loading"));
	f->info = GOOD_INFO;
	loop_until(f->l, store_state(f->store)->up);
}

static void test_redis_silent(void **state)
{
	struct fixture *f = *state;

	f->silent = true;
	assert_never_up(f, "in time");
}

static void test_redis_garbage(void **state)
{
	struct fixture *f = *state;

	f->greeting = "HTTP/1.1 400 Bad Request\r\n\r\n";
	assert_never_up(f, "no Redis protocol");
}

static void test_redis_speaks_unasked(void **state)
{
	struct fixture *f = *state;

	f->greeting = "+a\r\n+b\r\n+c\r\n+d\r\n+e\r\n+f\r\n+g\r\n+h\r\n";
	assert_never_up(f, "");
}

/* --- what it answers ------------------------------------------------------ */

/* The append ends, as it may have been done, and the store recovers. */
static void assert_unknown(struct fixture *f, const char *reply)
{
	struct appending p;

	f->script_reply = reply;
	append(f, &p);
	assert_int_equal(p.a.rc, ERR_UNAVAILABLE);
	assert_false(p.a.definite);
	f->script_reply = "$3\r\n5 1\r\n";
	loop_until(f->l, store_state(f->store)->up);
	append(f, &p);
	assert_int_equal(p.a.rc, 0);
}

static void test_redis_nonsense(void **state)
{
	static const char *const replies[] = {
		":1\r\n",
		"+OK\r\n",
		"$-1\r\n",
		"*0\r\n",
		"*-1\r\n",
		"$0\r\n\r\n",
		"$3\r\n1 0\r\n",
		"$3\r\n1 x\r\n",
		"$3\r\n 11\r\n",
		"$23\r\n1 99999999999999999999 \r\n",
		"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n",
		"?",
		"*2147483647\r\n",
		"*1\r\n*65537\r\n",
		"$-2\r\n",
		"$99999999999999999999\r\n",
	};
	struct fixture *f = *state;

	open_store(f, 1000);
	loop_until(f->l, store_state(f->store)->up);
	for (size_t i = 0; i < array_len(replies); i++)
		assert_unknown(f, replies[i]);
}

static void test_redis_huge_reply(void **state)
{
	struct fixture *f = *state;
	struct appending p;

	open_store(f, 5000);
	loop_until(f->l, store_state(f->store)->up);
	f->flood = REDIS_REPLY_MAX + (8u << 20);
	f->script_reply = "$400000000\r\n";
	append(f, &p);
	f->flood = 0;
	assert_int_equal(p.a.rc, ERR_UNAVAILABLE);
	assert_false(p.a.definite);
	f->script_reply = "$3\r\n5 1\r\n";
	loop_until(f->l, f->connections > 1 && store_state(f->store)->up);
	append(f, &p);
	assert_int_equal(p.a.rc, 0);
}

/* Every append ends, though none is answered. */
static void test_redis_hangs_up(void **state)
{
	struct fixture *f = *state;
	struct appending p;

	f->hangs_up = true;
	open_store(f, 1000);
	for (unsigned i = 0; i < 5; i++) {
		loop_until(f->l, store_state(f->store)->up);
		append(f, &p);
		assert_int_equal(p.a.rc, ERR_UNAVAILABLE);
		assert_false(p.a.definite);
	}
	assert_int_equal(f->scripts, 5); /* none was sent twice */
}

static void assert_refused(struct fixture *f, const char *reply, int rc,
			   unsigned scripts_max)
{
	struct appending p;

	f->scripts = 0;
	f->script_reply = reply;
	append(f, &p);
	assert_int_equal(p.a.rc, rc);
	assert_true(p.a.definite);
	assert_true(f->scripts <= scripts_max);
}

static void test_redis_refuses(void **state)
{
	struct fixture *f = *state;
	char moved[64];

	snprintf(moved, sizeof(moved), "-MOVED 1 %s\r\n",
		 f->url + strlen("redis://"));
	open_store(f, 300);
	loop_until(f->l, store_state(f->store)->up);
	assert_refused(f, "-OOM no memory\r\n", ERR_FULL, 1);
	assert_refused(f, "-MISCONF no disk\r\n", ERR_FULL, 1);
	assert_refused(f, "-EXISTS no\r\n", ERR_EXISTS, 1);
	assert_refused(f, "-NOREPLICAS no\r\n", ERR_UNAVAILABLE, 1);
	assert_refused(f, "-ERR what\r\n", ERR_IO, 1);
	assert_refused(f, moved, ERR_UNAVAILABLE, REDIS_REDIRECTIONS_MAX + 1);
	assert_refused(f, "-MOVED\r\n", ERR_UNAVAILABLE, 1);
	assert_refused(f, "-MOVED 1 \r\n", ERR_UNAVAILABLE, 1);
	assert_refused(f, "-MOVED 1 x:99999\r\n", ERR_UNAVAILABLE, 1);
	assert_refused(f, "-ASK 1 :0\r\n", ERR_UNAVAILABLE, 1);
	/* Again and again, but not all the time. */
	assert_refused(f, "-TRYAGAIN\r\n", ERR_UNAVAILABLE, 10);
	assert_refused(f, "-CLUSTERDOWN\r\n", ERR_UNAVAILABLE, 10);
	assert_refused(f, "-LOADING\r\n", ERR_UNAVAILABLE, 10);
}

/* Answers that come when the append's time is over. */
static void test_redis_late_nonsense(void **state)
{
	static const struct {
		const char *reply;
		int rc;
		bool definite;
	} cases[] = {
		{"$3\r\n5 1\r\n", 0, false},
		{"$3\r\n5 x\r\n", ERR_UNAVAILABLE, false},
		{"?", ERR_UNAVAILABLE, false},
		{"*-1\r\n", ERR_UNAVAILABLE, false},
		{"+a\r\n+b\r\n+c\r\n+d\r\n", ERR_UNAVAILABLE, false},
		{"-OOM no memory\r\n", ERR_UNAVAILABLE, true},
		{"-MOVED 1 127.0.0.1:1\r\n", ERR_UNAVAILABLE, true},
		{"-TRYAGAIN\r\n", ERR_UNAVAILABLE, true},
		/* The reply and the end in one. */
		{"$3\r\n5 1\r\n+a\r\n+b\r\n+c\r\n", 0, false},
	};
	struct fixture *f = *state;
	struct appending p;

	open_store(f, 200);
	for (size_t i = 0; i < array_len(cases); i++) {
		loop_until(f->l, store_state(f->store)->up);
		f->holds = true;
		append(f, &p);
		assert_int_equal(p.a.rc, ERR_UNAVAILABLE);
		assert_false(p.a.definite);
		assert_int_equal(p.late, 0);
		say(f->held, cases[i].reply);
		loop_until(f->l, p.late > 0);
		assert_int_equal(p.a.rc, cases[i].rc);
		assert_int_equal(p.a.definite, cases[i].definite);
		f->holds = false;
		loop_until(f->l, f->held == NULL);
		assert_int_equal(p.late, 1);
	}
	loop_until(f->l, store_state(f->store)->up);
	append(f, &p);
	assert_int_equal(p.a.rc, 0);
}

/* A subscription that brings nothing is made again. */
static void test_redis_deaf(void **state)
{
	struct fixture *f = *state;
	uint64_t since = clock_monotonic_ms();

	f->instance = 1;
	f->deaf = true;
	open_store(f, 200);
	loop_until(f->l, store_state(f->store)->up && f->connections == 2);
	loop_until(f->l, f->connections > 2);
	since = clock_monotonic_ms() - since;
	assert_true(since > 2900 && since < 5000);
	assert_true(store_state(f->store)->up);
}

/* What is no answer to SUBSCRIBE, and to all that follows. */
static void test_redis_no_subscription(void **state)
{
	struct fixture *f = *state;
	struct appending p;

	f->instance = 1;
	open_store(f, 200);
	loop_until(f->l, store_state(f->store)->up);
	append(f, &p);
	assert_int_equal(p.a.rc, 0);
	loop_until(f->l, f->connections > 3);
	assert_true(store_state(f->store)->up);
	assert_int_equal(metric_get(store_counters(f->store), SM_NEWS_UP, 0),
			 0);
}

struct asking {
	struct store_read r;
	struct store_tops t;
	bool done;
};

static void on_asked_read(struct store_read *r)
{
	container_of(r, struct asking, r)->done = true;
}

static void on_asked_tops(struct store_tops *t)
{
	container_of(t, struct asking, t)->done = true;
}

static int read_rc(struct fixture *f, const char *reply, size_t *count)
{
	struct asking q = {
		.r = {.channel = "c", .records_max = 2, .done = on_asked_read}};

	f->script_reply = reply;
	loop_until(f->l, store_state(f->store)->up);
	store_read(f->store, &q.r);
	loop_run_until(f->l, &q.done);
	*count = q.r.count;
	return q.r.rc;
}

static int tops_rc(struct fixture *f, const char *reply)
{
	static const char *const channels[] = {"c"};
	struct store_place place;
	struct store_eras eras;
	struct asking q = {.t = {.channels = channels,
				 .count = 1,
				 .places = &place,
				 .eras = &eras,
				 .done = on_asked_tops}};

	f->script_reply = reply;
	loop_until(f->l, store_state(f->store)->up);
	store_tops(f->store, &q.t);
	loop_run_until(f->l, &q.done);
	return q.t.rc;
}

#define READ_HEAD "$1\r\n5\r\n$1\r\n9\r\n$1\r\n1\r\n"
#define RECORD(n) "$1\r\n" n "\r\n$1\r\nx\r\n"
#define NINE_ERAS "1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"

static void test_redis_nonsense_read(void **state)
{
	static const char *const replies[] = {
		"$3\r\n5 1\r\n",
		"*-1\r\n",
		"*0\r\n",
		"*3\r\n" READ_HEAD,
		"*4\r\n" READ_HEAD "$-1\r\n",
		"*4\r\n" READ_HEAD ":1\r\n",
		"*4\r\n" READ_HEAD "$1\r\n1\r\n",
		"*4\r\n" READ_HEAD "$5\r\n1 2 3\r\n",
		"*4\r\n" READ_HEAD "$4\r\n1 -2\r\n",
		"*4\r\n" READ_HEAD "$35\r\n" NINE_ERAS "\r\n",
		"*5\r\n" READ_HEAD "$0\r\n\r\n$1\r\n1\r\n",
		"*6\r\n" READ_HEAD "$0\r\n\r\n$1\r\nx\r\n$1\r\nx\r\n",
		"*6\r\n" READ_HEAD "$0\r\n\r\n$1\r\n1\r\n$-1\r\n",
	};
	struct fixture *f = *state;
	size_t count;

	open_store(f, 1000);
	for (size_t i = 0; i < array_len(replies); i++)
		if (read_rc(f, replies[i], &count) != ERR_UNAVAILABLE)
			fail_msg("taken: %s", replies[i]);
	/* More than was asked for, or with a hole, is taken as far as it goes.
	 */
	assert_int_equal(read_rc(f,
				 "*10\r\n" READ_HEAD "$0\r\n\r\n" RECORD("1")
					 RECORD("2") RECORD("3"),
				 &count),
			 0);
	assert_int_equal(count, 2);
	assert_int_equal(read_rc(f,
				 "*8\r\n" READ_HEAD "$4\r\n 4 1\r\n" RECORD("1")
					 RECORD("3"),
				 &count),
			 0);
	assert_int_equal(count, 1);
}

static void test_redis_nonsense_tops(void **state)
{
	static const char *const replies[] = {
		"$3\r\n5 1\r\n",
		"*-1\r\n",
		"*1\r\n$1\r\n6\r\n",
		"*2\r\n$1\r\nx\r\n$3\r\n5 1\r\n",
		"*2\r\n$1\r\n6\r\n$-1\r\n",
		"*2\r\n$1\r\n6\r\n:1\r\n",
		"*2\r\n$1\r\n6\r\n$1\r\n5\r\n",
		"*2\r\n$1\r\n6\r\n$5\r\n5 1 4\r\n",
		"*2\r\n$1\r\n6\r\n$39\r\n5 1 " NINE_ERAS "\r\n",
		"*3\r\n$1\r\n6\r\n$3\r\n5 1\r\n$3\r\n5 1\r\n",
	};
	struct fixture *f = *state;

	open_store(f, 1000);
	for (size_t i = 0; i < array_len(replies); i++)
		if (tops_rc(f, replies[i]) != ERR_UNAVAILABLE)
			fail_msg("taken: %s", replies[i]);
	assert_int_equal(tops_rc(f, "*2\r\n$1\r\n6\r\n$7\r\n5 1 4 1\r\n"), 0);
	assert_int_equal(tops_rc(f, "*2\r\n$1\r\n6\r\n$0\r\n\r\n"), 0);
	/* A log that has gone back, and no room to say so. */
	assert_int_equal(tops_rc(f, "-OOM no memory\r\n"), ERR_UNAVAILABLE);
}

/* --- bounds --------------------------------------------------------------- */

struct reading {
	struct store_read r;
	unsigned *unavailable, *done;
};

static void on_read(struct store_read *r)
{
	struct reading *p = container_of(r, struct reading, r);

	++*p->done;
	*p->unavailable += r->rc == ERR_UNAVAILABLE;
}

static void test_redis_too_many_operations(void **state)
{
	struct fixture *f = *state;
	size_t count = REDIS_OPS_MAX + 10;
	struct reading *p = xcalloc(count, sizeof(*p));
	unsigned unavailable = 0, done = 0;

	f->silent = true;
	open_store(f, 1000);
	for (size_t i = 0; i < count; i++) {
		p[i].unavailable = &unavailable;
		p[i].done = &done;
		p[i].r = (struct store_read){
			.channel = "c",
			.records_max = 1,
			.done = on_read,
		};
		store_read(f->store, &p[i].r);
	}
	/* Those over the bound at once, the others when their time is over. */
	uv_run(&f->l->loop, UV_RUN_NOWAIT);
	assert_int_equal(done, 10);
	loop_until(f->l, done == count);
	assert_int_equal(unavailable, count);
	free(p);
}

/* --- the URL -------------------------------------------------------------- */

static void test_redis_url(void **state UNUSED)
{
	static const char *const wrong[] = {
		"rediss://",
		"redisss://h",
		"rediss:/h",
		"redis://",
		"redis://h:0",
		"redis://h:65536",
		"redis://h:",
		"redis://h:1x",
		"redis://:1",
		"redis://h,",
		"redis://h/0",
		"redis://secret@h",
		"redis://:se%zz@h",
		"redis://:se%00@h",
		"redis://h?x=y",
		"redis://h?sentinel=",
		"redis://[::1",
		"redis://[::1]x",
		"redis://h,h,h,h,h,h,h,h,h,h,h,h,h,h,h,h,h",
	};
	char fault[STORE_FAULT_SIZE];
	struct redis_url url;

	for (size_t i = 0; i < array_len(wrong); i++) {
		fault[0] = 0;
		if (redis_url_parse(wrong[i], &url, fault) != ERR_CONFIG)
			fail_msg("taken: %s", wrong[i]);
		assert_true(fault[0] != 0);
		assert_null(strstr(fault, "secret"));
	}
	assert_int_equal(redis_url_parse("redis://h", &url, fault), 0);
	assert_string_equal(url.addresses[0].host, "h");
	assert_int_equal(url.addresses[0].port, 6379);
	assert_false(url.tls);
	assert_int_equal(
		redis_url_parse("rediss://:p@h?sentinel=m", &url, fault), 0);
	assert_true(url.tls);
	assert_string_equal(url.addresses[0].host, "h");
	assert_int_equal(url.addresses[0].port, 26379);
	assert_int_equal(
		redis_url_parse("redis://me:a%40b@[::1]:7,h2/?sentinel=m%2fn",
				&url, fault),
		0);
	assert_int_equal(url.count, 2);
	assert_string_equal(url.user, "me");
	assert_string_equal(url.secret, "a@b");
	assert_string_equal(url.addresses[0].host, "::1");
	assert_int_equal(url.addresses[0].port, 7);
	assert_int_equal(url.addresses[1].port, 26379);
	assert_string_equal(url.sentinel, "m/n");
}

static void test_redis_unknown_host(void **state)
{
	struct fixture *f = *state;

	snprintf(f->url, sizeof(f->url), "redis://no-such-host.invalid:1");
	open_store(f, 300);
	loop_until(f->l, store_state(f->store)->fault[0] == 'n' &&
				 strstr(store_state(f->store)->fault, "inva"));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_redis_url),
		CASE(test_redis_unknown_host),
		CASE(test_redis_too_old),
		CASE(test_redis_too_old_for_info),
		CASE(test_redis_valkey),
		CASE(test_redis_no_version),
		CASE(test_redis_loading),
		CASE(test_redis_silent),
		CASE(test_redis_garbage),
		CASE(test_redis_speaks_unasked),
		CASE(test_redis_nonsense),
		CASE(test_redis_nonsense_read),
		CASE(test_redis_nonsense_tops),
		CASE(test_redis_huge_reply),
		CASE(test_redis_hangs_up),
		CASE(test_redis_refuses),
		CASE(test_redis_late_nonsense),
		CASE(test_redis_deaf),
		CASE(test_redis_no_subscription),
		CASE(test_redis_too_many_operations),
	};

	signal(SIGPIPE, SIG_IGN); /* as the programs do */
	return cmocka_run_group_tests(tests, NULL, NULL);
}

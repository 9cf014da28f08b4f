/* redis: a master with two replicas, watched by a Sentinel, under the
 * conformance suite with one replica asked for, and through fail-overs. */
#define CONFORMANCE_PERSISTENT	 1
#define CONFORMANCE_KEEPS_EPOCHS 0
#include "tests/unit/store_conformance.h"

#include "tests/unit/redis_fixture.h"
#include "tests/unit/store_late.h"
#include "tests/unit/store_party.h"
#include "tests/unit/store_stream.h"

#define SERVERS 3

static struct redis_server_process servers[SERVERS], sentinel;
static uint16_t nobody; /* a port that is refused */
static char url[128];

static void conformance_config(struct store_config *c)
{
	snprintf(url, sizeof(url),
		 "redis://127.0.0.1:%u,127.0.0.1:%u?sentinel=the-master",
		 nobody, sentinel.port);
	c->url = url;
	c->timeout_ms = 2000;
	c->replicas = 1;
	c->instance = 1; /* so that it has a watch */
}

static unsigned replicas_of(unsigned i)
{
	char out[64];

	shell(out, sizeof(out),
	      "redis-cli -p %u info replication 2>&1 | "
	      "grep -c 'state=online'",
	      servers[i].port);
	return (unsigned)strtoul(out, NULL, 10);
}

/* The one that has `replicas` of them now. */
static unsigned master_with(unsigned replicas)
{
	for (unsigned ms = 0; ms < REDIS_START_WAIT_MS; ms += 50) {
		for (unsigned i = 0; i < SERVERS; i++)
			if (servers[i].pid != 0 && replicas_of(i) == replicas)
				return i;
		pause_ms(50);
	}
	check(!"no master has so many replicas");
	return 0;
}

static void write_sentinel(void)
{
	static char path[160];
	FILE *file;

	redis_init(&sentinel);
	snprintf(path, sizeof(path), "%s/sentinel.conf", sentinel.directory);
	file = fopen(path, "w");
	check(file != NULL);
	fprintf(file,
		"sentinel monitor the-master 127.0.0.1 %u 1\n"
		"sentinel down-after-milliseconds the-master 400\n"
		"sentinel failover-timeout the-master 2000\n",
		servers[0].port);
	fclose(file);
	sentinel.args[0] = path;
	sentinel.args[1] = "--sentinel";
	redis_start(&sentinel);
}

static bool sentinel_knows_replicas(void)
{
	char out[64];

	shell(out, sizeof(out),
	      "redis-cli -p %u sentinel replicas the-master | grep -c '^ip$'",
	      sentinel.port);
	return strtoul(out, NULL, 10) == SERVERS - 1;
}

static int group_setup(void **state UNUSED)
{
	static char port[8];

	nobody = free_port();
	for (unsigned i = 0; i < SERVERS; i++) {
		const char *args[] = {
			"--save",
			"",
			"--repl-diskless-sync-delay",
			"0",
			i == 0 ? NULL : "--replicaof",
			"127.0.0.1",
			port,
			NULL,
		};

		redis_init(&servers[i]);
		memcpy(servers[i].args, args, sizeof(args));
		redis_start(&servers[i]);
		snprintf(port, sizeof(port), "%u", servers[0].port);
	}
	master_with(2);
	write_sentinel();
	for (unsigned ms = 0; !sentinel_knows_replicas(); ms += 50) {
		if (ms > 15000)
			return -1;
		pause_ms(50);
	}
	return 0;
}

static int group_teardown(void **state UNUSED)
{
	redis_fini(&sentinel);
	for (unsigned i = 0; i < SERVERS; i++)
		redis_fini(&servers[i]);
	return 0;
}

/* Too few replicas have it: it may be there, but it is not acknowledged. */
static void test_redis_replicas_hang(void **state)
{
	struct conformance *f = *state;
	unsigned master = master_with(2);
	struct appending p;

	f->config.timeout_ms = 600;
	conformance_reopen(f);
	append_text(f, "a", "1");
	for (unsigned i = 0; i < SERVERS; i++)
		if (i != master)
			kill(servers[i].pid, SIGSTOP);
	append_init(f, &p, "a", "", "2");
	append_wait(&p);
	for (unsigned i = 0; i < SERVERS; i++)
		if (i != master)
			kill(servers[i].pid, SIGCONT);
	assert_int_equal(p.a.rc, ERR_UNAVAILABLE);
	assert_false(p.a.definite);
	loop_until(f->l, store_state(f->store)->up);
	append_text(f, "a", "3");
}

static void set_down_after(unsigned ms)
{
	char out[64];

	shell(out, sizeof(out),
	      "redis-cli -p %u sentinel set the-master "
	      "down-after-milliseconds %u",
	      sentinel.port, ms);
	assert_string_equal(out, "OK\n");
}

/* The late answer of one that replicas must have waits for them too. */
static void test_redis_late_replicated(void **state)
{
	struct conformance *f = *state;
	unsigned master = master_with(2);
	struct listening l, few;

	f->config.timeout_ms = 400;
	conformance_reopen(f);
	set_down_after(60000); /* nobody is to take over */
	kill(servers[master].pid, SIGSTOP);
	late_submit(f, &l, "a", "", "1");
	late_wait_done(&l);
	kill(servers[master].pid, SIGCONT);
	loop_until(f->l, l.late == 1);
	assert_int_equal(l.p.a.rc, 0);
	assert_int_equal(l.p.a.place.offset, 1);

	loop_until(f->l, store_state(f->store)->up);
	for (unsigned i = 0; i < SERVERS; i++)
		if (i != master)
			kill(servers[i].pid, SIGSTOP);
	late_submit(f, &few, "a", "", "2");
	late_wait_done(&few);
	loop_until(f->l, few.late == 1);
	assert_int_equal(few.p.a.rc, ERR_UNAVAILABLE);
	for (unsigned i = 0; i < SERVERS; i++)
		kill(servers[i].pid, SIGCONT);
	set_down_after(400);
	loop_until(f->l, store_state(f->store)->up);
}

static bool failover_begins(void)
{
	char out[256];

	/* Not as long as the one before is not over. */
	shell(out, sizeof(out), "redis-cli -p %u sentinel failover the-master",
	      sentinel.port);
	return strstr(out, "OK") != NULL;
}

/* Those that listen go to the new master too. */
static void test_redis_failover_watch(void **state)
{
	struct conformance *f = *state;
	struct party *a = party_open(f->l, url, 0xa);
	struct party *b = party_open(f->l, url, 0xb);
	struct store_place place;

	loop_until(f->l, party_peers(a) == 2 && party_peers(b) == 2);
	master_with(2);
	loop_until(f->l, failover_begins());
	loop_until(f->l, a->missed > 0 && b->missed > 0);
	loop_until(f->l, store_state(a->store)->up);
	place = party_append(a, "watch");
	loop_until(f->l, party_heard(b, 0xa, "watch", place));
	party_close(a);
	party_close(b);
	master_with(2);
}

/* What was acknowledged is not lost, though the new master has it in an epoch
 * of its own: it can't know that. */
static void test_redis_failover(void **state)
{
	struct conformance *f = *state;
	unsigned victim = master_with(2), before;
	struct stream s;

	stream_start(&s, f, "failover");
	s.epochs_may_change = true;
	stream_fill(&s);
	loop_until(f->l, s.acknowledged > 300);
	redis_kill(&servers[victim], SIGKILL);
	loop_until(f->l, !store_state(f->store)->up);
	loop_until(f->l, store_state(f->store)->up);
	before = s.acknowledged;
	loop_until(f->l, s.acknowledged > before + 100);
	stream_end(&s);
}

static void assert_log_era(struct conformance *f, unsigned i,
			   struct store_place place)
{
	struct reading r;

	read_init(f, &r, "a", 0);
	read_wait(&r);
	assert_true(i < r.r.eras.count);
	assert_int_equal(r.r.eras.era[i].epoch, place.epoch);
	assert_int_equal(r.r.eras.era[i].offset, place.offset);
}

/* Two fail-overs between two messages. The first master is the last one too,
 * and was mostly not even told meanwhile that it was none. */
static void test_redis_failover_twice(void **state)
{
	struct conformance *f = *state;
	struct store_place before, after;

	f->config.replicas = 0;
	conformance_reopen(f);
	before = append_text(f, "a", "1");
	for (unsigned i = 0; i < 2; i++) {
		loop_until(f->l, failover_begins());
		loop_until(f->l, !store_state(f->store)->up);
		loop_until(f->l, store_state(f->store)->up);
	}
	after = append_text(f, "a", "2");
	assert_true(after.epoch > before.epoch);
	assert_int_equal(after.offset, 2);
	assert_log_era(f, 0, before);
	/* Once. */
	assert_int_equal(append_text(f, "a", "3").epoch, after.epoch);
}

static bool is_acknowledged(struct conformance *f, struct appending *p,
			    const char *text)
{
	append_init(f, p, "a", text, text);
	append_wait(p);
	return p->a.rc == 0;
}

/* A replica of `master`, whatever its arguments say. */
static void start_replica(unsigned i, unsigned master)
{
	char out[256];

	redis_start(&servers[i]);
	shell(out, sizeof(out), "redis-cli -p %u replicaof 127.0.0.1 %u",
	      servers[i].port, servers[master].port);
}

/* One replica of two has what was acknowledged, and it dies with the master:
 * the other one is promoted without it. */
static void test_redis_promoted_without(void **state)
{
	struct conformance *f = *state;
	unsigned master = master_with(1), other[2], n = 0;
	struct store_place before, after;
	struct appending p;
	char out[256];

	for (unsigned i = 0; i < SERVERS; i++) {
		if (servers[i].pid == 0)
			start_replica(i, master);
		if (i != master)
			other[n++] = i;
	}
	master_with(2);
	conformance_reopen(f);
	append_text(f, "a", "1");
	before = append_text(f, "a", "2");
	shell(out, sizeof(out), "redis-cli -p %u wait 2 5000",
	      servers[master].port);
	shell(out, sizeof(out), "redis-cli -p %u save", servers[other[1]].port);
	redis_kill(&servers[other[1]], SIGKILL);
	append_text(f, "a", "lost");
	append_text(f, "a", "lost too");
	redis_kill(&servers[master], SIGKILL);
	redis_kill(&servers[other[0]], SIGKILL);
	start_replica(other[1], master);
	loop_until(f->l, !store_state(f->store)->up);
	for (unsigned ms = 0; replicas_of(other[1]) == 0; ms += 100) {
		check(ms < 12 * REDIS_START_WAIT_MS);
		if (servers[other[0]].pid == 0)
			start_replica(other[0], other[1]);
		turn_for(f, 100);
	}
	loop_until(f->l, store_state(f->store)->up);
	loop_until(f->l, is_acknowledged(f, &p, "3"));
	after = p.a.place;
	assert_true(after.epoch > before.epoch);
	assert_int_equal(after.offset, 3);
	assert_log_era(f, 0, before);
	assert_got(f, 2, 3, "3");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONFORMANCE_TESTS,
		CONFORMANCE_CASE(test_redis_replicas_hang),
		CONFORMANCE_CASE(test_redis_late_replicated),
		CONFORMANCE_CASE(test_redis_failover_watch),
		CONFORMANCE_CASE(test_redis_failover),
		CONFORMANCE_CASE(test_redis_promoted_without),
		CONFORMANCE_CASE(test_redis_failover_twice),
	};

	signal(SIGPIPE, SIG_IGN); /* as the programs do */
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

/* redis: a real Cluster of three masters, under the conformance suite and while
 * its slots move. */
#define CONFORMANCE_PERSISTENT	 1
#define CONFORMANCE_KEEPS_EPOCHS 0
#include "tests/unit/store_conformance.h"

#include "dispatcher/store/redis.h"
#include "tests/unit/redis_fixture.h"
#include "tests/unit/store_party.h"
#include "tests/unit/store_stream.h"

#define MASTERS 3

/* The last one is a replica of the first. */
static struct redis_server_process servers[MASTERS + 1];
static char url[64];

static void conformance_config(struct store_config *c)
{
	/* One address is enough to find the others. */
	snprintf(url, sizeof(url), "redis://127.0.0.1:%u", servers[1].port);
	c->url = url;
	c->timeout_ms = 1500;
	c->instance = 1; /* so that it has a watch */
}

static bool cluster_is_ok(void)
{
	char out[1024];

	for (unsigned i = 0; i < MASTERS; i++) {
		shell(out, sizeof(out), "redis-cli -p %u cluster info 2>&1",
		      servers[i].port);
		if (strstr(out, "cluster_state:ok") == NULL)
			return false;
	}
	return true;
}

static bool replica_is_online(void)
{
	char out[64];

	shell(out, sizeof(out),
	      "redis-cli -p %u info replication | grep -c 'state=online'",
	      servers[0].port);
	return strtoul(out, NULL, 10) == 1;
}

static int group_setup(void **state UNUSED)
{
	char out[4096];

	for (unsigned i = 0; i <= MASTERS; i++) {
		static const char *const args[] = {
			"--cluster-enabled",
			"yes",
			"--save",
			"",
			"--repl-diskless-sync-delay",
			"0",
			"--cluster-node-timeout",
			"1000",
			NULL,
		};

		redis_init(&servers[i]);
		memcpy(servers[i].args, args, sizeof(args));
		redis_start(&servers[i]);
	}
	if (shell(out, sizeof(out),
		  "redis-cli --cluster create 127.0.0.1:%u 127.0.0.1:%u "
		  "127.0.0.1:%u --cluster-yes 2>&1",
		  servers[0].port, servers[1].port, servers[2].port) != 0) {
		fprintf(stderr, "%s\n", out);
		return -1;
	}
	for (unsigned ms = 0; !cluster_is_ok(); ms += 20) {
		if (ms > REDIS_START_WAIT_MS)
			return -1;
		pause_ms(20);
	}
	shell(out, sizeof(out),
	      "redis-cli --cluster add-node 127.0.0.1:%u 127.0.0.1:%u "
	      "--cluster-slave --cluster-master-id "
	      "$(redis-cli -p %u cluster myid) 2>&1",
	      servers[MASTERS].port, servers[0].port, servers[0].port);
	for (unsigned ms = 0; !replica_is_online(); ms += 20) {
		if (ms > REDIS_START_WAIT_MS) {
			fprintf(stderr, "%s\n", out);
			return -1;
		}
		pause_ms(20);
	}
	return 0;
}

static int group_teardown(void **state UNUSED)
{
	for (unsigned i = 0; i <= MASTERS; i++)
		redis_fini(&servers[i]);
	return 0;
}

/* Published test vectors of the Cluster specification. */
static void test_redis_slot(void **state UNUSED)
{
	assert_int_equal(redis_slot("123456789"), 0x31c3 % REDIS_SLOTS);
	assert_int_equal(redis_slot(""), 0);
	assert_int_equal(redis_slot("foo"), 12182);
	assert_int_equal(redis_slot("somekey"), 11058);
}

/* --- a slot moves --------------------------------------------------------- */

static unsigned owner_of(unsigned slot)
{
	for (unsigned i = 0; i <= MASTERS; i++) {
		char range[4096], *at;
		unsigned first, last;

		shell(range, sizeof(range),
		      "redis-cli -p %u cluster nodes | grep myself | "
		      "cut -d' ' -f9-",
		      servers[i].port);
		for (at = strtok(range, " \n"); at; at = strtok(NULL, " \n")) {
			int n = sscanf(at, "%u-%u", &first, &last);

			if (n == 1)
				last = first;
			if (n >= 1 && slot >= first && slot <= last)
				return i;
		}
	}
	fail_msg("nobody has slot %u", slot);
	return 0;
}

static void node_id(unsigned i, char id[64])
{
	shell(id, 64, "redis-cli -p %u cluster myid", servers[i].port);
	id[strcspn(id, "\n")] = 0;
}

/* As redis-cli --cluster reshard does it, with the loop turned between its
 * steps, and keys moved a few at a time, so that channels are torn. */
static void move_slot(struct conformance *f, unsigned slot, unsigned to)
{
	unsigned from = owner_of(slot);
	char out[2048], from_id[64], to_id[64];

	node_id(from, from_id);
	node_id(to, to_id);
	shell(out, sizeof(out),
	      "redis-cli -p %u cluster setslot %u importing %s",
	      servers[to].port, slot, from_id);
	shell(out, sizeof(out),
	      "redis-cli -p %u cluster setslot %u migrating %s",
	      servers[from].port, slot, to_id);
	turn_for(f, 50);
	for (unsigned step = 0; step < 1000; step++) {
		shell(out, sizeof(out),
		      "redis-cli -p %u cluster getkeysinslot %u %u | "
		      "xargs redis-cli -p %u migrate 127.0.0.1 %u '' 0 5000 "
		      "keys",
		      servers[from].port, slot, step < 3 ? 1 : 400,
		      servers[from].port, servers[to].port);
		if (strstr(out, "NOKEY") != NULL)
			break;
		turn_for(f, step < 3 ? 20 : 2);
	}
	turn_for(f, 50);
	shell(out, sizeof(out), "redis-cli -p %u cluster setslot %u node %s",
	      servers[to].port, slot, to_id);
	shell(out, sizeof(out), "redis-cli -p %u cluster setslot %u node %s",
	      servers[from].port, slot, to_id);
	turn_for(f, 50);
}

static void test_redis_slots_move(void **state)
{
	struct conformance *f = *state;
	struct stream s;

	stream_start(&s, f, "moving");
	s.epochs_may_change = true; /* another server goes on counting */
	stream_fill(&s);
	turn_for(f, 100);
	for (unsigned i = 0; i < STREAM_CHANNELS; i++) {
		unsigned slot = redis_slot(s.names[i]);

		move_slot(f, slot, (owner_of(slot) + 1) % MASTERS);
	}
	unsigned before = s.acknowledged;

	loop_until(f->l, s.acknowledged > before + 100);
	assert_int_equal(s.unknown, 0);
	assert_true(s.failed * 10 < s.acknowledged);
	stream_end(&s);
}

/* Starts a stream whose first channel's slot the server `i` is master of. */
static void stream_start_at(struct stream *s, struct conformance *f,
			    const char *tag, unsigned i)
{
	stream_start(s, f, tag);
	while (owner_of(redis_slot(s->names[0])) != i) {
		stream_free(s);
		f->prefix++;
		stream_start(s, f, tag);
	}
}

/* Whichever node each listens to, and whichever has the channel. */
static void test_redis_cluster_watch(void **state)
{
	struct conformance *f = *state;
	struct party *a = party_open(f->l, url, 0xa);
	struct party *b = party_open(f->l, url, 0xb);
	char out[64];

	loop_until(f->l, party_peers(a) == 2 && party_peers(b) == 2);
	for (unsigned i = 0; i < 30; i++) {
		struct store_place place;
		char channel[32];

		snprintf(channel, sizeof(channel), "watch-%u", i);
		place = party_append(a, channel);
		loop_until(f->l, party_heard(b, 0xa, channel, place));
		if (i % 10 != 9)
			continue;
		for (unsigned n = 0; n <= MASTERS; n++)
			shell(out, sizeof(out),
			      "redis-cli -p %u client kill type pubsub",
			      servers[n].port);
		loop_until(f->l, b->missed > i / 10);
	}
	assert_int_equal(a->count, 0);
	party_close(a);
	loop_until(f->l, party_peers(b) == 1);
	party_close(b);
}

/* A master that nobody takes over from hangs: appends fail in time, and all go
 * on when it wakes. */
static void test_redis_cluster_one_hangs(void **state)
{
	struct conformance *f = *state;
	uint64_t before;
	struct stream s;

	stream_start_at(&s, f, "hangs", 1);
	stream_fill(&s);
	loop_until(f->l, s.acknowledged > 200);
	kill(servers[1].pid, SIGSTOP);
	loop_until(f->l, s.failed > 0);
	kill(servers[1].pid, SIGCONT);
	loop_until(f->l, store_state(f->store)->up);
	before = s.last[0];
	loop_until(f->l, s.last[0] > before + 100);
	stream_end(&s);
}

static void take_over(unsigned i)
{
	char out[1024];

	for (unsigned ms = 0; ms < REDIS_START_WAIT_MS; ms += 20) {
		/* It is refused while they have not heard of the last one. */
		if (ms % 1000 == 0)
			shell(out, sizeof(out),
			      "redis-cli -p %u cluster failover",
			      servers[i].port);
		shell(out, sizeof(out), "redis-cli -p %u info replication",
		      servers[i].port);
		if (strstr(out, "role:master") != NULL &&
		    strstr(out, "state=online") != NULL)
			return;
		pause_ms(20);
	}
	fail_msg("%u does not take over", i);
}

/* Its replica takes over and gives back before anybody here has turned: the
 * connections stand, but what was counted before is in doubt. */
static void test_redis_cluster_fail_back(void **state)
{
	struct conformance *f = *state;
	struct store_place before, after;
	struct appending p;
	struct reading r;
	char name[NAME_SIZE];

	while (owner_of(redis_slot(channel_name(f, name, "a"))) != 0)
		f->prefix++;
	append_text(f, "a", "1");
	before = append_text(f, "a", "2");
	take_over(MASTERS);
	take_over(0);
	uv_update_time(&f->l->loop);
	/* The others may still say that it has moved. */
	do {
		append_init(f, &p, "a", "", "3");
		append_wait(&p);
	} while (p.a.rc != 0 && p.a.definite);
	assert_int_equal(p.a.rc, 0);
	after = p.a.place;
	assert_true(after.epoch > before.epoch);
	assert_int_equal(after.offset, 3);
	read_init(f, &r, "a", 0);
	read_wait(&r);
	assert_int_equal(f->got_count, 3);
	assert_int_equal(r.r.eras.count, 1);
	assert_int_equal(r.r.eras.era[0].epoch, before.epoch);
	assert_int_equal(r.r.eras.era[0].offset, 2);
}

/* A master dies, its replica takes over: what may have been lost is told by a
 * new epoch, and everything goes on. Last: the Cluster stays without it. */
static void test_redis_cluster_failover(void **state)
{
	struct conformance *f = *state;
	unsigned before[STREAM_CHANNELS];
	struct stream s;

	stream_start_at(&s, f, "failover", 0);
	s.epochs_may_change = true;
	stream_fill(&s);
	loop_until(f->l, s.acknowledged > 400);
	redis_kill(&servers[0], SIGKILL);
	loop_until(f->l, s.failed > 0);
	for (unsigned i = 0; i < STREAM_CHANNELS; i++)
		before[i] = s.submitted[i];
	/* Each channel's newest append is one that was submitted since. */
	for (unsigned i = 0; i < STREAM_CHANNELS; i++)
		loop_until(f->l, s.newest[i] > before[i] + 10);
	stream_end(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_redis_slot),
		CONFORMANCE_TESTS,
		CONFORMANCE_CASE(test_redis_slots_move),
		CONFORMANCE_CASE(test_redis_cluster_watch),
		CONFORMANCE_CASE(test_redis_cluster_one_hangs),
		CONFORMANCE_CASE(test_redis_cluster_fail_back),
		CONFORMANCE_CASE(test_redis_cluster_failover),
	};

	signal(SIGPIPE, SIG_IGN); /* as the programs do */
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

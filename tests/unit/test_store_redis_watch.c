/* redis: what the dispatchers of one real server tell one another. */
#include "tests/unit/redis_fixture.h"
#include "tests/unit/store_party.h"

#include "dispatcher/store/redis_internal.h"
#include "dispatcher/store/redis_news.h"

#include <inttypes.h>
#include <signal.h>

static struct redis_server_process server;
static char url[64];

static int group_setup(void **state UNUSED)
{
	redis_init(&server);
	server.args[0] = "--save";
	server.args[1] = "";
	redis_start(&server);
	snprintf(url, sizeof(url), "redis://127.0.0.1:%u", server.port);
	return 0;
}

static int group_teardown(void **state UNUSED)
{
	redis_fini(&server);
	return 0;
}

static void command(const char *words)
{
	char out[256];

	assert_int_equal(shell(out, sizeof(out), "redis-cli -p %u %s 2>&1",
			       server.port, words),
			 0);
	if (strncmp(out, "ERR", 3) == 0)
		fail_msg("%s: %s", words, out);
}

/* Two that have heard of one another. */
static void open_two(struct loop_fixture *l, struct party **a, struct party **b)
{
	*a = party_open(l, url, 0xa);
	*b = party_open(l, url, 0xb);
	loop_until(l, party_peers(*a) == 1 && party_peers(*b) == 1);
}

/* --- who is there --------------------------------------------------------- */

static void test_watch_presence(void **state)
{
	struct loop_fixture *l = *state;
	struct party *a, *b, *c;
	uint64_t since = clock_monotonic_ms();

	open_two(l, &a, &b);
	assert_true(clock_monotonic_ms() - since < 900);
	assert_int_equal(store_state(a->store)->peers[0].instance, 0xb);
	assert_int_equal(store_state(b->store)->peers[0].instance, 0xa);
	store_report(b->store, 17);
	loop_until(l, store_state(a->store)->peers[0].workers == 17);
	assert_int_equal(party_metric(a, SM_PEERS, 0), 1);
	assert_int_equal(party_metric(a, SM_NEWS_UP, 0), 1);

	c = party_open(l, url, 0xc);
	loop_until(l, party_peers(a) == 2 && party_peers(b) == 2 &&
			      party_peers(c) == 2);
	/* Those that stay go on being there. */
	party_turn(a, 3500);
	assert_int_equal(party_peers(a), 2);

	since = clock_monotonic_ms();
	party_close(b);
	loop_until(l, party_peers(a) == 1 && party_peers(c) == 1);
	assert_true(clock_monotonic_ms() - since < 500);
	assert_int_equal(store_state(a->store)->peers[0].instance, 0xc);
	/* Nobody has missed anything by it. */
	assert_int_equal(a->missed + c->missed, 0);
	party_close(c);
	party_close(a);
}

/* One without a name is not there. */
static void test_watch_nameless(void **state)
{
	struct loop_fixture *l = *state;
	struct party *a = party_open(l, url, 0xa), *b = party_open(l, url, 0);

	party_append(b, "nameless");
	party_turn(a, 300);
	assert_int_equal(party_peers(a) + party_peers(b), 0);
	assert_int_equal(a->count + a->missed, 0);
	party_close(a);
	party_close(b);
}

static void say(const struct redis_news *n)
{
	char path[160], out[64];
	struct buf message;
	FILE *f;

	buf_init(&message, 4096);
	assert_int_equal(redis_news_write(&message, n), 0);
	snprintf(path, sizeof(path), "%s/message", server.directory);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(message.bytes, 1, message.len, f), message.len);
	fclose(f);
	buf_fini(&message);
	assert_int_equal(shell(out, sizeof(out),
			       "redis-cli -p %u -x publish stentor:moved <%s",
			       server.port, path),
			 0);
}

/* One that falls silent is forgotten; what it told last may be lost. */
static void test_watch_silence(void **state)
{
	struct loop_fixture *l = *state;
	struct party *a = party_open(l, url, 0xa);
	struct redis_news n = {
		.kind = NEWS_PRESENT, .instance = 0xf, .workers = 3};
	uint64_t since;

	loop_until(l, party_metric(a, SM_NEWS_UP, 0) == 1);
	say(&n);
	loop_until(l, party_peers(a) == 1);
	assert_int_equal(store_state(a->store)->peers[0].workers, 3);
	since = clock_monotonic_ms();
	loop_until(l, party_peers(a) == 0);
	since = clock_monotonic_ms() - since;
	assert_true(since > 2500 && since < 4500);
	assert_int_equal(a->missed, 1);
	assert_int_equal(a->missed_by, 0xf);
	party_close(a);
}

static void test_watch_more_than_room(void **state)
{
	struct loop_fixture *l = *state;
	struct party *a = party_open(l, url, 1);
	struct redis_news n = {.kind = NEWS_PRESENT};

	loop_until(l, party_metric(a, SM_NEWS_UP, 0) == 1);
	for (n.instance = 2; n.instance < STORE_PEERS_MAX + 5; n.instance++)
		say(&n);
	loop_until(l, party_peers(a) == STORE_PEERS_MAX);
	party_turn(a, 50);
	assert_int_equal(party_peers(a), STORE_PEERS_MAX);
	party_close(a);
}

/* --- what has moved ------------------------------------------------------- */

static void test_watch_moved(void **state)
{
	struct loop_fixture *l = *state;
	struct party *a, *b;
	uint64_t worst = 0;

	open_two(l, &a, &b);
	for (unsigned i = 0; i < 50; i++) {
		struct store_place place = party_append(a, "moved");
		uint64_t since = clock_monotonic_ns();

		loop_until(l, party_heard(b, 0xa, "moved", place));
		worst = max_of(worst, clock_monotonic_ns() - since);
	}
	print_message("heard within %" PRIu64 " us\n", worst / 1000);
	assert_true(worst < 50000000);
	assert_int_equal(a->count, 0);
	assert_int_equal(a->missed + b->missed, 0);
	assert_int_equal(party_metric(a, SM_MOVED, STORE_MOVED_SENT), 50);
	assert_int_equal(party_metric(b, SM_MOVED, STORE_MOVED_HEARD), 50);
	party_append(b, "moved");
	loop_until(l, a->count == 1);
	/* What comes last is heard, though the store is closed at once. */
	struct party_append last;

	party_submit(a, &last, "last");
	loop_run_until(l, &last.done);
	party_close(a);
	loop_until(l, party_heard(b, 0xa, "last", last.a.place));
	assert_int_equal(b->missed, 0);
	party_close(b);
}

#define MANY 3000

/* Each channel once a turn, whatever is appended. */
static void test_watch_gathers(void **state)
{
	struct loop_fixture *l = *state;
	struct party_append *many = xcalloc(MANY, sizeof(*many));
	char names[10][16];
	struct party *a, *b;
	unsigned done = 0;

	open_two(l, &a, &b);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(names[i % 10], sizeof(names[0]), "many-%u", i % 10);
		party_submit(a, &many[i], names[i % 10]);
	}
	while (done < MANY) {
		loop_run_until(l, &many[done].done);
		assert_int_equal(many[done++].a.rc, 0);
	}
	for (unsigned i = MANY - 10; i < MANY; i++)
		loop_until(l, party_heard(b, 0xa, many[i].a.channel,
					  many[i].a.place));
	print_message("%u appends, %u times a channel was told\n", MANY,
		      b->count);
	assert_true(b->count < MANY / 4);
	assert_int_equal(b->missed, 0);
	party_close(a);
	party_close(b);
	free(many);
}

static uint64_t publishes(void)
{
	char out[256];
	const char *calls;

	shell(out, sizeof(out),
	      "redis-cli -p %u info commandstats | grep cmdstat_publish",
	      server.port);
	calls = strstr(out, "calls=");
	return calls != NULL ? strtoull(calls + 6, NULL, 10) : 0;
}

/* Nobody is told while nobody is there, and who comes learns that it has
 * missed something. */
static void test_watch_alone(void **state)
{
	struct loop_fixture *l = *state;
	struct party *a = party_open(l, url, 0xa), *b;
	struct store_place place;
	uint64_t before;

	loop_until(l, party_metric(a, SM_NEWS_UP, 0) == 1);
	before = publishes();
	for (unsigned i = 0; i < 100; i++)
		party_append(a, "alone");
	assert_true(publishes() - before <= 3);
	assert_int_equal(party_metric(a, SM_MOVED, STORE_MOVED_SENT), 0);
	b = party_open(l, url, 0xb);
	loop_until(l, b->missed == 1);
	assert_int_equal(b->missed_by, 0xa);
	loop_until(l, party_peers(a) == 1);
	place = party_append(a, "alone");
	loop_until(l, party_heard(b, 0xa, "alone", place));
	party_turn(a, 1200);
	assert_int_equal(b->missed, 1);
	assert_int_equal(a->missed, 0);
	party_close(a);
	party_close(b);
}

/* --- what is missed ------------------------------------------------------- */

static void test_watch_killed(void **state)
{
	struct loop_fixture *l = *state;
	struct store_place place;
	struct party *a, *b;

	open_two(l, &a, &b);
	for (unsigned i = 1; i <= 3; i++) {
		uint64_t since = clock_monotonic_ms();

		command("client kill type pubsub");
		party_append(a, "killed");
		loop_until(l, a->missed >= i && b->missed >= i);
		assert_true(clock_monotonic_ms() - since < 1000);
		assert_true(store_state(a->store)->up);
		place = party_append(a, "killed");
		loop_until(l, party_heard(b, 0xa, "killed", place));
	}
	party_turn(a, 1200);
	assert_int_equal(a->missed, 3);
	assert_int_equal(b->missed, 3);
	assert_int_equal(party_metric(b, SM_RECONNECTS, 0), 0);
	party_close(a);
	party_close(b);
}

/* A number that is left out. */
static void test_watch_hole(void **state)
{
	struct loop_fixture *l = *state;
	struct party *a = party_open(l, url, 0xa);
	struct redis_news n = {.kind = NEWS_PRESENT, .instance = 0xf};

	loop_until(l, party_metric(a, SM_NEWS_UP, 0) == 1);
	say(&n);
	n.number = 1;
	say(&n);
	loop_until(l, a->missed == 1);
	assert_int_equal(a->missed_by, 0xf);
	say(&n);
	n.number = 0; /* late, by another way */
	say(&n);
	n.number = 3;
	say(&n);
	loop_until(l, a->missed == 2);
	n.kind = NEWS_GONE;
	n.number = 4;
	say(&n);
	loop_until(l, a->missed == 3 && party_peers(a) == 0);
	party_close(a);
}

/* The server is away for a time: nobody is believed to know everything. */
static void test_watch_server_restarts(void **state)
{
	struct loop_fixture *l = *state;
	struct store_place place;
	struct party *a, *b;

	open_two(l, &a, &b);
	redis_kill(&server, SIGKILL);
	loop_until(l, !store_state(a->store)->up);
	redis_start(&server);
	loop_until(l, a->missed > 0 && b->missed > 0);
	loop_until(l, store_state(a->store)->up);
	loop_until(l, party_peers(a) == 1 && party_peers(b) == 1);
	place = party_append(a, "restarts");
	loop_until(l, party_heard(b, 0xa, "restarts", place));
	party_close(a);
	party_close(b);
}

/* The connection of an append breaks: who knows? The others are to look, when
 * it can't be done any more. */
static void test_watch_look(void **state)
{
	struct loop_fixture *l = *state;
	struct redis_store *s;
	struct party *a, *b;
	struct party_append p;
	char words[64];

	open_two(l, &a, &b);
	party_append(a, "look");
	loop_until(l, b->count == 1);
	s = container_of(a->store, struct redis_store, store);
	snprintf(words, sizeof(words), "client kill id %lld",
		 container_of(s->nodes.next, struct redis_node, in_nodes)
			 ->client);
	command("client pause 400 write");
	party_submit(a, &p, "look");
	party_turn(a, 50);
	assert_false(p.done);
	command(words);
	loop_run_until(l, &p.done);
	assert_int_equal(p.a.rc, ERR_UNAVAILABLE);
	assert_false(p.a.definite);
	loop_until(l, party_heard(b, 0xa, "look", (struct store_place){0, 0}));
	assert_true(store_state(a->store)->up);
	party_close(a);
	party_close(b);
}

/* --- what is none of ours, and what is forbidden -------------------------- */

static void test_watch_garbage(void **state)
{
	struct loop_fixture *l = *state;
	struct party *a, *b;
	struct store_place place;

	open_two(l, &a, &b);
	command("publish stentor:moved hello");
	command("publish stentor:moved '\"\"'");
	command("publish stentor:moved stn1stn1stn1stn1stn1stn1stn1");
	loop_until(l, party_metric(a, SM_NEWS_IGNORED, 0) == 3 &&
			      party_metric(b, SM_NEWS_IGNORED, 0) == 3);
	place = party_append(a, "garbage");
	loop_until(l, party_heard(b, 0xa, "garbage", place));
	assert_int_equal(b->missed, 0);
	party_close(a);
	party_close(b);
}

/* The store works without. */
static void test_watch_forbidden(void **state)
{
	static const char *const users[] = {
		"resetchannels",
		"allchannels -publish",
		"allchannels -subscribe",
	};
	struct loop_fixture *l = *state;

	for (unsigned i = 0; i < array_len(users); i++) {
		char words[128], with[96];
		struct party *a, *b;

		snprintf(words, sizeof(words),
			 "acl setuser u%u on '>pw' '~*' +@all %s", i, users[i]);
		command(words);
		snprintf(with, sizeof(with), "redis://u%u:pw@127.0.0.1:%u", i,
			 server.port);
		a = party_open(l, with, 0xa);
		b = party_open(l, url, 0xb);
		for (unsigned n = 0; n < 20; n++) {
			party_append(a, "forbidden");
			party_turn(a, 10);
		}
		assert_true(store_state(a->store)->up);
		assert_int_equal(party_metric(a, SM_NEWS_UP, 0), i == 1);
		assert_int_equal(party_peers(a), i == 1);
		assert_int_equal(party_peers(b), i == 2);
		/* Who can't listen can't know that nobody does. */
		assert_int_equal(b->count > 0, i == 2);
		assert_int_equal(party_metric(a, SM_ERRORS, STORE_APPEND), 0);
		party_close(a);
		party_close(b);
	}
}

/* --- the messages --------------------------------------------------------- */

static void test_news_garbage(void **state UNUSED)
{
	struct redis_gathered *g = xcalloc(1, sizeof(*g));
	struct redis_news n = {.kind = NEWS_MOVED, .instance = 7}, got;
	char channel[CHANNEL_NAME_MAX + 1];
	struct store_place top;
	struct buf b;
	uint8_t *copy;

	buf_init(&b, REDIS_NEWS_BYTES);
	redis_gathered_init(g);
	redis_gathered_add(g, "one", (struct store_place){5, 1});
	redis_gathered_add(g, "two:2", (struct store_place){6, UINT64_MAX});
	assert_int_equal(redis_gathered_write(g, &b, &n), 0);
	assert_true(redis_news_read(b.bytes, b.len, &got));
	assert_int_equal(got.count, 2);
	redis_news_next(&got, channel, &top);
	assert_string_equal(channel, "two:2");
	assert_true(top.epoch == 6 && top.offset == UINT64_MAX);
	redis_news_next(&got, channel, &top);
	assert_string_equal(channel, "one");
	/* In memory of just its size, for the sanitizer. */
	for (size_t len = 0; len < b.len; len++) {
		copy = (uint8_t *)xmemdupz(b.bytes, len);
		assert_false(redis_news_read(copy, len, &got));
		free(copy);
	}
	assert_int_equal(buf_append(&b, "", 1), 0);
	assert_false(redis_news_read(b.bytes, b.len, &got));
	b.len--;
	for (size_t at = 0; at < b.len; at++)
		for (unsigned bit = 0; bit < 8; bit++) {
			b.bytes[at] ^= (uint8_t)(1 << bit);
			if (redis_news_read(b.bytes, b.len, &got) &&
			    got.kind == NEWS_MOVED)
				while (got.count > 0)
					redis_news_next(&got, channel, &top);
			b.bytes[at] ^= (uint8_t)(1 << bit);
		}
	buf_fini(&b);
	free(g);
}

/* Against a model: the newest place of each name, and none is lost. */
static void test_news_gathered(void **state UNUSED)
{
	struct redis_gathered *g = xcalloc(1, sizeof(*g));
	static uint64_t last[2000];
	struct redis_news n = {.kind = NEWS_MOVED, .instance = 7}, got;
	char channel[CHANNEL_NAME_MAX + 1];
	struct store_place top;
	struct buf b;

	buf_init(&b, REDIS_NEWS_BYTES);
	redis_gathered_init(g);
	for (unsigned round = 0; round < 200; round++) {
		unsigned adds = (unsigned)random_below(1500), distinct = 0;

		for (unsigned i = 0; i < adds; i++) {
			unsigned c = (unsigned)random_below(round * 4 + 5);

			snprintf(channel, sizeof(channel), "c%u", c);
			distinct += last[c] == 0;
			last[c] = max_of(last[c], round * 10000ull + i + 1);
			if (random_below(3) == 0) /* an older one */
				last[c] = max_of(last[c], (uint64_t)1);
			redis_gathered_add(
				g, channel,
				(struct store_place){1, last[c] - (i % 2)});
			redis_gathered_add(g, channel,
					   (struct store_place){1, last[c]});
		}
		assert_int_equal(g->count, distinct);
		assert_false(g->overflow);
		while (g->count > 0) {
			assert_int_equal(redis_gathered_write(g, &b, &n), 0);
			assert_true(redis_news_read(b.bytes, b.len, &got));
			while (got.count > 0) {
				unsigned c;

				redis_news_next(&got, channel, &top);
				c = (unsigned)strtoul(channel + 1, NULL, 10);
				assert_true(last[c] != 0);
				assert_int_equal(top.offset, last[c]);
				last[c] = 0;
				distinct--;
			}
			buf_clear(&b, REDIS_NEWS_BYTES);
		}
		assert_int_equal(distinct, 0);
	}
	for (size_t i = 0; i < array_len(g->table); i++)
		assert_int_equal(g->table[i], 0);
	buf_fini(&b);
	free(g);
}

static void test_news_full(void **state UNUSED)
{
	struct redis_gathered *g = xcalloc(1, sizeof(*g));
	struct redis_news n = {.kind = NEWS_MOVED, .instance = 7};
	char channel[CHANNEL_NAME_MAX + 2];
	struct buf b;

	buf_init(&b, REDIS_NEWS_BYTES);
	redis_gathered_init(g);
	for (unsigned i = 0; i <= REDIS_NEWS_MAX; i++) {
		assert_false(g->overflow);
		/* As long as a name may be. */
		snprintf(channel, sizeof(channel), "%0128u", i);
		redis_gathered_add(g, channel, (struct store_place){1, 1});
	}
	assert_true(g->overflow);
	assert_int_equal(g->count, REDIS_NEWS_MAX);
	while (g->count > 0) {
		assert_int_equal(redis_gathered_write(g, &b, &n), 0);
		assert_true(redis_news_read(b.bytes, b.len, &n));
		buf_clear(&b, REDIS_NEWS_BYTES);
	}
	/* A look stays one until a place is known. */
	redis_gathered_add(g, "c", (struct store_place){1, 5});
	redis_gathered_add(g, "c", (struct store_place){0, 0});
	assert_int_equal(g->moved[0].top.epoch, 0);
	redis_gathered_add(g, "c", (struct store_place){1, 6});
	assert_int_equal(g->moved[0].top.offset, 6);
	redis_gathered_add(g, "c", (struct store_place){1, 5});
	assert_int_equal(g->moved[0].top.offset, 6);
	buf_fini(&b);
	free(g);
}

#define CASE(test) \
	cmocka_unit_test_setup_teardown(test, loop_setup, loop_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_news_garbage),
		cmocka_unit_test(test_news_gathered),
		cmocka_unit_test(test_news_full),
		CASE(test_watch_presence),
		CASE(test_watch_nameless),
		CASE(test_watch_silence),
		CASE(test_watch_more_than_room),
		CASE(test_watch_moved),
		CASE(test_watch_gathers),
		CASE(test_watch_alone),
		CASE(test_watch_killed),
		CASE(test_watch_hole),
		CASE(test_watch_server_restarts),
		CASE(test_watch_look),
		CASE(test_watch_garbage),
		CASE(test_watch_forbidden),
	};

	signal(SIGPIPE, SIG_IGN); /* as the programs do */
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

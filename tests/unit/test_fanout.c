/* The fan-out with real sessions that have no socket: what they were given
 * stays in their queues. */
#include "connnode/channel/fanout.h"

#include "common/base/mem.h"
#include "connnode/intake.h"
#include "connnode/stream/lagging.h"
#include "connnode/stream/session.h"
#include "connnode/worker.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSIONS (4 * FANOUT_SLICE)
#define HALF	 (FANOUT_SLICE / 2)

static struct rule match_all = {
	.pattern = "*",
	.priority = PRIORITY_NORMAL,
	.lagging = LAGGING_DROP_OLDEST,
};

struct fixture {
	uv_loop_t clock; /* never runs */
	struct connnode_options options;
	struct rules rules;
	struct worker w;
	struct session sessions[SESSIONS];
};

static const struct announcer_ops no_ops;

static void on_push(struct subscription *sub, struct frame *frame)
{
	lagging_push(sub->session, sub, frame);
}

static void on_forsaken(void *ctx, struct channel *ch)
{
	announcer_touch(&((struct fixture *)ctx)->w.announcer, ch);
}

static const struct fanout_ops ops = {
	.push = on_push,
	.forsaken = on_forsaken,
};

/* One turn; true while there is more to do. */
static bool run(struct fixture *f)
{
	fanout_run(&f->w.fanout, FANOUT_SLICE);
	return fanout_pending(&f->w.fanout);
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct announcer_identity id = {0};

	f->w.loop = &f->clock;
	f->w.options = &f->options;
	f->rules = (struct rules){.rule = &match_all, .count = 1};
	f->w.rules = &f->rules;
	metrics_init(&f->w.metrics, node_metrics, NM_COUNT, NULL);
	channels_init(&f->w.channels, f->w.rules);
	announcer_init(&f->w.announcer, &f->w.channels, &id, &no_ops, NULL);
	fanout_init(&f->w.fanout, &f->w.channels, &ops, f);
	sessions_init(&f->w.sessions, f->w.loop);
	f->w.sessions.metrics = &f->w.metrics;
	f->w.sessions.limits.queue_bytes_max = 1u << 20;
	for (unsigned i = 0; i < SESSIONS; i++) {
		struct session *s = &f->sessions[i];

		s->all = &f->w.sessions;
		s->phase = SESSION_STREAM;
		list_init(&s->in_dirty);
		outq_init(&s->out);
		list_init(&s->in_backlog);
	}
	*state = f;
	return 0;
}

static void join(struct fixture *f, unsigned i, const char *name, bool json)
{
	struct session *s = &f->sessions[i];
	struct channel *ch = channels_get(&f->w.channels, name, strlen(name));

	s->subscriptions = 1;
	if (channels_subscribe(&f->w.channels, ch, &s->first, s,
			       (json ? VARIANT_JSON : 0) | VARIANT_ALONE))
		announcer_touch(&f->w.announcer, ch);
}

static void set_clock(struct fixture *f, uint64_t ms)
{
	f->clock.time = ms;
}

static void leave(struct fixture *f, unsigned i)
{
	struct session *s = &f->sessions[i];

	if (s->subscriptions == 0)
		return;
	s->subscriptions = 0;
	if (channels_unsubscribe(&f->w.channels, &s->first))
		announcer_touch(&f->w.announcer, s->first.channel);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < SESSIONS; i++) {
		leave(f, i);
		list_remove(&f->sessions[i].in_dirty);
		outq_fini(&f->sessions[i].out);
	}
	fanout_fini(&f->w.fanout);
	assert_int_equal(f->w.fanout.backlog_bytes, 0);
	announcer_fini(&f->w.announcer);
	channels_fini(&f->w.channels);
	sessions_fini(&f->w.sessions);
	metrics_fini(&f->w.metrics, NULL);
	free(f);
	return 0;
}

static void deliver(struct fixture *f, const char *channel, const char *data)
{
	LinkDelivery d = STENTOR__LINK__V1__DELIVERY__INIT;

	d.channel = (char *)channel;
	d.data.data = (uint8_t *)data;
	d.data.len = strlen(data);
	d.priority = 2;
	intake_deliveries(&f->w, &(LinkDelivery *){&d}, 1);
}

/* What a session was given must be these data lines, in this order. */
static void assert_got(struct fixture *f, unsigned i, const char *lines)
{
	struct outq *q = &f->sessions[i].out;
	struct iovec iov[16];
	size_t count = outq_iov(q, iov, 16, SIZE_MAX);
	char got[256] = "";

	for (size_t k = 0; k < count; k++) {
		const char *data =
			memmem(iov[k].iov_base, iov[k].iov_len, "data: ", 6);

		assert_non_null(data);
		strncat(got, data + 6, strcspn(data + 6, "\n"));
		strcat(got, " ");
	}
	assert_string_equal(got, lines);
}

static unsigned served(const struct fixture *f)
{
	unsigned count = 0;

	for (unsigned i = 0; i < SESSIONS; i++)
		count += !outq_empty(&f->sessions[i].out);
	return count;
}

static void test_fanout_few_at_once(void **state)
{
	struct fixture *f = *state;

	join(f, 0, "a", false);
	join(f, 1, "a", true);
	join(f, 2, "b", false);
	deliver(f, "a", "1");
	deliver(f, "a", "2");
	deliver(f, "nobody", "3");
	assert_got(f, 0, "1 2 ");
	assert_got(f, 1,
		   "{\"channel\":\"a\",\"event\":\"message\",\"data\":\"1\"} "
		   "{\"channel\":\"a\",\"event\":\"message\",\"data\":\"2\"} ");
	assert_got(f, 2, "");
	assert_false(run(f));
	assert_int_equal(
		metric_get(&f->w.metrics, NM_RECEIVED, PRIORITY_NORMAL), 3);
	assert_int_equal(
		metric_get(&f->w.metrics, NM_DROPPED,
			   PRIORITY_NORMAL * DROP_REASONS + DROP_NO_SUBSCRIBER),
		1);
}

static void test_fanout_one_frame_for_all(void **state)
{
	struct fixture *f = *state;
	struct frame *shared;

	for (unsigned i = 0; i < 10; i++)
		join(f, i, "a", false);
	deliver(f, "a", "1");
	shared = f->sessions[0].out.ring[f->sessions[0].out.head];
	assert_int_equal(shared->refs, 10);
	assert_ptr_equal(f->sessions[9].out.ring[f->sessions[9].out.head],
			 shared);
	assert_int_not_equal(shared->accepted_us, 0);
}

static void test_fanout_many_in_slices(void **state)
{
	struct fixture *f = *state;
	unsigned runs = 0;

	for (unsigned i = 0; i < SESSIONS; i++)
		join(f, i, "a", false);
	deliver(f, "a", "1");
	assert_int_equal(served(f), 0);
	assert_true(f->w.fanout.backlog_bytes > 0);
	do {
		assert_int_equal(served(f), runs++ * FANOUT_SLICE);
	} while (run(f));
	assert_int_equal(runs, SESSIONS / FANOUT_SLICE);
	for (unsigned i = 0; i < SESSIONS; i++)
		assert_got(f, i, "1 ");
	assert_int_equal(f->w.fanout.backlog_bytes, 0);
	assert_null(f->sessions[0].first.channel->job);
}

static void test_fanout_age_of_the_oldest(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < SESSIONS; i++)
		join(f, i, i % 2 == 0 ? "a" : "b", false);
	assert_int_equal(fanout_age_ms(&f->w.fanout, worker_now(&f->w)), 0);
	deliver(f, "a", "1");
	set_clock(f, 30);
	deliver(f, "b", "2");
	set_clock(f, 50);
	assert_int_equal(fanout_age_ms(&f->w.fanout, worker_now(&f->w)), 50);
	fanout_finish(&f->w.fanout, f->sessions[0].first.channel);
	assert_int_equal(fanout_age_ms(&f->w.fanout, worker_now(&f->w)), 20);
	fanout_finish(&f->w.fanout, f->sessions[1].first.channel);
	assert_int_equal(fanout_age_ms(&f->w.fanout, worker_now(&f->w)), 0);
}

/* A broadcast does not hold up another channel's message. */
static void test_fanout_channels_take_turns(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < SESSIONS; i++)
		join(f, i, i < SESSIONS - 100 ? "big" : "small", false);
	deliver(f, "big", "1");
	deliver(f, "small", "2");
	assert_true(run(f));
	for (unsigned i = SESSIONS - 100; i < SESSIONS; i++)
		assert_got(f, i, "2 ");
	assert_in_range(served(f), 100 + HALF, FANOUT_SLICE);
}

static void test_fanout_keeps_order(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < FANOUT_SLICE + HALF; i++)
		join(f, i, "a", false);
	deliver(f, "a", "1");
	assert_true(run(f));
	deliver(f, "a", "2"); /* waits for the next walk */
	deliver(f, "a", "3");
	/* Few enough for at once, but not before those that wait. */
	for (unsigned i = 10; i < FANOUT_SLICE + HALF; i++)
		leave(f, i);
	deliver(f, "a", "4");
	while (run(f))
		;
	for (unsigned i = 0; i < 10; i++)
		assert_got(f, i, "1 2 3 4 ");
	deliver(f, "a", "5");
	assert_got(f, 0, "1 2 3 4 5 ");
}

static void test_fanout_come_and_go_during_a_walk(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 2 * FANOUT_SLICE; i++)
		join(f, i, "a", false);
	deliver(f, "a", "1");
	assert_true(run(f));	    /* the first half has it */
	leave(f, FANOUT_SLICE - 1); /* the last that was served */
	leave(f, FANOUT_SLICE);	    /* the next */
	leave(f, FANOUT_SLICE + 1);
	leave(f, 2 * FANOUT_SLICE - 1);		  /* the end of the list */
	join(f, 2 * FANOUT_SLICE, "a", false);	  /* came after message 1 */
	join(f, 2 * FANOUT_SLICE + 1, "a", true); /* no json was rendered */
	deliver(f, "a", "2");
	while (run(f))
		;
	assert_got(f, 0, "1 2 ");
	assert_got(f, FANOUT_SLICE - 2, "1 2 ");
	assert_got(f, FANOUT_SLICE - 1, "1 ");
	assert_got(f, FANOUT_SLICE, "");
	assert_got(f, FANOUT_SLICE + 2, "1 2 ");
	assert_got(f, 2 * FANOUT_SLICE - 2, "1 2 ");
	assert_got(f, 2 * FANOUT_SLICE - 1, "");
	assert_got(f, 2 * FANOUT_SLICE, "2 ");
	assert_got(f, 2 * FANOUT_SLICE + 1,
		   "{\"channel\":\"a\",\"event\":\"message\",\"data\":\"2\"} ");
}

/* All leave while a walk is under way: the channel goes when it ends. */
static void test_fanout_all_leave_during_a_walk(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < 2 * FANOUT_SLICE; i++)
		join(f, i, "a", false);
	f->clock.time += ANNOUNCER_GATHER_MAX_MS;
	announcer_flush(&f->w.announcer, worker_now(&f->w));
	deliver(f, "a", "1");
	assert_true(run(f));
	deliver(f, "a", "2");
	for (unsigned i = 0; i < 2 * FANOUT_SLICE; i++)
		leave(f, i);
	f->clock.time += ANNOUNCER_GATHER_MAX_MS;
	announcer_flush(&f->w.announcer, worker_now(&f->w));
	assert_non_null(channels_find(&f->w.channels, "a", 1));
	deliver(f, "a", "3"); /* for nobody */
	while (run(f))
		;
	f->clock.time += ANNOUNCER_GATHER_MAX_MS;
	announcer_flush(&f->w.announcer, worker_now(&f->w));
	assert_null(channels_find(&f->w.channels, "a", 1));
	assert_int_equal(f->w.fanout.backlog_bytes, 0);
}

/* A burst over many small channels is as bounded as one over a big one; tiny
 * ones are always served. */
static void test_fanout_burst_over_channels(void **state)
{
	struct fixture *f = *state;
	const unsigned each = FANOUT_TURN / 4, channels = 18;
	unsigned turns = 0;
	char name[16];

	for (unsigned i = 0; i < channels * each; i++) {
		sprintf(name, "c%u", i / each);
		join(f, i, name, false);
	}
	join(f, SESSIONS - 1, "tiny", false);
	for (unsigned i = 0; i < channels; i++) {
		sprintf(name, "c%u", i);
		deliver(f, name, "1");
		deliver(f, name, "2");
	}
	deliver(f, "tiny", "3");
	assert_int_equal(served(f), 2 * each + 1); /* two messages each */
	assert_got(f, SESSIONS - 1, "3 ");
	do
		turns++;
	while (run(f));
	assert_int_equal(turns, 16 * each / FANOUT_SLICE);
	for (unsigned i = 0; i < channels * each; i++)
		assert_got(f, i, "1 2 ");
	deliver(f, "c0", "3");
	assert_false(fanout_pending(&f->w.fanout));
	assert_got(f, 0, "1 2 3 ");
}

static void test_fanout_slow_session(void **state)
{
	struct fixture *f = *state;
	uv_write_t pending[2];
	char data[200];

	f->w.sessions.limits.queue_bytes_max = 500;
	f->sessions[0].blocked = &pending[0];
	f->sessions[1].blocked = &pending[1];
	join(f, 0, "a", false);
	memset(data, 'x', sizeof(data) - 1);
	data[sizeof(data) - 1] = '\0';
	for (unsigned i = 0; i < 10; i++)
		deliver(f, "a", data);
	assert_true(f->sessions[0].out.bytes <= 500);
	assert_int_equal(f->sessions[0].out.count, 2);
	assert_int_equal(
		metric_get(&f->w.metrics, NM_DROPPED,
			   PRIORITY_NORMAL * DROP_REASONS + DROP_SLOW_CONSUMER),
		8);
	assert_false(f->sessions[0].doomed);
	match_all.lagging = LAGGING_CLOSE;
	join(f, 1, "b", false);
	for (unsigned i = 0; i < 3; i++)
		deliver(f, "b", data);
	match_all.lagging = LAGGING_DROP_OLDEST;
	assert_true(f->sessions[1].doomed);
	assert_false(f->sessions[0].doomed);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_fanout_few_at_once),
		TEST(test_fanout_one_frame_for_all),
		TEST(test_fanout_many_in_slices),
		TEST(test_fanout_age_of_the_oldest),
		TEST(test_fanout_channels_take_turns),
		TEST(test_fanout_keeps_order),
		TEST(test_fanout_come_and_go_during_a_walk),
		TEST(test_fanout_all_leave_during_a_walk),
		TEST(test_fanout_burst_over_channels),
		TEST(test_fanout_slow_session),
	};

	return cmocka_run_group_tests_name("fanout", tests, NULL, NULL);
}

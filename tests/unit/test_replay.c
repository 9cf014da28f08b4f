/* Resume and replay with real sessions that have no socket, real logs and
 * questions, and a store that is played by the test: it sees each question and
 * answers it when it likes. */
#include "connnode/replay.h"

#include "common/base/mem.h"
#include "common/codec/sse.h"
#include "connnode/intake.h"
#include "connnode/session.h"
#include "connnode/stream.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SESSIONS     300
#define CHANNELS_MAX 8
#define EPOCH	     1700000000000u
#define QUESTIONS    64

static struct rule match_all;

struct fixture {
	struct connnode_options options;
	struct rules rules;
	uv_loop_t loop;
	struct worker w;
	struct session sessions[SESSIONS];
	struct arena arena;
	LinkFrame *asked[QUESTIONS]; /* not answered yet */
	unsigned asked_count, asked_total;
	/* The log of every channel. */
	struct place top;
	uint64_t first;
};

/* --- the store --------------------------------------------------------- */

static const struct upstream *on_ask(void *ctx, struct frame *control,
				     const struct upstream *except UNUSED)
{
	static char up;
	struct fixture *f = ctx;

	check(f->asked_count < QUESTIONS);
	f->asked[f->asked_count] =
		link_frame_decode(&f->arena, control->bytes, control->len);
	assert_non_null(f->asked[f->asked_count]);
	f->asked_count++;
	f->asked_total++;
	return (const struct upstream *)&up;
}

static const struct questions_ops ask_the_test = {.send = on_ask};

static void answer_tops(struct fixture *f, const TopsQuery *q)
{
	TopsAnswer a = STENTOR__LINK__V1__TOPS_ANSWER__INIT;
	Stentor__Link__V1__Place place = STENTOR__LINK__V1__PLACE__INIT;
	Stentor__Link__V1__Place *places[LOGS_TOPS];

	check(q->n_channels <= LOGS_TOPS);
	place.epoch = f->top.epoch;
	place.offset = f->top.offset;
	for (size_t i = 0; i < q->n_channels; i++)
		places[i] = &place;
	a.id = q->id;
	a.n_tops = q->n_channels;
	a.tops = places;
	questions_tops(&f->w.questions, &a, worker_now(&f->w));
}

static void fill(LinkDelivery *d, char data[24], uint64_t epoch,
		 uint64_t offset)
{
	stentor__link__v1__delivery__init(d);
	snprintf(data, 24, "m%llu", (unsigned long long)offset);
	d->data.data = (uint8_t *)data;
	d->data.len = strlen(data);
	d->priority = 2;
	d->epoch = epoch;
	d->offset = offset;
}

static void answer_history(struct fixture *f, const HistoryQuery *q)
{
	HistoryAnswer a = STENTOR__LINK__V1__HISTORY_ANSWER__INIT;
	Stentor__Link__V1__Place top = STENTOR__LINK__V1__PLACE__INIT;
	LinkDelivery d[REPLAY_PAGE_MESSAGES], *messages[REPLAY_PAGE_MESSAGES];
	char data[REPLAY_PAGE_MESSAGES][24];
	uint64_t offset = max_of(q->after + 1, f->first);

	top.epoch = f->top.epoch;
	top.offset = f->top.offset;
	a.id = q->id;
	a.top = &top;
	a.first = f->first;
	a.messages = messages;
	for (; q->epoch == f->top.epoch && offset <= f->top.offset &&
	       a.n_messages <
		       min_of(q->messages_max, (uint32_t)REPLAY_PAGE_MESSAGES);
	     offset++) {
		size_t n = a.n_messages++;

		fill(&d[n], data[n], f->top.epoch, offset);
		messages[n] = &d[n];
	}
	questions_history(&f->w.questions, &a, worker_now(&f->w));
}

/* Answers what was asked so far. */
static void answer(struct fixture *f)
{
	LinkFrame *asked[QUESTIONS];
	unsigned count = f->asked_count;

	memcpy(asked, f->asked, sizeof(asked));
	f->asked_count = 0;
	for (unsigned i = 0; i < count; i++) {
		for (size_t k = 0; k < asked[i]->n_tops_queries; k++)
			answer_tops(f, asked[i]->tops_queries[k]);
		for (size_t k = 0; k < asked[i]->n_history_queries; k++)
			answer_history(f, asked[i]->history_queries[k]);
	}
}

/* --- the worker -------------------------------------------------------- */

static const struct announcer_ops no_ops;

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct announcer_identity id = {0};
	struct worker *w = &f->w;

	match_all = (struct rule){
		.pattern = "*",
		.priority = PRIORITY_NORMAL,
		.lagging = LAGGING_CLOSE,
		.history_size = 1000,
		.history_ttl_ms = 60000,
	};
	f->top = (struct place){EPOCH, 0};
	f->first = 1;
	f->options = (struct connnode_options){
		.queue_bytes_max = 256u << 10,
		.replay_bytes_max = 1u << 20,
		.hold_bytes_max = 1u << 20,
		.sweep_ms = 30000,
		.heartbeat_ms = 15000,
		.channels_max = CHANNELS_MAX,
	};
	assert_int_equal(uv_loop_init(&f->loop), 0);
	w->loop = &f->loop;
	w->options = &f->options;
	f->rules = (struct rules){.rule = &match_all, .count = 1};
	w->rules = &f->rules;
	metrics_init(&w->metrics, node_metrics, NM_COUNT, NULL);
	list_init(&w->streams);
	list_init(&w->heads);
	list_init(&w->leaving);
	list_init(&w->waiting);
	list_init(&w->placing);
	list_init(&w->placed);
	list_init(&w->dirty);
	list_init(&w->doomed);
	wheel_init(&w->wheel, 64, 100, worker_now(w));
	channels_init(&w->channels, w->rules);
	announcer_init(&w->announcer, &w->channels, &id, &no_ops, NULL);
	fanout_init(&w->fanout);
	intake_init(w);
	w->questions.ops = &ask_the_test;
	w->questions.ctx = f;
	w->places = xcalloc(CHANNELS_MAX, sizeof(*w->places));
	w->names = xcalloc(CHANNELS_MAX, sizeof(*w->names));
	w->id = xmalloc(PLACE_ID_SIZE(CHANNELS_MAX));
	w->heartbeat = sse_render_heartbeat(NULL);
	arena_init(&f->arena, 64u << 20);
	for (unsigned i = 0; i < SESSIONS; i++) {
		struct session *s = &f->sessions[i];

		s->worker = w;
		list_init(&s->in_worker);
		list_init(&s->in_dirty);
		list_init(&s->in_waiting);
		list_init(&s->in_replays);
		wheel_timer_init(&s->timer);
		outq_init(&s->out);
	}
	*state = f;
	return 0;
}

static void leave(struct session *s)
{
	if (s->phase != SESSION_STREAM)
		return;
	stream_unsubscribe(s);
	s->phase = SESSION_CLOSING;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	struct worker *w = &f->w;

	for (unsigned i = 0; i < SESSIONS; i++) {
		struct session *s = &f->sessions[i];

		leave(s);
		list_remove(&s->in_dirty);
		list_remove(&s->in_worker);
		wheel_cancel(&s->timer);
		outq_fini(&s->out);
	}
	assert_int_equal(w->replays.queued_bytes, 0);
	assert_int_equal(w->replays.page_bytes, 0);
	fanout_fini(&w->fanout);
	intake_fini(w);
	announcer_fini(&w->announcer);
	channels_fini(&w->channels);
	wheel_fini(&w->wheel);
	metrics_fini(&w->metrics, NULL);
	frame_release(w->heartbeat);
	arena_fini(&f->arena);
	free(w->places);
	free(w->names);
	free(w->id);
	uv_loop_close(&f->loop);
	free(f);
	return 0;
}

/* One turn of the worker's loop, without the sockets. */
static void turn(struct fixture *f)
{
	struct worker *w = &f->w;

	f->loop.time += 5; /* ms */
	streams_ready(w);
	replays_run(w);
	logs_run(&w->logs, worker_now(w));
	while (fanout_run(w))
		;
	questions_run(&w->questions, worker_now(w));
}

static void join(struct fixture *f, unsigned i, const char *names,
		 const char *last_event_id)
{
	char channel[CHANNELS_MAX][CHANNEL_NAME_MAX + 1];
	struct stream_request want = {
		.channel = channel,
		.last_event_id = last_event_id,
	};
	char list[128];

	strcpy(list, names);
	for (char *rest, *name = strtok_r(list, " ", &rest); name != NULL;
	     name = strtok_r(NULL, " ", &rest))
		strcpy(channel[want.count++], name);
	stream_begin(&f->sessions[i], &want, "");
}

/* A message reaches the worker. */
static void deliver(struct fixture *f, const char *channel, uint64_t offset)
{
	LinkDelivery d;
	char data[24];

	fill(&d, data, f->top.epoch, offset);
	d.channel = (char *)channel;
	intake_deliveries(&f->w, &(LinkDelivery *){&d}, 1);
}

/* --- what a client saw ------------------------------------------------- */

static char last_id[128];

static void see(const char *line, size_t len, char *seen, char event[64])
{
	char *end = seen + strlen(seen);
	char reason[16];

	if (len == 0) {
		event[0] = '\0';
	} else if (strncmp(line, "id: ", 4) == 0) {
		snprintf(last_id, sizeof(last_id), "%.*s", (int)len - 4,
			 line + 4);
	} else if (strncmp(line, "event: ", 7) == 0) {
		snprintf(event, 64, "%.*s", (int)len - 7, line + 7);
	} else if (strncmp(line, "data: ", 6) == 0) {
		if (strcmp(event, "stentor.ready") == 0)
			sprintf(end, "ready ");
		else if (strcmp(event, "stentor.gap") == 0 &&
			 sscanf(strstr(line, "\"reason\":"),
				"\"reason\":\"%15[^\"]", reason) == 1)
			sprintf(end, "gap:%s ", reason);
		else
			sprintf(end, "%.*s ", (int)len - 6, line + 6);
	}
}

/* The kernel takes all; returns the events since the last time. */
static const char *taken(struct fixture *f, unsigned i)
{
	static char seen[8192];
	char text[65536] = "", event[64] = "";
	struct session *s = &f->sessions[i];
	struct frame *frame;

	seen[0] = '\0';
	while (!outq_empty(&s->out)) {
		size_t left = outq_first_left(&s->out);

		outq_sent(&s->out, left);
		f->w.queued_bytes -= left;
		frame = outq_pop_sent(&s->out);
		/* Without the chunk's head and tail. */
		char *payload = memmem(frame->bytes, frame->len, "\r\n", 2);

		strncat(text, payload + 2,
			frame->len -
				(size_t)(payload + 4 - (char *)frame->bytes));
		frame_release(frame);
	}
	for (char *line = text, *end; (end = strchr(line, '\n')) != NULL;
	     line = end + 1)
		see(line, (size_t)(end - line), seen, event);
	if (s->replay_bytes > 0)
		replay_drained(s);
	return seen;
}

/* Turns and answers until nothing more happens for the session. */
static const char *settled(struct fixture *f, unsigned i)
{
	static char all[8192];

	all[0] = '\0';
	for (unsigned n = 0; n < 50; n++) {
		turn(f);
		answer(f);
		strcat(all, taken(f, i));
	}
	return all;
}

static const char *id_of(uint64_t epoch, uint64_t offset)
{
	static char id[PLACE_ID_SIZE(1)];
	struct place place = {epoch, offset};

	place_encode(id, place_list_hash(&(const char *){"a"}, 1), &place, 1);
	return id;
}

/* --- tests ------------------------------------------------------------- */

static void test_replay_fresh_is_live(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 5;
	join(f, 0, "a", NULL);
	turn(f);
	/* Not before the place is known. */
	assert_string_equal(taken(f, 0), "");
	assert_string_equal(settled(f, 0), "ready ");
	assert_string_equal(last_id, id_of(EPOCH, 5));
	deliver(f, "a", 5);
	deliver(f, "a", 6);
	assert_string_equal(taken(f, 0), "m6 ");
	assert_string_equal(last_id, id_of(EPOCH, 6));
	/* The next comes to a place that is known: at once. */
	join(f, 1, "a", NULL);
	turn(f);
	assert_string_equal(taken(f, 1), "ready ");
	assert_string_equal(last_id, id_of(EPOCH, 6));
}

static void test_replay_resumes(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	join(f, 0, "a", id_of(EPOCH, 6));
	join(f, 1, "a", id_of(EPOCH, 4));
	join(f, 2, "a", id_of(EPOCH, 9));
	turn(f);
	answer(f);
	turn(f);
	assert_string_equal(taken(f, 2), "ready ");
	/* One page for both. */
	assert_int_equal(f->asked_count, 1);
	assert_string_equal(settled(f, 0), "ready m7 m8 m9 ");
	assert_string_equal(taken(f, 1), "ready m5 m6 m7 m8 m9 ");
	settled(f, 1);
	deliver(f, "a", 10);
	for (unsigned i = 0; i < 3; i++)
		assert_string_equal(taken(f, i), "m10 ");
	assert_int_equal(metric_get(&f->w.metrics, NM_RESUME, RESUME_REPLAYED),
			 2);
	assert_int_equal(metric_get(&f->w.metrics, NM_RESUME, RESUME_CURRENT),
			 1);
	assert_int_equal(f->w.replays.count, 0);
}

/* What comes while a client is behind comes to it after what it missed. */
static void test_replay_then_live_in_order(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 3;
	join(f, 1, "a", NULL);
	settled(f, 1);
	join(f, 0, "a", id_of(EPOCH, 1));
	turn(f);
	deliver(f, "a", 4);
	f->top.offset = 4;
	answer(f); /* the page was read before, or after: it has 4 */
	turn(f);
	deliver(f, "a", 5);
	f->top.offset = 5;
	assert_string_equal(taken(f, 0), "ready m2 m3 m4 ");
	deliver(f, "a", 6);
	f->top.offset = 6;
	assert_string_equal(settled(f, 0), "m5 m6 ");
	deliver(f, "a", 7);
	assert_string_equal(taken(f, 0), "m7 ");
	assert_string_equal(taken(f, 1), "m4 m5 m6 m7 ");
}

static void test_replay_many_pages(void **state)
{
	struct fixture *f = *state;
	char expected[8192] = "ready ";
	uint64_t from = 100, to = 2 * REPLAY_PAGE_MESSAGES + 10;

	f->top.offset = to;
	for (uint64_t i = from + 1; i <= to; i++)
		sprintf(expected + strlen(expected), "m%llu ",
			(unsigned long long)i);
	join(f, 0, "a", id_of(EPOCH, from));
	assert_string_equal(settled(f, 0), expected);
	assert_int_equal(metric_get(&f->w.metrics, NM_REPLAY_PAGES, 0), 3);
}

static void test_replay_claims_that_fail(void **state)
{
	struct fixture *f = *state;
	struct {
		const char *claim, *seen;
	} cases[] = {
		{strdup(id_of(EPOCH - 1, 5)), "gap:epoch ready "},
		{strdup(id_of(EPOCH, 99)), "gap:unknown ready "},
		{strdup(id_of(EPOCH + 1, 1)), "gap:unknown ready "},
		{strdup(id_of(EPOCH - 2 * 86400000ull, 0)), "gap:epoch ready "},
		{strdup("!!!"), "gap:malformed ready "},
		{strdup("17"), "gap:malformed ready "},
	};

	f->top.offset = 9;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		join(f, i, "a", cases[i].claim);
		assert_string_equal(settled(f, i), cases[i].seen);
		assert_string_equal(last_id, id_of(EPOCH, 9));
		free((char *)cases[i].claim);
	}
	assert_int_equal(metric_get(&f->w.metrics, NM_RESUME, RESUME_GAP), 6);
	deliver(f, "a", 10);
	for (unsigned i = 0; i < 6; i++)
		assert_string_equal(taken(f, i), "m10 ");
}

/* A client that was on a faster node is ahead of us: no double, no gap. */
static void test_replay_client_ahead(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 5;
	join(f, 1, "a", NULL);
	settled(f, 1);
	f->top.offset = 7;
	join(f, 0, "a", id_of(EPOCH, 7));
	turn(f);
	assert_string_equal(taken(f, 0), "");
	assert_string_equal(settled(f, 0), "ready ");
	assert_string_equal(last_id, id_of(EPOCH, 7));
	deliver(f, "a", 6);
	deliver(f, "a", 7);
	deliver(f, "a", 8);
	assert_string_equal(taken(f, 0), "m8 ");
}

static void test_replay_expired(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	f->first = 8;
	join(f, 0, "a", id_of(EPOCH, 4));
	assert_string_equal(settled(f, 0), "ready gap:expired m8 m9 ");
	/* Nothing is left at all. */
	f->first = 10;
	leave(&f->sessions[0]);
	join(f, 1, "b", NULL);
	settled(f, 1);
	join(f, 2, "a", id_of(EPOCH, 2));
	assert_string_equal(settled(f, 2), "ready gap:expired ");
	assert_string_equal(last_id, id_of(EPOCH, 2));
	deliver(f, "a", 10);
	assert_string_equal(taken(f, 2), "m10 ");
}

static void test_replay_before_the_first(void **state)
{
	struct fixture *f = *state;

	/* No log: the place is the clock's. */
	join(f, 0, "a", NULL);
	assert_string_equal(settled(f, 0), "ready ");
	assert_string_equal(last_id, id_of(EPOCH, 0));
	/* The log is made, and the client was away. */
	leave(&f->sessions[0]);
	f->top = (struct place){EPOCH + 50, 2};
	join(f, 1, "a", id_of(EPOCH, 0));
	assert_string_equal(settled(f, 1), "ready m1 m2 ");
}

static void test_replay_latest(void **state)
{
	struct fixture *f = *state;

	match_all.history_latest = 3;
	f->top.offset = 9;
	join(f, 0, "a", NULL);
	assert_string_equal(settled(f, 0), "ready m7 m8 m9 ");
	/* Fewer are left: no gap, for it has missed nothing. */
	f->first = 9;
	join(f, 1, "b", NULL);
	assert_string_equal(settled(f, 1), "ready m9 ");
	/* A client that comes back gets what it missed instead. */
	join(f, 2, "a", id_of(EPOCH, 9));
	assert_string_equal(settled(f, 2), "ready ");
}

/* With several channels each event has an id of its own, over all of them. */
static void test_replay_several_channels(void **state)
{
	struct fixture *f = *state;
	char id[128];

	f->top.offset = 2;
	join(f, 0, "a b", NULL);
	assert_string_equal(settled(f, 0), "ready ");
	deliver(f, "a", 3);
	deliver(f, "b", 3);
	deliver(f, "a", 4);
	assert_string_equal(taken(f, 0), "m3 m3 m4 ");
	strcpy(id, last_id);
	leave(&f->sessions[0]);
	f->top.offset = 5;
	join(f, 1, "a b", id);
	assert_string_equal(settled(f, 1), "ready m5 m4 m5 ");
	/* It is not valid for another list. */
	join(f, 2, "b a", id);
	assert_string_equal(settled(f, 2),
			    "gap:malformed gap:malformed ready ");
}

/* The store has lost its tail. */
static void test_replay_rewound(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 9;
	join(f, 0, "a", NULL);
	settled(f, 0);
	f->top.offset = 7;
	logs_resync(&f->w.logs);
	assert_string_equal(settled(f, 0), "gap:rewound ");
	deliver(f, "a", 8);
	assert_string_equal(taken(f, 0), "m8 ");
	assert_string_equal(last_id, id_of(EPOCH, 8));
}

/* Memory: pages wait for one another, and all are served. */
static void test_replay_budget(void **state)
{
	struct fixture *f = *state;
	size_t most = 0;
	unsigned done = 0;

	f->options.replay_bytes_max = 4 * REPLAY_PAGE_BYTES;
	f->top.offset = 100;
	for (unsigned i = 0; i < SESSIONS; i++) {
		char name[16];
		struct place place = {EPOCH, 0};
		char id[PLACE_ID_SIZE(1)];

		sprintf(name, "c%u", i);
		place_encode(id, place_list_hash(&(const char *){name}, 1),
			     &place, 1);
		join(f, i, name, id);
	}
	for (unsigned n = 0; n < 10000 && done < SESSIONS; n++) {
		turn(f);
		for (unsigned k = 0; k < f->asked_count; k++)
			check(f->asked[k] != NULL);
		answer(f);
		most = max_of(most, f->w.replays.page_bytes +
					    f->w.replays.queued_bytes);
		done = 0;
		for (unsigned i = 0; i < SESSIONS; i++) {
			taken(f, i);
			done += f->sessions[i].ready &&
				f->sessions[i].replays == 0;
		}
	}
	assert_int_equal(done, SESSIONS);
	assert_in_range(most, 1, 4 * REPLAY_PAGE_BYTES);
	assert_int_equal(metric_get(&f->w.metrics, NM_REPLAYED, 0),
			 100 * SESSIONS);
}

static void test_replay_leaves_nothing_behind(void **state)
{
	struct fixture *f = *state;

	f->top.offset = 50;
	for (unsigned i = 0; i < 8; i++)
		join(f, i, "a", id_of(EPOCH, i));
	turn(f); /* places are asked for */
	leave(&f->sessions[0]);
	answer(f);
	turn(f); /* pages are asked for */
	leave(&f->sessions[1]);
	answer(f);
	turn(f); /* and given */
	leave(&f->sessions[2]);
	turn(f);
	for (unsigned i = 3; i < 8; i++)
		leave(&f->sessions[i]);
	assert_int_equal(f->w.replays.count, 0);
	assert_int_equal(f->w.replays.queued_bytes, 0);
	assert_int_equal(f->w.replays.page_bytes, 0);
}

/* New rules: the channel gains and loses its history under its subscribers. */
static void test_replay_rules_change(void **state)
{
	struct fixture *f = *state;

	match_all.history_size = 0;
	join(f, 0, "a", NULL);
	assert_string_equal(settled(f, 0), "ready ");
	deliver(f, "a", 0);
	assert_string_equal(taken(f, 0), "m0 ");
	match_all.history_size = 10;
	f->top.offset = 4;
	intake_apply_rules(&f->w);
	assert_string_equal(settled(f, 0), "");
	deliver(f, "a", 5);
	assert_string_equal(taken(f, 0), "m5 ");
	assert_string_equal(last_id, id_of(EPOCH, 5));
	match_all.history_size = 0;
	intake_apply_rules(&f->w);
	deliver(f, "a", 0);
	assert_string_equal(taken(f, 0), "m0 ");
}

/* --- slow readers ------------------------------------------------------ */

/* The session's socket takes no more, until it is unblocked. */
static void block(struct fixture *f, unsigned i, bool blocked)
{
	static uv_write_t pending;

	f->sessions[i].blocked = blocked ? &pending : NULL;
}

static void deliver_keyed(struct fixture *f, uint64_t offset, const char *key)
{
	LinkDelivery d;
	char data[24];

	fill(&d, data, f->top.epoch, offset);
	d.channel = (char *)"a";
	d.conflation_key = (char *)key;
	intake_deliveries(&f->w, &(LinkDelivery *){&d}, 1);
}

static void test_lagging_drop_oldest_tells(void **state)
{
	struct fixture *f = *state;

	match_all.lagging = LAGGING_DROP_OLDEST;
	f->options.queue_bytes_max = 600;
	join(f, 0, "a", NULL);
	settled(f, 0);
	block(f, 0, true);
	for (uint64_t i = 1; i <= 20; i++)
		deliver(f, "a", i);
	assert_in_range(f->sessions[0].out.bytes, 1, 600 + 200);
	block(f, 0, false);
	/* The first was with the kernel. What follows the gap is whole. */
	assert_non_null(strstr(taken(f, 0), "m1 gap:lagging m"));
	assert_string_equal(last_id, id_of(EPOCH, 20));
	assert_false(f->sessions[0].doomed);
}

static void test_lagging_conflate(void **state)
{
	struct fixture *f = *state;

	match_all.lagging = LAGGING_CONFLATE;
	join(f, 0, "a", NULL);
	settled(f, 0);
	deliver_keyed(f, 1, "score");
	deliver_keyed(f, 2, "score");
	/* It keeps up: it gets all. */
	assert_string_equal(taken(f, 0), "m1 m2 ");
	block(f, 0, true);
	for (uint64_t i = 3; i <= 22; i++)
		deliver_keyed(f, i, i % 2 ? "score" : "time");
	deliver(f, "a", 23);
	block(f, 0, false);
	assert_string_equal(taken(f, 0), "m3 m21 m22 m23 ");
	assert_string_equal(last_id, id_of(EPOCH, 23));
	assert_int_equal(
		metric_get(&f->w.metrics, NM_DROPPED,
			   PRIORITY_NORMAL * DROP_REASONS + DROP_CONFLATED),
		17);
}

static void test_lagging_close(void **state)
{
	struct fixture *f = *state;

	f->options.queue_bytes_max = 600;
	join(f, 0, "a", NULL);
	join(f, 1, "a", NULL);
	settled(f, 0);
	taken(f, 1);
	block(f, 0, true);
	for (uint64_t i = 1; i <= 20; i++) {
		deliver(f, "a", i);
		taken(f, 1);
	}
	assert_true(f->sessions[0].doomed);
	assert_false(f->sessions[1].doomed);
	list_remove(&f->sessions[0].in_dirty);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_replay_fresh_is_live),
		TEST(test_replay_resumes),
		TEST(test_replay_then_live_in_order),
		TEST(test_replay_many_pages),
		TEST(test_replay_claims_that_fail),
		TEST(test_replay_client_ahead),
		TEST(test_replay_expired),
		TEST(test_replay_before_the_first),
		TEST(test_replay_latest),
		TEST(test_replay_several_channels),
		TEST(test_replay_rewound),
		TEST(test_replay_budget),
		TEST(test_replay_leaves_nothing_behind),
		TEST(test_replay_rules_change),
		TEST(test_lagging_drop_oldest_tells),
		TEST(test_lagging_conflate),
		TEST(test_lagging_close),
	};

	return cmocka_run_group_tests_name("replay", tests, NULL, NULL);
}

/* replay_fixture.h - resume and replay with real sessions that have no socket,
 * real logs and questions, and a store that is played by the test: it sees each
 * question and answers it when it likes. */
#ifndef STENTOR_TESTS_REPLAY_FIXTURE_H
#define STENTOR_TESTS_REPLAY_FIXTURE_H

#include "connnode/stream/replay.h"

#include "common/base/mem.h"
#include "common/codec/sse.h"
#include "connnode/intake.h"
#include "connnode/stream/request.h"
#include "connnode/stream/session.h"
#include "connnode/stream/stream.h"
#include "connnode/turn.h"
#include "connnode/worker.h"
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
	struct upstream *link; /* to the only dispatcher */
	/* The log of every channel. */
	struct place top;
	uint64_t first;
	struct place eras[8]; /* until one of epoch 0 */
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

/* The log's place in an answer. */
struct told {
	LinkPlace place;
	Stentor__Link__V1__Era era[8], *eras[8];
};

static void tell(const struct fixture *f, struct told *t)
{
	stentor__link__v1__place__init(&t->place);
	t->place.epoch = f->top.epoch;
	t->place.offset = f->top.offset;
	t->place.eras = t->eras;
	for (size_t i = 0; f->eras[i].epoch != 0; i++) {
		stentor__link__v1__era__init(&t->era[i]);
		t->era[i].epoch = f->eras[i].epoch;
		t->era[i].offset = f->eras[i].offset;
		t->eras[t->place.n_eras++] = &t->era[i];
	}
}

static void answer_tops(struct fixture *f, const TopsQuery *q)
{
	TopsAnswer a = STENTOR__LINK__V1__TOPS_ANSWER__INIT;
	LinkPlace *places[LOGS_TOPS];
	struct told told;

	check(q->n_channels <= LOGS_TOPS);
	tell(f, &told);
	for (size_t i = 0; i < q->n_channels; i++)
		places[i] = &told.place;
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
	struct told told;
	LinkDelivery d[PAGE_MESSAGES], *messages[PAGE_MESSAGES];
	char data[PAGE_MESSAGES][24];
	uint64_t offset = max_of(q->after + 1, f->first);

	tell(f, &told);
	a.id = q->id;
	a.top = &told.place;
	a.first = f->first;
	a.messages = messages;
	for (; q->epoch == f->top.epoch && offset <= f->top.offset &&
	       a.n_messages < min_of(q->messages_max, (uint32_t)PAGE_MESSAGES);
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

/* The rules from now on; intake_apply_rules() is the caller's. */
static UNUSED void set_history(struct fixture *f, uint32_t size)
{
	static struct rule next[16];
	static unsigned used;
	struct rule *r = &next[used++ % array_len(next)];

	*r = *f->rules.rule;
	r->history_size = size;
	f->rules.rule = r;
}

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
		.replay_bytes_max = 1u << 20,
		.hold_bytes_max = 1u << 20,
		.sweep_ms = 30000,
		.channels_max = CHANNELS_MAX,
	};
	assert_int_equal(uv_loop_init(&f->loop), 0);
	w->loop = &f->loop;
	w->options = &f->options;
	f->rules = (struct rules){.rule = &match_all, .count = 1};
	w->rules = &f->rules;
	metrics_init(&w->metrics, node_metrics, NM_COUNT, NULL);
	sessions_init(&w->sessions, w->loop);
	w->sessions.metrics = &w->metrics;
	w->sessions.ops = &request_ops;
	w->sessions.worker = w;
	w->sessions.limits = (struct sessions_limits){
		.heartbeat_ms = 15000,
		.queue_bytes_max = 256u << 10,
		.queue_burst_bytes = 256u << 10,
	};
	channels_init(&w->channels, w->rules);
	announcer_init(&w->announcer, &w->channels, &id, &no_ops, NULL);
	w->announcer.store = 1;
	f->link = announcer_add(&w->announcer, "tcp://d");
	f->link->phase = UPSTREAM_UP;
	f->link->knows_all = f->link->peers_known = true;
	intake_init(w);
	w->questions.ops = &ask_the_test;
	w->questions.ctx = f;
	arena_init(&f->arena, 64u << 20);
	for (unsigned i = 0; i < SESSIONS; i++) {
		struct session *s = &f->sessions[i];

		s->all = &w->sessions;
		list_init(&s->in_phase);
		list_init(&s->in_dirty);
		list_init(&s->in_waiting);
		list_init(&s->in_replays);
		wheel_timer_init(&s->timer);
		outq_init(&s->out);
		list_init(&s->in_backlog);
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
		list_remove(&s->in_phase);
		wheel_cancel(&s->timer);
		outq_fini(&s->out);
	}
	assert_int_equal(w->streams.replays.queued_bytes, 0);
	assert_int_equal(w->streams.replays.pages.bytes, 0);
	intake_fini(w);
	announcer_fini(&w->announcer);
	channels_fini(&w->channels);
	sessions_fini(&w->sessions);
	metrics_fini(&w->metrics, NULL);
	arena_fini(&f->arena);
	uv_loop_close(&f->loop);
	free(f);
	return 0;
}

/* One turn of the worker's loop, without the sockets. */
static void turn(struct fixture *f)
{
	struct worker *w = &f->w;

	f->loop.time += 5; /* ms */
	streams_ready(&w->streams, TURN_BUDGET);
	replays_run(&w->streams.replays, TURN_BUDGET, worker_now(w));
	logs_run(&w->logs, worker_now(w));
	do
		fanout_run(&w->fanout, TURN_BUDGET);
	while (fanout_pending(&w->fanout));
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
static void deliver_at(struct fixture *f, const char *channel, uint64_t epoch,
		       uint64_t offset)
{
	LinkDelivery d;
	char data[24];

	fill(&d, data, epoch, offset);
	d.channel = (char *)channel;
	intake_deliveries(&f->w, &(LinkDelivery *){&d}, 1);
}

static UNUSED void deliver(struct fixture *f, const char *channel,
			   uint64_t offset)
{
	deliver_at(f, channel, f->top.epoch, offset);
}

/* --- what a client saw ------------------------------------------------- */

static char last_id[128];
/* Of the last gap; and the id of the one before. */
static char gap_id[128], last_gap[512], gap_id_before[128];

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
				"\"reason\":\"%15[^\"]", reason) == 1) {
			memcpy(gap_id_before, gap_id, sizeof(gap_id));
			snprintf(gap_id, sizeof(gap_id), "%s", last_id);
			snprintf(last_gap, sizeof(last_gap), "%.*s",
				 (int)len - 6, line + 6);
			sprintf(end, "gap:%s ", reason);
		} else
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
		session_requeued(s, s->out.bytes + left);
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
		replay_drained(&f->w.streams.replays, s);
	return seen;
}

/* Turns and answers until nothing more happens for the session. */
static UNUSED const char *settled(struct fixture *f, unsigned i)
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

static UNUSED const char *id_of(uint64_t epoch, uint64_t offset)
{
	static char id[PLACE_ID_SIZE(1)];
	struct place place = {epoch, offset};

	place_encode(id, place_list_hash(&(const char *){"a"}, 1), &place, 1);
	return id;
}

/* The session's socket takes no more, until it is unblocked. */
static UNUSED void block(struct fixture *f, unsigned i, bool blocked)
{
	static uv_write_t pending;

	f->sessions[i].blocked = blocked ? &pending : NULL;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif

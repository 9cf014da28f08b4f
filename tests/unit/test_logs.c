#include "connnode/logs.h"

#include "common/base/mem.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELD_MAX 4000
#define SWEEP_MS 10000
#define TTL_MS	 5000
#define E	 100000 /* an epoch */

static struct rule match_all = {
	.pattern = "*", .history_size = 10, .history_ttl_ms = TTL_MS};
static const struct rules rules = {.rule = &match_all, .count = 1};

/* A worker's logs, and what they did: "p" passed on, "k" known, "m" moved to,
 * each with the position less E; of channel "a" unless another is named. */
struct fixture {
	struct channels channels;
	struct questions questions;
	struct logs logs;
	struct channel *a;
	struct arena arena;
	char events[20000];
	char data[100]; /* of the last message passed on */
	unsigned tops_asked, histories_asked;
	uint64_t tops_id, history_id;
	size_t tops_count;
	char tops_channel[20], history_channel[20];
	uint64_t epoch, after, messages_max;
	uint64_t now_ms;
};

static void note(struct fixture *f, const char *format, struct place at,
		 const struct channel *ch, int reason)
{
	size_t len = strlen(f->events);

	assert_true(len < sizeof(f->events) - 50);
	if (ch != f->a)
		len += (size_t)sprintf(f->events + len, "%s:", ch->name);
	len += (size_t)sprintf(f->events + len, format, (int)(at.epoch - E),
			       (int)at.offset);
	if (reason >= 0)
		len += (size_t)sprintf(f->events + len, "!%s",
				       gap_names[reason]);
	strcpy(f->events + len, " ");
}

static void on_pass(void *ctx, struct channel *ch, const LinkDelivery *d)
{
	struct fixture *f = ctx;

	assert_string_equal(d->channel, ch->name);
	assert_int_equal(d->epoch, ch->log->place.epoch);
	assert_int_equal(d->offset, ch->log->place.offset + 1);
	snprintf(f->data, sizeof(f->data), "%.*s %s %s", (int)d->data.len,
		 d->data.data, d->event, d->conflation_key);
	note(f, "p%d:%d", (struct place){d->epoch, d->offset}, ch, -1);
}

static void on_known(void *ctx, struct channel *ch)
{
	note(ctx, "k%d:%d", ch->log->place, ch, -1);
}

static void on_moved(void *ctx, struct channel *ch, struct place to, int reason)
{
	note(ctx, "m%d:%d", to, ch, reason);
}

static const struct logs_ops logs_ops = {
	.pass = on_pass, .known = on_known, .moved = on_moved};

static const struct upstream *on_send(void *ctx, struct frame *control,
				      const struct upstream *except UNUSED)
{
	struct fixture *f = ctx;
	LinkFrame *frame =
		link_frame_decode(&f->arena, control->bytes, control->len);

	assert_non_null(frame);
	for (size_t i = 0; i < frame->n_tops_queries; i++) {
		const TopsQuery *q = frame->tops_queries[i];

		f->tops_asked++;
		f->tops_id = q->id;
		f->tops_count = q->n_channels;
		strcpy(f->tops_channel, q->channels[0]);
	}
	for (size_t i = 0; i < frame->n_history_queries; i++) {
		const HistoryQuery *q = frame->history_queries[i];

		f->histories_asked++;
		f->history_id = q->id;
		strcpy(f->history_channel, q->channel);
		f->epoch = q->epoch - E;
		f->after = q->after;
		f->messages_max = q->messages_max;
		assert_true(q->bytes_max > 0);
	}
	arena_reset(&f->arena);
	return (const struct upstream *)f;
}

static const struct questions_ops questions_ops = {.send = on_send};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	channels_init(&f->channels, &rules);
	arena_init(&f->arena, LINK_DECODED_MAX);
	questions_init(&f->questions, &questions_ops, f);
	logs_init(&f->logs, &f->questions, &logs_ops, f, HELD_MAX, SWEEP_MS);
	f->now_ms = 1000;
	f->a = channels_get(&f->channels, "a", 1);
	logs_run(&f->logs, f->now_ms); /* the first sweep is over */
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	if (f->a->log != NULL)
		logs_close(&f->logs, f->a);
	assert_int_equal(f->logs.held_bytes, 0);
	channels_forget(&f->channels, f->a);
	logs_fini(&f->logs);
	questions_fini(&f->questions);
	arena_fini(&f->arena);
	channels_fini(&f->channels);
	free(f);
	return 0;
}

static void turn(struct fixture *f, uint64_t ms)
{
	f->now_ms += ms;
	logs_run(&f->logs, f->now_ms);
	questions_run(&f->questions, f->now_ms);
}

static void deliver_data(struct fixture *f, uint64_t epoch, uint64_t offset,
			 char *data)
{
	LinkDelivery d = STENTOR__LINK__V1__DELIVERY__INIT;

	d.channel = (char *)"a";
	d.event = (char *)"goal";
	d.conflation_key = (char *)"key";
	d.data.data = (uint8_t *)data;
	d.data.len = strlen(data);
	d.epoch = epoch + E;
	d.offset = offset;
	logs_deliver(&f->logs, f->a, &d, f->now_ms);
}

static void deliver(struct fixture *f, uint64_t epoch, uint64_t offset)
{
	char data[20] = "x";

	deliver_data(f, epoch, offset, data);
	/* Whatever is kept must be a copy. */
	strcpy(data, "?????");
}

static void answer_tops(struct fixture *f, uint64_t epoch, uint64_t offset)
{
	TopsAnswer answer = STENTOR__LINK__V1__TOPS_ANSWER__INIT;
	Stentor__Link__V1__Place top = STENTOR__LINK__V1__PLACE__INIT;
	Stentor__Link__V1__Place *tops[LOGS_TOPS];

	top.epoch = epoch + E;
	top.offset = offset;
	for (size_t i = 0; i < f->tops_count; i++)
		tops[i] = &top;
	answer.id = f->tops_id;
	answer.tops = tops;
	answer.n_tops = f->tops_count;
	questions_tops(&f->questions, &answer, f->now_ms);
}

/* Messages from..to of the log `epoch`, which reaches to `top`. */
static void answer_history(struct fixture *f, uint64_t epoch, uint64_t top,
			   uint64_t first, uint64_t from, uint64_t to)
{
	HistoryAnswer answer = STENTOR__LINK__V1__HISTORY_ANSWER__INIT;
	Stentor__Link__V1__Place place = STENTOR__LINK__V1__PLACE__INIT;
	LinkDelivery messages[LOGS_FETCH], *list[LOGS_FETCH];

	place.epoch = epoch + E;
	place.offset = top;
	answer.id = f->history_id;
	answer.top = &place;
	answer.first = first;
	for (uint64_t i = from; i <= to; i++) {
		LinkDelivery *d = &messages[answer.n_messages];

		stentor__link__v1__delivery__init(d);
		d->epoch = epoch + E;
		d->offset = i;
		list[answer.n_messages++] = d;
	}
	answer.messages = list;
	questions_history(&f->questions, &answer, f->now_ms);
}

#define expect(f, text)                                 \
	do {                                            \
		assert_string_equal((f)->events, text); \
		(f)->events[0] = '\0';                  \
	} while (0)

/* The log of "a" is open and at (epoch, offset). */
static void follow(struct fixture *f, uint64_t epoch, uint64_t offset)
{
	logs_open(&f->logs, f->a);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	answer_tops(f, epoch, offset);
	f->events[0] = '\0';
	f->tops_asked = 0;
}

/* --- in order ---------------------------------------------------------- */

static void test_logs_becomes_known(void **state)
{
	struct fixture *f = *state;

	logs_open(&f->logs, f->a);
	turn(f, 0);
	logs_resync(&f->logs);
	turn(f, SWEEP_MS);
	assert_int_equal(f->tops_asked, 0); /* not announced */
	deliver(f, 0, 6);
	deliver(f, 0, 4);
	deliver(f, 0, 5);
	deliver(f, 0, 5);
	expect(f, "");
	logs_announced(&f->logs, f->a);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 1);
	assert_string_equal(f->tops_channel, "a");
	answer_tops(f, 0, 4);
	expect(f, "k0:4 p0:5 p0:6 ");
	assert_true(f->a->log->known);
	assert_int_equal(f->logs.held_bytes, 0);
	deliver(f, 0, 7);
	expect(f, "p0:7 ");
	assert_false(logs_waiting(&f->logs));
}

static void test_logs_early_deliveries(void **state)
{
	struct fixture *f = *state;
	struct log *log = logs_open(&f->logs, f->a);

	/* Of a log that is younger than the top. */
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	deliver(f, 1, 9);
	deliver(f, 5, 1);
	deliver(f, 3, 2);
	answer_tops(f, 2, 0);
	expect(f, "k2:0 m5:0 p5:1 ");
	logs_close(&f->logs, f->a);

	/* Of one that is older. */
	log = logs_open(&f->logs, f->a);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	deliver(f, 1, 9);
	answer_tops(f, 2, 1);
	expect(f, "k2:1 ");
	assert_int_equal(log->held_bytes, 0);
	deliver(f, 2, 2);
	expect(f, "p2:2 ");
	logs_close(&f->logs, f->a);

	/* So many that they were let go: fetched. */
	log = logs_open(&f->logs, f->a);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	for (unsigned i = 8; i < 100; i++)
		deliver(f, 0, i);
	assert_true(log->held_bytes < HELD_MAX);
	assert_true(f->logs.counters.held_dropped > 0);
	answer_tops(f, 0, 7);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 1);
	assert_int_equal(f->after, 7);
}

static void test_logs_doubles(void **state)
{
	struct fixture *f = *state;

	follow(f, 3, 5);
	deliver(f, 3, 5);
	deliver(f, 3, 1);
	deliver(f, 2, 6);
	expect(f, "");
	assert_int_equal(f->logs.counters.doubles, 3);
	deliver(f, 3, 6);
	expect(f, "p3:6 ");
	assert_string_equal(f->data, "x goal key");
	assert_int_equal(f->a->log->place.offset, 6);
}

/* Links overtake one another: nothing is fetched for that. */
static void test_logs_overtaking(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 0);
	deliver(f, 0, 3);
	deliver(f, 0, 3);
	assert_true(logs_waiting(&f->logs));
	assert_int_equal(f->logs.counters.doubles, 1);
	turn(f, LOGS_HOLE_MS - 1);
	deliver(f, 0, 5);
	deliver(f, 0, 2);
	expect(f, "");
	deliver(f, 0, 1);
	expect(f, "p0:1 p0:2 p0:3 ");
	assert_string_equal(f->data, "x goal key");
	/* A hole that came up since has its own time. */
	turn(f, LOGS_HOLE_MS - 1);
	assert_int_equal(f->histories_asked, 0);
	deliver(f, 0, 4);
	expect(f, "p0:4 p0:5 ");
	turn(f, 10 * LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 0);
	assert_false(logs_waiting(&f->logs));
	assert_int_equal(f->logs.counters.holes, 1);
}

/* --- holes ------------------------------------------------------------- */

static void test_logs_fetches_a_hole(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 2);
	deliver(f, 0, 6);
	turn(f, LOGS_HOLE_MS);
	assert_false(logs_waiting(&f->logs));
	assert_int_equal(f->histories_asked, 1);
	assert_string_equal(f->history_channel, "a");
	assert_int_equal(f->epoch, 0);
	assert_int_equal(f->after, 2);
	assert_int_equal(f->messages_max, 3); /* no more than what lacks */
	/* While it is under way one comes late, others are held. */
	deliver(f, 0, 3);
	deliver(f, 0, 8);
	deliver(f, 0, 7);
	turn(f, 5 * LOGS_HOLE_MS);
	expect(f, "p0:3 ");
	assert_int_equal(f->histories_asked, 1);
	answer_history(f, 0, 6, 1, 3, 5);
	expect(f, "p0:4 p0:5 p0:6 p0:7 p0:8 ");
	assert_int_equal(f->logs.counters.fetched, 2);
	turn(f, 5 * LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 1);
}

/* The hole is filled before the answer: that is ignored. */
static void test_logs_fetch_is_overtaken(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 2);
	deliver(f, 0, 4);
	turn(f, LOGS_HOLE_MS);
	deliver(f, 0, 3);
	expect(f, "p0:3 p0:4 ");
	answer_history(f, 0, 4, 1, 3, 3);
	expect(f, "");
}

static void test_logs_fetches_in_steps(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 0);
	logs_resync(&f->logs);
	turn(f, 0);
	answer_tops(f, 0, 600);
	assert_int_equal(f->logs.counters.behind, 1);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->messages_max, LOGS_FETCH);
	answer_history(f, 0, 600, 1, 1, 2);
	expect(f, "p0:1 p0:2 ");
	turn(f, 0); /* at once */
	assert_int_equal(f->histories_asked, 2);
	assert_int_equal(f->after, 2);
	answer_history(f, 0, 600, 1, 3, 3);
	deliver(f, 0, 4);
	turn(f, 0);
	assert_int_equal(f->after, 3);
	expect(f, "p0:3 p0:4 ");
	answer_history(f, 0, 600, 1, 4, 5); /* one of them a double */
	expect(f, "p0:5 ");
}

/* Held deliveries are let go when they are too many: fetched later. */
static void test_logs_held_memory_is_bounded(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 0);
	for (unsigned i = 2; i < 100; i++) {
		deliver(f, 0, i);
		assert_true(f->logs.held_bytes <= HELD_MAX);
	}
	assert_true(f->logs.counters.held_dropped > 0);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 99, 1, 1, 99);
	assert_int_equal(f->a->log->place.offset, 99);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 1);
}

/* One delivery is larger than all that may be held. */
static void test_logs_held_too_large(void **state)
{
	struct fixture *f = *state;
	static char data[HELD_MAX + 1];

	memset(data, 'x', HELD_MAX);
	follow(f, 0, 0);
	deliver_data(f, 0, 2, data);
	assert_int_equal(f->logs.held_bytes, 0);
	deliver(f, 0, 1);
	expect(f, "p0:1 ");
	turn(f, LOGS_HOLE_MS);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 1);
	answer_history(f, 0, 2, 1, 2, 2);
	expect(f, "p0:2 ");
}

/* What the store has no more is told, but what is held of it is passed on. */
static void test_logs_expired(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 2);
	deliver(f, 0, 5);
	deliver(f, 0, 9);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 9, 8, 8, 9);
	expect(f, "m0:4!expired p0:5 m0:7!expired p0:8 p0:9 ");

	/* None is left, or less than is said. */
	deliver(f, 0, 12);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 12, 13, 1, 0);
	expect(f, "m0:11!expired p0:12 ");
	logs_resync(&f->logs);
	turn(f, 0);
	answer_tops(f, 0, 15);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 15, 13, 1, 0);
	expect(f, "m0:15!expired ");
	deliver(f, 0, 19);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 19, 1, 17, 18);
	expect(f, "m0:16!expired p0:17 p0:18 p0:19 ");
}

/* --- other logs -------------------------------------------------------- */

static void test_logs_new_epoch(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	deliver(f, 2, 1); /* the older one was read to its end */
	expect(f, "m2:0 p2:1 ");
	deliver(f, 1, 6);
	expect(f, "");
	deliver(f, 4, 3); /* the new one's beginning is lacking */
	expect(f, "m4:0 ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->epoch, 4);
	assert_int_equal(f->after, 0);
	answer_history(f, 4, 3, 1, 1, 2);
	expect(f, "p4:1 p4:2 p4:3 ");
	deliver(f, 4, 6); /* it ends with a hole */
	deliver(f, 5, 1);
	expect(f, "m5:0!epoch p5:1 ");
	assert_int_equal(f->logs.held_bytes, 0);
	logs_resync(&f->logs); /* we may have missed its last */
	deliver(f, 6, 1);
	expect(f, "m6:0!epoch p6:1 ");
}

static void test_logs_absent(void **state)
{
	struct fixture *f = *state;

	follow(f, 10, 0);
	deliver(f, 12, 1);
	expect(f, "m12:0 p12:1 ");
	logs_close(&f->logs, f->a);
	follow(f, 10, 0);
	deliver(f, 10, 1); /* made in the same millisecond */
	expect(f, "p10:1 ");

	/* Expired; what we read to its end is no gap. */
	f->now_ms += SWEEP_MS;
	turn(f, 0);
	answer_tops(f, 20, 0);
	expect(f, "m20:0 ");
	/* A link was lost: no log has come and gone in so short a time, */
	logs_resync(&f->logs);
	deliver(f, 21 + TTL_MS / 2, 1);
	expect(f, "m2521:0 p2521:1 ");
	logs_close(&f->logs, f->a);
	/* but in so long a time perhaps. */
	follow(f, 10, 0);
	logs_resync(&f->logs);
	deliver(f, 10 + TTL_MS, 1);
	expect(f, "m5010:0!epoch p5010:1 ");
}

/* The clock of the store was set back. */
static void test_logs_absent_and_older(void **state)
{
	struct fixture *f = *state;

	follow(f, 10, 0);
	logs_resync(&f->logs);
	turn(f, 0);
	answer_tops(f, 5, 0);
	expect(f, "m5:0 ");
	deliver(f, 6, 1);
	expect(f, "m6:0 p6:1 ");
}

/* The log is another one when the hole is fetched. */
static void test_logs_fetch_finds_another_log(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 5);
	deliver(f, 1, 8);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 3, 2, 1, 1, 0);
	expect(f, "m3:0!epoch ");
	assert_int_equal(f->logs.held_bytes, 0);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->epoch, 3);
	answer_history(f, 3, 2, 1, 1, 2);
	expect(f, "p3:1 p3:2 ");
	/* It is gone, and nothing is there. */
	deliver(f, 3, 4);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 9, 0, 1, 1, 0);
	expect(f, "m9:0!epoch ");
	turn(f, LOGS_HOLE_MS);
	assert_false(logs_waiting(&f->logs));
}

/* --- tops -------------------------------------------------------------- */

static void test_logs_resync_finds_the_tail(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 3);
	logs_resync(&f->logs);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 1);
	/* Once more while it is under way: it may have been read before. */
	logs_resync(&f->logs);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 1);
	answer_tops(f, 0, 3);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 2);
	answer_tops(f, 0, 5);
	expect(f, "");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 3);
	answer_history(f, 0, 5, 1, 4, 5);
	expect(f, "p0:4 p0:5 ");
	turn(f, 0);
	assert_int_equal(f->tops_asked, 2);
}

/* Of what a link might have lost, `doubt` is for the answer that was asked
 * after it. */
static void test_logs_doubt_ends_with_the_right_answer(void **state)
{
	struct fixture *f = *state;

	follow(f, 1, 3);
	f->now_ms += SWEEP_MS;
	turn(f, 0);
	logs_resync(&f->logs);
	answer_tops(f, 1, 3); /* of the sweep */
	turn(f, 0);
	assert_int_equal(f->tops_asked, 2);
	deliver(f, 2, 1);
	expect(f, "m2:0!epoch p2:1 ");
	answer_tops(f, 1, 3); /* read before that */
	expect(f, "");
	deliver(f, 3, 1);
	expect(f, "m3:0 p3:1 ");
}

static void test_logs_rewound(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 10);
	logs_resync(&f->logs);
	turn(f, 0);
	deliver(f, 0, 11);
	deliver(f, 0, 12);
	expect(f, "p0:11 p0:12 ");
	answer_tops(f, 0, 10); /* read before those two: nothing is lost */
	expect(f, "");
	logs_resync(&f->logs);
	turn(f, 0);
	deliver(f, 0, 14);
	answer_tops(f, 0, 11);
	expect(f, "m0:11!rewound ");
	assert_int_equal(f->logs.counters.rewinds, 1);
	assert_int_equal(f->logs.held_bytes, 0);
	deliver(f, 0, 12);
	expect(f, "p0:12 ");
	turn(f, 0); /* it was asked at once what there is now */
	assert_int_equal(f->tops_asked, 3);
	answer_tops(f, 0, 13);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->after, 12);
	answer_history(f, 0, 13, 1, 13, 13);
	expect(f, "p0:13 ");

	/* The whole log. */
	logs_resync(&f->logs);
	turn(f, 0);
	answer_tops(f, -5, 2);
	expect(f, "m-5:2!rewound ");
	deliver(f, -5, 3);
	expect(f, "p-5:3 ");
}

/* A new log came while the top was asked for: what was read of the older is
 * no rewinding. */
static void test_logs_rewound_is_overtaken(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 10);
	logs_resync(&f->logs);
	turn(f, 0);
	deliver(f, 3, 1);
	expect(f, "m3:0!epoch p3:1 ");
	answer_tops(f, 0, 9);
	expect(f, "");
	deliver(f, 3, 2);
	expect(f, "p3:2 ");
}

/* The fetch finds the log shorter than what was held of it. */
static void test_logs_rewound_hole(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 10);
	deliver(f, 0, 15);
	turn(f, LOGS_HOLE_MS);
	deliver(f, 0, 17); /* may be real: it came after we asked */
	answer_history(f, 0, 12, 1, 11, 12);
	expect(f, "p0:11 p0:12 ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->tops_asked, 1);
	assert_int_equal(f->after, 12);
	assert_int_equal(f->messages_max, 4); /* 13 to 16: 15 is forgotten */
	answer_history(f, 0, 17, 1, 13, 16);
	expect(f, "p0:13 p0:14 p0:15 p0:16 p0:17 ");
	answer_tops(f, 0, 17);

	/* Shorter than what was passed on. */
	deliver(f, 0, 19);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 16, 1, 1, 0);
	expect(f, ""); /* it may have been read long ago */
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->tops_asked, 2);
	answer_tops(f, 0, 16);
	expect(f, "m0:16!rewound ");
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->tops_asked, 3);
	answer_tops(f, 0, 16);
	expect(f, "");
	assert_false(logs_waiting(&f->logs));
}

/* A client claims to be ahead: told when we are there. */
static void test_logs_ask(void **state)
{
	struct fixture *f = *state;

	follow(f, 0, 10);
	logs_ask(&f->logs, f->a);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 1);
	answer_tops(f, 0, 10);
	expect(f, "k0:10 ");
	logs_ask(&f->logs, f->a);
	turn(f, 0);
	logs_ask(&f->logs, f->a); /* it may have been read before this one */
	answer_tops(f, 0, 10);
	expect(f, "");
	turn(f, 0);
	answer_tops(f, 0, 12);
	expect(f, "");
	deliver(f, 0, 11);
	deliver(f, 0, 12);
	deliver(f, 0, 13);
	expect(f, "p0:11 p0:12 k0:12 p0:13 ");
	logs_ask(&f->logs, f->a);
	turn(f, 0);
	answer_tops(f, 0, 9);
	expect(f, "m0:9!rewound k0:9 ");
	logs_ask(&f->logs, f->a);
	turn(f, 0);
	answer_tops(f, 0, 20);
	deliver(f, 1, 1);
	expect(f, "m1:0!epoch p1:1 k1:1 ");
}

/* All are asked once in SWEEP_MS, LOGS_TOPS at a time. */
static void test_logs_sweep(void **state)
{
	struct fixture *f = *state;
	static struct channel *many[3 * LOGS_TOPS];
	char name[20];
	unsigned asked = 0, turns = 0;

	for (unsigned i = 0; i < array_len(many); i++) {
		snprintf(name, sizeof(name), "c%u", i);
		many[i] = channels_get(&f->channels, name, strlen(name));
		logs_open(&f->logs, many[i]);
		logs_announced(&f->logs, many[i]);
	}
	turn(f, 0);
	assert_int_equal(f->tops_asked, 3);
	for (unsigned i = 3; i > 0; i--) {
		f->tops_id = i;
		answer_tops(f, 0, 1);
	}
	for (unsigned i = 0; i < array_len(many); i++)
		assert_true(many[i]->log->known);
	f->tops_asked = 0;
	turn(f, SWEEP_MS);
	for (uint64_t end = f->now_ms + SWEEP_MS; f->now_ms < end; turns++) {
		assert_true(f->tops_asked <= 1);
		if (f->tops_asked == 1) {
			asked += (unsigned)f->tops_count;
			answer_tops(f, 0, 1);
		}
		f->tops_asked = 0;
		turn(f, 100);
	}
	assert_true(asked >= array_len(many));
	assert_true(asked <= 2 * array_len(many));
	for (unsigned i = 0; i < array_len(many); i++) {
		logs_close(&f->logs, many[i]);
		channels_forget(&f->channels, many[i]);
	}
}

/* A log that is closed while its top or a hole is asked for. */
static void test_logs_close(void **state)
{
	struct fixture *f = *state;
	struct channel *b = channels_get(&f->channels, "b", 1);

	logs_open(&f->logs, b);
	logs_announced(&f->logs, b);
	logs_open(&f->logs, f->a);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	assert_int_equal(f->tops_count, 2);
	logs_close(&f->logs, b);
	channels_forget(&f->channels, b);
	answer_tops(f, 0, 5);
	expect(f, "k0:5 ");
	deliver(f, 0, 7);
	turn(f, LOGS_HOLE_MS);
	logs_resync(&f->logs);
	turn(f, 0);
	logs_close(&f->logs, f->a);
	answer_history(f, 0, 7, 1, 6, 6);
	answer_tops(f, 0, 7);
	expect(f, "");
	logs_open(&f->logs, f->a);
	logs_announced(&f->logs, f->a);
	turn(f, 0); /* under way at the end: tear_down() */
}

/* --- nonsense ---------------------------------------------------------- */

static void test_logs_nonsense(void **state)
{
	struct fixture *f = *state;
	HistoryAnswer history = STENTOR__LINK__V1__HISTORY_ANSWER__INIT;
	TopsAnswer tops = STENTOR__LINK__V1__TOPS_ANSWER__INIT;

	follow(f, 0, 5);
	deliver(f, 0, 0);
	deliver(f, -(uint64_t)E, 7);
	assert_int_equal(f->logs.counters.malformed, 2);
	/* Nothing of the kind: one question, and it is forgotten. */
	deliver(f, 0, UINT64_MAX);
	deliver(f, 0, UINT64_MAX - 7);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->messages_max, LOGS_FETCH);
	answer_history(f, 0, 5, 6, 1, 0);
	expect(f, "");
	assert_int_equal(f->logs.held_bytes, 0);
	turn(f, LOGS_HOLE_MS);
	assert_int_equal(f->histories_asked, 1);
	answer_tops(f, 0, 5);

	/* An epoch that never was: told, and we are back. */
	deliver(f, 1000, 7);
	expect(f, "m1000:0 ");
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 5, 1, 1, 0);
	turn(f, 0);
	answer_tops(f, 0, 5);
	expect(f, "m0:5!rewound ");
	turn(f, 0);
	answer_tops(f, 0, 5);

	/* Answers without what was asked for: asked again. */
	deliver(f, 0, 7);
	turn(f, LOGS_HOLE_MS);
	history.id = f->history_id;
	questions_history(&f->questions, &history, f->now_ms);
	turn(f, LOGS_HOLE_MS);
	answer_history(f, 0, 7, UINT64_MAX, 1, 0);
	expect(f, "m0:6!expired p0:7 ");
	logs_resync(&f->logs);
	turn(f, 0);
	f->tops_asked = 0;
	tops.id = f->tops_id;
	questions_tops(&f->questions, &tops, f->now_ms);
	turn(f, 0);
	assert_int_equal(f->tops_asked, 0); /* by the sweep, not at once */
	turn(f, SWEEP_MS);
	assert_int_equal(f->tops_asked, 1);
	answer_tops(f, -(uint64_t)E, 0);
	expect(f, "");
	assert_int_equal(f->logs.counters.malformed, 5);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_logs_becomes_known),
		TEST(test_logs_early_deliveries),
		TEST(test_logs_doubles),
		TEST(test_logs_overtaking),
		TEST(test_logs_fetches_a_hole),
		TEST(test_logs_fetch_is_overtaken),
		TEST(test_logs_fetches_in_steps),
		TEST(test_logs_held_memory_is_bounded),
		TEST(test_logs_held_too_large),
		TEST(test_logs_expired),
		TEST(test_logs_new_epoch),
		TEST(test_logs_absent),
		TEST(test_logs_absent_and_older),
		TEST(test_logs_fetch_finds_another_log),
		TEST(test_logs_resync_finds_the_tail),
		TEST(test_logs_doubt_ends_with_the_right_answer),
		TEST(test_logs_rewound),
		TEST(test_logs_rewound_is_overtaken),
		TEST(test_logs_rewound_hole),
		TEST(test_logs_ask),
		TEST(test_logs_sweep),
		TEST(test_logs_close),
		TEST(test_logs_nonsense),
	};

	return cmocka_run_group_tests_name("logs", tests, NULL, NULL);
}

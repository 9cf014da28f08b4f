/* logs_fixture.h - a worker's logs, and a store and dispatchers played by the
 * test. */
#ifndef STENTOR_TESTS_LOGS_FIXTURE_H
#define STENTOR_TESTS_LOGS_FIXTURE_H

#include "connnode/channel/logs.h"

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

/* A worker's logs, and what they did: "p" passed on, "k" known, "s" skipped to,
 * "m" moved to, "l" lost, each with the position less E, and the gap that is
 * told (to a reader at the log's place): [first missing-last missing]; of
 * channel "a" unless another is named. */
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
	struct place known;   /* said of "a", the epoch less E; 0 stays 0 */
	size_t known_eras;    /* behind it */
	bool with_eras;	      /* in answers: */
	struct place eras[9]; /* until one of epoch 0 */
	bool apart;	      /* not linked to all */
	uint64_t now_ms;
};

static char *note_end(struct fixture *f)
{
	size_t len = strlen(f->events);

	assert_true(len < sizeof(f->events) - 100);
	return f->events + len;
}

static void note(struct fixture *f, char what, struct place at,
		 const struct channel *ch)
{
	if (ch != f->a)
		sprintf(note_end(f), "%s:", ch->name);
	sprintf(note_end(f), "%c%d:%d ", what, (int)(at.epoch - E),
		(int)at.offset);
}

static void note_gap(struct fixture *f, const struct gap *gap)
{
	if (gap->reason >= 0)
		sprintf(note_end(f) - 1, "!%s[%d:%d-%d:%d] ",
			gap_names[gap->reason], (int)(gap->from.epoch - E),
			(int)gap->from.offset, (int)(gap->to.epoch - E),
			(int)gap->to.offset);
}

static void on_pass(void *ctx, struct channel *ch, const LinkDelivery *d)
{
	struct fixture *f = ctx;

	assert_string_equal(d->channel, ch->name);
	assert_int_equal(d->epoch, ch->log->place.epoch);
	assert_int_equal(d->offset, ch->log->place.offset + 1);
	snprintf(f->data, sizeof(f->data), "%.*s %s %s", (int)d->data.len,
		 d->data.data, d->event, d->conflation_key);
	note(f, 'p', (struct place){d->epoch, d->offset}, ch);
}

static void on_known(void *ctx, struct channel *ch)
{
	note(ctx, 'k', ch->log->place, ch);
}

static void on_skipped(void *ctx, struct channel *ch, uint64_t to)
{
	note(ctx, 's', (struct place){ch->log->place.epoch, to}, ch);
}

static void on_moved(void *ctx, struct channel *ch, struct place to)
{
	struct place at = ch->log->place;
	struct gap gap;

	note(ctx, 'm', to, ch);
	assert_true(past_map(ch->log->past, &at, &gap));
	assert_memory_equal(&at, &to, sizeof(to));
	note_gap(ctx, &gap);
}

static void on_lost(void *ctx, struct channel *ch, const struct gap *gap)
{
	note(ctx, 'l', ch->log->place, ch);
	note_gap(ctx, gap);
}

static bool on_whole(void *ctx)
{
	return !((struct fixture *)ctx)->apart;
}

static const struct logs_ops logs_ops = {
	.pass = on_pass,
	.known = on_known,
	.skipped = on_skipped,
	.moved = on_moved,
	.lost = on_lost,
	.whole = on_whole,
};

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
		assert_int_equal(q->n_known, q->n_channels);
		f->known =
			(struct place){q->known[0]->epoch, q->known[0]->offset};
		if (f->known.epoch != 0)
			f->known.epoch -= E;
		f->known_eras = q->known[0]->n_eras;
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

/* The log's place in an answer, with the fixture's eras. */
struct told {
	LinkPlace place;
	Stentor__Link__V1__Era era[9], *eras[9];
};

static void tell(const struct fixture *f, struct told *t, uint64_t epoch,
		 uint64_t offset)
{
	stentor__link__v1__place__init(&t->place);
	t->place.epoch = epoch + E;
	t->place.offset = offset;
	t->place.eras = t->eras;
	for (size_t i = 0; f->with_eras && (i == 0 || f->eras[i].epoch != 0);
	     i++) {
		stentor__link__v1__era__init(&t->era[i]);
		t->era[i].epoch = f->eras[i].epoch + E;
		t->era[i].offset = f->eras[i].offset;
		t->eras[t->place.n_eras++] = &t->era[i];
	}
}

static void answer_tops(struct fixture *f, uint64_t epoch, uint64_t offset)
{
	TopsAnswer answer = STENTOR__LINK__V1__TOPS_ANSWER__INIT;
	LinkPlace *tops[LOGS_TOPS];
	struct told told;

	tell(f, &told, epoch, offset);
	for (size_t i = 0; i < f->tops_count; i++)
		tops[i] = &told.place;
	answer.id = f->tops_id;
	answer.tops = tops;
	answer.n_tops = f->tops_count;
	questions_tops(&f->questions, &answer, f->now_ms);
}

/* The same, of a log that was in other epochs before. */
static UNUSED void answer_era(struct fixture *f, uint64_t epoch,
			      uint64_t offset, uint64_t era, uint64_t base)
{
	f->eras[0] = (struct place){era, base};
	f->with_eras = true;
	answer_tops(f, epoch, offset);
	f->with_eras = false;
	memset(f->eras, 0, sizeof(f->eras));
}

/* Messages from..to of the log `epoch`, which reaches to `top`. */
static void answer_history(struct fixture *f, uint64_t epoch, uint64_t top,
			   uint64_t first, uint64_t from, uint64_t to)
{
	HistoryAnswer answer = STENTOR__LINK__V1__HISTORY_ANSWER__INIT;
	LinkDelivery messages[LOGS_FETCH], *list[LOGS_FETCH];
	struct told told;

	tell(f, &told, epoch, top);
	answer.id = f->history_id;
	answer.top = &told.place;
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
	logs_open(&f->logs, f->a, LOGS_SINCE_NOW);
	logs_announced(&f->logs, f->a);
	turn(f, 0);
	answer_tops(f, epoch, offset);
	f->events[0] = '\0';
	f->tops_asked = 0;
}

/* The top is asked for, and answered by a log that was in another epoch. */
static UNUSED void answered(struct fixture *f, uint64_t epoch, uint64_t offset,
			    uint64_t era, uint64_t base)
{
	unsigned before = f->tops_asked;

	turn(f, 0);
	assert_int_equal(f->tops_asked, before + 1);
	answer_era(f, epoch, offset, era, base);
}

/* The top is asked for, and answered by a log that is new. */
static UNUSED void answered_new(struct fixture *f, uint64_t epoch,
				uint64_t offset)
{
	unsigned before = f->tops_asked;

	turn(f, 0);
	assert_int_equal(f->tops_asked, before + 1);
	answer_tops(f, epoch, offset);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif

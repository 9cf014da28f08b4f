/* Fuzz target: what dispatchers send to a worker, beyond the frame itself:
 * deliveries with positions and answers to questions, into logs.c and
 * questions.c. The input is a series of frames (stentor.link.v1.Frame), each
 * behind two bytes of length (big endian); the length's top bits say how much
 * time passes before it and whether a link is lost.
 *
 * Nothing that a dispatcher sends may trip a check, pass on a message twice or
 * out of order, or hold more than the limit. */
#include "common/base/log.h"
#include "connnode/channel/logs.h"
#include "tests/fuzz/fuzz.h"

#define HELD_MAX 4000
#define SWEEP_MS 10000

static struct rule match_all = {
	.pattern = "*", .history_size = 10, .history_ttl_ms = 5000};
static const struct rules rules = {.rule = &match_all, .count = 1};
static const char *const names[] = {"a", "b", "c"};

struct intake {
	struct channels channels;
	struct questions questions;
	struct logs logs;
	struct subscription subscriptions[array_len(names)];
	struct arena arena;
	uint64_t now_ms;
	unsigned asked;
};

/* Each epoch's messages once, in order and without holes. */
static void on_pass(void *ctx UNUSED, struct channel *ch, const LinkDelivery *d)
{
	const struct log *log = ch->log;

	check(strcmp(d->channel, ch->name) == 0);
	check(d->epoch == log->place.epoch);
	check(d->offset == log->place.offset + 1);
}

static void on_known(void *ctx UNUSED, struct channel *ch)
{
	check(log_known(ch->log));
}

static void on_skipped(void *ctx UNUSED, struct channel *ch, uint64_t to)
{
	check(to > ch->log->place.offset);
}

static void on_moved(void *ctx UNUSED, struct channel *ch, struct place to)
{
	struct place at = ch->log->place;
	struct gap gap;

	check(to.epoch > at.epoch);
	check(past_map(ch->log->past, &at, &gap));
	check(at.epoch == to.epoch && at.offset == to.offset);
	check(gap.reason < GAP_REASONS);
}

static void on_lost(void *ctx UNUSED, struct channel *ch, const struct gap *gap)
{
	check(gap->from.epoch < ch->log->place.epoch);
}

static bool on_whole(void *ctx)
{
	return ((struct intake *)ctx)->asked % 3 != 0;
}

static const struct logs_ops logs_ops = {
	.pass = on_pass,
	.known = on_known,
	.skipped = on_skipped,
	.moved = on_moved,
	.lost = on_lost,
	.whole = on_whole,
};

/* Every seventh time no dispatcher is up. */
static const struct upstream *on_send(void *ctx, struct frame *control UNUSED,
				      const struct upstream *except UNUSED)
{
	struct intake *in = ctx;

	return ++in->asked % 7 == 0 ? NULL : (const struct upstream *)in;
}

static const struct questions_ops questions_ops = {.send = on_send};

static void begin(struct intake *in)
{
	*in = (struct intake){.now_ms = 1000};
	channels_init(&in->channels, &rules);
	arena_init(&in->arena, LINK_DECODED_MAX);
	questions_init(&in->questions, &questions_ops, in);
	logs_init(&in->logs, &in->questions, &logs_ops, in, HELD_MAX, SWEEP_MS);
	for (size_t i = 0; i < array_len(names); i++) {
		struct channel *ch = channels_get(&in->channels, names[i], 1);

		channels_subscribe(&in->channels, ch, &in->subscriptions[i],
				   NULL, false);
		logs_open(&in->logs, ch, i == 0 ? 0 : LOGS_SINCE_NOW);
		logs_announced(&in->logs, ch);
	}
}

static void end(struct intake *in)
{
	for (size_t i = 0; i < array_len(names); i++) {
		struct channel *ch = in->subscriptions[i].channel;

		logs_close(&in->logs, ch);
		channels_unsubscribe(&in->channels, &in->subscriptions[i]);
		channels_forget(&in->channels, ch);
	}
	check(in->logs.held_bytes == 0);
	logs_fini(&in->logs);
	questions_fini(&in->questions);
	arena_fini(&in->arena);
	channels_fini(&in->channels);
}

/* As intake.c does. */
static void take_frame(struct intake *in, const LinkFrame *f)
{
	for (size_t i = 0; i < f->n_deliveries; i++) {
		const LinkDelivery *d = f->deliveries[i];
		struct channel *ch = channels_find(&in->channels, d->channel,
						   strlen(d->channel));

		if (ch != NULL && ch->log != NULL && d->offset != 0)
			logs_deliver(&in->logs, ch, d, in->now_ms);
	}
	for (size_t i = 0; i < f->n_moved; i++) {
		const Stentor__Link__V1__Moved *m = f->moved[i];
		struct channel *ch = channels_find(&in->channels, m->channel,
						   strlen(m->channel));
		struct place top = {0, 0};

		if (m->top != NULL)
			top = (struct place){m->top->epoch, m->top->offset};
		if (ch != NULL && ch->log != NULL)
			logs_moved(&in->logs, ch, top, in->now_ms);
	}
	if (f->moved_unnamed)
		logs_moved_unnamed(&in->logs);
	for (size_t i = 0; i < f->n_tops_answers; i++)
		questions_tops(&in->questions, f->tops_answers[i], in->now_ms);
	for (size_t i = 0; i < f->n_history_answers; i++)
		questions_history(&in->questions, f->history_answers[i],
				  in->now_ms);
}

static void turn(struct intake *in, const uint8_t *bytes, size_t len,
		 unsigned flags)
{
	static const uint64_t pauses_ms[] = {0, 11, 200, 3100};
	LinkFrame *f;

	in->now_ms += pauses_ms[flags & 3];
	if (flags & 4) {
		questions_link_lost(&in->questions, (const struct upstream *)in,
				    in->now_ms);
		logs_resync(&in->logs, true);
	}
	f = link_frame_decode(&in->arena, bytes, len);
	if (f != NULL)
		take_frame(in, f);
	arena_reset(&in->arena);
	logs_run(&in->logs, in->now_ms);
	questions_run(&in->questions, in->now_ms);
	check(in->logs.held_bytes <= HELD_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = {data, size};
	struct intake in;

	log_init("fuzz", LOG_ERROR, false);
	begin(&in);
	while (input.left >= 2) {
		unsigned head = fuzz_byte(&input);
		size_t len = (head & 0x1f) << 8 | fuzz_byte(&input);
		uint8_t *bytes = fuzz_bytes(&input, &len);

		turn(&in, bytes, len, head >> 5);
		free(bytes);
	}
	end(&in);
	return 0;
}

#include "connnode/intake.h"

#include "common/base/clock.h"
#include "common/base/version.h"
#include "common/io/gossip.h"
#include "connnode/channel/render.h"
#include "connnode/link/uplink.h"
#include "connnode/stream/drain.h"
#include "connnode/stream/lagging.h"
#include "connnode/stream/replay.h"
#include "connnode/stream/stream.h"
#include "connnode/worker.h"

#include <string.h>

/* --- logs of channels that have subscribers ----------------------------- */

/* Subscribers without a replay are at the log's place. */
static void level(struct channel *ch)
{
	ch->epoch = ch->log->place.epoch;
	ch->messages = ch->log->place.offset;
	list_for_each (node, &ch->subscriptions) {
		struct subscription *sub =
			container_of(node, struct subscription, in_channel);

		if (sub->replay == NULL)
			sub->at = ch->messages;
	}
}

static void open_log_at(struct worker *w, struct channel *ch,
			struct place place)
{
	fanout_finish(&w->fanout, ch);
	logs_open_at(&w->logs, ch, place);
	level(ch);
}

/* Those who are subscribed already are owed all that is stored since they came.
 */
static void open_log(struct worker *w, struct channel *ch)
{
	if (ch->log_left.epoch != 0) {
		open_log_at(w, ch, ch->log_left);
		return;
	}
	fanout_finish(&w->fanout, ch);
	logs_open(&w->logs, ch, ch->since_ms);
	logs_announced(&w->logs, ch);
}

/* A message with a position, on a channel without a log. Where the subscribers
 * are: where they were; before the first message, if the log was made after
 * they came; else right before this one. */
static void find_log(struct worker *w, struct channel *ch,
		     const LinkDelivery *d)
{
	struct place at = {d->epoch, 0};

	if (ch->log_left.epoch != 0 && ch->log_left.epoch <= d->epoch)
		at = ch->log_left;
	else if (ch->since_ms > d->epoch)
		at.offset = d->offset - 1;
	open_log_at(w, ch, at);
}

/* --- messages ----------------------------------------------------------- */

static void deliver(struct worker *w, const LinkDelivery *d)
{
	struct channel *ch =
		channels_find(&w->channels, d->channel, strlen(d->channel));

	metric_add(&w->metrics, NM_RECEIVED, message_class(d), 1);
	if (ch == NULL || ch->subscribers == 0) {
		metric_add(&w->metrics, NM_DROPPED,
			   message_class(d) * DROP_REASONS + DROP_NO_SUBSCRIBER,
			   1);
		return;
	}
	if (d->offset == 0) {
		fanout_message(&w->fanout, ch, d, worker_now(w));
		return;
	}
	if (ch->log == NULL && d->epoch != 0)
		find_log(w, ch, d);
	if (ch->log != NULL)
		logs_deliver(&w->logs, ch, d, worker_now(w));
	else
		fanout_message(&w->fanout, ch, d, worker_now(w));
}

void intake_deliveries(struct worker *w, LinkDelivery *const *deliveries,
		       size_t count)
{
	for (size_t i = 0; i < count; i++)
		deliver(w, deliveries[i]);
}

void intake_moved(struct worker *w, const LinkFrame *f)
{
	for (size_t i = 0; i < f->n_moved; i++) {
		const Stentor__Link__V1__Moved *m = f->moved[i];
		struct channel *ch = channels_find(&w->channels, m->channel,
						   strlen(m->channel));
		struct place top = {0, 0};

		if (m->top != NULL)
			top = (struct place){m->top->epoch, m->top->offset};
		if (ch != NULL && ch->subscribers > 0 && ch->log == NULL)
			open_log(w, ch);
		if (ch != NULL && ch->log != NULL)
			logs_moved(&w->logs, ch, top, worker_now(w));
	}
	if (f->moved_unnamed)
		logs_moved_unnamed(&w->logs);
}

/* --- what announcer.c tells ---------------------------------------------- */

static void on_deliver(void *ctx, LinkDelivery *const *deliveries, size_t count)
{
	intake_deliveries(ctx, deliveries, count);
}

static void on_answers(void *ctx, const LinkFrame *f, uint64_t now_ms UNUSED)
{
	struct worker *w = ctx;
	uint64_t now = worker_now(w);

	for (size_t i = 0; i < f->n_tops_answers; i++)
		questions_tops(&w->questions, f->tops_answers[i], now);
	for (size_t i = 0; i < f->n_history_answers; i++)
		questions_history(&w->questions, f->history_answers[i], now);
}

static void on_logs_moved(void *ctx, const LinkFrame *f)
{
	intake_moved(ctx, f);
}

static uint64_t on_wall(void *ctx UNUSED)
{
	return clock_wall_us();
}

static void on_revocations(void *ctx, const LinkFrame *f)
{
	struct worker *w = ctx;

	if (w->admission.auth != NULL)
		gossip_take(w->admission.auth, f);
}

static void on_drain(void *ctx, const Stentor__Link__V1__DrainOrder *order)
{
	struct worker *w = ctx;

	drain_ordered(&w->drain, order);
}

struct newcomer {
	struct announcer *announcer;
	struct upstream *upstream;
};

static void tell_newcomer(void *ctx, struct frame *control)
{
	const struct newcomer *n = ctx;

	announcer_tell(n->announcer, n->upstream, control);
}

/* What may have been on the way by that link is looked for in the store. */
static void on_link_changed(void *ctx, struct upstream *u, bool up)
{
	struct worker *w = ctx;
	struct newcomer newcomer = {&w->announcer, u};

	if (!up)
		questions_link_lost(&w->questions, u, worker_now(w));
	else if (w->admission.auth != NULL)
		gossip_all(w->admission.auth, tell_newcomer, &newcomer);
	logs_resync(&w->logs, !up);
	if (up)
		w->whole = announcer_whole(&w->announcer);
}

/* A dispatcher that we had no link to is named no more: it may have appended
 * until it ended. */
void intake_tick(struct worker *w)
{
	bool whole = announcer_whole(&w->announcer);

	if (whole && !w->whole)
		logs_resync(&w->logs, false);
	w->whole = whole;
}

static const struct announcer_ops announcer_ops = {
	.send = uplink_send,
	.redial = uplink_redial,
	.deliver = on_deliver,
	.answers = on_answers,
	.moved = on_logs_moved,
	.wall_us = on_wall,
	.revocations = on_revocations,
	.drain = on_drain,
	.link_changed = on_link_changed,
};

void intake_announce(struct worker *w)
{
	struct announcer_identity id = {
		.node = w->options->process.name,
		.worker = w->index,
		.incarnation = random_nonzero(),
		.link_address = "", /* told for each dispatcher */
		.listen_address = w->options->listen,
		.version = stentor_version,
		.token = w->options->process.link_token,
		.config_hash = w->rules->hash,
		.connections_max = w->sessions.limits.connections_max,
		.started_ms = clock_wall_ms(),
	};

	announcer_init(&w->announcer, &w->channels, &id, &announcer_ops, w);
}

/* --- what fanout.c, questions.c and logs.c ask for ----------------------- */

static const struct upstream *on_ask(void *ctx, struct frame *control,
				     const struct upstream *except)
{
	struct worker *w = ctx;

	return announcer_ask(&w->announcer, control, except);
}

static void on_pass(void *ctx, struct channel *ch, const LinkDelivery *d)
{
	struct worker *w = ctx;

	fanout_message(&w->fanout, ch, d, worker_now(w));
}

static void on_known(void *ctx, struct channel *ch)
{
	struct worker *w = ctx;

	if (ch->epoch == 0) {
		fanout_finish(&w->fanout, ch); /* whose marker is in the list */
		level(ch);
	}
	replays_known(&w->streams.replays, ch);
}

static void on_skipped(void *ctx, struct channel *ch, uint64_t to)
{
	struct worker *w = ctx;

	replays_skipped(&w->streams.replays, ch, to);
}

static void on_moved(void *ctx, struct channel *ch, struct place to)
{
	struct worker *w = ctx;

	replays_moved(&w->streams.replays, ch, to);
}

static void on_lost(void *ctx, struct channel *ch, const struct gap *gap)
{
	struct worker *w = ctx;

	replays_lost(&w->streams.replays, ch, gap);
}

static bool on_whole(void *ctx)
{
	struct worker *w = ctx;

	return announcer_whole(&w->announcer);
}

static void on_push(struct subscription *sub, struct frame *f)
{
	lagging_push(sub->session, sub, f);
}

static void on_forsaken(void *ctx, struct channel *ch)
{
	struct worker *w = ctx;

	announcer_touch(&w->announcer, ch);
}

static const struct fanout_ops fanout_ops = {
	.push = on_push,
	.forsaken = on_forsaken,
};
static const struct questions_ops questions_ops = {.send = on_ask};
static const struct logs_ops logs_ops = {
	.pass = on_pass,
	.known = on_known,
	.skipped = on_skipped,
	.moved = on_moved,
	.lost = on_lost,
	.whole = on_whole,
};

static void on_open_log(void *ctx, struct channel *ch)
{
	open_log(ctx, ch);
}

void intake_init(struct worker *w)
{
	const struct connnode_options *o = w->options;
	struct replays_use replays_use = {
		.channels = &w->channels,
		.questions = &w->questions,
		.logs = &w->logs,
		.fanout = &w->fanout,
		.announcer = &w->announcer,
		.metrics = &w->metrics,
	};
	struct streams_use use = {
		.sessions = &w->sessions,
		.channels = &w->channels,
		.announcer = &w->announcer,
		.logs = &w->logs,
		.metrics = &w->metrics,
		.open_log = on_open_log,
		.ctx = w,
		.retry_min_ms = o->retry_min_ms,
		.retry_max_ms = o->retry_max_ms,
		.ready_ms = o->ready_ms,
		.channels_max = o->channels_max,
	};

	fanout_init(&w->fanout, &w->channels, &fanout_ops, w);
	questions_init(&w->questions, &questions_ops, w);
	logs_init(&w->logs, &w->questions, &logs_ops, w,
		  w->options->hold_bytes_max, w->options->sweep_ms);
	streams_init(&w->streams, &use, &replays_use, o->replay_bytes_max);
	w->sessions.above = &w->streams;
}

void intake_fini(struct worker *w)
{
	streams_fini(&w->streams);
	logs_fini(&w->logs);
	questions_fini(&w->questions);
	fanout_fini(&w->fanout);
}

/* --- rules ------------------------------------------------------------- */

/* Nobody waits for anything in its log. */
static bool is_level(const struct channel *ch)
{
	if (!log_level(ch->log))
		return false;
	list_for_each (node, &ch->subscriptions) {
		if (container_of(node, struct subscription, in_channel)
			    ->replay != NULL)
			return false;
	}
	return true;
}

/* A log that is there although neither the rules before nor these keep history
 * stays: others have newer ones than we. So does one that somebody is behind:
 * what is missing is still stored. */
static void apply_rule(struct worker *w, struct channel *ch)
{
	bool reliable = rule_reliable(ch->rule);

	if (ch->subscribers == 0)
		return;
	if (ch->was_reliable != reliable)
		fanout_finish(&w->fanout, ch);
	if (reliable && ch->log == NULL) {
		open_log(w, ch);
	} else if (!reliable && ch->was_reliable && ch->log != NULL &&
		   is_level(ch)) {
		ch->log_left = ch->log->place;
		replays_log_closed(&w->streams.replays, ch);
		logs_close(&w->logs, ch);
	}
}

void intake_apply_rules(struct worker *w)
{
	const struct hmap *map = &w->channels.by_name;

	channels_apply_rules(&w->channels, w->rules);
	for (struct hmap_node *n = hmap_iterate(map, NULL); n != NULL;
	     n = hmap_iterate(map, n))
		apply_rule(w, container_of(n, struct channel, by_name));
}

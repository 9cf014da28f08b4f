#include "connnode/intake.h"

#include "connnode/render.h"
#include "connnode/replay.h"
#include "connnode/worker.h"

#include <string.h>

static void deliver(struct worker *w, const LinkDelivery *d)
{
	struct channel *ch =
		channels_find(&w->channels, d->channel, strlen(d->channel));

	metric_add(&w->metrics, NM_RECEIVED, message_class(d), 1);
	if (ch == NULL || ch->subscribers == 0)
		metric_add(&w->metrics, NM_DROPPED,
			   message_class(d) * DROP_REASONS + DROP_NO_SUBSCRIBER,
			   1);
	else if (d->offset != 0 && ch->log != NULL)
		logs_deliver(&w->logs, ch, d, worker_now(w));
	else
		fanout_message(w, ch, d);
}

void intake_deliveries(struct worker *w, LinkDelivery *const *deliveries,
		       size_t count)
{
	for (size_t i = 0; i < count; i++)
		deliver(w, deliveries[i]);
}

void intake_answers(struct worker *w, const LinkFrame *f)
{
	uint64_t now = worker_now(w);

	for (size_t i = 0; i < f->n_tops_answers; i++)
		questions_tops(&w->questions, f->tops_answers[i], now);
	for (size_t i = 0; i < f->n_history_answers; i++)
		questions_history(&w->questions, f->history_answers[i], now);
}

/* --- what questions.c and logs.c ask for ------------------------------- */

static const struct upstream *on_ask(void *ctx, struct frame *control,
				     const struct upstream *except)
{
	struct worker *w = ctx;

	return announcer_ask(&w->announcer, control, except);
}

static void on_pass(void *ctx, struct channel *ch, const LinkDelivery *d)
{
	fanout_message(ctx, ch, d);
}

static void on_known(void *ctx, struct channel *ch)
{
	struct worker *w = ctx;

	if (ch->messages != ch->log->place.offset)
		ch->messages = ch->log->place.offset;
	replays_known(w, ch);
}

static void on_moved(void *ctx, struct channel *ch, struct place to, int reason)
{
	replays_moved(ctx, ch, to, reason);
}

static const struct questions_ops questions_ops = {.send = on_ask};
static const struct logs_ops logs_ops = {
	.pass = on_pass,
	.known = on_known,
	.moved = on_moved,
};

void intake_init(struct worker *w)
{
	questions_init(&w->questions, &questions_ops, w);
	logs_init(&w->logs, &w->questions, &logs_ops, w,
		  w->options->hold_bytes_max, w->options->sweep_ms);
	replays_init(w);
}

void intake_fini(struct worker *w)
{
	replays_fini(w);
	logs_fini(&w->logs);
	questions_fini(&w->questions);
}

/* --- rules ------------------------------------------------------------- */

/* The channel keeps history from now on: its subscribers stay, and are live
 * again when the log's place is known. */
static void become_reliable(struct worker *w, struct channel *ch)
{
	fanout_finish(w, ch);
	logs_open(&w->logs, ch);
	list_for_each (node, &ch->subscriptions)
		replay_begin(
			w, container_of(node, struct subscription, in_channel),
			NULL);
	logs_announced(&w->logs, ch);
}

static void apply_rule(struct worker *w, struct channel *ch)
{
	bool reliable = rule_reliable(ch->rule);

	if (ch->subscribers == 0 || reliable == (ch->log != NULL))
		return;
	if (reliable) {
		become_reliable(w, ch);
	} else {
		replays_log_closed(w, ch);
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

/* logs_move.c - a log is in another epoch than our place: where it goes on, and
 * what is lost. */
#include "connnode/channel/logs_internal.h"

#include "common/base/check.h"

/* Whether a message of another epoch is in that of `ctx`, a top, too. */
static bool is_in_era(void *ctx, struct place at)
{
	const Stentor__Link__V1__Era *era = past_era(ctx, at.epoch);

	return era != NULL && at.offset <= era->offset;
}

static bool is_same(void *ctx, struct place at)
{
	return past_same(((struct log *)ctx)->past, at);
}

/* Whether nothing was there after `last` in the epoch that is left, nor in one
 * between. */
static bool is_sure(const struct log *log, uint64_t last, LinkPlace *top)
{
	struct logs *l = log->logs;
	struct place left = {log->place.epoch, 0};

	/* Something was, and is no more. */
	if (held_between(&log->held, left.epoch, top->epoch, is_in_era, top) ||
	    (log_moving(log) && log->next.epoch < top->epoch &&
	     !is_in_era(top, log->next)))
		return false;
	/* There was no log, and messages live longer than that is ago. */
	if (last == 0 && top->n_eras == 0 &&
	    top->epoch - left.epoch < log->channel->rule->history_ttl_ms)
		return true;
	/* Another log came and went. */
	if (last > 0 && top->n_eras > 0 && !is_in_era(top, left))
		return false;
	return !log->doubt && l->ops->whole(l->ctx);
}

/* The place is `to` now, in another epoch, whose top is `top`. */
static void arrive(struct log *log, struct place to, uint64_t top)
{
	log->place = to;
	log->seen = (struct place){to.epoch, max_of(to.offset, top)};
	if (log->next.epoch == to.epoch)
		log->seen.offset = max_of(log->seen.offset, log->next.offset);
	if (!log_moving(log))
		log->next = (struct place){0, 0};
	log->report_at = 0; /* it was counted in the epoch that is left */
	log_look_forget(log);
	held_carry(&log->held, to.epoch, is_same, log);
}

/* The log is in another epoch, E2, than our place, (E, p). With `last` the
 * greatest offset that was known in E:
 *
 *	E is an era of E2, with base b: the place is (E2, min(p, b)), and what
 *		E had from max(p, b) + 1 to `last` is lost
 *	E is none: the log is another one; the place is (E2, 0)
 *
 * What was lost is a gap, for each reader by its own place: past_map(). It ends
 * with `last` if we are sure, else nobody knows what there was. */
void log_move(struct log *log, LinkPlace *top)
{
	struct logs *l = log->logs;
	uint64_t last = max_of(log->place.offset, log->seen.offset);
	struct past_epoch from = {
		.epoch = log->place.epoch,
		.last = last,
		.passed = log->place.offset,
		.sure = is_sure(log, last, top),
		.left_ms = l->now_ms,
	};
	struct place to = log->place;
	struct gap gap;

	from.exact = from.sure;
	log->past = past_move(log->past, &from, top);
	check(past_map(log->past, &to, &gap)); /* told to each reader */
	/* The store is to hear of epochs that it has forgotten. */
	if (past_knows_more(log->past, top))
		log_ask(log);
	questions_cancel(l->questions, &log->fetch);
	list_remove(&log->in_holes);
	l->counters.moved++;
	l->ops->moved(l->ctx, log->channel, to);
	arrive(log, to, top->offset);
}

/* The offset in the epoch of `top` before a message of this or an earlier one.
 */
static uint64_t before(const LinkPlace *top, struct place at)
{
	const Stentor__Link__V1__Era *era = past_era(top, at.epoch);

	if (at.epoch == top->epoch)
		return at.offset - 1;
	return era != NULL ? min_of(era->offset, at.offset - 1) : 0;
}

/* Where a log begins for those who are there already; logs_open(). */
static struct place beginning(const struct log *log, const LinkPlace *top)
{
	struct place at = {top->epoch, top->offset};
	uint64_t made_ms = top->epoch;

	if (log->since_ms == LOGS_SINCE_NOW)
		return at;
	if (top->n_eras > 0)
		made_ms = top->eras[top->n_eras - 1]->epoch;
	if (log->since_ms <= made_ms)
		at.offset = 0;
	else if (log->first.epoch != 0 && log->first.epoch <= top->epoch)
		at.offset = min_of(at.offset, before(top, log->first));
	return at;
}

void log_become_known(struct log *log, const LinkPlace *top)
{
	struct logs *l = log->logs;
	struct past_epoch none = {0};

	if (top->n_eras > 0)
		log->past = past_move(NULL, &none, top);
	arrive(log, beginning(log, top), top->offset);
	l->ops->known(l->ctx, log->channel);
}

/* A message of an earlier epoch is known to have been there. */
void log_was_there(struct log *log, struct place at)
{
	struct logs *l = log->logs;
	struct past_epoch *e = past_find(log->past, at.epoch);
	struct gap gap = {.to = at};
	uint64_t reached = e != NULL ? max_of(e->last, e->base) : 0;

	if (e == NULL || at.offset > reached)
		log_ask(log); /* or the store has gone back behind all of this */
	if (e == NULL || !e->exact || at.offset <= reached) {
		l->counters.doubles++;
		return;
	}
	gap.reason = e->gone ? GAP_EPOCH : GAP_REWOUND;
	gap.from = (struct place){at.epoch, reached + 1};
	e->last = at.offset;
	l->ops->lost(l->ctx, log->channel, &gap);
}

/* The oldest epoch of which something may still be on its way that nobody has
 * been told of. Of one in which there was no log nothing is. */
static struct past_epoch *oldest_exact(const struct log *log)
{
	struct past *p = log->past;
	struct past_epoch *oldest = NULL;

	for (unsigned i = 0; p != NULL && i < p->count; i++) {
		struct past_epoch *e = &p->epoch[i];

		if (e->exact && !(e->gone && e->last == 0) &&
		    log->logs->now_ms - e->left_ms < LOGS_LATE_MS &&
		    (oldest == NULL || e->epoch < oldest->epoch))
			oldest = e;
	}
	return oldest;
}

/* A link has ended, by which messages of earlier epochs may have been on their
 * way. Each of them is told as far as the one that came next: what that one had
 * came, or is told by itself. */
void log_doubt_past(struct log *log)
{
	struct logs *l = log->logs;
	struct past_epoch *e;

	while ((e = oldest_exact(log)) != NULL) {
		struct gap gap = {
			.reason = e->gone ? GAP_EPOCH : GAP_REWOUND,
			.from = {e->epoch, max_of(e->last, e->next.offset) + 1},
			.to = e->next,
		};

		for (unsigned i = 0; i < log->past->count; i++)
			log->past->epoch[i].sure = false;
		e->exact = false;
		l->ops->lost(l->ctx, log->channel, &gap);
	}
}

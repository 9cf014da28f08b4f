/* The rule. A log's place is (E, p); "base" and "last" are of past.h.
 *
 *	what comes				what is done
 *	--------------------------------------	----------------------------
 *	message (E, p + 1)			pass, and what is held next
 *	message (E, <= p)			a double
 *	message (E, > p + 1), or a top (E, > p)	a hole: held, then fetched
 *	anything of an epoch greater than E	held; its top is asked for
 *	message of an earlier epoch, <= base	the same as in E
 *		> base and > last, or a top	lost: told, exactly
 *		else				a double, or told already
 *	answered top of a greater epoch		log_move() in logs_move.c
 *
 * While the place is not known, E is 0: everything is of a greater epoch.
 */
#include "connnode/channel/logs_internal.h"

#include "common/base/check.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdlib.h>

/* The tops of some logs, in one question. Logs leave when they are closed. */
struct batch {
	struct list in_logs;
	struct logs *logs;
	struct list asked; /* struct log.in_asks */
	size_t count;	   /* asked for */
	struct question question;
};

void logs_init(struct logs *l, struct questions *questions,
	       const struct logs_ops *ops, void *ctx, size_t held_max,
	       uint64_t sweep_ms)
{
	*l = (struct logs){
		.questions = questions,
		.ops = ops,
		.ctx = ctx,
		.held_max = held_max,
		.sweep_ms = sweep_ms,
	};
	list_init(&l->all);
	list_init(&l->holes);
	list_init(&l->asks);
	list_init(&l->batches);
	list_init(&l->looks);
}

static void batch_free(struct batch *b)
{
	list_remove(&b->in_logs);
	free(b);
}

void logs_fini(struct logs *l)
{
	check(l->count == 0);
	list_for_each_safe (node, &l->batches) {
		struct batch *b = container_of(node, struct batch, in_logs);

		questions_cancel(l->questions, &b->question);
		batch_free(b);
	}
}

void log_ask(struct log *log)
{
	log->sweeping = false;
	if (log->asked)
		log->again = true;
	else if (!log->unasked && list_empty(&log->in_asks))
		list_push_back(&log->logs->asks, &log->in_asks);
}

/* Its top is asked for once more after a while, unless others do. */
static void look_later(struct log *log)
{
	struct logs *l = log->logs;

	list_remove(&log->in_looks);
	log->look_ms = l->now_ms;
	list_push_back(&l->looks, &log->in_looks);
}

void log_look_forget(struct log *log)
{
	log->found = 0;
	list_remove(&log->in_looks);
}

/* --- in order ---------------------------------------------------------- */

bool log_moving(const struct log *log)
{
	return log->next.epoch > log->place.epoch;
}

/* A message of a greater epoch than the place's was there. */
static void goes_on(struct log *log, struct place at)
{
	if (at.epoch > log->next.epoch)
		log_ask(log);
	if (place_before(log->next, at))
		log->next = at;
}

static bool is_nowhere(void *ctx UNUSED, struct place at UNUSED)
{
	return false;
}

/* What is let go is known to be there by `seen` and `next`; of an epoch between
 * those it is forgotten. */
static void let_go(struct log *log)
{
	if (held_between(&log->held, log->place.epoch, log->next.epoch,
			 is_nowhere, NULL)) {
		log->doubt = true;
		log_ask(log);
	}
	log->logs->counters.held_dropped += held_clear(&log->held);
}

static void hold(struct log *log, const LinkDelivery *d)
{
	struct place at = {d->epoch, d->offset};
	struct logs *l = log->logs;

	if (!log_known(log) &&
	    (log->first.epoch == 0 || place_before(at, log->first)))
		log->first = at;
	if (!held_add(&log->held, d, log->channel->name))
		l->counters.doubles++;
	else if (l->held_bytes > l->held_max)
		let_go(log);
}

static void pass(struct log *log, const LinkDelivery *d)
{
	log->logs->ops->pass(log->logs->ctx, log->channel, d);
	log->place.offset++;
}

/* Passes on what is held up to the next hole, or the next epoch. */
static void pass_held(struct log *log)
{
	const LinkDelivery *d;

	while ((d = held_first(&log->held)) != NULL &&
	       d->epoch <= log->place.epoch &&
	       d->offset - 1 <= log->place.offset) {
		if (d->offset - 1 == log->place.offset)
			pass(log, d);
		held_pop(&log->held);
	}
}

/* The store has no more what lies between the place and `offset`; what is held
 * of it is passed on all the same. */
static void skip_to(struct log *log, uint64_t offset)
{
	struct logs *l = log->logs;

	pass_held(log);
	while (log->place.offset < offset) {
		const LinkDelivery *d = held_first(&log->held);
		uint64_t to = offset;

		if (d != NULL && d->epoch == log->place.epoch)
			to = min_of(to, d->offset - 1);
		l->ops->skipped(l->ctx, log->channel, to);
		log->place.offset = to;
		pass_held(log);
	}
}

/* After a change: is there a hole, and since when? */
static void settle(struct log *log)
{
	struct logs *l = log->logs;
	bool fetching = question_open(&log->fetch);
	bool waiting = !list_empty(&log->in_holes);

	if (!log_known(log))
		return;
	pass_held(log);
	if (log_tells(log)) {
		log->reported = log->answered;
		l->ops->known(l->ctx, log->channel);
	}
	if (log->place.offset >= log->seen.offset) {
		list_remove(&log->in_holes);
		questions_cancel(l->questions, &log->fetch);
		return;
	}
	if (fetching || (waiting && log->hole_at == log->place.offset))
		return;
	l->counters.holes += !waiting;
	list_remove(&log->in_holes);
	list_push_back(&l->holes, &log->in_holes);
	log->hole_at = log->place.offset;
	log->hole_ms = l->now_ms;
}

/* --- fetching ---------------------------------------------------------- */

static void fetch(struct log *log)
{
	struct logs *l = log->logs;
	const LinkDelivery *d = held_first(&log->held);
	HistoryQuery query = STENTOR__LINK__V1__HISTORY_QUERY__INIT;
	uint64_t lacking = log->seen.offset - log->place.offset;

	if (d != NULL && d->epoch == log->place.epoch)
		lacking = d->offset - 1 - log->place.offset;
	list_remove(&log->in_holes);
	if (!place_equals(log->fetch_from, log->place))
		log->empty = 0;
	log->fetch_from = log->place;
	log->fetch_seen = log->seen;
	query.channel = log->channel->name;
	query.epoch = log->place.epoch;
	query.after = log->place.offset;
	query.messages_max = (uint32_t)min_of(lacking, (uint64_t)LOGS_FETCH);
	query.bytes_max = LOGS_FETCH_BYTES;
	questions_ask_history(l->questions, &log->fetch, &query, l->now_ms);
}

static void take_message(struct log *log, const LinkDelivery *message,
			 uint64_t top)
{
	LinkDelivery d = *message;

	if (d.epoch != log->place.epoch || d.offset <= log->place.offset ||
	    d.offset > top)
		return;
	skip_to(log, d.offset - 1);
	if (d.offset - 1 != log->place.offset)
		return;
	d.channel = log->channel->name;
	log->logs->counters.fetched++;
	pass(log, &d);
}

/* The store says that it has what comes next, and gives nothing: that is asked
 * again some times before it is taken for gone. */
static bool is_odd(struct log *log, const HistoryAnswer *answer)
{
	if (answer->first == 0 || answer->first > log->place.offset + 1 ||
	    answer->top->offset <= log->place.offset ||
	    ++log->empty >= LOGS_EMPTY_MAX)
		return false;
	log->logs->counters.malformed++;
	log_warn("HISTORY-EMPTY",
		 "channel=%s place=%llu:%llu first=%llu top=%llu messages=%zu",
		 log->channel->name, (unsigned long long)log->place.epoch,
		 (unsigned long long)log->place.offset,
		 (unsigned long long)answer->first,
		 (unsigned long long)answer->top->offset, answer->n_messages);
	return true;
}

/* Of the place's epoch. */
static void take_history(struct log *log, const HistoryAnswer *answer)
{
	uint64_t top = answer->top->offset;

	/* Messages that are gone are told by the first that is there. */
	for (size_t i = 0; i < answer->n_messages; i++)
		take_message(log, answer->messages[i], top);
	if (log->place.offset <= log->fetch_from.offset) {
		if (is_odd(log, answer))
			return; /* settle() has it asked again */
		skip_to(log, answer->first > log->place.offset + 1
				     ? min_of(top, answer->first - 1)
				     : top);
	}
	pass_held(log);
	if (top < log->fetch_seen.offset)
		/* Read before that was appended, for another of us; or the
		 * store has gone back. */
		log_ask(log);
	else if (log->place.offset < top)
		fetch(log);
}

static void on_fetched(struct question *q, const HistoryAnswer *answer,
		       const TopsAnswer *tops UNUSED)
{
	struct log *log = container_of(q, struct log, fetch);
	struct place top = {0, 0};

	log->logs->now_ms = log->logs->questions->now_ms;
	if (answer->top != NULL)
		top = (struct place){answer->top->epoch, answer->top->offset};
	if (top.epoch == 0 || top.epoch > PLACE_EPOCH_MAX) {
		log->logs->counters.malformed++;
	} else if (top.epoch < log->place.epoch) {
		log_ask(log);
	} else if (top.epoch > log->place.epoch) {
		goes_on(log, top);
	} else {
		take_history(log, answer);
	}
	settle(log);
}

/* --- tops -------------------------------------------------------------- */

/* The sweep found a top beyond all that we know of. The messages may be on their
 * way: if nothing is known of them when it looks again, nothing else would have
 * found them. What is known may still be lacking, while it is fetched. */
static bool is_missed(struct log *log, uint64_t top)
{
	struct logs *l = log->logs;
	bool missed = log->found > log->seen.offset;

	log_look_forget(log);
	if (missed) {
		l->counters.swept++;
		return true;
	}
	log->found = top;
	log->found_ms = l->now_ms;
	look_later(log);
	return false;
}

static void take_top(struct log *log, LinkPlace *top)
{
	if (!log_known(log)) {
		log_become_known(log, top);
	} else if (top->epoch > log->place.epoch) {
		log_move(log, top);
	} else if (top->epoch == log->place.epoch &&
		   top->offset > log->seen.offset) {
		if (!log->sweeping || is_missed(log, top->offset)) {
			log->logs->counters.behind++;
			log->seen.offset = top->offset;
		}
	}
	/* Of an earlier epoch: it was read before we moved. */
	if (top->epoch == log->place.epoch)
		log->doubt = log->doubt && log->again;
	if (!log->again) /* nothing was learned since it was asked */
		log->answered = log->asks;
	log->report_at = log->seen.offset;
	log->looked_ms = log->logs->now_ms;
	list_remove(&log->in_all);
	list_push_back(&log->logs->all, &log->in_all);
}

static bool is_sound(const LinkPlace *top)
{
	return top->epoch > 0 && top->epoch <= PLACE_EPOCH_MAX;
}

static void on_tops(struct question *q, const HistoryAnswer *history UNUSED,
		    const TopsAnswer *answer)
{
	struct batch *b = container_of(q, struct batch, question);
	struct logs *l = b->logs;
	struct list *node;
	bool whole = answer->n_tops == b->count;

	l->now_ms = l->questions->now_ms;
	while ((node = list_pop_front(&b->asked)) != NULL) {
		struct log *log = container_of(node, struct log, in_asks);
		bool again;

		log->asked = false;
		if (whole && is_sound(answer->tops[log->asked_index]))
			take_top(log, answer->tops[log->asked_index]);
		else
			l->counters.malformed++;
		again = log->again || log->wanted > log->asks;
		log->again = false;
		if (again)
			log_ask(log);
		else if (!log_known(log) || log_moving(log))
			look_later(log); /* not yet what it is to be */
		settle(log);
	}
	batch_free(b);
}

static void ask_batch(struct logs *l)
{
	struct batch *b = xcalloc(1, sizeof(*b));
	TopsQuery query = STENTOR__LINK__V1__TOPS_QUERY__INIT;
	LinkPlace places[LOGS_TOPS], *known[LOGS_TOPS];
	struct told_past *told = xmalloc(LOGS_TOPS * sizeof(*told));
	char *names[LOGS_TOPS];
	struct list *node;

	b->logs = l;
	list_init(&b->asked);
	question_init(&b->question, on_tops);
	list_push_back(&l->batches, &b->in_logs);
	while (b->count < LOGS_TOPS &&
	       (node = list_pop_front(&l->asks)) != NULL) {
		struct log *log = container_of(node, struct log, in_asks);
		struct place seen = log_moving(log) ? log->next : log->seen;

		list_push_back(&b->asked, node);
		log->asked = true;
		log->asks++;
		log->asked_index = (uint32_t)b->count;
		stentor__link__v1__place__init(&places[b->count]);
		places[b->count].epoch = seen.epoch;
		places[b->count].offset = seen.offset;
		if (!log_moving(log))
			past_tell(log->past, &told[b->count],
				  &places[b->count]);
		known[b->count] = &places[b->count];
		names[b->count++] = log->channel->name;
	}
	query.n_channels = query.n_known = b->count;
	query.channels = names;
	query.known = known;
	questions_ask_tops(l->questions, &b->question, &query, l->now_ms);
	free(told);
}

static void look_again(struct logs *l)
{
	while (!list_empty(&l->looks)) {
		struct log *log =
			container_of(l->looks.next, struct log, in_looks);
		bool found = log->found > 0;

		if (l->now_ms - log->look_ms < LOGS_AGAIN_MS)
			return;
		list_remove(&log->in_looks);
		if (found && log->found > log->place.offset &&
		    l->now_ms - log->found_ms < LOGS_FOUND_MS) {
			look_later(log);
			continue;
		}
		if ((found && log->found <= log->place.offset) || log->asked ||
		    !list_empty(&log->in_asks)) {
			log->found = 0; /* it has come, or others ask */
			continue;
		}
		log_ask(log);
		log->sweeping = found;
	}
}

/* Those whose tops nobody has asked for in sweep_ms, some at a time. */
static void sweep(struct logs *l)
{
	unsigned asked = 0;

	look_again(l);
	if (l->now_ms < l->sweep_due_ms)
		return;
	while (asked < LOGS_TOPS && !list_empty(&l->all)) {
		struct log *log = container_of(l->all.next, struct log, in_all);

		if (l->now_ms - log->looked_ms < l->sweep_ms)
			break;
		list_remove(&log->in_all);
		list_push_back(&l->all, &log->in_all);
		log->looked_ms = l->now_ms;
		asked++;
		if (log->unasked || log->asked || !list_empty(&log->in_asks))
			continue;
		log_ask(log);
		log->sweeping = true;
	}
	if (asked > 0)
		l->sweep_due_ms =
			l->now_ms + l->sweep_ms / (l->count / LOGS_TOPS + 1);
}

/* --- from outside ------------------------------------------------------ */

struct log *logs_open(struct logs *l, struct channel *ch, uint64_t since_ms)
{
	struct log *log = xcalloc(1, sizeof(*log));

	check(ch->log == NULL);
	log->channel = ch;
	log->logs = l;
	log->since_ms = since_ms;
	log->unasked = true;
	log->looked_ms = l->now_ms;
	held_init(&log->held, &l->held_bytes);
	list_init(&log->in_holes);
	list_init(&log->in_asks);
	list_init(&log->in_looks);
	question_init(&log->fetch, on_fetched);
	list_push_back(&l->all, &log->in_all);
	l->count++;
	ch->log = log;
	return log;
}

struct log *logs_open_at(struct logs *l, struct channel *ch, struct place place)
{
	struct log *log = logs_open(l, ch, LOGS_SINCE_NOW);

	check(place.epoch != 0);
	log->place = log->seen = place;
	log->doubt = true;
	logs_announced(l, ch);
	return log;
}

void logs_close(struct logs *l, struct channel *ch)
{
	struct log *log = ch->log;

	questions_cancel(l->questions, &log->fetch);
	held_clear(&log->held);
	list_remove(&log->in_holes);
	list_remove(&log->in_asks);
	list_remove(&log->in_looks);
	list_remove(&log->in_all);
	l->count--;
	free(log->past);
	free(log);
	ch->log = NULL;
}

bool log_level(const struct log *log)
{
	return log_known(log) && !log_moving(log) &&
	       log->place.offset >= log->seen.offset;
}

void logs_announced(struct logs *l UNUSED, struct channel *ch)
{
	if (!ch->log->unasked)
		return;
	ch->log->unasked = false;
	log_ask(ch->log);
}

uint64_t logs_ask(struct logs *l UNUSED, struct channel *ch)
{
	struct log *log = ch->log;

	if (!log->asked)
		log_ask(log);
	log->sweeping = false;
	return log_want(log);
}

void logs_deliver(struct logs *l, struct channel *ch,
		  const LinkDelivery *delivery, uint64_t now_ms)
{
	struct log *log = ch->log;
	LinkDelivery d = *delivery;
	struct place at = {d.epoch, d.offset};

	l->now_ms = now_ms;
	if (d.epoch == 0 || d.epoch > PLACE_EPOCH_MAX || d.offset == 0) {
		l->counters.malformed++;
		return;
	}
	if (at.epoch < log->place.epoch && past_same(log->past, at))
		at.epoch = d.epoch = log->place.epoch;
	if (at.epoch < log->place.epoch) {
		log_was_there(log, at);
		return;
	}
	if (at.epoch > log->place.epoch) {
		goes_on(log, at);
		hold(log, &d);
	} else if (at.offset <= log->place.offset) {
		l->counters.doubles++;
		return;
	} else {
		log->seen.offset = max_of(log->seen.offset, at.offset);
		if (at.offset - 1 == log->place.offset)
			pass(log, &d);
		else
			hold(log, &d);
	}
	settle(log);
}

void logs_moved(struct logs *l, struct channel *ch, struct place top,
		uint64_t now_ms)
{
	struct log *log = ch->log;

	l->now_ms = now_ms;
	if (top.epoch == 0 || top.epoch > PLACE_EPOCH_MAX || top.offset == 0) {
		log->doubt = true;
		log_ask(log);
		return;
	}
	if (top.epoch > log->place.epoch) {
		goes_on(log, top);
	} else if (top.epoch == log->place.epoch) {
		log->seen.offset = max_of(log->seen.offset, top.offset);
	} else {
		log_was_there(log, top);
	}
	settle(log);
}

void logs_moved_unnamed(struct logs *l)
{
	l->look = true;
}

static void ask_all(struct logs *l)
{
	list_for_each (node, &l->all) {
		struct log *log = container_of(node, struct log, in_all);

		log->doubt = true;
		log_ask(log);
	}
}

void logs_resync(struct logs *l, bool lost)
{
	for (struct list *node = l->all.next; lost && node != &l->all;
	     node = node->next)
		log_doubt_past(container_of(node, struct log, in_all));
	ask_all(l);
}

static void look(struct logs *l)
{
	if (!l->look || l->now_ms < l->look_due_ms)
		return;
	l->look = false;
	l->look_due_ms = l->now_ms + LOGS_LOOK_MS;
	ask_all(l);
}

void logs_run(struct logs *l, uint64_t now_ms)
{
	l->now_ms = now_ms;
	while (!list_empty(&l->holes)) {
		struct log *log =
			container_of(l->holes.next, struct log, in_holes);

		if (now_ms < log->hole_ms + LOGS_HOLE_MS)
			break;
		list_remove(&log->in_holes);
		if (!log_moving(log))
			fetch(log);
	}
	look(l);
	sweep(l);
	while (!list_empty(&l->asks))
		ask_batch(l);
}

bool logs_waiting(const struct logs *l)
{
	return !list_empty(&l->holes);
}

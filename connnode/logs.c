#include "connnode/logs.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

const char *const gap_names[GAP_REASONS + 1] = {
	"expired", "epoch", "unknown", "malformed", "rewound", "lagging", NULL};

/* A delivery that came too early, with copies of all it points to. */
struct held {
	struct list in_log;
	size_t cost; /* bytes of memory */
	LinkDelivery delivery;
};

/* The tops of some logs, in one question. Logs leave when they are closed. */
struct batch {
	struct list in_logs;
	struct logs *logs;
	struct list asked; /* struct log.in_asks */
	size_t count;	   /* asked for */
	struct question question;
};

/* Positions are ordered over all logs that a channel ever has. */
static bool before(struct place a, struct place b)
{
	return a.epoch != b.epoch ? a.epoch < b.epoch : a.offset < b.offset;
}

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

/* --- what is held ------------------------------------------------------ */

static void held_free(struct log *log, struct held *h)
{
	list_remove(&h->in_log);
	log->held_bytes -= h->cost;
	log->logs->held_bytes -= h->cost;
	free(h);
}

static void held_clear(struct log *log)
{
	list_for_each_safe (node, &log->held)
		held_free(log, container_of(node, struct held, in_log));
}

static struct held *held_first(const struct log *log)
{
	return list_empty(&log->held)
		       ? NULL
		       : container_of(log->held.next, struct held, in_log);
}

static char *copy(char **to, const void *bytes, size_t len)
{
	char *at = memcpy(*to, bytes, len);

	*to += len;
	return at;
}

static struct held *held_new(const struct log *log, const LinkDelivery *d)
{
	size_t event = strlen(d->event) + 1;
	size_t key = strlen(d->conflation_key) + 1;
	size_t cost = sizeof(struct held) + event + key + d->data.len;
	struct held *h = xmalloc(cost);
	char *to = (char *)(h + 1);

	h->cost = cost;
	h->delivery = *d;
	h->delivery.base.n_unknown_fields = 0;
	h->delivery.base.unknown_fields = NULL;
	h->delivery.channel = log->channel->name;
	h->delivery.event = copy(&to, d->event, event);
	h->delivery.conflation_key = copy(&to, d->conflation_key, key);
	h->delivery.data.data = (uint8_t *)to;
	if (d->data.len > 0)
		memcpy(to, d->data.data, d->data.len);
	return h;
}

/* Where it belongs: the newest that is not behind it. Deliveries come nearly
 * in order, so it is near the end. */
static struct list *held_predecessor(struct log *log, uint64_t offset)
{
	struct list *node = log->held.prev;

	while (node != &log->held &&
	       container_of(node, struct held, in_log)->delivery.offset >
		       offset)
		node = node->prev;
	return node;
}

static void hold(struct log *log, const LinkDelivery *d)
{
	struct logs *l = log->logs;
	struct list *where = held_predecessor(log, d->offset);
	struct held *h;

	if (where != &log->held &&
	    container_of(where, struct held, in_log)->delivery.offset ==
		    d->offset) {
		l->counters.doubles++;
		return;
	}
	h = held_new(log, d);
	list_insert_after(where, &h->in_log);
	log->held_bytes += h->cost;
	l->held_bytes += h->cost;
	if (l->held_bytes <= l->held_max)
		return;
	list_for_each (node, &log->held)
		l->counters.held_dropped++;
	held_clear(log);
}

/* --- the place moves --------------------------------------------------- */

static void pass(struct log *log, const LinkDelivery *d)
{
	log->logs->ops->pass(log->logs->ctx, log->channel, d);
	log->place.offset++;
}

/* Passes on what is held up to the next hole. */
static void pass_held(struct log *log)
{
	struct held *h;

	while ((h = held_first(log)) != NULL &&
	       h->delivery.offset - 1 <= log->place.offset) {
		if (h->delivery.offset - 1 == log->place.offset)
			pass(log, &h->delivery);
		held_free(log, h);
	}
}

/* The store has no more what lies between the place and `offset`; what is held
 * of it is passed on all the same. */
static void skip_to(struct log *log, uint64_t offset)
{
	struct logs *l = log->logs;

	pass_held(log);
	while (log->place.offset < offset) {
		struct held *h = held_first(log);
		struct place to = {log->place.epoch, offset};

		if (h != NULL && h->delivery.offset - 1 < offset)
			to.offset = h->delivery.offset - 1;
		l->ops->moved(l->ctx, log->channel, to, GAP_EXPIRED);
		log->place = to;
		pass_held(log);
	}
}

/* Neither what is held nor what is being fetched belongs to the new place. */
static void jump(struct log *log, struct place to, int reason)
{
	struct logs *l = log->logs;

	questions_cancel(l->questions, &log->fetch);
	l->ops->moved(l->ctx, log->channel, to, reason);
	log->place = log->seen = to;
	if (log->report_at != UINT64_MAX)
		log->report_at = 0;
}

/* Whether all messages were passed on that the channel had before its log of
 * `epoch`. If a link changed we can't say, because the older log is gone;
 * except when there was none, and messages live longer than that is ago. */
static bool at_end(const struct log *log, uint64_t epoch)
{
	if (log->place.offset < log->seen.offset)
		return false;
	return !log->doubt ||
	       (log->place.offset == 0 &&
		epoch - log->place.epoch < log->channel->rule->history_ttl_ms);
}

static void enter_epoch(struct log *log, uint64_t epoch)
{
	jump(log, (struct place){epoch, 0},
	     at_end(log, epoch) ? -1 : GAP_EPOCH);
}

static void ask(struct log *log);

/* The store has lost messages that it had when we asked; what came since may
 * be of before that or after. */
static void rewind_to(struct log *log, struct place to)
{
	log->logs->counters.rewinds++;
	held_clear(log);
	jump(log, to, GAP_REWOUND);
	/* A top that is being asked for is compared with this. */
	log->asked_place = to;
	ask(log);
}

/* After a change: is there a hole, and since when? */
static void settle(struct log *log)
{
	struct logs *l = log->logs;
	bool fetching = question_open(&log->fetch);
	bool waiting = !list_empty(&log->in_holes);

	pass_held(log);
	if (log->report && log->place.offset >= log->report_at) {
		log->report = false;
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
	const struct held *h = held_first(log);
	HistoryQuery query = STENTOR__LINK__V1__HISTORY_QUERY__INIT;
	uint64_t lacking = log->seen.offset - log->place.offset;

	if (h != NULL)
		lacking = h->delivery.offset - 1 - log->place.offset;
	list_remove(&log->in_holes);
	log->fetch_from = log->place;
	log->fetch_seen = log->seen;
	query.channel = log->channel->name;
	query.epoch = log->place.epoch;
	query.after = log->place.offset;
	query.messages_max = (uint32_t)min_of(lacking, (uint64_t)LOGS_FETCH);
	query.bytes_max = LOGS_FETCH_BYTES;
	l->counters.fetches++;
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

/* When it was asked for, the log was said to go on after what is its top now:
 * that was lost, or never there. What was delivered since may be real. */
static void forget_beyond(struct log *log, uint64_t top)
{
	struct held *h;

	list_for_each_safe (node, &log->held) {
		h = container_of(node, struct held, in_log);
		if (h->delivery.offset > top &&
		    h->delivery.offset <= log->fetch_seen.offset)
			held_free(log, h);
	}
	log->seen.offset = max_of(log->place.offset, top);
	if (!list_empty(&log->held)) {
		h = container_of(log->held.prev, struct held, in_log);
		log->seen.offset = max_of(log->seen.offset, h->delivery.offset);
	}
	ask(log);
}

static void take_history(struct log *log, const HistoryAnswer *answer)
{
	uint64_t top = answer->top->offset;

	/* Messages that are gone are told by the first that is there. */
	for (size_t i = 0; i < answer->n_messages; i++)
		take_message(log, answer->messages[i], top);
	/* Said to be there, but not given: it is not there. */
	if (log->place.offset <= log->fetch_from.offset)
		skip_to(log, top);
	if (top < log->fetch_seen.offset)
		forget_beyond(log, top);
	pass_held(log);
	if (log->place.offset < top)
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
	if (top.epoch == 0) {
		log->logs->counters.malformed++;
	} else if (before(top, log->fetch_from)) {
		/* A dispatcher answers several of us by one read, which may be
		 * older than our question: the top will tell. */
		ask(log);
	} else if (top.epoch > log->place.epoch) {
		held_clear(log);
		enter_epoch(log, top.epoch);
		log->seen.offset = top.offset;
	} else {
		take_history(log, answer);
	}
	settle(log);
}

/* --- tops -------------------------------------------------------------- */

static void ask(struct log *log)
{
	if (log->asked)
		log->again = true;
	else if (!log->unasked && list_empty(&log->in_asks))
		list_push_back(&log->logs->asks, &log->in_asks);
}

static void become_known(struct log *log, struct place top)
{
	struct logs *l = log->logs;
	struct place seen = log->seen;

	log->known = true;
	log->place = log->seen = top;
	log->report = false;
	if (seen.epoch < top.epoch)
		held_clear(log);
	l->ops->known(l->ctx, log->channel);
	if (seen.epoch > top.epoch)
		enter_epoch(log, seen.epoch);
	if (seen.epoch >= top.epoch)
		log->seen.offset = max_of(seen.offset, top.offset);
}

/* The log reaches at least to `top`. */
static void follow(struct log *log, struct place top)
{
	if (top.epoch > log->place.epoch) {
		held_clear(log);
		enter_epoch(log, top.epoch);
	}
	if (top.epoch == log->place.epoch && top.offset > log->seen.offset) {
		log->logs->counters.behind++;
		log->seen.offset = top.offset;
	}
}

/* There is no log, and the store's clock was set back: what comes next may be
 * older than the place. */
static void set_back(struct log *log, struct place top)
{
	held_clear(log);
	jump(log, top, -1);
}

static void take_top(struct log *log, struct place top)
{
	struct place asked = log->asked_place;
	bool report = log->known && log->report && !log->again;

	/* Deliveries may have moved the place since we asked; only what we had
	 * then can be missing now. */
	if (!log->known)
		become_known(log, top);
	else if (asked.epoch != log->place.epoch || !before(top, asked))
		follow(log, top);
	else if (top.offset > 0 || log->place.offset > 0)
		rewind_to(log, top);
	else
		set_back(log, top);
	log->doubt = log->doubt && log->again;
	if (report)
		log->report_at = log->seen.offset;
	settle(log);
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
		struct place top = {0, 0};

		if (whole)
			top = (struct place){
				answer->tops[log->asked_index]->epoch,
				answer->tops[log->asked_index]->offset};
		log->asked = false;
		/* If not, the sweep asks again. */
		if (top.epoch > 0)
			take_top(log, top);
		else
			l->counters.malformed++;
		if (log->again)
			ask(log);
		log->again = false;
	}
	batch_free(b);
}

static void ask_batch(struct logs *l)
{
	struct batch *b = xcalloc(1, sizeof(*b));
	TopsQuery query = STENTOR__LINK__V1__TOPS_QUERY__INIT;
	char *names[LOGS_TOPS];
	struct list *node;

	b->logs = l;
	list_init(&b->asked);
	question_init(&b->question, on_tops);
	list_push_back(&l->batches, &b->in_logs);
	while (b->count < LOGS_TOPS &&
	       (node = list_pop_front(&l->asks)) != NULL) {
		struct log *log = container_of(node, struct log, in_asks);

		list_push_back(&b->asked, node);
		log->asked = true;
		log->asked_place = log->place;
		log->asked_index = (uint32_t)b->count;
		names[b->count++] = log->channel->name;
	}
	query.n_channels = b->count;
	query.channels = names;
	questions_ask_tops(l->questions, &b->question, &query, l->now_ms);
}

/* Some logs at a time, so that all are asked once in sweep_ms. */
static void sweep(struct logs *l)
{
	struct list *node;

	if (l->now_ms < l->sweep_due_ms)
		return;
	l->sweep_due_ms = l->now_ms + l->sweep_ms / (l->count / LOGS_TOPS + 1);
	for (unsigned i = 0; i < LOGS_TOPS && i < l->count; i++) {
		struct log *log;

		node = list_shift(&l->all, &l->all);
		log = container_of(node, struct log, in_all);
		if (!log->asked)
			ask(log);
	}
}

/* --- from outside ------------------------------------------------------ */

struct log *logs_open(struct logs *l, struct channel *ch)
{
	struct log *log = xcalloc(1, sizeof(*log));

	check(ch->log == NULL);
	log->channel = ch;
	log->logs = l;
	log->unasked = true;
	log->report_at = UINT64_MAX;
	list_init(&log->held);
	list_init(&log->in_holes);
	list_init(&log->in_asks);
	question_init(&log->fetch, on_fetched);
	list_push_back(&l->all, &log->in_all);
	l->count++;
	ch->log = log;
	return log;
}

void logs_close(struct logs *l, struct channel *ch)
{
	struct log *log = ch->log;

	questions_cancel(l->questions, &log->fetch);
	held_clear(log);
	list_remove(&log->in_holes);
	list_remove(&log->in_asks);
	list_remove(&log->in_all);
	l->count--;
	free(log);
	ch->log = NULL;
}

void logs_announced(struct logs *l UNUSED, struct channel *ch)
{
	if (!ch->log->unasked)
		return;
	ch->log->unasked = false;
	ask(ch->log);
}

void logs_ask(struct logs *l UNUSED, struct channel *ch)
{
	ch->log->report = true;
	ch->log->report_at = UINT64_MAX;
	ask(ch->log);
}

void logs_deliver(struct logs *l, struct channel *ch, const LinkDelivery *d,
		  uint64_t now_ms)
{
	struct log *log = ch->log;

	l->now_ms = now_ms;
	if (d->epoch == 0 || d->offset == 0) {
		l->counters.malformed++;
		return;
	}
	if (d->epoch < log->seen.epoch ||
	    (log->known && d->epoch == log->place.epoch &&
	     d->offset <= log->place.offset)) {
		l->counters.doubles++;
		return;
	}
	if (d->epoch > log->seen.epoch) {
		held_clear(log);
		if (log->known)
			enter_epoch(log, d->epoch);
		else
			log->seen = (struct place){d->epoch, 0};
	}
	log->seen.offset = max_of(log->seen.offset, d->offset);
	if (log->known && d->offset - 1 == log->place.offset)
		pass(log, d);
	else
		hold(log, d);
	if (log->known)
		settle(log);
}

void logs_resync(struct logs *l)
{
	l->counters.resyncs++;
	list_for_each (node, &l->all) {
		struct log *log = container_of(node, struct log, in_all);

		log->doubt = true;
		ask(log);
	}
}

void logs_run(struct logs *l, uint64_t now_ms)
{
	l->now_ms = now_ms;
	while (!list_empty(&l->holes)) {
		struct log *log =
			container_of(l->holes.next, struct log, in_holes);

		if (now_ms < log->hole_ms + LOGS_HOLE_MS)
			break;
		fetch(log);
	}
	sweep(l);
	while (!list_empty(&l->asks))
		ask_batch(l);
}

bool logs_waiting(const struct logs *l)
{
	return !list_empty(&l->holes);
}

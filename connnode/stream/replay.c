#include "connnode/stream/replay.h"

#include "common/base/clock.h"
#include "connnode/stream/claim.h"
#include "connnode/stream/session.h"

enum phase {
	PHASE_CLAIMED, /* the log's place is needed */
	PHASE_ASKED,   /* the top is being looked up */
	PHASE_ANSWERED,
	PHASE_RUNNING, /* resolved: `at` is true */
};

struct replay {
	struct replays *all;
	struct subscription *sub;
	struct list in_unplaced; /* the channel's, in every phase but RUNNING */
	struct page_reader reader;
	struct place at; /* the claim, then: it has everything up to here */
	uint64_t ask;	 /* ASKED: logs_ask() */
	uint8_t phase;
	bool claimed;
	bool begun; /* it was given a page */
	bool quiet; /* it begins before what is kept: no gap */
};

/* Three quarters of the memory are for pages, which many share; what waits in
 * streams' queues, the rest, is gone as soon as their sockets take it. */
static size_t queue_share(const struct replays *rs)
{
	return rs->bytes_max / 4;
}

static void wait_in(struct session *s, struct list *line)
{
	list_remove(&s->in_replays);
	list_push_back(line, &s->in_replays);
}

static void run_later(struct replays *rs, struct session *s)
{
	wait_in(s, &rs->running);
}

static void on_loaded(struct page_reader *reader)
{
	struct replay *r = container_of(reader, struct replay, reader);

	run_later(r->all, r->sub->session);
}

void replays_init(struct replays *rs, const struct replays_use *use,
		  const struct replays_ops *ops, size_t bytes_max)
{
	*rs = (struct replays){.use = *use, .ops = ops, .bytes_max = bytes_max};
	slab_init(&rs->slab, sizeof(struct replay));
	pages_init(&rs->pages, use->channels, use->questions,
		   bytes_max - queue_share(rs), on_loaded);
	list_init(&rs->running);
	list_init(&rs->draining);
	list_init(&rs->crowded);
}

void replays_fini(struct replays *rs)
{
	check(rs->count == 0);
	pages_fini(&rs->pages);
	slab_fini(&rs->slab);
}

static void run(struct replay *r)
{
	r->phase = PHASE_RUNNING;
	list_remove(&r->in_unplaced);
}

/* Asks where the log is now, and waits for that. */
static void ask_again(struct replay *r)
{
	struct channel *ch = r->sub->channel;

	r->phase = PHASE_ASKED;
	list_remove(&r->in_unplaced);
	list_push_back(&ch->unplaced, &r->in_unplaced);
	r->ask = logs_ask(r->all->use.logs, ch);
}

static void leave_page(struct replay *r)
{
	pages_leave(&r->all->pages, &r->reader);
}

/* --- beginning and end of a replay ------------------------------------- */

void replay_begin(struct replays *rs, struct subscription *sub,
		  const struct place *claim)
{
	struct replay *r = slab_alloc(&rs->slab);

	*r = (struct replay){.all = rs, .sub = sub, .claimed = claim != NULL};
	if (claim != NULL)
		r->at = *claim;
	list_init(&r->reader.in_page);
	list_push_back(&sub->channel->unplaced, &r->in_unplaced);
	sub->replay = r;
	sub->at = SUBSCRIPTION_HELD;
	sub->session->replays++;
	rs->count++;
}

/* Lets go of it without making it live. */
static void cancel(struct replay *r)
{
	struct replays *rs = r->all;
	struct subscription *sub = r->sub;

	leave_page(r);
	list_remove(&r->in_unplaced);
	sub->replay = NULL;
	sub->at = sub->channel->messages;
	sub->session->replays--;
	rs->count--;
	slab_free(&rs->slab, r);
}

/* It has what was delivered here so far, or more. */
static void go_live(struct replay *r)
{
	struct subscription *sub = r->sub;
	uint64_t at = r->at.offset;

	cancel(r);
	sub->at = at;
}

struct place subscription_place(const struct subscription *sub)
{
	if (sub->replay != NULL)
		return sub->replay->at;
	return (struct place){sub->channel->epoch, sub->at};
}

static void tell_gap(struct replays *rs, struct subscription *sub,
		     const struct gap *gap)
{
	struct session *s = sub->session;
	struct frame *f = rs->ops->gap(s, sub->channel, gap);

	session_push(s, f);
	frame_release(f);
}

/* The last gap that was told to a stream of that channel alone. */
struct told_gap {
	struct frame *frame; /* NULL: none */
	struct gap gap;
	struct place at;
};

static bool gap_equals(const struct gap *a, const struct gap *b)
{
	return a->reason == b->reason && place_equals(a->from, b->from) &&
	       place_equals(a->to, b->to);
}

/* To one of a channel's many, most of which are in the same place and get the
 * same frame. */
static void tell_gap_too(struct replays *rs, struct subscription *sub,
			 const struct gap *gap, struct told_gap *told)
{
	struct session *s = sub->session;
	struct place at = subscription_place(sub);

	if (!(sub->variant & VARIANT_ALONE)) {
		tell_gap(rs, sub, gap);
		return;
	}
	if (told->frame != NULL && gap_equals(&told->gap, gap) &&
	    place_equals(told->at, at)) {
		metric_add(rs->use.metrics, NM_GAPS, gap->reason, 1);
	} else {
		if (told->frame != NULL)
			frame_release(told->frame);
		*told = (struct told_gap){
			.frame = rs->ops->gap(s, sub->channel, gap),
			.gap = *gap,
			.at = at,
		};
	}
	session_push(s, told->frame);
}

static void told_gap_fini(struct told_gap *told)
{
	if (told->frame != NULL)
		frame_release(told->frame);
}

/* --- claims ------------------------------------------------------------ */

static void resolve_claim(struct replay *r)
{
	struct session *s = r->sub->session;
	const struct log *log = r->sub->channel->log;
	struct place claimed = r->at;
	struct gap gap = s->id_bad ? claim_judge_unread(&r->at, log)
				   : claim_judge(&r->at, log);
	enum resume_outcome outcome = RESUME_CURRENT;

	r->sub->moved = claimed.epoch < log->place.epoch;
	if (gap.reason >= 0) {
		/* If it can't be known what it lacks, that is told already. */
		r->quiet = gap.to.epoch == 0;
		tell_gap(r->all, r->sub, &gap);
		outcome = RESUME_GAP;
	} else if (r->at.offset < log->place.offset) {
		outcome = RESUME_REPLAYED;
	}
	metric_add(r->all->use.metrics, NM_RESUME, outcome, 1);
}

static void resolve_fresh(struct replay *r)
{
	const struct channel *ch = r->sub->channel;

	r->at = ch->log->place;
	r->at.offset -=
		min_of(r->at.offset, (uint64_t)ch->rule->history_latest);
	r->quiet = true;
}

/* Our rules don't keep history of the channel, and no dispatcher has a store:
 * what the client's place meant can't be known. */
static void give_up(struct replay *r)
{
	struct replays *rs = r->all;
	struct subscription *sub = r->sub;
	struct gap gap = {.reason = GAP_UNKNOWN, .from = r->at};

	gap.from.offset++;
	cancel(r);
	tell_gap(rs, sub, &gap);
}

static bool hopeless(const struct replays *rs, const struct channel *ch)
{
	return !log_known(ch->log) && !rule_reliable(ch->rule) &&
	       rs->use.announcer->store == 0;
}

bool replays_placed(struct replays *rs, struct session *s)
{
	bool placed = true;

	for (unsigned i = 0; i < s->subscriptions; i++) {
		struct subscription *sub = session_subscription(s, i);
		struct channel *ch = sub->channel;
		struct replay *r = sub->replay;

		if (r == NULL)
			continue;
		if (!log_known(ch->log))
			logs_announced(rs->use.logs, ch);
		if (r->claimed && hopeless(rs, ch)) {
			give_up(r);
			continue;
		}
		if (log_known(ch->log) && r->phase == PHASE_CLAIMED &&
		    r->claimed && claim_ahead(&r->at, ch->log)) {
			/* It may have been faster than we were. */
			ask_again(r);
		}
		placed &= log_known(ch->log) && r->phase != PHASE_ASKED;
	}
	return placed;
}

void replays_resolve(struct session *s)
{
	for (unsigned i = 0; i < s->subscriptions; i++) {
		struct subscription *sub = session_subscription(s, i);
		struct replay *r = sub->replay;

		if (r == NULL)
			continue;
		check(log_known(sub->channel->log));
		if (r->claimed)
			resolve_claim(r);
		else
			resolve_fresh(r);
		run(r);
	}
}

/* --- giving pages to streams ------------------------------------------- */

static void tell_expired(struct replay *r, uint64_t to)
{
	struct gap gap = {
		.reason = GAP_EXPIRED,
		.from = {r->at.epoch, r->at.offset + 1},
		.to = {r->at.epoch, to},
	};

	r->at.offset = to;
	if (!r->quiet)
		tell_gap(r->all, r->sub, &gap);
}

/* The store had nothing after the client's place. True if that is settled. */
static bool give_nothing(struct replay *r)
{
	struct page *p = r->reader.page;
	struct place top = p->top;

	leave_page(r);
	if (top.epoch == r->at.epoch && top.offset > r->at.offset) {
		tell_expired(r, top.offset);
		return true;
	}
	/* Less than was delivered here. It was read before that, or the store
	 * has lost it: logs.c finds out. */
	ask_again(r);
	return false;
}

static void give(struct replays *rs, struct replay *r)
{
	struct session *s = r->sub->session;
	struct page *p = r->reader.page;
	uint64_t now_us = clock_wall_us(), given = 0;
	size_t before = s->out.bytes;

	if (p->frames[0]->offset > r->at.offset + 1)
		tell_expired(r, p->frames[0]->offset - 1);
	r->quiet = false;
	r->begun = true;
	for (size_t i = 0; i < p->count; i++) {
		struct frame *f = p->frames[i];

		if (f->offset <= r->at.offset)
			continue;
		r->at.offset = f->offset;
		if (f->expires_us != 0 && f->expires_us <= now_us)
			continue;
		session_push_message(s, f);
		given++;
	}
	leave_page(r);
	metric_add(rs->use.metrics, NM_REPLAYED, 0, given);
	s->replay_bytes += (uint32_t)(s->out.bytes - before);
	rs->queued_bytes += s->out.bytes - before;
}

static bool has_room(const struct replays *rs, size_t bytes)
{
	return rs->queued_bytes == 0 ||
	       rs->queued_bytes + bytes <= queue_share(rs);
}

/* The replay whose turn it is: a stream's channels come one after another. */
static struct replay *next_replay(struct session *s)
{
	for (unsigned i = 0; s->replays > 0 && i < s->subscriptions; i++) {
		struct replay *r = session_subscription(s, i)->replay;

		if (r != NULL && r->phase == PHASE_RUNNING)
			return r;
	}
	return NULL;
}

/* Whether there is room for the page that the first in line waits for. */
static bool crowd_may_go(const struct replays *rs)
{
	const struct replay *r;

	if (list_empty(&rs->crowded))
		return false;
	r = next_replay(
		container_of(rs->crowded.next, struct session, in_replays));
	return r == NULL || r->reader.page == NULL ||
	       has_room(rs, r->reader.page->bytes);
}

/* Goes on with one replay. True when it is over; else it waits: for its page,
 * for its socket, for memory, or for logs.c. */
static bool catch_up(struct replays *rs, struct replay *r)
{
	struct session *s = r->sub->session;
	struct channel *ch = r->sub->channel;

	while (s->replay_bytes == 0) {
		check(r->at.epoch == ch->epoch);
		if (r->at.offset >= ch->messages) {
			leave_page(r);
			go_live(r);
			return true;
		}
		if (r->reader.page == NULL)
			pages_join(&rs->pages, &r->reader, ch, r->at,
				   r->sub->variant, r->begun);
		if (r->reader.page->state != PAGE_LOADED)
			return false;
		if (r->reader.page->count == 0) {
			if (!give_nothing(r))
				return false;
		} else if (has_room(rs, r->reader.page->bytes)) {
			give(rs, r);
		} else {
			wait_in(s, &rs->crowded);
			return false;
		}
	}
	return false;
}

static void serve(struct replays *rs, struct session *s, uint64_t now_ms)
{
	struct replay *r;

	while (!s->doomed && (r = next_replay(s)) != NULL && catch_up(rs, r))
		;
	if (s->replay_bytes > 0) {
		s->replay_since_ms = (uint32_t)now_ms;
		wait_in(s, &rs->draining);
	}
}

void replays_start(struct replays *rs, struct session *s)
{
	struct channel *ch;
	struct replay *r;

	/* Most are level: they need no turn of their own. */
	for (unsigned i = 0; s->replays > 0 && i < s->subscriptions; i++) {
		r = session_subscription(s, i)->replay;
		ch = session_subscription(s, i)->channel;
		if (r != NULL && r->phase == PHASE_RUNNING &&
		    r->at.offset >= ch->messages)
			go_live(r);
	}
	if (s->replays > 0)
		run_later(rs, s);
}

void replay_drained(struct replays *rs, struct session *s)
{
	if (s->replay_bytes == 0)
		return;
	rs->queued_bytes -= s->replay_bytes;
	s->replay_bytes = 0;
	list_remove(&s->in_replays);
	if (s->replays > 0)
		run_later(rs, s);
}

void replays_leave(struct replays *rs, struct session *s)
{
	for (unsigned i = 0; s->replays > 0 && i < s->subscriptions; i++) {
		struct replay *r = session_subscription(s, i)->replay;

		if (r != NULL)
			cancel(r);
	}
	list_remove(&s->in_replays);
	rs->queued_bytes -= s->replay_bytes;
	s->replay_bytes = 0;
}

unsigned replays_run(struct replays *rs, unsigned budget, uint64_t now_ms)
{
	unsigned most = max_of(min_of(budget / REPLAY_WORK, REPLAY_SLICE), 1u);
	struct list now, *node;
	unsigned served = 0;

	pages_run(&rs->pages);
	list_init(&now);
	list_splice_back(&now, &rs->running);
	if (crowd_may_go(rs))
		list_splice_back(&now, &rs->crowded);
	while (served < most && (node = list_pop_front(&now)) != NULL) {
		serve(rs, container_of(node, struct session, in_replays),
		      now_ms);
		served++;
	}
	list_splice_back(&now, &rs->running);
	list_splice_back(&rs->running, &now);
	return served * REPLAY_WORK;
}

bool replays_pending(const struct replays *rs)
{
	return !list_empty(&rs->running) || pages_pending(&rs->pages) ||
	       crowd_may_go(rs);
}

void replays_tick(struct replays *rs, uint64_t now_ms)
{
	pages_tick(&rs->pages, now_ms);
	if (list_empty(&rs->crowded))
		return;
	list_for_each_safe (node, &rs->draining) {
		struct session *s =
			container_of(node, struct session, in_replays);

		if ((uint32_t)now_ms - s->replay_since_ms < REPLAY_DRAIN_MS)
			break;
		session_doom(s, CLOSED_SLOW);
		list_remove(&s->in_replays);
	}
}

/* --- what becomes of logs ---------------------------------------------- */

static struct subscription *subscription_of(struct list *node)
{
	return container_of(node, struct subscription, in_channel);
}

static void on_known(struct replays *rs, struct replay *r)
{
	struct session *s = r->sub->session;

	if (r->phase == PHASE_ASKED && !logs_told(r->sub->channel->log, r->ask))
		return;
	if (!s->ready) {
		if (r->phase == PHASE_ASKED)
			r->phase = PHASE_ANSWERED;
		rs->ops->placed(s);
		return;
	}
	run(r);
	replays_start(rs, s);
}

/* Whoever comes with a place that we don't know makes this happen, so it
 * concerns those alone who wait: no other subscriber, and no fan-out. */
void replays_known(struct replays *rs, struct channel *ch)
{
	list_for_each_safe (node, &ch->unplaced)
		on_known(rs, container_of(node, struct replay, in_unplaced));
}

/* Where it is, if that is decided; else it is judged later, by the new place.
 */
static bool is_somewhere(const struct subscription *sub)
{
	return sub->replay == NULL || sub->session->ready;
}

static void move_to(struct subscription *sub, struct place to)
{
	if (sub->replay != NULL)
		sub->replay->at = to;
	else
		sub->at = to.offset;
}

/* What it waited for, a page or a top, is of no use at its new place. */
static void begin_anew(struct replay *r)
{
	struct session *s = r->sub->session;

	leave_page(r);
	run(r);
	run_later(r->all, s);
}

void replays_skipped(struct replays *rs, struct channel *ch, uint64_t to)
{
	uint64_t from = ch->messages;
	struct gap gap = {.reason = GAP_EXPIRED, .to = {ch->epoch, to}};
	struct told_gap told = {0};

	fanout_finish(rs->use.fanout, ch);
	ch->messages = to;
	list_for_each (node, &ch->subscriptions) {
		struct subscription *sub = subscription_of(node);
		struct place at = subscription_place(sub);

		/* Behind is behind as before. */
		if (!is_somewhere(sub) || at.offset < from || at.offset >= to)
			continue;
		gap.from = (struct place){ch->epoch, at.offset + 1};
		move_to(sub, gap.to);
		tell_gap_too(rs, sub, &gap, &told);
	}
	told_gap_fini(&told);
}

void replays_moved(struct replays *rs, struct channel *ch, struct place to)
{
	uint64_t from = ch->epoch;
	struct told_gap told = {0};
	struct gap gap;

	fanout_finish(rs->use.fanout, ch);
	ch->epoch = to.epoch;
	ch->messages = to.offset;
	list_for_each (node, &ch->subscriptions) {
		struct subscription *sub = subscription_of(node);
		struct place at = {from, subscription_place(sub).offset};

		if (!is_somewhere(sub))
			continue;
		check(past_map(ch->log->past, &at, &gap));
		sub->moved = true;
		move_to(sub, at);
		if (gap.reason >= 0)
			tell_gap_too(rs, sub, &gap, &told);
		if (sub->replay != NULL)
			begin_anew(sub->replay);
	}
	told_gap_fini(&told);
}

void replays_lost(struct replays *rs, struct channel *ch, const struct gap *gap)
{
	struct told_gap told = {0};

	fanout_finish(rs->use.fanout, ch);
	list_for_each (node, &ch->subscriptions) {
		struct subscription *sub = subscription_of(node);

		/* Nothing of an earlier epoch is owed to newcomers. */
		if (is_somewhere(sub) && sub->moved)
			tell_gap_too(rs, sub, gap, &told);
	}
	told_gap_fini(&told);
}

void replays_log_closed(struct replays *rs, struct channel *ch)
{
	fanout_finish(rs->use.fanout, ch);
	list_for_each (node, &ch->subscriptions) {
		struct subscription *sub = subscription_of(node);

		if (sub->replay != NULL)
			cancel(sub->replay);
		if (!sub->session->ready)
			rs->ops->placed(sub->session);
	}
	ch->epoch = 0;
	pages_close(&rs->pages, ch);
}

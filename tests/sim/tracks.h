/* tracks.h - the oracle of reliable channels: what each worker was passed, what
 * it was told that it misses, and what it is owed.
 *
 * It stands where fanout.c and replay.c do in the programs, and compares with the
 * truth (store.h) at every call; at the end, when everything had time to arrive,
 * check_logs() compares the sums, and check_sweep() says that they came by
 * themselves.
 */
#ifndef STENTOR_TESTS_SIM_TRACKS_H
#define STENTOR_TESTS_SIM_TRACKS_H

#include "tests/sim/parts.h"

static void fail_log(const struct sim_worker *w, unsigned channel,
		     const char *what, struct place place)
{
	const struct track *t = &w->tracks[channel];

	fail("w%u: %s: %s: %llu:%llu, it is at %llu:%llu", w->index,
	     channel_names[channel], what, (unsigned long long)place.epoch,
	     (unsigned long long)place.offset, (unsigned long long)t->at.epoch,
	     (unsigned long long)t->at.offset);
}

/* The number of the log that a worker's place is in. */
static unsigned number_at(const struct sim_worker *w, unsigned channel,
			  struct place place)
{
	unsigned number = number_of(channel, place.epoch);

	if (number != LOGS)
		return number;
	/* No log yet: a clock. */
	return channel + (w->announcer.store == STORE_ID + 1 ? RELIABLE : 0);
}

/* Exactly what the store has, in its order, each message once. */
static void on_worker_pass(void *ctx, struct channel *ch, const LinkDelivery *d)
{
	struct sim_worker *w = ctx;
	unsigned channel = channel_number(ch->name);
	struct track *t = &w->tracks[channel];
	struct place place = {d->epoch, t->at.offset + 1};
	struct sim_message *m = message_at(t->number, place);
	const struct frame *stored;
	struct frame *record;

	if (!t->known || d->epoch > t->at.epoch || d->offset != place.offset)
		fail_log(w, channel, "out of order",
			 (struct place){d->epoch, d->offset});
	if (strcmp(d->channel, ch->name) != 0 || m == NULL)
		fail_log(w, channel, "never was", place);
	stored = log_of(t->number, d->epoch)->records[d->offset - 1];
	record = link_record_encode(d);
	if (record->len != stored->len ||
	    memcmp(record->bytes, stored->bytes, record->len) != 0 ||
	    message_at(t->number, (struct place){t->at.epoch, d->offset}) != m)
		fail_log(w, channel, "another message", place);
	frame_release(record);
	if (t->got[m - store.messages] == PASSED)
		fail_log(w, channel, "doubled", place);
	if (t->got[m - store.messages] == TOLD)
		fail_log(w, channel, "was told to be lost", place);
	t->got[m - store.messages] = PASSED;
	t->at.offset++;
	cluster.total.passed++;
}

static void on_worker_known(void *ctx, struct channel *ch)
{
	struct sim_worker *w = ctx;
	unsigned channel = channel_number(ch->name);
	struct track *t = &w->tracks[channel];
	struct place place = ch->log->place;

	trace("w%llu: channel %llu is at %llu:%llu", w->index, channel,
	      place.epoch, place.offset);
	if (!t->known) {
		t->number = number_at(w, channel, place);
		t->at = t->begun = place;
		t->begun_ms = world.now_ms;
	}
	t->known = true;
	if (memcmp(&t->at, &place, sizeof(place)) != 0)
		fail_log(w, channel, "known to be elsewhere", place);
	if (!store.rewinds && t->number < RELIABLE &&
	    place_before(place, (struct place){t->from.epoch, t->from.offset}))
		fail_log(w, channel, "known to be older than it was", place);
}

/* Whether a message was ever appended between the place and `to`. */
static bool anything_between(unsigned number, struct place from,
			     struct place to)
{
	for (unsigned i = 0; i < store.count[number]; i++) {
		const struct sim_log *log = &store.logs[number][i];
		struct place top = {log->epoch, log->ever};

		if (log->epoch <= to.epoch && log->ever > 0 &&
		    place_before(from, top) &&
		    (log->epoch < to.epoch || to.offset > 0))
			return true;
	}
	return false;
}

/* Whether the epoch that the worker is in from now on has the message. */
static bool is_carried(const struct track *t, uint64_t present, uint64_t m)
{
	const struct sim_log *log = log_of(t->number, present);
	uint64_t offset = store.messages[m].place.offset;

	return log != NULL && offset <= log->ever &&
	       log->records[offset - 1]->accepted_us == m + 1;
}

/* What a gap tells will not come any more, so all of it may have been missed,
 * and nothing of it may come: what its epochs have in common with the present
 * one is not in it. */
static void take_gap(struct sim_worker *w, unsigned channel,
		     const struct gap *gap, uint64_t present)
{
	struct track *t = &w->tracks[channel];

	cluster.total.gaps[gap->reason]++;
	if (gap->from.offset == 0 || place_before(gap->to, gap->from))
		fail_log(w, channel, "no gap", gap->from);
	for (uint64_t i = 0; i < store.message_count; i++) {
		const struct sim_message *m = &store.messages[i];
		struct place last = gap->to, at = m->place;

		/* It may have been carried into the epoch that is left. */
		if (m->number == t->number && at.epoch < gap->from.epoch &&
		    is_carried(t, gap->from.epoch, i))
			at.epoch = gap->from.epoch;
		/* The beginning of a later epoch is not missing. */
		if (gap->to.epoch > gap->from.epoch)
			last.offset = 0;
		if (m->number != t->number || place_before(at, gap->from) ||
		    place_before(last, at))
			continue;
		if (t->got[i] != PASSED && !is_carried(t, present, i))
			t->got[i] = TOLD;
	}
}

static void on_worker_skipped(void *ctx, struct channel *ch, uint64_t to)
{
	struct sim_worker *w = ctx;
	unsigned channel = channel_number(ch->name);
	struct track *t = &w->tracks[channel];
	const struct sim_log *log = log_of(t->number, t->at.epoch);

	trace("w%llu: channel %llu skips to %llu:%llu", w->index, channel,
	      t->at.epoch, to);
	if (to <= t->at.offset)
		fail_log(w, channel, "skipped back", t->at);
	if (log == NULL || to > log->kept)
		fail_log(w, channel, "it was not expired",
			 (struct place){t->at.epoch, to});
	cluster.total.gaps[GAP_EXPIRED]++;
	while (t->at.offset < to) {
		t->at.offset++;
		t->got[message_at(t->number, t->at) - store.messages] = TOLD;
	}
}

/* A place is moved to where both epochs are still the same. */
static void on_worker_moved(void *ctx, struct channel *ch, struct place to)
{
	struct sim_worker *w = ctx;
	unsigned channel = channel_number(ch->name);
	struct track *t = &w->tracks[channel];
	unsigned number = number_at(w, channel, to);
	const struct sim_log *old = log_of(number, t->at.epoch);
	const struct sim_log *new = log_of(number, to.epoch);
	uint64_t common = old && new ? store_common(old, new) : 0;
	struct place at = t->at;
	struct gap gap;

	trace("w%llu: channel %llu moves to %llu:%llu", w->index, channel,
	      to.epoch, to.offset);
	if (memcmp(&t->at, &ch->log->place, sizeof(t->at)) != 0)
		fail_log(w, channel, "moved from elsewhere", to);
	if (to.epoch <= t->at.epoch ||
	    to.offset != min_of(t->at.offset, common))
		fail_log(w, channel, "moved to the wrong place", to);
	if (!past_map(ch->log->past, &at, &gap) ||
	    memcmp(&at, &to, sizeof(at)) != 0)
		fail_log(w, channel, "its readers are moved elsewhere", to);
	if (number != t->number) {
		cluster.total.switched++;
		t->number = number;
		t->begun = to;
		t->begun_ms = world.now_ms;
	} else if (gap.reason >= 0) {
		if (cluster.calm && !anything_between(number, t->at, to))
			fail_log(w, channel, "nothing was missed", to);
		take_gap(w, channel, &gap, to.epoch);
	}
	t->at = to;
}

static void on_worker_lost(void *ctx, struct channel *ch, const struct gap *gap)
{
	struct sim_worker *w = ctx;
	unsigned channel = channel_number(ch->name);

	trace("w%llu: lost %llu:%llu", w->index, gap->from.epoch,
	      gap->from.offset);
	cluster.total.late++;
	take_gap(w, channel, gap, w->tracks[channel].at.epoch);
}

static bool on_worker_whole(void *ctx)
{
	return announcer_whole(&((struct sim_worker *)ctx)->announcer);
}

static const struct logs_ops worker_logs_ops = {
	.pass = on_worker_pass,
	.known = on_worker_known,
	.skipped = on_worker_skipped,
	.moved = on_worker_moved,
	.lost = on_worker_lost,
	.whole = on_worker_whole,
};

static const struct upstream *on_worker_ask(void *ctx, struct frame *control,
					    const struct upstream *except)
{
	struct sim_worker *w = ctx;

	return announcer_ask(&w->announcer, control, except);
}

static const struct questions_ops worker_questions_ops = {
	.send = on_worker_ask};

/* What was not known at once is known by now, if whoever asked lives; but if the
 * store went back meanwhile, nobody can know that it was there. */
static bool is_owed(const struct sim_message *m)
{
	return m->owed || (m->doubt != 0 && m->lost_ms == UINT64_MAX);
}

/* Every acknowledged message was passed on, or told. Those before the worker's
 * own beginning are not owed, nor what was lost before that. */
static void check_owed(struct sim_worker *w, unsigned channel)
{
	const struct track *t = &w->tracks[channel];

	for (uint64_t i = 0; i < store.message_count; i++) {
		const struct sim_message *m = &store.messages[i];

		if (m->number != t->number || !is_owed(m) ||
		    !place_before(t->begun, m->place) ||
		    m->lost_ms <= t->begun_ms)
			continue;
		if (t->got[i] == NOTHING)
			fail_log(w, channel, "silently lost", m->place);
		cluster.total.owed++;
	}
}

/* Whether more of those that it can dial follow another store than its own. */
static bool is_outvoted(const struct sim_dispatcher *d)
{
	unsigned own = 0, strangers = 0;

	for (unsigned i = 0; i < cluster.workers; i++) {
		uint64_t follows = cluster.worker[i].announcer.store;

		if (d->barred[i])
			continue;
		own += follows == STORE_ID + d->store;
		strangers += follows != 0 && follows != STORE_ID + d->store;
	}
	return strangers > own;
}

/* Whether any dispatcher of the store that it follows can dial it, and may
 * speak for that store. */
static bool is_reachable(const struct sim_worker *w)
{
	for (unsigned i = 0; i < cluster.dispatchers; i++) {
		const struct sim_dispatcher *d = &cluster.dispatcher[i];

		if (!d->barred[w->index] && !is_outvoted(d) &&
		    (w->announcer.store == 0 ||
		     w->announcer.store == STORE_ID + d->store))
			return true;
	}
	return false;
}

/* The newest message that everybody must have by now. */
static struct place newest_owed(unsigned number)
{
	const struct sim_log *log = current_log(number);
	struct place newest = {0, 0};

	/* What nobody heard of is found by the sweep only. */
	if (log != NULL && cluster.sweep_ms == SWEEP_MS)
		return (struct place){log->epoch, log->top};
	for (uint64_t i = 0; i < store.message_count; i++) {
		const struct sim_message *m = &store.messages[i];

		if (m->number == number && is_owed(m) &&
		    place_before(newest, m->place))
			newest = m->place;
	}
	return newest;
}

/* Everything had time to arrive: each worker is where its store is. */
static void check_logs(void)
{
	for (unsigned i = 0; i < cluster.workers * RELIABLE; i++) {
		struct sim_worker *w = &cluster.worker[i / RELIABLE];
		unsigned channel = i % RELIABLE;
		const struct track *t = &w->tracks[channel];
		const struct sim_log *log = current_log(t->number);
		struct place top = newest_owed(t->number);

		if (w->on_channel[channel] == 0 || !is_reachable(w))
			continue;
		if (!t->known)
			fail_log(w, channel, "never known", t->at);
		/* One question may be the sweep's. */
		if (w->questions.by_id.count > 1 || w->logs.held_bytes > 0 ||
		    logs_waiting(&w->logs))
			fail_log(w, channel, "not at rest", t->at);
		if (log != NULL && top.epoch == log->epoch &&
		    top.offset <= log->top && place_before(t->at, top))
			fail_log(w, channel, "lacks messages", top);
		check_owed(w, channel);
	}
}

static bool sweep_may_find(void)
{
	return cluster.marks_loss > 0 || news.oblivion > 0;
}

/* The sweep is a safety net: with all faults over for long enough, or none but
 * of stores and news, it finds nothing, unless something was lost that nobody
 * can notice. */
static void check_sweep(void)
{
	for (unsigned i = 0; i < cluster.workers; i++) {
		struct sim_worker *w = &cluster.worker[i];

		if (w->logs.counters.swept > w->swept && !sweep_may_find())
			fail("w%u: the sweep found %llu", i,
			     (unsigned long long)(w->logs.counters.swept -
						  w->swept));
	}
}

static void check_sweep_from_now(void)
{
	for (unsigned i = 0; i < cluster.workers; i++)
		cluster.worker[i].swept = cluster.worker[i].logs.counters.swept;
}

#endif

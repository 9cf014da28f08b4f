/* workers.h - what a simulated cluster is made of, and its workers: subscribers
 * above the real pure cores, with what each has to get and to be told.
 */
#ifndef STENTOR_TESTS_SIM_WORKERS_H
#define STENTOR_TESTS_SIM_WORKERS_H

#include "connnode/announcer.h"
#include "connnode/channels.h"
#include "connnode/logs.h"
#include "dispatcher/counts.h"
#include "dispatcher/history.h"
#include "dispatcher/publish.h"
#include "tests/sim/store.h"

#define WORKERS_MAX	5
#define SUBSCRIBERS_MAX 24 /* of one worker */
#define TICK_MS		100
#define SETTLE_MS	2000
#define QUEUE_BYTES	(4u << 20)
#define QUEUE_NARROW	(192u << 10)
#define QUEUE_TIGHT	8192
#define HELD_BYTES	(1u << 20)
#define HELD_FEW	2000
#define SWEEP_MS	3000
#define SWEEP_NEVER	(1000u * SWEEP_MS)

/* A message that a subscriber must get while the link that carries it lives. */
struct expected {
	uint64_t link; /* epoch of the dispatcher's side */
	uint64_t number;
};

/* What a subscriber gets from one dispatcher. */
struct feed {
	uint64_t instance; /* of the dispatcher */
	uint64_t last;	   /* number of the newest message */
	struct expected *expected;
	size_t first, count, cap;
};

struct subscriber {
	struct subscription subscription;
	struct list in_worker;
	unsigned channel;
	uint64_t id, generation;
	bool ready;
	struct feed feeds[DISPATCHERS_MAX];
};

/* What a worker has passed on of a reliable channel. */
struct track {
	bool known;
	struct place at, begun;
	uint64_t begun_ms;
	struct store_place from; /* the log's top when it was opened */
	/* By number of a message, less one. */
	enum { NOTHING, PASSED, TOLD } got[MESSAGES_MAX];
};

struct sim_worker {
	struct process process;
	unsigned index;
	char node[24], address[24];
	struct channels channels;
	struct announcer announcer;
	struct questions questions;
	struct logs logs;
	struct track tracks[RELIABLE];
	struct list subscribers;
	unsigned count, on_channel[CHANNELS];
	uint64_t tick_ms, dead_until_ms, held_until_ms;
	uint64_t link; /* sender's epoch of the frame being received */
	bool whole;    /* at the last tick */
};

struct sim_dispatcher {
	struct process process;
	unsigned index;
	struct nodes nodes;
	struct publisher publisher;
	struct history history;
	struct counts counts;
	uint64_t tick_ms, again_ms, started_ms, dead_until_ms;
	uint64_t heard_ms[WORKERS_MAX];
};

static struct {
	unsigned dispatchers, workers;
	bool alias; /* workers know dispatcher 0 by two addresses */
	bool calm;  /* nothing fails */
	bool drops; /* queues so small that messages are dropped */
	bool tight; /* so small that no answer from the store fits */
	size_t queue_bytes, held_bytes;
	uint64_t sweep_ms;
	uint64_t subscribers;
	struct {
		uint64_t delivered, confirmed, expected, links;
		uint64_t passed, fetched, gaps[GAP_REASONS];
		uint64_t late; /* told to be lost after the move */
		uint64_t owed; /* acknowledged, and passed on or told */
	} total;
	struct sim_dispatcher dispatcher[DISPATCHERS_MAX];
	struct sim_worker worker[WORKERS_MAX];
} cluster;

static struct rule rules_of_all[] = {
	{.pattern = "log:*",
	 .priority = PRIORITY_NORMAL,
	 .history_size = HISTORY_SIZE,
	 .history_ttl_ms = HISTORY_TTL},
	{.pattern = "critical:*", .priority = PRIORITY_CRITICAL},
	{.pattern = "droppable:*", .priority = PRIORITY_DROPPABLE},
	{.pattern = "*", .priority = PRIORITY_NORMAL},
};
static const struct rules rules = {.rule = rules_of_all, .count = 4};

/* "tcp://d0", "tcp://d0b" (the same), "tcp://w3" */
static struct process *process_at(const char *address)
{
	unsigned index = (unsigned)(address[7] - '0');

	return address[6] == 'd' ? &cluster.dispatcher[index].process
				 : &cluster.worker[index].process;
}

/* --- subscribers ------------------------------------------------------- */

static void feed_clear(struct feed *f)
{
	free(f->expected);
	*f = (struct feed){0};
}

static void feed_expect(struct feed *f, uint64_t link, uint64_t number)
{
	if (f->first > 0 && f->first + f->count == f->cap) {
		memmove(f->expected, f->expected + f->first,
			f->count * sizeof(*f->expected));
		f->first = 0;
	}
	if (f->count == f->cap) {
		f->cap = max_of(f->cap * 2, 16u);
		f->expected =
			xrealloc(f->expected, f->cap * sizeof(*f->expected));
	}
	f->expected[f->first + f->count++] = (struct expected){link, number};
	cluster.total.expected++;
}

/* A message arrived over `link`: what was expected before it must have come,
 * unless it was sent over another link. */
static void feed_take(struct subscriber *s, struct feed *f, uint64_t link,
		      uint64_t number)
{
	if (number <= f->last)
		fail("subscriber %llu of %s got %llu after %llu",
		     (unsigned long long)s->id, channel_names[s->channel],
		     (unsigned long long)number, (unsigned long long)f->last);
	f->last = number;
	cluster.total.delivered++;
	while (f->count > 0) {
		const struct expected *e = &f->expected[f->first];

		if (e->number > number)
			return;
		if (e->number < number && e->link == link)
			fail("subscriber %llu of %s missed %llu, got %llu",
			     (unsigned long long)s->id,
			     channel_names[s->channel],
			     (unsigned long long)e->number,
			     (unsigned long long)number);
		f->first++;
		f->count--;
	}
}

static void subscriber_add(struct sim_worker *w, unsigned channel)
{
	struct subscriber *s = xcalloc(1, sizeof(*s));
	const char *name = channel_names[channel];
	struct channel *ch = channels_get(&w->channels, name, strlen(name));

	s->id = ++cluster.subscribers;
	s->channel = channel;
	list_push_back(&w->subscribers, &s->in_worker);
	w->count++;
	w->on_channel[channel]++;
	if (channels_subscribe(&w->channels, ch, &s->subscription,
			       (struct session *)s, 0))
		announcer_touch(&w->announcer, ch);
	if (channel < RELIABLE && ch->log == NULL) {
		logs_open(&w->logs, ch, LOGS_SINCE_NOW);
		memset(&w->tracks[channel], 0, sizeof(w->tracks[channel]));
		w->tracks[channel].from = store_top(channel);
	}
	s->generation = ch->generation;
	w->process.busy = true;
	trace("w%llu: subscriber %llu of channel %llu, generation %llu",
	      w->index, s->id, channel, s->generation);
}

static void subscriber_remove(struct sim_worker *w, struct subscriber *s)
{
	struct channel *ch = s->subscription.channel;

	if (channels_unsubscribe(&w->channels, &s->subscription)) {
		announcer_touch(&w->announcer, ch);
		if (ch->log != NULL)
			logs_close(&w->logs, ch);
	}
	list_remove(&s->in_worker);
	w->count--;
	w->on_channel[s->channel]--;
	w->process.busy = true;
	trace("w%llu: subscriber %llu leaves channel %llu", w->index, s->id,
	      s->channel);
	for (unsigned i = 0; i < DISPATCHERS_MAX; i++)
		feed_clear(&s->feeds[i]);
	free(s);
}

/* --- reliable channels ------------------------------------------------- */

static void fail_log(const struct sim_worker *w, unsigned channel,
		     const char *what, struct place place)
{
	const struct track *t = &w->tracks[channel];

	fail("w%u: %s: %s: %llu:%llu, it is at %llu:%llu", w->index,
	     channel_names[channel], what, (unsigned long long)place.epoch,
	     (unsigned long long)place.offset, (unsigned long long)t->at.epoch,
	     (unsigned long long)t->at.offset);
}

/* Exactly what the store has, in its order, each message once. */
static void on_worker_pass(void *ctx, struct channel *ch, const LinkDelivery *d)
{
	struct sim_worker *w = ctx;
	unsigned channel = channel_number(ch->name);
	struct track *t = &w->tracks[channel];
	struct place place = {d->epoch, t->at.offset + 1};
	struct sim_message *m = message_at(channel, place);
	const struct frame *stored;
	struct frame *record;

	if (!t->known || d->epoch > t->at.epoch || d->offset != place.offset)
		fail_log(w, channel, "out of order",
			 (struct place){d->epoch, d->offset});
	if (strcmp(d->channel, ch->name) != 0 || m == NULL)
		fail_log(w, channel, "never was", place);
	stored = log_of(channel, d->epoch)->records[d->offset - 1];
	record = link_record_encode(d);
	if (record->len != stored->len ||
	    memcmp(record->bytes, stored->bytes, record->len) != 0 ||
	    message_at(channel, (struct place){t->at.epoch, d->offset}) != m)
		fail_log(w, channel, "another message", place);
	frame_release(record);
	if (t->got[m - store.messages] == PASSED)
		fail_log(w, channel, "doubled", place);
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
		t->at = t->begun = place;
		t->begun_ms = world.now_ms;
	}
	t->known = true;
	if (memcmp(&t->at, &place, sizeof(place)) != 0)
		fail_log(w, channel, "known to be elsewhere", place);
	if (!store.rewinds &&
	    place_before(place, (struct place){t->from.epoch, t->from.offset}))
		fail_log(w, channel, "known to be older than it was", place);
}

/* Whether a message was ever appended between the place and `to`. */
static bool anything_between(unsigned channel, struct place from,
			     struct place to)
{
	for (unsigned i = 0; i < store.count[channel]; i++) {
		const struct sim_log *log = &store.logs[channel][i];
		struct place top = {log->epoch, log->ever};

		if (log->epoch <= to.epoch && log->ever > 0 &&
		    place_before(from, top) &&
		    (log->epoch < to.epoch || to.offset > 0))
			return true;
	}
	return false;
}

/* What a gap tells will not come any more, so all of it may have been missed,
 * and nothing of it may come. */
static void take_gap(struct sim_worker *w, unsigned channel,
		     const struct gap *gap)
{
	struct track *t = &w->tracks[channel];

	cluster.total.gaps[gap->reason]++;
	if (gap->from.offset == 0 || place_before(gap->to, gap->from))
		fail_log(w, channel, "no gap", gap->from);
	for (uint64_t i = 0; i < store.message_count; i++) {
		const struct sim_message *m = &store.messages[i];
		struct place last = gap->to;

		/* The beginning of a later epoch is not missing. */
		if (gap->to.epoch > gap->from.epoch)
			last.offset = 0;
		if (m->channel != channel ||
		    place_before(m->place, gap->from) ||
		    place_before(last, m->place))
			continue;
		if (t->got[i] != PASSED)
			t->got[i] = TOLD;
	}
}

static void on_worker_skipped(void *ctx, struct channel *ch, uint64_t to)
{
	struct sim_worker *w = ctx;
	unsigned channel = channel_number(ch->name);
	struct track *t = &w->tracks[channel];
	const struct sim_log *log = log_of(channel, t->at.epoch);

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
		t->got[message_at(channel, t->at) - store.messages] = TOLD;
	}
}

/* A place is moved to where both epochs are still the same. */
static void on_worker_moved(void *ctx, struct channel *ch, struct place to)
{
	struct sim_worker *w = ctx;
	unsigned channel = channel_number(ch->name);
	struct track *t = &w->tracks[channel];
	const struct sim_log *old = log_of(channel, t->at.epoch);
	const struct sim_log *new = log_of(channel, to.epoch);
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
	if (gap.reason >= 0) {
		if (cluster.calm && !anything_between(channel, t->at, to))
			fail_log(w, channel, "nothing was missed", to);
		take_gap(w, channel, &gap);
	}
	t->at = to;
}

static void on_worker_lost(void *ctx, struct channel *ch, const struct gap *gap)
{
	struct sim_worker *w = ctx;

	trace("w%llu: lost %llu:%llu", w->index, gap->from.epoch,
	      gap->from.offset);
	cluster.total.late++;
	take_gap(w, channel_number(ch->name), gap);
}

/* What the heartbeats tell in the programs. */
static bool on_worker_whole(void *ctx)
{
	const struct sim_worker *w = ctx;
	unsigned links = 0;

	for (unsigned i = 0; i < cluster.dispatchers; i++) {
		const struct process *p = &cluster.dispatcher[i].process;
		bool linked = !p->alive;

		list_for_each (node, &w->announcer.upstreams) {
			const struct upstream *u = container_of(
				node, struct upstream, in_announcer);

			linked |= u->phase == UPSTREAM_UP && u->knows_all &&
				  process_at(u->address) == p;
		}
		links += linked;
	}
	return links == cluster.dispatchers;
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

/* Every acknowledged message was passed on, or told. Those before the worker's
 * own beginning are not owed, nor what was lost before that. */
static void check_owed(struct sim_worker *w, unsigned channel)
{
	const struct track *t = &w->tracks[channel];

	for (uint64_t i = 0; i < store.message_count; i++) {
		const struct sim_message *m = &store.messages[i];

		if (m->channel != channel || !m->acknowledged ||
		    !place_before(t->begun, m->place) ||
		    m->lost_ms <= t->begun_ms)
			continue;
		if (t->got[i] == NOTHING)
			fail_log(w, channel, "silently lost", m->place);
		cluster.total.owed++;
	}
}

/* Everything had time to arrive: each worker is where the store is. */
static void check_logs(void)
{
	for (unsigned i = 0; i < cluster.workers * RELIABLE; i++) {
		struct sim_worker *w = &cluster.worker[i / RELIABLE];
		unsigned channel = i % RELIABLE;
		const struct track *t = &w->tracks[channel];
		const struct sim_log *log = current_log(channel);
		struct place top = store.acknowledged[channel];

		if (w->on_channel[channel] == 0)
			continue;
		if (!t->known)
			fail_log(w, channel, "never known", t->at);
		/* One question may be the sweep's. */
		if (w->questions.by_id.count > 1 || w->logs.held_bytes > 0 ||
		    logs_waiting(&w->logs))
			fail_log(w, channel, "not at rest", t->at);
		/* What was appended, but never acknowledged or routed, is
		 * found by the sweep only. */
		if (log != NULL && cluster.sweep_ms == SWEEP_MS)
			top = (struct place){log->epoch, log->top};
		if (log != NULL && top.epoch == log->epoch &&
		    top.offset <= log->top && place_before(t->at, top))
			fail_log(w, channel, "lacks messages", top);
		if (!cluster.drops)
			check_owed(w, channel);
	}
}

/* --- worker ------------------------------------------------------------ */

static int on_worker_send(void *ctx UNUSED, struct upstream *u,
			  const struct iovec *pieces, size_t count)
{
	return u->socket ? wire_send(u->socket, pieces, count) : ERR_AGAIN;
}

/* Opened again at the next tick, as uplink.c does. */
static void on_worker_redial(void *ctx UNUSED, struct upstream *u)
{
	if (u->socket != NULL)
		wire_close(u->socket);
	u->socket = NULL;
}

static void on_worker_deliver(void *ctx, LinkDelivery *const *deliveries,
			      size_t count)
{
	struct sim_worker *w = ctx;

	for (size_t i = 0; i < count; i++) {
		const LinkDelivery *d = deliveries[i];
		struct channel *ch = channels_find(&w->channels, d->channel,
						   strlen(d->channel));
		/* The data says whence it comes: see publish(). */
		unsigned from = d->data.data[0] - '0';
		uint64_t instance =
			strtoull((char *)d->data.data + 1, NULL, 10);

		if (ch == NULL || ch->subscribers == 0)
			continue;
		if (ch->log != NULL) {
			trace("w%llu: gets %llu:%llu by link %llu", w->index,
			      d->epoch, d->offset, w->link);
			logs_deliver(&w->logs, ch, d, world.now_ms);
			continue;
		}
		list_for_each (node, &ch->subscriptions) {
			struct subscriber *s = container_of(
				container_of(node, struct subscription,
					     in_channel),
				struct subscriber, subscription);
			struct feed *f = &s->feeds[from];

			if (instance > f->instance) {
				feed_clear(f);
				f->instance = instance;
			}
			if (instance == f->instance)
				feed_take(s, f, w->link, d->message);
		}
	}
}

static void on_worker_answers(void *ctx, const LinkFrame *f, uint64_t now_ms)
{
	struct sim_worker *w = ctx;

	for (size_t i = 0; i < f->n_tops_answers; i++)
		questions_tops(&w->questions, f->tops_answers[i], now_ms);
	for (size_t i = 0; i < f->n_history_answers; i++)
		questions_history(&w->questions, f->history_answers[i], now_ms);
}

static void on_worker_link_changed(void *ctx, struct upstream *u, bool up)
{
	struct sim_worker *w = ctx;

	trace(up ? "w%llu: link %llu up" : "w%llu: link %llu lost", w->index,
	      u->link.peer_epoch);
	if (!up)
		questions_link_lost(&w->questions, u, world.now_ms);
	logs_resync(&w->logs, !up);
	if (up)
		w->whole = on_worker_whole(w);
	w->process.busy = true;
}

static const struct announcer_ops worker_ops = {
	.send = on_worker_send,
	.redial = on_worker_redial,
	.deliver = on_worker_deliver,
	.answers = on_worker_answers,
	.link_changed = on_worker_link_changed,
};

static void worker_receive(struct process *p, const struct process *from UNUSED,
			   const uint8_t *bytes, size_t len)
{
	struct sim_worker *w = container_of(p, struct sim_worker, process);

	/* linkwire's header begins with the sender's epoch, a fixed64. */
	memcpy(&w->link, bytes + 1, sizeof(w->link));
	announcer_receive(&w->announcer, bytes, len, world.now_ms);
}

static void worker_event(struct process *p, void *owner, bool up)
{
	struct sim_worker *w = container_of(p, struct sim_worker, process);

	trace(up ? "w%llu: socket up" : "w%llu: socket down", w->index);
	if (up)
		announcer_connected(&w->announcer, owner, world.now_ms);
	else
		announcer_disconnected(&w->announcer, owner);
}

static void worker_dial(struct sim_worker *w, struct upstream *u)
{
	u->socket = wire_open(&w->process, process_at(u->address), u);
}

static void worker_start(struct sim_worker *w)
{
	struct announcer_identity id = {
		.node = w->node,
		.link_address = w->address,
		.listen_address = "",
		.version = "",
		.token = "",
		.worker = w->index,
		.incarnation = random_nonzero(),
		.connections_max = SUBSCRIBERS_MAX,
	};
	char address[24];

	w->process.alive = true;
	w->process.instance++;
	w->tick_ms = world.now_ms;
	w->held_until_ms = 0;
	w->count = 0;
	memset(w->on_channel, 0, sizeof(w->on_channel));
	list_init(&w->subscribers);
	channels_init(&w->channels, &rules);
	questions_init(&w->questions, &worker_questions_ops, w);
	logs_init(&w->logs, &w->questions, &worker_logs_ops, w,
		  cluster.held_bytes, cluster.sweep_ms);
	announcer_init(&w->announcer, &w->channels, &id, &worker_ops, w);
	for (unsigned i = 0; i < cluster.dispatchers + cluster.alias; i++) {
		bool alias = i == cluster.dispatchers;

		snprintf(address, sizeof(address), "tcp://d%u%s",
			 alias ? 0 : i % 10, alias ? "b" : "");
		worker_dial(w, announcer_add(&w->announcer, address));
	}
	trace("w%llu: starts, instance %llu", w->index, w->process.instance);
}

static void worker_stop(struct sim_worker *w)
{
	trace("w%llu: dies", w->index);
	list_for_each_safe (node, &w->subscribers)
		subscriber_remove(
			w, container_of(node, struct subscriber, in_worker));
	list_for_each (node, &w->announcer.upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (u->socket != NULL)
			wire_close(u->socket);
	}
	cluster.total.links += w->announcer.counters.links_lost;
	cluster.total.fetched += w->logs.counters.fetched;
	logs_fini(&w->logs);
	questions_fini(&w->questions);
	announcer_fini(&w->announcer);
	channels_fini(&w->channels);
	w->process.alive = w->process.busy = false;
}

static void check_promise(const struct sim_worker *w, unsigned channel);

static void worker_confirm(struct sim_worker *w)
{
	uint64_t confirmed = announcer_confirmed(&w->announcer);

	list_for_each (node, &w->subscribers) {
		struct subscriber *s =
			container_of(node, struct subscriber, in_worker);

		struct log *log = s->subscription.channel->log;

		if (s->ready || s->generation > confirmed)
			continue;
		if (log != NULL) {
			logs_announced(&w->logs, s->subscription.channel);
			if (!log_known(log))
				continue;
		}
		s->ready = true;
		check_promise(w, s->channel);
		cluster.total.confirmed++;
		trace("w%llu: subscriber %llu is ready", w->index, s->id);
	}
}

static void worker_turn(struct sim_worker *w)
{
	bool tick = world.now_ms >= w->tick_ms;

	if (!tick && !w->process.busy && !logs_waiting(&w->logs))
		return;
	w->process.busy = false;
	w->announcer.hold_acks = world.now_ms < w->held_until_ms;
	w->announcer.connections = w->count;
	if (tick) {
		bool whole = on_worker_whole(w);

		if (whole && !w->whole)
			logs_resync(&w->logs, false);
		w->whole = whole;
		w->tick_ms = world.now_ms + TICK_MS;
		announcer_tick(&w->announcer, world.now_ms);
		list_for_each (node, &w->announcer.upstreams) {
			struct upstream *u = container_of(node, struct upstream,
							  in_announcer);

			if (u->socket == NULL)
				worker_dial(w, u);
		}
	}
	worker_confirm(w);
	logs_run(&w->logs, world.now_ms);
	questions_run(&w->questions, world.now_ms);
	announcer_flush(&w->announcer);
}

#endif

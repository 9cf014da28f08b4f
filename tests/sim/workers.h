/* workers.h - the workers of a simulated cluster: subscribers above the real pure
 * cores, with what each has to get of channels without history.
 */
#ifndef STENTOR_TESTS_SIM_WORKERS_H
#define STENTOR_TESTS_SIM_WORKERS_H

#include "tests/sim/tracks.h"

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
		if (w->announcer.store == STORE_ID)
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

static void on_worker_marks(void *ctx, const LinkFrame *f)
{
	struct sim_worker *w = ctx;

	cluster.total.marks++;
	if (chance(cluster.marks_loss)) {
		trace("w%llu: what moved is not heard", w->index);
		cluster.total.marks_lost++;
		return;
	}
	for (size_t i = 0; i < f->n_moved; i++) {
		const Stentor__Link__V1__Moved *m = f->moved[i];
		struct channel *ch = channels_find(&w->channels, m->channel,
						   strlen(m->channel));
		struct place top = {0, 0};

		if (m->top != NULL)
			top = (struct place){m->top->epoch, m->top->offset};
		trace("w%llu: hears of %llu:%llu", w->index, top.epoch,
		      top.offset);
		if (ch != NULL && ch->log != NULL)
			logs_moved(&w->logs, ch, top, world.now_ms);
	}
	if (f->moved_unnamed)
		logs_moved_unnamed(&w->logs);
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
	.moved = on_worker_marks,
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
		.started_ms = world.now_ms,
	};
	char address[24];

	w->process.alive = true;
	w->process.instance++;
	w->tick_ms = world.now_ms;
	w->held_until_ms = w->swept = 0;
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
	cluster.total.swept += w->logs.counters.swept;
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
	announcer_flush(&w->announcer, world.now_ms);
}

#endif

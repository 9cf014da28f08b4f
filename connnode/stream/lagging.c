#include "connnode/stream/lagging.h"

#include "common/base/clock.h"
#include "common/base/mem.h"
#include "connnode/stream/session.h"
#include "connnode/stream/stream.h"

#include <stdlib.h>

static void count_drop(struct session *s, struct frame *f,
		       enum drop_reason reason)
{
	metric_add(s->all->metrics, NM_DROPPED,
		   f->class * DROP_REASONS + reason, 1);
}

/* A message that outq_drop_*() took out of the queue of `before` bytes. */
static void dropped(struct session *s, struct frame *f, size_t before,
		    enum drop_reason reason)
{
	session_requeued(s, before);
	count_drop(s, f, reason);
	frame_release(f);
}

static struct place place_of(const struct frame *f)
{
	return (struct place){f->epoch, f->offset};
}

/* What was dropped of one channel with history. */
struct loss {
	struct place from, to; /* epoch 0: nothing */
};

static void lose(struct session *s, struct loss *losses, const struct frame *f)
{
	for (unsigned i = 0; i < s->subscriptions; i++) {
		if (session_subscription(s, i)->channel != f->channel)
			continue;
		if (losses[i].from.epoch == 0)
			losses[i].from = place_of(f);
		losses[i].to = place_of(f);
		return;
	}
}

/* In scratch memory: the client's places when it has got what was begun, and
 * what is lost was told. */
static struct place *places_at_head(struct session *s,
				    const struct loss *losses)
{
	struct place *places = stream_places(s);

	for (unsigned i = 0; i < s->subscriptions; i++) {
		const struct channel *ch = session_subscription(s, i)->channel;
		const struct frame *first =
			outq_first_of(&s->out, ch, session_kept(s));

		if (losses[i].from.epoch != 0)
			places[i] = losses[i].to;
		else if (first != NULL)
			places[i] =
				(struct place){first->epoch, first->offset - 1};
	}
	return places;
}

/* One gap in front of all that is left of the channel. */
static void tell_loss(struct session *s, const struct channel *ch,
		      const struct loss *loss)
{
	struct gap gap = {GAP_LAGGING, loss->from, loss->to};
	struct frame *f = stream_gap(s, ch, &gap);
	size_t before = s->out.bytes;

	f->channel = ch;
	f->epoch = gap.from.epoch;
	f->offset = gap.from.offset;
	outq_push_front(&s->out, session_on_wire(s, f), session_kept(s));
	session_requeued(s, before);
	frame_release(f);
}

/* A loss takes the place of one whose gap was not sent yet. */
static void join_loss(struct session *s, const struct channel *ch,
		      struct loss *loss)
{
	struct frame *f = outq_drop_note(&s->out, ch, session_kept(s));

	if (f == NULL)
		return;
	loss->from = place_of(f);
	session_requeued(s, s->out.bytes + f->len);
	frame_release(f);
}

static void tell_losses(struct session *s, struct loss *losses)
{
	struct place *places;

	for (unsigned i = 0; i < s->subscriptions; i++) {
		if (losses[i].from.epoch != 0)
			join_loss(s, session_subscription(s, i)->channel,
				  &losses[i]);
	}
	places = places_at_head(s, losses);
	/* Each is put before the others, and is read before them. */
	for (unsigned i = 0; i < s->subscriptions; i++) {
		struct place from = losses[i].from;

		if (from.epoch == 0)
			continue;
		tell_loss(s, session_subscription(s, i)->channel, &losses[i]);
		places[i] = (struct place){from.epoch, from.offset - 1};
	}
}

static void lose_one(struct session *s, const struct frame *f)
{
	struct loss *losses = xcalloc(s->subscriptions, sizeof(*losses));

	lose(s, losses, f);
	tell_losses(s, losses);
	free(losses);
}

/* Drops the oldest messages that may be missed until `max` bytes are queued.
 * Losses of channels with history are told, so many go at a time. */
static void drop_oldest(struct session *s, size_t max)
{
	struct loss *losses = NULL;
	size_t before = s->out.bytes;
	struct frame *f;

	while (s->out.bytes > max &&
	       (f = outq_drop_oldest(&s->out, session_kept(s))) != NULL) {
		if (f->offset != 0) {
			if (losses == NULL)
				losses = xcalloc(s->subscriptions,
						 sizeof(*losses));
			lose(s, losses, f);
			max = min_of(max, s->all->limits.queue_bytes_max / 2);
		}
		dropped(s, f, before, DROP_SLOW_CONSUMER);
		before = s->out.bytes;
	}
	if (losses != NULL)
		tell_losses(s, losses);
	free(losses);
}

/* Over the budget: makes room, or decides what becomes of the message that is
 * to come. False if it is not to be queued. */
static bool make_room(struct session *s, const struct frame *f)
{
	size_t max = s->all->limits.queue_bytes_max;

	/* What is of no use any more is no backlog. */
	if (s->out.expiring > 0)
		session_drop_expired(s, clock_wall_us());
	if (s->out.bytes + f->len > max)
		drop_oldest(s, f->len < max ? max - f->len : 0);
	if (outq_empty(&s->out) || s->out.bytes + f->len <= max)
		return true;
	/* What is with the kernel can't make room. It is not the message's
	 * fault, and there is one such. */
	if (f->droppable && outq_only_begun(&s->out, session_kept(s)))
		return true;
	/* Nothing else that waits may be missed: this message goes, if it may
	 * be missed, or the connection. */
	if (!f->droppable)
		session_doom(s, CLOSED_SLOW);
	else if (f->offset != 0)
		lose_one(s, f);
	return false;
}

/* A stream that lags gets just the newest of each key. */
static void conflate(struct session *s, const struct frame *f)
{
	size_t before = s->out.bytes;
	struct frame *old =
		outq_drop_equal(&s->out, f->conflation, session_kept(s));

	if (old != NULL)
		dropped(s, old, before, DROP_CONFLATED);
}

static bool is_over(const struct session *s, const struct frame *f)
{
	/* An empty queue takes any message, however large. */
	return !outq_empty(&s->out) &&
	       s->out.bytes + f->len > s->all->limits.queue_bytes_max;
}

/* Who kept up until now may need a moment for a burst. */
static bool is_forgiven(struct session *s, const struct frame *f)
{
	const struct sessions_limits *limits = &s->all->limits;
	uint32_t now = (uint32_t)sessions_now(s->all);

	if (s->lags || s->out.bytes + f->len > limits->queue_burst_bytes)
		return false;
	if (!s->bursts)
		s->burst_ms = now;
	s->bursts = true;
	return now - s->burst_ms < limits->queue_grace_ms;
}

void lagging_push(struct session *s, struct subscription *sub, struct frame *f)
{
	size_t max = s->all->limits.queue_bytes_max;

	/* Output waits for the turn's end: until the socket was asked, nobody
	 * can be said to be slow. */
	if (unlikely(is_over(s, f)))
		session_write(s, f->len < max ? max - f->len : 0);
	if (s->doomed)
		return;
	if (f->conflation != 0 && session_blocked(s) &&
	    sub->channel->rule->lagging == LAGGING_CONFLATE)
		conflate(s, f);
	if (unlikely(is_over(s, f) && !is_forgiven(s, f))) {
		s->lags = true;
		if (!make_room(s, f)) {
			count_drop(s, f, DROP_SLOW_CONSUMER);
			return;
		}
	}
	session_push_message(s, f);
}

/* What may be missed goes first; if that is not much, the connection, which
 * comes back and resumes. Returns the bytes that it takes along when it is
 * closed at the turn's end. */
static size_t give_way(struct session *s)
{
	size_t before = s->out.bytes;

	metric_add(s->all->metrics, NM_GAVE_WAY, 0, 1);
	s->lags = true;
	drop_oldest(s, 0);
	if (s->out.bytes <= before / 2)
		return 0;
	session_doom(s, CLOSED_SLOW);
	outq_clear(&s->out, session_kept(s));
	session_requeued(s, before);
	return s->out.bytes;
}

static bool is_too_much(const struct sessions *all, size_t going)
{
	return frames_bytes() > all->limits.memory_max + going;
}

unsigned lagging_run(struct sessions *all, unsigned budget)
{
	unsigned gone = 0;
	size_t going = 0;

	while (gone < budget && is_too_much(all, going)) {
		struct list *longest = backlog_longest(&all->backlog);

		if (longest == NULL)
			break;
		going += give_way(
			container_of(longest, struct session, in_backlog));
		gone++;
	}
	return gone;
}

bool lagging_pending(const struct sessions *all)
{
	return is_too_much(all, 0) && backlog_longest(&all->backlog) != NULL;
}

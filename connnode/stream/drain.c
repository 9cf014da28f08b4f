#include "connnode/stream/drain.h"

#include "common/base/log.h"
#include "connnode/stream/session.h"

void drain_init(struct drain *d, const struct drain_use *use)
{
	*d = (struct drain){.use = *use};
	pace_init(&d->pace, sessions_now(use->sessions));
}

static void begin(struct drain *d, uint64_t seconds)
{
	d->use.announcer->draining = true;
	d->use.shared->draining = 1;
	d->use.shared->ready = 0;
	pace_drain(&d->pace, sessions_now(d->use.sessions), seconds * 1000);
	metric_set(d->use.metrics, NM_DRAINING, 0, 1);
	announcer_hurry(d->use.announcer);
	log_info("DRAIN", "streams=%llu seconds=%llu",
		 (unsigned long long)d->use.sessions->stream_count,
		 (unsigned long long)seconds);
}

static void stop(struct drain *d)
{
	d->use.announcer->draining = false;
	d->use.shared->draining = 0;
	pace_stop(&d->pace);
	metric_set(d->use.metrics, NM_DRAINING, 0, 0);
	announcer_hurry(d->use.announcer);
	log_info("DRAIN-STOPPED", "streams=%llu",
		 (unsigned long long)d->use.sessions->stream_count);
}

void drain_end(struct drain *d)
{
	if (d->ending)
		return;
	d->ending = true;
	begin(d, d->use.seconds);
	drain_tick(d);
}

/* --- orders ------------------------------------------------------------ */

void drain_ordered(struct drain *d, const Stentor__Link__V1__DrainOrder *o)
{
	struct drain_order order = {o->number, o->seconds, !o->stop};

	shared_give_order(d->use.shared, &order);
}

static void follow_order(struct drain *d)
{
	struct drain_order order = shared_order(d->use.shared);

	if (order.number == d->order.number &&
	    order.drains == d->order.drains &&
	    order.seconds == d->order.seconds)
		return;
	d->order = order;
	if (d->ending)
		return;
	if (order.drains)
		begin(d, order.seconds ? order.seconds : d->use.seconds);
	else if (d->pace.draining)
		stop(d);
}

/* --- sending away ------------------------------------------------------ */

static void send_away(struct drain *d, uint64_t count, const char *reason,
		      enum close_cause cause)
{
	list_for_each_safe (node, &d->use.sessions->streams) {
		struct session *s =
			container_of(node, struct session, in_phase);

		if (count == 0)
			return;
		if (s->doomed)
			continue; /* goes at the end of this turn */
		d->use.sessions->ops->send_away(s, reason, cause);
		count--;
	}
}

void drain_tick(struct drain *d)
{
	struct fleet_heard fleet = announcer_fleet(d->use.announcer);
	uint64_t now = sessions_now(d->use.sessions), due;

	follow_order(d);
	due = pace_due(&d->pace, now, d->use.sessions->stream_count, &fleet);
	if (d->pace.draining)
		send_away(d, due, "drain", CLOSED_DRAIN);
	else
		send_away(d, due, "rebalance", CLOSED_REBALANCE);
	if (d->ending && d->use.sessions->stream_count == 0 &&
	    (list_empty(&d->use.sessions->leaving) ||
	     now >= d->pace.end_ms + DRAIN_GRACE_MS))
		uv_stop(d->use.sessions->loop);
}

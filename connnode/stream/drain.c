#include "connnode/stream/drain.h"

#include "common/base/log.h"
#include "connnode/stream/session.h"
#include "connnode/stream/stream.h"
#include "connnode/worker.h"

static void begin(struct worker *w, uint64_t seconds)
{
	w->draining = w->announcer.draining = true;
	w->shared->draining = 1;
	w->shared->ready = 0;
	pace_drain(&w->pace, worker_now(w), seconds * 1000);
	metric_set(&w->metrics, NM_DRAINING, 0, 1);
	announcer_hurry(&w->announcer);
	log_info("DRAIN", "streams=%llu seconds=%llu",
		 (unsigned long long)w->sessions.stream_count,
		 (unsigned long long)seconds);
}

static void stop(struct worker *w)
{
	w->draining = w->announcer.draining = false;
	w->shared->draining = 0;
	pace_stop(&w->pace);
	metric_set(&w->metrics, NM_DRAINING, 0, 0);
	announcer_hurry(&w->announcer);
	log_info("DRAIN-STOPPED", "streams=%llu",
		 (unsigned long long)w->sessions.stream_count);
}

void drain_end(struct worker *w)
{
	if (w->ending)
		return;
	w->ending = true;
	begin(w, w->options->drain_seconds);
	drain_tick(w);
}

/* --- orders ------------------------------------------------------------ */

void drain_ordered(struct worker *w, const Stentor__Link__V1__DrainOrder *o)
{
	struct drain_order order = {o->number, o->seconds, !o->stop};

	shared_give_order(w->shared, &order);
}

static void follow_order(struct worker *w)
{
	struct drain_order order = shared_order(w->shared);

	if (order.number == w->order.number &&
	    order.drains == w->order.drains &&
	    order.seconds == w->order.seconds)
		return;
	w->order = order;
	if (w->ending)
		return;
	if (order.drains)
		begin(w, order.seconds ? order.seconds
				       : w->options->drain_seconds);
	else if (w->draining)
		stop(w);
}

/* --- sending away ------------------------------------------------------ */

static void send_away(struct worker *w, uint64_t count, const char *reason,
		      enum close_cause cause)
{
	while (count-- > 0 && !list_empty(&w->sessions.streams)) {
		struct session *s = container_of(w->sessions.streams.next,
						 struct session, in_phase);

		if (s->doomed)
			return; /* goes at the end of this turn */
		stream_send_away(s, reason, cause);
	}
}

void drain_tick(struct worker *w)
{
	struct fleet_heard fleet = announcer_fleet(&w->announcer);
	uint64_t now = worker_now(w), due;

	follow_order(w);
	due = pace_due(&w->pace, now, w->sessions.stream_count, &fleet);
	if (w->draining)
		send_away(w, due, "drain", CLOSED_DRAIN);
	else
		send_away(w, due, "rebalance", CLOSED_REBALANCE);
	if (w->ending && w->sessions.stream_count == 0 &&
	    (list_empty(&w->sessions.leaving) ||
	     now >= w->pace.end_ms + DRAIN_GRACE_MS))
		uv_stop(w->loop);
}

#include "connnode/drain.h"

#include "common/base/log.h"
#include "connnode/session.h"
#include "connnode/stream.h"

void worker_drain(struct worker *w)
{
	if (w->draining)
		return;
	w->draining = true;
	w->announcer.draining = true;
	w->drain_started_ms = worker_now(w);
	w->drain_streams = w->stream_count;
	w->shared->draining = 1;
	w->shared->ready = 0;
	metric_set(&w->metrics, NM_DRAINING, 0, 1);
	log_info("DRAIN", "streams=%llu seconds=%llu",
		 (unsigned long long)w->stream_count,
		 (unsigned long long)w->options->drain_seconds);
	drain_tick(w);
}

static void send_away(struct worker *w, uint64_t count)
{
	while (count-- > 0 && !list_empty(&w->streams)) {
		struct session *s = container_of(w->streams.next,
						 struct session, in_worker);

		if (!s->doomed)
			stream_send_away(s, "drain", CLOSED_DRAIN);
		else
			break; /* goes at the end of this turn */
	}
}

void drain_tick(struct worker *w)
{
	uint64_t deadline_ms = w->options->drain_seconds * 1000;
	uint64_t elapsed_ms = worker_now(w) - w->drain_started_ms;
	double per_second = (double)DRAIN_LEAST;

	if (elapsed_ms >= deadline_ms) {
		send_away(w, UINT64_MAX);
	} else {
		per_second =
			max_of(per_second, (double)w->drain_streams * 1000.0 /
						   (double)deadline_ms);
		w->drain_owed += per_second * WORKER_TICK_MS / 1000.0;
		send_away(w, (uint64_t)w->drain_owed);
		w->drain_owed -= (double)(uint64_t)w->drain_owed;
	}
	if (w->stream_count == 0 &&
	    (list_empty(&w->leaving) ||
	     elapsed_ms >= deadline_ms + DRAIN_GRACE_MS))
		uv_stop(w->loop);
}

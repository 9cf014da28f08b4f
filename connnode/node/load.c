#include "connnode/node/load.h"

#include "common/base/check.h"

#define WEIGHT 0.3 /* of the newest second */

void load_init(struct load *l, const struct load_limits *limits,
	       uint64_t now_ms)
{
	*l = (struct load){.limits = *limits, .looked_ms = now_ms};
}

static uint64_t smooth(double *rate, uint64_t grown, uint64_t passed_ms)
{
	double now = (double)grown * 1000 / (double)passed_ms;

	*rate += WEIGHT * (now - *rate);
	return (uint64_t)(*rate + 0.5);
}

static uint64_t thousandths(uint64_t value, uint64_t limit)
{
	return limit == 0 ? 0 : value * 1000 / limit;
}

void load_look(struct load *l, uint64_t now_ms, uint64_t streams,
	       uint64_t begun, uint64_t sent, uint64_t queue_age_us)
{
	uint64_t passed_ms = now_ms - l->looked_ms;

	l->oldest_us = max_of(l->oldest_us, queue_age_us);
	if (passed_ms < LOAD_LOOK_MS)
		return;
	l->accepts = smooth(&l->accept_rate, begun - l->begun, passed_ms);
	l->sent_bytes = smooth(&l->sent_rate, sent - l->sent, passed_ms);
	l->queue_age_us = l->oldest_us;
	l->oldest_us = 0;
	l->begun = begun;
	l->sent = sent;
	l->looked_ms = now_ms;
	l->fullness = thousandths(streams, l->limits.streams);
	l->fullness =
		max_of(l->fullness, thousandths(l->accepts, l->limits.accepts));
	l->fullness = max_of(l->fullness,
			     thousandths(l->sent_bytes, l->limits.sent_bytes));
	l->fullness = max_of(l->fullness, thousandths(l->queue_age_us,
						      l->limits.queue_age_us));
}

#include "connnode/stream/comeback.h"

#include "common/base/check.h"
#include "common/base/hash.h"

uint64_t comeback_room(uint64_t streams, uint64_t streams_max,
		       uint64_t rate_max, uint64_t window_ms, bool elsewhere)
{
	if (streams >= streams_max && !elsewhere)
		return max_of(streams_max * 1000 /
				      max_of(window_ms, (uint64_t)1),
			      (uint64_t)1);
	return rate_max > 0 ? rate_max : UINT32_MAX;
}

void comeback_init(struct comeback *c, uint64_t window_max_ms, uint64_t now_ms)
{
	*c = (struct comeback){.window_max_ms = window_max_ms, .at_ms = now_ms};
}

static double still_waiting(const struct comeback *c, uint64_t now_ms,
			    uint64_t per_second)
{
	double let_in = (double)(now_ms - c->at_ms) * (double)per_second / 1000;

	return c->waiting > let_in ? c->waiting - let_in : 0;
}

uint64_t comeback_window_ms(const struct comeback *c, uint64_t now_ms,
			    uint64_t per_second)
{
	double ms = still_waiting(c, now_ms, per_second) * 1000 /
		    (double)max_of(per_second, (uint64_t)1);

	return ms < (double)c->window_max_ms ? (uint64_t)ms : c->window_max_ms;
}

uint32_t comeback_ms(struct comeback *c, uint64_t now_ms, uint64_t per_second,
		     uint32_t least_ms)
{
	uint64_t turn_ms, most = c->window_max_ms;

	c->waiting = still_waiting(c, now_ms, per_second);
	c->at_ms = now_ms;
	turn_ms = comeback_window_ms(c, now_ms, per_second);
	/* Over the window's end all come within it, evenly. */
	if (turn_ms == most)
		return (uint32_t)(least_ms + random_below(most + 1));
	c->waiting++;
	return (uint32_t)(least_ms + turn_ms * 3 / 4 +
			  random_below(turn_ms / 2 + 1));
}

/* comeback.h - when a client that is not let in now is told to come back
 * (pure).
 *
 * An EventSource knows nothing but `retry:`, so that is where a crowd is made
 * a queue: the worker counts those it has sent off and not yet had room for,
 * less `per_second` with time, and tells each newcomer to come when all before
 * it could have been let in, a quarter of that sooner or later. So as many
 * return in a second as can be let in then, however many they are. Nobody's
 * turn is later than `window_max_ms`.
 */
#ifndef STENTOR_CONNNODE_STREAM_COMEBACK_H
#define STENTOR_CONNNODE_STREAM_COMEBACK_H

#include <stdbool.h>
#include <stdint.h>

struct comeback {
	uint64_t window_max_ms;
	/* private */
	double waiting; /* clients */
	uint64_t at_ms;
};

/* How many may be let in a second. A full worker beside others that are not
 * (`elsewhere`) has its clients there soon; where the whole fleet is full, as
 * many as all its streams come over the window. `rate_max` 0: any. */
uint64_t comeback_room(uint64_t streams, uint64_t streams_max,
		       uint64_t rate_max, uint64_t window_ms, bool elsewhere);

void comeback_init(struct comeback *c, uint64_t window_max_ms, uint64_t now_ms);
/* The delay for one more client, at least `least_ms`; `per_second` may be let
 * in from now on. */
uint32_t comeback_ms(struct comeback *c, uint64_t now_ms, uint64_t per_second,
		     uint32_t least_ms);
/* The delay that the last one was told, about, less the time since. */
uint64_t comeback_window_ms(const struct comeback *c, uint64_t now_ms,
			    uint64_t per_second);

#endif

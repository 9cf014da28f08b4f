/* wheel.h - hashed timing wheel (pure: the caller owns the clock).
 *
 * O(1) arm and cancel for very many coarse timers (heartbeats, deadlines). A
 * timer fires in the first run whose time is at or past its deadline, never
 * before. Entries are intrusive; a deadline farther than one turn of the wheel
 * stays in its slot and is looked at once a turn.
 */
#ifndef STENTOR_DS_WHEEL_H
#define STENTOR_DS_WHEEL_H

#include "common/ds/list.h"

#include <stdint.h>

struct wheel_timer {
	struct list slot; /* list_init()ed when not armed */
	uint64_t deadline_ms;
};

struct wheel {
	struct list *slots;
	uint32_t mask;
	uint32_t tick_ms;
	uint64_t tick; /* the last one that ran */
};

typedef void (*wheel_fire_cb)(void *ctx, struct wheel_timer *timer);

/* `slots` is a power of two. */
void wheel_init(struct wheel *w, uint32_t slots, uint32_t tick_ms,
		uint64_t now_ms);
/* All timers must have been cancelled. */
void wheel_fini(struct wheel *w);

static inline void wheel_timer_init(struct wheel_timer *t)
{
	list_init(&t->slot);
}

/* Arms or re-arms. A deadline in the past fires in the next run. */
void wheel_arm(struct wheel *w, struct wheel_timer *t, uint64_t deadline_ms);
void wheel_cancel(struct wheel_timer *t);

/* Fires all that is due. A timer is disarmed before its callback, which may
 * arm and cancel any timer. At most `max` fire; the rest do in the next run.
 * Returns how many fired. */
unsigned wheel_run(struct wheel *w, uint64_t now_ms, unsigned max,
		   wheel_fire_cb fire, void *ctx);

#endif

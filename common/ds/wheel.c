#include "common/ds/wheel.h"

#include "common/base/mem.h"

#include <stdlib.h>

void wheel_init(struct wheel *w, uint32_t slots, uint32_t tick_ms,
		uint64_t now_ms)
{
	check(slots > 0 && (slots & (slots - 1)) == 0);
	check(tick_ms > 0);
	w->slots = xmalloc(slots * sizeof(struct list));
	for (uint32_t i = 0; i < slots; i++)
		list_init(&w->slots[i]);
	w->mask = slots - 1;
	w->tick_ms = tick_ms;
	w->tick = now_ms / tick_ms;
}

void wheel_fini(struct wheel *w)
{
	for (uint32_t i = 0; i <= w->mask; i++)
		check(list_empty(&w->slots[i]));
	free(w->slots);
	w->slots = NULL;
}

/* What is past goes where the next run begins to look. */
void wheel_arm(struct wheel *w, struct wheel_timer *t, uint64_t deadline_ms)
{
	uint64_t tick = max_of(deadline_ms / w->tick_ms, w->tick);

	list_remove(&t->slot);
	t->deadline_ms = deadline_ms;
	list_push_back(&w->slots[tick & w->mask], &t->slot);
}

void wheel_cancel(struct wheel_timer *t)
{
	list_remove(&t->slot);
}

/* Moves what is due in one slot to `due`, until that holds `max`. */
static unsigned collect(struct list *slot, struct list *due, uint64_t now_ms,
			unsigned max)
{
	unsigned count = 0;

	list_for_each_safe (node, slot) {
		struct wheel_timer *t =
			container_of(node, struct wheel_timer, slot);

		if (count == max)
			break;
		if (t->deadline_ms > now_ms)
			continue;
		list_remove(node);
		list_push_back(due, node);
		count++;
	}
	return count;
}

/* First collects, then fires: so a callback that arms a timer in the past does
 * not feed this very run, and one that cancels a timer finds it on a list.
 *
 * The last slot that was looked at is looked at again in the next run: it may
 * hold deadlines later in the same tick, or what `max` left. */
unsigned wheel_run(struct wheel *w, uint64_t now_ms, unsigned max,
		   wheel_fire_cb fire, void *ctx)
{
	uint64_t now_tick = now_ms / w->tick_ms;
	unsigned count = 0, fired = 0;
	struct list due;

	list_init(&due);
	if (now_tick > w->tick + w->mask)
		w->tick = now_tick - w->mask; /* one whole turn is enough */
	for (;;) {
		count += collect(&w->slots[w->tick & w->mask], &due, now_ms,
				 max - count);
		if (count == max || w->tick >= now_tick)
			break;
		w->tick++;
	}
	for (; !list_empty(&due); fired++) {
		struct wheel_timer *t = container_of(list_pop_front(&due),
						     struct wheel_timer, slot);

		fire(ctx, t);
	}
	return fired;
}

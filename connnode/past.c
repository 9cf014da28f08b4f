#include "connnode/past.h"

#include "common/base/mem.h"

#include <stdlib.h>

const char *const gap_names[GAP_REASONS + 1] = {
	"expired", "epoch", "unknown", "malformed", "rewound", "lagging", NULL};

struct past_epoch *past_find(struct past *p, uint64_t epoch)
{
	for (unsigned i = 0; p != NULL && i < p->count; i++) {
		if (p->epoch[i].epoch == epoch)
			return &p->epoch[i];
	}
	return NULL;
}

static void add(struct past *p, const struct past_epoch *e)
{
	if (e->epoch != 0 && e->epoch < p->present &&
	    past_find(p, e->epoch) == NULL)
		p->epoch[p->count++] = *e;
}

static void find_base(struct past_epoch *from, const LinkPlace *top)
{
	from->gone = true;
	from->base = 0;
	for (size_t i = 0; i < top->n_eras; i++) {
		if (top->eras[i]->epoch != from->epoch)
			continue;
		from->gone = false;
		from->base = top->eras[i]->offset;
		return;
	}
}

struct past *past_move(struct past *old, struct past_epoch *from,
		       const LinkPlace *top)
{
	size_t room = min_of(top->n_eras + 1, (size_t)PAST_MAX);
	struct past *p = xcalloc(1, sizeof(*p) + room * sizeof(p->epoch[0]));
	bool whole;

	find_base(from, top);
	/* What this step has lost, those of earlier epochs lack too. */
	whole = from->sure && from->last <= from->base;
	p->present = top->epoch;
	add(p, from);
	for (size_t i = 0; i < top->n_eras && p->count < room; i++) {
		const struct past_epoch *known =
			past_find(old, top->eras[i]->epoch);
		struct past_epoch e = {
			.epoch = top->eras[i]->epoch,
			.base = top->eras[i]->offset,
		};

		if (known != NULL) {
			e.last = known->last;
			e.sure = known->sure && whole;
		}
		add(p, &e);
	}
	free(old);
	return p;
}

bool past_map(struct past *p, struct place *at, struct gap *gap)
{
	const struct past_epoch *e = past_find(p, at->epoch);
	uint64_t reached;

	if (e == NULL)
		return false;
	reached = max_of(at->offset, e->base);
	gap->reason = -1;
	if (!e->sure || e->last > reached) {
		gap->reason = e->gone ? GAP_EPOCH : GAP_REWOUND;
		gap->from = (struct place){e->epoch, reached + 1};
		gap->to = (struct place){p->present, e->base};
		if (e->sure && !e->gone)
			gap->to = (struct place){e->epoch, e->last};
	}
	*at = (struct place){p->present, min_of(at->offset, e->base)};
	return true;
}

bool past_same(struct past *p, struct place at)
{
	const struct past_epoch *e = past_find(p, at.epoch);

	return e != NULL && at.offset <= e->base;
}

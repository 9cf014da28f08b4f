#include "connnode/channel/past.h"

#include "common/base/mem.h"

#include <stdlib.h>

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

const Stentor__Link__V1__Era *past_era(const LinkPlace *top, uint64_t epoch)
{
	for (size_t i = 0; i < top->n_eras; i++) {
		if (top->eras[i]->epoch == epoch)
			return top->eras[i];
	}
	return NULL;
}

/* A store that went back behind the beginning of an epoch knows nothing of it.
 * What that epoch had from one before it, which the store still knows, is in
 * both; and what comes next may be what was passed on in that one.
 *
 *	epoch 1:  1 2 3 4 5 6		passed on
 *	epoch 2:  1 2 3 4 5' 6' 7'	another server, that had got to 4
 *	epoch 3:  1 2 3 4 5 6 7"	the first one again: base 4, reach 6
 */
static void find_base(struct past_epoch *from, const struct past *old,
		      const LinkPlace *top)
{
	const Stentor__Link__V1__Era *era = past_era(top, from->epoch);

	from->gone = era == NULL;
	from->base = era != NULL ? era->offset : 0;
	for (unsigned i = 0; old != NULL && i < old->count; i++) {
		const struct past_epoch *e = &old->epoch[i];
		const Stentor__Link__V1__Era *both = past_era(top, e->epoch);

		if (e->gone || both == NULL)
			continue;
		/* The store may have learned of the epoch that is left, but not
		 * what we have had of those before it. */
		from->reach =
			max_of(from->reach, min_of(e->passed, both->offset));
		if (era != NULL)
			continue;
		from->gone = false;
		from->base = max_of(from->base, min_of(e->base, both->offset));
	}
	from->reach = max_of(from->reach, from->base);
}

struct past *past_move(struct past *old, struct past_epoch *from,
		       const LinkPlace *top)
{
	size_t many = top->n_eras + 1 + (old != NULL ? old->count : 0);
	size_t room = min_of(many, (size_t)PAST_MAX);
	struct past *p = xcalloc(1, sizeof(*p) + room * sizeof(p->epoch[0]));
	bool whole;

	find_base(from, old, top);
	from->next = (struct place){top->epoch, from->base};
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
			.reach = top->eras[i]->offset,
		};

		if (known != NULL) {
			e.last = known->last;
			e.passed = known->passed;
			e.sure = known->sure && whole;
			e.exact = known->exact;
			e.left_ms = known->left_ms;
			e.next = known->next;
		}
		add(p, &e);
	}
	/* And those that the store has forgotten. */
	for (unsigned i = 0; old != NULL && i < old->count && p->count < room;
	     i++) {
		struct past_epoch e = old->epoch[i];

		/* By way of the epoch that is left. */
		if (e.reach >= from->base)
			e.reach = from->reach;
		e.base = min_of(e.base, from->base);
		e.sure &= whole;
		e.gone |= from->gone;
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
	at->epoch = p->present;
	if (at->offset >= e->base)
		at->offset = e->reach;
	return true;
}

bool past_same(struct past *p, struct place at)
{
	const struct past_epoch *e = past_find(p, at.epoch);

	return e != NULL && at.offset <= e->base;
}

bool past_knows_more(const struct past *p, const LinkPlace *top)
{
	for (unsigned i = 0; p != NULL && i < p->count; i++) {
		const struct past_epoch *e = &p->epoch[i];

		if (!e->gone && e->base > 0 && past_era(top, e->epoch) == NULL)
			return true;
	}
	return false;
}

void past_tell(const struct past *p, struct told_past *told, LinkPlace *place)
{
	place->eras = told->eras;
	for (unsigned i = 0; p != NULL && i < p->count; i++) {
		Stentor__Link__V1__Era *era = &told->era[place->n_eras];

		if (p->epoch[i].gone || p->epoch[i].base == 0)
			continue;
		stentor__link__v1__era__init(era);
		era->epoch = p->epoch[i].epoch;
		era->offset = p->epoch[i].base;
		told->eras[place->n_eras++] = era;
	}
}

#include "connnode/node/pace.h"

#include "common/base/check.h"

#define LAST_FIFTH 5

void fleet_heard_add(struct fleet_heard *all, const struct fleet_heard *one)
{
	if (!one->known)
		return;
	if (!all->known) {
		*all = *one;
		return;
	}
	all->takers = max_of(all->takers, one->takers);
	all->leave_per_ks = min_of(all->leave_per_ks, one->leave_per_ks);
	all->surplus = min_of(all->surplus, one->surplus);
	all->full |= one->full;
}

bool fleet_heard_takes(const struct fleet_heard *fleet)
{
	return fleet->known && fleet->takers > 0 && !fleet->full;
}

void pace_init(struct pace *p, uint64_t now_ms)
{
	*p = (struct pace){.at_ms = now_ms, .rest_ms = PACE_REST_MS};
}

void pace_drain(struct pace *p, uint64_t now_ms, uint64_t total_ms)
{
	p->draining = true;
	p->begun_ms = now_ms;
	p->end_ms = now_ms + total_ms;
	p->owed = 0;
}

void pace_stop(struct pace *p)
{
	p->draining = false;
	p->owed = 0;
}

uint64_t pace_left_ms(const struct pace *p, uint64_t now_ms)
{
	return p->draining && p->end_ms > now_ms ? p->end_ms - now_ms : 0;
}

/* Streams a second. */
static double drain_rate(const struct pace *p, uint64_t left_ms,
			 uint64_t streams, const struct fleet_heard *fleet)
{
	uint64_t last_ms = (p->end_ms - p->begun_ms) / LAST_FIFTH;
	bool last = left_ms <= last_ms;
	double rate = (double)streams * 1000 /
		      (double)(last ? left_ms : left_ms - last_ms);

	rate = max_of(rate, (double)PACE_LEAST);
	if (!last && fleet->known && fleet->takers > 0)
		rate = min_of(rate, (double)fleet->leave_per_ks / 1000);
	return rate;
}

static void balance_ends(struct pace *p, uint64_t now_ms)
{
	p->rest_until_ms = now_ms + p->rest_ms;
	p->rest_ms = min_of(2 * p->rest_ms, (uint64_t)PACE_REST_MAX_MS);
}

/* Whether it is to give streams away now. */
static bool balances(struct pace *p, uint64_t now_ms, uint64_t streams,
		     const struct fleet_heard *fleet)
{
	if (!fleet->known || fleet->surplus == 0) {
		if (fleet->known && p->balance_left > 0)
			p->rest_ms = PACE_REST_MS;
		p->balance_left = 0;
		return false;
	}
	if (now_ms < p->rest_until_ms)
		return false;
	if (p->balance_left == 0)
		p->balance_left = streams;
	return p->balance_left > 0;
}

/* Whole streams of what is owed since the last time. */
static uint64_t whole(struct pace *p, double rate, uint64_t passed_ms,
		      uint64_t most)
{
	uint64_t due;

	p->per_ks = (uint64_t)(rate * 1000);
	p->owed += rate * (double)passed_ms / 1000;
	if (p->owed < 1)
		return 0;
	due = p->owed < (double)most ? (uint64_t)p->owed : most;
	p->owed -= (double)(uint64_t)p->owed;
	return due;
}

uint64_t pace_due(struct pace *p, uint64_t now_ms, uint64_t streams,
		  const struct fleet_heard *fleet)
{
	uint64_t passed_ms = now_ms - p->at_ms, due;

	p->at_ms = now_ms;
	if (p->draining) {
		if (pace_left_ms(p, now_ms) == 0)
			return UINT64_MAX;
		return whole(p,
			     drain_rate(p, p->end_ms - now_ms, streams, fleet),
			     passed_ms, streams);
	}
	if (!balances(p, now_ms, streams, fleet)) {
		p->per_ks = 0;
		p->owed = 0;
		return 0;
	}
	due = whole(p, (double)fleet->leave_per_ks / 1000, passed_ms,
		    min_of(fleet->surplus, p->balance_left));
	p->balance_left -= due;
	if (p->balance_left == 0)
		balance_ends(p, now_ms);
	return due;
}

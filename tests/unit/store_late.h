/* store_late.h - appends whose callers listen after their time is over; after
 * store_conformance.h. Each hears late exactly once where `done` left it open,
 * and never otherwise. */
#ifndef STENTOR_TESTS_STORE_LATE_H
#define STENTOR_TESTS_STORE_LATE_H

#include "tests/unit/store_conformance.h"

struct listening {
	struct appending p;
	unsigned late;
};

static inline void on_late(struct store_append *a)
{
	struct appending *p = container_of(a, struct appending, a);
	struct listening *l = container_of(p, struct listening, p);

	assert_false(p->f->in_call);
	assert_int_equal(p->done, 1);
	assert_int_equal(l->late++, 0);
}

static inline void late_submit(struct conformance *f, struct listening *l,
			       const char *channel, const char *key,
			       const char *text)
{
	append_init(f, &l->p, channel, key, text);
	l->late = 0;
	l->p.a.late = on_late;
	append_submit(&l->p);
}

/* Until it has been told that nothing is known. */
static inline void late_wait_done(struct listening *l)
{
	loop_until(l->p.f->l, l->p.done > 0);
	assert_int_equal(l->p.a.rc, ERR_UNAVAILABLE);
	assert_false(l->p.a.definite);
}

static inline uint64_t late_count(struct conformance *f)
{
	return metric_get(store_counters(f->store), SM_LATE, 0);
}

#endif

/*
 * resumecheck.h - did a subscriber that comes back again and again receive each
 * message of a channel once, in order, or was told exactly what it missed?
 *
 * One producer numbers a channel's messages 1, 2, 3 ... in the order of the
 * store, so a message's number is also the offset of its position. A check is
 * *anchored* as soon as it knows which number must come next: from the position
 * that the first stentor.ready told, or else from the first message. Pure.
 *
 * Where several producers number a channel's messages, or its store may go
 * back, number and offset differ: then eventlog.h keeps what came, for a judge.
 */
#ifndef TESTS_BENCH_RESUMECHECK_H
#define TESTS_BENCH_RESUMECHECK_H

#include "bench.h"

struct resume_check {
	uint64_t next; /* the number that must come; 0: not anchored */
	uint64_t seen; /* bit n: number next - 1 - n has come, or came before */
};

struct resume_counts {
	uint64_t holes;	   /* numbers that were left out in silence */
	uint64_t doubles;  /* came twice, or from before the beginning */
	uint64_t reorders; /* came after a higher one */
	uint64_t gaps_told, gap_messages;
	uint64_t gaps_false; /* told of what was not missing, or came */
	uint64_t unanchored; /* began with a message, not with a position */
};

/* The client holds no id: whatever comes next is a beginning. */
static inline void resume_check_forget(struct resume_check *c)
{
	c->next = 0;
}

static inline void resume_check_anchor(struct resume_check *c, uint64_t next)
{
	c->next = next;
	c->seen = UINT64_MAX;
}

/* A position that stentor.ready told: everything after it will come. */
static inline void resume_check_ready(struct resume_check *c, uint64_t offset)
{
	if (c->next == 0)
		resume_check_anchor(c, offset + 1);
}

/* Returns false if something was wrong with it. */
static inline bool resume_check_message(struct resume_counts *counts,
					struct resume_check *c, uint64_t number)
{
	uint64_t back;

	if (c->next == 0) {
		counts->unanchored++;
		resume_check_anchor(c, number);
	}
	if (number >= c->next) {
		uint64_t step = number - c->next + 1;

		counts->holes += step - 1;
		c->seen = step < 64 ? c->seen << step | 1 : 1;
		c->next = number + 1;
		return step == 1;
	}
	back = c->next - 1 - number;
	if (back >= 64 || (c->seen >> back & 1) != 0) {
		counts->doubles++;
	} else {
		c->seen |= 1ull << back;
		counts->holes--;
		counts->reorders++;
	}
	return false;
}

/*
 * A stentor.gap that says: `from` to `to` will not come. It is true only if
 * `from` is what had to come next. What was told is no hole; if it comes all
 * the same it is a double.
 */
static inline bool resume_check_gap(struct resume_counts *counts,
				    struct resume_check *c, uint64_t from,
				    uint64_t to)
{
	bool good = c->next == 0 || (from == c->next && to >= from);

	counts->gaps_told++;
	counts->gaps_false += !good;
	if (to >= from)
		counts->gap_messages += to - from + 1;
	if (to + 1 > c->next)
		resume_check_anchor(c, to + 1);
	return good;
}

#endif

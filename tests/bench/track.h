/*
 * track.h - was every message of a stream received once and in order? Looks at
 * sequence numbers 1, 2, 3 ... and tells gaps, doubles and late ones apart, in
 * 16 bytes per stream. Pure.
 */
#ifndef TESTS_BENCH_TRACK_H
#define TESTS_BENCH_TRACK_H

#include <stdint.h>

#define TRACK_WINDOW 64u /* later than this a late message counts as double */

/* Starts with next = 1. Bit n of `seen` stands for number next - 1 - n. */
struct track {
	uint64_t next;
	uint64_t seen;
};

struct track_counts {
	uint64_t gaps; /* numbers that have not come (yet) */
	uint64_t doubles;
	uint64_t reorders; /* came after a higher one */
};

static inline void track_message(struct track_counts *counts, struct track *t,
				 uint64_t seq)
{
	uint64_t back;

	if (seq >= t->next) {
		uint64_t step = seq - t->next + 1;

		counts->gaps += step - 1;
		t->seen = step < TRACK_WINDOW ? t->seen << step | 1 : 1;
		t->next = seq + 1;
		return;
	}
	back = t->next - 1 - seq;
	if (back >= TRACK_WINDOW || (t->seen >> back & 1) != 0) {
		counts->doubles++;
		return;
	}
	t->seen |= 1ull << back;
	counts->gaps--;
	counts->reorders++;
}

#endif

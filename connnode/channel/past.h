/* past.h - what became of the earlier epochs of a log (pure).
 *
 * When a store may have gone back, its logs get a new epoch and keep what they
 * still have (store.h):
 *
 *	epoch 100:  1 2 3 4 5 6 7 (8 9 lost)
 *	epoch 200:  1 2 3 4 5 6 7  8'         {100: base 7, last 9}
 *
 * So a place in an earlier epoch is one in the present epoch too: not beyond
 * the *base*, up to which both are the same. What the earlier epoch had between
 * that (or the place, if it is greater) and its *last* message is lost, and is
 * told as a gap. A log that was made anew has no epoch in common with the one
 * before: that one is *gone*, with base 0.
 */
#ifndef STENTOR_CONNNODE_CHANNEL_PAST_H
#define STENTOR_CONNNODE_CHANNEL_PAST_H

#include "common/codec/linkwire.h"
#include "common/codec/place.h"
#include "connnode/node/metrics.h"

#include <stdbool.h>

#define PAST_MAX 12 /* epochs: a store tells of 8 */

/* Messages that will not come: `from` is the first, `to` the last; epoch 0: it
 * can't be known. In two epochs: what the older one had after `from` is not
 * known either. */
struct gap {
	int reason; /* enum gap_reason; negative: no gap */
	struct place from, to;
};

typedef Stentor__Link__V1__Place LinkPlace;

struct past_epoch {
	uint64_t epoch;
	uint64_t base; /* up to it the same as the present one */
	/* Where the present epoch goes on for who was at the base or beyond: at
	 * the base, or further on if it has what they had of an epoch before. */
	uint64_t reach;
	uint64_t passed; /* of it, to those who were level */
	uint64_t last;	 /* the greatest offset known to have existed */
	bool sure;	 /* nothing after `last` was ever there */
	/* Those who were level when it was left, at `left_ms`, were told what
	 * they miss of it up to `last`, and no more. */
	bool exact;
	uint64_t left_ms;
	/* Where the base was in the epoch that came next; epoch 0: we have not
	 * been in this one. */
	struct place next;
	bool gone; /* of a log that is no more */
};

/* Of those that the store tells of, the newest first; then others. NULL stands
 * for none. */
struct past {
	uint64_t present; /* epoch */
	unsigned count;
	struct past_epoch epoch[];
};

/* A log that was at `from` (whose base is found here; epoch 0: it was not
 * known) is in the epoch of `top` now, by whose eras the others are found.
 * Takes `old`; returns what takes its place, to be freed. */
struct past *past_move(struct past *old, struct past_epoch *from,
		       const LinkPlace *top);

/* What the store says of an epoch; NULL: nothing. */
const Stentor__Link__V1__Era *past_era(const LinkPlace *top, uint64_t epoch);

/* NULL if nothing is known of it. */
struct past_epoch *past_find(struct past *p, uint64_t epoch);

/* Moves a place in an earlier epoch into the present one, and says what its
 * owner will never get. False: nothing is known of its epoch. */
bool past_map(struct past *p, struct place *at, struct gap *gap);

/* Whether it has an epoch in common with the present one of which the store
 * that says `top` knows nothing. */
bool past_knows_more(const struct past *p, const LinkPlace *top);

/* Puts the epochs that the present one goes on from behind a place in it; in
 * `told`, which lives as long. */
struct told_past {
	Stentor__Link__V1__Era era[PAST_MAX], *eras[PAST_MAX];
};
void past_tell(const struct past *p, struct told_past *told, LinkPlace *place);

/* Whether a message of an earlier epoch is in the present one too. */
bool past_same(struct past *p, struct place at);

#endif

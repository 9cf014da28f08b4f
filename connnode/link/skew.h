/* skew.h - by how much another process's clock is ahead of ours (pure).
 *
 * It tells its wall clock now and then. What it tells is old when it comes, so
 * each sample is too small by the way's delay, and the greatest of the last
 * ones is the best. A clock may be set:
 *
 *	ours		seen by our monotonic clock: all samples are forgotten
 *	theirs, back	the last SKEW_AGREE samples are all well below the
 *			greatest: they alone count
 *	theirs, ahead	the new sample is the greatest
 */
#ifndef STENTOR_CONNNODE_LINK_SKEW_H
#define STENTOR_CONNNODE_LINK_SKEW_H

#include <stdbool.h>
#include <stdint.h>

#define SKEW_SAMPLES 8
#define SKEW_AGREE   3
#define SKEW_STEP_US 250000 /* more than that is no jitter */
#define SKEW_WARN_US 500000
#define SKEW_MOST_US (3650ull * 86400 * 1000000) /* more is no clock */

struct skew {
	int64_t us; /* theirs less ours; 0: not known */
	bool warned;
	/* private */
	int64_t samples[SKEW_SAMPLES];
	unsigned count;	 /* in all */
	int64_t base_us; /* our wall clock less the monotonic one */
};

/* They said `theirs_us`, and it came at `ours_us` by our wall clock and
 * `now_ms` by the monotonic one. True if it is more than SKEW_WARN_US now, and
 * was not before or was another by as much. */
bool skew_add(struct skew *s, uint64_t theirs_us, uint64_t ours_us,
	      uint64_t now_ms);

/* A time by their clock, as ours would have told it. 0 stays 0, and what is no
 * time as it is. */
uint64_t skew_ours(const struct skew *s, uint64_t theirs_us);

static inline uint64_t skew_absolute_us(const struct skew *s)
{
	return s->us < 0 ? (uint64_t)-s->us : (uint64_t)s->us;
}

#endif

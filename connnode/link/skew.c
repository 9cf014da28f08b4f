#include "connnode/link/skew.h"

#include "common/base/check.h"

/* The greatest of the last `n`. */
static int64_t greatest(const struct skew *s, unsigned n)
{
	int64_t most = INT64_MIN;

	for (unsigned i = 0; i < n; i++)
		most = max_of(most,
			      s->samples[(s->count - 1 - i) % SKEW_SAMPLES]);
	return most;
}

static void forget_if_set(struct skew *s, int64_t base_us)
{
	int64_t moved = base_us - s->base_us;

	if (s->count > 0 && (moved > SKEW_STEP_US || moved < -SKEW_STEP_US))
		s->count = 0;
	s->base_us = base_us;
}

static bool far(int64_t us)
{
	return us > SKEW_WARN_US || us < -SKEW_WARN_US;
}

bool skew_add(struct skew *s, uint64_t theirs_us, uint64_t ours_us,
	      uint64_t now_ms)
{
	int64_t before = s->warned ? s->us : 0, lately;

	if (theirs_us - ours_us + SKEW_MOST_US > 2 * SKEW_MOST_US)
		return false;
	forget_if_set(s, (int64_t)(ours_us - now_ms * 1000));
	s->samples[s->count++ % SKEW_SAMPLES] = (int64_t)(theirs_us - ours_us);
	s->us = greatest(s, min_of(s->count, SKEW_SAMPLES));
	if (s->count > SKEW_AGREE) {
		lately = greatest(s, SKEW_AGREE);
		if (lately < s->us - SKEW_STEP_US) {
			/* Those before are of another time. */
			s->us = lately;
			for (unsigned i = 0; i < SKEW_SAMPLES; i++)
				s->samples[i] = min_of(s->samples[i], lately);
		}
	}
	if (!far(s->us)) {
		s->warned = false;
		return false;
	}
	if (!far(s->us - before))
		return false;
	s->warned = true;
	return true;
}

uint64_t skew_ours(const struct skew *s, uint64_t theirs_us)
{
	int64_t ours;

	if (theirs_us == 0 || theirs_us > INT64_MAX / 2)
		return theirs_us;
	ours = (int64_t)theirs_us - s->us;
	return ours > 0 ? (uint64_t)ours : 1;
}

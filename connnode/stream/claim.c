#include "connnode/stream/claim.h"

/* A client that saw no log at all, and now there is one: whether another lived
 * and died between is certain only for as long as stores remember a log. */
#define SURE_MS 86400000u

/* The greatest offset known of the log. */
static uint64_t newest(const struct log *log)
{
	return max_of(log->place.offset, log->seen.offset);
}

bool claim_ahead(const struct place *claim, const struct log *log)
{
	return claim->offset > 0 && (claim->epoch > log->place.epoch ||
				     (claim->epoch == log->place.epoch &&
				      claim->offset > newest(log)));
}

/* Before the first message of any log made after `at->epoch`. */
static bool judge_beginning(struct place *at, const struct log *log,
			    struct gap *gap)
{
	const struct past *past = log->past;
	struct place now = log->place, made = {now.epoch, 0};

	if (now.offset == 0) {
		*at = now;
		return true;
	}
	for (unsigned i = 0; past != NULL && i < past->count; i++) {
		if (!past->epoch[i].gone)
			made.epoch = min_of(made.epoch, past->epoch[i].epoch);
	}
	if (at->epoch > made.epoch || made.epoch - at->epoch > SURE_MS)
		return false;
	*at = made;
	past_map(log->past, at, gap);
	return true;
}

struct gap claim_judge(struct place *at, const struct log *log)
{
	const struct past_epoch *e = past_find(log->past, at->epoch);
	struct gap gap = {.reason = -1};

	if (at->epoch == log->place.epoch && !claim_ahead(at, log))
		return gap;
	if (at->offset == 0 && (e == NULL || e->gone) &&
	    judge_beginning(at, log, &gap))
		return gap;
	if (past_map(log->past, at, &gap))
		return gap;
	gap.from = (struct place){at->epoch, at->offset + 1};
	if (at->epoch < log->place.epoch) {
		gap.reason = GAP_EPOCH;
		gap.to = (struct place){log->place.epoch, 0};
	} else {
		gap.reason = GAP_UNKNOWN;
	}
	*at = (struct place){log->place.epoch, 0};
	return gap;
}

struct gap claim_judge_unread(struct place *at, const struct log *log)
{
	struct gap gap = {.reason = GAP_MALFORMED};

	if (log->place.offset == 0)
		gap.reason = -1;
	*at = (struct place){log->place.epoch, 0};
	return gap;
}

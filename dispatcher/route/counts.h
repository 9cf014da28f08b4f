/* counts.h - questions to workers: how many subscribers has a channel? (pure)
 *
 * A question goes to the workers that are interested; their answers are added
 * up until all have come or the time is over. At most COUNTS_MAX questions are
 * open at once.
 */
#ifndef STENTOR_DISPATCHER_ROUTE_COUNTS_H
#define STENTOR_DISPATCHER_ROUTE_COUNTS_H

#include "dispatcher/route/nodes.h"

#define COUNTS_MAX	  256
#define COUNTS_TIMEOUT_MS 500

struct count_result {
	uint64_t subscribers;
	uint32_t nodes, workers; /* that are interested */
	bool complete;		 /* every worker answered */
};

/* The result is borrowed during the call. */
typedef void (*count_done_cb)(void *ctx, const struct count_result *result);

struct count {
	uint64_t id; /* 0: free */
	uint64_t deadline_ms;
	unsigned awaited;
	struct count_result result;
	count_done_cb done;
	void *ctx;
};

struct counts {
	struct nodes *nodes;
	uint64_t last_id;
	struct count open[COUNTS_MAX];
};

void counts_init(struct counts *c, struct nodes *nodes);
/* Asks; `done` is called once, maybe at once. ERR_FULL: too many are open. */
int counts_ask(struct counts *c, const char *channel, uint64_t now_ms,
	       count_done_cb done, void *ctx) MUST_CHECK;
void counts_answer(struct counts *c, uint64_t id, uint64_t subscribers);
/* Every 100 ms or so: ends what took too long. */
void counts_tick(struct counts *c, uint64_t now_ms);

#endif

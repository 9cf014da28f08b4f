/* turn.h - what a loop does between reading its sockets and sleeping (pure).
 *
 * A table of stages, run in order. All share one budget, so that whatever comes
 * in a burst, a turn is short; but no stage is left without a share of its own,
 * so none can keep another out. The loop sleeps only when nothing is pending.
 */
#ifndef STENTOR_CONNNODE_TURN_H
#define STENTOR_CONNNODE_TURN_H

#include <stdbool.h>
#include <stddef.h>

/* A unit of work is what one connection costs that is written to: 5 us or so.
 */
#define TURN_BUDGET 512
#define TURN_SHARE  64 /* a stage's own, whatever the others have used */

struct stage {
	const char *name;
	/* Does up to `budget` units of work, and at least a step of what is
	 * pending; returns how many it has used. */
	unsigned (*run)(void *ctx, unsigned budget);
	/* Whether there is work that could be done at once. NULL: never, after
	 * it has run. */
	bool (*pending)(void *ctx);
};

void turn_run(const struct stage *stages, size_t count, void *ctx);

/* The first stage that has work left, whichever it came from: to be asked after
 * all of the turn's work. NULL: the loop may sleep. */
const struct stage *turn_pending(const struct stage *stages, size_t count,
				 void *ctx);

#endif

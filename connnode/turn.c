#include "connnode/turn.h"

#include "common/base/check.h"

void turn_run(const struct stage *stages, size_t count, void *ctx)
{
	unsigned left = TURN_BUDGET, used;

	for (size_t i = 0; i < count; i++) {
		used = stages[i].run(ctx, max_of(left, TURN_SHARE));
		left -= min_of(used, left);
	}
}

const struct stage *turn_pending(const struct stage *stages, size_t count,
				 void *ctx)
{
	for (size_t i = 0; i < count; i++) {
		if (stages[i].pending != NULL && stages[i].pending(ctx))
			return &stages[i];
	}
	return NULL;
}

#include "connnode/node/files.h"

#include "common/base/check.h"

struct files_plan files_plan(uint64_t nofile, uint64_t streams, uint64_t heads,
			     bool insists)
{
	uint64_t room = nofile > FILES_RESERVED ? nofile - FILES_RESERVED : 0;
	uint64_t least = min_of(heads, room / 4);
	struct files_plan plan;

	if (insists)
		least = min_of(least, (uint64_t)FILES_HEADS_LEAST);
	plan.streams = min_of(streams, room - least);
	plan.heads = min_of(heads, room - plan.streams);
	return plan;
}

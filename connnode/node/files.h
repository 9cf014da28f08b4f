/* files.h - how a worker's file descriptors are divided (pure).
 *
 * Streams, and besides them as many connections as may be heads, which those
 * who leave share: session.c keeps to both. So there is always a descriptor for
 * one more request, if only to answer that there is no room. The rest is for
 * links, and for what comes and goes.
 */
#ifndef STENTOR_CONNNODE_NODE_FILES_H
#define STENTOR_CONNNODE_NODE_FILES_H

#include <stdbool.h>
#include <stdint.h>

/* Loop, log and shared page 40; connections that wait for the end of a turn to
 * be closed 64; links two each, three while one is closed; files read again. */
#define FILES_RESERVED 256
/* Heads that a wish for streams leaves at least, where there are so many. */
#define FILES_HEADS_LEAST 64

struct files_plan {
	uint64_t streams, heads; /* 0: `nofile` is too low for any */
};

/* What a worker may hold of what it is to. Too many: streams and heads give
 * way, heads to a quarter at least; to a wish for streams (`insists`) heads
 * give way first. */
struct files_plan files_plan(uint64_t nofile, uint64_t streams, uint64_t heads,
			     bool insists);

#endif

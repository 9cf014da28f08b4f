/* supervisor.h - the node's first process: keeps its workers running, answers
 * the admin port for all of them, and passes signals on. It carries no
 * connection and never calls nng.
 */
#ifndef STENTOR_CONNNODE_SUPERVISOR_H
#define STENTOR_CONNNODE_SUPERVISOR_H

#include "connnode/options.h"

/* Runs until the node has ended; returns its exit status. argv is what workers
 * are started with again. */
int supervisor_run(struct connnode_options *options,
		   const struct auth_config *auth, int argc, char *argv[]);

/* How a worker process is told its part; see main.c. */
struct worker_args {
	unsigned index;
	const char *listen, *link_url;
	uint64_t connections_max;
};
#define WORKER_ARGS	 6 /* program, role and these four, then the node's own */
#define WORKER_ROLE	 "worker"
#define WORKER_SHARED_FD 3

#endif

/* dispatcher.h - one dispatcher process: what main.c puts together.
 *
 * A message's way: api/ (decode) -> service_publisher.c -> publish.c (validate,
 * look up, queue) -> nodes.c (batch) -> links.c (nng).
 */
#ifndef STENTOR_DISPATCHER_DISPATCHER_H
#define STENTOR_DISPATCHER_DISPATCHER_H

#include "common/io/admin.h"
#include "common/io/nngio.h"
#include "dispatcher/api/health.h"
#include "dispatcher/api/reflection.h"
#include "dispatcher/api/rpc.h"
#include "dispatcher/counts.h"
#include "dispatcher/metrics.h"
#include "dispatcher/nodes.h"
#include "dispatcher/options.h"
#include "dispatcher/publish.h"

#include <uv.h>

struct dispatcher {
	uv_loop_t *loop;
	struct dispatcher_options options;
	struct rules rules;
	struct metrics metrics;
	struct nodes nodes;
	struct publisher publisher;
	struct counts counts;
	struct api *api;
	struct admin *admin;
	struct health *health;
	struct rpc_service services[8]; /* ends with a NULL name */

	/* links.c */
	struct nng_inbox *inbox;
	struct nng_tls_files link_tls;
	uv_prepare_t flush; /* end of each loop turn */
	uv_timer_t batch;   /* while a link waits for its time */
	uv_timer_t tick;
	uint64_t tick_due_ms; /* for the loop's lag */

	uint64_t started_ms;
	bool ready, draining;
};

/* The links' side of the loop. On error a message is logged. */
int links_start(struct dispatcher *d) MUST_CHECK;
void links_stop(struct dispatcher *d);

/* Services, each with its method table; ctx is the dispatcher. */
struct rpc_service publisher_service(struct dispatcher *d);
struct rpc_service channel_service(struct dispatcher *d);
struct rpc_service cluster_service(struct dispatcher *d);

/* This dispatcher's view of the cluster. Borrows texts from the nodes: freed in
 * the same turn of the loop. */
struct Stentor__V1__ListNodesResponse *nodes_list_new(struct dispatcher *d);
void nodes_list_free(struct Stentor__V1__ListNodesResponse *list);

/* Routes of the admin port; ctx is the dispatcher. */
extern const struct admin_route dispatcher_routes[];

#endif

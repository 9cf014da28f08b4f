/* service.h - the services of the API port: what is called there, made of what
 * the rooms below do.
 *
 *	in	api/ calls a method of a service's table (rpc.h); links.c hands
 *		over workers' revocations (access.h)
 *	out	a message to publish/publish.h, a question about a log to the
 *		store, one about subscribers to route/counts.h, an order to
 *		route/nodes.h; then the answer, by the call that it came with
 *
 * Each service is handed what it uses, and is borrowed for ever by its row of
 * the service table. What a caller may do is decided in access.c.
 */
#ifndef STENTOR_DISPATCHER_SERVICE_SERVICE_H
#define STENTOR_DISPATCHER_SERVICE_SERVICE_H

#include "common/ds/slab.h"
#include "dispatcher/api/rpc.h"
#include "dispatcher/publish/history.h"
#include "dispatcher/route/counts.h"
#include "dispatcher/route/fleet.h"
#include "dispatcher/service/access.h"
#include "dispatcher/service/batches.h"
#include "dispatcher/service/calls.h"

/* --- stentor.v1.PublisherService ---------------------------------------- */

/* Results of a stream's requests that wait for their turn: of one stream, of
 * all. Above, a stream's requests wait. */
#define STREAM_WAITING_MAX  4096
#define STREAMS_WAITING_MAX (128u << 10)

struct publisher_service {
	struct publish_calls calls;
	struct batches batches;
	struct list streams;	  /* struct stream (publisher.c) */
	uint64_t token_end_s;	  /* when the first of their tokens expires */
	struct slab stream_items; /* and results that wait */
};

/* `calls` is copied. */
void publisher_service_init(struct publisher_service *p, uv_loop_t *loop,
			    const struct publish_calls *calls,
			    const struct batches_limits *limits);
/* No call is under way. After it, and the loop's last turn: fini. */
void publisher_service_close(struct publisher_service *p);
void publisher_service_fini(struct publisher_service *p);
struct rpc_service publisher_service(struct publisher_service *p);
/* Ends streams whose tokens are over: when one was revoked, and with time. */
void publisher_service_look(struct publisher_service *p);
void publisher_service_tick(struct publisher_service *p);

/* --- stentor.v1.ChannelService ------------------------------------------ */

/* Operations of the store for GetHistory and GetChannel calls. */
#define CHANNEL_READS_MAX 64

struct channel_service {
	uv_loop_t *loop;
	const struct rules *rules; /* may be exchanged on reload */
	struct access_control *access;
	struct counts *counts;
	struct history_store store;
	unsigned reads; /* operations of the store under way */
};

struct rpc_service channel_service(struct channel_service *s);

/* --- stentor.v1.ClusterService ------------------------------------------ */

struct cluster_service {
	const char *name; /* of this dispatcher */
	struct access_control *access;
	struct nodes *nodes;
};

struct rpc_service cluster_service(struct cluster_service *s);

/* This dispatcher's view of the cluster. Borrows texts from the nodes: freed in
 * the same turn of the loop. */
struct Stentor__V1__ListNodesResponse *
cluster_list_new(const struct cluster_service *s);
void cluster_list_free(struct Stentor__V1__ListNodesResponse *list);

/* --- externalscaler.ExternalScaler --------------------------------------- */

struct scaler_service {
	const struct fleet *fleet;
	const bool *settled; /* workers have had their time to report */
};

struct rpc_service scaler_service(struct scaler_service *s);

#endif

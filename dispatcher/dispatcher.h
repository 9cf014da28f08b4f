/* dispatcher.h - one dispatcher process: what main.c puts together.
 *
 * A message's way: api/ (decode) -> service/publisher.c -> publish.c (validate,
 * append to store/ if its channel keeps history, look up, queue) -> nodes.c
 * (batch) -> links.c (nng). A worker's question about a log: links.c ->
 * nodes.c -> history.c -> store/, and the answer back the same way.
 */
#ifndef STENTOR_DISPATCHER_DISPATCHER_H
#define STENTOR_DISPATCHER_DISPATCHER_H

#include "common/io/admin.h"
#include "common/io/nngio.h"
#include "dispatcher/api/health.h"
#include "dispatcher/api/reflection.h"
#include "dispatcher/api/rpc.h"
#include "dispatcher/metrics.h"
#include "dispatcher/options.h"
#include "dispatcher/publish/history.h"
#include "dispatcher/publish/moves.h"
#include "dispatcher/publish/publish.h"
#include "dispatcher/route/counts.h"
#include "dispatcher/route/fleet.h"
#include "dispatcher/route/nodes.h"
#include "dispatcher/service/access.h"
#include "dispatcher/service/batches.h"

#include <uv.h>

/* Results of a stream's requests that wait for their turn: of one stream, of
 * all. Above, a stream's requests wait. */
#define STREAM_WAITING_MAX  4096
#define STREAMS_WAITING_MAX (128u << 10)
/* Operations of the store for GetHistory and GetChannel calls. */
#define CHANNEL_READS_MAX 64
/* How long the store may be away before that makes us unready. */
#define STORE_GRACE_MS 3000

struct dispatcher {
	uv_loop_t *loop;
	struct dispatcher_options options;
	struct rules rules;
	struct auth_config auth_config;
	struct metrics metrics;
	struct nodes nodes;
	struct fleet fleet;
	struct publisher publisher;
	struct auth *auth;	  /* NULL: --auth none */
	uint64_t rate_limited;	  /* messages, by access.c */
	bool revoked;		  /* something, in this turn: likewise */
	struct list streams;	  /* service/publisher.c: PublishStream calls */
	uint64_t token_end_s;	  /* when the first of their tokens expires */
	struct slab stream_items; /* and results that wait */
	struct batches batches;
	uint64_t share_refused; /* calls, by a connection's share */
	unsigned channel_reads; /* of the store, by service/channel.c */
	struct counts counts;
	struct history history;
	struct moves moves;
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

	/* storage.c */
	struct store *store;		     /* NULL: closed */
	bool keeps_history;		     /* some rule does */
	uint64_t store_up_ms, store_trim_ms; /* when it was last so; 0: never */
	uint64_t store_report_ms;
	uint64_t store_end_ms; /* it closes then at the latest */
	uint64_t instance;     /* of this process, among those of the store */
	uint64_t peers_see;    /* workers: the most that one of them does */

	uint64_t started_ms;
	bool settled, draining;
	unsigned settle_missed; /* workers, when time was over */
	bool ready;		/* as told to health */
	char unready[512];	/* dispatcher_unready() */
	void (*on_closed)(struct dispatcher *d);
};

/* The links' side of the loop. On error a message is logged. */
int links_start(struct dispatcher *d) MUST_CHECK;
void links_stop(struct dispatcher *d);

/* The store's side of the loop. ERR_CONFIG after a message on stderr. */
int storage_open(struct dispatcher *d) MUST_CHECK;
/* What publish.c and history.c ask of it. */
struct publish_store storage_publish(struct dispatcher *d);
struct history_store storage_history(struct dispatcher *d);
/* The rules are new. */
void storage_rules(struct dispatcher *d);
void storage_tick(struct dispatcher *d, uint64_t now_ms);
/* Why reliable channels are not served now; NULL: they are. */
const char *storage_fault(struct dispatcher *d);
/* No publish is pending; late ones are waited for, for a while. What workers
 * have asked is answered, or not. */
void storage_close(struct dispatcher *d, void (*closed)(struct dispatcher *d));

/* Why nobody should come to us; NULL: we are ready. */
const char *dispatcher_unready(struct dispatcher *d);

/* Services, each with its method table; ctx is the dispatcher. */
void publisher_service_init(struct dispatcher *d);
void publisher_service_close(struct dispatcher *d); /* no call is under way */
void publisher_service_fini(struct dispatcher *d);
struct rpc_service publisher_service(struct dispatcher *d);
/* Ends streams whose tokens are over: when one was revoked, and with time. */
void publisher_service_look(struct dispatcher *d);
void publisher_service_tick(struct dispatcher *d);
struct rpc_service channel_service(struct dispatcher *d);
struct rpc_service cluster_service(struct dispatcher *d);
struct rpc_service scaler_service(struct dispatcher *d);

/* This dispatcher's view of the cluster. Borrows texts from the nodes: freed in
 * the same turn of the loop. */
struct Stentor__V1__ListNodesResponse *nodes_list_new(struct dispatcher *d);
void nodes_list_free(struct Stentor__V1__ListNodesResponse *list);

/* Routes of the admin port; ctx is the dispatcher. */
extern const struct admin_route dispatcher_routes[];

#endif

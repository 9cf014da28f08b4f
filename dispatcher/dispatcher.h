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
#include "dispatcher/service/service.h"

#include <uv.h>

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
	struct counts counts;
	struct history history;
	struct moves moves;
	struct access_control access;
	struct publisher_service publishing;
	struct channel_service channels;
	struct cluster_service cluster;
	struct scaler_service scaler;
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

/* Routes of the admin port; ctx is the dispatcher. */
extern const struct admin_route dispatcher_routes[];

#endif

/* dispatcher.h - one dispatcher process: the rooms, put together.
 *
 *	          producers                          workers
 *	              |                               ^   |
 *	api/      decodes, answers                    |   |     links.c (nng)
 *	service/  may they? one, many, a stream       |   v
 *	publish/  validates, appends, routes -------> route/    queues, batches
 *	              |       ^                           |
 *	store/    keeps  -----'----- history.c <----------'     their questions
 *
 * Each room includes those below it only (store < route < publish < api <
 * service), and `make layers` looks. Only what lies beside the rooms sees struct
 * dispatcher: it hands each module what that uses (dispatcher.c), begins and
 * ends the process (main.c), or shows what is there (admin.c, metrics.c).
 */
#ifndef STENTOR_DISPATCHER_DISPATCHER_H
#define STENTOR_DISPATCHER_DISPATCHER_H

#include "common/io/admin.h"
#include "dispatcher/api/health.h"
#include "dispatcher/api/reflection.h"
#include "dispatcher/api/rpc.h"
#include "dispatcher/links.h"
#include "dispatcher/options.h"
#include "dispatcher/publish/history.h"
#include "dispatcher/publish/moves.h"
#include "dispatcher/publish/publish.h"
#include "dispatcher/publish/storage.h"
#include "dispatcher/route/counts.h"
#include "dispatcher/route/fleet.h"
#include "dispatcher/route/nodes.h"
#include "dispatcher/service/service.h"

#include <uv.h>

enum dispatcher_metric {
	DM_PUBLISH_DURATION,
	DM_LOOP_LAG,
	DM_COUNT,
};

struct dispatcher {
	uv_loop_t *loop;
	struct dispatcher_options options;
	struct rules rules;
	struct auth_config auth_config;
	struct metrics metrics;
	struct storage storage;
	struct links links;
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

	uint64_t instance; /* of this process, among those of the store */
	uv_timer_t tick;
	uint64_t tick_due_ms; /* for the loop's lag */
	uint64_t started_ms;
	bool settled, draining;
	unsigned settle_missed; /* workers, when time was over */
	bool ready;		/* as told to health */
	char unready[512];	/* dispatcher_unready() */
};

/* The first step: what all others work with. ERR_CONFIG after a message on
 * stderr. */
int dispatcher_open_store(struct dispatcher *d) MUST_CHECK;
/* On error a message is logged, or stands on stderr. */
int dispatcher_start(struct dispatcher *d) MUST_CHECK;
/* Who comes is served, but nobody should; when all calls have ended, and the
 * store is closed, the loop is stopped. */
void dispatcher_drain(struct dispatcher *d);
/* After it; then, when the loop has nothing to do any more, the rest. */
void dispatcher_close(struct dispatcher *d);
void dispatcher_fini(struct dispatcher *d);

/* Why nobody should come to us; NULL: we are ready. */
const char *dispatcher_unready(struct dispatcher *d);

#endif

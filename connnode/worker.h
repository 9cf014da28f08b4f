/* worker.h - one worker process: a loop that shares nothing with the others.
 *
 * A connection's way: stream/session.c (accept) -> stream/request.c (head ->
 * decision) -> stream/stream.c, channel/channels.c and link/announcer.c
 * (subscribe, announce) -> stream/session.c (writes).
 * A message's way: uplink.c (nng) -> announcer.c (sequence) -> intake.c ->
 * logs.c (position, where it has one) -> fanout.c (render once, queue for each
 * subscriber; lagging.c: those who don't keep up) -> session.c (one write each a
 * turn).
 * What a client missed: replay.c -> pages.c -> questions.c (ask a dispatcher)
 * and back -> session.c, until it is level with the live messages.
 *
 * A turn of the loop ends in worker_turn(), a table of stages (turn.h): ready
 * streams get their ready event, replays and fan-outs their slice, each dirty
 * stream its one write, the doomed are closed, and the announcer sends what the
 * turn has changed.
 */
#ifndef STENTOR_CONNNODE_WORKER_H
#define STENTOR_CONNNODE_WORKER_H

#include "common/ds/limits.h"
#include "common/ds/slab.h"
#include "common/ds/wheel.h"
#include "common/io/children.h"
#include "common/io/listener.h"
#include "connnode/channel/channels.h"
#include "connnode/channel/fanout.h"
#include "connnode/channel/logs.h"
#include "connnode/channel/questions.h"
#include "connnode/link/announcer.h"
#include "connnode/node/load.h"
#include "connnode/node/metrics.h"
#include "connnode/node/pace.h"
#include "connnode/node/shared.h"
#include "connnode/options.h"
#include "connnode/stream/admission.h"
#include "connnode/stream/comeback.h"
#include "connnode/stream/drain.h"
#include "connnode/stream/session.h"
#include "connnode/stream/session_tls.h"
#include "connnode/stream/stream.h"

#include <uv.h>

#define WORKER_TICK_MS	   100
#define WORKER_PARSERS_MAX 256 /* idle request parsers kept for the next */

struct uplink;

struct worker {
	uv_loop_t *loop;
	const struct connnode_options *options;
	struct rules *rules;
	struct auth_config *auth_config;
	unsigned index;

	struct worker_shared *shared; /* what the supervisor sees */
	struct metrics metrics;	      /* in `shared` */

	struct listener listener;
	struct channels channels;
	struct announcer announcer;
	struct admission admission;
	struct uplink *uplink;
	bool whole; /* announcer_whole() at the last look */
	struct fanout fanout;
	struct questions questions;
	struct logs logs;

	struct sessions sessions;
	struct streams streams;
	struct limits limits;
	struct comeback comeback; /* of those who are not let in */
	struct load load;
	size_t memory_peak; /* that they took since memory was given back */
	uint64_t memory_trim_ms;
	struct {
		struct http1 *free[WORKER_PARSERS_MAX];
		unsigned count;
	} parsers;
	struct stream_request wanted; /* of the request being read */

	uv_prepare_t turn;
	uv_idle_t spin;	   /* active while a slice of work waits for its turn */
	uv_timer_t hole;   /* while a log waits for a message overtaken */
	uv_timer_t gather; /* while an announcement waits for others */
	uv_timer_t tick;
	uint64_t tick_due_ms, started_ms;

	struct drain drain;
	uv_signal_t term, interrupt, hangup;
	struct parent_watch parent;
	int argc;
	char **argv; /* to read the configuration again */
};

/* What a worker process is started with; all borrowed. */
struct worker_start {
	const struct connnode_options *options;
	struct rules *rules; /* exchanged on reload, as the next */
	struct auth_config *auth_config;
	int argc;
	char **argv;	      /* to read the configuration again on SIGHUP */
	const char *link_url; /* where this worker listens for batches */
	unsigned index;
	uint64_t connections_max; /* its share of the node's */
	uint64_t heads_max;
	int shared_fd;
};

/* The main function of a worker process; returns its exit status. */
int worker_run(const struct worker_start *start);

/* Time as the loop sees it, ms. */
static inline uint64_t worker_now(const struct worker *w)
{
	return uv_now(w->loop);
}

/* Streams a second for which there may be room, while this worker lets nobody
 * in: what it, or what the others, can begin. */
uint64_t worker_room_per_second(const struct worker *w);

#endif

/* publish.h - the way of a message into the cluster (pure).
 *
 * The main door of publish/, which stands between those who publish or ask, the
 * store and the links:
 *
 *	in	a message (publish_message()): appended to the store if its
 *		channel keeps history, and put on the queues of those who want it
 *	in	a worker's question about a log (history.h): a read of the store
 *	in	the news that a log has moved without us (moves.h)
 *	out	the outcome, by the caller's `done`; all else by route/nodes.h
 *
 * storage.h opens, watches and closes the store for all of them.
 *
 * Validates, finds the channel's rule, looks up the interested workers and puts
 * a reference to the delivery, encoded once, on each of their queues. What is
 * refused has left no trace but a counter.
 *
 * A message of an ephemeral channel is answered at once. One of a channel that
 * keeps history is appended to the store first, whatever the state of the
 * links, and routed and answered when it is durable, with its position. A link
 * without room is no loss: its worker is told, later, where the log has got to.
 *
 *	appended --durable--> answered OK, routed
 *	appended --not known--> answered UNAVAILABLE, late
 *	late --it was done after all--> routed
 *	late --nobody can know--> its channel is in doubt (moves.h)
 *
 * Duplicates are routed too: who tried first may not have lived to do it, and
 * workers drop doubles.
 *
 * At most pending_max messages wait for the store, late ones included,
 * and the store bounds their bytes. What they need is copied: requests and
 * rules may go meanwhile.
 */
#ifndef STENTOR_DISPATCHER_PUBLISH_PUBLISH_H
#define STENTOR_DISPATCHER_PUBLISH_PUBLISH_H

#include "common/base/config.h"
#include "common/codec/grpc.h"
#include "common/ds/slab.h"
#include "dispatcher/route/nodes.h"
#include "dispatcher/store/store.h"
#include "stentor/v1/publisher.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

/* Upper bounds of fanout_workers: 0, 1, 2, 4 ... 4096. */
#define PUBLISH_FANOUT_BUCKETS	   14
#define PUBLISH_ID_SIZE		   STORE_MESSAGE_ID_SIZE
#define PUBLISH_ERROR_SIZE	   320
#define PUBLISH_BATCH_MAX	   10000 /* messages of one PublishBatch */
#define PUBLISH_PENDING_MAX	   65536 /* messages that wait for the store */
#define PUBLISH_CONFLATION_KEY_MAX 128	 /* bytes of UTF-8 */

/* Where messages of reliable channels go. */
struct publish_store {
	/* store_append(). */
	void (*append)(void *ctx, struct store_append *a);
	/* Why nothing can be appended now; NULL: it can. Borrowed. */
	const char *(*fault)(void *ctx);
	void *ctx;
	/* Something may have been appended to the channel that nobody will
	 * route. NULL: not listened to. */
	void (*doubt)(void *ctx, const char *channel);
};

struct publisher {
	struct nodes *nodes;
	const struct rules *rules; /* may be exchanged on reload */
	struct publish_store store;
	uint64_t data_max;	/* bytes of PublishRequest.data */
	uint64_t idempotency_s; /* the store's window, for texts */
	uint64_t instance;	/* first part of message ids */
	uint64_t accepted;	/* second part: 1, 2, 3 ... */
	uint64_t routes;	/* messages that were looked up: node.seen */
	/* Not before the workers have had time to report: a message accepted
	 * by a dispatcher that knows no workers would reach nobody. */
	bool open;
	/* Nor while it has lost sight of most workers: an ephemeral message
	 * that finds nobody then is refused. */
	bool blind;
	struct slab pending; /* struct pending (publish.c) */
	size_t pending_max;  /* --publish-pending-max */
	struct list late;    /* struct pending.in_late */
	size_t late_count;

	uint64_t total[PRIORITY_CLASSES][GRPC_CODES];
	uint64_t routed;     /* deliveries put on links */
	uint64_t links_full; /* kept ones that found no room, or a mark */
	uint64_t fanout[PUBLISH_FANOUT_BUCKETS + 1];
	uint64_t fanout_sum;
};

struct publish_result {
	enum grpc_code code;
	char error[PUBLISH_ERROR_SIZE]; /* "" on success */
	char message_id[PUBLISH_ID_SIZE];
	struct store_place place; /* epoch 0: of an ephemeral channel */
	uint32_t nodes;		  /* connection nodes it was routed to */
};

/* The result is borrowed during the call. */
typedef void (*publish_done_cb)(void *ctx, const struct publish_result *result);

/* `store` is copied; NULL: no rule keeps history. */
void publisher_init(struct publisher *p, struct nodes *nodes,
		    const struct rules *rules, uint64_t data_max,
		    const struct publish_store *store);
/* Nothing may be pending. What is late is forgotten. */
void publisher_fini(struct publisher *p);

/* `now_us` is the wall clock, microseconds since 1970; the request is borrowed
 * during the call. True: `result` is the answer. False: the message waits for
 * the store, and `done` is called with the answer once, later. */
bool publish_message(struct publisher *p,
		     const Stentor__V1__PublishRequest *request,
		     uint64_t now_us, struct publish_result *result,
		     publish_done_cb done, void *ctx) MUST_CHECK;

/* The outcome of one that its caller may not publish, counted like all. */
void publish_refuse(struct publisher *p, const char *channel,
		    enum grpc_code code, const char *why,
		    struct publish_result *result);

/* Messages whose callers wait. */
static inline size_t publish_pending(const struct publisher *p)
{
	return p->pending.used - p->late_count;
}

/* Messages that were answered, and may still turn out to be appended. */
static inline size_t publish_late(const struct publisher *p)
{
	return p->late_count;
}

#endif

/* nodes.h - the connection nodes this dispatcher knows, their workers and the
 * links to them (pure: acts through struct nodes_ops).
 *
 * The main door of route/, which knows workers, their links and who wants which
 * channel, but neither publishers nor the store:
 *
 *	in	a delivery for one worker (nodes_queue()), or the news that a
 *		log has moved (nodes_moved()); whom to send it says interest.h
 *	in	a worker's frame, by links.c (nodes_receive())
 *	out	batches, at the end of the turn (nodes_ops.send)
 *	out	what a worker asks or tells that is not about its link, by the
 *		other nodes_ops
 *
 * Beside it, fleet.h says what all nodes together can take, and counts.h asks
 * workers how many subscribers a channel has.
 *
 * A worker makes itself known by its hello; nothing else is needed to join.
 * Life of a struct node_worker:
 *
 *	hello --> CONNECTING --socket up: hello_ack--> SYNCING
 *	SYNCING --end of its snapshot--> READY
 *	any --its positions come from another store--> REFUSED
 *	hello of a younger process than the living one of its name--> REFUSED
 *	any --silent LINK_DEAD_MS (REFUSED, but connected: NODES_REFUSED_MS),
 *		gap, socket gone, newer hello--> dropped
 *
 * A REFUSED worker is told why, at each hello and by the link that it has, and
 * is not routed to. That is between it and us: only when those with another
 * store are more than those that are READY is it us who is wrong
 * (nodes_outvoted()). A worker counts for that only if it could be dialled,
 * because anybody can say hello.
 *
 * What a worker announces is kept, or the worker is not told so: where the
 * routing table is full it is sent everything, or if too many are, refused.
 *
 * Dropping takes the worker out of the routing table at once; it comes back
 * by a hello under a new epoch and with a new snapshot.
 *
 * Deliveries wait in the worker's priority queue (linkq) and leave in batches:
 * an idle link sends at the end of the loop turn, a busy one when
 * NODES_BATCH_BYTES are ready or NODES_BATCH_MS have passed since its last
 * batch; never more than the link's credit allows. As long as all links
 * together carry fewer than NODES_CALM_PER_MS deliveries, none is busy: the
 * sends cost little then, and every message saves the wait.
 *
 * A message that the store keeps asks no link. Where it finds no room, or is
 * displaced, the worker is *behind* on that log (behind.h): what follows of it
 * does not go by this link either, until its queue is half empty (and it does
 * not make the pool full) and the mark has joined it; so a queue that is full
 * empties, however much is published.
 *
 * All queues, with what of their batches has not left and all marks, cost at
 * most `queues_bytes` (the pool, linkq.h). Sent and not acknowledged may be a
 * quarter of that besides, and one batch of each link.
 */
#ifndef STENTOR_DISPATCHER_ROUTE_NODES_H
#define STENTOR_DISPATCHER_ROUTE_NODES_H

#include "common/base/hash.h"
#include "common/codec/linkstate.h"
#include "common/codec/linkwire.h"
#include "common/ds/hmap.h"
#include "common/ds/list.h"
#include "dispatcher/route/behind.h"
#include "dispatcher/route/interest.h"
#include "dispatcher/route/linkq.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define NODES_BATCH_BYTES     (16u << 10)
#define NODES_BATCH_BYTES_MAX (64u << 10)
#define NODES_BATCH_MS	      2
#define NODES_BATCH_FRAMES    512
#define NODES_CALM_PER_MS     2
#define NODES_CALM_BURST      32  /* deliveries above that rate */
#define NODES_PRESSURE_MAX    256 /* takes 112 ms to calm down from */
#define NODES_NAME_MAX	      128 /* bytes of a node's name */
/* Dialled at once: more come back with their next hello. */
#define NODES_CONNECTING_MAX  256
#define NODES_UNDER_WAY_SHARE 4	  /* of queues_bytes */
#define NODES_TEXT_MAX	      300 /* of its addresses and version, each */
#define NODES_LISTED_MAX      16  /* dispatchers that a worker may list */
#define NODES_PEERS_MAX	      64  /* that we list */
#define NODES_SWEEP_SHARDS    4	  /* of the routing table, at each tick */
/* Silence that ends one that is refused, but connected: it says hello every
 * 5 s, and what it is counted for shall not come and go with that. */
#define NODES_REFUSED_MS 12000
/* How often a worker that is sent everything, because the routing table was
 * full, is looked at; the part of the table that must be free then. */
#define NODES_RENEW_MS	  10000
#define NODES_RENEW_SPARE 16

typedef Stentor__Link__V1__HistoryQuery HistoryQuery;
typedef Stentor__Link__V1__TopsQuery TopsQuery;

enum node_worker_phase {
	NODE_WORKER_CONNECTING,
	NODE_WORKER_SYNCING,
	NODE_WORKER_READY,
	NODE_WORKER_REFUSED
};
#define NODE_WORKER_PHASES 4

/* What its workers say together; fleet.c adds up. */
struct node_sum {
	uint64_t connections, connections_max, accepts, sent_bytes;
	uint64_t queue_age_us, fullness; /* the most of one worker */
	uint64_t spare;	    /* streams a second it could begin beyond those */
	uint64_t draining;  /* streams of workers that drain */
	bool drains, takes; /* takes: new streams */
};

struct node {
	struct list in_nodes;
	struct list workers; /* struct node_worker.in_node */
	char *name, *version, *listen_address;
	uint64_t seen; /* last message that counted it (publish.c) */
	struct node_sum sum;
	bool above;	  /* the fleet's level, with more than a margin */
	uint64_t surplus; /* streams, while `above` */
};

/* What a worker's heartbeat says: link.proto, Load. */
struct node_load {
	uint64_t accepts, accepts_max, sent_bytes, queue_age_us, fullness;
	uint64_t leave_per_ks, drain_left_ms;
};

struct node_worker {
	struct list in_node;
	struct list in_pending; /* has something to send */
	struct hmap_node by_epoch;
	struct node *node;
	uint32_t index;
	uint16_t id; /* in the routing table */
	uint64_t incarnation, config_hash, connections, connections_max;
	uint64_t started; /* milliseconds since 1970; 0: it does not tell */
	struct node_load load;
	uint64_t store;	    /* that its positions come from; 0: none */
	uint64_t keys;	    /* that it has announced */
	uint64_t logs;	    /* that it had when it said hello */
	bool compared;	    /* it has been told their tops (history.c) */
	uint32_t questions; /* not answered yet (history.c) */
	char *link_address, *dialed;
	void *socket; /* the owner's */
	bool connected, draining, ack_due;
	bool dialled; /* back: it, or whom it replaced, has been connected */
	bool untold;  /* there was no room for what all are told */
	bool prompt;  /* what waits goes at the end of this turn */
	enum node_worker_phase phase;
	Stentor__Link__V1__RefuseReason refused_for; /* in phase REFUSED */
	struct link_state link;
	struct linkq queue;
	struct behind behind;
	/* Dispatchers that it has a link to, by its last heartbeat. Who lists
	 * too many lists nobody: it is told more than it needs. */
	uint64_t listed[NODES_LISTED_MAX];
	unsigned listed_count;
	struct frame *batch[NODES_BATCH_FRAMES]; /* taken, not yet sent */
	unsigned batch_count;
	size_t batch_bytes;
	uint64_t batch_at_ms; /* when the last batch left */
	uint64_t beat_at_ms, since_wall_ms;
	uint64_t messages_sent;
};

struct nodes_ops {
	/* Dial worker->link_address, set worker->socket; later report with
	 * nodes_connected() and nodes_disconnected(). */
	int (*open)(void *ctx, struct node_worker *w);
	void (*close)(void *ctx, struct node_worker *w);
	int (*send)(void *ctx, struct node_worker *w,
		    const struct iovec *pieces, size_t count);
	/* A worker's questions about logs; borrowed. NULL: not answered. */
	void (*history)(void *ctx, struct node_worker *w,
			const HistoryQuery *query);
	void (*tops)(void *ctx, struct node_worker *w, const TopsQuery *query);
	/* The worker is READY: it is to hear what all have been told, by
	 * nodes_tell_worker(). Likewise after some of that was lost. NULL:
	 * nothing. */
	void (*brief)(void *ctx, struct node_worker *w);
	/* A worker tells of revoked tokens; borrowed. NULL: not listened to. */
	void (*revocations)(void *ctx, const LinkFrame *f);
	/* What the worker's next heartbeat is to tell of the fleet: true if
	 * `fleet`, empty, was filled in. NULL: nothing. */
	bool (*advise)(void *ctx, const struct node_worker *w,
		       Stentor__Link__V1__Fleet *fleet);
	/* A worker's answer to a count query. */
	void (*counted)(void *ctx, uint64_t id, uint64_t subscribers);
	/* Milliseconds since 1970: for people, and for workers to compare. */
	uint64_t (*wall_ms)(void *ctx);
};

struct nodes_config {
	const char *name, *version; /* of this dispatcher; borrowed */
	const char *token;	    /* that workers must know; "" for none */
	uint64_t config_hash;
	uint64_t instance;     /* of this dispatcher; 0: not told */
	uint64_t store;	       /* identity of our store: nodes_set_store() */
	bool store_embedded;   /* and can't be anybody else's */
	uint64_t workers_max;  /* at most INTEREST_WORKERS_MAX */
	uint64_t queue_bytes;  /* of one link's queue */
	uint64_t queues_bytes; /* that all queues cost together; 0: any */
	uint64_t interest_max; /* (channel, worker) pairs */
};

struct nodes_counters {
	uint64_t hellos, hellos_refused, frames_stale, frames_malformed;
	uint64_t gaps, links_lost, batches, interest_full, stores_differ;
	uint64_t names_taken, moved_told, moved_unnamed;
};

struct nodes {
	struct nodes_config config;
	const struct nodes_ops *ops;
	void *ctx;
	struct hash_key key; /* of interest keys; random */
	struct list nodes;   /* struct node.in_nodes */
	struct list pending; /* struct node_worker.in_pending */
	struct hmap by_epoch;
	struct node_worker *by_id[INTEREST_WORKERS_MAX];
	unsigned worker_count;
	unsigned in_phase[NODE_WORKER_PHASES];
	unsigned dialling;  /* that are not connected, whatever their phase */
	unsigned strangers; /* REFUSED for their store, and were dialled */
	/* What our store was known by before it lost that (it was emptied):
	 * workers have it from us, and follow with our next heartbeat. */
	uint64_t former_store;
	uint16_t next_id;
	uint64_t renew_at_ms;
	uint64_t peers[NODES_PEERS_MAX]; /* instances: nodes_set_peers() */
	unsigned peer_count;
	/* Deliveries queued less NODES_CALM_PER_MS: a leaky bucket. */
	uint64_t pressure;
	uint64_t flushed_ms;
	struct interest interest;
	struct arena arena;
	struct linkq_pool pool; /* of all queues */
	struct arena displaced; /* to look at what the pool displaces */
	uint64_t under_way;	/* bytes sent to all and not acknowledged */
	struct nodes_counters counters;
	struct linkq_drops dropped; /* by links that are gone */
};

void nodes_init(struct nodes *n, const struct nodes_config *config,
		const struct nodes_ops *ops, void *ctx);
void nodes_fini(struct nodes *n);

void nodes_receive(struct nodes *n, const void *bytes, size_t len,
		   uint64_t now_ms);
void nodes_connected(struct nodes *n, struct node_worker *w, uint64_t now_ms);
void nodes_disconnected(struct nodes *n, struct node_worker *w);

/* What identifies our store; 0: no channel keeps history, or not known yet.
 * Workers whose positions come from another one are refused from now on. */
void nodes_set_store(struct nodes *n, uint64_t identity);
/* The other dispatchers of our store, by instance; more than NODES_PEERS_MAX
 * are left out. */
void nodes_set_peers(struct nodes *n, const uint64_t *peers, unsigned count);
/* Whether the worker has a link to the dispatcher; to all that we know of. */
bool nodes_lists(const struct node_worker *w, uint64_t instance);
bool nodes_lists_all(const struct nodes *n, const struct node_worker *w);
/* More workers have positions of another store than are READY here: we are the
 * one that has the wrong one. (As many: we go on; who has no majority against
 * him is as right as anybody, and both sides alarm.) */
bool nodes_outvoted(const struct nodes *n);
/* NULL: there is none of this name. */
struct node *nodes_find(const struct nodes *n, const char *name);
/* The worker of a link, by our epoch of it; NULL: it is gone. */
struct node_worker *nodes_worker(const struct nodes *n, uint64_t epoch);

/* Queues one ready-encoded element of a frame (borrowed): a delivery, or an
 * answer from the store. 0, or ERR_FULL: the queue's policy, or that of the
 * pool, refused it (and counted that). */
int nodes_queue(struct nodes *n, struct node_worker *w, struct frame *delivery,
		enum priority lane, enum priority drop_class);
/* Queues a delivery (borrowed) of a message that the store keeps. False: there
 * is no room, or an earlier message of the channel found none: the worker is
 * behind there, and is told so when it has room. `key` is the channel's. */
bool nodes_queue_kept(struct nodes *n, struct node_worker *w,
		      struct frame *delivery, enum priority lane, uint64_t key,
		      const char *channel, struct place place);
/* Whether a critical message, which is not shed, may be accepted: all of the
 * workers have room for it. */
bool nodes_reserve(struct nodes *n, const uint16_t *ids, size_t count,
		   const struct frame *delivery, enum priority lane);
/* A worker is to hear that a log has got to `top`, when its link has room;
 * epoch 0: it is to look. Or all READY ones, of logs that can't be named. */
void nodes_moved(struct nodes *n, struct node_worker *w, uint64_t key,
		 const char *channel, enum priority lane, struct place top);
void nodes_moved_unnamed(struct nodes *n, struct node_worker *w);
/* Tells one worker, or all that are READY, something that must not get lost: a
 * control frame (borrowed). It goes on their queues, ahead of deliveries; one
 * whose queue is full is briefed again. */
void nodes_tell_worker(struct nodes *n, struct node_worker *w,
		       struct frame *control);
void nodes_tell(struct nodes *n, struct frame *control);
/* Sends a control frame (taken) now, ahead of deliveries; a frame that is
 * pushed back is lost. */
void nodes_send_control(struct nodes *n, struct node_worker *w,
			struct frame *control);

/* End of a loop turn: batches and acknowledgements. Returns true while some
 * link waits for its time: call again within a millisecond or two. */
bool nodes_flush(struct nodes *n, uint64_t now_ms);
/* Every 100 ms or so: heartbeats, silence, sweeping. */
void nodes_tick(struct nodes *n, uint64_t now_ms);

/* Workers that are worth waiting for before publishes are taken: those in the
 * middle of their snapshot, and with an embedded store those that have not been
 * told yet what it has of their logs. One that could not be dialled is not
 * waited for: maybe it never can. */
unsigned nodes_awaited(const struct nodes *n);
static inline bool nodes_settled(const struct nodes *n)
{
	return nodes_awaited(n) == 0;
}

#endif

/* announcer.h - what this worker tells the dispatchers, and what they have
 * confirmed (pure: sends through struct announcer_ops).
 *
 * One struct upstream per dispatcher address:
 *
 *	DOWN --connected--> GREETING --hello_ack--> UP
 *	  ^                  |  ^  (hello every       |
 *	  |                  |  |   LINK_GREET_MS)    |
 *	  +--disconnected----+  +--gap, refused-------+
 *	  +--silent for LINK_DEAD_MS: redial----------+
 *
 * Every attempt draws a fresh epoch, and a link that comes up gets a snapshot
 * of all announced channels. After that, changes: announcer_touch() notes that
 * a channel got its first subscriber or lost its last; announcer_flush(), at
 * the end of a loop turn, sends what really changed, under the next
 * *generation*. A generation is confirmed when every upstream that is UP has
 * acknowledged the frame that carried it: from then on a message published
 * anywhere reaches this worker.
 *
 * The main door of link/, which knows dispatchers:
 *
 *	in	frames, by uplink.c (announcer_receive())
 *	in	a channel that is wanted, or is not any more
 *		(announcer_touch()), and what dispatchers are asked and told
 *	out	deliveries, answers and orders, in sequence (announcer_ops)
 *	out	frames, at the end of the turn (uplink_send())
 */
#ifndef STENTOR_CONNNODE_LINK_ANNOUNCER_H
#define STENTOR_CONNNODE_LINK_ANNOUNCER_H

#include "common/codec/linkstate.h"
#include "common/codec/linkwire.h"
#include "connnode/channel/channels.h"
#include "connnode/link/skew.h"
#include "connnode/node/pace.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#define ANNOUNCER_KEYS_PER_FRAME 4096
/* After n changes were announced, those that come are gathered for n times that,
 * up to the second: a lone one goes at once, and of a crowd many in a frame. */
#define ANNOUNCER_GATHER_MS	5
#define ANNOUNCER_GATHER_MAX_MS 20
#define ANNOUNCER_QUEUE_MAX	(16u << 20) /* memory waiting for one upstream */
#define ANNOUNCER_GREETINGS_MAX \
	20 /* unanswered, then the socket is redialled */

#define ANNOUNCER_PEERS_MAX 64 /* dispatchers that one may name */

enum upstream_phase { UPSTREAM_DOWN, UPSTREAM_GREETING, UPSTREAM_UP };

struct upstream;

struct announcer_ops {
	/* Sends one frame. ERR_AGAIN: pushed back, nothing was sent. */
	int (*send)(void *ctx, struct upstream *u, const struct iovec *pieces,
		    size_t count);
	/* Close the socket and dial again: the path seems dead. */
	void (*redial)(void *ctx, struct upstream *u);
	/* Our wall clock, microseconds since 1970. NULL: it is not told, and
	 * the dispatchers' times are taken as they are. */
	uint64_t (*wall_us)(void *ctx);
	/* Deliveries of one frame, in order; borrowed during the call. Times
	 * in them are of our clock. */
	void (*deliver)(void *ctx, LinkDelivery *const *deliveries,
			size_t count);
	/* A frame in sequence that carries answers to questions (its
	 * history_answers and tops_answers); borrowed during the call. NULL:
	 * they are ignored. */
	void (*answers)(void *ctx, const LinkFrame *f, uint64_t now_ms);
	/* A frame in sequence that says which logs have moved, after its
	 * deliveries; likewise. */
	void (*moved)(void *ctx, const LinkFrame *f);
	/* A frame in sequence that carries revocations; likewise. */
	void (*revocations)(void *ctx, const LinkFrame *f);
	/* An operator's order to this node; likewise. */
	void (*drain)(void *ctx, const Stentor__Link__V1__DrainOrder *order);
	/* up: the dispatcher has acknowledged our interests, all that is
	 * published there from now on reaches us. Or the link ended, in
	 * whichever way: what was on its way may be lost; told also of a link
	 * that had not got so far. `u` may be about to be freed. May be NULL;
	 * must not add or remove upstreams. */
	void (*link_changed)(void *ctx, struct upstream *u, bool up);
};

/* What a hello says of this worker; all borrowed while the announcer lives. */
struct announcer_identity {
	const char *node, *link_address, *listen_address, *version, *token;
	uint32_t worker;
	uint64_t incarnation, config_hash, connections_max;
	uint64_t started_ms; /* since 1970 */
};

struct announcer {
	struct channels *channels;
	const struct announcer_ops *ops;
	void *ctx;
	struct announcer_identity identity;
	struct list upstreams;	 /* struct upstream.in_announcer */
	struct list unannounced; /* channels whose state may have changed */
	uint64_t announce_at_ms; /* not before: more may come */
	uint64_t generation;	 /* of the last flush that had changes */
	/* Set by the owner, told in heartbeats, as is `draining`. */
	uint64_t connections;
	uint64_t logs; /* of reliable channels */
	Stentor__Link__V1__Load load;
	/* Identity of the store that positions come from, told by the first
	 * dispatcher that knows it and kept while one with it is UP; 0: none.
	 * Two stores would hand out two truths. */
	uint64_t store;
	uint64_t asks; /* control frames of announcer_ask() */
	bool draining;
	bool hold_acks; /* set by the owner: no room for more deliveries */
	struct arena arena;
	struct {
		uint64_t frames_stale, frames_malformed, gaps, links_lost,
			store_refused;
	} counters;
};

/* A frame that waits for the socket. */
struct upstream_frame {
	struct list in_queue;
	struct frame *control;
	uint64_t generation; /* confirmed when this frame is; 0: none */
	bool snapshot_end;
};

struct upstream_mark {
	uint64_t seq, generation;
};
#define UPSTREAM_MARKS 256

struct upstream {
	struct list in_announcer;
	char *address;	   /* as dialled: "tcp://10.0.0.7:7071" */
	char *own_address; /* where it is to dial us; NULL: identity's */
	void *socket;	   /* the owner's */
	enum upstream_phase phase;
	struct link_state link;
	struct hash_key key;  /* of interest keys, the dispatcher's choice */
	char *name;	      /* the dispatcher's, once it answered */
	uint64_t config_hash; /* the dispatcher's */
	uint64_t store;	      /* the dispatcher's; 0: not told */
	struct fleet_heard fleet; /* what it said last */
	struct skew skew;	  /* of its clock */
	uint64_t instance;	  /* the dispatcher's; 0: not told */
	/* Dispatchers of its store that it has heard of lately. */
	uint64_t peers[ANNOUNCER_PEERS_MAX];
	unsigned peer_count;
	bool peers_known;      /* it has named all */
	uint64_t snapshot_seq; /* of the snapshot's end; 0: not under way */
	bool knows_all;	       /* the snapshot was acknowledged */
	uint64_t asked;	       /* announcer.asks when it was asked last */
	uint64_t speak_at_ms;  /* next hello (GREETING) or heartbeat (UP) */
	unsigned greetings;
	struct list queue; /* struct upstream_frame */
	size_t queue_bytes;
	/* Sequence numbers under way that carried generations, oldest first */
	struct upstream_mark marks[UPSTREAM_MARKS];
	unsigned mark_first, mark_count;
	uint64_t confirmed; /* generation */
};

void announcer_init(struct announcer *a, struct channels *channels,
		    const struct announcer_identity *identity,
		    const struct announcer_ops *ops, void *ctx);
/* At the end, when every subscription is gone: frees upstreams (their sockets
 * are the owner's) and the channels that were kept to be announced. */
void announcer_fini(struct announcer *a);

struct upstream *announcer_add(struct announcer *a, const char *address);
void announcer_remove(struct announcer *a, struct upstream *u);

/* Where this dispatcher is to dial us, from now on (copied). */
void announcer_own_address(struct upstream *u, const char *link_address);
/* The socket of an upstream connected or lost its connection. */
void announcer_connected(struct announcer *a, struct upstream *u,
			 uint64_t now_ms);
void announcer_disconnected(struct announcer *a, struct upstream *u);

/* One received frame, from whichever dispatcher. */
void announcer_receive(struct announcer *a, const void *bytes, size_t len,
		       uint64_t now_ms);

/* Queues a control frame for one dispatcher, or for all (`u` NULL), that are
 * UP; holds its own references. */
void announcer_tell(struct announcer *a, struct upstream *u,
		    struct frame *control);

/* A channel got its first or lost its last subscriber. The channel may be
 * forgotten by the next flush if nobody wants it. */
void announcer_touch(struct announcer *a, struct channel *ch);
/* End of a loop turn: sends changes, acknowledgements and what was pushed
 * back. */
void announcer_flush(struct announcer *a, uint64_t now_ms);
/* When it has to be called at the latest; UINT64_MAX: nothing waits. */
uint64_t announcer_due_ms(const struct announcer *a);
/* Every 100 ms or so: greetings, heartbeats, silence. */
void announcer_tick(struct announcer *a, uint64_t now_ms);

/* Queues a control frame, of which it holds its own reference, for the next
 * dispatcher that is UP, not `except` if there is another; it leaves with the
 * next flush. NULL: none is UP. */
const struct upstream *announcer_ask(struct announcer *a, struct frame *control,
				     const struct upstream *except);

/* The newest generation that every UP dispatcher has acknowledged; 0 while
 * none is up. */
uint64_t announcer_confirmed(const struct announcer *a);
unsigned announcer_up(const struct announcer *a);
/* What all UP dispatchers say of the fleet: the least of it. */
struct fleet_heard announcer_fleet(const struct announcer *a);
/* Heartbeats leave with the next tick: something that dispatchers act upon has
 * changed. */
void announcer_hurry(struct announcer *a);
/* Of these, how many follow other rules than ours. */
unsigned announcer_different(const struct announcer *a);
/* Into `instances`, up to `max`: those that have acknowledged our interest.
 * Returns how many. */
size_t announcer_linked(const struct announcer *a, uint64_t *instances,
			size_t max);
/* Whether every dispatcher that one of them names is UP and has acknowledged
 * our interest: what the store takes reaches us. False while none is UP. */
bool announcer_whole(const struct announcer *a);
/* Whether a dispatcher other than `u` is UP and has the store that we follow. */
bool announcer_others_follow(const struct announcer *a,
			     const struct upstream *u);
/* What all dispatchers are told, once a second each; one reference, the
 * caller's. */
struct frame *announcer_heartbeat(const struct announcer *a);
/* By how much the clock of one of them is off ours, at most. */
uint64_t announcer_skew_us(const struct announcer *a);

#endif

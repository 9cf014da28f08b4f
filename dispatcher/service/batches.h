/* batches.h - PublisherService.PublishBatch: many messages, a slice at a time.
 *
 *	bytes --prepare--> messages --publish--> outcomes, in order --> answer
 *	       '-- no request, or too much: the call fails
 *
 * All batches under way share a millisecond of each turn of the loop, in steps
 * of some 50 us: connections take turns, and so do the batches of each. So many
 * of their messages wait for the store at once that they delay what others
 * publish by 2.5 ms or so, --batch-pending-max at most; the rest waits here, as
 * bytes: --batch-bytes-max, of which each connection has a share (share.h).
 * A batch's messages are submitted in its order, so those of one channel are
 * stored in it.
 *
 * Batches that find no room there stand in line, of each connection and the
 * connections among themselves; the first one is woken when there is room, and
 * the next one if that has left some.
 *
 * A batch ends early where it can: when its call is given up, what was not
 * submitted never is; nor, when the store has not taken one of its messages,
 * what the store would have to take. Of a batch of which nothing was accepted,
 * for a reason that is not its messages' own, the call fails, so that clients
 * retry it by its status.
 */
#ifndef STENTOR_DISPATCHER_SERVICE_BATCHES_H
#define STENTOR_DISPATCHER_SERVICE_BATCHES_H

#include "common/ds/list.h"

#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define BATCHES_TURN_NS 1000000 /* of all, in each turn of the loop */
/* What batches may add to the time that the store takes for a message. */
#define BATCHES_DELAY_NS   2500000
#define BATCHES_WINDOW_MIN 32
#define BATCHES_PERIOD_NS  5000000000u
/* Messages of batches that are not answered. */
#define BATCHES_MESSAGES_MAX (1u << 20)

struct items;
struct publish_calls;
struct rpc_call;

struct batches_limits {
	size_t bytes_max;   /* of batches under way */
	size_t pending_max; /* messages of batches that wait for the store */
};

struct batches {
	struct publish_calls *calls;
	struct batches_limits limits;
	struct list turns;   /* struct rpc_peer.in_turn */
	struct list stalled; /* struct rpc_peer.in_stalled */
	uv_idle_t turn;	     /* while there are turns */
	size_t messages, bytes;
	size_t pending; /* messages that wait for the store */
	/* How many may, by how long they wait: see batches.c. */
	size_t window;
	uint64_t window_ns;   /* when it last changed */
	uint64_t least_ns[2]; /* shortest waits, of this period and the last */
	uint64_t period_ns;   /* when this one began */
};

void batches_init(struct batches *all, uv_loop_t *loop,
		  struct publish_calls *calls,
		  const struct batches_limits *limits);
/* There are none. */
void batches_close(struct batches *all);
/* What on_list and on_cancel of PublishBatch do; `request` is taken. */
void batches_take(struct batches *all, struct rpc_call *call,
		  struct items *request);
void batches_give_up(struct rpc_call *call);

#endif

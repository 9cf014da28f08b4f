/* calls.h - messages that come by calls of PublisherService, one by one, in a
 * stream or in a batch (private to this room).
 */
#ifndef STENTOR_DISPATCHER_SERVICE_CALLS_H
#define STENTOR_DISPATCHER_SERVICE_CALLS_H

#include "dispatcher/publish/publish.h"

struct access_control;
struct metrics;
struct rpc_call;

/* What all of them share. */
struct publish_calls {
	struct publisher *publisher;
	struct access_control *access;
	struct metrics *metrics; /* has the histogram of calls' times: */
	unsigned duration;
	uint64_t share_refused; /* calls, by a connection's share (share.h) */
};

/* Publishes if the call's caller may, and counts what waits as its peer's.
 * True: `outcome` is known; else done(ctx, outcome) follows, which begins with
 * calls_published(). */
bool calls_publish(struct publish_calls *all, struct rpc_call *call,
		   const Stentor__V1__PublishRequest *request,
		   struct publish_result *outcome, publish_done_cb done,
		   void *ctx) MUST_CHECK;
void calls_published(struct rpc_call *call);
/* The time that the call has taken. */
void calls_observe(struct publish_calls *all, const struct rpc_call *call);

#endif

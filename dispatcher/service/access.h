/* access.h - who may do what here, by the token that a call came with.
 *
 * Under --auth jwt every call but health, reflection and an autoscaler's needs
 * a token, which the API port has checked before its handler sees it; what it
 * allows is asked here. Texts name no channel and no pattern: they would help a
 * guesser. Under
 * --auth none there are no tokens, and everything is allowed.
 *
 * Revocations come by ClusterService or from workers; new ones go to all
 * workers, and end the publish streams that they mean (service/publisher.c).
 *
 * Limit: publish-rate-max messages a second with one token, publish-burst-max
 * at once.
 */
#ifndef STENTOR_DISPATCHER_SERVICE_ACCESS_H
#define STENTOR_DISPATCHER_SERVICE_ACCESS_H

#include "common/io/auth.h"
#include "dispatcher/api/rpc.h"
#include "dispatcher/route/nodes.h"

struct dispatcher;

/* Reads the keys and begins to watch them, unless --auth none. ERR_CONFIG after
 * a message on stderr. */
int access_start(struct dispatcher *d) MUST_CHECK;
void access_stop(struct dispatcher *d);

/* End the call with PERMISSION_DENIED and return false if it may not: anything
 * that concerns the whole cluster; see what is on this channel. */
bool access_admin(struct rpc_call *call);
bool access_read(struct rpc_call *call, const char *channel);
/* GRPC_OK, or why this message is not taken. Counts against the rate. */
enum grpc_code access_publish(struct rpc_call *call, const char *channel,
			      const char **why);
/* False when the token has expired or was revoked since the call began. */
bool access_lasts(const struct rpc_call *call);

/* Once a turn: tells all workers what was revoked, a slice, and ends the
 * publish streams that it means. True while there is more to tell. */
bool access_run(struct dispatcher *d);

/* nodes_ops.brief and .revocations. */
void access_brief(void *ctx, struct node_worker *w);
void access_heard(void *ctx, const LinkFrame *f);

#endif

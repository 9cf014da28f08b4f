/* access.h - who may do what here, by the token that a call came with.
 *
 * Under --auth jwt every call but health, reflection and an autoscaler's needs
 * a token, which the API port has checked before its handler sees it; what it
 * allows is asked here. Texts name no channel and no pattern: they would help a
 * guesser. Under --auth none there are no tokens, and everything is allowed.
 *
 * Revocations come by ClusterService or from workers; new ones go to all
 * workers and to who is told of them here.
 *
 * Limit: publish-rate-max messages a second with one token, publish-burst-max
 * at once.
 */
#ifndef STENTOR_DISPATCHER_SERVICE_ACCESS_H
#define STENTOR_DISPATCHER_SERVICE_ACCESS_H

#include "common/io/auth.h"
#include "dispatcher/api/rpc.h"
#include "dispatcher/route/nodes.h"

struct access_config {
	const struct rules *rules;    /* may be exchanged on reload */
	struct nodes *nodes;	      /* are told of revocations */
	uint64_t rate_max, burst_max; /* of one token; rate_max 0: any */
	/* A token, or all of a subject, was revoked: what lasts longer than a
	 * message is to be looked at. */
	void (*on_revoked)(void *ctx);
	void *ctx;
};

struct access_control {
	struct access_config config;
	uv_loop_t *loop;
	struct auth *auth;     /* NULL: --auth none */
	uint64_t rate_limited; /* messages */
	bool revoked;	       /* something, in this turn */
};

/* Reads the keys and begins to watch them; `keys` NULL: --auth none. ERR_CONFIG
 * after a message on stderr. */
int access_start(struct access_control *a, uv_loop_t *loop,
		 const struct access_config *config,
		 const struct auth_config *keys) MUST_CHECK;
void access_stop(struct access_control *a);

/* End the call with PERMISSION_DENIED and return false if it may not: anything
 * that concerns the whole cluster; see what is on this channel. */
bool access_admin(struct rpc_call *call);
bool access_read(const struct access_control *a, struct rpc_call *call,
		 const char *channel);
/* GRPC_OK, or why this message is not taken. Counts against the rate. */
enum grpc_code access_publish(struct access_control *a, struct rpc_call *call,
			      const char *channel, const char **why);
/* False when the token has expired or was revoked since the call began. */
bool access_lasts(const struct access_control *a, const struct rpc_call *call);

/* Once a turn: tells all workers what was revoked, a slice, and who is told of it
 * here. True while there is more to tell. */
bool access_run(struct access_control *a);

/* A worker is to hear of all that is revoked; one tells of some. */
void access_brief(struct access_control *a, struct node_worker *w);
void access_heard(struct access_control *a, const LinkFrame *f);

#endif

/* links.h - the shell around nodes.c: nng's sockets, and what is sent at the end
 * of each turn of the loop.
 *
 *	in	a worker's frame, by nng: to nodes_receive(), which hands what
 *		is not about the link itself on, by links_ops
 *	out	nodes_flush(), when the turn is over
 */
#ifndef STENTOR_DISPATCHER_LINKS_H
#define STENTOR_DISPATCHER_LINKS_H

#include "common/io/nngio.h"
#include "dispatcher/publish/history.h"
#include "dispatcher/route/counts.h"
#include "dispatcher/route/fleet.h"
#include "dispatcher/service/access.h"

#include <uv.h>

struct links_parts {
	struct nodes *nodes; /* made with links_ops, and the links as ctx */
	/* Who hears what workers ask and tell. */
	struct history *history;
	struct counts *counts;
	struct access_control *access;
	/* What they are told of the fleet, once workers had time to report. */
	const struct fleet *fleet;
	const bool *settled;
};

struct links {
	struct links_parts parts;
	uv_loop_t *loop;
	struct nng_tls_files tls;
	struct nng_inbox *inbox;
	uv_prepare_t flush; /* end of each loop turn */
	uv_timer_t batch;   /* while a link waits for its time */
};

extern const struct nodes_ops links_ops;

/* On error a message is logged. */
int links_start(struct links *l, uv_loop_t *loop,
		const struct links_parts *parts, const char *listen,
		const struct nng_tls_files *tls) MUST_CHECK;
/* Before nodes_fini(), which closes the sockets. */
void links_stop(struct links *l);

#endif

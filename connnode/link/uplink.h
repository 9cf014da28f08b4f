/* uplink.h - the shell around announcer.c: the worker's nng sockets, and where
 * the dispatchers are.
 *
 * One socket listens for all dispatchers' batches; one dials each dispatcher.
 * With dns:NAME:PORT the name is looked up every resolve-ms: new addresses are
 * dialled at once, an address that has gone is dropped when its link is down.
 */
#ifndef STENTOR_CONNNODE_LINK_UPLINK_H
#define STENTOR_CONNNODE_LINK_UPLINK_H

#include "common/io/nngio.h"
#include "connnode/link/announcer.h"

#include <uv.h>

#define UPLINK_DISPATCHERS_MAX 256

struct uplink;

/* All borrowed while the uplink lives. */
struct uplink_start {
	uv_loop_t *loop;
	struct announcer *announcer; /* initialised, without upstreams */
	const char *link_url;	     /* where we listen for batches */
	const char *advertise;	     /* what others dial; "": found out */
	const char *dispatchers;     /* a list of URLs, or dns:NAME:PORT */
	uint64_t resolve_ms;
	struct nng_tls_files tls;
};

/* Starts listening and dialling. On error a message is logged; `out` is set in
 * any case. */
int uplink_start(const struct uplink_start *s, struct uplink **out) MUST_CHECK;
/* Every 100 ms or so. */
void uplink_tick(struct uplink *up);
/* Bytes received that the loop has not looked at. */
size_t uplink_pending(const struct uplink *up);
/* For how long there have been more than a turn could take. */
uint64_t uplink_age_ms(const struct uplink *up);
void uplink_stop(struct uplink *up);
/* After the loop has ended. */
void uplink_free(struct uplink *up);

/* The announcer's way to its sockets: announcer_ops.send and .redial. */
int uplink_send(void *ctx, struct upstream *u, const struct iovec *pieces,
		size_t count);
void uplink_redial(void *ctx, struct upstream *u);

/* Is `list` one that uplink_start() will take? For the check before any
 * socket opens. */
bool uplink_list_valid(const char *list);

#endif

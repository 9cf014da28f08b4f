/* uplink.h - the shell around announcer.c: the worker's nng sockets, and where
 * the dispatchers are.
 *
 * One socket listens for all dispatchers' batches; one dials each dispatcher.
 * With dns:NAME:PORT the name is looked up every resolve-ms: new addresses are
 * dialled at once, an address that has gone is dropped when its link is down.
 */
#ifndef STENTOR_CONNNODE_LINK_UPLINK_H
#define STENTOR_CONNNODE_LINK_UPLINK_H

#include "connnode/worker.h"

#define UPLINK_DISPATCHERS_MAX 256

/* Starts listening and dialling. On error a message is logged. */
int uplink_start(struct worker *w, const char *link_url) MUST_CHECK;
/* Each WORKER_TICK_MS. */
void uplink_tick(struct worker *w);
/* Bytes received that the loop has not looked at. */
size_t uplink_pending(const struct worker *w);
/* For how long there have been more than a turn could take. */
uint64_t uplink_age_ms(const struct worker *w);
void uplink_stop(struct worker *w);
/* After the loop has ended. */
void uplink_free(struct worker *w);

/* Is `list` one that uplink_start() will take? For the check before any
 * socket opens. */
bool uplink_list_valid(const char *list);

#endif

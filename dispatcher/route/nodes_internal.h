/* nodes_internal.h - what the files of nodes.h share. */
#ifndef STENTOR_DISPATCHER_ROUTE_NODES_INTERNAL_H
#define STENTOR_DISPATCHER_ROUTE_NODES_INTERNAL_H

#include "dispatcher/route/nodes.h"

typedef Stentor__Link__V1__Hello Hello;
typedef Stentor__Link__V1__RefuseReason RefuseReason;
#define REFUSED_FOR(name) STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_##name

/* --- nodes.c ----------------------------------------------------------- */

/* A worker as its hello says, CONNECTING; NULL: there is no room. */
struct node_worker *nodes_worker_new(struct nodes *n, const LinkFrame *f,
				     uint64_t now_ms);
void nodes_worker_drop(struct nodes *n, struct node_worker *w,
		       const char *reason);
/* The only place where a phase changes. */
void nodes_set_phase(struct nodes *n, struct node_worker *w,
		     enum node_worker_phase phase);

/* What the worker announces fits into the routing table, with some to spare so
 * that it does not come and go. */
bool nodes_interest_fits(const struct nodes *n, const struct node_worker *w);

/* Sends a frame under a header; ERR_AGAIN: pushed back. *sent is its length. */
int nodes_send_frame(struct nodes *n, struct node_worker *w,
		     const struct link_header *h, const struct frame *control,
		     size_t *sent) MUST_CHECK;
/* Sends a control frame (borrowed; NULL: just an acknowledgement) in sequence;
 * ERR_AGAIN: pushed back. */
int nodes_send_in_sequence(struct nodes *n, struct node_worker *w,
			   const struct frame *control) MUST_CHECK;

/* --- nodes_greet.c ----------------------------------------------------- */

void nodes_take_hello(struct nodes *n, const LinkFrame *f, uint64_t now_ms);
/* No node holds or does that much; sums of them overflow nothing. */
uint64_t nodes_sane(uint64_t told);
/* Ends what there is between the two, and says why, now and at each hello. */
void nodes_refuse(struct nodes *n, struct node_worker *w, RefuseReason reason);
/* Has the worker greet anew, and so replace this link. */
void nodes_reset(struct nodes *n, struct node_worker *w, const char *text);
/* It has positions of another store, and is no mere hello. */
bool nodes_is_stranger(const struct node_worker *w);
/* Two stores would hand out two truths about the same channel. */
bool nodes_store_differs(const struct nodes *n, uint64_t store);

/* --- nodes_batch.c ----------------------------------------------------- */

void nodes_pool_init(struct nodes *n);
/* Bytes sent to the worker and not acknowledged. */
uint64_t nodes_under_way(const struct node_worker *w);

/* The worker has something to send at the end of this turn. */
void nodes_want_flush(struct nodes *n, struct node_worker *w);

#endif

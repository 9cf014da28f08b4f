/* nodes_internal.h - what nodes.c and nodes_batch.c share. */
#ifndef STENTOR_DISPATCHER_NODES_INTERNAL_H
#define STENTOR_DISPATCHER_NODES_INTERNAL_H

#include "dispatcher/nodes.h"

/* Sends a control frame (borrowed; NULL: just an acknowledgement) in sequence;
 * ERR_AGAIN: pushed back. */
int nodes_send_in_sequence(struct nodes *n, struct node_worker *w,
			   const struct frame *control) MUST_CHECK;
/* The worker has something to send at the end of this turn. */
void nodes_want_flush(struct nodes *n, struct node_worker *w);

#endif

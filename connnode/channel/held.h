/* held.h - messages of one log that came before their turn (pure).
 *
 * Copies, in the order of their positions, each once. They come nearly in
 * order, so a place in the list is looked for from its end.
 */
#ifndef STENTOR_CONNNODE_CHANNEL_HELD_H
#define STENTOR_CONNNODE_CHANNEL_HELD_H

#include "common/codec/linkwire.h"
#include "common/codec/place.h"
#include "common/ds/list.h"

#include <stdbool.h>
#include <stddef.h>

struct held {
	struct list messages; /* struct held_message, in held.c */
	size_t bytes;	      /* of memory */
	size_t *total;	      /* over all lists, the owner's */
};

void held_init(struct held *h, size_t *total);
/* Lets all go; returns how many. */
size_t held_clear(struct held *h);

/* Copies all that the delivery points to, but for its channel, which is
 * borrowed. False: it is there already. */
bool held_add(struct held *h, const LinkDelivery *d, char *channel);

/* NULL: none. Borrowed until the list changes. */
const LinkDelivery *held_first(const struct held *h);
void held_pop(struct held *h);

/* The log is in `epoch` now. `same` says of the message at an earlier position
 * whether it is in that epoch too: then it has a position there; else it is let
 * go. What is there twice then stays so. */
void held_carry(struct held *h, uint64_t epoch,
		bool (*same)(void *ctx, struct place at), void *ctx);
/* Whether one of an epoch between the two would be let go. */
bool held_between(const struct held *h, uint64_t from, uint64_t to,
		  bool (*same)(void *ctx, struct place at), void *ctx);

#endif

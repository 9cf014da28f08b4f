/* place.h - a client's place in all its channels, as the `id:` line carries it
 * and Last-Event-ID brings it back (pure).
 *
 * Opaque to clients, made of [A-Za-z0-9_-], the same on every node:
 *
 *	base64url( version, hash of the channel list (4 bytes),
 *		   for each channel of the request, in its order:
 *			varint epoch, varint offset  -- or one zero byte for a
 *			channel without a place (ephemeral) )
 *
 * Bound to the request's channel list by the hash: with another list it does
 * not decode. Nothing in it is trusted: a forged place can only make a client
 * miss or repeat its own messages.
 */
#ifndef STENTOR_CODEC_PLACE_H
#define STENTOR_CODEC_PLACE_H

#include "common/base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A place in one channel's log. Epoch 0: none. Offset 0: before the first
 * message of any log made after `epoch`. */
struct place {
	uint64_t epoch, offset;
};

/* No store's epochs are greater: Redis counts them in doubles. */
#define PLACE_EPOCH_MAX ((uint64_t)1 << 53)

static inline bool place_equals(struct place a, struct place b)
{
	return a.epoch == b.epoch && a.offset == b.offset;
}

/* Positions are ordered over all logs that a channel ever has. */
static inline bool place_before(struct place a, struct place b)
{
	return a.epoch != b.epoch ? a.epoch < b.epoch : a.offset < b.offset;
}

/* Characters of an id over `channels` channels, the final zero included. */
#define PLACE_ID_SIZE(channels) (12 + ((channels)*20 * 4 + 2) / 3)

/* Of a channel list; the names in the order of the request. */
uint32_t place_list_hash(const char *const *channels, size_t count);

/* Writes the id and returns its length. */
size_t place_encode(char *id, uint32_t list_hash, const struct place *places,
		    size_t count);

/* ERR_MALFORMED: not an id, or not of this list. All or nothing. */
int place_decode(const char *id, uint32_t list_hash, struct place *places,
		 size_t count) MUST_CHECK;

#endif

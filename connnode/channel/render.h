/* render.h - a message as an SSE frame (pure).
 *
 * One frame for each variant that is wanted (channels.h), shared by all its
 * subscribers. The frame's fields tell what the way to a slow reader needs to
 * know: class, place, time to live, what it may be conflated with.
 */
#ifndef STENTOR_CONNNODE_CHANNEL_RENDER_H
#define STENTOR_CONNNODE_CHANNEL_RENDER_H

#include "common/base/config.h"
#include "common/codec/linkwire.h"
#include "common/codec/place.h"
#include "connnode/channel/channels.h"

/* What a delivery's priority field says; anything odd is normal. */
enum priority message_class(const LinkDelivery *d);
/* When it expires, microseconds since 1970; 0: never. */
uint64_t message_expires_us(const LinkDelivery *d);

/* The message in one variant; one reference, the caller's. A message with a
 * position carries its id line where the variant is ALONE. */
struct frame *render_message(const struct channels *c, const struct channel *ch,
			     const LinkDelivery *d, unsigned variant);

/* {"epoch":"1700000000000","offset":"7"}, as the API writes positions. */
#define POSITION_JSON_SIZE 80
void render_position(char text[POSITION_JSON_SIZE], const struct place *place);

#endif

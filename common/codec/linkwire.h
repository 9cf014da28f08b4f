/* linkwire.h - frames between dispatcher and worker as bytes (pure).
 *
 * A frame on the wire is a stentor.link.v1.Frame (proto/stentor/link/v1).
 * Because protobuf fields may be concatenated, it is put together from pieces
 * that are encoded at different times: a header for this link, a control part,
 * deliveries that were encoded once for all links, and answers from the store.
 */
#ifndef STENTOR_CODEC_LINKWIRE_H
#define STENTOR_CODEC_LINKWIRE_H

#include "common/base/check.h"
#include "common/ds/arena.h"
#include "common/ds/frame.h"
#include "stentor/link/v1/link.pb-c.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINK_PROTOCOL	 2
#define LINK_HEADER_MAX	 56
#define LINK_DECODED_MAX ((size_t)32 << 20) /* arena bytes of one frame */

typedef Stentor__Link__V1__Frame LinkFrame;
typedef Stentor__Link__V1__Delivery LinkDelivery;
typedef Stentor__Link__V1__HistoryAnswer LinkHistoryAnswer;

struct link_header {
	uint64_t sender_epoch, receiver_epoch;
	uint64_t seq, ack, ack_bytes;
};

/* Returns the bytes written. */
size_t link_header_encode(uint8_t out[LINK_HEADER_MAX],
			  const struct link_header *h);

/* One element of Frame.deliveries, tag and length included, ready to be put
 * behind a header; one reference, the caller's. */
struct frame *link_delivery_encode(const LinkDelivery *d);

/* What a store keeps of a message: the delivery, packed, without its channel
 * and position, which are ignored; one reference, the caller's. */
struct frame *link_record_encode(const LinkDelivery *d);

/* Whether bytes can be decoded as a record: what comes from a store may be
 * anything. */
bool link_record_valid(const void *record, size_t len);

/* The same element of Frame.deliveries as link_delivery_encode(), from a record
 * that is not decoded: channel and position are put behind it as further
 * fields. One reference, the caller's. */
struct frame *link_delivery_from_record(const void *record, size_t len,
					const char *channel, uint64_t epoch,
					uint64_t offset);
/* Its length. */
size_t link_delivery_from_record_size(size_t len, const char *channel,
				      uint64_t epoch, uint64_t offset);

struct link_record {
	uint64_t offset;
	const uint8_t *bytes;
	size_t len;
};

/* One element of Frame.history_answers, tag and length included: `answer`
 * without messages, then `count` records of the log `answer->top->epoch` as its
 * messages. One reference, the caller's. */
struct frame *link_history_encode(const LinkHistoryAnswer *answer,
				  const struct link_record *records,
				  size_t count);

/* A frame that holds only control fields (its header fields are ignored);
 * one reference, the caller's. */
struct frame *link_control_encode(LinkFrame *f);

/* Decodes into `arena` (valid until it is reset). NULL: malformed, more than
 * the arena may hold, or a hello with texts that are not UTF-8 without NUL. */
LinkFrame *link_frame_decode(struct arena *arena, const void *bytes,
			     size_t len) MUST_CHECK;

struct link_header link_frame_header(const LinkFrame *f);

#endif

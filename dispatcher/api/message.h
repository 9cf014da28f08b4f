/* message.h - requests and answers between bytes and protobuf-c structs
 * (private to dispatcher/api; pure).
 *
 * Protobuf requests are unpacked into an arena that is used again for every
 * message and bounded by MESSAGE_ARENA_MAX, because unpacked messages can be
 * many times larger than their bytes. A decoded message is valid until
 * message_release(); one at a time.
 */
#ifndef STENTOR_DISPATCHER_API_MESSAGE_H
#define STENTOR_DISPATCHER_API_MESSAGE_H

#include "common/base/check.h"
#include "common/ds/arena.h"
#include "common/ds/buf.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

#define MESSAGE_ARENA_MAX (128u << 20)
#define MESSAGE_WHY_MAX	  256

enum message_codec { CODEC_PROTO, CODEC_JSON };

struct message_arena {
	struct arena memory;
	ProtobufCAllocator allocator;
	ProtobufCMessage *json; /* made by the JSON codec, not in the arena */
	bool lent;		/* a message is out */
};

void message_arena_init(struct message_arena *a);
void message_arena_fini(struct message_arena *a);

/* Decodes and checks that strings are UTF-8 without NUL. Returns 0,
 * ERR_MALFORMED, ERR_REFUSED (well-formed, but a string is not) or
 * ERR_TOO_LARGE, with a text for the client in `why` (MESSAGE_WHY_MAX bytes).
 */
int message_decode(struct message_arena *a,
		   const ProtobufCMessageDescriptor *type,
		   enum message_codec codec, const uint8_t *bytes, size_t len,
		   ProtobufCMessage **out, char *why) MUST_CHECK;
/* The same of protobuf whose strings were looked at already; no text. */
int message_unpack(struct message_arena *a,
		   const ProtobufCMessageDescriptor *type, const uint8_t *bytes,
		   size_t len, ProtobufCMessage **out) MUST_CHECK;
void message_release(struct message_arena *a);

/* Appends the encoded message, after `prefix` bytes of room (for gRPC's
 * framing), whose offset in the buffer is the old length. Returns the encoded
 * size, or ERR_FULL with the buffer unchanged. */
int message_encode(struct buf *out, const ProtobufCMessage *m,
		   enum message_codec codec, size_t prefix) MUST_CHECK;

#endif

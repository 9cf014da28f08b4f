/* message.c - decoding into a reused arena. */
#include "dispatcher/api/message.h"

#include "common/base/err.h"
#include "common/codec/json.h"
#include "common/codec/pbarena.h"
#include "common/codec/pbwire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void message_arena_init(struct message_arena *a)
{
	memset(a, 0, sizeof(*a));
	arena_init(&a->memory, MESSAGE_ARENA_MAX);
	a->allocator = pbarena_allocator(&a->memory);
}

void message_arena_fini(struct message_arena *a)
{
	check(!a->lent);
	arena_fini(&a->memory);
}

static int decode_json(struct message_arena *a,
		       const ProtobufCMessageDescriptor *type,
		       const uint8_t *bytes, size_t len, ProtobufCMessage **out,
		       char *why)
{
	int rv = json_to_message(type, (const char *)bytes, len, false,
				 &a->json, why, MESSAGE_WHY_MAX);

	if (rv != 0) {
		a->json = NULL;
		return ERR_MALFORMED;
	}
	*out = a->json;
	return 0;
}

static int decode_proto(struct message_arena *a,
			const ProtobufCMessageDescriptor *type,
			const uint8_t *bytes, size_t len,
			ProtobufCMessage **out, char *why)
{
	int rv = pbwire_check_strings(type, bytes, len, "", why,
				      MESSAGE_WHY_MAX);

	if (rv != 0)
		return rv;
	*out = protobuf_c_message_unpack(type, &a->allocator, len, bytes);
	if (*out)
		return 0;
	snprintf(why, MESSAGE_WHY_MAX, "not a valid %s message", type->name);
	return ERR_MALFORMED;
}

int message_decode(struct message_arena *a,
		   const ProtobufCMessageDescriptor *type,
		   enum message_codec codec, const uint8_t *bytes, size_t len,
		   ProtobufCMessage **out, char *why)
{
	int rv;

	check(!a->lent);
	rv = codec == CODEC_JSON ? decode_json(a, type, bytes, len, out, why)
				 : decode_proto(a, type, bytes, len, out, why);
	if (rv == 0)
		a->lent = true;
	else
		arena_reset(&a->memory);
	return rv;
}

int message_unpack(struct message_arena *a,
		   const ProtobufCMessageDescriptor *type, const uint8_t *bytes,
		   size_t len, ProtobufCMessage **out)
{
	check(!a->lent);
	*out = protobuf_c_message_unpack(type, &a->allocator, len, bytes);
	if (*out)
		a->lent = true;
	else
		arena_reset(&a->memory);
	return *out ? 0 : ERR_MALFORMED;
}

void message_release(struct message_arena *a)
{
	check(a->lent);
	a->lent = false;
	if (a->json)
		protobuf_c_message_free_unpacked(a->json, NULL);
	a->json = NULL;
	arena_reset(&a->memory);
}

int message_encode(struct buf *out, const ProtobufCMessage *m,
		   enum message_codec codec, size_t prefix)
{
	size_t len;
	uint8_t *place;

	if (codec == CODEC_JSON) {
		char *text = json_from_message(m, &len);

		place = buf_extend(out, prefix + len);
		if (place)
			memcpy(place + prefix, text, len);
		free(text);
	} else {
		len = protobuf_c_message_get_packed_size(m);
		place = buf_extend(out, prefix + len);
		if (place)
			protobuf_c_message_pack(m, place + prefix);
	}
	return place ? (int)len : ERR_FULL;
}

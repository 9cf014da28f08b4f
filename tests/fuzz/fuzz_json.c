/* Fuzz target: JSON to protobuf. The first byte chooses the message type and
 * whether unknown fields are let through. What is accepted must have valid
 * strings, and must come back the same through JSON and through the protobuf
 * wire. */
#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/codec/json.h"
#include "common/codec/pbwire.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "stentor/link/v1/link.pb-c.h"
#include "stentor/v1/cluster.pb-c.h"
#include "stentor/v1/publisher.pb-c.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const ProtobufCMessageDescriptor *const types[] = {
	&stentor__v1__publish_request__descriptor,
	&stentor__v1__publish_batch_request__descriptor,
	&stentor__v1__list_nodes_response__descriptor,
	&stentor__link__v1__frame__descriptor,
	&grpc__reflection__v1__server_reflection_request__descriptor,
	&grpc__reflection__v1__server_reflection_response__descriptor,
};

static void check_text(const ProtobufCMessage *m, const char *expected)
{
	size_t len;
	char *text = json_from_message(m, &len);

	check(len == strlen(expected));
	check(memcmp(text, expected, len) == 0);
	free(text);
}

static void check_round_trips(const ProtobufCMessageDescriptor *type,
			      const ProtobufCMessage *m)
{
	size_t len, wire_len = protobuf_c_message_get_packed_size(m);
	uint8_t *wire = xmalloc(wire_len);
	char *text = json_from_message(m, &len);
	ProtobufCMessage *again;
	char why[128];
	int err;

	check(utf8_valid(text, len));
	err = json_to_message(type, text, len, false, &again, why, sizeof(why));
	check(err == 0);
	check_text(again, text);
	protobuf_c_message_free_unpacked(again, NULL);
	protobuf_c_message_pack(m, wire);
	/* No string of a message from JSON needs to be looked at again. */
	err = pbwire_check_strings(type, wire, wire_len, "", why, sizeof(why));
	check(err == 0);
	again = protobuf_c_message_unpack(type, NULL, wire_len, wire);
	check(again != NULL);
	check_text(again, text);
	protobuf_c_message_free_unpacked(again, NULL);
	free(wire);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const ProtobufCMessageDescriptor *type;
	ProtobufCMessage *m;
	char why[64];
	int err;

	if (size < 1)
		return 0;
	type = types[(data[0] & 0x7f) % array_len(types)];
	err = json_to_message(type, (const char *)data + 1, size - 1,
			      data[0] & 0x80, &m, why, sizeof(why));
	if (err) {
		check(m == NULL);
		check(why[0] != '\0' && utf8_valid(why, strlen(why)));
		return 0;
	}
	check_round_trips(type, m);
	protobuf_c_message_free_unpacked(m, NULL);
	return 0;
}

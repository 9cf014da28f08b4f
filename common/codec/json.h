/* json.h - protobuf messages as JSON and back, by protobuf-c descriptors
 * (pure).
 *
 * The proto3 JSON mapping (protobuf.dev/programming-guides/json): field names
 * in lowerCamelCase (snake_case is accepted too), 64-bit integers as strings
 * (numbers are accepted), bytes as base64, enums by name (numbers are
 * accepted), maps as objects, absent and default values left out. Unknown
 * fields are refused with their name, unless `lenient`. Depth, duplicate keys,
 * non-finite numbers, lone surrogates and NUL characters in strings, raw or
 * escaped, are refused.
 */
#ifndef STENTOR_CODEC_JSON_H
#define STENTOR_CODEC_JSON_H

#include "common/base/check.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

/* Parses `len` bytes into a new message of `type`, to be freed with
 * protobuf_c_message_free_unpacked(m, NULL). On error returns ERR_MALFORMED
 * and a text for the caller of the API in `why`. Empty input is an empty
 * message. */
int json_to_message(const ProtobufCMessageDescriptor *type, const char *text,
		    size_t len, bool lenient, ProtobufCMessage **out, char *why,
		    size_t why_size) MUST_CHECK;

/* The same for an element of a message whose field is at `path`
 * ("messages[3]"), which errors begin with. Not lenient; empty input is no
 * element. */
int json_to_element(const ProtobufCMessageDescriptor *type, const char *path,
		    const char *text, size_t len, ProtobufCMessage **out,
		    char *why, size_t why_size) MUST_CHECK;

/* A new zero-terminated JSON text, to be freed with free(). Never NULL. */
char *json_from_message(const ProtobufCMessage *message, size_t *len);

/* Is it well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms)? */
bool utf8_valid(const void *bytes, size_t len);

/* Appends `text` (len bytes of valid UTF-8) to out as a JSON string with
 * quotes; returns bytes written. `out` must have room for 6 * len + 2. */
size_t json_quote(char *out, const char *text, size_t len);
/* How many bytes json_quote() will write. */
size_t json_quoted_len(const char *text, size_t len);

#endif

/* pbwire.h - an encoded protobuf message as its bytes stand (pure).
 *
 * protobuf-c hands out strings as C strings: one with a NUL in it comes out
 * cut, and nothing tells. So strings are looked at here, before anything is
 * unpacked. What this takes for a field is what protobuf-c takes for one; where
 * encodings are not minimal, it refuses rather more.
 */
#ifndef STENTOR_CODEC_PBWIRE_H
#define STENTOR_CODEC_PBWIRE_H

#include "common/base/check.h"

#include <protobuf-c/protobuf-c.h>
#include <stddef.h>
#include <stdint.h>

/* What is left to be read. */
struct pbwire {
	const uint8_t *at, *end;
};

struct pbwire_field {
	uint32_t id;
	uint8_t wire; /* ProtobufCWireType */
	/* The value's bytes, of a length-delimited one without the length. */
	const uint8_t *bytes;
	size_t len;
};

/* Takes the next field: 1; 0 at the end; ERR_MALFORMED. */
int pbwire_next(struct pbwire *w, struct pbwire_field *f) MUST_CHECK;

/* Are all strings of the message, at any depth, UTF-8 without NUL? 0;
 * ERR_REFUSED: one is not, and `why` names it ("messages[3].data: must not
 * contain NUL characters"), `path` before that if it is not ""; ERR_MALFORMED:
 * this is no message. */
int pbwire_check_strings(const ProtobufCMessageDescriptor *type,
			 const void *bytes, size_t len, const char *path,
			 char *why, size_t why_size) MUST_CHECK;

/* Appends tag and length of a length-delimited field to `out`, which has room
 * for PBWIRE_HEAD_MAX; returns the bytes written. */
#define PBWIRE_HEAD_MAX 10
size_t pbwire_put_head(uint8_t *out, uint32_t id, size_t len);

#endif

/* grpc.h - gRPC message framing and status rules (pure).
 *
 * grpc/grpc doc/PROTOCOL-HTTP2.md: messages are a flag byte, a 4-byte
 * big-endian length and that many bytes; they have no relation to DATA frames.
 */
#ifndef STENTOR_CODEC_GRPC_H
#define STENTOR_CODEC_GRPC_H

#include "common/base/check.h"
#include "common/ds/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum grpc_code {
	GRPC_OK = 0,
	GRPC_CANCELLED = 1,
	GRPC_UNKNOWN = 2,
	GRPC_INVALID_ARGUMENT = 3,
	GRPC_DEADLINE_EXCEEDED = 4,
	GRPC_NOT_FOUND = 5,
	GRPC_ALREADY_EXISTS = 6,
	GRPC_PERMISSION_DENIED = 7,
	GRPC_RESOURCE_EXHAUSTED = 8,
	GRPC_FAILED_PRECONDITION = 9,
	GRPC_ABORTED = 10,
	GRPC_OUT_OF_RANGE = 11,
	GRPC_UNIMPLEMENTED = 12,
	GRPC_INTERNAL = 13,
	GRPC_UNAVAILABLE = 14,
	GRPC_DATA_LOSS = 15,
	GRPC_UNAUTHENTICATED = 16,
};
#define GRPC_CODES 17

/* "INVALID_ARGUMENT"; Connect's "invalid_argument"; Connect's HTTP status. */
const char *grpc_code_name(enum grpc_code code);
const char *grpc_code_connect(enum grpc_code code);
int grpc_code_http(enum grpc_code code);

#define GRPC_PREFIX 5 /* bytes before each message */

/* Writes the prefix of an uncompressed message of `len` bytes. */
void grpc_prefix(uint8_t out[GRPC_PREFIX], size_t len, bool compressed);

/* Reassembles messages from a byte stream. Holds at most one incomplete
 * message, of at most `max` bytes. */
struct grpc_reader {
	struct buf partial;
	size_t message_max;
};

void grpc_reader_init(struct grpc_reader *r, size_t message_max);
void grpc_reader_fini(struct grpc_reader *r);

/* Takes the next message out of *bytes / *len, which move on. Returns 1 with
 * *message / *message_len (borrowed from the input where it lies whole in it,
 * else from the reader; until the next call) and *compressed; 0 when more
 * input is needed (all was taken); ERR_TOO_LARGE for a length over the
 * maximum; ERR_MALFORMED for a flag other than 0 or 1. */
int grpc_reader_next(struct grpc_reader *r, const uint8_t **bytes, size_t *len,
		     const uint8_t **message, size_t *message_len,
		     bool *compressed) MUST_CHECK;
/* True when a message has begun and is not complete. */
bool grpc_reader_partial(const struct grpc_reader *r);

/* grpc-timeout ("100m", 1-8 digits and one of H M S m u n) in milliseconds,
 * rounded up; ERR_MALFORMED otherwise. */
int grpc_timeout_ms(const char *text, uint64_t *ms) MUST_CHECK;

/* Percent-encodes a grpc-message (0x20-0x24 and 0x26-0x7E stay). Writes at
 * most `size` bytes with the terminating zero; cuts at a whole unit. */
void grpc_message_encode(char *out, size_t size, const char *text);

/* gzip (RFC 1952). Inflates at most `max` bytes: ERR_TOO_LARGE above,
 * ERR_MALFORMED for bad data. `out` is appended to; on error nothing changed.
 */
int gzip_inflate(struct buf *out, const void *bytes, size_t len,
		 size_t max) MUST_CHECK;

/* The same a step at a time, 16 KiB of output each: ERR_AGAIN while there is
 * more. `out` has room for `max` bytes and is what it is after an error.
 * Borrows `bytes`, at most UINT32_MAX, until it is freed (NULL: nothing). */
struct gzip_reader;
struct gzip_reader *gzip_reader_new(const void *bytes, size_t len, size_t max);
int gzip_reader_step(struct gzip_reader *r, struct buf *out) MUST_CHECK;
void gzip_reader_free(struct gzip_reader *r);

/* Wants room for the worst case (a little more than `len`), else ERR_FULL. */
int gzip_deflate(struct buf *out, const void *bytes, size_t len) MUST_CHECK;

#endif

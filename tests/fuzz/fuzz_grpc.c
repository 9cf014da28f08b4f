/* Fuzz target: gRPC framing. The first byte is the size of the pieces that the
 * rest is fed in; messages must be the same as in one piece. Each compressed
 * message is inflated, within a limit; all of the input is also read as a
 * timeout and encoded as a status message. */
#include "common/base/check.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/grpc.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MESSAGE_MAX 4096

/* All messages of the input, each after its flag; returns the last answer. */
static int read_messages(const uint8_t *data, size_t size, size_t piece,
			 struct buf *out)
{
	struct grpc_reader r;
	const uint8_t *message;
	size_t len;
	bool compressed;
	int rv = 0;

	grpc_reader_init(&r, MESSAGE_MAX);
	while (rv >= 0 && size > 0) {
		size_t n = min_of(piece, size), left = n;
		const uint8_t *at = data;

		while ((rv = grpc_reader_next(&r, &at, &left, &message, &len,
					      &compressed)) == 1) {
			uint8_t flag = compressed;

			check(len <= MESSAGE_MAX);
			check(buf_append(out, &flag, 1) == 0);
			check(buf_append(out, message, len) == 0);
		}
		check(rv < 0 || left == 0);
		data += n;
		size -= n;
	}
	grpc_reader_fini(&r);
	return rv;
}

static void try_gzip(const uint8_t *data, size_t size)
{
	struct buf plain, zipped, again;

	buf_init(&plain, MESSAGE_MAX);
	if (gzip_inflate(&plain, data, size, MESSAGE_MAX) == 0) {
		buf_init(&zipped, 2 * MESSAGE_MAX);
		buf_init(&again, MESSAGE_MAX);
		check(gzip_deflate(&zipped, plain.bytes, plain.len) == 0);
		check(gzip_inflate(&again, zipped.bytes, zipped.len,
				   plain.len) == 0);
		check(again.len == plain.len);
		check(plain.len == 0 ||
		      memcmp(again.bytes, plain.bytes, plain.len) == 0);
		buf_fini(&again);
		buf_fini(&zipped);
	}
	buf_fini(&plain);
}

static void try_texts(const uint8_t *data, size_t size)
{
	char *text = xmemdupz(data, size);
	char out[64];
	uint64_t ms;

	if (grpc_timeout_ms(text, &ms) == 0)
		check(ms <= 99999999ull * 3600000);
	for (size_t room = 1; room <= sizeof(out); room++) {
		grpc_message_encode(out, room, text);
		check(strlen(out) < room);
	}
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf whole, pieces;
	int rv;

	if (size < 1)
		return 0;
	buf_init(&whole, size);
	buf_init(&pieces, size);
	rv = read_messages(data + 1, size - 1, size, &whole);
	check(read_messages(data + 1, size - 1, 1 + data[0] % 32, &pieces) ==
	      rv);
	check(whole.len == pieces.len);
	check(whole.len == 0 ||
	      memcmp(whole.bytes, pieces.bytes, whole.len) == 0);
	buf_fini(&pieces);
	buf_fini(&whole);
	try_gzip(data + 1, size - 1);
	try_texts(data + 1, size - 1);
	return 0;
}

#include "common/codec/grpc.h"

#include "common/base/err.h"

#include <stdio.h>
#include <string.h>

/* A reader keeps this much memory between messages that were split. */
#define PARTIAL_KEEP 4096

static const struct {
	const char *name, *connect;
	int http;
} codes[GRPC_CODES] = {
	[GRPC_OK] = {"OK", "ok", 200},
	[GRPC_CANCELLED] = {"CANCELLED", "canceled", 499},
	[GRPC_UNKNOWN] = {"UNKNOWN", "unknown", 500},
	[GRPC_INVALID_ARGUMENT] = {"INVALID_ARGUMENT", "invalid_argument", 400},
	[GRPC_DEADLINE_EXCEEDED] = {"DEADLINE_EXCEEDED", "deadline_exceeded",
				    504},
	[GRPC_NOT_FOUND] = {"NOT_FOUND", "not_found", 404},
	[GRPC_ALREADY_EXISTS] = {"ALREADY_EXISTS", "already_exists", 409},
	[GRPC_PERMISSION_DENIED] = {"PERMISSION_DENIED", "permission_denied",
				    403},
	[GRPC_RESOURCE_EXHAUSTED] = {"RESOURCE_EXHAUSTED", "resource_exhausted",
				     429},
	[GRPC_FAILED_PRECONDITION] = {"FAILED_PRECONDITION",
				      "failed_precondition", 400},
	[GRPC_ABORTED] = {"ABORTED", "aborted", 409},
	[GRPC_OUT_OF_RANGE] = {"OUT_OF_RANGE", "out_of_range", 400},
	[GRPC_UNIMPLEMENTED] = {"UNIMPLEMENTED", "unimplemented", 501},
	[GRPC_INTERNAL] = {"INTERNAL", "internal", 500},
	[GRPC_UNAVAILABLE] = {"UNAVAILABLE", "unavailable", 503},
	[GRPC_DATA_LOSS] = {"DATA_LOSS", "data_loss", 500},
	[GRPC_UNAUTHENTICATED] = {"UNAUTHENTICATED", "unauthenticated", 401},
};

/* A code from elsewhere that is none of the seventeen counts as UNKNOWN. */
static enum grpc_code known(enum grpc_code code)
{
	return (unsigned)code < GRPC_CODES ? code : GRPC_UNKNOWN;
}

const char *grpc_code_name(enum grpc_code code)
{
	return codes[known(code)].name;
}

const char *grpc_code_connect(enum grpc_code code)
{
	return codes[known(code)].connect;
}

int grpc_code_http(enum grpc_code code)
{
	return codes[known(code)].http;
}

void grpc_prefix(uint8_t out[GRPC_PREFIX], size_t len, bool compressed)
{
	check(len <= UINT32_MAX);
	out[0] = compressed;
	out[1] = (uint8_t)(len >> 24);
	out[2] = (uint8_t)(len >> 16);
	out[3] = (uint8_t)(len >> 8);
	out[4] = (uint8_t)len;
}

static size_t prefix_len(const uint8_t *prefix)
{
	return (size_t)prefix[1] << 24 | (size_t)prefix[2] << 16 |
	       (size_t)prefix[3] << 8 | prefix[4];
}

void grpc_reader_init(struct grpc_reader *r, size_t message_max)
{
	buf_init(&r->partial, GRPC_PREFIX + message_max);
	r->message_max = message_max;
}

void grpc_reader_fini(struct grpc_reader *r)
{
	buf_fini(&r->partial);
}

static int check_prefix(const struct grpc_reader *r, const uint8_t *prefix)
{
	if (prefix[0] > 1)
		return ERR_MALFORMED;
	return prefix_len(prefix) > r->message_max ? ERR_TOO_LARGE : 0;
}

/* Bytes that `partial` still lacks: of the prefix first, then of the message.
 * 0 only for a whole message, which the last call has given out. */
static size_t missing(const struct grpc_reader *r)
{
	const struct buf *b = &r->partial;

	if (b->len < GRPC_PREFIX)
		return GRPC_PREFIX - b->len;
	return GRPC_PREFIX + prefix_len(b->bytes) - b->len;
}

bool grpc_reader_partial(const struct grpc_reader *r)
{
	return r->partial.len > 0 && missing(r) > 0;
}

/* Moves up to `want` bytes from the input into the reader. */
static int take(struct grpc_reader *r, const uint8_t **bytes, size_t *len,
		size_t want)
{
	size_t n = min_of(want, *len);
	int err = buf_append(&r->partial, *bytes, n);

	if (err)
		return err;
	*bytes += n;
	*len -= n;
	return 0;
}

/* The slow way, for a message that the input splits. */
static int next_split(struct grpc_reader *r, const uint8_t **bytes, size_t *len)
{
	bool had_prefix = r->partial.len >= GRPC_PREFIX;
	int err;

	if (!had_prefix) {
		err = take(r, bytes, len, missing(r));
		if (err)
			return err;
		if (r->partial.len < GRPC_PREFIX)
			return 0;
		err = check_prefix(r, r->partial.bytes);
		if (err)
			return err;
	}
	err = take(r, bytes, len, missing(r));
	if (err)
		return err;
	return missing(r) == 0;
}

int grpc_reader_next(struct grpc_reader *r, const uint8_t **bytes, size_t *len,
		     const uint8_t **message, size_t *message_len,
		     bool *compressed)
{
	const uint8_t *whole;
	int rv;

	if (r->partial.len > 0 && missing(r) == 0)
		buf_clear(&r->partial, PARTIAL_KEEP);
	if (r->partial.len == 0 && *len >= GRPC_PREFIX) {
		rv = check_prefix(r, *bytes);
		if (rv)
			return rv;
	}
	if (r->partial.len == 0 && *len >= GRPC_PREFIX &&
	    *len - GRPC_PREFIX >= prefix_len(*bytes)) {
		whole = *bytes;
		*bytes += GRPC_PREFIX + prefix_len(whole);
		*len -= GRPC_PREFIX + prefix_len(whole);
	} else {
		rv = next_split(r, bytes, len);
		if (rv <= 0)
			return rv;
		whole = r->partial.bytes;
	}
	*compressed = whole[0] == 1;
	*message_len = prefix_len(whole);
	*message = whole + GRPC_PREFIX;
	return 1;
}

int grpc_timeout_ms(const char *text, uint64_t *ms)
{
	uint64_t n = 0;
	size_t digits = 0;

	while (text[digits] >= '0' && text[digits] <= '9' && digits < 8)
		n = n * 10 + (uint64_t)(text[digits++] - '0');
	if (digits == 0 || text[digits] == '\0' || text[digits + 1] != '\0')
		return ERR_MALFORMED;
	switch (text[digits]) {
	case 'H':
		*ms = n * 3600000;
		return 0;
	case 'M':
		*ms = n * 60000;
		return 0;
	case 'S':
		*ms = n * 1000;
		return 0;
	case 'm':
		*ms = n;
		return 0;
	case 'u':
		*ms = (n + 999) / 1000;
		return 0;
	case 'n':
		*ms = (n + 999999) / 1000000;
		return 0;
	default:
		return ERR_MALFORMED;
	}
}

/* Bytes of the character at `text`: one, and the continuations behind it. */
static size_t character_len(const char *text)
{
	size_t n = 1;

	if (((uint8_t)text[0] & 0xc0) != 0xc0)
		return n;
	while (n < 4 && ((uint8_t)text[n] & 0xc0) == 0x80)
		n++;
	return n;
}

void grpc_message_encode(char *out, size_t size, const char *text)
{
	char *end = out + size - 1;

	check(size > 0);
	while (*text) {
		uint8_t c = (uint8_t)*text;
		size_t n = character_len(text);
		bool plain = c >= 0x20 && c <= 0x7e && c != '%';

		if ((size_t)(end - out) < (plain ? 1 : 3 * n))
			break;
		if (plain) {
			*out++ = *text++;
			continue;
		}
		for (; n > 0; n--, text++, out += 3)
			snprintf(out, 4, "%%%02X", (unsigned)(uint8_t)*text);
	}
	*out = '\0';
}

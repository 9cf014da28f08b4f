/* gRPC framing over every way to split a stream, and the small rules. */
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/grpc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGE_MAX 64

static const char *const messages[] = {"hello", "", "a longer third message"};

/* Three messages, the second empty and flagged as compressed. */
static size_t make_stream(uint8_t *out)
{
	size_t len = 0;

	for (size_t i = 0; i < array_len(messages); i++) {
		size_t n = strlen(messages[i]);

		grpc_prefix(out + len, n, i == 1);
		memcpy(out + len + GRPC_PREFIX, messages[i], n);
		len += GRPC_PREFIX + n;
	}
	return len;
}

/* Takes all messages out of a piece; `seen` counts them over the pieces. The
 * piece is copied to memory of its own size, so that reading over its end
 * shows. */
static void feed(struct grpc_reader *r, const uint8_t *piece, size_t len,
		 size_t *seen)
{
	uint8_t *copy = xmalloc(len);
	const uint8_t *at = copy, *message;
	size_t message_len;
	bool compressed;
	int rv;

	memcpy(copy, piece, len);
	while ((rv = grpc_reader_next(r, &at, &len, &message, &message_len,
				      &compressed)) == 1) {
		assert_in_range(*seen, 0, 2);
		assert_int_equal(message_len, strlen(messages[*seen]));
		assert_memory_equal(message, messages[*seen], message_len);
		assert_int_equal(compressed, *seen == 1);
		assert_false(grpc_reader_partial(r));
		(*seen)++;
	}
	assert_int_equal(rv, 0);
	assert_int_equal(len, 0);
	free(copy);
}

static void test_grpc_reader_takes_every_split(void **state)
{
	uint8_t stream[128];
	size_t len = make_stream(stream);

	(void)state;
	for (size_t i = 0; i <= len; i++) {
		for (size_t j = i; j <= len; j++) {
			struct grpc_reader r;
			size_t seen = 0;

			grpc_reader_init(&r, MESSAGE_MAX);
			feed(&r, stream, i, &seen);
			feed(&r, stream + i, j - i, &seen);
			feed(&r, stream + j, len - j, &seen);
			assert_int_equal(seen, 3);
			assert_false(grpc_reader_partial(&r));
			grpc_reader_fini(&r);
		}
	}
}

static void test_grpc_reader_takes_single_bytes(void **state)
{
	uint8_t stream[128];
	size_t len = make_stream(stream), seen = 0;
	struct grpc_reader r;

	(void)state;
	grpc_reader_init(&r, MESSAGE_MAX);
	for (size_t i = 0; i < len; i++) {
		size_t before = seen;

		feed(&r, stream + i, 1, &seen);
		assert_int_equal(grpc_reader_partial(&r), seen == before);
	}
	assert_int_equal(seen, 3);
	grpc_reader_fini(&r);
}

/* Feeds the bytes in one piece, or one by one; returns the first error. */
static int read_all(const void *bytes, size_t len, bool single)
{
	const uint8_t *at = bytes, *end = at + len, *message;
	size_t message_len;
	struct grpc_reader r;
	bool compressed;
	int rv = 0;

	grpc_reader_init(&r, MESSAGE_MAX);
	while (at < end && rv >= 0) {
		size_t n = single ? 1 : (size_t)(end - at);

		rv = grpc_reader_next(&r, &at, &n, &message, &message_len,
				      &compressed);
	}
	grpc_reader_fini(&r);
	return rv;
}

static void test_grpc_reader_bounds_messages(void **state)
{
	uint8_t exact[GRPC_PREFIX + MESSAGE_MAX] = {0, 0, 0, 0, MESSAGE_MAX};

	(void)state;
	for (int single = 0; single < 2; single++) {
		assert_int_equal(read_all(exact, sizeof(exact), single), 1);
		assert_int_equal(read_all("\0\0\0\0\x41", 5, single),
				 ERR_TOO_LARGE);
		assert_int_equal(read_all("\0\xff\xff\xff\xff", 5, single),
				 ERR_TOO_LARGE);
		assert_int_equal(read_all("\x02\0\0\0\0", 5, single),
				 ERR_MALFORMED);
		assert_int_equal(read_all("\x80\0\0\0\x01x", 6, single),
				 ERR_MALFORMED);
	}
}

static void test_grpc_codes(void **state)
{
	(void)state;
	assert_string_equal(grpc_code_name(GRPC_OK), "OK");
	assert_string_equal(grpc_code_name(GRPC_CANCELLED), "CANCELLED");
	assert_string_equal(grpc_code_connect(GRPC_CANCELLED), "canceled");
	assert_string_equal(grpc_code_connect(GRPC_INVALID_ARGUMENT),
			    "invalid_argument");
	assert_int_equal(grpc_code_http(GRPC_RESOURCE_EXHAUSTED), 429);
	assert_int_equal(grpc_code_http(GRPC_UNAUTHENTICATED), 401);
	for (int i = 0; i < GRPC_CODES; i++) {
		assert_non_null(grpc_code_name((enum grpc_code)i));
		assert_non_null(grpc_code_connect((enum grpc_code)i));
		assert_in_range(grpc_code_http((enum grpc_code)i), 200, 504);
	}
	assert_string_equal(grpc_code_name((enum grpc_code)99), "UNKNOWN");
	assert_string_equal(grpc_code_name((enum grpc_code) - 1), "UNKNOWN");
}

static void test_grpc_timeouts(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} good[] = {
		{"100m", 100},
		{"0S", 0},
		{"1H", 3600000},
		{"2M", 120000},
		{"3S", 3000},
		{"1u", 1},
		{"1000u", 1},
		{"1001u", 2},
		{"1n", 1},
		{"99999999n", 100},
		{"99999999H", 359999996400000},
	};
	static const char *const bad[] = {"",	 "m",	"1",	"1x",
					  "1s",	 "-1m", "+1m",	" 1m",
					  "1m ", "1mm", "1.5S", "999999999m"};
	uint64_t ms;

	(void)state;
	for (size_t i = 0; i < array_len(good); i++) {
		assert_int_equal(grpc_timeout_ms(good[i].text, &ms), 0);
		assert_int_equal(ms, good[i].ms);
	}
	for (size_t i = 0; i < array_len(bad); i++)
		assert_int_equal(grpc_timeout_ms(bad[i], &ms), ERR_MALFORMED);
}

static void assert_encoded(const char *text, size_t size, const char *expected)
{
	char *out = xmalloc(size);

	grpc_message_encode(out, size, text);
	assert_string_equal(out, expected);
	free(out);
}

static void test_grpc_message_encoding(void **state)
{
	(void)state;
	assert_encoded("plain ~$& text", 64, "plain ~$& text");
	assert_encoded("100%\r\n\x7f", 64, "100%25%0D%0A%7F");
	assert_encoded("caf\xc3\xa9!", 64, "caf%C3%A9!");
	assert_encoded("\xff\x80", 64, "%FF%80");
	assert_encoded("abc", 4, "abc");
	assert_encoded("abc", 3, "ab");
	assert_encoded("abc", 1, "");
	assert_encoded("a%b", 4, "a");
	assert_encoded("a%b", 5, "a%25");
	assert_encoded("\xc3\xa9x", 6, "");
	assert_encoded("\xc3\xa9x", 7, "%C3%A9");
}

static void test_gzip_round_trip(void **state)
{
	static const size_t sizes[] = {0, 1, 1000, 16384, 16385, 70000};

	(void)state;
	for (size_t i = 0; i < array_len(sizes); i++) {
		size_t n = sizes[i];
		char *data = xcalloc(n, 1);
		struct buf zipped, plain;

		for (size_t k = 0; k < n; k++)
			data[k] = (char)(k * k / 7);
		buf_init(&zipped, 1 << 20);
		buf_init(&plain, n + 3); /* just what is needed */
		assert_int_equal(gzip_deflate(&zipped, data, n), 0);
		assert_int_equal(buf_append(&plain, "abc", 3), 0);
		assert_int_equal(
			gzip_inflate(&plain, zipped.bytes, zipped.len, n), 0);
		assert_int_equal(plain.len, n + 3);
		assert_memory_equal(plain.bytes + 3, data, n);
		if (n > 0) {
			plain.len = 3;
			assert_int_equal(gzip_inflate(&plain, zipped.bytes,
						      zipped.len, n - 1),
					 ERR_TOO_LARGE);
			assert_int_equal(plain.len, 3);
		}
		buf_fini(&plain);
		buf_fini(&zipped);
		free(data);
	}
}

static void test_gzip_refuses_bad_data(void **state)
{
	struct buf zipped, plain;

	(void)state;
	buf_init(&zipped, 4096);
	buf_init(&plain, 4096);
	assert_int_equal(gzip_deflate(&zipped, "some text", 9), 0);
	for (size_t cut = 0; cut < zipped.len; cut++) {
		assert_int_equal(gzip_inflate(&plain, zipped.bytes, cut, 4096),
				 ERR_MALFORMED);
		assert_int_equal(plain.len, 0);
	}
	assert_int_equal(buf_append(&zipped, "x", 1), 0);
	assert_int_equal(gzip_inflate(&plain, zipped.bytes, zipped.len, 4096),
			 ERR_MALFORMED);
	zipped.bytes[zipped.len - 3] ^= 1; /* the length in the trailer */
	assert_int_equal(
		gzip_inflate(&plain, zipped.bytes, zipped.len - 1, 4096),
		ERR_MALFORMED);
	assert_int_equal(gzip_inflate(&plain, "not gzip at all", 15, 4096),
			 ERR_MALFORMED);
	buf_fini(&plain);
	buf_init(&plain, 8);
	assert_int_equal(gzip_deflate(&plain, "some text", 9), ERR_FULL);
	buf_fini(&plain);
	buf_fini(&zipped);
}

/* 10 MiB of zeros in 10 KiB: the limit holds, and so does the memory. */
static void test_gzip_bomb_is_bounded(void **state)
{
	size_t n = 10u << 20;
	char *zeros = xcalloc(n, 1);
	struct buf zipped, plain;

	(void)state;
	buf_init(&zipped, 2 * n); /* room for the worst case */
	buf_init(&plain, n);
	assert_int_equal(gzip_deflate(&zipped, zeros, n), 0);
	assert_int_equal(gzip_inflate(&plain, zipped.bytes, zipped.len, 65536),
			 ERR_TOO_LARGE);
	assert_in_range(plain.cap, 0, 1 << 18);
	buf_fini(&plain);
	buf_fini(&zipped);
	free(zeros);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_grpc_reader_takes_every_split),
		cmocka_unit_test(test_grpc_reader_takes_single_bytes),
		cmocka_unit_test(test_grpc_reader_bounds_messages),
		cmocka_unit_test(test_grpc_codes),
		cmocka_unit_test(test_grpc_timeouts),
		cmocka_unit_test(test_grpc_message_encoding),
		cmocka_unit_test(test_gzip_round_trip),
		cmocka_unit_test(test_gzip_refuses_bad_data),
		cmocka_unit_test(test_gzip_bomb_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

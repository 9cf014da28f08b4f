#include "common/codec/place.h"

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/codec/base64.h"

#include <string.h>

/* Another layout takes another number; ids of a number that is not known are
 * malformed, and their clients are told a gap. */
#define PLACE_VERSION 1
#define VARINT_BYTES  10 /* of 64 bits */

/* The same on every node. No secret: a client that makes two lists of the same
 * hash can only fool itself. */
static const struct hash_key list_key = {
	.k0 = 0x7374656e746f7221,
	.k1 = 0x6c6173742d696421,
};

/* Each name's hash is under the key that the names before it made, so that
 * their order and their borders count. */
uint32_t place_list_hash(const char *const *channels, size_t count)
{
	struct hash_key key = list_key;

	for (size_t i = 0; i < count; i++)
		key.k0 = list_key.k0 ^
			 hash_bytes(&key, channels[i], strlen(channels[i]));
	return (uint32_t)key.k0;
}

/* --- bytes into digits --------------------------------------------------- */

/* Bytes on their way into digits, without a buffer between. */
struct writer {
	char *out;
	uint32_t bits; /* the low `left` of it are not written yet */
	unsigned left; /* 0, 2 or 4 between bytes */
};

static void put_byte(struct writer *w, uint64_t byte)
{
	w->bits = w->bits << 8 | (uint8_t)byte;
	for (w->left += 8; w->left >= 6; w->left -= 6)
		*w->out++ = base64url_digits[w->bits >> (w->left - 6) & 63];
}

static void put_varint(struct writer *w, uint64_t value)
{
	for (; value > 127; value >>= 7)
		put_byte(w, (value & 127) | 128);
	put_byte(w, value);
}

size_t place_encode(char *id, uint32_t list_hash, const struct place *places,
		    size_t count)
{
	struct writer w = {.out = id};

	put_byte(&w, PLACE_VERSION);
	for (int shift = 24; shift >= 0; shift -= 8)
		put_byte(&w, list_hash >> shift);
	for (size_t i = 0; i < count; i++) {
		put_varint(&w, places[i].epoch);
		if (places[i].epoch > 0)
			put_varint(&w, places[i].offset);
	}
	if (w.left > 0)
		*w.out++ = base64url_digits[w.bits << (6 - w.left) & 63];
	*w.out = '\0';
	check((size_t)(w.out - id) < PLACE_ID_SIZE(count));
	return (size_t)(w.out - id);
}

/* --- digits into bytes --------------------------------------------------- */

struct reader {
	const char *in;
	uint32_t bits;
	unsigned left;
	bool bad; /* from the first fault on; reads give 0 */
};

/* Only the URL-safe alphabet, for only that was written. */
static int next_digit(struct reader *r)
{
	char c = *r->in;

	if (c == '+' || c == '/')
		return -1;
	r->in += c != '\0';
	return base64_digit(c);
}

static uint8_t get_byte(struct reader *r)
{
	while (!r->bad && r->left < 8) {
		int digit = next_digit(r);

		r->bad = digit < 0;
		r->bits = r->bits << 6 | (uint32_t)digit;
		r->left += 6;
	}
	if (r->bad)
		return 0;
	r->left -= 8;
	return (uint8_t)(r->bits >> r->left);
}

/* The shortest form only: what is written for a value is one text. */
static uint64_t get_varint(struct reader *r)
{
	uint64_t value = 0;

	for (unsigned i = 0; i < VARINT_BYTES; i++) {
		uint8_t byte = get_byte(r);

		value |= (uint64_t)(byte & 127) << i * 7;
		if (byte > 127)
			continue;
		if ((byte == 0 && i > 0) || (i == VARINT_BYTES - 1 && byte > 1))
			break;
		return value;
	}
	r->bad = true;
	return 0;
}

/* Reads the places; with `places` NULL only whether they are well formed. */
static bool read_places(const char *id, uint32_t list_hash,
			struct place *places, size_t count)
{
	struct reader r = {.in = id};
	uint32_t hash = 0;

	r.bad = get_byte(&r) != PLACE_VERSION;
	for (int i = 0; i < 4; i++)
		hash = hash << 8 | get_byte(&r);
	if (r.bad || hash != list_hash)
		return false;
	for (size_t i = 0; i < count && !r.bad; i++) {
		struct place at = {.epoch = get_varint(&r)};

		if (at.epoch > 0)
			at.offset = get_varint(&r);
		if (places)
			places[i] = at;
	}
	return !r.bad && *r.in == '\0' && r.left < 6 &&
	       (r.bits & ((1u << r.left) - 1)) == 0;
}

int place_decode(const char *id, uint32_t list_hash, struct place *places,
		 size_t count)
{
	/* Twice, so that nothing is written of what turns out malformed. */
	if (!read_places(id, list_hash, NULL, count))
		return ERR_MALFORMED;
	check(read_places(id, list_hash, places, count));
	return 0;
}

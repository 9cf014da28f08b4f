/* json_text.c - UTF-8 and JSON strings: the part that runs once per message.
 *
 * Most text is ASCII and needs no escape, so both hurry over the runs in
 * between, eight bytes at a time.
 */
#include "common/codec/json.h"

#include <stdint.h>
#include <string.h>

/* The length of the sequence at `p`, 0 if it is not well-formed: Unicode
 * table 3-7, where only the second byte's range depends on the first. */
static size_t utf8_sequence(const uint8_t *p, size_t left)
{
	uint8_t low = 0x80, high = 0xbf;
	size_t len;

	if (p[0] < 0xc2 || p[0] > 0xf4)
		return 0;
	len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
	if (len > left)
		return 0;
	if (p[0] == 0xe0)
		low = 0xa0; /* overlong */
	else if (p[0] == 0xed)
		high = 0x9f; /* surrogates */
	else if (p[0] == 0xf0)
		low = 0x90; /* overlong */
	else if (p[0] == 0xf4)
		high = 0x8f; /* above U+10FFFF */
	if (p[1] < low || p[1] > high)
		return 0;
	for (size_t i = 2; i < len; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	return len;
}

bool utf8_valid(const void *bytes, size_t len)
{
	const uint8_t *p = bytes, *end;

	if (len == 0) /* `bytes` may be NULL */
		return true;
	end = p + len;
	while (p < end) {
		uint64_t word;
		size_t n;

		if (end - p >= 8) {
			memcpy(&word, p, 8);
			if ((word & 0x8080808080808080u) == 0) {
				p += 8;
				continue;
			}
		}
		n = *p < 0x80 ? 1 : utf8_sequence(p, (size_t)(end - p));
		if (n == 0)
			return false;
		p += n;
	}
	return true;
}

/* What a byte becomes: 0: itself; 'u': \u00XX; else a backslash and this. */
static const char escapes[256] = {
	[0 ... 7] = 'u', ['\b'] = 'b',	['\t'] = 't', ['\n'] = 'n',
	[11] = 'u',	 ['\f'] = 'f',	['\r'] = 'r', [14 ... 31] = 'u',
	['"'] = '"',	 ['\\'] = '\\',
};

#define EACH_BYTE(b) (0x0101010101010101u * (b))

/* Does any byte of the word need an escape? False alarms are possible right
 * above a true one, misses are not (Hacker's Delight 6-1). */
static bool word_escapes(uint64_t w)
{
	uint64_t quote = w ^ EACH_BYTE('"'), backslash = w ^ EACH_BYTE('\\');
	uint64_t found = (w - EACH_BYTE(0x20)) & ~w;

	found |= (quote - EACH_BYTE(1)) & ~quote;
	found |= (backslash - EACH_BYTE(1)) & ~backslash;
	return (found & EACH_BYTE(0x80)) != 0;
}

/* How many bytes from the start need no escape. */
static size_t plain_run(const char *text, size_t len)
{
	size_t n = 0;
	uint64_t word;

	for (; len - n >= 8; n += 8) {
		memcpy(&word, text + n, 8);
		if (word_escapes(word))
			break;
	}
	while (n < len && !escapes[(uint8_t)text[n]])
		n++;
	return n;
}

size_t json_quoted_len(const char *text, size_t len)
{
	size_t out = len + 2;

	for (size_t i = plain_run(text, len); i < len;
	     i += plain_run(text + i, len - i)) {
		out += escapes[(uint8_t)text[i]] == 'u' ? 5 : 1;
		i++;
	}
	return out;
}

size_t json_quote(char *out, const char *text, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	const char *end = text + len;
	char *o = out;

	*o++ = '"';
	for (;;) {
		size_t run = plain_run(text, (size_t)(end - text));
		uint8_t c;

		memcpy(o, text, run);
		o += run;
		text += run;
		if (text == end)
			break;
		c = (uint8_t)*text++;
		*o++ = '\\';
		*o++ = escapes[c];
		if (escapes[c] == 'u') {
			*o++ = '0';
			*o++ = '0';
			*o++ = hex[c >> 4];
			*o++ = hex[c & 15];
		}
	}
	*o++ = '"';
	return (size_t)(o - out);
}

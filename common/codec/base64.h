/* base64.h - base64 (RFC 4648), plain and URL-safe (pure). */
#ifndef STENTOR_CODEC_BASE64_H
#define STENTOR_CODEC_BASE64_H

#include "common/base/check.h"

#include <stddef.h>
#include <stdint.h>

/* The URL-safe digits, by value. */
extern const char base64url_digits[64 + 1];

/* 0-63 for a digit of either alphabet, else -1. */
int base64_digit(char c);

/* Decodes `len` characters of either alphabet, padded or not, into `out`,
 * which has room for len / 4 * 3 + 3 bytes or is `text` itself. Returns 0 and
 * *out_len, or ERR_MALFORMED. */
int base64_decode(const char *text, size_t len, uint8_t *out,
		  size_t *out_len) MUST_CHECK;

#endif

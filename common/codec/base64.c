#include "common/codec/base64.h"

#include "common/base/err.h"

const char base64url_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				"abcdefghijklmnopqrstuvwxyz0123456789-_";

int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	if (c == '+' || c == '-')
		return 62;
	return c == '/' || c == '_' ? 63 : -1;
}

int base64_decode(const char *text, size_t len, uint8_t *out, size_t *out_len)
{
	size_t full = len, n = 0;
	uint32_t bits = 0;

	while (len > 0 && full - len < 2 && text[len - 1] == '=')
		len--;
	if (len % 4 == 1 || (full != len && full % 4 != 0))
		return ERR_MALFORMED;
	for (size_t i = 0; i < len; i++) {
		int digit = base64_digit(text[i]);

		if (digit < 0)
			return ERR_MALFORMED;
		bits = bits << 6 | (uint32_t)digit;
		if (i % 4 != 0)
			out[n++] = (uint8_t)(bits >> (6 - i % 4 * 2));
	}
	*out_len = n;
	return 0;
}

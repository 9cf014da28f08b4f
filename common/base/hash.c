#include "common/base/hash.h"

#include "common/base/check.h"

#include <string.h>
#include <sys/random.h>

static void random_fill(void *bytes, size_t len)
{
	ssize_t n = getrandom(bytes, len, 0);

	check(n == (ssize_t)len); /* never short up to 256 bytes */
}

struct hash_key hash_key_random(void)
{
	struct hash_key key;

	random_fill(&key, sizeof(key));
	return key;
}

uint64_t random_nonzero(void)
{
	uint64_t number = 0;

	while (number == 0)
		random_fill(&number, sizeof(number));
	return number;
}

uint64_t random_below(uint64_t bound)
{
	uint64_t number;

	if (bound == 0)
		return 0;
	random_fill(&number, sizeof(number));
	return number % bound;
}

static inline uint64_t rotate(uint64_t x, int bits)
{
	return (x << bits) | (x >> (64 - bits));
}

static inline void sip_round(uint64_t v[4])
{
	v[0] += v[1];
	v[1] = rotate(v[1], 13) ^ v[0];
	v[0] = rotate(v[0], 32);
	v[2] += v[3];
	v[3] = rotate(v[3], 16) ^ v[2];
	v[0] += v[3];
	v[3] = rotate(v[3], 21) ^ v[0];
	v[2] += v[1];
	v[1] = rotate(v[1], 17) ^ v[2];
	v[2] = rotate(v[2], 32);
}

uint64_t hash_bytes(const struct hash_key *key, const void *bytes, size_t len)
{
	const uint8_t *p = bytes;
	size_t left = len;
	uint64_t word;
	uint64_t v[4] = {
		key->k0 ^ 0x736f6d6570736575u,
		key->k1 ^ 0x646f72616e646f6du,
		key->k0 ^ 0x6c7967656e657261u,
		key->k1 ^ 0x7465646279746573u,
	};

	for (; left >= 8; left -= 8, p += 8) {
		memcpy(&word, p, 8);
		v[3] ^= word;
		sip_round(v);
		sip_round(v);
		v[0] ^= word;
	}
	word = (uint64_t)(len & 0xff) << 56;
	for (size_t i = 0; i < left; i++)
		word |= (uint64_t)p[i] << (8 * i);
	v[3] ^= word;
	sip_round(v);
	sip_round(v);
	v[0] ^= word;
	v[2] ^= 0xff;
	for (int i = 0; i < 4; i++)
		sip_round(v);
	return v[0] ^ v[1] ^ v[2] ^ v[3];
}

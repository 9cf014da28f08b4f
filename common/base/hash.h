/* hash.h - keyed hashing of names that strangers choose.
 *
 * SipHash-2-4 (Aumasson, Bernstein 2012): who does not know the key can't
 * choose names that collide, so tables keyed by it can't be degraded.
 */
#ifndef STENTOR_BASE_HASH_H
#define STENTOR_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

struct hash_key {
	uint64_t k0, k1;
};

/* A fresh key from the kernel's random numbers. */
struct hash_key hash_key_random(void);

uint64_t hash_bytes(const struct hash_key *key, const void *bytes, size_t len);

/* A random 64-bit number that is never 0 (epochs, incarnations). */
uint64_t random_nonzero(void);

/* A random number in [0, bound); bound 0 gives 0. Good enough for jitter. */
uint64_t random_below(uint64_t bound);

#endif

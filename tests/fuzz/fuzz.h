/* fuzz.h - what fuzz targets share. */
#ifndef STENTOR_TESTS_FUZZ_H
#define STENTOR_TESTS_FUZZ_H

#include "common/base/check.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is left of an input. */
struct fuzz_input {
	const uint8_t *at;
	size_t left;
};

/* The next byte; 0 at the end. */
static inline uint8_t fuzz_byte(struct fuzz_input *in)
{
	if (in->left == 0)
		return 0;
	in->left--;
	return *in->at++;
}

/* The next `len` bytes, or what there is, in memory of exactly that size, so
 * that a sanitizer sees its end. The caller frees it. */
static inline uint8_t *fuzz_bytes(struct fuzz_input *in, size_t *len)
{
	uint8_t *bytes;

	*len = min_of(*len, in->left);
	bytes = xmalloc(*len);
	memcpy(bytes, in->at, *len);
	in->at += *len;
	in->left -= *len;
	return bytes;
}

#endif

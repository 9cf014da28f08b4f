/* gzip.c - gzip_inflate() and gzip_deflate() of grpc.h, on zlib.
 *
 * Inflating writes straight into the caller's buffer, a step at a time, and
 * stops at the first byte over the limit: a bomb costs no more than an honest
 * message of the largest size.
 */
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/grpc.h"

#include <stdlib.h>
#include <zlib.h>

#define GZIP_WINDOW  (15 + 16) /* the largest window, gzip wrapper */
#define INFLATE_STEP 16384

struct gzip_reader {
	z_stream z;
	size_t room; /* bytes that may still come out */
};

struct gzip_reader *gzip_reader_new(const void *bytes, size_t len, size_t max)
{
	struct gzip_reader *r = xcalloc(1, sizeof(*r));

	check(len <= UINT32_MAX);
	r->z.next_in = (void *)bytes;
	r->z.avail_in = (uInt)len;
	r->room = max;
	check(inflateInit2(&r->z, GZIP_WINDOW) == Z_OK);
	return r;
}

void gzip_reader_free(struct gzip_reader *r)
{
	if (!r)
		return;
	inflateEnd(&r->z);
	free(r);
}

/* A full buffer is followed by one more byte of room that doesn't count, to
 * tell a stream that ends here from one that would go on. */
int gzip_reader_step(struct gzip_reader *r, struct buf *out)
{
	size_t step = min_of(r->room, (size_t)INFLATE_STEP);
	z_stream *z = &r->z;
	uint8_t beyond;
	int rv;

	z->next_out = step ? buf_extend(out, step) : &beyond;
	z->avail_out = step ? (uInt)step : 1;
	check(z->next_out != NULL);
	rv = inflate(z, Z_NO_FLUSH);
	if (step == 0 && z->avail_out == 0)
		return ERR_TOO_LARGE;
	if (step > 0) {
		out->len -= z->avail_out;
		r->room -= step - z->avail_out;
	}
	if (rv == Z_STREAM_END)
		return z->avail_in == 0 ? 0 : ERR_MALFORMED;
	if (rv != Z_OK || (z->avail_in == 0 && z->avail_out > 0))
		return ERR_MALFORMED; /* bad, or cut off */
	return ERR_AGAIN;
}

int gzip_inflate(struct buf *out, const void *bytes, size_t len, size_t max)
{
	size_t before = out->len;
	struct gzip_reader *r;
	int err;

	if (len > UINT32_MAX)
		return ERR_TOO_LARGE;
	r = gzip_reader_new(bytes, len, min_of(max, out->max - out->len));
	while ((err = gzip_reader_step(r, out)) == ERR_AGAIN)
		;
	gzip_reader_free(r);
	if (err)
		out->len = before;
	return err;
}

int gzip_deflate(struct buf *out, const void *bytes, size_t len)
{
	z_stream z = {.next_in = (void *)bytes, .avail_in = (uInt)len};
	size_t bound;
	int rv;

	if (len > UINT32_MAX / 2)
		return ERR_TOO_LARGE;
	check(deflateInit2(&z, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW, 8,
			   Z_DEFAULT_STRATEGY) == Z_OK);
	bound = deflateBound(&z, len);
	z.next_out = buf_extend(out, bound);
	if (!z.next_out) {
		deflateEnd(&z);
		return ERR_FULL;
	}
	z.avail_out = (uInt)bound;
	rv = deflate(&z, Z_FINISH);
	check(rv == Z_STREAM_END);
	out->len -= z.avail_out;
	deflateEnd(&z);
	return 0;
}

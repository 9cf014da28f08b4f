/* buf.h - growing byte buffer with a maximum (pure).
 *
 * The maximum is set at init; appending past it changes nothing and returns
 * ERR_FULL. `bytes` may move at each append.
 */
#ifndef STENTOR_DS_BUF_H
#define STENTOR_DS_BUF_H

#include "common/base/check.h"

#include <stddef.h>
#include <stdint.h>

struct buf {
	uint8_t *bytes;
	size_t len, cap, max;
};

void buf_init(struct buf *b, size_t max);
void buf_fini(struct buf *b);
int buf_append(struct buf *b, const void *bytes, size_t len) MUST_CHECK;
/* Room for `len` more bytes: the place to write them, counted at once; NULL
 * where the maximum forbids it. */
void *buf_extend(struct buf *b, size_t len) MUST_CHECK;
int buf_printf(struct buf *b, const char *format, ...) MUST_CHECK PRINTF(2, 3);
/* Forgets the first `len` bytes. */
void buf_consume(struct buf *b, size_t len);
/* Empties; keeps the memory unless it is larger than `keep` bytes. */
void buf_clear(struct buf *b, size_t keep);

#endif

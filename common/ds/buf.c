#include "common/ds/buf.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CAP_MIN 256u

void buf_init(struct buf *b, size_t max)
{
	check(max < SIZE_MAX / 2); /* so that sums can't wrap */
	*b = (struct buf){.max = max};
}

void buf_fini(struct buf *b)
{
	free(b->bytes);
	*b = (struct buf){0};
}

/* Room for `len` more bytes and one that is not counted: printf's zero. It also
 * keeps buf_extend(b, 0) of an empty buffer from being NULL. */
static int reserve(struct buf *b, size_t len)
{
	size_t cap = max_of(b->cap, CAP_MIN);

	if (len > b->max - b->len)
		return ERR_FULL;
	if (b->len + len < b->cap)
		return 0;
	while (cap <= b->len + len)
		cap *= 2;
	cap = min_of(cap, b->max + 1);
	b->bytes = xrealloc(b->bytes, cap);
	b->cap = cap;
	return 0;
}

void *buf_extend(struct buf *b, size_t len)
{
	uint8_t *place;

	if (reserve(b, len) < 0)
		return NULL;
	place = b->bytes + b->len;
	b->len += len;
	return place;
}

int buf_append(struct buf *b, const void *bytes, size_t len)
{
	void *place = buf_extend(b, len);

	if (!place)
		return ERR_FULL;
	if (len > 0)
		memcpy(place, bytes, len);
	return 0;
}

int buf_printf(struct buf *b, const char *format, ...)
{
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(NULL, 0, format, args);
	va_end(args);
	check(len >= 0);
	if (reserve(b, (size_t)len) < 0)
		return ERR_FULL;
	va_start(args, format);
	vsnprintf((char *)b->bytes + b->len, (size_t)len + 1, format, args);
	va_end(args);
	b->len += (size_t)len;
	return 0;
}

void buf_consume(struct buf *b, size_t len)
{
	check(len <= b->len);
	b->len -= len;
	if (b->len > 0)
		memmove(b->bytes, b->bytes + len, b->len);
}

void buf_clear(struct buf *b, size_t keep)
{
	b->len = 0;
	if (b->cap > keep) {
		free(b->bytes);
		b->bytes = NULL;
		b->cap = 0;
	}
}

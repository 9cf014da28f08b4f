/*
 * ssestream.h - reading a server-sent event stream out of an HTTP/1.1 body:
 * chunk framing off, then one event at a time. Pure; no allocation.
 *
 * The cheap path is the whole point: one memchr per line, no copy but the
 * closing of gaps where chunk framing stood. Lines end in LF or CRLF. Of an
 * event its type, id, retry and first data line are reported.
 */
#ifndef TESTS_BENCH_SSESTREAM_H
#define TESTS_BENCH_SSESTREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum dechunk_phase {
	DECHUNK_OFF, /* the body is not chunked */
	DECHUNK_SIZE,
	DECHUNK_EXTENSION, /* rest of the size line */
	DECHUNK_DATA,
	DECHUNK_DATA_END, /* CRLF behind the data */
	DECHUNK_TRAILER,  /* behind the last chunk: the stream is over */
};

struct dechunk {
	uint32_t left; /* size being read, or bytes of data to come */
	uint8_t phase;
};

struct sse_event {
	const char *type; /* NULL: not said, thus `message` */
	size_t type_len;
	const char *data; /* first data line, NULL: none */
	size_t data_len;
	const char *id; /* NULL: not said */
	size_t id_len;
	const char *retry; /* NULL: not said */
	size_t retry_len;
};

static inline int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c = (char)(c | 0x20);
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* Takes one byte of framing; false: this is no chunked body. */
static inline bool dechunk_frame_byte(struct dechunk *d, char c)
{
	int digit;

	switch (d->phase) {
	case DECHUNK_SIZE:
		digit = hex_digit(c);
		if (digit >= 0) {
			d->left = d->left * 16 + (uint32_t)digit;
			return d->left < (1u << 27);
		}
		d->phase = DECHUNK_EXTENSION;
		return c == '\r' || c == ';';
	case DECHUNK_EXTENSION:
		if (c == '\n')
			d->phase = d->left > 0 ? DECHUNK_DATA : DECHUNK_TRAILER;
		return true;
	case DECHUNK_DATA_END:
		if (c == '\n')
			d->phase = DECHUNK_SIZE;
		return c == '\r' || c == '\n';
	default:
		return true;
	}
}

/*
 * Moves the payload of `len` raw bytes at `in` to `out` (which may be the same
 * place or lie before it). Returns the payload's length, or -1 on bad framing.
 */
static inline ptrdiff_t dechunk(struct dechunk *d, char *out, const char *in,
				size_t len)
{
	const char *start = out;
	const char *end = in + len;

	if (d->phase == DECHUNK_OFF) {
		memmove(out, in, len);
		return (ptrdiff_t)len;
	}
	while (in < end) {
		size_t take = (size_t)(end - in);

		if (d->phase != DECHUNK_DATA) {
			if (!dechunk_frame_byte(d, *in++))
				return -1;
			continue;
		}
		if (take > d->left)
			take = d->left;
		memmove(out, in, take);
		out += take;
		in += take;
		d->left -= (uint32_t)take;
		if (d->left == 0)
			d->phase = DECHUNK_DATA_END;
	}
	return out - start;
}

/* If `line` is the field `name` ("data:"), its value; NULL if not. */
static inline const char *sse_field(const char *line, size_t len,
				    const char *name, size_t name_len,
				    size_t *value_len)
{
	if (len < name_len || memcmp(line, name, name_len) != 0)
		return NULL;
	line += name_len;
	len -= name_len;
	if (len > 0 && *line == ' ') {
		line++;
		len--;
	}
	*value_len = len;
	return line;
}

/*
 * Reads the event at the start of `text`. Returns its length with the blank
 * line, or 0 when it is not complete yet. `event` borrows from `text`.
 */
static inline size_t sse_next(const char *text, size_t len,
			      struct sse_event *event)
{
	const char *p = text;
	const char *end = text + len;
	const char *lf;

	*event = (struct sse_event){0};
	while ((lf = memchr(p, '\n', (size_t)(end - p))) != NULL) {
		size_t n = (size_t)(lf - p);

		if (n > 0 && p[n - 1] == '\r')
			n--;
		if (n == 0)
			return (size_t)(lf + 1 - text);
		if (*p == 'd' && event->data == NULL)
			event->data =
				sse_field(p, n, "data:", 5, &event->data_len);
		else if (*p == 'e')
			event->type =
				sse_field(p, n, "event:", 6, &event->type_len);
		else if (*p == 'i')
			event->id = sse_field(p, n, "id:", 3, &event->id_len);
		else if (*p == 'r')
			event->retry =
				sse_field(p, n, "retry:", 6, &event->retry_len);
		p = lf + 1;
	}
	return 0;
}

#endif

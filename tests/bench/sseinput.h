/*
 * sseinput.h - the receiving side of an SSE connection over HTTP/1.1: reads
 * what the socket has, takes the head off, and hands over whole events.
 *
 * Bytes are read into one buffer of the caller's that all connections share;
 * only the start of what is not complete yet is kept with the connection.
 */
#ifndef TESTS_BENCH_SSEINPUT_H
#define TESTS_BENCH_SSEINPUT_H

#include "bench.h"
#include "ssestream.h"

#include <sys/socket.h>

#define SSE_CARRY_MAX  (128u * 1024) /* an event or head not complete yet */
#define SSE_READ_MAX   (128u * 1024)
#define SSE_BUFFER_MAX (SSE_CARRY_MAX + SSE_READ_MAX)

/* Zeroed to begin with. */
struct sse_input {
	struct dechunk dechunk;
	bool open;	 /* the head is read, and its status is 200 */
	uint16_t status; /* of the head; 0: none yet */
	uint32_t carry_len;
	char *carry; /* start of what is not complete yet; owned */
};

enum sse_input_end {
	SSE_INPUT_CLOSED = -1,	/* by the peer, in whatever way */
	SSE_INPUT_REFUSED = -2, /* another status than 200 */
	SSE_INPUT_MALFORMED = -3,
};

/* The event borrows from the buffer. */
typedef void (*sse_input_cb)(void *ctx, const struct sse_event *event);

static inline void sse_input_fini(struct sse_input *in)
{
	free(in->carry);
	*in = (struct sse_input){0};
}

/* Keeps `len` bytes at `text` for the next read. */
static inline bool sse_input_keep(struct sse_input *in, const char *text,
				  size_t len)
{
	if (len > SSE_CARRY_MAX)
		return false;
	free(in->carry);
	in->carry = NULL;
	in->carry_len = (uint32_t)len;
	if (len == 0)
		return true;
	in->carry = malloc(len);
	if (in->carry == NULL)
		die("out of memory");
	memcpy(in->carry, text, len);
	return true;
}

/* Body bytes: `kept` payload from before, then `got` raw ones behind it. */
static inline bool sse_input_body(struct sse_input *in, char *text, size_t kept,
				  const char *raw, size_t got,
				  sse_input_cb on_event, void *ctx)
{
	ptrdiff_t more = dechunk(&in->dechunk, text + kept, raw, got);
	struct sse_event event;
	size_t done = 0;
	size_t len;
	size_t n;

	if (more < 0)
		return false;
	len = kept + (size_t)more;
	while ((n = sse_next(text + done, len - done, &event)) > 0) {
		on_event(ctx, &event);
		done += n;
	}
	if (done == len && in->carry == NULL)
		return true;
	return sse_input_keep(in, text + done, len - done);
}

static inline int sse_input_head(struct sse_input *in, char *text, size_t len,
				 sse_input_cb on_event, void *ctx)
{
	char *end = memmem(text, len, "\r\n\r\n", 4);

	if (end == NULL)
		return sse_input_keep(in, text, len) ? 0 : SSE_INPUT_MALFORMED;
	if (len < 12 || memcmp(text, "HTTP/1.1 ", 9) != 0)
		return SSE_INPUT_MALFORMED;
	in->status = (uint16_t)strtoul(text + 9, NULL, 10);
	if (in->status != 200)
		return SSE_INPUT_REFUSED;
	*end = '\0';
	end += 4;
	in->dechunk.phase = strcasestr(text, "transfer-encoding: chunked")
				    ? DECHUNK_SIZE
				    : DECHUNK_OFF;
	in->open = true;
	return sse_input_body(in, end, 0, end, len - (size_t)(end - text),
			      on_event, ctx)
		       ? 0
		       : SSE_INPUT_MALFORMED;
}

/*
 * Reads once. `buffer` has SSE_BUFFER_MAX bytes. Returns how many came (0: none
 * now), or why there will be no more.
 */
static inline ssize_t sse_input_read(struct sse_input *in, int fd, char *buffer,
				     sse_input_cb on_event, void *ctx)
{
	size_t kept = in->carry_len;
	ssize_t got = recv(fd, buffer + kept, SSE_READ_MAX, 0);
	int rc = 0;

	if (got < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (got <= 0)
		return SSE_INPUT_CLOSED;
	if (kept > 0)
		memcpy(buffer, in->carry, kept);
	if (!in->open)
		rc = sse_input_head(in, buffer, kept + (size_t)got, on_event,
				    ctx);
	else if (!sse_input_body(in, buffer, kept, buffer + kept, (size_t)got,
				 on_event, ctx))
		rc = SSE_INPUT_MALFORMED;
	if (rc == 0 && in->dechunk.phase == DECHUNK_TRAILER)
		return SSE_INPUT_CLOSED;
	return rc < 0 ? rc : got;
}

#endif

/* sse.h - Server-Sent Events as chunked HTTP/1.1 bytes (pure).
 *
 * WHATWG HTML 9.2. Each function renders one whole HTTP chunk ("1a\r\n" ...
 * "\r\n"), so that a frame can be written to any connection as it is. Text is
 * split on CR, LF and CR LF into `data:` lines, as a browser would end lines
 * there. The returned frame has one reference, the caller's. No chunk is empty:
 * that would end the response.
 */
#ifndef STENTOR_CODEC_SSE_H
#define STENTOR_CODEC_SSE_H

#include "common/ds/frame.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* An event's data, in bytes: lines of one byte each grow sevenfold and still
 * fit a frame. The API's limit on a message is below it. */
#define SSE_DATA_MAX (8u << 20)

/* `event` and `id` end at their first CR or LF: no text can add a field. */
struct sse_event {
	const char *event; /* "" or NULL: `message`, no event line */
	const char *id;	   /* "" or NULL: no id line */
	const char *data;
	size_t data_len;
};

/* `event:` , `id:`, `data:` and the blank line. */
struct frame *sse_render(const struct sse_event *e);

/* The json format: data is {"channel","event","data","position"} in one line,
 * event line as in sse_render(). `position` is ready JSON without line ends,
 * or NULL (left out). The data must be valid UTF-8.
 */
struct frame *sse_render_json(const struct sse_event *e, const char *channel,
			      const char *position);

/* ":\n\n", the heartbeat; with `id` an id line instead of the comment. */
struct frame *sse_render_heartbeat(const char *id);

/* An id line alone, to be written in front of an event that has none: it is
 * the event's then. The id must not be empty. */
struct frame *sse_render_id(const char *id);

/* "retry: N\n\n". */
struct frame *sse_render_retry(uint32_t retry_ms);

/* True if `event` may be a message's event type: at most 128 bytes of valid
 * UTF-8 without control characters, not starting with "stentor.". */
#define SSE_EVENT_MAX 128
bool sse_event_valid(const char *event);

/* The same bytes and marks without the chunk around them, for a client of
 * HTTP/1.0, which knows no chunks (RFC 9112 6.1). Made once for all of them,
 * after all marks are set, and lives as long as the frame; borrowed. */
struct frame *sse_plain(struct frame *f);

/* The end of a response. */
struct frame *sse_last_chunk(void);

#endif

/* ssereader.h - parser of an event stream, as a browser's EventSource (pure).
 *
 * WHATWG HTML 9.2.6. Bytes come in pieces of any size; each complete event is
 * handed to a callback. Lines end with CR, LF or CR LF. A byte order mark at
 * the start is skipped. An event without data is not handed on.
 *
 * Limit: CTL_SSE_EVENT_MAX bytes for one line and for one event's data.
 */
#ifndef STENTOR_CTL_SSEREADER_H
#define STENTOR_CTL_SSEREADER_H

#include "common/base/check.h"
#include "common/ds/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CTL_SSE_EVENT_MAX (16u << 20)

struct ctl_sse_event {
	const char *event; /* "message" where the stream names none */
	const char *data;
	size_t data_len;
};

typedef void (*ctl_sse_cb)(void *ctx, const struct ctl_sse_event *event);

struct ctl_sse_reader {
	struct buf line, data, event;
	struct buf id;	    /* read, but its event is not complete */
	struct buf last_id; /* for Last-Event-ID, survives a reconnect */
	uint64_t retry_ms;  /* last `retry:`, or what init was given */
	uint64_t bytes;	    /* of the stream so far, comments included */
	bool after_cr;	    /* a LF that comes now ends no line */
	bool first_line;
	ctl_sse_cb on_event;
	void *ctx;
};

void ctl_sse_init(struct ctl_sse_reader *r, uint64_t retry_ms,
		  ctl_sse_cb on_event, void *ctx);
void ctl_sse_fini(struct ctl_sse_reader *r);

/* As if the event before the first had this id. */
int ctl_sse_resume(struct ctl_sse_reader *r, const char *id) MUST_CHECK;

/* A new connection: forgets an unfinished event, keeps last_id and retry. */
void ctl_sse_restart(struct ctl_sse_reader *r);

/* ERR_TOO_LARGE: the stream is to be given up. */
int ctl_sse_feed(struct ctl_sse_reader *r, const char *bytes,
		 size_t len) MUST_CHECK;

/* The last event id, "" at first; borrowed until the next feed. */
const char *ctl_sse_last_id(const struct ctl_sse_reader *r);

#endif

#include "dispatcher/ctl/ssereader.h"

#include "common/base/err.h"

#include <string.h>

#define RETRY_DIGITS_MAX 9

void ctl_sse_init(struct ctl_sse_reader *r, uint64_t retry_ms,
		  ctl_sse_cb on_event, void *ctx)
{
	memset(r, 0, sizeof(*r));
	buf_init(&r->line, CTL_SSE_EVENT_MAX);
	buf_init(&r->data, CTL_SSE_EVENT_MAX);
	buf_init(&r->event, CTL_SSE_EVENT_MAX);
	buf_init(&r->id, CTL_SSE_EVENT_MAX);
	buf_init(&r->last_id, CTL_SSE_EVENT_MAX);
	r->retry_ms = retry_ms;
	r->first_line = true;
	r->on_event = on_event;
	r->ctx = ctx;
}

void ctl_sse_fini(struct ctl_sse_reader *r)
{
	buf_fini(&r->last_id);
	buf_fini(&r->id);
	buf_fini(&r->event);
	buf_fini(&r->data);
	buf_fini(&r->line);
}

void ctl_sse_restart(struct ctl_sse_reader *r)
{
	buf_clear(&r->line, 0);
	buf_clear(&r->data, 0);
	buf_clear(&r->event, 0);
	buf_clear(&r->id, 0);
	/* An event without an id has that of the one before it. */
	check(buf_append(&r->id, r->last_id.bytes, r->last_id.len) == 0);
	r->bytes = 0;
	r->after_cr = false;
	r->first_line = true;
}

/* What the buffer holds as text. A buffer's spare byte takes the zero. */
static const char *text_of(const struct buf *b)
{
	if (b->cap == 0)
		return "";
	b->bytes[b->len] = '\0';
	return (const char *)b->bytes;
}

const char *ctl_sse_last_id(const struct ctl_sse_reader *r)
{
	return text_of(&r->last_id);
}

static int set(struct buf *b, const void *bytes, size_t len)
{
	buf_clear(b, 4096);
	return buf_append(b, bytes, len);
}

int ctl_sse_resume(struct ctl_sse_reader *r, const char *id)
{
	return set(&r->last_id, id, strlen(id)) ? ERR_TOO_LARGE : 0;
}

/* A blank line: the event is complete. */
static int dispatch(struct ctl_sse_reader *r)
{
	int err = set(&r->last_id, r->id.bytes, r->id.len);

	if (r->data.len > 0) {
		struct ctl_sse_event event = {
			.event = r->event.len ? text_of(&r->event) : "message",
			.data_len = r->data.len - 1, /* not the last LF */
		};

		r->data.bytes[event.data_len] = '\0';
		event.data = (const char *)r->data.bytes;
		r->on_event(r->ctx, &event);
	}
	buf_clear(&r->data, 65536);
	buf_clear(&r->event, 4096);
	return err;
}

static void set_retry(struct ctl_sse_reader *r, const char *value, size_t len)
{
	uint64_t number = 0;

	if (len == 0 || len > RETRY_DIGITS_MAX)
		return;
	for (size_t i = 0; i < len; i++) {
		if (value[i] < '0' || value[i] > '9')
			return;
		number = number * 10 + (uint64_t)(value[i] - '0');
	}
	r->retry_ms = number;
}

static int take_field(struct ctl_sse_reader *r, const char *name,
		      size_t name_len, const char *value, size_t len)
{
	int err = 0;

	if (name_len == 4 && memcmp(name, "data", 4) == 0) {
		err = buf_append(&r->data, value, len);
		if (!err)
			err = buf_append(&r->data, "\n", 1);
	} else if (name_len == 5 && memcmp(name, "event", 5) == 0) {
		err = set(&r->event, value, len);
	} else if (name_len == 2 && memcmp(name, "id", 2) == 0) {
		if (!memchr(value, '\0', len))
			err = set(&r->id, value, len);
	} else if (name_len == 5 && memcmp(name, "retry", 5) == 0) {
		set_retry(r, value, len);
	}
	return err ? ERR_TOO_LARGE : 0;
}

static int take_line(struct ctl_sse_reader *r, const char *line, size_t len)
{
	const char *colon, *value;

	if (r->first_line && len >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
		line += 3;
		len -= 3;
	}
	r->first_line = false;
	if (len == 0)
		return dispatch(r);
	colon = memchr(line, ':', len);
	if (!colon)
		return take_field(r, line, len, "", 0);
	value = colon + 1;
	if (value < line + len && *value == ' ')
		value++;
	return take_field(r, line, (size_t)(colon - line), value,
			  (size_t)(line + len - value));
}

int ctl_sse_feed(struct ctl_sse_reader *r, const char *bytes, size_t len)
{
	const char *end = bytes + len, *from = bytes;
	int err = 0;

	r->bytes += len;
	while (from < end && !err) {
		const char *at = from;

		if (r->after_cr && *from == '\n')
			at = ++from;
		r->after_cr = false;
		while (at < end && *at != '\r' && *at != '\n')
			at++;
		if (buf_append(&r->line, from, (size_t)(at - from)) != 0)
			return ERR_TOO_LARGE;
		if (at == end)
			break;
		r->after_cr = *at == '\r';
		err = take_line(r, text_of(&r->line), r->line.len);
		buf_clear(&r->line, 65536);
		from = at + 1;
	}
	return err;
}

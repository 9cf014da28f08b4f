/* Each event is measured first and then written into a frame of exactly that
 * size: one allocation, and the chunk's size, which stands in front, is known.
 */
#include "common/codec/sse.h"

#include "common/base/check.h"
#include "common/codec/json.h"

#include <stdio.h>
#include <string.h>

#define CHUNK_HEAD_MAX 24 /* 16 hex digits, CR LF, zero */

/* An unfinished frame and the place where its next byte goes. */
struct writer {
	struct frame *frame;
	char *at;
};

static void put(struct writer *w, const char *bytes, size_t len)
{
	memcpy(w->at, bytes, len);
	w->at += len;
}

#define put_literal(w, text) put((w), (text), sizeof(text) - 1)

static struct writer chunk_begin(size_t payload)
{
	char head[CHUNK_HEAD_MAX];
	int head_len = snprintf(head, sizeof(head), "%zx\r\n", payload);
	struct writer w;

	/* An empty chunk is the end of the response. */
	check(payload > 0);
	check(head_len > 0 && (size_t)head_len < sizeof(head));
	w.frame = frame_new((size_t)head_len + payload + 2);
	w.at = (char *)w.frame->bytes;
	put(&w, head, (size_t)head_len);
	return w;
}

static struct frame *chunk_end(struct writer *w)
{
	put_literal(w, "\r\n");
	check(w->at == (char *)w->frame->bytes + w->frame->len);
	return w->frame;
}

/* The value of a one-line field: up to its first line end. */
static size_t value_len(const char *value)
{
	return value ? strcspn(value, "\r\n") : 0;
}

static size_t field_size(const char *name, const char *value)
{
	size_t len = value_len(value);

	return len ? strlen(name) + 2 + len + 1 : 0;
}

static void put_field(struct writer *w, const char *name, const char *value)
{
	size_t len = value_len(value);

	if (len == 0)
		return;
	put(w, name, strlen(name));
	put_literal(w, ": ");
	put(w, value, len);
	put_literal(w, "\n");
}

/* A walk over lines. The next CR and LF are remembered, so that memchr() goes
 * over each byte twice at most, however the two are mixed. */
struct lines {
	const char *at, *end; /* at: NULL after the last line */
	const char *cr,
		*lf; /* the first from `at` on; `end` where there is none */
};

static const char *find(const char *from, const char *end, char c)
{
	const char *found = memchr(from, c, (size_t)(end - from));

	return found ? found : end;
}

static void lines_init(struct lines *l, const char *data, size_t len)
{
	*l = (struct lines){.at = data, .end = data + len};
	l->cr = find(data, l->end, '\r');
	l->lf = find(data, l->end, '\n');
}

/* Length of the line at `at`; moves on behind its end. */
static size_t lines_next(struct lines *l)
{
	const char *stop = min_of(l->cr, l->lf);
	size_t len = (size_t)(stop - l->at);

	if (stop == l->end) {
		l->at = NULL;
		return len;
	}
	l->at = stop + 1;
	/* CR LF is one line end. */
	if (*stop == '\r' && l->at < l->end && *l->at == '\n')
		l->at++;
	if (l->cr < l->at)
		l->cr = find(l->at, l->end, '\r');
	if (l->lf < l->at)
		l->lf = find(l->at, l->end, '\n');
	return len;
}

/* Walks the lines of the data; writes them unless `w` is NULL. Returns their
 * size. "a\n" is two lines, the second empty: a browser joins lines with LF
 * and so gets "a\n" back. Empty data is one empty `data:` line: WHATWG 9.2.6
 * ends every data line with LF in the buffer before it looks whether the
 * buffer is empty, so the event is dispatched, with "". A space after the
 * colon always, because a browser strips one: leading spaces survive. */
static size_t data_lines(struct writer *w, const char *data, size_t len)
{
	struct lines l;
	size_t size = 0;

	lines_init(&l, data, len);
	while (l.at) {
		const char *line = l.at;
		size_t n = lines_next(&l);

		size += strlen("data: ") + n + 1;
		if (w) {
			put_literal(w, "data: ");
			put(w, line, n);
			put_literal(w, "\n");
		}
	}
	return size;
}

struct frame *sse_render(const struct sse_event *e)
{
	const char *data = e->data_len ? e->data : "";
	struct writer w;

	check(e->data_len <= SSE_DATA_MAX);
	w = chunk_begin(field_size("event", e->event) +
			field_size("id", e->id) +
			data_lines(NULL, data, e->data_len) + 1);
	put_field(&w, "event", e->event);
	put_field(&w, "id", e->id);
	data_lines(&w, data, e->data_len);
	put_literal(&w, "\n");
	return chunk_end(&w);
}

#define JSON_CHANNEL  "data: {\"channel\":"
#define JSON_EVENT    ",\"event\":"
#define JSON_DATA     ",\"data\":"
#define JSON_POSITION ",\"position\":"
#define JSON_END      "}\n\n"
#define LITERALS      (JSON_CHANNEL JSON_EVENT JSON_DATA JSON_END)

struct frame *sse_render_json(const struct sse_event *e, const char *channel,
			      const char *position)
{
	const char *data = e->data_len ? e->data : "";
	const char *event = value_len(e->event) ? e->event : "message";
	size_t channel_len = strlen(channel);
	size_t event_len = value_len(event);
	size_t position_len = position ? strlen(position) : 0;
	struct writer w;

	check(e->data_len <= SSE_DATA_MAX);
	w = chunk_begin(field_size("event", e->event) +
			field_size("id", e->id) + strlen(LITERALS) +
			json_quoted_len(channel, channel_len) +
			json_quoted_len(event, event_len) +
			json_quoted_len(data, e->data_len) +
			(position ? strlen(JSON_POSITION) + position_len : 0));
	put_field(&w, "event", e->event);
	put_field(&w, "id", e->id);
	put_literal(&w, JSON_CHANNEL);
	w.at += json_quote(w.at, channel, channel_len);
	put_literal(&w, JSON_EVENT);
	w.at += json_quote(w.at, event, event_len);
	put_literal(&w, JSON_DATA);
	w.at += json_quote(w.at, data, e->data_len);
	if (position) {
		put_literal(&w, JSON_POSITION);
		put(&w, position, position_len);
	}
	put_literal(&w, JSON_END);
	return chunk_end(&w);
}

struct frame *sse_render_heartbeat(const char *id)
{
	size_t id_size = field_size("id", id);
	struct writer w = chunk_begin(id_size ? id_size + 1 : strlen(":\n\n"));

	/* An id line moves Last-Event-ID without firing an event. */
	if (id_size)
		put_field(&w, "id", id);
	else
		put_literal(&w, ":\n");
	put_literal(&w, "\n");
	return chunk_end(&w);
}

struct frame *sse_render_id(const char *id)
{
	struct writer w = chunk_begin(field_size("id", id));

	put_field(&w, "id", id);
	return chunk_end(&w);
}

struct frame *sse_render_retry(uint32_t retry_ms)
{
	char text[32];
	int len = snprintf(text, sizeof(text), "retry: %u\n\n", retry_ms);
	struct writer w;

	check(len > 0 && (size_t)len < sizeof(text));
	w = chunk_begin((size_t)len);
	put(&w, text, (size_t)len);
	return chunk_end(&w);
}

bool sse_event_valid(const char *event)
{
	size_t len = strnlen(event, SSE_EVENT_MAX + 1);

	if (len > SSE_EVENT_MAX || !utf8_valid(event, len))
		return false;
	for (size_t i = 0; i < len; i++) {
		if ((unsigned char)event[i] < 0x20 || event[i] == 0x7f)
			return false;
	}
	return strncmp(event, "stentor.", strlen("stentor.")) != 0;
}

struct frame *sse_plain(struct frame *f)
{
	const uint8_t *payload;
	struct frame *plain;
	uint32_t len;
	size_t head;

	if (f->plain != NULL)
		return f->plain;
	payload = memchr(f->bytes, '\n', f->len);
	check(payload != NULL);
	head = (size_t)(++payload - f->bytes);
	check(f->len >= head + 2);
	plain = frame_new(f->len - head - 2);
	len = plain->len;
	*plain = *f; /* all that is said of it */
	plain->refs = 1;
	plain->len = len;
	plain->queued = 0;
	/* The last, for its first bytes lie in the struct's padding. */
	memcpy(plain->bytes, payload, len);
	f->plain = plain;
	return plain;
}

struct frame *sse_last_chunk(void)
{
	return frame_from("0\r\n\r\n", 5);
}

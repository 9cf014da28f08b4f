/* Fuzz target: the SSE encoder, read back as a browser would (WHATWG 9.2.6).
 * The input is event type, zero, id, zero, data. One event must come out, with
 * the data that went in, its line ends all LF; and in the json format, JSON
 * that holds the data as it was. */
#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/codec/json.h"
#include "common/codec/sse.h"

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct received {
	char *event, *id, *data;
	size_t data_len;
	unsigned events;
};

/* The payload of the one chunk that a frame must be. */
static const char *unwrap(const struct frame *f, size_t *len)
{
	char head[24];
	const char *bytes = (const char *)f->bytes;
	size_t head_len;

	*len = strtoul(bytes, NULL, 16);
	head_len = (size_t)snprintf(head, sizeof(head), "%zx\r\n", *len);
	check(f->len == head_len + *len + 2);
	check(memcmp(bytes, head, head_len) == 0);
	check(memcmp(bytes + head_len + *len, "\r\n", 2) == 0);
	return bytes + head_len;
}

static void on_field(struct received *r, const char *line, size_t len)
{
	const char *colon = memchr(line, ':', len);
	size_t name = colon ? (size_t)(colon - line) : len;
	const char *value = colon ? colon + 1 : line + len;
	size_t value_len = (size_t)(line + len - value);

	if (value_len > 0 && *value == ' ') {
		value++;
		value_len--;
	}
	if (name == 4 && memcmp(line, "data", 4) == 0) {
		memcpy(r->data + r->data_len, value, value_len);
		r->data_len += value_len;
		r->data[r->data_len++] = '\n';
	} else if (name == 5 && memcmp(line, "event", 5) == 0) {
		check(!r->event);
		r->event = xmemdupz(value, value_len);
	} else {
		check(name == 2 && memcmp(line, "id", 2) == 0 && !r->id);
		r->id = xmemdupz(value, value_len);
	}
}

static struct received receive(struct frame *f)
{
	size_t len;
	const char *at = unwrap(f, &len), *end = at + len;
	struct received r = {.data = xmalloc(len)};

	while (at < end) {
		size_t line = 0;

		while (at[line] != '\n' && at[line] != '\r') {
			line++;
			check(at + line < end);
		}
		if (line > 0) {
			on_field(&r, at, line);
		} else {
			check(r.data_len > 0);
			r.data_len--;
			r.events++;
		}
		at += line + 1;
		if (at[-1] == '\r' && at < end && *at == '\n')
			at++;
	}
	frame_release(f);
	check(r.events == 1);
	return r;
}

static void received_fini(struct received *r)
{
	free(r->event);
	free(r->id);
	free(r->data);
}

/* A field's value up to its first line end; NULL for none. */
static void check_value(const char *got, const char *sent)
{
	size_t len = strcspn(sent, "\r\n");

	check((got != NULL) == (len > 0));
	check(!got || (strlen(got) == len && memcmp(got, sent, len) == 0));
}

static void check_raw(const struct sse_event *e)
{
	struct received r = receive(sse_render(e));
	size_t n = 0;

	check_value(r.event, e->event);
	check_value(r.id, e->id);
	for (size_t i = 0; i < e->data_len; i++) {
		char c = e->data[i];

		if (c == '\n' && i > 0 && e->data[i - 1] == '\r')
			continue;
		check(n < r.data_len);
		check(r.data[n++] == (c == '\r' ? '\n' : c));
	}
	check(n == r.data_len);
	received_fini(&r);
}

static void check_json(const struct sse_event *e)
{
	struct received r = receive(sse_render_json(e, "c:1", "[1]"));
	json_t *json = json_loadb(r.data, r.data_len, JSON_ALLOW_NUL, NULL);
	json_t *data = json_object_get(json, "data");

	check(json_object_size(json) == 4);
	check(json_string_length(data) == e->data_len);
	check(e->data_len == 0 ||
	      memcmp(json_string_value(data), e->data, e->data_len) == 0);
	json_decref(json);
	received_fini(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = xmemdupz(data, size);
	size_t event = strlen(text), id;
	struct sse_event e = {.event = text};

	if (event < size) {
		e.id = text + event + 1;
		id = strlen(e.id);
		if (event + 1 + id < size) {
			e.data = e.id + id + 1;
			e.data_len = size - event - id - 2;
		}
		check_raw(&e);
		/* What is no text stops in front of the encoder. */
		if (sse_event_valid(e.event) && utf8_valid(e.data, e.data_len))
			check_json(&e);
		frame_release(sse_render_heartbeat(e.id));
	}
	free(text);
	return 0;
}

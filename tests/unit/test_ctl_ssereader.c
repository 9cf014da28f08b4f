#include "dispatcher/ctl/ssereader.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Everything that was read, as "event=data;" one after the other. */
struct seen {
	char text[1024];
	size_t len;
};

static void on_event(void *ctx, const struct ctl_sse_event *event)
{
	struct seen *seen = ctx;

	assert_int_equal(strlen(event->data), event->data_len);
	seen->len += (size_t)snprintf(seen->text + seen->len,
				      sizeof(seen->text) - seen->len, "%s=%s;",
				      event->event, event->data);
	assert_true(seen->len < sizeof(seen->text));
}

/* The stream must give the same whatever pieces it comes in. */
static void assert_stream_len(const char *stream, size_t len,
			      const char *events, const char *id,
			      uint64_t retry_ms)
{
	for (size_t piece = 1; piece <= len; piece++) {
		struct seen seen = {.len = 0};
		struct ctl_sse_reader r;

		ctl_sse_init(&r, 7, on_event, &seen);
		for (size_t at = 0; at < len; at += piece)
			assert_int_equal(ctl_sse_feed(&r, stream + at,
						      min_of(piece, len - at)),
					 0);
		assert_string_equal(seen.text, events);
		assert_string_equal(ctl_sse_last_id(&r), id);
		assert_int_equal(r.retry_ms, retry_ms);
		assert_int_equal(r.bytes, len);
		ctl_sse_fini(&r);
	}
}

static void assert_stream(const char *stream, const char *events,
			  const char *id, uint64_t retry_ms)
{
	assert_stream_len(stream, strlen(stream), events, id, retry_ms);
}

static void test_ssereader_events(void **state)
{
	(void)state;
	assert_stream("data: a\n\n", "message=a;", "", 7);
	assert_stream("data:a\ndata: b\ndata:\n\n", "message=a\nb\n;", "", 7);
	assert_stream("event: e\ndata:  two\n\ndata: b\n\n",
		      "e= two;message=b;", "", 7);
	assert_stream("data\n\n", "message=;", "", 7);
	assert_stream("event: lost\n\ndata: a\n\n", "message=a;", "", 7);
	assert_stream("data: unfinished\n", "", "", 7);
	assert_stream(": comment\n\nother: x\ndata: a:b\n\n", "message=a:b;",
		      "", 7);
}

static void test_ssereader_line_ends(void **state)
{
	(void)state;
	assert_stream("data: a\r\ndata: b\r\n\r\ndata: c\r\n\r\n",
		      "message=a\nb;message=c;", "", 7);
	assert_stream("data: a\rdata: b\r\rdata: c\r\r",
		      "message=a\nb;message=c;", "", 7);
	assert_stream("data: a\n\rdata: b\r\n\n", "message=a;message=b;", "",
		      7);
	assert_stream("\xef\xbb\xbf"
		      "data: a\n\n\xef\xbb\xbf"
		      "data: b\n\n",
		      "message=a;", "", 7);
}

static void test_ssereader_id_and_retry(void **state)
{
	(void)state;
	assert_stream("id: 1\ndata: a\n\ndata: b\n\n", "message=a;message=b;",
		      "1", 7);
	assert_stream("id: 1\n\n", "", "1", 7); /* a heartbeat's id */
	assert_stream("id: 1\ndata: a\n\nid: 2\ndata: b\n", "message=a;", "1",
		      7);
	assert_stream("id: 1\n\nid\n\n", "", "", 7);
	assert_stream_len("id: 1\n\nid: 2\0\n\n", 16, "", "1", 7);
	assert_stream("retry: 1500\n", "", "", 1500);
	assert_stream("retry: 15x\nretry:\nretry: -1\nretry: 9999999999\n", "",
		      "", 7);
}

static void test_ssereader_restart(void **state)
{
	struct seen seen = {.len = 0};
	struct ctl_sse_reader r;
	const char *first = "retry: 9\nid: 5\ndata: a\n\nid: 6\ndata: half";
	const char *second = "\ndata: b\n\n";

	(void)state;
	ctl_sse_init(&r, 7, on_event, &seen);
	assert_int_equal(ctl_sse_feed(&r, first, strlen(first)), 0);
	ctl_sse_restart(&r);
	assert_int_equal(ctl_sse_feed(&r, second, strlen(second)), 0);
	assert_string_equal(seen.text, "message=a;message=b;");
	assert_string_equal(ctl_sse_last_id(&r), "5");
	assert_int_equal(r.retry_ms, 9);
	ctl_sse_fini(&r);
}

static void test_ssereader_resume(void **state)
{
	struct seen seen = {.len = 0};
	struct ctl_sse_reader r;
	const char *events = "data: a\n\n", *next = "id: 8\ndata: b\n\n";

	(void)state;
	ctl_sse_init(&r, 7, on_event, &seen);
	assert_int_equal(ctl_sse_resume(&r, "5"), 0);
	ctl_sse_restart(&r);
	assert_string_equal(ctl_sse_last_id(&r), "5");
	assert_int_equal(ctl_sse_feed(&r, events, strlen(events)), 0);
	assert_string_equal(ctl_sse_last_id(&r), "5");
	assert_int_equal(ctl_sse_feed(&r, next, strlen(next)), 0);
	assert_string_equal(ctl_sse_last_id(&r), "8");
	ctl_sse_fini(&r);
}

static void test_ssereader_too_large(void **state)
{
	struct seen seen = {.len = 0};
	struct ctl_sse_reader r;
	size_t len = CTL_SSE_EVENT_MAX / 2 + 1;
	char *bytes = xmalloc(len);

	(void)state;
	memset(bytes, 'x', len);
	ctl_sse_init(&r, 7, on_event, &seen);
	assert_int_equal(ctl_sse_feed(&r, bytes, len), 0);
	assert_int_equal(ctl_sse_feed(&r, bytes, len), ERR_TOO_LARGE);
	ctl_sse_restart(&r);
	memcpy(bytes, "data:", 5);
	bytes[len - 1] = '\n';
	assert_int_equal(ctl_sse_feed(&r, bytes, len), 0);
	assert_int_equal(ctl_sse_feed(&r, bytes, len), 0);
	assert_int_equal(ctl_sse_feed(&r, bytes, len), ERR_TOO_LARGE);
	assert_string_equal(seen.text, "");
	ctl_sse_fini(&r);
	free(bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ssereader_events),
		cmocka_unit_test(test_ssereader_line_ends),
		cmocka_unit_test(test_ssereader_id_and_retry),
		cmocka_unit_test(test_ssereader_restart),
		cmocka_unit_test(test_ssereader_resume),
		cmocka_unit_test(test_ssereader_too_large),
	};

	return cmocka_run_group_tests_name("ctl_ssereader", tests, NULL, NULL);
}

/* The SSE encoder: exact bytes, and what a browser makes of them. */
#include "common/base/mem.h"
#include "common/codec/sse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* Checks that the frame is one chunk with this payload; releases it. */
static void assert_chunk(struct frame *f, const char *payload)
{
	size_t len = strlen(payload);
	char *whole = xmalloc(len + 32);
	int n = snprintf(whole, len + 32, "%zx\r\n%s\r\n", len, payload);

	assert_int_equal(f->refs, 1);
	assert_int_equal(f->len, n);
	assert_memory_equal(f->bytes, whole, (size_t)n);
	free(whole);
	frame_release(f);
}

static struct frame *render_data(const char *data)
{
	struct sse_event e = {.data = data, .data_len = strlen(data)};

	return sse_render(&e);
}

static void test_sse_fields_in_order(void **state)
{
	struct sse_event e = {
		.event = "goal", .id = "7-1", .data = "1:0", .data_len = 3};

	(void)state;
	assert_chunk(sse_render(&e), "event: goal\nid: 7-1\ndata: 1:0\n\n");
	e.event = "";
	assert_chunk(sse_render(&e), "id: 7-1\ndata: 1:0\n\n");
	e.event = e.id = NULL;
	assert_chunk(sse_render(&e), "data: 1:0\n\n");
}

static void test_sse_splits_data_like_a_browser(void **state)
{
	(void)state;
	assert_chunk(render_data("a\nb"), "data: a\ndata: b\n\n");
	assert_chunk(render_data("a\rb"), "data: a\ndata: b\n\n");
	assert_chunk(render_data("a\r\nb"), "data: a\ndata: b\n\n");
	assert_chunk(render_data("a\n\rb"), "data: a\ndata: \ndata: b\n\n");
	assert_chunk(render_data("a\n"), "data: a\ndata: \n\n");
	assert_chunk(render_data("a\r\n"), "data: a\ndata: \n\n");
	assert_chunk(render_data("a\r"), "data: a\ndata: \n\n");
	assert_chunk(render_data("\n"), "data: \ndata: \n\n");
	assert_chunk(render_data(""), "data: \n\n");
	assert_chunk(render_data("  two spaces"), "data:   two spaces\n\n");
	assert_chunk(render_data("id: x"), "data: id: x\n\n");
}

static void test_sse_empty_data_may_be_null(void **state)
{
	struct sse_event e = {.event = "x"};

	(void)state;
	assert_chunk(sse_render(&e), "event: x\ndata: \n\n");
	assert_chunk(sse_render_json(&e, "c", NULL),
		     "event: x\ndata: {\"channel\":\"c\",\"event\":\"x\","
		     "\"data\":\"\"}\n\n");
}

static void test_sse_no_text_adds_a_field(void **state)
{
	struct sse_event e = {.event = "a\ndata: forged",
			      .id = "1\r\n\r\n",
			      .data = "x",
			      .data_len = 1};

	(void)state;
	assert_chunk(sse_render(&e), "event: a\nid: 1\ndata: x\n\n");
	assert_chunk(sse_render_heartbeat("1\nretry: 0"), "id: 1\n\n");
}

static void test_sse_chunk_sizes(void **state)
{
	(void)state;
	for (size_t len = 0; len < 300; len++) {
		char data[300], payload[320];

		memset(data, 'x', len);
		data[len] = '\0';
		snprintf(payload, sizeof(payload), "data: %s\n\n", data);
		assert_chunk(render_data(data), payload);
	}
}

static void test_sse_json_format(void **state)
{
	struct sse_event e = {.event = "ball",
			      .data = "say \"hi\"\n\\ \x01\xc3\xa9",
			      .data_len = 14};

	(void)state;
	assert_int_equal(strlen(e.data), e.data_len);
	assert_chunk(sse_render_json(&e, "score:42", "{\"offset\":\"3\"}"),
		     "event: ball\ndata: {\"channel\":\"score:42\","
		     "\"event\":\"ball\","
		     "\"data\":\"say \\\"hi\\\"\\n\\\\ \\u0001\xc3\xa9\","
		     "\"position\":{\"offset\":\"3\"}}\n\n");
	e.event = NULL;
	e.id = "9";
	e.data_len = 3;
	assert_chunk(sse_render_json(&e, "c", NULL),
		     "id: 9\ndata: {\"channel\":\"c\","
		     "\"event\":\"message\",\"data\":\"say\"}\n\n");
}

static void test_sse_heartbeat_and_retry(void **state)
{
	(void)state;
	assert_chunk(sse_render_heartbeat(NULL), ":\n\n");
	assert_chunk(sse_render_heartbeat(""), ":\n\n");
	assert_chunk(sse_render_heartbeat("e-5"), "id: e-5\n\n");
	assert_chunk(sse_render_retry(0), "retry: 0\n\n");
	assert_chunk(sse_render_retry(UINT32_MAX), "retry: 4294967295\n\n");
}

static void test_sse_plain(void **state)
{
	struct frame *f = render_data("a long text, so that two digits tell"),
		     *p;

	(void)state;
	f->accepted_us = 1;
	f->expires_us = 2;
	f->epoch = 3;
	f->offset = 4;
	f->conflation = 5;
	f->channel = f;
	f->class = 2;
	f->droppable = f->glued = true;
	p = sse_plain(f);
	assert_int_equal(p->len, 44);
	assert_memory_equal(
		p->bytes, "data: a long text, so that two digits tell\n\n", 44);
	assert_int_equal(p->accepted_us + 10 * p->expires_us + 100 * p->epoch +
				 1000 * p->offset + 10000 * p->conflation,
			 54321);
	assert_ptr_equal(p->channel, f);
	assert_true(p->class == 2 && p->droppable && p->glued);
	/* All readers share it; it goes with the frame, or later. */
	assert_ptr_equal(sse_plain(f), p);
	frame_hold(p);
	frame_release(f);
	assert_int_equal(p->refs, 1);
	frame_release(p);
}

static void test_sse_last_chunk(void **state)
{
	struct frame *f = sse_last_chunk();

	(void)state;
	assert_int_equal(f->len, 5);
	assert_memory_equal(f->bytes, "0\r\n\r\n", 5);
	frame_release(f);
}

static void test_sse_event_names(void **state)
{
	char longest[SSE_EVENT_MAX + 2];

	(void)state;
	assert_true(sse_event_valid(""));
	assert_true(sse_event_valid("goal"));
	assert_true(sse_event_valid("caf\xc3\xa9 1"));
	assert_true(sse_event_valid("stentor"));
	assert_false(sse_event_valid("stentor."));
	assert_false(sse_event_valid("stentor.ready"));
	assert_false(sse_event_valid("a\nb"));
	assert_false(sse_event_valid("a\rb"));
	assert_false(sse_event_valid("a\x7f"));
	assert_false(sse_event_valid("\xff"));
	memset(longest, 'e', sizeof(longest));
	longest[SSE_EVENT_MAX] = '\0';
	assert_true(sse_event_valid(longest));
	longest[SSE_EVENT_MAX] = 'e';
	longest[SSE_EVENT_MAX + 1] = '\0';
	assert_false(sse_event_valid(longest));
}

/* An empty chunk would end the response. */
static void test_sse_no_empty_chunk(void **state)
{
	pid_t child = fork();
	int status;

	(void)state;
	assert_true(child >= 0);
	if (child == 0) {
		signal(SIGABRT, SIG_DFL);
		prctl(PR_SET_DUMPABLE, 0);
		close(STDERR_FILENO);
		sse_render_id("\n");
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sse_fields_in_order),
		cmocka_unit_test(test_sse_splits_data_like_a_browser),
		cmocka_unit_test(test_sse_empty_data_may_be_null),
		cmocka_unit_test(test_sse_no_text_adds_a_field),
		cmocka_unit_test(test_sse_chunk_sizes),
		cmocka_unit_test(test_sse_json_format),
		cmocka_unit_test(test_sse_heartbeat_and_retry),
		cmocka_unit_test(test_sse_plain),
		cmocka_unit_test(test_sse_last_chunk),
		cmocka_unit_test(test_sse_event_names),
		cmocka_unit_test(test_sse_no_empty_chunk),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

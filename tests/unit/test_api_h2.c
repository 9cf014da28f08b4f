/* gRPC and Connect over HTTP/2, driven by an nghttp2 client. */
#include "tests/unit/h2_client.h"

static void test_grpc_answers(void **state)
{
	static const struct {
		const char *path, *type, *body;
		size_t len;
		const char *status, *grpc_status;
	} cases[] = {
		{SAY, "application/grpc", BODY(HELLO), "200", "0"},
		{SAY, "application/grpc+proto", BODY(HELLO), "200", "0"},
		{SAY, "application/grpc+json",
		 BODY("\0\0\0\0\x0e{\"data\":\"hey\"}"), "200", "0"},
		{SAY, "application/grpc", BODY(FAIL), "200", "3"},
		{"/test.Echo/Nope", "application/grpc", BODY(HELLO), "200",
		 "12"},
		{"/test.Echo/say", "application/grpc", BODY(HELLO), "200",
		 "12"},
		{SAY, "application/grpc", "", 0, "200", "12"},
		{SAY, "application/grpc", BODY(HELLO HELLO), "200", "12"},
		{SAY, "application/grpc", BODY("\0\0\0\0\5\x12"), "200", "13"},
		{SAY, "application/grpc", BODY("\2\0\0\0\5\x12\3hey"), "200",
		 "13"},
		{SAY, "application/grpc", BODY("\1\0\0\0\5\x12\3hey"), "200",
		 "13"},
		{SAY, "application/grpc", BODY("\0\0\0\0\1\xff"), "200", "13"},
		{SAY, "application/grpc", BODY("\0\0\0\0\4\x12\2\xc3\x28"),
		 "200", "3"},
		{SAY, "application/grpc", BODY("\0\0\0\0\5\x12\3a\0b"), "200",
		 "3"},
		{SAY, "application/grpc", BODY("\0\xff\xff\xff\xff"), "200",
		 "8"},
		{STREAM, "application/grpc", "", 0, "200", "0"},
		{STREAM, "application/grpc", BODY(HELLO "\0\0\0"), "200", "13"},
		{SAY, "application/json", BODY("{\"data\":\"hey\"}"), "200",
		 ""},
		{SAY, "application/json", BODY("{\"data\":\"fail\"}"), "400",
		 ""},
		{STREAM, "application/json", BODY("{}"), "415", ""},
		{SAY, "application/connect+proto", BODY(HELLO), "415", ""},
		{SAY, "text/plain", BODY("x"), "415", ""},
		{"/x", "application/json", BODY("{}"), "404", ""},
	};
	struct api_fixture *f = *state;
	struct h2_client *c;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	for (size_t i = 0; i < array_len(cases); i++) {
		struct answer *a =
			request(c, cases[i].path, cases[i].type, cases[i].body,
				cases[i].len, false, NULL, NULL);

		until(f, c, a->closed);
		assert_string_equal(a->status, cases[i].status);
		assert_string_equal(a->grpc_status, cases[i].grpc_status);
	}
	client_free(c);
	api_end(f, 1000);
}

static void test_grpc_body_and_message(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	a = grpc(c, SAY, BODY(HELLO));
	until(f, c, a->closed);
	assert_int_equal(a->len, 10);
	assert_memory_equal(a->body, "\0\0\0\0\5\n\3hey", 10);
	assert_string_equal(a->type, "application/grpc");
	a = grpc(c, SAY, BODY(FAIL));
	until(f, c, a->closed);
	assert_string_equal(a->message, "no \"%C3%BC\" 100%25");
	assert_int_equal(a->len, 0);
	a = grpc(c, SAY, BODY("\0\0\0\0\5\x12\3a\0b"));
	until(f, c, a->closed);
	assert_string_equal(a->message,
			    "data: must not contain NUL characters");
	client_free(c);
	api_end(f, 1000);
}

static void test_connect_stream(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	a = request(c, STREAM, "application/connect+proto", BODY(HELLO), false,
		    NULL, NULL);
	until(f, c, a->closed);
	assert_string_equal(a->type, "application/connect+proto");
	assert_int_equal(a->len, 12 + 7);
	assert_memory_equal(a->body + 12, "\2\0\0\0\2{}", 7);
	a = request(c, STREAM, "application/connect+json", BODY("\0\0\0\0\1{"),
		    false, NULL, NULL);
	until(f, c, a->closed);
	assert_string_equal(a->status, "200");
	assert_int_equal(a->body[0], 2);
	assert_non_null(strstr((char *)a->body + 5,
			       "{\"error\":{\"code\":\"invalid_argument\""));
	/* One request, many answers. */
	health_set(f->health, "", true);
	a = request(c, "/grpc.health.v1.Health/Watch",
		    "application/connect+json", BODY("\0\0\0\0\2{}"), false,
		    NULL, NULL);
	until(f, c, a->len > 5);
	assert_string_equal((char *)a->body + 5, "{\"status\":\"SERVING\"}");
	client_free(c);
	api_end(f, 1000);
}

static void test_grpc_encodings(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;
	struct buf body;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	a = request(c, SAY, "application/grpc", BODY(HELLO), false,
		    "grpc-encoding", "snappy");
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "12");
	buf_init(&body, 4096);
	assert_int_equal(buf_append(&body, "\1\0\0\0", 5), 0);
	assert_int_equal(gzip_deflate(&body, "\x12\3hey", 5), 0);
	body.bytes[4] = (uint8_t)(body.len - 5);
	a = request(c, SAY, "application/grpc", body.bytes, body.len, false,
		    "grpc-encoding", "gzip");
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "0");
	buf_fini(&body);
	client_free(c);
	api_end(f, 1000);
}

/* Messages have no relation to DATA frames: one byte each. */
static void test_grpc_stream_of_single_bytes(void **state)
{
	static const char body[] = HELLO HELLO FAIL HELLO;
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	a = request(c, STREAM, "application/grpc", NULL, 0, true, NULL, NULL);
	for (size_t i = 0; i < sizeof(body) - 1; i++) {
		c->body = (const uint8_t *)body + i;
		c->body_len = 1;
		nghttp2_session_resume_data(c->session, 1);
		until(f, c, c->body_len == 0);
	}
	until(f, c, f->messages == 4);
	/* Answers come before the end. */
	until(f, c, a->len == 4 * GRPC_PREFIX + 3 * 7 + 8);
	assert_memory_equal(a->body, "\0\0\0\0\x07\x08\1\x12\3hey", 12);
	c->body_open = false;
	nghttp2_session_resume_data(c->session, 1);
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "0");
	assert_int_equal(f->half_closed, 1);
	client_free(c);
	api_end(f, 1000);
}

static void test_grpc_deadline(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	a = request(c, SAY, "application/grpc", BODY(HOLD), false,
		    "grpc-timeout", "30m");
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "4");
	assert_int_equal(f->cancelled, 1);
	echo_reply(f->held, "goes nowhere");
	/* A stream on which nobody speaks, and one that is late already. */
	a = request(c, STREAM, "application/grpc", NULL, 0, true,
		    "grpc-timeout", "30m");
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "4");
	a = request(c, SAY, "application/grpc", BODY(HELLO), false,
		    "grpc-timeout", "0n");
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "4");
	assert_int_equal(f->messages, 1);
	client_free(c);
	api_end(f, 1000);
}

static void test_grpc_reset_cancels(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	grpc(c, SAY, BODY(HOLD));
	until(f, c, f->held != NULL);
	nghttp2_submit_rst_stream(c->session, NGHTTP2_FLAG_NONE, 1,
				  NGHTTP2_CANCEL);
	until(f, c, f->cancelled == 1);
	assert_int_equal((int)api_counter(f, "stentor_api_calls "), 1);
	echo_reply(f->held, "goes nowhere");
	assert_int_equal((int)api_counter(f, "stentor_api_calls "), 0);
	client_free(c);
	api_end(f, 1000);
}

/* The connection goes while a handler works and a stream is open. */
static void test_grpc_peer_gone_cancels(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	grpc(c, SAY, BODY(HOLD));
	request(c, STREAM, "application/grpc", BODY(HELLO), true, NULL, NULL);
	until(f, c, f->messages == 2);
	client_free(c);
	loop_until(f->l, f->cancelled == 1);
	echo_reply(f->held, "goes nowhere");
	assert_int_equal((int)api_counter(f, "stentor_api_calls "), 0);
	api_end(f, 1000);
}

static void test_h2_stream_limit(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct answer *a[3];
	struct h2_client *c;

	limits.streams_max = 2;
	api_begin(f, &limits);
	c = client_new(f, 65535);
	/* Before our SETTINGS reach it a client may open what it likes. */
	for (int i = 0; i < 3; i++)
		a[i] = request(c, STREAM, "application/grpc", NULL, 0, true,
			       NULL, NULL);
	until(f, c, a[2]->closed);
	assert_int_equal(a[2]->error, NGHTTP2_REFUSED_STREAM);
	assert_false(a[0]->closed || a[1]->closed);
	assert_int_equal(
		(int)api_counter(f, "stentor_api_streams_refused_total "), 1);
	client_free(c);
	api_end(f, 1000);
}

/* A client that does not take its answers is not read from, loses nothing,
 * and is served to the end when it does. */
static void test_grpc_stream_back_pressure(void **state)
{
	enum { MESSAGES = 100 };
	uint8_t body[MESSAGES * 10];
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;
	unsigned paused_at;

	for (size_t i = 0; i < MESSAGES; i++)
		memcpy(body + 10 * i, BIG, 10);
	api_begin(f, &api_test_limits);
	c = client_new(f, 0);
	a = request(c, STREAM, "application/grpc", body, sizeof(body), false,
		    NULL, NULL);
	until(f, c, f->messages > 0);
	paused_at = f->messages;
	assert_in_range(paused_at, 2, 6); /* 256 KiB of 64 KiB answers */
	/* Everything else has been said: nothing more happens. */
	nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
	until(f, c, !nghttp2_session_want_write(c->session));
	assert_int_equal(f->messages, paused_at);
	nghttp2_submit_window_update(c->session, NGHTTP2_FLAG_NONE, 1, 1 << 30);
	nghttp2_submit_window_update(c->session, NGHTTP2_FLAG_NONE, 0, 1 << 29);
	until(f, c, a->closed);
	assert_int_equal(f->messages, MESSAGES);
	assert_string_equal(a->grpc_status, "0");
	assert_true(a->len > MESSAGES * (size_t)BIG_ANSWER);
	client_free(c);
	api_end(f, 1000);
}

/* A handler that can't take more: what has come waits, the end as well. */
static void test_h2_handler_pauses_requests(void **state)
{
	enum { HELD = 3 };
	static uint8_t body[HELD * 11];
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	for (size_t i = 0; i < HELD; i++)
		memcpy(body + 11 * i, "\0\0\0\0\6\x12\4hold", 11);
	api_begin(f, &api_test_limits);
	c = client_new(f, 1 << 20);
	a = request(c, STREAM, "application/grpc", body, sizeof(body), false,
		    NULL, NULL);
	for (unsigned i = 1; i <= HELD; i++) {
		until(f, c, f->held != NULL);
		nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
		until(f, c, !nghttp2_session_want_write(c->session));
		assert_int_equal(f->messages, i);
		assert_int_equal(f->half_closed, 0);
		rpc_resume(f->held);
		f->held = NULL;
		/* Resuming what is not paused changes nothing. */
		if (i == 1)
			until(f, c, f->held != NULL);
	}
	until(f, c, a->closed);
	assert_int_equal(f->half_closed, 1);
	assert_string_equal(a->grpc_status, "0");
	client_free(c);
	api_end(f, 1000);
}

/* The client goes away while its requests wait. */
static void test_h2_paused_call_is_cancelled(void **state)
{
	static const uint8_t body[] = "\0\0\0\0\6\x12\4hold"
				      "\0\0\0\0\6\x12\4hold";
	struct api_fixture *f = *state;
	struct h2_client *c;

	api_begin(f, &api_test_limits);
	c = client_new(f, 1 << 20);
	request(c, STREAM, "application/grpc", body, sizeof(body) - 1, false,
		NULL, NULL);
	until(f, c, f->held != NULL);
	client_free(c);
	api_end(f, 1000);
	assert_int_equal(f->messages, 1);
}

static void test_h2_unread_answers_time_out(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct h2_client *c;

	limits.write_timeout_ms = 60;
	api_begin(f, &limits);
	c = client_new(f, 0);
	grpc(c, SAY, BODY(HELLO));
	until(f, c, c->peer->ended);
	assert_int_equal(
		(int)api_counter(f, "stentor_api_connections_closed_total{"
				    "reason=\"write_timeout\"} "),
		1);
	assert_int_equal((int)api_counter(f, "stentor_api_queued_bytes "), 0);
	client_free(c);
	api_end(f, 1000);
}

static void test_h2_unary_body_times_out(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	limits.body_timeout_ms = 60;
	api_begin(f, &limits);
	c = client_new(f, 65535);
	a = request(c, SAY, "application/grpc", BODY("\0\0"), true, NULL, NULL);
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "1");
	client_free(c);
	api_end(f, 1000);
}

static void test_h2_message_too_large(void **state)
{
	size_t len = (1 << 20) + 6;
	uint8_t *body = xcalloc(1, len);
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	body[2] = 0x10;
	body[4] = 1; /* 1 MiB and a byte */
	a = grpc(c, SAY, body, len);
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "8");
	assert_int_equal((int)api_counter(f, "stentor_api_body_bytes "), 0);
	client_free(c);
	free(body);
	api_end(f, 1000);
}

static void test_h2_head_too_large(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;
	char value[2000];

	limits.head_bytes_max = 1000;
	memset(value, 'v', sizeof(value) - 1);
	value[sizeof(value) - 1] = 0;
	api_begin(f, &limits);
	c = client_new(f, 65535);
	a = request(c, SAY, "application/grpc", BODY(HELLO), false, "x", value);
	until(f, c, a->closed);
	assert_string_equal(a->status, "431");
	client_free(c);
	api_end(f, 1000);
}

static void test_h2_ping_flood(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	for (int i = 0; i < 4; i++)
		nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
	until(f, c, c->peer->ended);
	assert_int_equal(c->goaway_error, NGHTTP2_ENHANCE_YOUR_CALM);
	client_free(c);
	api_end(f, 1000);
}

/* grpc's bandwidth probes: a ping after every answer is no flood. */
static void test_h2_pings_between_answers(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	for (int i = 0; i < 10; i++) {
		struct answer *a = grpc(c, SAY, BODY(HELLO));

		nghttp2_submit_ping(c->session, NGHTTP2_FLAG_NONE, NULL);
		until(f, c, a->closed);
	}
	assert_int_equal(c->goaways, 0);
	client_free(c);
	api_end(f, 1000);
}

/* CVE-2025-8671: faults that make the server send the resets. */
static void test_h2_provoked_resets(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct h2_client *c;
	unsigned resets = 0;

	limits.reset_burst = 10;
	limits.reset_rate = 1;
	api_begin(f, &limits);
	c = client_new(f, 65535);
	while (!c->goaways) {
		struct answer *a =
			request(c, SAY, "application/grpc", BODY(HELLO), false,
				"content-length", "3");

		until(f, c, a->closed || c->goaways);
		resets += a->error == NGHTTP2_PROTOCOL_ERROR;
	}
	until(f, c, c->peer->ended);
	assert_in_range(resets, 10, 12);
	assert_int_equal(c->goaway_error, NGHTTP2_ENHANCE_YOUR_CALM);
	assert_int_equal(
		(int)api_counter(f, "stentor_api_connections_closed_total{"
				    "reason=\"abuse\"} "),
		1);
	client_free(c);
	api_end(f, 1000);
}

/* --- services of every server ------------------------------------------ */

static void test_health_check_and_watch(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a, *watch;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	health_set_all(f->health, f->services, true);
	a = grpc(c, "/grpc.health.v1.Health/Check", BODY("\0\0\0\0\0"));
	until(f, c, a->closed);
	assert_memory_equal(a->body, "\0\0\0\0\2\x08\1", 7);
	a = grpc(c, "/grpc.health.v1.Health/Check",
		 BODY("\0\0\0\0\x0b\n\x09test.Echo"));
	until(f, c, a->closed);
	assert_memory_equal(a->body, "\0\0\0\0\2\x08\1", 7);
	a = grpc(c, "/grpc.health.v1.Health/Check", BODY("\0\0\0\0\3\n\1x"));
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "5");
	watch = grpc(c, "/grpc.health.v1.Health/Watch",
		     BODY("\0\0\0\0\3\n\1x"));
	until(f, c, watch->len == 7);
	assert_int_equal(watch->body[6], 3); /* SERVICE_UNKNOWN, goes on */
	health_set(f->health, "x", true);
	health_set(f->health, "x", true); /* no change, no message */
	health_set(f->health, "x", false);
	until(f, c, watch->len == 21);
	assert_int_equal(watch->body[13], 1);
	assert_int_equal(watch->body[20], 2);
	client_free(c);
	api_end(f, 1000);
}

static void test_reflection(void **state)
{
	static const char *const paths[] = {
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
		"/grpc.reflection.v1alpha.ServerReflection/"
		"ServerReflectionInfo"};
	struct api_fixture *f = *state;
	struct h2_client *c;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	for (size_t i = 0; i < array_len(paths); i++) {
		struct answer *a = grpc(c, paths[i], BODY("\0\0\0\0\2\x3a\0"));

		until(f, c, a->closed);
		assert_string_equal(a->grpc_status, "0");
		assert_non_null(memmem(a->body, a->len, "test.Echo", 9));
		assert_non_null(memmem(a->body, a->len, "v1alpha", 7));
		/* file_containing_symbol = "stentor.v1.PublishRequest" */
		a = grpc(c, paths[i],
			 BODY("\0\0\0\0\x1b\x22\x19"
			      "stentor.v1.PublishRequest"));
		until(f, c, a->closed);
		assert_non_null(memmem(a->body, a->len,
				       "stentor/v1/publisher.proto", 26));
	}
	client_free(c);
	api_end(f, 1000);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, api_setup, api_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_grpc_answers),
		TEST(test_grpc_body_and_message),
		TEST(test_connect_stream),
		TEST(test_grpc_encodings),
		TEST(test_grpc_stream_of_single_bytes),
		TEST(test_grpc_deadline),
		TEST(test_grpc_reset_cancels),
		TEST(test_grpc_peer_gone_cancels),
		TEST(test_grpc_stream_back_pressure),
		TEST(test_h2_stream_limit),
		TEST(test_h2_handler_pauses_requests),
		TEST(test_h2_paused_call_is_cancelled),
		TEST(test_h2_unread_answers_time_out),
		TEST(test_h2_unary_body_times_out),
		TEST(test_h2_message_too_large),
		TEST(test_h2_head_too_large),
		TEST(test_h2_ping_flood),
		TEST(test_h2_pings_between_answers),
		TEST(test_h2_provoked_resets),
		TEST(test_health_check_and_watch),
		TEST(test_reflection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

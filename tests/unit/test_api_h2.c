/* gRPC and Connect over HTTP/2, driven by an nghttp2 client. */
#include "tests/unit/api_fixture.h"

#include <nghttp2/nghttp2.h>

#define STREAMS_MAX 256

/* What came on one stream; index is (stream id - 1) / 2. */
struct answer {
	char status[8], grpc_status[8], message[128], type[64];
	uint8_t *body;
	size_t len;
	bool closed, reset;
	uint32_t error;
};

struct h2_client {
	struct peer *peer;
	nghttp2_session *session;
	struct answer answers[STREAMS_MAX];
	unsigned goaways;
	uint32_t goaway_error;
	size_t read; /* of the peer's bytes */
	/* The request body being sent, one at a time. */
	const uint8_t *body;
	size_t body_len;
	bool body_open;
};

static struct answer *answer_of(struct h2_client *c, int32_t stream_id)
{
	assert_true(stream_id > 0 && stream_id / 2 < STREAMS_MAX);
	return &c->answers[stream_id / 2];
}

static int on_header(nghttp2_session *s, const nghttp2_frame *f,
		     const uint8_t *name, size_t name_len, const uint8_t *value,
		     size_t value_len, uint8_t flags, void *ctx)
{
	struct answer *a = answer_of(ctx, f->hd.stream_id);
	const char *key = (const char *)name;

	(void)s, (void)name_len, (void)flags;
#define KEEP(text, field)           \
	if (strcmp(key, text) == 0) \
	snprintf(a->field, sizeof(a->field), "%.*s", (int)value_len, value)
	KEEP(":status", status);
	KEEP("grpc-status", grpc_status);
	KEEP("grpc-message", message);
	KEEP("content-type", type);
	return 0;
}

static int on_chunk(nghttp2_session *s, uint8_t flags, int32_t id,
		    const uint8_t *bytes, size_t len, void *ctx)
{
	struct answer *a = answer_of(ctx, id);

	(void)s, (void)flags;
	a->body = xrealloc(a->body, a->len + len + 1);
	memcpy(a->body + a->len, bytes, len);
	a->len += len;
	a->body[a->len] = 0;
	return 0;
}

static int on_frame(nghttp2_session *s, const nghttp2_frame *f, void *ctx)
{
	struct h2_client *c = ctx;

	(void)s;
	if (f->hd.type == NGHTTP2_GOAWAY) {
		c->goaways++;
		c->goaway_error = f->goaway.error_code;
	}
	return 0;
}

static int on_close(nghttp2_session *s, int32_t id, uint32_t error, void *ctx)
{
	struct answer *a = answer_of(ctx, id);

	(void)s;
	a->closed = true;
	a->error = error;
	return 0;
}

static struct h2_client *client_new(struct api_fixture *f, uint32_t window)
{
	struct h2_client *c = xcalloc(1, sizeof(*c));
	nghttp2_settings_entry entry = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
					window};
	nghttp2_session_callbacks *cb;

	c->peer = peer_new(f);
	nghttp2_session_callbacks_new(&cb);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_chunk);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
	assert_int_equal(nghttp2_session_client_new(&c->session, cb, c), 0);
	nghttp2_session_callbacks_del(cb);
	nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, &entry, 1);
	return c;
}

static void client_free(struct h2_client *c)
{
	for (size_t i = 0; i < STREAMS_MAX; i++)
		free(c->answers[i].body);
	nghttp2_session_del(c->session);
	peer_free(c->peer);
	free(c);
}

/* Both directions, as far as they go now. Always true. */
static bool pump(struct h2_client *c)
{
	const uint8_t *bytes;
	ssize_t n;

	while ((n = nghttp2_session_mem_send(c->session, &bytes)) > 0) {
		if (send(c->peer->fd, bytes, (size_t)n, MSG_NOSIGNAL) != n)
			c->peer->ended = true;
	}
	c->peer->len = 0;
	while (peer_read(c->peer)) {
		nghttp2_session_mem_recv(c->session, (uint8_t *)c->peer->bytes,
					 c->peer->len);
		c->peer->len = 0;
	}
	return true;
}

#define until(f, c, condition) loop_until((f)->l, pump(c) && (condition))

static ssize_t on_body(nghttp2_session *s, int32_t id, uint8_t *to, size_t room,
		       uint32_t *flags, nghttp2_data_source *source, void *ctx)
{
	struct h2_client *c = ctx;
	size_t n = min_of(room, c->body_len);

	(void)s, (void)id, (void)source;
	if (n == 0 && c->body_open)
		return NGHTTP2_ERR_DEFERRED;
	memcpy(to, c->body, n);
	c->body += n;
	c->body_len -= n;
	if (c->body_len == 0 && !c->body_open)
		*flags |= NGHTTP2_DATA_FLAG_EOF;
	return (ssize_t)n;
}

#define FIELD(n, v)                                                   \
	{                                                             \
		(uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), \
			NGHTTP2_NV_FLAG_NONE                          \
	}

/* Opens a stream; `extra` is one more header or NULL. The body stays the
 * caller's and goes out with the next pump. */
static struct answer *request(struct h2_client *c, const char *path,
			      const char *type, const void *body, size_t len,
			      bool open, const char *name, const char *value)
{
	nghttp2_nv nv[] = {
		FIELD(":method", "POST"),
		FIELD(":scheme", "http"),
		FIELD(":authority", "x"),
		FIELD(":path", path),
		FIELD("content-type", type),
		FIELD(name ? name : "te", name ? value : "trailers")};
	nghttp2_data_provider provider = {.read_callback = on_body};
	int32_t id;

	c->body = body;
	c->body_len = len;
	c->body_open = open;
	id = nghttp2_submit_request(c->session, NULL, nv, array_len(nv),
				    len > 0 || open ? &provider : NULL, NULL);
	assert_true(id > 0);
	pump(c);
	return answer_of(c, id);
}

static struct answer *grpc(struct h2_client *c, const char *path,
			   const void *body, size_t len)
{
	return request(c, path, "application/grpc", body, len, false, NULL,
		       NULL);
}

#define SAY    "/test.Echo/Say"
#define STREAM "/test.Echo/Stream"
/* PublishRequest.data, framed. */
#define HELLO "\0\0\0\0\5\x12\3hey"
#define HOLD  "\0\0\0\0\6\x12\4hold"
#define FAIL  "\0\0\0\0\6\x12\4fail"
#define BIG   "\0\0\0\0\5\x12\3big"

#define BODY(literal) literal, sizeof(literal) - 1

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

static void test_h2_drain(void **state)
{
	struct api_fixture *f = *state;
	struct answer *unary, *stream;
	struct h2_client *c;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	unary = grpc(c, SAY, BODY(HOLD));
	stream = request(c, STREAM, "application/grpc", BODY(HELLO), true, NULL,
			 NULL);
	until(f, c, f->messages == 2);
	api_drain(f->api, 60000, api_on_drained, f);
	until(f, c, stream->closed);
	assert_string_equal(stream->grpc_status, "14");
	assert_int_equal(stream->len, 12); /* what it had answered came first */
	until(f, c, c->goaways == 2);
	assert_false(unary->closed);
	echo_reply(f->held, "finished");
	until(f, c, unary->closed);
	assert_string_equal(unary->grpc_status, "0");
	until(f, c, f->drained);
	assert_int_equal(c->goaway_error, NGHTTP2_NO_ERROR);
	api_free(f->api);
	client_free(c);
}

/* Bytes that wait for the client. */
static bool something_came(const struct h2_client *c, size_t least)
{
	uint8_t bytes[256];

	return recv(c->peer->fd, bytes, sizeof(bytes), MSG_PEEK) >=
	       (ssize_t)least;
}

/* A call that its client made before it saw the GOAWAY, on a connection that
 * has no other. */
static void test_h2_drain_serves_what_is_on_the_wire(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	a = grpc(c, SAY, BODY(HELLO));
	until(f, c, a->closed);
	api_drain(f->api, 60000, api_on_drained, f);
	/* GOAWAY and PING are there, and it makes two more. */
	loop_until(f->l, something_came(c, 17 + 17));
	a = grpc(c, SAY, BODY(HELLO));
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "0");
	until(f, c, c->goaways == 2);
	until(f, c, c->peer->ended);
	client_free(c);
	loop_until(f->l, f->drained);
	api_free(f->api);
}

/* A client that does not answer the PING holds nothing up for long. */
static void test_h2_drain_without_a_round_trip(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	a = grpc(c, SAY, BODY(HELLO));
	until(f, c, a->closed);
	api_drain(f->api, 60000, api_on_drained, f);
	loop_until(f->l, f->drained);
	api_free(f->api);
	client_free(c);
}

/* Streams would live for ever: they end in order and are begun elsewhere. */
static void test_h2_connection_age_moves_streams(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	limits.connection_age_ms = 100;
	api_begin(f, &limits);
	c = client_new(f, 65535);
	a = request(c, STREAM, "application/grpc", BODY(HELLO), true, NULL,
		    NULL);
	until(f, c, f->messages == 1);
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "14");
	assert_non_null(strstr(a->message, "come of age"));
	assert_int_equal(a->len, 12); /* what it had answered came first */
	until(f, c, c->peer->ended);
	client_free(c);
	api_end(f, 1000);
}

/* Requests that have come are answered before the stream ends. */
static void test_h2_drain_answers_what_waits(void **state)
{
	static const uint8_t body[] = HOLD HELLO HELLO;
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	api_begin(f, &api_test_limits);
	c = client_new(f, 1 << 20);
	a = request(c, STREAM, "application/grpc", body, sizeof(body) - 1, true,
		    NULL, NULL);
	until(f, c, f->held != NULL);
	api_drain(f->api, 60000, api_on_drained, f);
	until(f, c, c->goaways == 2);
	assert_false(a->closed);
	assert_int_equal(f->messages, 1);
	rpc_resume(f->held);
	until(f, c, a->closed);
	assert_int_equal(f->messages, 3);
	assert_string_equal(a->grpc_status, "14");
	client_free(c);
	loop_until(f->l, f->drained);
	api_free(f->api);
}

static void test_h2_connection_age(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	limits.connection_age_ms = 100;
	api_begin(f, &limits);
	c = client_new(f, 65535);
	a = grpc(c, SAY, BODY(HOLD));
	until(f, c, c->goaways == 2);
	assert_false(a->closed);
	echo_reply(f->held, "still served");
	until(f, c, c->peer->ended);
	assert_string_equal(a->grpc_status, "0");
	client_free(c);
	api_end(f, 1000);
}

/* Said with GOAWAY, so that a client does not lose a call to the race. */
static void test_h2_idle_connection_leaves(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct h2_client *c;

	limits.idle_timeout_ms = 60;
	api_begin(f, &limits);
	c = client_new(f, 65535);
	until(f, c, c->peer->ended);
	assert_true(c->goaways > 0);
	assert_int_equal(
		(int)api_counter(f, "stentor_api_connections_closed_total{"
				    "reason=\"idle_timeout\"} "),
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
		TEST(test_h2_drain),
		TEST(test_h2_drain_serves_what_is_on_the_wire),
		TEST(test_h2_drain_without_a_round_trip),
		TEST(test_h2_drain_answers_what_waits),
		TEST(test_h2_connection_age),
		TEST(test_h2_connection_age_moves_streams),
		TEST(test_h2_idle_connection_leaves),
		TEST(test_health_check_and_watch),
		TEST(test_reflection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

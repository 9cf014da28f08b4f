/* h2_client.h - an nghttp2 client of the port in api_fixture.h, on its socket,
 * and the requests that tests make of the echo service. */
#ifndef STENTOR_TESTS_H2_CLIENT_H
#define STENTOR_TESTS_H2_CLIENT_H

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

#endif

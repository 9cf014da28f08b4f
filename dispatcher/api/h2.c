/* h2.c - an HTTP/2 session: nghttp2 between input and output. */
#include "dispatcher/api/h2.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <string.h>

#define H2_PING_STRIKES 2
static const uint8_t drain_ping[8] = "drain";

static struct h2_call *call_of(nghttp2_session *s, int32_t stream_id)
{
	return nghttp2_session_get_stream_user_data(s, stream_id);
}

/* Says why and ends: GOAWAY, then the connection closes once it is written. */
static void doom(struct h2 *h2, uint32_t error, const char *text,
		 enum close_reason reason)
{
	if (h2->doomed != CLOSE_NONE)
		return;
	h2->doomed = reason;
	log_warn("API-ABUSE", "why=%s", text);
	nghttp2_submit_goaway(
		h2->session, NGHTTP2_FLAG_NONE,
		nghttp2_session_get_last_proc_stream_id(h2->session), error,
		(const uint8_t *)text, strlen(text));
}

/* A fault that an honest peer may cause now and then. nghttp2 1.52 does not
 * limit the resets that faulty frames make *us* send (CVE-2025-8671). */
static void count_fault(struct h2 *h2, const char *what)
{
	const struct api_limits *l = &h2->conn->api->limits;
	uint64_t now = api_now(h2->conn->api);
	uint64_t refill = (now - h2->faults.refilled_ms) * l->reset_rate / 1000;

	if (refill > 0) {
		h2->faults.tokens =
			min_of(h2->faults.tokens + refill, l->reset_burst);
		h2->faults.refilled_ms = now;
	}
	if (h2->faults.tokens == 0)
		doom(h2, NGHTTP2_ENHANCE_YOUR_CALM, what, CLOSE_ABUSE);
	else
		h2->faults.tokens--;
}

static int on_begin_headers(nghttp2_session *s, const nghttp2_frame *f,
			    void *ctx)
{
	struct h2 *h2 = ctx;
	struct h2_call *call;

	h2->head_started_ms = api_now(h2->conn->api);
	if (f->headers.cat != NGHTTP2_HCAT_REQUEST)
		return 0;
	/* Calls whose streams are closed but whose handlers still work count
	 * too: resetting streams must not buy more work than the limit. */
	if (h2->call_count >= h2->conn->api->limits.streams_max) {
		nghttp2_submit_rst_stream(s, NGHTTP2_FLAG_NONE, f->hd.stream_id,
					  NGHTTP2_REFUSED_STREAM);
		return 0;
	}
	call = h2_call_new(h2, f->hd.stream_id);
	nghttp2_session_set_stream_user_data(s, f->hd.stream_id, call);
	return 0;
}

static int on_header(nghttp2_session *s, const nghttp2_frame *f,
		     const uint8_t *name, size_t name_len, const uint8_t *value,
		     size_t value_len, uint8_t flags UNUSED, void *ctx UNUSED)
{
	struct h2_call *call = call_of(s, f->hd.stream_id);

	if (call && f->headers.cat == NGHTTP2_HCAT_REQUEST)
		h2_call_field(call, (const char *)name, name_len,
			      (const char *)value, value_len);
	return 0;
}

/* Streams have no natural end: after what they have answered, they end, and
 * their clients go on elsewhere. */
static void end_streams(struct h2 *h2)
{
	const char *why =
		h2->conn->api->draining
			? "shutting down"
			: "the connection has come of age; make another";

	list_for_each_safe (node, &h2->calls) {
		struct h2_call *call =
			container_of(node, struct h2_call, in_session);

		if (call->running && !call->ended &&
		    (call->rpc.method->client_streaming ||
		     call->rpc.method->server_streaming))
			h2_call_drain(call, why);
	}
}

static void drain_final(struct h2 *h2)
{
	h2->drain = DRAIN_FINAL;
	nghttp2_submit_goaway(
		h2->session, NGHTTP2_FLAG_NONE,
		nghttp2_session_get_last_proc_stream_id(h2->session),
		NGHTTP2_NO_ERROR, NULL, 0);
	end_streams(h2);
	conn_mark_dirty(h2->conn);
}

/* Keepalives are welcome, floods are not. Strikes are forgotten whenever we
 * send HEADERS or DATA (gRFC A8): grpc's bandwidth probes ping then. */
static void on_ping(struct h2 *h2, const nghttp2_frame *f)
{
	uint64_t now = api_now(h2->conn->api);

	if (f->hd.flags & NGHTTP2_FLAG_ACK) {
		if (h2->drain == DRAIN_NOTICED &&
		    memcmp(f->ping.opaque_data, drain_ping, 8) == 0)
			drain_final(h2);
		return;
	}
	if (h2->ping_ms != 0 &&
	    now - h2->ping_ms < h2->conn->api->limits.ping_min_interval_ms &&
	    ++h2->ping_strikes > H2_PING_STRIKES)
		doom(h2, NGHTTP2_ENHANCE_YOUR_CALM, "too_many_pings",
		     CLOSE_ABUSE);
	h2->ping_ms = now;
}

static int on_frame_recv(nghttp2_session *s, const nghttp2_frame *f, void *ctx)
{
	struct h2 *h2 = ctx;
	bool end = f->hd.flags & NGHTTP2_FLAG_END_STREAM;
	struct h2_call *call;

	switch (f->hd.type) {
	case NGHTTP2_HEADERS:
		h2->head_started_ms = 0;
		call = call_of(s, f->hd.stream_id);
		if (call && f->headers.cat == NGHTTP2_HCAT_REQUEST)
			h2_call_head_done(call);
		break;
	case NGHTTP2_DATA:
		call = call_of(s, f->hd.stream_id);
		if (f->hd.length == 0 && !end)
			count_fault(h2, "too_many_empty_frames");
		break;
	case NGHTTP2_SETTINGS:
		h2->head_started_ms = 0;
		return 0;
	case NGHTTP2_PING:
		on_ping(h2, f);
		return 0;
	case NGHTTP2_GOAWAY:
		h2->peer_leaves = true;
		return 0;
	default:
		return 0;
	}
	/* The head may have ended the call at once, but its stream stands. */
	if (call && end)
		h2_call_body_done(call);
	return 0;
}

static int on_data_chunk(nghttp2_session *s, uint8_t flags UNUSED,
			 int32_t stream_id, const uint8_t *bytes, size_t len,
			 void *ctx UNUSED)
{
	struct h2_call *call = call_of(s, stream_id);

	/* The connection's window is for all; a paused call holds back only
	 * its own. */
	nghttp2_session_consume_connection(s, len);
	if (call)
		h2_call_data(call, bytes, len);
	else
		nghttp2_session_consume_stream(s, stream_id, len);
	return 0;
}

static int on_frame_send(nghttp2_session *s, const nghttp2_frame *f, void *ctx)
{
	struct h2 *h2 = ctx;
	uint32_t error;

	switch (f->hd.type) {
	case NGHTTP2_HEADERS:
	case NGHTTP2_DATA:
		h2->ping_ms = 0;
		h2->ping_strikes = 0;
		break;
	case NGHTTP2_GOAWAY:
		/* Not earlier: nghttp2 sends a PING before what waits. */
		if (h2->drain == DRAIN_NOTICED)
			nghttp2_submit_ping(s, NGHTTP2_FLAG_NONE, drain_ping);
		return 0;
	case NGHTTP2_RST_STREAM:
		error = f->rst_stream.error_code;
		/* A faulty head ends here and not in on_frame_recv(). */
		h2->head_started_ms = 0;
		if (error == NGHTTP2_REFUSED_STREAM)
			metric_add(&h2->conn->api->metrics, API_STREAMS_REFUSED,
				   0, 1);
		else if (error != NGHTTP2_NO_ERROR)
			count_fault(h2, "too_many_faulty_streams");
		return 0;
	default:
		return 0;
	}
	if (f->hd.flags & NGHTTP2_FLAG_END_STREAM) {
		struct h2_call *call = call_of(s, f->hd.stream_id);

		/* All is said; the client need not send the rest. */
		if (call && !call->body_whole)
			nghttp2_submit_rst_stream(s, NGHTTP2_FLAG_NONE,
						  f->hd.stream_id,
						  NGHTTP2_NO_ERROR);
	}
	return 0;
}

static int on_stream_close(nghttp2_session *s, int32_t stream_id,
			   uint32_t error UNUSED, void *ctx UNUSED)
{
	struct h2_call *call = call_of(s, stream_id);

	if (call)
		h2_call_stream_closed(call);
	return 0;
}

static nghttp2_session_callbacks *callbacks_new(void)
{
	nghttp2_session_callbacks *cb;
	int rv = nghttp2_session_callbacks_new(&cb);

	check(rv == 0);
	nghttp2_session_callbacks_set_on_begin_headers_callback(
		cb, on_begin_headers);
	nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(
		cb, on_data_chunk);
	nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb,
							       on_stream_close);
	return cb;
}

static nghttp2_session *session_new(struct h2 *h2, const struct api_limits *l)
{
	nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
		 (uint32_t)l->streams_max},
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, H2_STREAM_WINDOW},
		{NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
		 (uint32_t)l->head_bytes_max},
		{NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1},
	};
	nghttp2_session_callbacks *cb = callbacks_new();
	nghttp2_session *s = NULL;
	nghttp2_option *o = NULL;
	int rv = nghttp2_option_new(&o);

	check(rv == 0);
	nghttp2_option_set_no_auto_window_update(o, 1);
	nghttp2_option_set_no_closed_streams(o, 1);
	nghttp2_option_set_stream_reset_rate_limit(o, l->reset_burst,
						   l->reset_rate);
	rv = nghttp2_session_server_new2(&s, cb, h2, o);
	check(rv == 0);
	nghttp2_option_del(o);
	nghttp2_session_callbacks_del(cb);
	rv = nghttp2_submit_settings(s, NGHTTP2_FLAG_NONE, settings,
				     array_len(settings));
	check(rv == 0);
	rv = nghttp2_session_set_local_window_size(s, NGHTTP2_FLAG_NONE, 0,
						   H2_CONNECTION_WINDOW);
	check(rv == 0);
	return s;
}

void h2_start(struct conn *c)
{
	struct h2 *h2 = xcalloc(1, sizeof(*h2));
	uint64_t now = api_now(c->api);

	h2->conn = c;
	list_init(&h2->calls);
	list_init(&h2->attention);
	h2->head_started_ms = now;
	h2->faults.tokens = c->api->limits.reset_burst;
	h2->faults.refilled_ms = now;
	h2->session = session_new(h2, &c->api->limits);
	c->state = h2;
	c->front = &h2_front;
	if (c->leaving != CLOSE_NONE)
		h2_front.drain(c);
}

static enum close_reason h2_input(struct conn *c, const uint8_t *bytes,
				  size_t len)
{
	struct h2 *h2 = c->state;

	if (h2->doomed != CLOSE_NONE)
		return CLOSE_NONE;
	return nghttp2_session_mem_recv(h2->session, bytes, len) < 0
		       ? CLOSE_PROTOCOL
		       : CLOSE_NONE;
}

static bool h2_half_close(struct conn *c UNUSED)
{
	return false;
}

/* Calls that the output has made room for. */
static void attend(struct h2 *h2)
{
	struct list batch;

	list_init(&batch);
	list_splice_back(&batch, &h2->attention);
	while (!list_empty(&batch)) {
		struct list *node = list_pop_front(&batch);

		h2_call_attend(
			container_of(node, struct h2_call, in_attention));
	}
}

static enum close_reason h2_produce(struct conn *c)
{
	struct h2 *h2 = c->state;
	const uint8_t *bytes;

	do {
		while (c->out.len < API_OUT_HIGH) {
			ssize_t n =
				nghttp2_session_mem_send(h2->session, &bytes);

			if (n < 0)
				return CLOSE_PROTOCOL;
			if (n == 0)
				break;
			if (buf_append(&c->out, bytes, (size_t)n) != 0)
				return CLOSE_PROTOCOL;
		}
		if (list_empty(&h2->attention))
			break;
		attend(h2);
	} while (c->out.len < API_OUT_HIGH);
	/* What is left of it has its turn when the socket has room again. */
	return CLOSE_NONE;
}

static enum close_reason h2_finished(const struct conn *c)
{
	const struct h2 *h2 = c->state;

	if (h2->doomed != CLOSE_NONE)
		return h2->doomed;
	/* Without calls nghttp2 would be done with the first GOAWAY, but calls
	 * may be on the wire for a round trip. */
	if (h2->drain == DRAIN_NOTICED)
		return CLOSE_NONE;
	if (nghttp2_session_want_read(h2->session) ||
	    nghttp2_session_want_write(h2->session))
		return CLOSE_NONE;
	if (h2->drain != DRAIN_NO)
		return c->leaving;
	return h2->peer_leaves ? CLOSE_PEER : CLOSE_PROTOCOL;
}

static void h2_drain(struct conn *c)
{
	struct h2 *h2 = c->state;

	if (h2->drain == DRAIN_FINAL) {
		end_streams(h2);
		conn_mark_dirty(c);
		return;
	}
	if (h2->drain == DRAIN_NOTICED)
		return;
	/* What the client sent before it sees this still counts; a round trip
	 * later nothing of that can be under way any more. */
	h2->drain = DRAIN_NOTICED;
	h2->drain_ms = api_now(c->api);
	nghttp2_submit_shutdown_notice(h2->session);
	conn_mark_dirty(c);
}

static enum close_reason h2_sweep(struct conn *c, uint64_t now_ms)
{
	struct h2 *h2 = c->state;
	const struct api_limits *l = &c->api->limits;

	if (h2->drain == DRAIN_NOTICED &&
	    now_ms - h2->drain_ms >= API_GOAWAY_WAIT_MS)
		drain_final(h2);
	if (h2->head_started_ms != 0 &&
	    now_ms - h2->head_started_ms >= l->head_timeout_ms)
		return CLOSE_HEAD_TIMEOUT;
	if (h2->queued_bytes > 0 &&
	    now_ms - h2->queue_ms >= l->write_timeout_ms)
		return CLOSE_WRITE_TIMEOUT;
	return CLOSE_NONE;
}

static void h2_free(struct conn *c)
{
	struct h2 *h2 = c->state;

	list_for_each_safe (node, &h2->calls) {
		h2_call_detach(container_of(node, struct h2_call, in_session));
	}
	check(list_empty(&h2->calls));
	check(h2->queued_bytes == 0);
	nghttp2_session_del(h2->session);
	free(h2);
	c->state = NULL;
}

const struct conn_front h2_front = {
	.input = h2_input,
	.half_close = h2_half_close,
	.produce = h2_produce,
	.finished = h2_finished,
	.sweep = h2_sweep,
	.drain = h2_drain,
	.free = h2_free,
};

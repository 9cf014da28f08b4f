/* h2_call.c - one call over HTTP/2: from frames to its handler. */
#include "dispatcher/api/h2.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <stdio.h>
#include <string.h>

#define HEADER_OVERHEAD \
	32 /* what a field counts beyond its bytes (RFC 9113) \
	    */

static void h2_on_timer(struct api_timer *t);

struct h2_call *h2_call_new(struct h2 *h2, int32_t stream_id)
{
	struct api *api = h2->conn->api;
	struct h2_call *call = slab_alloc(&api->h2_calls);
	size_t message_max = (size_t)api->limits.message_bytes_max;

	memset(call, 0, sizeof(*call));
	call->h2 = h2;
	call->api = api;
	call->stream_id = stream_id;
	call->stream_open = true;
	list_push_back(&h2->calls, &call->in_session);
	list_init(&call->in_attention);
	list_init(&call->in_gathering);
	wheel_timer_init(&call->timer.in_wheel);
	call->timer.fire = h2_on_timer;
	request_init(&call->request);
	buf_init(&call->body,
		 max_of(message_max + GRPC_PREFIX, (size_t)H2_STREAM_WINDOW));
	grpc_reader_init(&call->reader, message_max);
	buf_init(&call->out, API_SEND_QUEUE_MAX + API_ANSWER_MAX);
	h2->call_count++;
	h2->conn->calls++;
	return call;
}

void h2_call_field(struct h2_call *call, const char *name, size_t name_len,
		   const char *value, size_t value_len)
{
	call->head_bytes += (uint32_t)(name_len + value_len) + HEADER_OVERHEAD;
	if (call->head_bytes > call->api->limits.head_bytes_max) {
		call->head_too_large = true;
		return;
	}
	request_field(&call->request, &call->api->table, name, name_len, value,
		      value_len);
}

static bool client_streams(const struct h2_call *call)
{
	return call->request.entry &&
	       call->request.entry->method->client_streaming;
}

static bool deadline_passed(const struct h2_call *call)
{
	return call->deadline_ms != 0 &&
	       api_now(call->api) >= call->deadline_ms;
}

void h2_call_abort(struct h2_call *call, enum grpc_code code, const char *text)
{
	check(call->stream_open);
	if (call->ended)
		return;
	wheel_cancel(&call->timer.in_wheel);
	h2_call_end(call, code, text);
	if (!call->running) {
		rpc_count(&call->api->table, call->request.entry, code);
	} else if (!call->rpc.cancelled) {
		metric_add(&call->api->metrics, API_CALLS_CANCELLED, 0, 1);
		rpc_cancel(&call->rpc, code);
	}
}

static void h2_on_timer(struct api_timer *t)
{
	struct h2_call *call = container_of(t, struct h2_call, timer);
	uint64_t now = api_now(call->api);

	if (deadline_passed(call))
		h2_call_abort(call, GRPC_DEADLINE_EXCEEDED,
			      "deadline exceeded");
	else if (!call->body_whole && !client_streams(call))
		h2_call_abort(call, GRPC_CANCELLED,
			      "the request took too long to arrive");
	else if (call->deadline_ms != 0)
		api_timer_arm(call->api, t, call->deadline_ms - now);
}

static void arm_timer(struct h2_call *call)
{
	uint64_t delay = call->api->limits.body_timeout_ms;
	bool streams = client_streams(call);

	if (call->request.timeout_given) {
		uint64_t ms = call->request.timeout_ms;

		call->deadline_ms = api_now(call->api) + ms;
		delay = streams ? ms : min_of(delay, ms);
	} else if (streams) {
		return;
	}
	api_timer_arm(call->api, &call->timer, delay);
}

static void framed_head_done(struct h2_call *call)
{
	const struct request *r = &call->request;

	if (!r->entry)
		h2_call_abort(call, GRPC_UNIMPLEMENTED, "unknown method");
	else if (r->timeout_bad)
		h2_call_abort(call, GRPC_INTERNAL, "malformed timeout");
	else if (r->encoding == ENCODING_UNKNOWN)
		h2_call_abort(call, GRPC_UNIMPLEMENTED,
			      "unknown encoding; gzip is supported");
}

void h2_call_head_done(struct h2_call *call)
{
	int status = call->head_too_large ? 431 : request_check(&call->request);

	if (status != 0) {
		h2_call_end_http(call, status);
		rpc_count(&call->api->table, NULL, GRPC_UNIMPLEMENTED);
		return;
	}
	if (!request_authenticated(&call->request))
		h2_call_abort(call, GRPC_UNAUTHENTICATED,
			      REQUEST_UNAUTHENTICATED);
	else if (request_framed(&call->request))
		framed_head_done(call);
	if (!call->ended)
		arm_timer(call);
}

/* Adjusts the port's budget to what the call holds of its requests now. */
static bool h2_account(struct h2_call *call)
{
	size_t held = call->body.len + call->reader.partial.len;
	bool fits = true;

	if (held > call->held_bytes)
		fits = api_body_take(call->api, held - call->held_bytes);
	else
		api_body_give(call->api, call->held_bytes - held);
	if (fits)
		call->held_bytes = held;
	return fits;
}

static void forget_body(struct h2_call *call)
{
	buf_fini(&call->body);
	buf_init(&call->body, 0);
	grpc_reader_fini(&call->reader);
	grpc_reader_init(&call->reader, 0);
	api_body_give(call->api, call->held_bytes);
	call->held_bytes = 0;
}

static void h2_begin(struct h2_call *call)
{
	if (call->running)
		return;
	rpc_begin(&call->rpc, call->request.entry, call->request.token,
		  call->h2->conn->peer, &h2_front_ops);
	call->running = true;
	api_call_begun(call->api);
}

/* Hands over a list, whose bytes the handler looks at, or ends the call. */
static void deliver_list(struct h2_call *call, const uint8_t *bytes, size_t len,
			 bool compressed)
{
	size_t max = (size_t)call->api->limits.message_bytes_max;
	struct request *r = &call->request;
	char why[MESSAGE_WHY_MAX];
	struct items *items;
	enum grpc_code code = request_framed(r)
				      ? request_items(r, bytes, len, compressed,
						      max, &items, why)
				      : request_connect_items(r, bytes, len,
							      max, &items, why);

	if (code != GRPC_OK) {
		h2_call_abort(call, code, why);
		return;
	}
	h2_begin(call);
	call->rpc.method->on_list(&call->rpc, items);
}

/* Hands over one message, or ends the call over it. */
static void h2_deliver(struct h2_call *call, const uint8_t *bytes, size_t len,
		       bool compressed)
{
	struct api *api = call->api;
	size_t max = (size_t)api->limits.message_bytes_max;
	struct request *r = &call->request;
	char why[MESSAGE_WHY_MAX];
	ProtobufCMessage *m;
	enum grpc_code code;

	if (r->entry->method->on_list != NULL) {
		deliver_list(call, bytes, len, compressed);
		return;
	}
	if (request_framed(r))
		code = request_message(r, &api->arena, &api->scratch, bytes,
				       len, compressed, max, &m, why);
	else
		code = request_connect_message(r, &api->arena, &api->scratch,
					       bytes, len, max, &m, why);
	if (code != GRPC_OK) {
		h2_call_abort(call, code, why);
		return;
	}
	h2_begin(call);
	call->rpc.method->on_message(&call->rpc, m);
	message_release(&api->arena);
}

static void reader_failed(struct h2_call *call, int rv)
{
	char why[MESSAGE_WHY_MAX];

	if (rv == ERR_TOO_LARGE) {
		snprintf(why, sizeof(why), "message larger than %zu bytes",
			 (size_t)call->api->limits.message_bytes_max);
		h2_call_abort(call, GRPC_RESOURCE_EXHAUSTED, why);
	} else {
		h2_call_abort(call, GRPC_INTERNAL, "malformed framing");
	}
}

/* A stream's requests, as long as its answers are taken and its handler takes
 * more. */
static void feed(struct h2_call *call, const uint8_t *bytes, size_t len)
{
	size_t left = len;

	while (!call->ended && left > 0) {
		const uint8_t *message;
		size_t message_len;
		bool compressed;
		int rv;

		if (call->held ||
		    call->out.len - call->out_sent >= API_SEND_QUEUE_MAX) {
			call->paused = true;
			rv = buf_append(&call->body, bytes, left);
			check(rv == 0); /* the window is no larger */
			break;
		}
		rv = grpc_reader_next(&call->reader, &bytes, &left, &message,
				      &message_len, &compressed);
		if (rv < 0)
			reader_failed(call, rv);
		if (rv <= 0)
			break;
		h2_deliver(call, message, message_len, compressed);
	}
	/* A stream that is to end gets no more room. */
	if (!call->drain_why)
		nghttp2_session_consume_stream(call->h2->session,
					       call->stream_id,
					       call->paused ? len - left : len);
}

/* The length that a unary gRPC request announces exceeds the limit: say so
 * before it arrives. */
static bool announces_too_much(const struct h2_call *call)
{
	const uint8_t *b = call->body.bytes;

	if (!request_framed(&call->request) || call->body.len < GRPC_PREFIX)
		return false;
	return ((uint64_t)b[1] << 24 | (uint64_t)b[2] << 16 |
		(uint64_t)b[3] << 8 | b[4]) >
	       call->api->limits.message_bytes_max;
}

static void h2_collect(struct h2_call *call, const uint8_t *bytes, size_t len)
{
	if (buf_append(&call->body, bytes, len) != 0 ||
	    announces_too_much(call))
		reader_failed(call, ERR_TOO_LARGE);
	nghttp2_session_consume_stream(call->h2->session, call->stream_id, len);
}

void h2_call_data(struct h2_call *call, const uint8_t *bytes, size_t len)
{
	if (call->ended) {
		nghttp2_session_consume_stream(call->h2->session,
					       call->stream_id, len);
		return;
	}
	if (!client_streams(call)) {
		h2_collect(call, bytes, len);
	} else if (call->paused) {
		int rv = buf_append(&call->body, bytes, len);

		check(rv == 0); /* the window is no larger */
	} else {
		feed(call, bytes, len);
	}
	if (!call->ended && !h2_account(call))
		h2_call_abort(call, GRPC_RESOURCE_EXHAUSTED,
			      "too many incomplete requests");
	if (call->ended)
		forget_body(call);
}

/* A unary request in gRPC's framing: exactly one message. */
static void unary_framed_done(struct h2_call *call)
{
	const uint8_t *bytes = call->body.bytes, *message;
	size_t left = call->body.len, message_len;
	bool compressed;
	int rv;

	if (left == 0) {
		h2_call_abort(call, GRPC_UNIMPLEMENTED,
			      "a unary call needs one message");
		return;
	}
	rv = grpc_reader_next(&call->reader, &bytes, &left, &message,
			      &message_len, &compressed);
	if (rv < 0)
		reader_failed(call, rv);
	else if (rv == 0)
		h2_call_abort(call, GRPC_INTERNAL, "truncated message");
	else if (left > 0)
		h2_call_abort(call, GRPC_UNIMPLEMENTED,
			      "a unary call takes one message only");
	else
		h2_deliver(call, message, message_len, compressed);
}

static void stream_done(struct h2_call *call)
{
	if (grpc_reader_partial(&call->reader)) {
		h2_call_abort(call, GRPC_INTERNAL, "truncated message");
		return;
	}
	h2_begin(call);
	rpc_half_close(&call->rpc);
}

void h2_call_body_done(struct h2_call *call)
{
	call->body_whole = true;
	if (call->held)
		call->paused = true;
	if (call->ended || call->paused)
		return;
	if (deadline_passed(call)) {
		h2_call_abort(call, GRPC_DEADLINE_EXCEEDED,
			      "deadline exceeded");
		return;
	}
	if (client_streams(call))
		stream_done(call);
	else if (request_framed(&call->request))
		unary_framed_done(call);
	else
		h2_deliver(call, call->body.bytes, call->body.len, false);
	forget_body(call);
}

void h2_call_attend(struct h2_call *call)
{
	struct buf held;

	if (!call->stream_open || call->ended)
		return;
	if (call->overflow) {
		h2_call_abort(call, GRPC_RESOURCE_EXHAUSTED,
			      "answers are not taken");
		return;
	}
	if (!call->paused || call->held ||
	    call->out.len - call->out_sent > API_SEND_QUEUE_MAX / 2)
		return;
	call->paused = false;
	held = call->body;
	buf_init(&call->body, held.max);
	feed(call, held.bytes, held.len);
	buf_fini(&held);
	if (!call->ended && !h2_account(call))
		h2_call_abort(call, GRPC_RESOURCE_EXHAUSTED,
			      "too many incomplete requests");
	if (call->ended)
		forget_body(call);
	else if (call->body_whole)
		h2_call_body_done(call);
	else if (call->drain_why && !call->paused)
		h2_call_drain(call, call->drain_why);
}

void h2_call_drain(struct h2_call *call, const char *why)
{
	/* The requests that wait, a window of them at most, come first. */
	if (call->paused && call->body.len > 0)
		call->drain_why = why;
	else if (call->rpc.method->on_drain != NULL)
		call->rpc.method->on_drain(&call->rpc, why);
	else
		h2_call_abort(call, GRPC_UNAVAILABLE, why);
}

void h2_call_stream_closed(struct h2_call *call)
{
	call->stream_open = false;
	wheel_cancel(&call->timer.in_wheel);
	list_remove(&call->in_attention);
	h2_call_stop_gathering(call);
	h2_call_unqueue(call, call->out.len - call->out_sent);
	forget_body(call);
	if (call->running && !call->rpc.cancelled) {
		metric_add(&call->api->metrics, API_CALLS_CANCELLED, 0, 1);
		rpc_cancel(&call->rpc, GRPC_CANCELLED);
		return;
	}
	if (!call->running && !call->ended)
		rpc_count(&call->api->table, call->request.entry,
			  GRPC_CANCELLED);
	h2_call_maybe_free(call);
}

void h2_call_detach(struct h2_call *call)
{
	h2_call_unqueue(call, call->out.len - call->out_sent);
	list_remove(&call->in_session);
	list_remove(&call->in_attention);
	h2_call_stop_gathering(call);
	call->h2 = NULL;
	if (call->stream_open)
		h2_call_stream_closed(call);
}

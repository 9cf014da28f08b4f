/* h2_answer.c - a call's answers on their way out: one queue of bytes, drained
 * by nghttp2's data provider, so that many answers share a DATA frame. */
#include "dispatcher/api/h2.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/http1.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUT_KEEP	 (16u << 10) /* a drained queue keeps its buffer */
#define GRPC_MESSAGE_MAX 2048	     /* bytes, percent-encoded */
#define ANSWER_FIELDS	 8

#define NV_FLAGS (NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE)
#define NV_STATIC(n, v)                                                       \
	{                                                                     \
		(uint8_t *)(n), (uint8_t *)(v), sizeof(n) - 1, sizeof(v) - 1, \
			NV_FLAGS                                              \
	}

static const char *const code_text[GRPC_CODES] = {
	"0", "1",  "2",	 "3",  "4",  "5",  "6",	 "7",  "8",
	"9", "10", "11", "12", "13", "14", "15", "16",
};

/* `name` is a literal; `value` outlives the frame if `keep`. */
static nghttp2_nv nv(const char *name, const char *value, bool keep)
{
	return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name),
			    strlen(value),
			    keep ? NV_FLAGS : NGHTTP2_NV_FLAG_NO_COPY_NAME};
}

void h2_call_want_attention(struct h2_call *call)
{
	if (list_empty(&call->in_attention))
		list_push_back(&call->h2->attention, &call->in_attention);
}

void h2_call_unqueue(struct h2_call *call, size_t bytes)
{
	call->out_sent += bytes;
	check(call->out_sent <= call->out.len);
	if (call->h2) {
		check(call->h2->queued_bytes >= bytes);
		call->h2->queued_bytes -= bytes;
		call->api->queued_bytes -= bytes;
		call->h2->queue_ms = api_now(call->api);
	}
	if (call->out_sent == call->out.len) {
		buf_clear(&call->out, OUT_KEEP);
		call->out_sent = 0;
	}
}

/* gRPC's status, as trailers or (head = true) as a whole answer. */
static size_t status_fields(const struct h2_call *call, nghttp2_nv *out,
			    char *message)
{
	const char *code = code_text[call->code];

	out[0] = nv("grpc-status", code, true);
	if (!call->text)
		return 1;
	grpc_message_encode(message, GRPC_MESSAGE_MAX, call->text);
	out[1] = nv("grpc-message", message, false);
	return 2;
}

static void submit_trailers(struct h2_call *call)
{
	char message[GRPC_MESSAGE_MAX];
	nghttp2_nv fields[2];
	size_t n = status_fields(call, fields, message);

	nghttp2_submit_trailer(call->h2->session, call->stream_id, fields, n);
}

static ssize_t on_provide(nghttp2_session *s UNUSED, int32_t stream_id UNUSED,
			  uint8_t *to, size_t room, uint32_t *flags,
			  nghttp2_data_source *source, void *ctx UNUSED)
{
	struct h2_call *call = source->ptr;
	size_t n = min_of(call->out.len - call->out_sent, room);

	if (n > 0) {
		memcpy(to, call->out.bytes + call->out_sent, n);
		h2_call_unqueue(call, n);
	}
	if (call->paused &&
	    call->out.len - call->out_sent <= API_SEND_QUEUE_MAX / 2)
		h2_call_want_attention(call);
	if (call->out.len > 0)
		return (ssize_t)n;
	if (call->ended) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		if (call->request.content == CONTENT_GRPC) {
			*flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
			submit_trailers(call);
		}
	} else if (n == 0) {
		call->deferred = true;
		return NGHTTP2_ERR_DEFERRED;
	}
	return (ssize_t)n;
}

static const char *framed_content_type(const struct request *r)
{
	if (r->content == CONTENT_CONNECT_STREAM)
		return r->codec == CODEC_JSON ? "application/connect+json"
					      : "application/connect+proto";
	if (!r->subtype)
		return "application/grpc";
	return r->codec == CODEC_JSON ? "application/grpc+json"
				      : "application/grpc+proto";
}

/* The head of a framed answer; alone if the outcome stands and nothing is
 * queued. */
static void respond_framed(struct h2_call *call)
{
	static const nghttp2_nv ok = NV_STATIC(":status", "200");
	static const nghttp2_nv accept =
		NV_STATIC("grpc-accept-encoding", "identity,gzip");
	nghttp2_data_provider provider = {.source.ptr = call,
					  .read_callback = on_provide};
	bool alone = call->ended && call->out.len == 0;
	char message[GRPC_MESSAGE_MAX];
	nghttp2_nv fields[ANSWER_FIELDS];
	size_t n = 2;

	fields[0] = ok;
	fields[1] =
		nv("content-type", framed_content_type(&call->request), true);
	if (call->request.content == CONTENT_GRPC)
		fields[n++] = accept;
	if (alone)
		n += status_fields(call, fields + n, message);
	nghttp2_submit_response(call->h2->session, call->stream_id, fields, n,
				alone ? NULL : &provider);
	call->responded = true;
}

static void respond_http(struct h2_call *call, int status, const char *type)
{
	nghttp2_data_provider provider = {.source.ptr = call,
					  .read_callback = on_provide};
	const char *origin = call->api->limits.cors_origin;
	const struct request *r = &call->request;
	nghttp2_nv fields[ANSWER_FIELDS];
	char status_text[16];
	size_t n = 0;

	snprintf(status_text, sizeof(status_text), "%d", status);
	fields[n++] = nv(":status", status_text, false);
	if (call->out.len > 0)
		fields[n++] = nv("content-type", type, true);
	if (status == 401)
		fields[n++] =
			nv("www-authenticate", REQUEST_AUTHENTICATE, true);
	if (status == 405 || status == 204)
		fields[n++] = nv("allow", request_allow(r), true);
	if (status == 415)
		fields[n++] = nv("accept-post", REQUEST_ACCEPT_POST, true);
	if (origin)
		fields[n++] = nv("access-control-allow-origin", origin, false);
	if (origin && status == 204) {
		fields[n++] = nv("access-control-allow-methods",
				 request_allow(r), true);
		fields[n++] = nv("access-control-allow-headers",
				 REQUEST_CORS_HEADERS, true);
	}
	check(n <= ANSWER_FIELDS);
	nghttp2_submit_response(call->h2->session, call->stream_id, fields, n,
				call->out.len > 0 ? &provider : NULL);
	call->responded = true;
}

void h2_call_stop_gathering(struct h2_call *call)
{
	if (list_empty(&call->in_gathering))
		return;
	list_remove(&call->in_gathering);
	call->h2->conn->resting = false;
	conn_mark_dirty(call->h2->conn);
}

static void resume(struct h2_call *call)
{
	h2_call_stop_gathering(call);
	call->gathered = 0;
	call->answered_ms = api_now(call->api);
	if (call->deferred) {
		call->deferred = false;
		nghttp2_session_resume_data(call->h2->session, call->stream_id);
	}
}

/* A stream that answers often gathers its answers for API_GATHER_MS, and its
 * connection's requests gather in the kernel: a wake-up, a read and a write for
 * each cost more than everything else that a message needs. Where nothing
 * came along with an answer, its client waits for each: then the next
 * API_GATHER_PROMPT leave at once. True if the answer stays. */
static bool gather(struct h2_call *call)
{
	struct api *api = call->api;

	if (!call->rpc.method->client_streaming || !call->deferred ||
	    call->out.len - call->out_sent >= API_GATHER_BYTES)
		return false;
	call->gathered++;
	if (!list_empty(&call->in_gathering))
		return true;
	if (call->prompt > 0) {
		call->prompt--;
		return false;
	}
	if (api_now(api) - call->answered_ms > API_GATHER_MS)
		return false;
	list_push_back(&api->gathering, &call->in_gathering);
	call->h2->conn->resting = true;
	api_gather(api);
	return true;
}

void h2_calls_gathered(struct api *api)
{
	while (!list_empty(&api->gathering)) {
		struct h2_call *call = container_of(
			api->gathering.next, struct h2_call, in_gathering);

		if (call->gathered == 1)
			call->prompt = API_GATHER_PROMPT;
		resume(call);
	}
}

/* New bytes in the queue from `before` on. */
static void h2_queued(struct h2_call *call, size_t before)
{
	struct h2 *h2 = call->h2;
	size_t bytes = call->out.len - before;

	if (h2->queued_bytes == 0)
		h2->queue_ms = api_now(call->api);
	h2->queued_bytes += bytes;
	call->api->queued_bytes += bytes;
}

static void overflow(struct h2_call *call)
{
	if (call->overflow)
		return;
	call->overflow = true;
	metric_add(&call->api->metrics, API_QUEUE_OVERFLOWS, 0, 1);
	h2_call_want_attention(call);
	conn_mark_dirty(call->h2->conn);
}

/* Whether an answer may be queued; makes room for it. */
static bool may_queue(struct h2_call *call)
{
	if (!call->stream_open || call->ended || call->overflow)
		return false;
	if (call->out_sent > 0 && call->out_sent >= call->out.len / 2) {
		buf_consume(&call->out, call->out_sent);
		call->out_sent = 0;
	}
	return true;
}

/* An answer of `n` bytes, or ERR_FULL, stands in the queue from `before` on,
 * behind room for its prefix. */
static void h2_answered(struct h2_call *call, size_t before, int n)
{
	bool framed = request_framed(&call->request);

	if (n < 0 || (size_t)n > API_ANSWER_MAX) {
		call->out.len = before;
		overflow(call);
		return;
	}
	h2_queued(call, before);
	if (framed)
		grpc_prefix(call->out.bytes + before, (size_t)n, false);
	if (call->h2->queued_bytes > API_CONNECTION_QUEUE_MAX ||
	    call->api->queued_bytes > API_QUEUES_MAX)
		overflow(call);
	if (!framed)
		return; /* the status line waits for the outcome */
	if (!call->responded)
		respond_framed(call);
	else if (gather(call))
		return;
	else
		resume(call);
	conn_mark_dirty(call->h2->conn);
}

static void h2_send(struct rpc_call *rpc, const ProtobufCMessage *m)
{
	struct h2_call *call = container_of(rpc, struct h2_call, rpc);
	size_t before;

	if (!may_queue(call))
		return;
	before = call->out.len;
	h2_answered(call, before,
		    message_encode(&call->out, m, call->request.codec,
				   request_framed(&call->request) ? GRPC_PREFIX
								  : 0));
}

static void h2_send_encoded(struct rpc_call *rpc, const struct buf *m)
{
	struct h2_call *call = container_of(rpc, struct h2_call, rpc);
	size_t before, prefix;
	uint8_t *place;

	if (!may_queue(call))
		return;
	prefix = request_framed(&call->request) ? GRPC_PREFIX : 0;
	before = call->out.len;
	place = buf_extend(&call->out, prefix + m->len);
	if (place && m->len > 0)
		memcpy(place + prefix, m->bytes, m->len);
	h2_answered(call, before, place ? (int)m->len : ERR_FULL);
}

static void drop_queue(struct h2_call *call)
{
	h2_call_unqueue(call, call->out.len - call->out_sent);
}

/* Replaces what is queued by Connect's error object. */
static void queue_error(struct h2_call *call)
{
	size_t before;

	drop_queue(call);
	before = call->out.len;
	connect_error(&call->out, call->code, call->text ? call->text : "");
	h2_queued(call, before);
}

/* Connect ends a stream with a message of its own, flag 2: the outcome. */
static void queue_end(struct h2_call *call)
{
	static const uint8_t head[GRPC_PREFIX] = {0};
	const char *text = call->text ? call->text : "";
	size_t before = call->out.len, len;
	int rv = buf_append(&call->out, head, GRPC_PREFIX);

	if (call->code == GRPC_OK) {
		rv |= buf_append(&call->out, "{}", 2);
	} else {
		rv |= buf_append(&call->out, "{\"error\":", 9);
		rv |= connect_error(&call->out, call->code, text);
		rv |= buf_append(&call->out, "}", 1);
	}
	if (rv != 0) { /* no room: the stream just ends */
		call->out.len = before;
		return;
	}
	len = call->out.len - before - GRPC_PREFIX;
	grpc_prefix(call->out.bytes + before, len, false);
	call->out.bytes[before] = 2;
	h2_queued(call, before);
}

void h2_call_end(struct h2_call *call, enum grpc_code code, const char *text)
{
	if (call->ended || !call->stream_open)
		return;
	call->ended = true;
	if (call->overflow) {
		drop_queue(call);
		code = GRPC_RESOURCE_EXHAUSTED;
		text = "answer exceeds a limit";
	}
	call->code = code;
	call->text = text[0] ? xstrdup(text) : NULL;
	if (request_framed(&call->request)) {
		if (call->request.content == CONTENT_CONNECT_STREAM)
			queue_end(call);
		if (call->responded)
			resume(call);
		else
			respond_framed(call);
	} else {
		if (code != GRPC_OK)
			queue_error(call);
		respond_http(call, code == GRPC_OK ? 200 : grpc_code_http(code),
			     code == GRPC_OK
				     ? connect_content_type(call->request.codec)
				     : "application/json");
	}
	conn_mark_dirty(call->h2->conn);
}

void h2_call_end_http(struct h2_call *call, int status)
{
	check(!call->ended && call->stream_open && !call->running);
	call->ended = true;
	call->code = GRPC_UNIMPLEMENTED;
	call->request.content = CONTENT_NONE; /* no gRPC trailers */
	if (status != 204) {
		call->text = xstrdup(http1_reason(status));
		queue_error(call);
	}
	respond_http(call, status, "application/json");
	conn_mark_dirty(call->h2->conn);
}

static void h2_finish(struct rpc_call *rpc, enum grpc_code code,
		      const char *text)
{
	struct h2_call *call = container_of(rpc, struct h2_call, rpc);

	check(call->running);
	call->running = false;
	api_call_ended(call->api);
	wheel_cancel(&call->timer.in_wheel);
	h2_call_end(call, code, text);
	h2_call_maybe_free(call);
}

static void h2_pause(struct rpc_call *rpc, bool paused)
{
	struct h2_call *call = container_of(rpc, struct h2_call, rpc);

	call->held = paused;
	if (!paused && call->paused && call->stream_open) {
		h2_call_want_attention(call);
		conn_mark_dirty(call->h2->conn);
	}
}

const struct rpc_front_ops h2_front_ops = {
	.send = h2_send,
	.send_encoded = h2_send_encoded,
	.finish = h2_finish,
	.pause = h2_pause,
};

void h2_call_maybe_free(struct h2_call *call)
{
	if (call->stream_open || call->running)
		return;
	list_remove(&call->in_session);
	list_remove(&call->in_attention);
	if (call->h2) {
		call->h2->call_count--;
		call->h2->conn->calls--;
	}
	request_fini(&call->request);
	buf_fini(&call->body);
	grpc_reader_fini(&call->reader);
	buf_fini(&call->out);
	free(call->text);
	slab_free(&call->api->h2_calls, call);
}

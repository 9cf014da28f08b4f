/* h1.c - Connect unary calls over HTTP/1.1.
 *
 * One request at a time: what a client pipelines behind it waits, bounded, in
 * `rest`. The parser holds head and body; the call lives until its handler has
 * ended it, even when the connection is gone by then.
 *
 *   READING --whole request--> running --rpc_finish--> answer in c->out
 *      ^   \--refused--> answer, close                      |
 *      '----------------- keep-alive -----------------------'
 */
#include "dispatcher/api/port.h"
#include "dispatcher/api/request.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/http1.h"

#include <stdlib.h>
#include <string.h>

#define H1_REST_MAX (256u << 10) /* pipelined bytes behind a call */

struct h1_call;

struct h1 {
	struct conn *conn;
	struct http1 *parser;
	struct buf rest;	/* input that came while a call ran */
	struct h1_call *call;	/* NULL: none is running */
	size_t behind;		/* input behind the request that is handled */
	bool last;		/* no request after this answer */
	bool continued;		/* said "100 Continue" for this request */
	uint64_t started_ms;	/* of the request; 0: none has begun */
	uint64_t head_ms;	/* its head was whole; 0: not yet */
	struct request request; /* what the head says, from then on */
	size_t held_bytes;	/* of the body, as accounted for */
};

struct h1_call {
	struct rpc_call rpc;
	struct api *api;
	struct h1 *h1; /* NULL: the connection is gone or has its answer */
	struct api_timer timer;
	struct request request;
	struct buf answer;
	bool keep_alive, overflow;
};

static const struct rpc_front_ops h1_ops;

void h1_start(struct conn *c)
{
	const struct api_limits *l = &c->api->limits;
	struct http1_limits limits = {
		.head_max = (size_t)l->head_bytes_max,
		.url_max = (size_t)l->head_bytes_max,
		.body_max = (size_t)l->message_bytes_max,
	};
	struct h1 *h1 = xcalloc(1, sizeof(*h1));

	h1->conn = c;
	h1->parser = http1_new(&limits);
	buf_init(&h1->rest, H1_REST_MAX);
	h1->started_ms = c->accepted_ms;
	c->state = h1;
	c->front = &h1_front;
}

/* --- answers ----------------------------------------------------------- */

static void respond(struct h1 *h1, const struct request *r, int status,
		    const char *type, const struct buf *body, bool keep_alive,
		    bool head)
{
	const char *origin = h1->conn->api->limits.cors_origin;
	struct buf extra;
	int rv = 0;

	/* What was sent behind it is answered too, whatever we said. */
	if (!keep_alive || (h1->conn->leaving != CLOSE_NONE &&
			    h1->rest.len == 0 && h1->behind == 0))
		h1->last = true;
	buf_init(&extra, 4096);
	if (status == 401)
		rv |= buf_printf(&extra, "WWW-Authenticate: %s\r\n",
				 REQUEST_AUTHENTICATE);
	if (status == 405 || status == 204)
		rv |= buf_printf(&extra, "Allow: %s\r\n", request_allow(r));
	if (status == 415)
		rv |= buf_printf(&extra, "Accept-Post: %s\r\n",
				 REQUEST_ACCEPT_POST);
	if (origin)
		rv |= buf_printf(&extra, "Access-Control-Allow-Origin: %s\r\n",
				 origin);
	if (origin && status == 204)
		rv |= buf_printf(&extra,
				 "Access-Control-Allow-Methods: %s\r\n"
				 "Access-Control-Allow-Headers: %s\r\n",
				 request_allow(r), REQUEST_CORS_HEADERS);
	rv |= buf_append(&extra, "", 1);
	rv |= http1_respond(&h1->conn->out, status, type,
			    rv == 0 ? (char *)extra.bytes : "", body->bytes,
			    body->len, !h1->last, head);
	buf_fini(&extra);
	if (rv != 0)
		h1->last = true; /* too much for the queue: just close */
	h1->started_ms = 0;
	h1->head_ms = 0;
	h1->continued = false;
	http1_reset(h1->parser);
	conn_mark_dirty(h1->conn);
}

static void respond_error(struct h1 *h1, const struct request *r, int status,
			  enum grpc_code code, const char *text,
			  bool keep_alive, bool head)
{
	struct buf body;

	buf_init(&body, API_ANSWER_MAX);
	if (status != 204)
		connect_error(&body, code, text);
	respond(h1, r, status, "application/json", &body, keep_alive, head);
	buf_fini(&body);
}

/* --- calls ------------------------------------------------------------- */

static void call_free(struct h1_call *call)
{
	wheel_cancel(&call->timer.in_wheel);
	request_fini(&call->request);
	buf_fini(&call->answer);
	free(call);
}

/* Gives the connection the outcome and takes the next request. */
static void call_answer(struct h1_call *call, enum grpc_code code,
			const char *text)
{
	struct h1 *h1 = call->h1;

	call->h1 = NULL;
	h1->call = NULL;
	h1->conn->calls--;
	if (call->overflow) {
		code = GRPC_RESOURCE_EXHAUSTED;
		text = "answer exceeds a limit";
	}
	if (code == GRPC_OK)
		respond(h1, &call->request, 200,
			connect_content_type(call->request.codec),
			&call->answer, call->keep_alive, false);
	else
		respond_error(h1, &call->request, grpc_code_http(code), code,
			      text, call->keep_alive, false);
}

static void h1_send(struct rpc_call *rpc, const ProtobufCMessage *m)
{
	struct h1_call *call = container_of(rpc, struct h1_call, rpc);

	buf_clear(&call->answer, 0);
	if (message_encode(&call->answer, m, call->request.codec, 0) < 0) {
		call->overflow = true;
		metric_add(&call->api->metrics, API_QUEUE_OVERFLOWS, 0, 1);
	}
}

static void h1_send_encoded(struct rpc_call *rpc, const struct buf *m)
{
	struct h1_call *call = container_of(rpc, struct h1_call, rpc);

	buf_clear(&call->answer, 0);
	if (m->len > 0 && buf_append(&call->answer, m->bytes, m->len) != 0) {
		call->overflow = true;
		metric_add(&call->api->metrics, API_QUEUE_OVERFLOWS, 0, 1);
	}
}

static void h1_finish(struct rpc_call *rpc, enum grpc_code code,
		      const char *text)
{
	struct h1_call *call = container_of(rpc, struct h1_call, rpc);

	if (call->h1)
		call_answer(call, code, text);
	api_call_ended(call->api);
	call_free(call);
}

static const struct rpc_front_ops h1_ops = {
	.send = h1_send,
	.send_encoded = h1_send_encoded,
	.finish = h1_finish,
};

static void on_deadline(struct api_timer *t)
{
	struct h1_call *call = container_of(t, struct h1_call, timer);

	call_answer(call, GRPC_DEADLINE_EXCEEDED, "deadline exceeded");
	metric_add(&call->api->metrics, API_CALLS_CANCELLED, 0, 1);
	rpc_cancel(&call->rpc, GRPC_DEADLINE_EXCEEDED);
}

static struct h1_call *call_new(struct h1 *h1, const struct request *r,
				bool keep_alive)
{
	struct h1_call *call = xcalloc(1, sizeof(*call));

	call->api = h1->conn->api;
	call->h1 = h1;
	call->request = *r; /* takes the query */
	call->keep_alive = keep_alive;
	buf_init(&call->answer, API_ANSWER_MAX);
	wheel_timer_init(&call->timer.in_wheel);
	call->timer.fire = on_deadline;
	h1->call = call;
	h1->conn->calls++;
	return call;
}

/* Decodes and hands over; the parser's request is not needed afterwards. */
static void call_start(struct h1 *h1, struct request *r,
		       const struct http1_request *q)
{
	struct api *api = h1->conn->api;
	size_t max = (size_t)api->limits.message_bytes_max;
	char why[MESSAGE_WHY_MAX];
	ProtobufCMessage *m = NULL;
	struct items *items = NULL;
	struct h1_call *call;
	enum grpc_code code;

	if (r->entry->method->on_list)
		code = request_connect_items(r, q->body, q->body_len, max,
					     &items, why);
	else
		code = request_connect_message(r, &api->arena, &api->scratch,
					       q->body, q->body_len, max, &m,
					       why);
	if (code == GRPC_OK && r->timeout_given && r->timeout_ms == 0) {
		if (items)
			items_free(items);
		else
			message_release(&api->arena);
		code = GRPC_DEADLINE_EXCEEDED;
		strcpy(why, "deadline exceeded");
	}
	if (code != GRPC_OK) {
		rpc_count(&api->table, r->entry, code);
		respond_error(h1, r, grpc_code_http(code), code, why,
			      q->keep_alive, false);
		request_fini(r);
		return;
	}
	call = call_new(h1, r, q->keep_alive);
	if (r->timeout_given)
		api_timer_arm(api, &call->timer, r->timeout_ms);
	rpc_begin(&call->rpc, r->entry, r->token, h1->conn->peer, &h1_ops);
	api_call_begun(api);
	if (items) {
		call->rpc.method->on_list(&call->rpc, items);
		return;
	}
	call->rpc.method->on_message(&call->rpc, m);
	message_release(&api->arena);
}

/* --- input ------------------------------------------------------------- */

static void read_head(struct h1 *h1, const struct http1_request *q)
{
	struct api *api = h1->conn->api;
	struct request *r = &h1->request;

	if (h1->head_ms != 0)
		return;
	h1->head_ms = api_now(api);
	request_field(r, &api->table, ":method", 7, q->method,
		      strlen(q->method));
	request_field(r, &api->table, ":path", 5, q->path, strlen(q->path));
	if (q->query[0])
		r->query = xstrdup(q->query);
	for (size_t i = 0; i < q->header_count; i++)
		request_field(r, &api->table, q->headers[i].name,
			      strlen(q->headers[i].name), q->headers[i].value,
			      strlen(q->headers[i].value));
	/* gRPC and streams need HTTP/2. */
	if (request_framed(r))
		r->content = CONTENT_NONE;
}

static void unauthenticated(struct h1 *h1, const struct request *r,
			    bool keep_alive)
{
	rpc_count(&h1->conn->api->table, r->entry, GRPC_UNAUTHENTICATED);
	respond_error(h1, r, grpc_code_http(GRPC_UNAUTHENTICATED),
		      GRPC_UNAUTHENTICATED, REQUEST_UNAUTHENTICATED, keep_alive,
		      false);
}

static void whole_request(struct h1 *h1, const struct http1_request *q)
{
	struct request r;
	int status;

	read_head(h1, q);
	r = h1->request;
	request_init(&h1->request);
	status = request_check(&r);
	if (status == 0 && request_authenticated(&r)) {
		call_start(h1, &r, q);
		return;
	}
	if (status == 0) {
		unauthenticated(h1, &r, q->keep_alive);
	} else {
		rpc_count(&h1->conn->api->table, NULL, GRPC_UNIMPLEMENTED);
		respond_error(h1, &r, status, GRPC_UNIMPLEMENTED,
			      http1_reason(status), q->keep_alive,
			      strcmp(q->method, "HEAD") == 0);
	}
	request_fini(&r);
}

static void h1_refuse(struct h1 *h1, int status, const char *why)
{
	struct request none;

	request_init(&none);
	h1->conn->linger = true;
	respond_error(h1, &none, status,
		      status == 413 ? GRPC_RESOURCE_EXHAUSTED
				    : GRPC_INVALID_ARGUMENT,
		      why, false, false);
}

/* The head may be whole before the body: let a client that waits for it go on,
 * if it may, and hear no more of one that may not. */
static void look_at_head(struct h1 *h1)
{
	const struct http1_request *q = http1_head(h1->parser);
	const char *expect;

	if (!q || h1->head_ms != 0)
		return;
	read_head(h1, q);
	if (request_check(&h1->request) == 0 &&
	    !request_authenticated(&h1->request)) {
		h1->conn->linger = true;
		unauthenticated(h1, &h1->request, false);
		return;
	}
	expect = http1_get(q, "expect");
	if (expect && !h1->continued && strcmp(expect, "100-continue") == 0) {
		h1->continued = true;
		if (buf_printf(&h1->conn->out,
			       "HTTP/1.1 100 Continue\r\n\r\n") != 0)
			h1->last = true;
	}
}

static void h1_account(struct h1 *h1, size_t held)
{
	api_body_give(h1->conn->api, h1->held_bytes);
	h1->held_bytes = 0;
	if (held == 0)
		return;
	if (api_body_take(h1->conn->api, held))
		h1->held_bytes = held;
	else
		h1_refuse(h1, 503, "too many incomplete requests");
}

/* Parses until the input ends or a call runs. Returns how much was used. */
static size_t h1_parse(struct h1 *h1, const uint8_t *bytes, size_t len)
{
	size_t at = 0;

	while (at < len && !h1->call && !h1->last) {
		const struct http1_request *q;
		size_t used = 0;
		int rv;

		if (h1->started_ms == 0)
			h1->started_ms = api_now(h1->conn->api);
		rv = http1_feed(h1->parser, bytes + at, len - at, &used, &q);
		if (rv < 0) {
			h1_account(h1, 0);
			h1_refuse(h1, http1_status(h1->parser),
				  http1_why(h1->parser));
			return len;
		}
		if (rv == 0) {
			look_at_head(h1);
			h1_account(h1,
				   h1->last ? 0 : h1->held_bytes + len - at);
			return len;
		}
		at += used;
		h1_account(h1, 0);
		h1->behind = len - at;
		whole_request(h1, q);
		h1->behind = 0;
	}
	return at;
}

static enum close_reason h1_input(struct conn *c, const uint8_t *bytes,
				  size_t len)
{
	struct h1 *h1 = c->state;
	size_t used;

	if (h1->last && !h1->call)
		return CLOSE_NONE; /* the last answer is on its way */
	used = h1->rest.len == 0 ? h1_parse(h1, bytes, len) : 0;
	if (h1->last || used == len)
		return CLOSE_NONE;
	return buf_append(&h1->rest, bytes + used, len - used) == 0
		       ? CLOSE_NONE
		       : CLOSE_ABUSE;
}

static bool h1_half_close(struct conn *c)
{
	struct h1 *h1 = c->state;
	bool busy = h1->call || c->out.len > 0 || c->write_pending;

	/* A client that has sent its request and closed its side still waits
	 * for the answer. */
	h1->last = true;
	return busy;
}

static enum close_reason h1_produce(struct conn *c)
{
	struct h1 *h1 = c->state;

	if (!h1->call && !h1->last && h1->rest.len > 0 &&
	    c->out.len < API_OUT_HIGH) {
		struct buf rest = h1->rest;
		size_t used;

		buf_init(&h1->rest, H1_REST_MAX);
		used = h1_parse(h1, rest.bytes, rest.len);
		buf_consume(&rest, used);
		h1->rest = rest;
	}
	return CLOSE_NONE;
}

static enum close_reason h1_finished(const struct conn *c)
{
	const struct h1 *h1 = c->state;

	if (!h1->last || h1->call)
		return CLOSE_NONE;
	return c->leaving != CLOSE_NONE ? c->leaving : CLOSE_DONE;
}

/* No request has begun, so that closing loses none but what is on the wire. */
static bool between_requests(const struct h1 *h1)
{
	return !h1->call && h1->started_ms == 0 && h1->rest.len == 0;
}

static void h1_drain(struct conn *c)
{
	struct h1 *h1 = c->state;

	if (between_requests(h1) && conn_quiet(c, api_now(c->api)))
		h1->last = true;
	conn_mark_dirty(c);
}

static enum close_reason h1_sweep(struct conn *c, uint64_t now_ms)
{
	struct h1 *h1 = c->state;
	const struct api_limits *l = &c->api->limits;

	if (h1->last || h1->call)
		return CLOSE_NONE;
	if (c->leaving != CLOSE_NONE)
		h1_drain(c);
	if (h1->started_ms == 0)
		return CLOSE_NONE;
	if (h1->head_ms == 0 && now_ms - h1->started_ms >= l->head_timeout_ms)
		return CLOSE_HEAD_TIMEOUT;
	if (h1->head_ms != 0 && now_ms - h1->head_ms >= l->body_timeout_ms)
		return CLOSE_BODY_TIMEOUT;
	return CLOSE_NONE;
}

static void h1_free(struct conn *c)
{
	struct h1 *h1 = c->state;
	struct h1_call *call = h1->call;

	h1_account(h1, 0);
	request_fini(&h1->request);
	http1_free(h1->parser);
	buf_fini(&h1->rest);
	free(h1);
	c->state = NULL;
	if (!call)
		return;
	call->h1 = NULL;
	wheel_cancel(&call->timer.in_wheel);
	metric_add(&call->api->metrics, API_CALLS_CANCELLED, 0, 1);
	rpc_cancel(&call->rpc, GRPC_CANCELLED);
}

const struct conn_front h1_front = {
	.input = h1_input,
	.half_close = h1_half_close,
	.produce = h1_produce,
	.finished = h1_finished,
	.sweep = h1_sweep,
	.drain = h1_drain,
	.free = h1_free,
};

/* A connection reads, answers one request at a time, and reads on:
 *
 *   READING --request--> WRITING --taken, keep-alive--> READING
 *                           |
 *                           '--taken, last answer--> LINGERING --> closed
 *
 * What a client sends while an answer is being written stays in the kernel or
 * in `in`, so pipelining costs no memory. LINGERING means: our half is shut,
 * the client's is read and thrown away until it ends. Without it the reset
 * that close() sends over unread bytes would overtake the answer.
 *
 * Connections are kept in the order of their last change of state, oldest
 * first. One timer looks every CHECK_MS for those past their deadline.
 */
#include "common/io/admin.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/ds/buf.h"
#include "common/ds/list.h"
#include "common/io/listener.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define INPUT_MAX	4096
#define HEAD_MAX	(8u << 10) /* of a request or an answer */
#define ALLOW_MAX	128
#define CHECK_MS	100
#define IDLE_TIMES	6 /* an idle connection may stay so many timeouts */
#define USER_TIMEOUT_MS 10000

static const struct http1_limits limits = {
	.head_max = HEAD_MAX, .url_max = 4 << 10, .body_max = 64 << 10};

enum conn_state { CONN_READING, CONN_WRITING, CONN_LINGERING, CONN_CLOSING };

struct conn {
	struct list in_admin;
	struct admin *admin;
	uv_tcp_t tcp;
	uv_write_t write;
	uv_shutdown_t shutdown;
	enum conn_state state;
	uint64_t since_ms; /* of the state, or of the request's first byte */
	bool keep_alive;   /* after the answer being written */
	bool local;	   /* it comes from this machine */
	struct http1 *parser;
	struct buf answer;
	size_t in_pos, in_len;
	char in[INPUT_MAX];
};

struct admin {
	uv_loop_t *loop;
	struct listener listener;
	uv_timer_t timer;
	bool closing;
	unsigned open; /* handles of its own that are not closed yet */
	uint64_t timeout_ms;
	const struct admin_route *routes;
	void *ctx;
	struct auth *auth;
	bool metrics_open;
	unsigned count;
	struct list conns;
};

static void conn_advance(struct conn *c);

/* --- the end of a connection ------------------------------------------- */

static void admin_maybe_closed(struct admin *a)
{
	if (a->closing && a->open == 0 && a->count == 0)
		free(a);
}

static void on_conn_closed(uv_handle_t *handle)
{
	struct conn *c = handle->data;
	struct admin *a = c->admin;

	list_remove(&c->in_admin);
	a->count--;
	http1_free(c->parser);
	buf_fini(&c->answer);
	free(c);
	admin_maybe_closed(a);
}

static void conn_close(struct conn *c)
{
	if (c->state == CONN_CLOSING)
		return;
	c->state = CONN_CLOSING;
	uv_close((uv_handle_t *)&c->tcp, on_conn_closed);
}

static void conn_move(struct conn *c, enum conn_state state)
{
	c->state = state;
	c->since_ms = uv_now(c->admin->loop);
	list_remove(&c->in_admin);
	list_push_back(&c->admin->conns, &c->in_admin);
}

/* --- answers ----------------------------------------------------------- */

static void on_shut_down(uv_shutdown_t *req, int status)
{
	struct conn *c = req->data;

	if (status < 0)
		conn_close(c);
}

static void on_alloc(uv_handle_t *handle, size_t size UNUSED, uv_buf_t *buf)
{
	struct conn *c = handle->data;

	*buf = uv_buf_init(c->in, sizeof(c->in));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf UNUSED)
{
	struct conn *c = stream->data;

	if (n < 0) {
		conn_close(c);
		return;
	}
	if (c->state == CONN_LINGERING || n == 0)
		return;
	if (!http1_started(c->parser))
		c->since_ms = uv_now(c->admin->loop);
	c->in_pos = 0;
	c->in_len = (size_t)n;
	conn_advance(c);
}

static void conn_read(struct conn *c)
{
	int status = uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_read);

	if (status < 0 && status != UV_EALREADY)
		conn_close(c);
}

static void conn_linger(struct conn *c)
{
	conn_move(c, CONN_LINGERING);
	c->shutdown.data = c;
	if (uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, on_shut_down) < 0)
		conn_close(c);
	else
		conn_read(c);
}

static void on_written(uv_write_t *req, int status)
{
	struct conn *c = req->data;

	if (c->state == CONN_CLOSING)
		return;
	if (status < 0) {
		conn_close(c);
		return;
	}
	buf_clear(&c->answer, INPUT_MAX);
	if (!c->keep_alive || c->admin->closing) {
		conn_linger(c);
		return;
	}
	http1_reset(c->parser);
	conn_move(c, CONN_READING);
	conn_advance(c);
}

static void conn_write(struct conn *c)
{
	uv_buf_t buf =
		uv_buf_init((char *)c->answer.bytes, (unsigned)c->answer.len);

	conn_move(c, CONN_WRITING);
	uv_read_stop((uv_stream_t *)&c->tcp);
	c->write.data = c;
	if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &buf, 1, on_written) <
	    0)
		conn_close(c);
}

/* A short answer of our own; the connection ends with it unless `keep`. */
static void conn_refuse(struct conn *c, int status, const char *why,
			const char *headers, bool keep, bool head)
{
	char text[256];
	int len = snprintf(text, sizeof(text), "%s\n", why);

	c->keep_alive = keep;
	check(len > 0 && (size_t)len < sizeof(text));
	check(http1_respond(&c->answer, status, "text/plain; charset=utf-8",
			    headers, text, (size_t)len, keep, head) == 0);
	conn_write(c);
}

/* --- routes ------------------------------------------------------------ */

static bool method_fits(const struct admin_route *route, const char *method)
{
	return strcmp(route->method, method) == 0 ||
	       (strcmp(method, "HEAD") == 0 &&
		strcmp(route->method, "GET") == 0);
}

/* The route, or NULL, and then `allow` is a header with the methods that the
 * path does have, "" if there is no such path. */
static const struct admin_route *find_route(const struct admin_route *routes,
					    const struct http1_request *request,
					    char allow[ALLOW_MAX])
{
	size_t len = 0;

	allow[0] = '\0';
	for (const struct admin_route *r = routes; r->path != NULL; r++) {
		int n;

		if (strcmp(r->path, request->path) != 0)
			continue;
		if (method_fits(r, request->method))
			return r;
		n = snprintf(allow + len, ALLOW_MAX - len, "%s%s%s",
			     len == 0 ? "Allow: " : ", ", r->method,
			     strcmp(r->method, "GET") == 0 ? ", HEAD" : "");
		check(n > 0 && (size_t)n < ALLOW_MAX - len - 2);
		len += (size_t)n;
	}
	if (len > 0)
		memcpy(allow + len, "\r\n", 3);
	return NULL;
}

static bool is_open(const struct admin *a, const struct admin_route *route)
{
	return route->access == ADMIN_OPEN ||
	       (route->access == ADMIN_METRICS && a->metrics_open);
}

/* 0: it may; else the status that says it may not. */
static int conn_refusal(const struct conn *c, const struct admin_route *route,
			const struct http1_request *request)
{
	struct auth *auth = c->admin->auth;
	const char *value;
	struct auth_token *token;
	bool may;

	if (auth == NULL || c->local ||
	    (route != NULL && is_open(c->admin, route)))
		return 0;
	value = http1_get(request, "authorization");
	if (value == NULL || strncasecmp(value, "Bearer ", 7) != 0)
		return 401;
	value += 7 + strspn(value + 7, " ");
	if (auth_check(auth, value, strlen(value), &token) != TOKEN_OK)
		return 401;
	may = token->claims->admin;
	auth_token_release(auth, token);
	return may ? 0 : 403;
}

static void conn_answer(struct conn *c, const struct http1_request *request)
{
	struct admin *a = c->admin;
	struct admin_reply reply = {200, "text/plain; charset=utf-8", "", {0}};
	bool head = strcmp(request->method, "HEAD") == 0;
	char allow[ALLOW_MAX];
	const struct admin_route *route = find_route(a->routes, request, allow);
	int refusal = conn_refusal(c, route, request);

	if (refusal != 0) {
		bool unknown = refusal == 401;

		conn_refuse(c, refusal,
			    unknown ? "a token is needed"
				    : "the token does not allow this",
			    unknown ? "WWW-Authenticate: Bearer\r\n" : "",
			    request->keep_alive, head);
		return;
	}
	if (route == NULL) {
		bool known = allow[0] != '\0';

		conn_refuse(c, known ? 405 : 404,
			    known ? "method not allowed" : "no such path",
			    allow, request->keep_alive, head);
		return;
	}
	c->keep_alive = request->keep_alive;
	buf_init(&reply.body, ADMIN_ANSWER_MAX);
	route->handle(a->ctx, request, &reply);
	/* A full body leaves room for any head that a handler may ask for. */
	check(http1_respond(&c->answer, reply.status, reply.content_type,
			    reply.headers, reply.body.bytes, reply.body.len,
			    c->keep_alive, head) == 0);
	conn_write(c);
	buf_fini(&reply.body);
}

/* Uses what has been read; reads on when that makes no whole request. */
static void conn_advance(struct conn *c)
{
	const struct http1_request *request = NULL;
	size_t used = 0;
	int rc = 0;

	check(c->state == CONN_READING);
	if (c->in_pos < c->in_len) {
		rc = http1_feed(c->parser, c->in + c->in_pos,
				c->in_len - c->in_pos, &used, &request);
		c->in_pos = rc == 0 ? c->in_len : c->in_pos + used;
	}
	if (rc > 0)
		conn_answer(c, request);
	else if (rc < 0)
		conn_refuse(c, http1_status(c->parser), http1_why(c->parser),
			    "", false, false);
	else
		conn_read(c);
}

/* --- connections come -------------------------------------------------- */

static bool conn_idle(const struct conn *c)
{
	return c->state == CONN_LINGERING ||
	       (c->state == CONN_READING && !http1_started(c->parser));
}

/* Makes room by closing the connection that has been idle longest. */
static bool admin_make_room(struct admin *a)
{
	unsigned closing = 0;

	if (a->count < ADMIN_CONNECTIONS_MAX)
		return true;
	list_for_each (node, &a->conns) {
		struct conn *c = container_of(node, struct conn, in_admin);

		if (c->state == CONN_CLOSING)
			closing++;
	}
	/* Those being closed go within this turn of the loop. */
	if (a->count - closing < ADMIN_CONNECTIONS_MAX)
		return true;
	list_for_each (node, &a->conns) {
		struct conn *c = container_of(node, struct conn, in_admin);

		if (conn_idle(c)) {
			conn_close(c);
			return true;
		}
	}
	return false;
}

static bool is_local(const uv_tcp_t *tcp)
{
	static const uint8_t mapped[12] = {[10] = 0xff, 0xff};
	struct sockaddr_storage peer;
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)&peer;
	const struct in6_addr *v6 =
		&((const struct sockaddr_in6 *)&peer)->sin6_addr;
	int len = sizeof(peer);

	if (uv_tcp_getpeername(tcp, (struct sockaddr *)&peer, &len) != 0)
		return false;
	if (peer.ss_family == AF_INET)
		return ntohl(v4->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
	if (memcmp(v6, mapped, sizeof(mapped)) == 0)
		return v6->s6_addr[12] == IN_LOOPBACKNET;
	return IN6_IS_ADDR_LOOPBACK(v6);
}

static void on_accept(struct listener *l)
{
	struct admin *a = l->ctx;
	struct conn *c;

	if (!admin_make_room(a)) {
		log_warn("ADMIN-FULL", "connections=%u", a->count);
		return;
	}
	c = xcalloc(1, sizeof(*c));
	c->admin = a;
	list_init(&c->in_admin);
	check(uv_tcp_init(a->loop, &c->tcp) == 0);
	c->tcp.data = c;
	c->parser = http1_new(&limits);
	buf_init(&c->answer, ADMIN_ANSWER_MAX + HEAD_MAX);
	a->count++;
	conn_move(c, CONN_READING);
	if (listener_take(l, &c->tcp) < 0) {
		conn_close(c);
		return;
	}
	c->local = is_local(&c->tcp);
	conn_read(c);
}

/* --- time -------------------------------------------------------------- */

static void conn_check(struct conn *c, uint64_t now_ms)
{
	uint64_t timeout_ms = c->admin->timeout_ms;
	bool idle = c->state == CONN_READING && !http1_started(c->parser);

	if (idle)
		timeout_ms *= IDLE_TIMES;
	if (c->state == CONN_CLOSING || now_ms - c->since_ms < timeout_ms)
		return;
	if (c->state == CONN_READING && !idle)
		conn_refuse(c, 408, "the request took too long", "", false,
			    false);
	else
		conn_close(c);
}

static void on_timer(uv_timer_t *timer)
{
	struct admin *a = timer->data;
	struct list all;

	/* A check may move a connection to the end of the list. */
	list_init(&all);
	list_splice_back(&all, &a->conns);
	list_for_each_safe (node, &all) {
		list_remove(node);
		list_push_back(&a->conns, node);
		conn_check(container_of(node, struct conn, in_admin),
			   uv_now(a->loop));
	}
}

/* --- the whole --------------------------------------------------------- */

int admin_start(uv_loop_t *loop, const char *address,
		const struct admin_route *routes, void *ctx, struct auth *auth,
		struct admin **out)
{
	const struct listener_options options = {.user_timeout_ms =
							 USER_TIMEOUT_MS};
	struct admin *a = xcalloc(1, sizeof(*a));
	int err;

	a->loop = loop;
	a->routes = routes;
	a->ctx = ctx;
	a->auth = auth;
	a->timeout_ms = ADMIN_TIMEOUT_MS;
	list_init(&a->conns);
	err = listener_start(&a->listener, loop, address, &options, on_accept,
			     a);
	if (err < 0) {
		free(a);
		return err;
	}
	check(uv_timer_init(loop, &a->timer) == 0);
	a->timer.data = a;
	check(uv_timer_start(&a->timer, on_timer, CHECK_MS, CHECK_MS) == 0);
	a->open = 2;
	*out = a;
	return 0;
}

uint16_t admin_port(const struct admin *a)
{
	return a->listener.port;
}

void admin_open_metrics(struct admin *a)
{
	a->metrics_open = true;
}

void admin_set_timeout(struct admin *a, uint64_t timeout_ms)
{
	a->timeout_ms = timeout_ms;
}

static void on_listener_closed(struct listener *l)
{
	struct admin *a = l->ctx;

	a->open--;
	admin_maybe_closed(a);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct admin *a = handle->data;

	a->open--;
	admin_maybe_closed(a);
}

void admin_close(struct admin *a)
{
	if (a->closing)
		return;
	a->closing = true;
	listener_close(&a->listener, on_listener_closed);
	uv_close((uv_handle_t *)&a->timer, on_timer_closed);
	list_for_each (node, &a->conns)
		conn_close(container_of(node, struct conn, in_admin));
}

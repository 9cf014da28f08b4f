/* conn.c - one connection of the API port: socket, output, clocks. */
#include "dispatcher/api/port.h"

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define H2_PREFACE_LEN 24

static const char h2_preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

static void conn_on_alloc(uv_handle_t *h, size_t suggested UNUSED, uv_buf_t *b)
{
	struct conn *c = h->data;

	*b = uv_buf_init((char *)c->api->read_bytes, API_READ_BYTES);
	if (c->api->tls && !c->tls)
		b->len = HANDSHAKES_FIRST;
}

static enum close_reason sniff(struct conn *c, const uint8_t *bytes, size_t len)
{
	size_t held = c->sniffed_len;
	size_t n = min_of(len, H2_PREFACE_LEN - held);
	bool h2 = memcmp(bytes, &h2_preface[held], n) == 0;
	enum close_reason reason;

	if (h2 && held + n < H2_PREFACE_LEN) {
		memcpy(c->sniffed + held, bytes, n);
		c->sniffed_len += n;
		return CLOSE_NONE;
	}
	if (h2)
		h2_start(c);
	else
		h1_start(c);
	if (held > 0) {
		reason = c->front->input(c, c->sniffed, held);
		if (reason != CLOSE_NONE)
			return reason;
	}
	return c->front->input(c, bytes, len);
}

enum close_reason conn_input(struct conn *c, const uint8_t *bytes, size_t len)
{
	return c->front ? c->front->input(c, bytes, len) : sniff(c, bytes, len);
}

void conn_eof(struct conn *c)
{
	c->half_closed = true;
	uv_read_stop((uv_stream_t *)&c->tcp);
	c->reading = false;
	if (c->front && c->front->half_close(c))
		conn_mark_dirty(c);
	else
		conn_close(c, CLOSE_PEER);
}

void conn_settle(struct conn *c, enum close_reason reason)
{
	if (reason != CLOSE_NONE)
		conn_close(c, reason);
	else
		conn_mark_dirty(c);
}

static void conn_on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *b)
{
	struct conn *c = s->data;
	uint8_t *bytes = (uint8_t *)b->base;

	if (n == 0)
		return;
	if (n == UV_EOF) {
		conn_eof(c);
		return;
	}
	if (n < 0) {
		conn_close(c, CLOSE_PEER);
		return;
	}
	c->input_ms = api_now(c->api);
	list_remove(&c->in_silent);
	conn_settle(c, c->api->tls ? conn_tls_input(c, bytes, (size_t)n)
				   : conn_input(c, bytes, (size_t)n));
	/* There is more, and libuv would read up to 2 MiB of it now. It is the
	 * others' turn; the flush makes it go on in the next. */
	if ((size_t)n == b->len && c->reading && !c->closing) {
		uv_read_stop(s);
		c->reading = false;
	}
}

/* While a peer takes nothing, it is not asked for more. */
static void update_reading(struct conn *c)
{
	bool want = !c->half_closed && !c->resting &&
		    c->handshake.state != HANDSHAKE_WAITS &&
		    c->out.len < API_OUT_HIGH;

	if (want == c->reading)
		return;
	if (want)
		want = uv_read_start((uv_stream_t *)&c->tcp, conn_on_alloc,
				     conn_on_read) == 0;
	else
		uv_read_stop((uv_stream_t *)&c->tcp);
	c->reading = want;
}

static void on_refused_closed(uv_handle_t *h)
{
	free(h->data);
}

static void refuse(struct api *api, struct conn *c, enum api_reject why)
{
	metric_add(&api->metrics, API_CONNECTIONS_REJECTED, why, 1);
	limits_leave(&api->addresses, c->address);
	uv_close((uv_handle_t *)&c->tcp, on_refused_closed);
}

static uint64_t conn_jittered(uint64_t ms)
{
	return ms == 0 ? 0 : ms - ms / 10 + random_below(ms / 5 + 1);
}

static bool enter(struct api *api, struct conn *c)
{
	struct sockaddr_storage peer;
	int len = sizeof(peer);

	/* It may be gone already; reading will tell. */
	if (uv_tcp_getpeername(&c->tcp, (struct sockaddr *)&peer, &len) != 0)
		return true;
	return limits_enter(&api->addresses, (struct sockaddr *)&peer,
			    &c->address);
}

/* Who says nothing must not keep others out; but everybody has the time to
 * begin, and what has just come may not have been read. */
static bool conn_make_way(struct api *api)
{
	struct conn *oldest;

	if (api->connection_count < api->limits.connections_max)
		return true;
	if (list_empty(&api->silent))
		return false;
	oldest = container_of(api->silent.next, struct conn, in_silent);
	if (api_now(api) - oldest->accepted_ms < API_SILENT_MS)
		return false;
	conn_close(oldest, CLOSE_MADE_WAY);
	return true;
}

static bool conn_admit(struct api *api, struct conn *c, enum api_reject *why)
{
	*why = API_REJECT_FAILED;
	if (listener_take(&api->listener, &c->tcp) != 0)
		return false;
	/* Nobody makes way for one that is refused for another reason. */
	*why = API_REJECT_ADDRESS;
	if (!enter(api, c))
		return false;
	*why = API_REJECT_FULL;
	if (!conn_make_way(api))
		return false;
	*why = API_REJECT_FAILED;
	return uv_read_start((uv_stream_t *)&c->tcp, conn_on_alloc,
			     conn_on_read) == 0;
}

void conn_accept(struct api *api)
{
	struct conn *c = xcalloc(1, sizeof(*c));
	enum api_reject why;
	int rv;

	c->api = api;
	rv = uv_tcp_init(api->loop, &c->tcp);
	check(rv == 0);
	c->tcp.data = c;
	if (!conn_admit(api, c, &why)) {
		refuse(api, c, why);
		return;
	}
	uv_tcp_nodelay(&c->tcp, 1);
	uv_tcp_keepalive(&c->tcp, 1, API_KEEPALIVE_S);
	c->reading = true;
	list_init(&c->in_dirty);
	c->peer = rpc_peer_new();
	list_push_back(&api->connections, &c->in_api);
	list_push_back(&api->silent, &c->in_silent);
	buf_init(&c->out, CONN_OUT_MAX);
	buf_init(&c->writing, CONN_OUT_MAX + TLS_OVERHEAD_MAX);
	c->accepted_ms = c->input_ms = c->progress_ms = api_now(api);
	c->age_max_ms = conn_jittered(api->limits.connection_age_ms);
	api->connection_count++;
	metric_add(&api->metrics, API_CONNECTIONS_ACCEPTED, 0, 1);
	if (api->draining)
		conn_leave(c, CLOSE_DONE);
}

void conn_mark_dirty(struct conn *c)
{
	if (!c->closing && list_empty(&c->in_dirty))
		list_push_back(&c->api->dirty, &c->in_dirty);
}

static void conn_on_written(uv_write_t *w, int status)
{
	struct conn *c = w->data;

	c->write_pending = false;
	buf_clear(&c->writing, CONN_OUT_KEEP);
	if (c->closing)
		return;
	if (status != 0) {
		conn_close(c, CLOSE_PEER);
		return;
	}
	c->progress_ms = api_now(c->api);
	conn_mark_dirty(c);
}

void conn_write_rest(struct conn *c)
{
	uv_buf_t b =
		uv_buf_init((char *)c->writing.bytes, (unsigned)c->writing.len);

	c->write.data = c;
	c->write_pending = true;
	if (uv_write(&c->write, (uv_stream_t *)&c->tcp, &b, 1,
		     conn_on_written) != 0) {
		c->write_pending = false;
		conn_close(c, CLOSE_PEER);
	}
}

/* Writes `out`; false when the kernel takes no more for now. */
static bool write_out(struct conn *c)
{
	uv_buf_t b = uv_buf_init((char *)c->out.bytes, (unsigned)c->out.len);
	int n = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
	struct buf empty;

	if (n < 0 && n != UV_EAGAIN) {
		conn_close(c, CLOSE_PEER);
		return false;
	}
	if (n > 0)
		c->progress_ms = api_now(c->api);
	if (n == (int)c->out.len) {
		buf_clear(&c->out, CONN_OUT_KEEP);
		return true;
	}
	if (n > 0)
		buf_consume(&c->out, (size_t)n);
	/* The rest, which the kernel did not take at once. */
	empty = c->writing;
	c->writing = c->out;
	c->out = empty;
	conn_write_rest(c);
	return false;
}

/* All is said. */
static void conn_finish(struct conn *c, enum close_reason why)
{
	uv_os_fd_t fd;

	if (c->tls)
		conn_tls_goodbye(c);
	/* A peer that says nothing while it is asked to leave has nothing on
	 * the wire that could reset the connection. */
	if (!c->linger || c->half_closed ||
	    (c->leaving != CLOSE_NONE && c->input_ms < c->leaving_ms) ||
	    uv_fileno((uv_handle_t *)&c->tcp, &fd) != 0) {
		conn_close(c, why);
		return;
	}
	c->linger_ms = api_now(c->api);
	c->ended = why;
	shutdown(fd, SHUT_WR);
	update_reading(c);
}

static bool has_output(struct conn *c)
{
	return c->out.len > 0 || (c->tls && conn_tls_pending(c));
}

void conn_flush(struct conn *c)
{
	enum close_reason why = CLOSE_NONE;

	list_remove(&c->in_dirty);
	if (c->ended != CLOSE_NONE)
		return;
	while (!c->closing) {
		if (c->front)
			why = c->front->produce(c);
		if (why != CLOSE_NONE) {
			conn_close(c, why);
			return;
		}
		if (!has_output(c) || c->write_pending ||
		    !(c->tls ? conn_tls_write(c) : write_out(c)))
			break;
	}
	if (c->closing)
		return;
	if (c->front && c->out.len == 0 && !c->write_pending)
		why = c->front->finished(c);
	if (why != CLOSE_NONE)
		conn_finish(c, why);
	else
		update_reading(c);
}

void conn_leave(struct conn *c, enum close_reason why)
{
	if (c->leaving == CLOSE_NONE) {
		c->leaving = why;
		c->leaving_ms = api_now(c->api);
		c->linger |= why == CLOSE_DONE;
	}
	if (c->front)
		c->front->drain(c);
}

bool conn_quiet(const struct conn *c, uint64_t now_ms)
{
	const struct api *api = c->api;

	if (api->draining)
		return now_ms - max_of(c->input_ms, api->drain_ms) >=
		       API_DRAIN_IDLE_MS;
	return c->leaving == CLOSE_IDLE_TIMEOUT ||
	       (c->leaving != CLOSE_NONE &&
		now_ms - c->input_ms >= API_AGE_IDLE_MS);
}

/* A clock that has run out: the connection ends at once. */
static enum close_reason overdue(struct conn *c, uint64_t now_ms)
{
	const struct api_limits *l = &c->api->limits;

	if (c->api->draining && now_ms >= c->api->cut_ms)
		return CLOSE_CUT;
	if (c->ended != CLOSE_NONE)
		return now_ms - c->linger_ms >= API_LINGER_MS ? c->ended
							      : CLOSE_NONE;
	if ((c->write_pending || c->out.len > 0) &&
	    now_ms - c->progress_ms >= l->write_timeout_ms)
		return CLOSE_WRITE_TIMEOUT;
	/* It was asked to leave and does not say a word. */
	if (c->leaving == CLOSE_IDLE_TIMEOUT && c->calls == 0 &&
	    now_ms - c->leaving_ms >= 2 * API_GOAWAY_WAIT_MS)
		return CLOSE_IDLE_TIMEOUT;
	if (c->front)
		return c->front->sweep(c, now_ms);
	if (conn_quiet(c, now_ms))
		return c->leaving;
	return now_ms - c->accepted_ms >= l->head_timeout_ms
		       ? CLOSE_HEAD_TIMEOUT
		       : CLOSE_NONE;
}

void conn_sweep(struct conn *c, uint64_t now_ms)
{
	enum close_reason reason = overdue(c, now_ms);

	if (reason != CLOSE_NONE) {
		conn_close(c, reason);
		return;
	}
	if (c->leaving != CLOSE_NONE)
		return;
	if (c->calls == 0 &&
	    now_ms - c->input_ms >= c->api->limits.idle_timeout_ms)
		conn_leave(c, CLOSE_IDLE_TIMEOUT);
	else if (c->age_max_ms > 0 && now_ms - c->accepted_ms >= c->age_max_ms)
		conn_leave(c, CLOSE_DONE);
}

static void conn_on_closed(uv_handle_t *h)
{
	struct conn *c = h->data;
	struct api *api = c->api;

	limits_leave(&api->addresses, c->address);
	buf_fini(&c->out);
	buf_fini(&c->writing);
	tls_free(c->tls);
	rpc_peer_release(c->peer);
	free(c);
	api_connection_gone(api);
}

void conn_close(struct conn *c, enum close_reason reason)
{
	if (c->closing)
		return;
	c->closing = true;
	if (c->ended != CLOSE_NONE)
		reason = c->ended;
	metric_add(&c->api->metrics, API_CONNECTIONS_CLOSED, reason - 1, 1);
	if (c->api->tls)
		conn_tls_closing(c, reason);
	list_remove(&c->in_dirty);
	list_remove(&c->in_api);
	list_remove(&c->in_silent);
	if (c->front)
		c->front->free(c);
	uv_close((uv_handle_t *)&c->tcp, conn_on_closed);
}

/* conn_tls.c - a connection's bytes where the API port speaks TLS.
 *
 *	socket --> conn_tls_input() --plain--> the front's input
 *	c->out --> conn_tls_write() --encrypted--> socket, or c->writing
 *
 * Handshakes are begun a few a turn, and at most tls_handshakes_max are under
 * way (handshakes.h). A handshake must be over within head_timeout_ms of the
 * accept, which is so because no front begins before the first plain bytes.
 * Connections that shake hands count as all others, up to connections_max.
 * Memory: tls.h, from the hello on; while an answer is written, its encrypted
 * bytes too.
 */
#include "dispatcher/api/port.h"

#include "common/base/err.h"

#include <stdlib.h>

static void conn_tls_count(struct conn *c, enum tls_outcome outcome)
{
	handshakes_end(&c->api->handshakes, &c->handshake);
	metric_add(&c->api->metrics, API_TLS_HANDSHAKES, outcome, 1);
}

static void conn_tls_begin(struct conn *c)
{
	struct handshake *oldest = handshakes_surplus(&c->api->handshakes);

	if (oldest)
		conn_close(container_of(oldest, struct conn, handshake),
			   CLOSE_ABUSE);
	c->tls = tls_new(c->api->tls, CONN_OUT_MAX);
}

/* What is pending, if the kernel takes it: an alert before the end. */
static void send_last(struct conn *c)
{
	const uint8_t *bytes;
	size_t len = tls_pending(c->tls, &bytes);
	uv_buf_t b = uv_buf_init((char *)bytes, (unsigned)len);

	if (len > 0 && !c->write_pending &&
	    uv_try_write((uv_stream_t *)&c->tcp, &b, 1) >= 0)
		tls_sent(c->tls, len);
}

/* The client's first bytes; false: they wait. */
static bool conn_tls_arrive(struct conn *c, const uint8_t *bytes, size_t len)
{
	if (!handshakes_arrive(&c->api->handshakes, &c->handshake, bytes,
			       len)) {
		uv_read_stop((uv_stream_t *)&c->tcp);
		c->reading = false;
		return false;
	}
	conn_tls_begin(c);
	return true;
}

static enum close_reason input(struct conn *c, const uint8_t *bytes, size_t len)
{
	bool was_established = tls_established(c->tls);
	enum close_reason reason;
	int n = tls_feed(c->tls, bytes, len);

	if (!was_established && tls_established(c->tls))
		conn_tls_count(c, TLS_HANDSHAKE_OK);
	if (n == 0) {
		while ((n = tls_read(c->tls, c->api->plain, API_PLAIN_BYTES)) >
		       0) {
			reason = conn_input(c, c->api->plain, (size_t)n);
			if (reason != CLOSE_NONE)
				return reason;
		}
	}
	if (n == ERR_CLOSED) {
		conn_eof(c);
	} else if (n != 0) {
		send_last(c);
		return CLOSE_PROTOCOL;
	}
	return CLOSE_NONE;
}

enum close_reason conn_tls_input(struct conn *c, const uint8_t *bytes,
				 size_t len)
{
	if (!c->tls && !conn_tls_arrive(c, bytes, len))
		return CLOSE_NONE;
	return input(c, bytes, len);
}

bool conn_tls_turn(struct api *api)
{
	struct handshake *next;
	char *first;
	size_t len;

	handshakes_turn(&api->handshakes);
	while ((next = handshakes_next(&api->handshakes, &first, &len))) {
		struct conn *c = container_of(next, struct conn, handshake);

		conn_tls_begin(c);
		conn_settle(c, input(c, (uint8_t *)first, len));
		free(first);
	}
	return !list_empty(&api->handshakes.waiting);
}

bool conn_tls_pending(struct conn *c)
{
	const uint8_t *bytes;

	return tls_pending(c->tls, &bytes) > 0;
}

/* Moves what is pending to c->writing: while libuv writes, more may come. */
static void write_rest(struct conn *c)
{
	const uint8_t *bytes;
	size_t len = tls_pending(c->tls, &bytes);

	if (buf_append(&c->writing, bytes, len) != 0) {
		conn_close(c, CLOSE_ABUSE);
		return;
	}
	tls_sent(c->tls, len);
	conn_write_rest(c);
}

bool conn_tls_write(struct conn *c)
{
	const uint8_t *bytes;
	size_t len;
	uv_buf_t b;
	int n;

	if (c->out.len > 0 &&
	    tls_write(c->tls, c->out.bytes, c->out.len) != 0) {
		/* It made TLS itself say more than it has taken. */
		conn_close(c, CLOSE_ABUSE);
		return false;
	}
	buf_clear(&c->out, CONN_OUT_KEEP);
	len = tls_pending(c->tls, &bytes);
	b = uv_buf_init((char *)bytes, (unsigned)len);
	n = uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
	if (n < 0 && n != UV_EAGAIN) {
		conn_close(c, CLOSE_PEER);
		return false;
	}
	if (n > 0) {
		c->progress_ms = api_now(c->api);
		tls_sent(c->tls, (size_t)n);
	}
	if (n == (int)len)
		return true;
	write_rest(c);
	return false;
}

void conn_tls_goodbye(struct conn *c)
{
	tls_close_notify(c->tls);
	send_last(c);
}

void conn_tls_closing(struct conn *c, enum close_reason reason)
{
	if (!c->tls || !tls_established(c->tls))
		conn_tls_count(c, reason == CLOSE_PROTOCOL
					  ? TLS_HANDSHAKE_FAILED
					  : TLS_HANDSHAKE_UNFINISHED);
}

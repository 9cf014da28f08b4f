#include "connnode/stream/session_tls.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "connnode/stream/session_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define RECORD_BYTES (16u << 10) /* most plain bytes of a TLS record */

/* --- the port ---------------------------------------------------------- */

static void show_expiry(struct sessions *all)
{
	all->tls.expires_s = tls_context_expires(all->tls.context);
}

int session_tls_start(struct sessions *all, const struct tls_files *files,
		      uint64_t handshakes_max)
{
	char fault[TLS_FAULT];
	int rc;

	handshakes_init(&all->tls.handshakes, handshakes_max);
	if (files->cert == NULL)
		return 0;
	rc = tls_context_new(files, &all->tls.context, fault);
	if (rc != 0) {
		log_error("TLS", "fault=\"%s\"", fault);
		return rc;
	}
	all->tls.refreshed_ms = sessions_now(all);
	show_expiry(all);
	return 0;
}

void session_tls_refresh(struct sessions *all)
{
	if (all->tls.context == NULL)
		return;
	all->tls.refreshed_ms = sessions_now(all);
	if (tls_context_refresh(all->tls.context))
		show_expiry(all);
}

void session_tls_tick(struct sessions *all)
{
	if (sessions_now(all) - all->tls.refreshed_ms >= TLS_REFRESH_MS)
		session_tls_refresh(all);
}

/* --- handshakes -------------------------------------------------------- */

/* The handshake is over, one way or the other; counts it once. */
static void settle(struct session_tls *st, enum tls_outcome outcome)
{
	struct sessions *all = st->session->all;

	if (handshakes_end(&all->tls.handshakes, &st->handshake))
		metric_add(all->metrics, NM_TLS_HANDSHAKES, outcome, 1);
}

static void cut_oldest(struct sessions *all)
{
	struct handshake *oldest = handshakes_surplus(&all->tls.handshakes);
	struct session_tls *st;

	if (oldest == NULL)
		return;
	st = container_of(oldest, struct session_tls, handshake);
	settle(st, TLS_HANDSHAKE_UNFINISHED);
	session_doom(st->session, CLOSED_CLIENT);
}

static void begin(struct session_tls *st)
{
	struct sessions *all = st->session->all;

	cut_oldest(all);
	st->tls = tls_new(all->tls.context, SESSION_TURN_BYTES);
}

/* The client's first bytes; false: they wait. */
static bool arrive(struct session *s, const char *bytes, size_t len)
{
	struct session_tls *st = xcalloc(1, sizeof(*st));

	st->session = s;
	s->tls = st;
	if (!handshakes_arrive(&s->all->tls.handshakes, &st->handshake, bytes,
			       len)) {
		uv_read_stop((uv_stream_t *)&s->tcp);
		return false;
	}
	begin(st);
	return true;
}

void session_tls_free(struct session *s)
{
	struct session_tls *st = s->tls;

	if (st == NULL)
		return;
	settle(st, TLS_HANDSHAKE_UNFINISHED);
	tls_free(st->tls);
	free(st);
	s->tls = NULL;
}

/* --- in ---------------------------------------------------------------- */

/* What TLS itself has to say. A handshake's answers fit in a socket that is
 * empty; what does not goes out with the next write, or the head timeout ends
 * it. -1: the socket is broken. */
static int send_pending(struct session *s)
{
	const uint8_t *bytes;
	size_t len = tls_pending(s->tls->tls, &bytes);
	ssize_t n;

	if (len == 0)
		return 0;
	n = send(s->fd, bytes, len, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (n > 0)
		tls_sent(s->tls->tls, (size_t)n);
	return n < 0 && errno != EAGAIN && errno != EINTR ? -1 : 0;
}

/* All that can be decrypted; 0, or why nothing comes any more. */
static int read_all(struct session *s)
{
	char plain[RECORD_BYTES];
	int n;

	while (!s->doomed) {
		n = tls_read(s->tls->tls, plain, sizeof(plain));
		if (n <= 0)
			return n;
		if (s->phase == SESSION_HEAD)
			s->all->ops->feed(s, plain, (size_t)n);
	}
	return 0;
}

static void input(struct session *s, const char *bytes, size_t len)
{
	int rc = tls_feed(s->tls->tls, bytes, len);

	if (tls_established(s->tls->tls))
		settle(s->tls, TLS_HANDSHAKE_OK);
	if (rc == 0)
		rc = read_all(s);
	if (rc == ERR_MALFORMED)
		settle(s->tls, TLS_HANDSHAKE_FAILED);
	/* Nothing passes what libuv is writing. */
	if ((s->phase == SESSION_HEAD || s->blocked == NULL) &&
	    send_pending(s) != 0)
		rc = ERR_CLOSED;
	if (rc != 0)
		session_doom(s, CLOSED_CLIENT);
}

void session_tls_input(struct session *s, const char *bytes, size_t len)
{
	if (s->phase != SESSION_HEAD)
		session_stray(s, len);
	if (s->tls != NULL || arrive(s, bytes, len))
		input(s, bytes, len);
}

unsigned session_tls_turn(struct sessions *all, unsigned budget)
{
	struct handshakes *h = &all->tls.handshakes;
	struct handshake *next;
	unsigned used = 0;
	char *first;
	size_t len;

	handshakes_turn(h);
	while (used < budget &&
	       (next = handshakes_next(h, &first, &len)) != NULL) {
		struct session_tls *st =
			container_of(next, struct session_tls, handshake);
		struct session *s = st->session;

		begin(st);
		if (!s->doomed) {
			session_read(s);
			input(s, first, len);
		}
		free(first);
		used += SESSION_TLS_WORK;
	}
	return used;
}

/* --- out --------------------------------------------------------------- */

/* Encrypts up to a turn's bytes of the queue; small frames share records. */
static int seal(struct session *s)
{
	struct session_tls *st = s->tls;
	struct iovec iov[SESSION_IOV];
	uint8_t record[RECORD_BYTES];
	size_t count, left = SESSION_TURN_BYTES, have = 0;
	int rc = 0;

	count = outq_iov(&s->out, iov, SESSION_IOV, SESSION_TURN_BYTES);
	st->sealed = st->frames = 0;
	for (size_t i = 0; i < count && left > 0 && rc == 0; i++) {
		const uint8_t *bytes = iov[i].iov_base;
		size_t len = min_of(iov[i].iov_len, left);

		left -= len;
		st->sealed += len;
		st->frames++;
		while (len > 0 && rc == 0) {
			size_t n = min_of(len, sizeof(record) - have);

			memcpy(record + have, bytes, n);
			bytes += n;
			len -= n;
			have += n;
			if (have < sizeof(record))
				continue;
			rc = tls_write(st->tls, record, have);
			have = 0;
		}
	}
	return rc == 0 ? tls_write(st->tls, record, have) : rc;
}

ssize_t session_tls_write(struct session *s, size_t *offered)
{
	const uint8_t *bytes;

	if (seal(s) != 0) {
		*offered = 0;
		errno = EPIPE;
		return -1;
	}
	*offered = s->tls->sealed;
	if (send_pending(s) != 0)
		return -1;
	return tls_pending(s->tls->tls, &bytes) > 0
		       ? 0
		       : (ssize_t)session_tls_taken(s);
}

uv_write_t *session_tls_rest(struct session *s, uv_buf_t *buf)
{
	const uint8_t *bytes;
	size_t len = tls_pending(s->tls->tls, &bytes);
	uv_write_t *req = xmalloc(sizeof(*req) + len);

	memcpy(req + 1, bytes, len);
	tls_sent(s->tls->tls, len);
	*buf = uv_buf_init((char *)(req + 1), (unsigned)len);
	return req;
}

size_t session_tls_taken(struct session *s)
{
	size_t sealed = s->tls->sealed;

	s->tls->sealed = s->tls->frames = 0;
	return sealed;
}

void session_tls_goodbye(struct session *s)
{
	if (s->tls == NULL || s->tls->tls == NULL)
		return;
	tls_close_notify(s->tls->tls);
	/* If it does not fit, the connection ends without. */
	send_pending(s);
}

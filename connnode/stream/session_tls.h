/* session_tls.h - a session's bytes where the port speaks TLS; session.c asks
 * it where struct session.tls is set, and the plain path knows nothing of it.
 *
 *	socket --> session_tls_input() --> request.c
 *	outq --encrypted, up to a turn's bytes--> session_tls_write() --> socket
 *
 * A frame counts as taken when the kernel has taken all the bytes that it was
 * encrypted into with the others of its turn. If the kernel takes only some,
 * the session is blocked, as a plain one is: libuv writes the rest, and the
 * frames that it is made of must stay in the queue.
 *
 * Handshakes are begun a few a turn, and at most tls-handshakes-max of a worker
 * are under way (handshakes.h). They take no longer than a request's head may.
 *
 * Memory: none for a connection that has not said anything; an idle stream adds
 * 15 KiB to the worker's resident memory. While a session writes:
 * SESSION_TURN_BYTES and the overhead of TLS, and that once more while it is
 * blocked.
 */
#ifndef STENTOR_CONNNODE_STREAM_SESSION_TLS_H
#define STENTOR_CONNNODE_STREAM_SESSION_TLS_H

#include "common/io/handshakes.h"
#include "common/io/tls.h"
#include "connnode/stream/session.h"

#define SESSION_TLS_WORK 64 /* units of the turn's budget a handshake */

/* The SSE port's, in the worker. */
struct worker_tls {
	struct tls_context *context;  /* NULL: the port is plain */
	struct handshakes handshakes; /* struct session_tls.handshake */
	uint64_t refreshed_ms;
};

struct session_tls {
	struct tls *tls; /* NULL while it waits for its turn */
	struct session *session;
	struct handshake handshake;
	size_t sealed;	 /* bytes of the queue, encrypted, not all taken */
	uint32_t frames; /* that they are of */
};

/* Reads certificate and key, if the options name them. ERR_CONFIG is logged. */
int session_tls_start(struct worker *w) MUST_CHECK;
/* Looks for new certificates, from time to time or now. */
void session_tls_tick(struct worker *w);
void session_tls_refresh(struct worker *w);

/* A stage of the turn (turn.h): takes those who wait. */
unsigned session_tls_turn(struct worker *w, unsigned budget);

/* Bytes from the socket. */
void session_tls_input(struct session *s, const char *bytes, size_t len);

/* As send() of up to a turn's bytes of the queue: how many of the *offered were
 * taken, all or none; -1 with errno. */
ssize_t session_tls_write(struct session *s, size_t *offered);
/* After it took none: what is left to write, in the memory of the request that
 * writes it; freed with it. */
uv_write_t *session_tls_rest(struct session *s, uv_buf_t *buf);
/* That request is done: bytes of the queue that were taken. */
size_t session_tls_taken(struct session *s);

/* These do nothing for a plain session. */
void session_tls_goodbye(struct session *s);
void session_tls_free(struct session *s);

#endif

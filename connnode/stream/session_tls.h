/* session_tls.h - a session's bytes where the port speaks TLS; session.c asks
 * it where struct session.tls is set (session_internal.h), and the plain path
 * knows nothing of it.
 *
 *	socket --> session_tls_input() --> sessions_ops.feed
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

#include "connnode/stream/session.h"

#define SESSION_TLS_WORK 64 /* units of the turn's budget a handshake */

/* Reads certificate and key, if they are named. ERR_CONFIG is logged. */
int session_tls_start(struct sessions *all, const struct tls_files *files,
		      uint64_t handshakes_max) MUST_CHECK;
/* Looks for new certificates, from time to time or now. */
void session_tls_tick(struct sessions *all);
void session_tls_refresh(struct sessions *all);

/* A stage of the turn (turn.h): takes those who wait. */
unsigned session_tls_turn(struct sessions *all, unsigned budget);

#endif

/* session_internal.h - what session.c and session_tls.c have to do with each
 * other. */
#ifndef STENTOR_CONNNODE_STREAM_SESSION_INTERNAL_H
#define STENTOR_CONNNODE_STREAM_SESSION_INTERNAL_H

#include "connnode/stream/session.h"

struct session_tls {
	struct tls *tls; /* NULL while it waits for its turn */
	struct session *session;
	struct handshake handshake;
	size_t sealed;	 /* bytes of the queue, encrypted, not all taken */
	uint32_t frames; /* that they are of */
};

/* Of session.c. Reads from now on; dooms it if it can't. */
void session_read(struct session *s);
/* The client said more than its request: of no interest, but bounded. */
void session_stray(struct session *s, size_t len);

/* Of session_tls.c. Bytes from the socket. */
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

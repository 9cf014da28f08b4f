/* tls.h - TLS 1.2 and 1.3 for connections that we accept (OpenSSL 3), between
 * a socket's bytes and an application's; does no I/O itself.
 *
 *	socket --bytes--> tls_feed() --plain--> tls_read()
 *	tls_write() --plain--> --bytes--> tls_pending() --> socket
 *
 * A context holds certificate and key and is read again when their files
 * change (tls_context_refresh(), called every few seconds by its owner): new
 * connections get the new ones, those that stand keep theirs. No compression,
 * no renegotiation, session tickets by OpenSSL's defaults.
 */
#ifndef STENTOR_IO_TLS_H
#define STENTOR_IO_TLS_H

#include "common/base/check.h"
#include "common/ds/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tls_context;
struct tls;

struct tls_files {
	const char *cert, *key;	 /* PEM; the certificate with its chain */
	const char *client_ca;	 /* NULL: client certificates are not asked */
	const char *const *alpn; /* what we speak, ends with NULL; or NULL */
};

/* Copies. ERR_CONFIG with a text for people in `fault`. */
#define TLS_FAULT 256
int tls_context_new(const struct tls_files *files, struct tls_context **out,
		    char fault[TLS_FAULT]) MUST_CHECK;
void tls_context_free(struct tls_context *c);
/* Looks whether files changed. What can't be read is logged once and changes
 * nothing. True if new certificates are in force. */
bool tls_context_refresh(struct tls_context *c);
/* Seconds since 1970 when the certificate ends; for a metric. */
uint64_t tls_context_expires(const struct tls_context *c);

struct tls *tls_new(struct tls_context *c);
void tls_free(struct tls *t);

/* Bytes from the socket. 0, or ERR_MALFORMED: the handshake or a record is
 * faulty; an alert may be pending, then the connection ends. */
int tls_feed(struct tls *t, const void *bytes, size_t len) MUST_CHECK;
/* Decrypted bytes; 0: none now. ERR_CLOSED: the peer has said goodbye. */
int tls_read(struct tls *t, void *bytes, size_t len) MUST_CHECK;
/* Encrypts all; before the handshake is over it is kept (at most 64 KiB). */
int tls_write(struct tls *t, const void *bytes, size_t len) MUST_CHECK;
void tls_close_notify(struct tls *t);
/* What is to be sent; valid until the next call. tls_sent() takes it away. */
size_t tls_pending(struct tls *t, const uint8_t **bytes);
void tls_sent(struct tls *t, size_t len);

bool tls_established(const struct tls *t);
/* The protocol agreed on; "" for none. */
const char *tls_alpn(const struct tls *t);

#endif

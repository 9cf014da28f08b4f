/* tls.h - TLS 1.2 and 1.3 (OpenSSL 3), between a socket's bytes and an
 * application's; does no I/O itself. For connections that we accept, and for
 * those that we make, whose servers must show a certificate of a trusted
 * authority for the host that is meant.
 *
 *	socket --bytes--> tls_feed() --plain--> tls_read()
 *	tls_write() --plain--> --bytes--> tls_pending() --> socket
 *
 * A context holds certificate and key and is read again when their files
 * change (tls_context_refresh(), called every few seconds by its owner): new
 * connections get the new ones, those that stand keep theirs. No compression,
 * no renegotiation; session tickets by OpenSSL's defaults, none where clients
 * show certificates: each connection does so. No cache of sessions.
 *
 * Memory: 8 KiB before the hello, 9 KiB at rest, 20 KiB more while a record is
 * read or written; during a handshake OpenSSL makes room for the message
 * announced, at most 130 KiB.
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

/* Copies. ERR_CONFIG with a text for people in `fault`. The context outlives
 * its connections. */
#define TLS_FAULT 256
int tls_context_new(const struct tls_files *files, struct tls_context **out,
		    char fault[TLS_FAULT]) MUST_CHECK;
void tls_context_free(struct tls_context *c);

struct tls_client_files {
	const char *ca;		/* of authorities, PEM; NULL: the system's */
	const char *cert, *key; /* shown to who asks; NULL: none */
};

/* The same for connections that we make; one of cert and key without the other
 * is ERR_CONFIG. */
int tls_client_context_new(const struct tls_client_files *files,
			   struct tls_context **out,
			   char fault[TLS_FAULT]) MUST_CHECK;
/* For options, NULL where one is not given: can this be used? ERR_CONFIG with a
 * text for people. No certificate and nothing else: yes, without TLS. */
int tls_files_check(const struct tls_files *files,
		    char fault[TLS_FAULT]) MUST_CHECK;
/* Looks whether files changed. What can't be read is logged once and changes
 * nothing. True if new certificates are in force. */
#define TLS_REFRESH_MS 5000 /* between looks */
bool tls_context_refresh(struct tls_context *c);
/* Seconds since 1970 when the certificate ends; for a metric. */
uint64_t tls_context_expires(const struct tls_context *c);
#define TLS_EXPIRES_HELP                                               \
	"When the TLS certificate of the port ends, in seconds since " \
	"1970; not there without TLS."

/* How handshakes end; label of a counter. */
enum tls_outcome {
	TLS_HANDSHAKE_OK,
	TLS_HANDSHAKE_FAILED,	  /* faulty, or no certificate that we accept */
	TLS_HANDSHAKE_UNFINISHED, /* the peer left, or was too slow */
};
#define TLS_OUTCOMES 3
extern const char *const tls_outcome_names[TLS_OUTCOMES + 1];

/* Encrypted bytes that wait to be sent are at most `write_max` and
 * TLS_OVERHEAD_MAX. */
#define TLS_OVERHEAD_MAX (64u << 10)
struct tls *tls_new(struct tls_context *c, size_t write_max);
/* Of a client's context: a name, which is told to the server, or an address.
 * What begins the handshake is pending at once. */
struct tls *tls_connect(struct tls_context *c, const char *host,
			size_t write_max);
void tls_free(struct tls *t);

/* Bytes from the socket, borrowed until tls_read() has said that there is no
 * more, which comes before the next bytes. 0, or ERR_MALFORMED: the handshake
 * is faulty; an alert may be pending, then the connection ends. */
int tls_feed(struct tls *t, const void *bytes, size_t len) MUST_CHECK;
/* Decrypted bytes, their number; 0: none now. ERR_CLOSED: the peer has said
 * goodbye. ERR_MALFORMED: a record is faulty; likewise. */
int tls_read(struct tls *t, void *bytes, size_t len) MUST_CHECK;
/* Encrypts all. ERR_AGAIN: not established. ERR_FULL: not enough of what is
 * pending was sent; the connection is lost. */
int tls_write(struct tls *t, const void *bytes, size_t len) MUST_CHECK;
/* Once established; no more is written after it. */
void tls_close_notify(struct tls *t);
/* What is to be sent; valid until the next call. tls_sent() takes it away. */
size_t tls_pending(struct tls *t, const uint8_t **bytes);
void tls_sent(struct tls *t, size_t len);

/* Why it failed, for people; "" while it has not. */
const char *tls_fault(const struct tls *t);
bool tls_established(const struct tls *t);
/* The protocol agreed on; "" for none. */
const char *tls_alpn(const struct tls *t);

#endif

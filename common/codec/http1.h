/* http1.h - HTTP/1.1 request parser on llhttp, and response heads (pure).
 *
 * Bytes in, one request out. Head and body are collected in one buffer each,
 * both bounded; names of headers are lower-cased, the path is percent-decoded,
 * the query is kept raw (http1_query() decodes one pair at a time). Stricter
 * than llhttp where llhttp 8.1 is lax: a head must end in CR LF CR LF
 * (CVE-2025-23167). A target in absolute form, as proxies send it, is read as
 * the path that it has (RFC 9112 3.2.2).
 *
 * Used by the SSE front, the Connect front and the admin port.
 */
#ifndef STENTOR_CODEC_HTTP1_H
#define STENTOR_CODEC_HTTP1_H

#include "common/base/check.h"
#include "common/ds/buf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define HTTP1_HEADERS_MAX 64

struct http1_limits {
	size_t head_max; /* request line and headers, bytes; else 431 */
	size_t url_max;	 /* else 414 */
	size_t body_max; /* decoded body, bytes; else 413; 0: no body allowed */
};

struct http1_header {
	const char *name, *value; /* zero-terminated, in the parser's buffer */
};

struct http1_request {
	const char *method; /* "GET" */
	const char *path;   /* decoded, starts with '/'; no NUL inside */
	const char *query;  /* raw, without '?'; "" if none */
	bool keep_alive;
	bool http10; /* the client knows no chunked answers */
	size_t header_count;
	struct http1_header headers[HTTP1_HEADERS_MAX];
	const uint8_t *body;
	size_t body_len;
};

struct http1; /* the parser; opaque */

struct http1 *http1_new(const struct http1_limits *limits);
void http1_free(struct http1 *p);
/* Back to before the first byte, for the next request or connection. */
void http1_reset(struct http1 *p);

/* Feeds bytes. Returns
 *   0            more is needed; all of `len` was used,
 *   1            a request is complete: *request is valid until the next call
 *                on `p`; *used bytes were taken, the rest belongs to the next,
 *   negative     it is refused: http1_status() is the status to answer with
 *                (400, 413, 414, 431, 501, 505) and http1_why() a short text.
 * `request` is set as soon as the head is complete: http1_head_done() tells. */
int http1_feed(struct http1 *p, const void *bytes, size_t len, size_t *used,
	       const struct http1_request **request) MUST_CHECK;

/* The request whose head has arrived, or NULL (to answer `Expect:
 * 100-continue`, to check content-type before the body). */
const struct http1_request *http1_head(const struct http1 *p);
/* The Origin header, as far as a head came, also one that is refused: it is to
 * be answered so that a page can read why. NULL: none came. */
const char *http1_origin(const struct http1 *p);
int http1_status(const struct http1 *p);
const char *http1_why(const struct http1 *p);
/* False before the first byte of a request: an idle connection. */
bool http1_started(const struct http1 *p);

/* Value of a header (name in lower case), or NULL. The first of several. */
const char *http1_get(const struct http1_request *r, const char *name);
/* The next one of several: start with *at = 0; NULL: no more. */
const char *http1_next(const struct http1_request *r, const char *name,
		       size_t *at);

/* Walks the query: each call decodes the pair at *cursor into name and value
 * (percent-decoding, '+' is a space). Start with *cursor = r->query. Returns 1
 * and a pair, 0 at the end, ERR_MALFORMED for a bad escape or an encoded NUL,
 * ERR_TOO_LARGE when a part does not fit. */
int http1_query(const char **cursor, char *name, size_t name_max, char *value,
		size_t value_max) MUST_CHECK;

/* Reason phrase ("Not Found"). */
const char *http1_reason(int status);

/* A whole response with Content-Length. `extra` is ready header lines, each
 * with CRLF, or "". HEAD wants `body` counted but not sent: pass head = true.
 * 1xx, 204 and 304 leave out content_type, length and body. ERR_FULL changes
 * nothing. */
int http1_respond(struct buf *out, int status, const char *content_type,
		  const char *extra, const void *body, size_t body_len,
		  bool keep_alive, bool head) MUST_CHECK;

/* Do the Accept headers, several of which are one list (RFC 9110 5.3), admit
 * `type` ("text/event-stream")? None, or empty ones, admit everything; q=0
 * refuses. */
bool http1_accepts(const struct http1_request *r, const char *type);

#endif

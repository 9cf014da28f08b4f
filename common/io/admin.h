/* admin.h - the operators' HTTP port: /metrics, /livez, /readyz, /version ...
 *
 * A small HTTP/1.1 server (llhttp through codec/http1) with a route table.
 * Bounded: ADMIN_CONNECTIONS_MAX connections (the oldest idle one gives way),
 * 8 KiB heads, 64 KiB bodies, 10 s for a request to be complete and for an
 * answer to be taken. GET and HEAD; other methods only where a route says so.
 *
 * With tokens, who comes from this machine (127.0.0.0/8, ::1) may do all; from
 * elsewhere, all but open routes needs an administrator's; metrics may be
 * opened, as those who scrape them have none that they can renew.
 */
#ifndef STENTOR_IO_ADMIN_H
#define STENTOR_IO_ADMIN_H

#include "common/base/check.h"
#include "common/base/config.h"
#include "common/base/metrics.h"
#include "common/codec/http1.h"
#include "common/io/auth.h"

#include <uv.h>

#define ADMIN_CONNECTIONS_MAX 64
#define ADMIN_ANSWER_MAX      (16u << 20) /* bytes of an answer's body */
/* For a request to be complete from its first byte, and for an answer to be
 * taken; a connection without a request may wait six times as long. */
#define ADMIN_TIMEOUT_MS 10000

/* One answer, filled by a route's handler. */
struct admin_reply {
	int status;		  /* 200 unless set */
	const char *content_type; /* text/plain; charset=utf-8 unless set */
	const char *headers;	  /* ready lines with CRLF, or "" */
	struct buf body;	  /* its maximum: ADMIN_ANSWER_MAX */
};

typedef void (*admin_handler)(void *ctx, const struct http1_request *request,
			      struct admin_reply *reply);

/* Probes are open to all who can reach the port, metrics if the owner says so.
 */
enum admin_access { ADMIN_ONLY, ADMIN_OPEN, ADMIN_METRICS };

struct admin_route {
	const char *method; /* "GET" */
	const char *path;   /* exact */
	admin_handler handle;
	enum admin_access access;
};

/* What handlers of every program answer with. */
void admin_say(struct admin_reply *r, int status, const char *text);
/* Frees the text. */
void admin_metrics(struct admin_reply *r, struct metrics_text *t);
void admin_version(struct admin_reply *r, const char *program);
/* The options in force, secrets left out. */
void admin_config(struct admin_reply *r, const struct program *program,
		  const void *values);
/* A handler: answering at all is being alive. */
void admin_livez(void *ctx, const struct http1_request *request,
		 struct admin_reply *reply);

struct admin;

/* `routes` ends with a NULL path and is borrowed for ever, as `auth` is (NULL:
 * no tokens, everybody may do all). */
int admin_start(uv_loop_t *loop, const char *address,
		const struct admin_route *routes, void *ctx, struct auth *auth,
		struct admin **out) MUST_CHECK;
/* The real port, when 0 was asked for. */
uint16_t admin_port(const struct admin *a);
/* Routes of ADMIN_METRICS need no token from now on. */
void admin_open_metrics(struct admin *a);
/* Another time than ADMIN_TIMEOUT_MS; checked ten times a second. */
void admin_set_timeout(struct admin *a, uint64_t timeout_ms);
/* Asynchronous, and answers still being written are cut off; memory goes when
 * all its connections are closed. Not from a handler. */
void admin_close(struct admin *a);

#endif

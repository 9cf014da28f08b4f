/* admission.h - whose request may become a stream, and for how long.
 *
 * Under --auth jwt a channel whose rule does not say `access: public` wants a
 * token that names it. The token stands in `Authorization: Bearer`, in `token=`,
 * or in the cookie stentor_token, in that order: what the page says before what
 * the browser adds. It is never logged. Its stream ends when it expires or is
 * revoked, with `stentor.closing` first, so that a client can fetch a new one.
 */
#ifndef STENTOR_CONNNODE_STREAM_ADMISSION_H
#define STENTOR_CONNNODE_STREAM_ADMISSION_H

#include "common/codec/http1.h"
#include "common/io/auth.h"
#include "connnode/link/announcer.h"
#include "connnode/node/shared.h"
#include "connnode/stream/scrutiny.h"

struct session;
struct stream_request;

#define ADMISSION_SLICE 64 /* streams that end in one turn, revoked */

/* Whose these are is the owner's business. */
struct admission_use {
	const struct rules *rules;
	struct announcer *announcer; /* tells revocations on */
	struct worker_shared *shared;
};

struct admission {
	struct admission_use use;
	struct auth *auth;	  /* NULL: --auth none */
	struct scrutiny scrutiny; /* of tokens */
	bool started;
};

/* Reads the keys and begins to watch them; `config` NULL: --auth none.
 * ERR_CONFIG after a message on stderr. */
int admission_start(struct admission *a, uv_loop_t *loop,
		    const struct auth_config *config) MUST_CHECK;
void admission_stop(struct admission *a);

/* 0, and the token that the stream is to live by is the session's (NULL: it
 * needs none); or the status to answer with: 401 no token, or none that is good;
 * 403 it does not cover the channels; 431 or 414 it is too long (TOKEN_BYTES_MAX)
 * and stands in a header or in the URL; 503 too many are verified, come again
 * (scrutiny.h). The first good one of several decides. */
int admission_check(struct admission *a, struct session *s,
		    const struct http1_request *r,
		    const struct stream_request *want) MUST_CHECK;

/* The session, a stream now, ends when its token is revoked. */
void admission_join(struct session *s);
/* It ends, and needs the token no more. */
void admission_leave(struct admission *a, struct session *s);
/* A stage of the turn (turn.h): ends streams of revoked tokens and tells all
 * dispatchers what is new, a slice of each. */
unsigned admission_run(struct admission *a, unsigned budget);
bool admission_pending(const struct admission *a);

/* Milliseconds until the session's token ends; UINT64_MAX: never. 0: it has. */
uint64_t admission_left_ms(const struct session *s);

#endif

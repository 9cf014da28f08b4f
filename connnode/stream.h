/* stream.h - a connection as an event stream: subscribe, ready, last words.
 *
 * The first bytes (response head, `retry:` with this client's own delay) leave
 * at once; `event: stentor.ready` follows when every live dispatcher has
 * acknowledged the interest in all of its channels, in the same write where
 * that is the case already, and after ready-ms at the latest.
 */
#ifndef STENTOR_CONNNODE_STREAM_H
#define STENTOR_CONNNODE_STREAM_H

#include "connnode/worker.h"

struct session;

#define STREAM_CONTENT_TYPE "text/event-stream; charset=utf-8"
#define STREAM_HEADERS                \
	"Cache-Control: no-store\r\n" \
	"X-Accel-Buffering: no\r\n"

/* Becomes a stream with the wanted channels. */
void stream_begin(struct session *s, const struct stream_request *want,
		  const char *cors);
/* Answers with a stream that only says when to come back, and ends it. */
void stream_refuse(struct session *s, uint32_t retry_ms, const char *cors);
/* Tells the client its own delay and why, then leaves. */
void stream_send_away(struct session *s, const char *reason,
		      enum close_cause cause);
/* Out of all channels and of the waiting. */
void stream_unsubscribe(struct session *s);

/* Each turn: the streams whose announcement is confirmed, or whose time is
 * over, are ready. */
void streams_ready(struct worker *w);

#endif

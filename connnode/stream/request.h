/* request.h - the first phase of a connection: the request's head, and what it
 * gets: an event stream (stream.h), a page, or an answer and the end.
 *
 * An EventSource that meets any status but 200 gives up for ever, so overload
 * and drain answer 200 with this client's own `retry:` and close without the
 * final chunk; only what can't become right by waiting gets its 4xx. A client
 * that does not take text/event-stream gets a real 503 with Retry-After.
 */
#ifndef STENTOR_CONNNODE_STREAM_REQUEST_H
#define STENTOR_CONNNODE_STREAM_REQUEST_H

#include "connnode/stream/session.h"

struct connnode_options;

/* What connections of this port are used for: from the request on. */
extern const struct sessions_ops request_ops;

/* Access-Control headers for a request's Origin (may be NULL), each with CRLF.
 */
#define REQUEST_CORS_MAX 512
void request_cors(const struct connnode_options *o, const char *origin,
		  char out[REQUEST_CORS_MAX]);

#endif

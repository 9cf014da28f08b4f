/* h2.h - HTTP/2 sessions and their calls (private to dispatcher/api).
 *
 * h2.c holds nghttp2 between a connection's input and output and defends
 * against abuse; h2_call.c is one stream: gRPC (unary and streaming) or a
 * Connect (unary and streaming).
 *
 *   HEADERS -> head ok? -- no --> answer --------------------> stream closes
 *                |                  ^                               |
 *                v                  | rpc_finish, deadline,         v
 *      body: collected (one       ended <---------- drain    no stream and not
 *      message) or read as it       ^                        running: freed
 *      comes (client streaming)     |
 *                '---- running -----'
 *
 * A call lives until its stream has closed and its handler has ended it,
 * whichever is later; the connection may be gone by then (h2 == NULL).
 */
#ifndef STENTOR_DISPATCHER_API_H2_H
#define STENTOR_DISPATCHER_API_H2_H

#include "common/codec/grpc.h"
#include "dispatcher/api/port.h"
#include "dispatcher/api/request.h"

#include <nghttp2/nghttp2.h>

#define H2_STREAM_WINDOW     (1 << 20)
#define H2_CONNECTION_WINDOW (4 << 20)

/* Tokens that come back with time: what a peer may do now and then. */
struct h2_bucket {
	uint64_t tokens, refilled_ms;
};

enum h2_drain { DRAIN_NO, DRAIN_NOTICED, DRAIN_FINAL };

struct h2 {
	struct conn *conn;
	nghttp2_session *session;
	struct list calls;     /* all that have this session */
	struct list attention; /* those to look at after a turn's output */
	unsigned call_count;
	enum h2_drain drain;
	bool peer_leaves; /* it has sent GOAWAY */
	uint64_t drain_ms;
	uint64_t head_started_ms; /* 0: no head under way */
	struct h2_bucket faults;
	uint64_t ping_ms; /* last PING since we sent HEADERS or DATA */
	unsigned ping_strikes;
	enum close_reason doomed; /* say what is queued, then end */
	size_t queued_bytes;	  /* answers of all its calls */
	uint64_t queue_ms;	  /* last progress of the queues */
};

struct h2_call {
	struct rpc_call rpc;
	struct h2 *h2; /* NULL: the connection is gone */
	struct api *api;
	struct list in_session;
	struct list in_attention;
	struct list in_gathering; /* api->gathering: answers wait */
	struct api_timer timer;
	int32_t stream_id;
	bool stream_open;
	bool body_whole; /* the client has ended its side */
	bool running;	 /* a handler has it */
	bool responded;	 /* response headers are submitted */
	bool ended;	 /* the outcome stands */
	bool deferred;	 /* the data provider waits for more */
	bool paused;	 /* requests wait: see held, and API_SEND_QUEUE_MAX */
	bool held;	 /* the handler takes no requests now */
	bool overflow;	 /* its answers exceed a limit */
	const char *drain_why; /* ends when what has come is answered */
	bool head_too_large;
	uint32_t head_bytes;
	struct request request;
	uint64_t deadline_ms; /* 0: none */
	/* One message or a whole body; for streams, what came while paused. */
	struct buf body;
	struct grpc_reader reader; /* client streaming */
	size_t held_bytes;	   /* of both, as accounted for */
	struct buf out;		   /* answers, from out_sent on unsent */
	size_t out_sent;
	/* Of a stream: when it last answered, answers that gather since, and
	 * answers that are not to, because gathering them brought no company.
	 */
	uint64_t answered_ms;
	uint32_t gathered, prompt;
	enum grpc_code code;
	char *text; /* of the outcome; NULL: none */
};

/* h2_call.c: what happens on a stream. */
struct h2_call *h2_call_new(struct h2 *h2, int32_t stream_id);
void h2_call_field(struct h2_call *call, const char *name, size_t name_len,
		   const char *value, size_t value_len);
void h2_call_head_done(struct h2_call *call);
void h2_call_data(struct h2_call *call, const uint8_t *bytes, size_t len);
void h2_call_body_done(struct h2_call *call);
/* The stream is closed; may free the call. */
void h2_call_stream_closed(struct h2_call *call);
/* The session is going away: the same, and it forgets the call. */
void h2_call_detach(struct h2_call *call);
/* After output, or when its handler goes on: resumes a paused call, ends one
 * that overflowed. */
void h2_call_attend(struct h2_call *call);
/* Ends a call whose stream is open from our side; cancels it if a handler has
 * it. */
void h2_call_abort(struct h2_call *call, enum grpc_code code, const char *text);

/* A stream that runs ends in order, after what has come of its requests. May
 * run twice. */
void h2_call_drain(struct h2_call *call, const char *why);

/* h2_answer.c: what goes out on a stream. */
extern const struct rpc_front_ops h2_front_ops;
/* The outcome stands: submits what is to be said, after what is queued. */
void h2_call_end(struct h2_call *call, enum grpc_code code, const char *text);
/* The same without gRPC or Connect: a bare HTTP status. */
void h2_call_end_http(struct h2_call *call, int status);
void h2_call_want_attention(struct h2_call *call);
/* What has gathered may go, and its connection is read again. */
void h2_call_stop_gathering(struct h2_call *call);
/* The time of answers that gather is over. */
void h2_calls_gathered(struct api *api);
/* Forgets `bytes` of its queue. */
void h2_call_unqueue(struct h2_call *call, size_t bytes);
/* Frees the call if nothing holds it any more. */
void h2_call_maybe_free(struct h2_call *call);

#endif

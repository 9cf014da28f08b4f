/* rpc.h - the dispatcher's API: one table of services and methods, whichever
 * protocol a call came by. The main door of api/, which knows no service:
 *
 *	in	bytes of a client, to the API port (port.h)
 *	out	a call, to the handler that stands in the table of services
 *	in	its answer: rpc_reply(), rpc_send(), rpc_fail()
 *
 * A front (h2.c: gRPC and Connect over HTTP/2; h1.c: Connect over HTTP/1.1)
 * finds the method by path, decodes the request (protobuf or JSON, gzip,
 * deadline) and hands over a struct rpc_call. The handler answers it now or
 * later, exactly once, with rpc_reply() or rpc_fail(). A stream's handler gets
 * one on_message for each request and answers each with rpc_send(), then ends
 * the call with rpc_finish().
 *
 * Life of a call: it begins with its first on_message (or on_half_close of an
 * empty stream) and lives until the handler has ended it; ending it may free
 * it, so that is the last thing done to it. If the peer goes away, the deadline
 * passes or the port drains first, `cancelled` is set and on_cancel runs; the
 * handler still ends the call (in on_cancel or later), and what it answers goes
 * nowhere. Everything happens on the loop's thread.
 */
#ifndef STENTOR_DISPATCHER_API_RPC_H
#define STENTOR_DISPATCHER_API_RPC_H

#include "common/base/check.h"
#include "common/codec/grpc.h"
#include "common/ds/list.h"
#include "common/io/tls.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct auth;
struct auth_token;
struct items;
struct rpc_call;

/* Whom calls come from: one for each connection, which it outlives while calls
 * of it run. What a handler holds for them is counted here (share.h). */
struct rpc_peer {
	size_t pending;	       /* messages that wait for the store */
	size_t stream_items;   /* of PublishStreams, that wait to be answered */
	size_t batch_messages; /* of PublishBatches under way */
	size_t batch_bytes;
	struct list batches; /* that have something to do */
	struct list stalled; /* that wait for room in the store */
	struct list in_turn, in_stalled;
	/* private */
	unsigned refs;
};

struct rpc_peer *rpc_peer_new(void);
struct rpc_peer *rpc_peer_hold(struct rpc_peer *p);
void rpc_peer_release(struct rpc_peer *p);

struct rpc_method {
	const char *name; /* "Publish" */
	const ProtobufCMessageDescriptor *input, *output;
	bool client_streaming, server_streaming;
	bool no_side_effects; /* Connect GET is allowed */

	/* Unary and server streaming: the one request; streaming: each. The
	 * message is borrowed during the call. */
	void (*on_message)(struct rpc_call *call, const ProtobufCMessage *m);
	/* Unary, instead of on_message: input and output are lists, and the
	 * handler, which takes `request`, works on it in slices (items.h). */
	void (*on_list)(struct rpc_call *call, struct items *request);
	/* Client streaming: the client has sent its last message. NULL: the
	 * call then ends with OK by itself. */
	void (*on_half_close)(struct rpc_call *call);
	/* Nobody waits for the answer any more. NULL: a streaming call ends by
	 * itself; the handler of any other ends it when its work is done. */
	void (*on_cancel)(struct rpc_call *call);
	/* Streaming: the port drains, or the connection has come of age. The
	 * handler answers what it has begun and then ends the call with
	 * UNAVAILABLE and `why`, a literal. May run twice. NULL: the call is
	 * cancelled. */
	void (*on_drain)(struct rpc_call *call, const char *why);
};

struct rpc_service {
	const char *name; /* "stentor.v1.PublisherService" */
	const struct rpc_method *methods;
	size_t method_count;
	void *ctx; /* reaches handlers as call->service->ctx */
	/* Whose tokens its calls need: `authorization: Bearer TOKEN`, looked at
	 * before any body. NULL: everybody may call. */
	struct auth *auth;
};

/* Implemented by the front that a call came by. */
struct rpc_front_ops {
	/* Queues one response message. */
	void (*send)(struct rpc_call *call, const ProtobufCMessage *m);
	/* The same, encoded as the call's request was. */
	void (*send_encoded)(struct rpc_call *call, const struct buf *m);
	/* Ends the call: status, and text for the client ("" for none). */
	void (*finish)(struct rpc_call *call, enum grpc_code code,
		       const char *text);
	/* Hands over no more requests of a client-streaming call, or goes on.
	 * NULL: the front has no such calls. */
	void (*pause)(struct rpc_call *call, bool paused);
};

struct rpc_call {
	const struct rpc_service *service;
	const struct rpc_method *method;
	const struct rpc_front_ops *front;
	bool cancelled; /* nobody waits for the answer any more */
	bool finished;
	/* What its caller may do, until the call ends. NULL: everything. */
	struct auth_token *token;
	struct rpc_peer *peer; /* until the call ends */
	void *state;	       /* the handler's own */
	uint64_t started_ns;
	/* private */
	struct rpc_entry *entry; /* path and counters of the method */
};

void rpc_send(struct rpc_call *call, const ProtobufCMessage *m);
void rpc_finish(struct rpc_call *call, enum grpc_code code, const char *format,
		...) PRINTF(3, 4);
/* Unary: one message and OK. */
void rpc_reply(struct rpc_call *call, const ProtobufCMessage *m);
#define rpc_fail rpc_finish
/* The same as rpc_reply(), for items_answer_end(). */
void rpc_reply_encoded(struct rpc_call *call, const struct buf *m);

/* Client streaming: no on_message, and no on_half_close, until rpc_resume().
 * Requests that have arrived wait, and the client's window closes. */
void rpc_pause(struct rpc_call *call);
void rpc_resume(struct rpc_call *call);

/* A stream's handler need not look at how much is queued: above
 * API_SEND_QUEUE_MAX bytes of answers that its client has not taken, the front
 * stops reading the call's requests, and so closes its flow-control window. */
#define API_SEND_QUEUE_MAX (256u << 10)
/* One answer, encoded. */
#define API_ANSWER_MAX (16u << 20)
/* Answers that the clients of one connection, of all connections have not
 * taken; the call that would exceed it ends with RESOURCE_EXHAUSTED. */
#define API_CONNECTION_QUEUE_MAX (32u << 20)
#define API_QUEUES_MAX		 (512u << 20)
/* Requests that have not arrived completely, over all connections; likewise. */
#define API_BODIES_MAX (512u << 20)

/* Limits of the API port; fields are the options of the same name. */
struct api_limits {
	uint64_t connections_max; /* 1024 */
	/* Of one address (IPv6: /64); 0: any. */
	uint64_t connections_per_address_max;
	uint64_t tls_handshakes_max; /* under way: 512 */
	uint64_t streams_max;	     /* per connection: 1000 */
	uint64_t message_bytes_max;  /* 4 MiB, uncompressed */
	uint64_t head_bytes_max;     /* 16 KiB */
	uint64_t head_timeout_ms;    /* 10 s: first bytes to a whole head */
	uint64_t body_timeout_ms;    /* 30 s: a request's body */
	uint64_t idle_timeout_ms;    /* 5 min without a call or byte */
	uint64_t write_timeout_ms;   /* 30 s without a byte taken */
	/* 0: for ever; else +-10 %: GOAWAY, or `Connection: close` */
	uint64_t connection_age_ms;
	/* RST_STREAM received, a second and at once: 1000, 10000. Our own
	 * resets of faulty streams and empty DATA frames likewise. */
	uint64_t reset_rate, reset_burst;
	/* 10 s; two strikes: ENHANCE_YOUR_CALM. */
	uint64_t ping_min_interval_ms;
	/* Access-Control-Allow-Origin for browsers; NULL: none. */
	const char *cors_origin;
	/* What the port's TLS needs; no certificate: the port is plain. */
	struct tls_files tls;
};

struct api;
struct metrics_text;

/* Appends the port's counters and
 * grpc_server_handled_total{grpc_service,grpc_method,grpc_code}. */
void api_metrics(const struct api *api, struct metrics_text *t);

/* `services` ends with a NULL name; borrowed for ever. */
int api_start(uv_loop_t *loop, const char *address,
	      const struct api_limits *limits,
	      const struct rpc_service *services, struct api **out) MUST_CHECK;
/* Looks for new certificates now; it also does so every TLS_REFRESH_MS. */
void api_tls_refresh(struct api *api);
uint16_t api_port(const struct api *api);
/* Orderly end: GOAWAY on every h2 connection (twice, a round trip apart), and
 * HTTP/1.1 answers with `Connection: close`; calls under way, and on the wire
 * when this begins, are served; streams end with UNAVAILABLE after what they
 * have answered or, with on_drain, begun; then no connections are left, and
 * on_drained. Those that are there after `grace_ms` are cut. on_drained waits
 * for every handler to have ended its calls. */
void api_drain(struct api *api, uint64_t grace_ms,
	       void (*on_drained)(void *ctx), void *ctx);
/* After on_drained: frees. */
void api_free(struct api *api);

#endif

/* rpc.h - the dispatcher's API: one table of services and methods, whichever
 * protocol a call came by.
 *
 * A front (h2.c: gRPC and Connect over HTTP/2; h1.c: Connect over HTTP/1.1)
 * finds the method by path, decodes the request (protobuf or JSON, gzip,
 * deadline) and hands over a struct rpc_call. The handler answers it now or
 * later, exactly once, with rpc_reply() or rpc_fail(). A stream's handler gets
 * one on_message for each request and answers each with rpc_send(), then ends
 * the call with rpc_finish().
 *
 * Life of a call: the front creates it and it lives until the handler has ended
 * it. If the peer goes away or the deadline passes first, `cancelled` is set
 * and on_cancel (if any) runs; the handler still ends the call, and what it
 * answers goes nowhere.
 */
#ifndef STENTOR_DISPATCHER_API_RPC_H
#define STENTOR_DISPATCHER_API_RPC_H

#include "common/base/check.h"
#include "common/codec/grpc.h"

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

struct rpc_call;

struct rpc_method {
	const char *name; /* "Publish" */
	const ProtobufCMessageDescriptor *input, *output;
	bool client_streaming, server_streaming;
	bool no_side_effects; /* Connect GET is allowed */

	/* Unary and server streaming: the one request; streaming: each. The
	 * message is borrowed during the call. */
	void (*on_message)(struct rpc_call *call, const ProtobufCMessage *m);
	/* Client streaming: the client has sent its last message. */
	void (*on_half_close)(struct rpc_call *call);
	/* The peer is gone or the deadline has passed; NULL: nothing to do. */
	void (*on_cancel)(struct rpc_call *call);
};

struct rpc_service {
	const char *name; /* "stentor.v1.PublisherService" */
	const struct rpc_method *methods;
	size_t method_count;
	void *ctx; /* reaches handlers as call->service->ctx */
};

/* Implemented by the front that a call came by. */
struct rpc_front_ops {
	/* Queues one response message. */
	void (*send)(struct rpc_call *call, const ProtobufCMessage *m);
	/* Ends the call: status, and text for the client ("" for none). */
	void (*finish)(struct rpc_call *call, enum grpc_code code,
		       const char *text);
};

struct rpc_call {
	const struct rpc_service *service;
	const struct rpc_method *method;
	const struct rpc_front_ops *front;
	bool cancelled; /* nobody waits for the answer any more */
	bool finished;
	void *state; /* the handler's own */
	uint64_t started_ns;
};

void rpc_send(struct rpc_call *call, const ProtobufCMessage *m);
void rpc_finish(struct rpc_call *call, enum grpc_code code, const char *format,
		...) PRINTF(3, 4);
/* Unary: one message and OK. */
void rpc_reply(struct rpc_call *call, const ProtobufCMessage *m);
#define rpc_fail rpc_finish

/* Bytes of answers queued for the call that its client has not taken; a
 * stream's handler need not look: the front stops reading requests of a call
 * (and so closes its flow-control window) above API_SEND_QUEUE_MAX. */

/* Limits of the API port; fields are the options of the same name. */
struct api_limits {
	uint64_t connections_max;   /* 1024 */
	uint64_t streams_max;	    /* per connection: 1000 */
	uint64_t message_bytes_max; /* 4 MiB, uncompressed */
	uint64_t head_bytes_max;    /* 16 KiB */
	uint64_t head_timeout_ms;   /* 10 s: first bytes to a whole head */
	uint64_t body_timeout_ms;   /* 30 s: an h1 body */
	uint64_t idle_timeout_ms;   /* 5 min without a call or byte */
	uint64_t write_timeout_ms;  /* 30 s without a byte taken */
	uint64_t connection_age_ms; /* 0: for ever; else GOAWAY, +-10 % */
	uint64_t reset_burst, reset_rate; /* RST_STREAM received: 10000, 1000/s;
					     our own error resets likewise */
	uint64_t
		ping_min_interval_ms; /* 10 s; two strikes: ENHANCE_YOUR_CALM */
};

struct metrics;
struct api;

/* Counters the API keeps, rendered by api_metrics(): API_* rows below and
 * grpc_server_handled_total{grpc_service,grpc_method,grpc_code}. */
struct metrics_text;
void api_metrics(const struct api *api, struct metrics_text *t);

#include <uv.h>

/* `services` ends with a NULL name; borrowed for ever. */
int api_start(uv_loop_t *loop, const char *address,
	      const struct api_limits *limits,
	      const struct rpc_service *services, struct api **out) MUST_CHECK;
uint16_t api_port(const struct api *api);
/* Orderly end: no new connections, GOAWAY on every h2 connection (twice, as
 * nghttp2_submit_shutdown_notice wants), calls under way finish, then
 * on_drained; connections that are left after `grace_ms` are cut. */
void api_drain(struct api *api, uint64_t grace_ms,
	       void (*on_drained)(void *ctx), void *ctx);
/* After on_drained: frees. */
void api_free(struct api *api);

#endif

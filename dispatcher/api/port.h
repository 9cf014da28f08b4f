/* port.h - the API port and its connections (private to dispatcher/api).
 *
 *   accept -> SNIFF --- 24 bytes of HTTP/2 preface ---> h2 front
 *                  \--- anything else ----------------> h1 front
 *
 * A connection (conn.c) owns the socket, the bytes on their way out and the
 * clocks; its front owns the protocol. Input goes to the front as it comes;
 * whatever has something to say marks its connection dirty, and dirty
 * connections are flushed once, just before the loop sleeps: one write per
 * connection and turn of the loop. Where the port speaks TLS, conn_tls.c stands
 * between socket and connection; ALPN tells a client what we speak, and what it
 * then speaks is seen by its first bytes all the same. Timeouts of connections
 * are found by a sweep over all of them, deadlines of calls by a timing wheel.
 */
#ifndef STENTOR_DISPATCHER_API_PORT_H
#define STENTOR_DISPATCHER_API_PORT_H

#include "common/base/metrics.h"
#include "common/ds/buf.h"
#include "common/ds/limits.h"
#include "common/ds/slab.h"
#include "common/ds/wheel.h"
#include "common/io/handshakes.h"
#include "common/io/listener.h"
#include "common/io/tls.h"
#include "dispatcher/api/message.h"
#include "dispatcher/api/rpc.h"
#include "dispatcher/api/table.h"

#include <uv.h>

#define API_READ_BYTES	    (64u << 10)
#define API_OUT_HIGH	    (256u << 10) /* a connection's ready bytes */
#define API_TICK_MS	    10		 /* precision of deadlines */
#define API_SWEEP_MAX_MS    1000	 /* precision of timeouts, at most */
#define API_GATHER_MS	    1	       /* requests, answers of a busy stream */
#define API_GATHER_BYTES    (8u << 10) /* are sent without waiting */
#define API_GATHER_PROMPT   64	       /* answers at once in a ping-pong */
#define API_GOAWAY_WAIT_MS  1000       /* for the round trip of a GOAWAY */
#define API_SILENT_MS	    100	       /* to begin to speak, when all is full */
#define API_DRAIN_LISTEN_MS 100	       /* accepts what has begun to connect */
#define API_DRAIN_IDLE_MS   1000       /* a request may be on the wire */
#define API_AGE_IDLE_MS	    10000      /* one hardly comes any more */
#define API_DRAIN_SWEEP_MS  50
#define API_KEEPALIVE_S	    60	 /* silence before TCP asks if a peer lives */
#define API_LINGER_MS	    2000 /* for a refused peer to read why */
#define API_SCRATCH_MAX	    (64u << 20) /* an inflated message */
#define API_PLAIN_BYTES	    (16u << 10) /* a TLS record, decrypted */
/* nghttp2 hands out a frame at a time, at most 16 KiB and its head; h1 a whole
 * answer. */
#define CONN_OUT_MAX (API_OUT_HIGH + API_ANSWER_MAX + (64u << 10))
/* A small buffer is kept between writes, a large one is not. */
#define CONN_OUT_KEEP (16u << 10)

enum api_metric {
	API_CONNECTIONS,
	API_CONNECTIONS_ACCEPTED,
	API_CONNECTIONS_REJECTED,
	API_CONNECTIONS_CLOSED,
	API_CALLS,
	API_CALLS_CANCELLED,
	API_STREAMS_REFUSED,
	API_BODY_BYTES,
	API_QUEUED_BYTES,
	API_QUEUE_OVERFLOWS,
	API_BODY_OVERFLOWS,
	API_TLS_HANDSHAKES,
	API_METRICS
};

/* Why one was not taken: the label of API_CONNECTIONS_REJECTED. */
enum api_reject {
	API_REJECT_FULL,
	API_REJECT_ADDRESS,
	API_REJECT_FAILED,
	API_REJECT_FILES, /* no descriptor was left for it */
};

/* Why a connection ended; less one, the label of API_CONNECTIONS_CLOSED. */
enum close_reason {
	CLOSE_NONE,
	CLOSE_PEER,
	CLOSE_DONE, /* said goodbye in order: drain, age, idle, h1 close */
	CLOSE_HEAD_TIMEOUT,
	CLOSE_BODY_TIMEOUT,
	CLOSE_IDLE_TIMEOUT,
	CLOSE_WRITE_TIMEOUT,
	CLOSE_PROTOCOL,
	CLOSE_ABUSE,
	CLOSE_CUT,	/* the drain's time was over */
	CLOSE_MADE_WAY, /* had not said a word, and others came */
	CLOSE_REASONS
};

struct api_timer {
	struct wheel_timer in_wheel;
	void (*fire)(struct api_timer *t);
};

struct api {
	uv_loop_t *loop;
	struct api_limits limits;
	struct rpc_table table;
	struct listener listener;
	struct tls_context *tls;      /* NULL: the port is plain */
	uv_timer_t tls_refresh;	      /* runs while there is one */
	struct handshakes handshakes; /* struct conn.handshake */
	uv_idle_t spin;		      /* runs while some of them wait */
	uv_prepare_t prepare;	      /* flushes the dirty connections */
	uv_timer_t tick; /* runs while there are connections or calls */
	struct wheel wheel;
	uint64_t sweep_every_ms, swept_ms;
	struct list connections;
	struct list silent; /* of them, who have not said a word yet */
	struct list dirty;
	struct list gathering; /* struct h2_call.in_gathering */
	uv_timer_t gather;     /* runs while that is not empty */
	size_t connection_count;
	struct limits addresses;
	size_t calls; /* that handlers have not ended */
	struct slab h2_calls;
	struct message_arena arena;
	struct buf scratch;
	struct metrics metrics;
	size_t body_bytes;   /* of requests that are not complete */
	size_t queued_bytes; /* of answers that are not sent */
	bool listening, draining, drained;
	uint64_t drain_ms; /* since when */
	uint64_t cut_ms;   /* when draining ends connections by force */
	unsigned handles;
	void (*on_drained)(void *ctx);
	void *on_drained_ctx;
	uint8_t read_bytes[API_READ_BYTES];
	uint8_t plain[API_PLAIN_BYTES];
};

static inline uint64_t api_now(const struct api *api)
{
	return uv_now(api->loop);
}

void api_timer_arm(struct api *api, struct api_timer *t, uint64_t delay_ms);
/* A handler has a call now, or has ended it. */
void api_call_begun(struct api *api);
void api_call_ended(struct api *api);
/* Calls h2_calls_gathered() in API_GATHER_MS. */
void api_gather(struct api *api);
/* Accounts for bytes held; false when the port's budget forbids it. */
bool api_body_take(struct api *api, size_t bytes) MUST_CHECK;
void api_body_give(struct api *api, size_t bytes);

struct conn;

/* What a protocol does for a connection. */
struct conn_front {
	/* Input. CLOSE_NONE, or why the connection must end now. */
	enum close_reason (*input)(struct conn *c, const uint8_t *bytes,
				   size_t len);
	/* The peer has half-closed; true: the front still wants to answer. */
	bool (*half_close)(struct conn *c);
	/* Appends what is ready to c->out, up to about API_OUT_HIGH. */
	enum close_reason (*produce)(struct conn *c);
	/* All is said and the connection ends when c->out is written: why.
	 * CLOSE_NONE: it goes on. */
	enum close_reason (*finished)(const struct conn *c);
	/* Looks at its clocks. */
	enum close_reason (*sweep)(struct conn *c, uint64_t now_ms);
	/* Ends in order: calls under way, or on the wire, are answered. */
	void (*drain)(struct conn *c);
	/* Cancels its calls and frees itself. */
	void (*free)(struct conn *c);
};

struct conn {
	struct api *api;
	uv_tcp_t tcp;
	struct tls *tls; /* NULL: plain, or its handshake has not begun */
	struct handshake handshake;
	struct list in_api, in_silent;
	struct list in_dirty;
	struct limits_address *address; /* as counted; NULL: it is not */
	struct rpc_peer *peer;		/* holds it */
	const struct conn_front *front; /* NULL while sniffing */
	void *state;			/* the front's */
	uint8_t sniffed[24];
	size_t sniffed_len;
	struct buf out;	    /* ready to be written */
	struct buf writing; /* owned by the write under way */
	uv_write_t write;
	bool write_pending, reading, closing, half_closed;
	bool resting; /* not read until its answers have gathered */
	/* The peer may still be sending: closing at once would reset the
	 * connection before it has read the last that was said. */
	bool linger;
	uint64_t linger_ms;	   /* since when; 0: not yet */
	enum close_reason ended;   /* lingers, because of: */
	enum close_reason leaving; /* it ends in order: why */
	uint64_t leaving_ms;	   /* since when */
	unsigned calls; /* that keep it from being idle; kept by the front */
	uint64_t accepted_ms, age_max_ms; /* age_max_ms 0: none */
	uint64_t input_ms;		  /* last bytes from the peer */
	uint64_t progress_ms;		  /* last bytes that the kernel took */
};

extern const struct conn_front h1_front, h2_front;
/* Sets c->front and c->state. */
void h1_start(struct conn *c);
void h2_start(struct conn *c);

/* Accepts from the port's listener. */
void conn_accept(struct api *api);
/* Something is to be written, or read again: flush before the loop sleeps. */
void conn_mark_dirty(struct conn *c);
void conn_flush(struct conn *c);
void conn_sweep(struct conn *c, uint64_t now_ms);
/* Ends it in order: what is on the wire is served, then it closes. */
void conn_leave(struct conn *c, enum close_reason why);
/* It leaves, and a request on the wire would have come by now. */
bool conn_quiet(const struct conn *c, uint64_t now_ms);
/* Idempotent, asynchronous. Never from inside a front's callbacks. */
void conn_close(struct conn *c, enum close_reason reason);
/* For conn_tls.c: bytes of the peer; its end; writes c->writing, all of which
 * is there, and is then dirty. */
enum close_reason conn_input(struct conn *c, const uint8_t *bytes, size_t len);
void conn_eof(struct conn *c);
void conn_write_rest(struct conn *c);
/* What comes of input: goes on, or closes. */
void conn_settle(struct conn *c, enum close_reason reason);

/* conn_tls.c. What conn_input() is for a plain connection. */
enum close_reason conn_tls_input(struct conn *c, const uint8_t *bytes,
				 size_t len);
/* Each turn: begins handshakes that wait. True while there are more. */
bool conn_tls_turn(struct api *api);
bool conn_tls_pending(struct conn *c);
/* Encrypts and writes `out`; false when the kernel takes no more for now. */
bool conn_tls_write(struct conn *c);
/* Says that no more will come. */
void conn_tls_goodbye(struct conn *c);
/* Counts a handshake that is not over. */
void conn_tls_closing(struct conn *c, enum close_reason reason);

/* The last part of closing went: tells the port. */
void api_connection_gone(struct api *api);

#endif

/* session.h - one connection, from accept to close.
 *
 *	accept --> HEAD --request.c--> STREAM --> (doomed) --> CLOSING --> freed
 *	             |                   |                        ^
 *	             +-----> LEAVING <---+ last words, then close-+
 *
 * The phase is the list that it is on (struct sessions); session_move() is the
 * only way from one to another. Output is only queued; sessions_flush() writes
 * it, once a turn, but for a queue over its budget (lagging.h). Nothing is freed while others may hold it: a session is doomed
 * during a turn and closed at its end, its memory goes in libuv's close
 * callback.
 *
 * Limits: what waits for a stream (lagging.h). One that takes no byte for
 * stall-timeout-ms is closed.
 *
 * The main door of stream/, which knows clients:
 *
 *	in	a connection (session_accept()), and a turn's stages
 *	in	a message for a subscriber (lagging_push())
 *	in	what became of a log (replay.h)
 *	out	bytes, at the end of the turn (sessions_flush())
 *	out	a subscription, into channel/ and to the announcer (stream.c)
 */
#ifndef STENTOR_CONNNODE_STREAM_SESSION_H
#define STENTOR_CONNNODE_STREAM_SESSION_H

#include "common/ds/slab.h"
#include "common/ds/wheel.h"
#include "common/io/handshakes.h"
#include "common/io/tls.h"
#include "connnode/channel/channels.h"
#include "connnode/node/metrics.h"
#include "connnode/stream/backlog.h"
#include "connnode/stream/outq.h"

#include <uv.h>

struct auth_token;
struct http1;
struct limits_address;
struct listener;
struct session;
struct session_tls;
struct streams;
struct worker;

#define SESSION_TURN_BYTES (64u << 10) /* written to one connection a turn */
#define SESSION_IOV	   64
#define SESSION_STRAY_MAX  4096 /* bytes a client may send after its request */
#define SESSION_LEAVE_MS   2000 /* for a client to take the last bytes */

/* What a connection is used for. */
struct sessions_ops {
	/* Bytes in phase HEAD; and its end: the parser is not needed any more.
	 */
	void (*feed)(struct session *s, const char *bytes, size_t len);
	void (*head_over)(struct session *s);
	/* The head was not complete in time. */
	void (*timed_out)(struct session *s);
	/* It is a stream no more. */
	void (*unsubscribe)(struct session *s);
	/* A stream's time is over: session_leave(), with a word before. */
	void (*send_away)(struct session *s, const char *reason,
			  enum close_cause cause);
	/* Until the token ends that it lives by; UINT64_MAX: never. */
	uint64_t (*token_left_ms)(const struct session *s);
	/* The `id:` that goes before a message with a position, where the
	 * stream has several channels; NULL: none. One reference, the
	 * caller's. */
	struct frame *(*id)(struct session *s);
	/* replay_bytes of it were a page, and all has been taken. */
	void (*drained)(struct session *s);
	/* It ends: gives up what is held for it. */
	void (*gone)(struct session *s);
};

struct sessions_limits {
	uint64_t connections_max, heads_max; /* this worker's share */
	uint64_t heartbeat_ms, head_timeout_ms, stall_timeout_ms;
	uint64_t connection_age_ms; /* 0: none */
	/* lagging.h */
	uint64_t queue_bytes_max, queue_burst_bytes, queue_grace_ms;
	size_t memory_max; /* that frames may take */
};

/* The port's TLS: session_tls.h. */
struct sessions_tls {
	struct tls_context *context;  /* NULL: the port is plain */
	struct handshakes handshakes; /* struct session_tls.handshake */
	uint64_t refreshed_ms;
	uint64_t expires_s; /* its certificate; 0: none */
};

#define SESSIONS_READ_BYTES (64u << 10)

/* All connections of a worker. */
struct sessions {
	uv_loop_t *loop;
	struct metrics *metrics;
	const struct sessions_ops *ops;
	struct streams *above; /* the ops' */
	struct worker *worker; /* likewise */
	struct sessions_limits limits;
	struct sessions_tls tls;
	struct slab slab;	 /* struct session */
	struct list streams;	 /* struct session.in_phase: subscribed */
	struct list heads;	 /* likewise: still sending its request */
	struct list leaving;	 /* likewise: answered, flushing, closing */
	struct list dirty;	 /* struct session.in_dirty: has output */
	struct list doomed;	 /* likewise: to be closed */
	uint64_t dirty_since_ms; /* more than a turn could write; 0: not so */
	uint64_t stream_count, head_count, leaving_count;
	uint64_t blocked;	 /* streams that wait for their socket */
	struct wheel wheel;	 /* heartbeats, head and stall timeouts */
	struct frame *heartbeat; /* shared by all */
	size_t queued_bytes;	 /* over all */
	struct backlog backlog;	 /* struct session.in_backlog */
	char read_buffer[SESSIONS_READ_BYTES];
};

enum session_phase {
	SESSION_HEAD,
	SESSION_STREAM,
	SESSION_LEAVING,
	SESSION_CLOSING
};

struct session {
	uv_tcp_t tcp;
	struct sessions *all;
	struct list in_phase; /* heads, streams, leaving */
	struct list in_dirty; /* dirty or doomed */
	union {
		struct list in_waiting; /* for ready: see stream.h */
		struct list in_replays; /* after that: replay.h */
	};
	struct session_tls *tls; /* session_tls.h; NULL: none yet, or plain */
	struct wheel_timer timer;
	struct outq out;
	struct list in_backlog; /* by the size of its queue: backlog.h */
	union {
		struct http1 *parser; /* HEAD; NULL before the first byte */
		uv_write_t *blocked; /* STREAM, LEAVING: waits for the socket */
	};
	struct subscription first;	/* most streams have one channel */
	struct subscription *more;	/* the others, `subscriptions` - 1 */
	struct limits_address *address; /* that the stream counts for */
	struct auth_token *token;	/* that the stream lives by, or NULL */
	struct list in_token;		/* its users */
	uint64_t generation;		/* announcement to be confirmed */
	uint64_t ready_by_ms;
	uint64_t leave_at_ms; /* its age then is enough; 0: never */
	int fd;
	uint32_t stuck_bytes; /* blocked: left when the stall timer was armed */
	uint32_t list_hash;   /* place_list_hash() of its channels */
	uint16_t subscriptions;
	uint16_t replays; /* of its subscriptions, how many are held by one */
	uint32_t replay_bytes; /* of a page, queued and not yet all taken */
	uint32_t replay_since_ms,
		burst_ms; /* of the loop's time, the low half */
	uint16_t stray;	  /* bytes received after the request */
	uint8_t phase;
	uint8_t cause; /* enum close_cause, once doomed */
	uint8_t backlog_class;
	bool json, doomed, last_words;
	bool unchunked; /* HTTP/1.0: frames leave without their chunks */
	bool confirmed; /* all dispatchers know its channels */
	bool ready;	/* it was told stentor.ready */
	bool id_bad;	/* the Last-Event-ID it came with is none of ours */
	bool lags;	/* over its budget, and not level since */
	bool bursts;	/* over it since burst_ms */
	bool spoke;	/* more than heartbeats was queued since the last one */
};

/* A message, behind the stream's `id:` where it has several channels; whether
 * there is room is the caller's business. */
void session_push_message(struct session *s, struct frame *f);

static inline struct subscription *session_subscription(struct session *s,
							unsigned i)
{
	return i == 0 ? &s->first : &s->more[i - 1];
}

/* The lists, without limits, metrics, TLS and ops; before the first session. */
void sessions_init(struct sessions *all, uv_loop_t *loop);
/* When every session is gone, and the loop has ended. */
void sessions_fini(struct sessions *all);

/* Accepts one connection of the listener. */
void session_accept(struct sessions *all, struct listener *listener);

/* Queues a frame (holds its own reference) and marks the session dirty. */
void session_push(struct session *s, struct frame *f);
/* A frame (borrowed) as this client gets it: without chunks in HTTP/1.0. */
struct frame *session_on_wire(const struct session *s, struct frame *f);
/* Its queue was changed, and had `before` bytes. */
void session_requeued(struct session *s, size_t before);
/* Whether it waits for its socket; and the frames at the head of its queue
 * whose bytes are under way. */
bool session_blocked(const struct session *s);
uint32_t session_kept(const struct session *s);
/* Writes now, until no more than that waits or the socket takes no more. */
void session_write(struct session *s, size_t bytes_max);
/* The session will be closed at the end of the turn. */
void session_doom(struct session *s, enum close_cause cause);

/* From HEAD: the request became an event stream. */
void session_begin_stream(struct session *s);
/* After this, what is queued is written and the connection closed; used for
 * answers that are no streams, and for last words. */
void session_leave(struct session *s, enum close_cause cause);

/* A stage of the turn (turn.h): writes what the dirty have, closes the doomed.
 */
unsigned sessions_flush(struct sessions *all, unsigned budget);
bool sessions_pending(const struct sessions *all);
/* Every 100 ms or so: heartbeats, and who took too long. */
void sessions_tick(struct sessions *all);
/* Out of its queue go messages whose time is over. */
void session_drop_expired(struct session *s, uint64_t now_us);

static inline uint64_t sessions_now(const struct sessions *all)
{
	return uv_now(all->loop);
}

#endif

/* stream.h - a connection as an event stream: subscribe, ready, last words.
 *
 * The first bytes (response head, `retry:` with this client's own delay) leave
 * at once; then, when the subscription stands, the gaps there are to tell,
 * `event: stentor.ready` with the places it begins from (its `id:` too, so that
 * a client that never gets a message resumes from there), what it missed
 * (replay.h), and the live messages.
 *
 *	waiting --every live dispatcher has acknowledged the interest in all of
 *	   |      its channels, or ready-ms are over--> placing or placed
 *	placing --the logs of its reliable channels have a place here--> placed
 *	placed  --> ready
 *
 * All within one turn, and in one write, where everything is known already.
 *
 * A stream that ends as planned (drain, age, no room, its token) ends with the
 * last chunk: proxies of HTTP/2 and clients that are no EventSource take
 * anything else for a fault. One that is cut off was cut for a reason.
 */
#ifndef STENTOR_CONNNODE_STREAM_STREAM_H
#define STENTOR_CONNNODE_STREAM_STREAM_H

#include "common/codec/channel.h"
#include "connnode/channel/logs.h"
#include "connnode/stream/replay.h"

struct frame;
struct session;

#define STREAM_READY_SLICE 64 /* told in one turn */

#define STREAM_CONTENT_TYPE "text/event-stream; charset=utf-8"
/* A middle box that compresses would hold back what it has not got enough of. */
#define STREAM_HEADERS                              \
	"Cache-Control: no-store, no-transform\r\n" \
	"X-Accel-Buffering: no\r\n"

/* What a subscribe request asks for; each channel once. */
struct stream_request {
	char (*channel)[CHANNEL_NAME_MAX + 1]; /* room for channels-max */
	size_t count;
	bool json;
	bool http10;	   /* no chunks */
	char *query_value; /* room for two of url-bytes-max */
	/* Borrowed; NULL or "": none */
	const char *last_event_id, *token;
};

/* Whose these are is the owner's business. */
struct streams_use {
	struct sessions *sessions;
	struct channels *channels;
	struct announcer *announcer;
	struct logs *logs;
	struct metrics *metrics;
	/* The channel has subscribers, and a log from now on. */
	void (*open_log)(void *ctx, struct channel *ch);
	void *ctx;
	uint64_t retry_min_ms, retry_max_ms, ready_ms, channels_max;
};

/* All streams of a worker. */
struct streams {
	struct streams_use use;
	/* struct session.in_waiting: for ready, as above */
	struct list waiting, placing, placed;
	struct replays replays;
	/* Scratch for the places of one session; room for channels-max. */
	struct place *places;
	const char **names;
	char *id;
};

void streams_init(struct streams *st, const struct streams_use *use,
		  const struct replays_use *replays_use, size_t replay_bytes);
/* At the end, when no stream is left. */
void streams_fini(struct streams *st);

/* A client's own reconnection delay. */
uint32_t streams_retry_ms(const struct streams *st);

/* Becomes a stream with the wanted channels. */
void stream_begin(struct session *s, const struct stream_request *want,
		  const char *cors);
/* Answers with a stream that only says when to come back, and ends it. */
void stream_refuse(struct session *s, uint32_t retry_ms, const char *cors,
		   bool http10);
/* Tells the client its own delay and why, then leaves. */
void stream_send_away(struct session *s, const char *reason,
		      enum close_cause cause);
/* Out of all channels and of the waiting. */
void stream_unsubscribe(struct session *s);

/* A stage of the turn (turn.h): tells streams that they are ready. More are to
 * be told at once while `placed` has some. */
unsigned streams_ready(struct streams *st, unsigned budget);
/* A log's place became known, or is not needed any more: the session may be
 * ready now. */
void stream_placed(struct session *s);

/* The `id:` line of a session with several channels, glued to the frame that
 * will be pushed behind it; one reference, the caller's. NULL: it has no place
 * in any of them. */
struct frame *stream_id(struct session *s);
/* Where the client is in each of its channels, in scratch memory. */
struct place *stream_places(struct session *s);
/* stentor.gap; counted. Its id is what stands in the scratch memory. One
 * reference, the caller's. */
struct frame *stream_gap(struct session *s, const struct channel *ch,
			 const struct gap *gap);

/* All of a page has been taken. */
void stream_drained(struct session *s);

#endif

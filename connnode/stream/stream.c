#include "connnode/stream/stream.h"

#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "common/codec/sse.h"
#include "connnode/channel/render.h"
#include "connnode/stream/replay.h"
#include "connnode/stream/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_MAX 1024 /* response head and first chunk */

/* The connection is over with the stream, or a proxy that saw it end well would
 * use it again. */
static const char head_format[] = "HTTP/1.1 200 OK\r\n"
				  "Content-Type: " STREAM_CONTENT_TYPE "\r\n"
				  "Connection: close\r\n"
				  "%s" STREAM_HEADERS "%s\r\n";

/* Response head and `retry:` as one frame. HTTP/1.0 has no chunks (RFC 9112
 * 6.1): there the body ends with the connection. */
static void push_head(struct session *s, uint32_t retry_ms, const char *cors,
		      bool http10)
{
	char text[HEAD_MAX], retry[32];
	int retry_len =
		snprintf(retry, sizeof(retry), "retry: %u\n\n", retry_ms);
	int len =
		snprintf(text, sizeof(text), head_format,
			 http10 ? "" : "Transfer-Encoding: chunked\r\n", cors);
	struct frame *f;

	check(len > 0 && (size_t)len < sizeof(text));
	len += snprintf(text + len, sizeof(text) - (size_t)len,
			http10 ? "%.0u%s" : "%x\r\n%s\r\n",
			http10 ? 0 : (unsigned)retry_len, retry);
	check((size_t)len < sizeof(text));
	f = frame_from(text, (size_t)len);
	session_push(s, f);
	frame_release(f);
	s->unchunked = http10;
}

/* All is said. */
static void push_end(struct session *s)
{
	struct frame *end;

	if (s->unchunked)
		return;
	end = sse_last_chunk();
	session_push(s, end);
	frame_release(end);
}

uint32_t streams_retry_ms(const struct streams *st)
{
	uint64_t span = st->use.retry_max_ms > st->use.retry_min_ms
				? st->use.retry_max_ms - st->use.retry_min_ms
				: 0;

	return (uint32_t)(st->use.retry_min_ms + random_below(span + 1));
}

/* --- places ------------------------------------------------------------ */

struct place *stream_places(struct session *s)
{
	struct place *places = s->all->above->places;

	for (unsigned i = 0; i < s->subscriptions; i++)
		places[i] = subscription_place(session_subscription(s, i));
	return places;
}

/* The places in the scratch memory as an id, which is scratch too; NULL if
 * there is none in any channel. */
static const char *places_id(const struct session *s)
{
	struct streams *st = s->all->above;
	bool any = false;

	for (unsigned i = 0; i < s->subscriptions; i++)
		any |= st->places[i].epoch != 0;
	if (!any)
		return NULL;
	place_encode(st->id, s->list_hash, st->places, s->subscriptions);
	return st->id;
}

static const char *session_id(struct session *s)
{
	stream_places(s);
	return places_id(s);
}

struct frame *stream_id(struct session *s)
{
	const char *id = session_id(s);
	struct frame *f;

	if (id == NULL)
		return NULL;
	f = sse_render_id(id);
	f->glued = true;
	return f;
}

static const char *gap_end(char text[POSITION_JSON_SIZE],
			   const struct place *place)
{
	if (place->epoch == 0)
		return "null";
	render_position(text, place);
	return text;
}

struct frame *stream_gap(struct session *s, const struct channel *ch,
			 const struct gap *gap)
{
	char data[CHANNEL_NAME_MAX + 2 * POSITION_JSON_SIZE + 80];
	char from[POSITION_JSON_SIZE], to[POSITION_JSON_SIZE];
	struct sse_event e = {
		.event = "stentor.gap",
		.id = places_id(s),
		.data = data,
	};

	e.data_len = (size_t)snprintf(
		data, sizeof(data),
		"{\"channel\":\"%s\",\"reason\":\"%s\",\"from\":%s,\"to\":%s}",
		ch->name, gap_names[gap->reason], gap_end(from, &gap->from),
		gap_end(to, &gap->to));
	check(e.data_len < sizeof(data));
	metric_add(s->all->metrics, NM_GAPS, gap->reason, 1);
	return sse_render(&e);
}

static struct frame *on_gap(struct session *s, const struct channel *ch,
			    const struct gap *gap)
{
	stream_places(s);
	return stream_gap(s, ch, gap);
}

/* --- ready ------------------------------------------------------------- */

/* {"channels":[{"channel":"a","position":{...}},...]}; names need no escaping.
 */
static char *ready_data(struct session *s, size_t *len)
{
	size_t room = 32 + s->subscriptions * (CHANNEL_NAME_MAX +
					       POSITION_JSON_SIZE + 32u);
	char *data = xmalloc(room), position[POSITION_JSON_SIZE];
	size_t n = (size_t)snprintf(data, room, "{\"channels\":[");

	for (unsigned i = 0; i < s->subscriptions; i++) {
		const struct subscription *sub = session_subscription(s, i);
		struct place place = subscription_place(sub);

		n += (size_t)snprintf(data + n, room - n,
				      "%s{\"channel\":\"%s\"", i ? "," : "",
				      sub->channel->name);
		if (place.epoch != 0) {
			render_position(position, &place);
			n += (size_t)snprintf(data + n, room - n,
					      ",\"position\":%s", position);
		}
		n += (size_t)snprintf(data + n, room - n, "}");
	}
	n += (size_t)snprintf(data + n, room - n, "]}");
	check(n < room);
	*len = n;
	return data;
}

static void push_ready(struct session *s)
{
	struct sse_event e = {.event = "stentor.ready", .id = session_id(s)};
	char *data = ready_data(s, &e.data_len);
	struct streams *st = s->all->above;
	uint64_t waited_ms = sessions_now(st->use.sessions) + st->use.ready_ms -
			     s->ready_by_ms;
	struct frame *f;

	e.data = data;
	f = sse_render(&e);
	session_push(s, f);
	frame_release(f);
	free(data);
	metric_observe_us(st->use.metrics, NM_READY_LATENCY, 0,
			  waited_ms * 1000, 1);
}

/* The first come is the first whose announcement is confirmed. */
static void confirm(struct streams *st)
{
	uint64_t confirmed, now = sessions_now(st->use.sessions);

	if (list_empty(&st->waiting))
		return;
	confirmed = announcer_confirmed(st->use.announcer);
	while (!list_empty(&st->waiting)) {
		struct session *s = container_of(st->waiting.next,
						 struct session, in_waiting);

		if (s->generation > confirmed) {
			if (now < s->ready_by_ms)
				return;
			metric_add(st->use.metrics, NM_READY_TIMEOUTS, 0, 1);
		}
		s->confirmed = true;
		list_remove(&s->in_waiting);
		list_push_back(&st->placed, &s->in_waiting);
	}
}

void stream_placed(struct session *s)
{
	if (!s->confirmed || s->ready)
		return;
	list_remove(&s->in_waiting);
	list_push_back(&s->all->above->placed, &s->in_waiting);
}

unsigned streams_ready(struct streams *st, unsigned budget)
{
	unsigned i = 0;

	confirm(st);
	for (; i < min_of(budget, (unsigned)STREAM_READY_SLICE); i++) {
		struct list *node = list_pop_front(&st->placed);
		struct session *s;

		if (node == NULL)
			break;
		s = container_of(node, struct session, in_waiting);
		if (!replays_placed(&st->replays, s)) {
			list_push_back(&st->placing, &s->in_waiting);
			continue;
		}
		replays_resolve(s);
		push_ready(s);
		s->ready = true;
		replays_start(&st->replays, s);
	}
	return i;
}

/* --- beginning --------------------------------------------------------- */

/* Opens the channel's log, if it is to have one: by our rules, or because a
 * client comes back with a place in it. False: this client need not wait for
 * its place; it may be that no store is there to tell. */
static bool need_log(struct streams *st, struct channel *ch, bool claimed)
{
	bool wanted = claimed || rule_reliable(ch->rule);

	if (ch->log == NULL && wanted && ch->subscribers > 1)
		st->use.open_log(st->use.ctx, ch);
	else if (ch->log == NULL && wanted)
		logs_open(st->use.logs, ch, LOGS_SINCE_NOW);
	return wanted || (ch->log != NULL && log_known(ch->log));
}

static void subscribe_to(struct session *s, struct subscription *sub,
			 const char *name, const struct place *claim)
{
	/* Of a client that has a place, but it can't be read: none that any log
	 * has, so that it is as good as nothing if it comes back with it. */
	static const struct place unread = {1, 1};
	struct streams *st = s->all->above;
	struct channel *ch = channels_get(st->use.channels, name, strlen(name));
	unsigned variant = (s->json ? VARIANT_JSON : 0) |
			   (s->subscriptions == 1 ? VARIANT_ALONE : 0);

	if (channels_subscribe(st->use.channels, ch, sub, s, variant)) {
		ch->since_ms = clock_wall_ms();
		ch->log_left = (struct place){0, 0};
		announcer_touch(st->use.announcer, ch);
	}
	s->generation = max_of(s->generation, ch->generation);
	if (need_log(st, ch, claim != NULL))
		replay_begin(&st->replays, sub, s->id_bad ? &unread : claim);
}

/* The places that the client comes back with, in scratch memory;
 * NULL if it has none, or none that is ours. */
static const struct place *claims(struct session *s,
				  const struct stream_request *want)
{
	struct streams *st = s->all->above;

	if (want->last_event_id == NULL || want->last_event_id[0] == '\0')
		return NULL;
	if (place_decode(want->last_event_id, s->list_hash, st->places,
			 want->count) == 0)
		return st->places;
	s->id_bad = true;
	return NULL;
}

void stream_begin(struct session *s, const struct stream_request *want,
		  const char *cors)
{
	struct streams *st = s->all->above;
	const struct place *places;

	session_begin_stream(s);
	push_head(s, streams_retry_ms(st), cors, want->http10);
	s->json = want->json;
	s->subscriptions = (uint16_t)want->count;
	if (want->count > 1)
		s->more = xcalloc(want->count - 1, sizeof(*s->more));
	for (size_t i = 0; i < want->count; i++)
		st->names[i] = want->channel[i];
	s->list_hash = place_list_hash(st->names, want->count);
	places = claims(s, want);
	for (unsigned i = 0; i < want->count; i++)
		subscribe_to(s, session_subscription(s, i), want->channel[i],
			     places != NULL && places[i].epoch != 0 ? &places[i]
								    : NULL);
	s->ready_by_ms = sessions_now(st->use.sessions) + st->use.ready_ms;
	list_push_back(&st->waiting, &s->in_waiting);
}

/* --- ending ------------------------------------------------------------ */

void stream_unsubscribe(struct session *s)
{
	struct streams *st = s->all->above;

	replays_leave(&st->replays, s);
	for (unsigned i = 0; i < s->subscriptions; i++) {
		struct subscription *sub = session_subscription(s, i);
		struct channel *ch = sub->channel;

		if (!channels_unsubscribe(st->use.channels, sub))
			continue;
		if (ch->log != NULL) {
			replays_log_closed(&st->replays, ch);
			logs_close(st->use.logs, ch);
		}
		announcer_touch(st->use.announcer, ch);
	}
	s->subscriptions = 0;
	free(s->more);
	s->more = NULL;
	list_remove(&s->in_waiting);
}

void stream_refuse(struct session *s, uint32_t retry_ms, const char *cors,
		   bool http10)
{
	push_head(s, retry_ms, cors, http10);
	push_end(s);
	session_leave(s, CLOSED_CLIENT);
}

void stream_send_away(struct session *s, const char *reason,
		      enum close_cause cause)
{
	char data[64];
	struct sse_event e = {.event = "stentor.closing", .data = data};
	struct frame *retry = sse_render_retry(streams_retry_ms(s->all->above));
	struct frame *closing;

	e.data_len = (size_t)snprintf(data, sizeof(data), "{\"reason\":\"%s\"}",
				      reason);
	closing = sse_render(&e);
	session_push(s, retry);
	session_push(s, closing);
	push_end(s);
	frame_release(retry);
	frame_release(closing);
	session_leave(s, cause);
}

void stream_drained(struct session *s)
{
	replay_drained(&s->all->above->replays, s);
}

/* --- all of them ------------------------------------------------------- */

static const struct replays_ops replays_ops = {
	.gap = on_gap,
	.placed = stream_placed,
};

void streams_init(struct streams *st, const struct streams_use *use,
		  const struct replays_use *replays_use, size_t replay_bytes)
{
	size_t max = use->channels_max;

	st->use = *use;
	list_init(&st->waiting);
	list_init(&st->placing);
	list_init(&st->placed);
	st->places = xcalloc(max, sizeof(*st->places));
	st->names = xcalloc(max, sizeof(*st->names));
	st->id = xmalloc(PLACE_ID_SIZE(max));
	replays_init(&st->replays, replays_use, &replays_ops, replay_bytes);
}

void streams_fini(struct streams *st)
{
	replays_fini(&st->replays);
	free(st->places);
	free(st->names);
	free(st->id);
}

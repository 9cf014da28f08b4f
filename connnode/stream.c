#include "connnode/stream.h"

#include "common/base/mem.h"
#include "common/codec/sse.h"
#include "connnode/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_MAX 1024 /* response head and first chunk */

static const char head_format[] =
	"HTTP/1.1 200 OK\r\n"
	"Content-Type: " STREAM_CONTENT_TYPE "\r\n"
	"Transfer-Encoding: chunked\r\n" STREAM_HEADERS "%s\r\n";

/* Response head and `retry:` as one frame. */
static void push_head(struct session *s, uint32_t retry_ms, const char *cors)
{
	char text[HEAD_MAX], retry[32];
	int retry_len =
		snprintf(retry, sizeof(retry), "retry: %u\n\n", retry_ms);
	int len = snprintf(text, sizeof(text), head_format, cors);
	struct frame *f;

	check(len > 0 && (size_t)len < sizeof(text));
	len += snprintf(text + len, sizeof(text) - (size_t)len, "%x\r\n%s\r\n",
			(unsigned)retry_len, retry);
	check((size_t)len < sizeof(text));
	f = frame_from(text, (size_t)len);
	session_push(s, f);
	frame_release(f);
}

static struct subscription *subscription_at(struct session *s, unsigned i)
{
	return i == 0 ? &s->first : &s->more[i - 1];
}

/* --- ready ------------------------------------------------------------- */

/* {"channels":[{"channel":"a"},...]}; names need no escaping. */
static char *ready_data(struct session *s, size_t *len)
{
	size_t room = 32 + s->subscriptions * (CHANNEL_NAME_MAX + 16u);
	char *data = xmalloc(room);
	size_t n = (size_t)snprintf(data, room, "{\"channels\":[");

	for (unsigned i = 0; i < s->subscriptions; i++)
		n += (size_t)snprintf(data + n, room - n,
				      "%s{\"channel\":\"%s\"}", i ? "," : "",
				      subscription_at(s, i)->channel->name);
	n += (size_t)snprintf(data + n, room - n, "]}");
	check(n < room);
	*len = n;
	return data;
}

static void push_ready(struct session *s)
{
	struct sse_event e = {.event = "stentor.ready"};
	char *data = ready_data(s, &e.data_len);
	struct worker *w = s->worker;
	uint64_t waited_ms =
		worker_now(w) + w->options->ready_ms - s->ready_by_ms;
	struct frame *f;

	e.data = data;
	f = sse_render(&e);
	session_push(s, f);
	frame_release(f);
	free(data);
	metric_observe_us(&w->metrics, NM_READY_LATENCY, 0, waited_ms * 1000,
			  1);
}

void streams_ready(struct worker *w)
{
	uint64_t confirmed, now = worker_now(w);

	if (list_empty(&w->waiting))
		return;
	confirmed = announcer_confirmed(&w->announcer);
	while (!list_empty(&w->waiting)) {
		struct session *s = container_of(w->waiting.next,
						 struct session, in_waiting);

		if (s->generation > confirmed) {
			if (now < s->ready_by_ms)
				return;
			metric_add(&w->metrics, NM_READY_TIMEOUTS, 0, 1);
		}
		list_remove(&s->in_waiting);
		push_ready(s);
	}
}

/* --- beginning --------------------------------------------------------- */

static void subscribe_to(struct session *s, struct subscription *sub,
			 const char *name)
{
	struct worker *w = s->worker;
	struct channel *ch = channels_get(&w->channels, name, strlen(name));

	if (channels_subscribe(&w->channels, ch, sub, s, s->json))
		announcer_touch(&w->announcer, ch);
	s->generation = max_of(s->generation, ch->generation);
}

void stream_begin(struct session *s, const struct stream_request *want,
		  const char *cors)
{
	struct worker *w = s->worker;

	session_begin_stream(s);
	push_head(s, worker_retry_ms(w), cors);
	s->json = want->json;
	s->subscriptions = (uint16_t)want->count;
	if (want->count > 1)
		s->more = xcalloc(want->count - 1, sizeof(*s->more));
	for (unsigned i = 0; i < want->count; i++)
		subscribe_to(s, subscription_at(s, i), want->channel[i]);
	s->ready_by_ms = worker_now(w) + w->options->ready_ms;
	list_push_back(&w->waiting, &s->in_waiting);
}

/* --- ending ------------------------------------------------------------ */

void stream_unsubscribe(struct session *s)
{
	struct worker *w = s->worker;

	for (unsigned i = 0; i < s->subscriptions; i++) {
		struct subscription *sub = subscription_at(s, i);

		if (channels_unsubscribe(&w->channels, sub))
			announcer_touch(&w->announcer, sub->channel);
	}
	s->subscriptions = 0;
	free(s->more);
	s->more = NULL;
	list_remove(&s->in_waiting);
}

void stream_refuse(struct session *s, uint32_t retry_ms, const char *cors)
{
	push_head(s, retry_ms, cors);
	session_leave(s, CLOSED_CLIENT);
}

void stream_send_away(struct session *s, const char *reason,
		      enum close_cause cause)
{
	char data[64];
	struct sse_event e = {.event = "stentor.closing", .data = data};
	struct frame *retry = sse_render_retry(worker_retry_ms(s->worker));
	struct frame *closing;

	e.data_len = (size_t)snprintf(data, sizeof(data), "{\"reason\":\"%s\"}",
				      reason);
	closing = sse_render(&e);
	session_push(s, retry);
	session_push(s, closing);
	frame_release(retry);
	frame_release(closing);
	session_leave(s, cause);
}

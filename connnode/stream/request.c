#include "connnode/stream/request.h"

#include "common/base/err.h"
#include "connnode/stream/admission.h"
#include "connnode/stream/stream.h"
#include "connnode/web/webfile.h"
#include "connnode/worker.h"

#include <stdio.h>
#include <string.h>

#define ANSWER_MAX (1u << 20) /* bytes of one answer that is no stream */
#define FAULT_MAX  96	      /* bytes of a text that says what is wrong */

/* Parsers are needed only while a head is read, so they are shared. */
static struct http1 *parser_take(struct worker *w)
{
	struct http1_limits limits = {
		.head_max = w->options->head_bytes_max,
		.url_max = w->options->url_bytes_max,
		.body_max = 0,
	};

	if (w->parsers.count > 0)
		return w->parsers.free[--w->parsers.count];
	return http1_new(&limits);
}

static void parser_give(struct session *s)
{
	struct worker *w = s->all->worker;
	struct http1 *parser = s->parser;

	if (w->parsers.count == WORKER_PARSERS_MAX) {
		http1_free(parser);
		return;
	}
	http1_reset(parser);
	w->parsers.free[w->parsers.count++] = parser;
}

/* --- answers ----------------------------------------------------------- */

/* Is `origin` in the comma-separated list? */
static bool listed(const char *list, const char *origin)
{
	size_t len = strlen(origin);

	while (*list != '\0') {
		size_t item = strcspn(list, ",");

		if (item == len && strncasecmp(list, origin, len) == 0)
			return true;
		list += item + (list[item] == ',');
		list += strspn(list, " ");
	}
	return false;
}

void request_cors(const struct connnode_options *o, const char *origin,
		  char out[REQUEST_CORS_MAX])
{
	const char *list = o->cors_origins;

	out[0] = '\0';
	if (strcmp(list, "*") == 0)
		strcpy(out, "Access-Control-Allow-Origin: *\r\n");
	else if (origin != NULL && strlen(origin) < 256 && listed(list, origin))
		snprintf(out, REQUEST_CORS_MAX,
			 "Access-Control-Allow-Origin: %s\r\n"
			 "Access-Control-Allow-Credentials: true\r\n"
			 "Vary: Origin\r\n",
			 origin);
	else if (list[0] != '\0')
		strcpy(out, "Vary: Origin\r\n");
}

/* What is no stream does not count for its address. */
static void uncount(struct session *s)
{
	limits_leave(&s->all->worker->limits, s->address);
	s->address = NULL;
}

/* Answers and leaves. */
static void answer(struct session *s, int status, const char *type,
		   const char *headers, const void *body, size_t len, bool head)
{
	struct frame *f;
	struct buf out;

	uncount(s);
	buf_init(&out, ANSWER_MAX);
	if (http1_respond(&out, status, type, headers, body, len, false,
			  head) != 0) {
		buf_fini(&out);
		session_doom(s, CLOSED_CLIENT);
		return;
	}
	f = frame_from(out.bytes, out.len);
	buf_fini(&out);
	session_push(s, f);
	frame_release(f);
	session_leave(s, CLOSED_CLIENT);
}

static void reject(struct session *s, enum reject_reason reason, int status,
		   const char *headers, const char *text)
{
	char body[256];
	int len = snprintf(body, sizeof(body), "%s\n", text);

	metric_add(&s->all->worker->metrics, NM_REJECTED, reason, 1);
	answer(s, status, "text/plain; charset=utf-8", headers, body,
	       min_of((size_t)len, sizeof(body) - 1), false);
}

/* --- /v1/subscribe ----------------------------------------------------- */

#define PREFLIGHT                                                      \
	"Access-Control-Allow-Methods: GET, HEAD, OPTIONS\r\n"         \
	"Access-Control-Allow-Headers: Last-Event-ID, Authorization, " \
	"Cache-Control%s\r\n"                                          \
	"Access-Control-Max-Age: 86400\r\n"                            \
	"Vary: Access-Control-Request-Headers\r\n"
#define ASKED_MAX 512 /* bytes of header names that a page asks for */

/* What else the page's scripts send (traceparent, a tracker's own) is no reason
 * to keep it out: we don't look at it. `out` gets ", names", or nothing if they
 * are no names. */
static void asked_headers(const struct http1_request *r,
			  char out[ASKED_MAX + 3])
{
	static const char names[] = "abcdefghijklmnopqrstuvwxyz"
				    "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789-_., ";
	const char *asked = http1_get(r, "access-control-request-headers");

	out[0] = '\0';
	if (asked != NULL && asked[0] != '\0' && strlen(asked) <= ASKED_MAX &&
	    asked[strspn(asked, names)] == '\0')
		snprintf(out, ASKED_MAX + 3, ", %s", asked);
}

/* No room, or on the way out: the client is to come back, elsewhere or later.
 */
static void turn_away(struct session *s, const struct http1_request *r,
		      enum reject_reason reason, const char *cors)
{
	struct worker *w = s->all->worker;
	uint32_t retry_ms = streams_retry_ms(&w->streams);
	char headers[REQUEST_CORS_MAX + 64];

	if (reason == REJECT_FULL || reason == REJECT_RATE)
		retry_ms = comeback_ms(&w->comeback, worker_now(w),
				       worker_room_per_second(w), retry_ms);
	if (reason == REJECT_TOKEN_RATE)
		retry_ms = scrutiny_later_ms(&w->admission.scrutiny,
					     worker_now(w), retry_ms);
	uncount(s);
	if (http1_accepts(r, "text/event-stream")) {
		metric_add(&w->metrics, NM_REJECTED, reason, 1);
		stream_refuse(s, retry_ms, cors, r->http10);
		return;
	}
	snprintf(headers, sizeof(headers), "%sRetry-After: %u\r\n", cors,
		 (retry_ms + 999) / 1000);
	reject(s, reason, 503, headers,
	       reason == REJECT_DRAINING ? "draining" : "too many streams");
}

/* ERR_FULL: more than channels-max. */
static int want_channel(struct stream_request *want, const char *name,
			uint64_t max)
{
	size_t len = strlen(name);

	if (!channel_name_valid(name, len))
		return ERR_MALFORMED;
	for (size_t i = 0; i < want->count; i++) {
		if (strcmp(want->channel[i], name) == 0)
			return 0;
	}
	if (want->count == max)
		return ERR_FULL;
	memcpy(want->channel[want->count++], name, len + 1);
	return 0;
}

/* Fills `want`; a text says what is wrong, NULL that all is well. */
static const char *read_query(const struct worker *w,
			      const struct http1_request *r,
			      struct stream_request *want, char text[FAULT_MAX])
{
	const char *cursor = r->query;
	char name[32], *value = want->query_value;
	int rc;

	while ((rc = http1_query(&cursor, name, sizeof(name), value,
				 w->options->url_bytes_max + 1)) == 1) {
		if (strcmp(name, "channel") == 0) {
			rc = want_channel(want, value,
					  w->options->channels_max);
			if (rc == ERR_FULL) {
				snprintf(text, FAULT_MAX,
					 "channel: more than %llu in one "
					 "request",
					 (unsigned long long)
						 w->options->channels_max);
				return text;
			}
			if (rc != 0)
				return "channel: must be 1 to 128 bytes of "
				       "[A-Za-z0-9_.:~@/-]";
		} else if (strcmp(name, "format") == 0) {
			want->json = strcmp(value, "json") == 0;
			if (!want->json && strcmp(value, "raw") != 0)
				return "format: must be raw or json";
		} else if (strcmp(name, "last_event_id") == 0 &&
			   want->last_event_id == NULL) {
			/* The rest is read into what is left of the room. */
			want->last_event_id = value;
			value += strlen(value) + 1;
		} else if (strcmp(name, "token") == 0 && want->token == NULL) {
			want->token = value;
			value += strlen(value) + 1;
		}
	}
	if (rc == ERR_TOO_LARGE)
		return "query: a parameter is too long";
	if (rc != 0)
		return "query: malformed";
	return want->count > 0 ? NULL : "channel: at least one is needed";
}

static bool count_address(struct session *s)
{
	struct sockaddr_storage peer;
	socklen_t len = sizeof(peer);

	if (s->all->worker->limits.per_address_max == 0)
		return true;
	if (getpeername(s->fd, (struct sockaddr *)&peer, &len) != 0)
		return true; /* it has gone already */
	return limits_enter(&s->all->worker->limits, (struct sockaddr *)&peer,
			    &s->address);
}

static void begin(struct session *s, const struct stream_request *want,
		  const char *cors)
{
	stream_begin(s, want, cors);
	admission_join(s);
}

static void deny(struct session *s, const struct http1_request *r, int status,
		 const char *cors)
{
	char headers[REQUEST_CORS_MAX + 64], text[FAULT_MAX];

	switch (status) {
	case 401: /* RFC 6750 3: no more detail, it would help a guesser */
		snprintf(headers, sizeof(headers),
			 "%sWWW-Authenticate: Bearer\r\n", cors);
		reject(s, REJECT_UNAUTHORIZED, 401, headers,
		       "a token is needed");
		return;
	case 403:
		reject(s, REJECT_FORBIDDEN, 403, cors,
		       "the token is not for these channels");
		return;
	case 503:
		turn_away(s, r, REJECT_TOKEN_RATE, cors);
		return;
	default:
		snprintf(text, sizeof(text), "token: at most %d bytes",
			 TOKEN_BYTES_MAX);
		reject(s, REJECT_BAD_REQUEST, status, cors, text);
	}
}

/* Who asks is known before anything is spent on it that others wait for: room,
 * this second's share of new streams, a place in the queue of those who are to
 * come back. */
static void admit(struct session *s, const struct http1_request *r,
		  const struct stream_request *want, const char *cors)
{
	struct worker *w = s->all->worker;
	bool stream = http1_accepts(r, "text/event-stream");
	int status = admission_check(&w->admission, s, r, want);

	if (status != 0)
		deny(s, r, status, cors);
	else if (w->sessions.stream_count >=
			 w->sessions.limits.connections_max ||
		 w->channels.subscriptions + want->count >
			 w->options->subscriptions_max)
		turn_away(s, r, REJECT_FULL, cors);
	else if (stream ? !limits_take(&w->limits, worker_now(w))
			: !limits_left(&w->limits, worker_now(w)))
		turn_away(s, r, REJECT_RATE, cors);
	else if (!stream)
		reject(s, REJECT_NOT_ACCEPTABLE, 406, cors,
		       "this resource is text/event-stream");
	else
		begin(s, want, cors);
}

static void subscribe(struct session *s, const struct http1_request *r,
		      const char *cors)
{
	struct worker *w = s->all->worker;
	struct stream_request *want = &w->wanted;
	char text[FAULT_MAX];
	const char *fault;

	want->count = 0;
	want->json = false;
	want->http10 = r->http10;
	want->last_event_id = want->token = NULL;
	fault = read_query(w, r, want, text);
	/* A browser's own, when it comes back, is newer than the page's. */
	if (http1_get(r, "last-event-id") != NULL)
		want->last_event_id = http1_get(r, "last-event-id");
	if (fault != NULL)
		reject(s, REJECT_BAD_REQUEST, 400, cors, fault);
	else if (w->drain.pace.draining)
		turn_away(s, r, REJECT_DRAINING, cors);
	else if (!count_address(s))
		turn_away(s, r, REJECT_ADDRESS, cors);
	else
		admit(s, r, want, cors);
}

static void preflight(struct session *s, const struct http1_request *r,
		      const char *cors)
{
	char headers[REQUEST_CORS_MAX + sizeof(PREFLIGHT) + ASKED_MAX];
	char asked[ASKED_MAX + 3];

	asked_headers(r, asked);
	snprintf(headers, sizeof(headers), "%s" PREFLIGHT, cors, asked);
	answer(s, 204, NULL, headers, NULL, 0, false);
}

static void wrong_method(struct session *s, const char *cors,
			 const char *allowed)
{
	char headers[REQUEST_CORS_MAX + 64];

	snprintf(headers, sizeof(headers), "%sAllow: %s\r\n", cors, allowed);
	reject(s, REJECT_METHOD, 405, headers, "method not allowed");
}

static void on_subscribe(struct session *s, const struct http1_request *r,
			 const char *cors)
{
	char headers[REQUEST_CORS_MAX + sizeof(STREAM_HEADERS)];

	if (strcmp(r->method, "GET") == 0) {
		subscribe(s, r, cors);
	} else if (strcmp(r->method, "HEAD") == 0) {
		snprintf(headers, sizeof(headers), "%s" STREAM_HEADERS, cors);
		answer(s, 200, STREAM_CONTENT_TYPE, headers, "", 0, true);
	} else if (strcmp(r->method, "OPTIONS") == 0) {
		preflight(s, r, cors);
	} else {
		wrong_method(s, cors, "GET, HEAD, OPTIONS");
	}
}

/* --- dispatch ---------------------------------------------------------- */

static void on_webfile(struct session *s, const struct http1_request *r,
		       const struct webfile *file, const char *cors)
{
	bool head = strcmp(r->method, "HEAD") == 0;

	if (!head && strcmp(r->method, "GET") != 0)
		wrong_method(s, cors, "GET, HEAD");
	else
		answer(s, 200, file->content_type, WEBFILE_HEADERS, file->bytes,
		       webfile_length(file), head);
}

/* Every answer that says no says so to pages as well: without CORS a page sees
 * a network failure. */
static void on_request(struct session *s, const struct http1_request *r)
{
	char cors[REQUEST_CORS_MAX];
	const struct webfile *file;

	request_cors(s->all->worker->options, http1_get(r, "origin"), cors);
	if (strcmp(r->path, "/v1/subscribe") == 0)
		on_subscribe(s, r, cors);
	else if ((file = webfile_find(r->path)) != NULL)
		on_webfile(s, r, file, cors);
	else
		reject(s, REJECT_NOT_FOUND, 404, cors, "not found");
}

/* For a request that is refused unread. Its Origin may not have come yet; the
 * only one that is allowed may be told to anybody. */
static void refused_cors(const struct session *s, char cors[REQUEST_CORS_MAX])
{
	const struct connnode_options *o = s->all->worker->options;
	const char *origin = http1_origin(s->parser);

	if (origin == NULL && strchr(o->cors_origins, ',') == NULL)
		origin = o->cors_origins;
	request_cors(o, origin, cors);
}

static void feed(struct session *s, const char *bytes, size_t len)
{
	const struct http1_request *r;
	char cors[REQUEST_CORS_MAX];
	size_t used;
	int rc;

	if (s->parser == NULL)
		s->parser = parser_take(s->all->worker);
	rc = http1_feed(s->parser, bytes, len, &used, &r);
	if (rc > 0) {
		on_request(s, r);
	} else if (rc < 0) {
		refused_cors(s, cors);
		reject(s, REJECT_BAD_REQUEST, http1_status(s->parser), cors,
		       http1_why(s->parser));
	}
}

static void time_out(struct session *s)
{
	char cors[REQUEST_CORS_MAX];

	/* A connection that never asked for anything gets no answer. */
	if (s->parser == NULL) {
		session_doom(s, CLOSED_CLIENT);
		return;
	}
	refused_cors(s, cors);
	answer(s, 408, "text/plain; charset=utf-8", cors,
	       "the request took too long\n", 26, false);
}

static void give_up(struct session *s)
{
	uncount(s);
	admission_leave(&s->all->worker->admission, s);
}

const struct sessions_ops request_ops = {
	.feed = feed,
	.head_over = parser_give,
	.timed_out = time_out,
	.unsubscribe = stream_unsubscribe,
	.send_away = stream_send_away,
	.token_left_ms = admission_left_ms,
	.id = stream_id,
	.drained = stream_drained,
	.gone = give_up,
};

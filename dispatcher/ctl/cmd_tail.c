/* stentorctl tail: follow channels live, as a browser would.
 *
 * Without --node it asks the dispatcher for the nodes and takes any one that
 * has a ready worker, anew for each connection, so that it survives a node.
 * The first connection must succeed; a later loss is answered by coming back,
 * after the stream's own `retry:`, with Last-Event-ID.
 */
#include "common/base/clock.h"
#include "common/base/hash.h"
#include "common/codec/place.h"
#include "common/ds/buf.h"
#include "dispatcher/ctl/client.h"
#include "dispatcher/ctl/commands.h"
#include "dispatcher/ctl/print.h"
#include "dispatcher/ctl/ssereader.h"

#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#define RETRY_DEFAULT_MS 2000
#define BACKOFF_MAX_MS	 30000
#define SILENCE_MAX_MS	 60000 /* four heartbeats */
#define COUNT_MAX	 1000000000
#define URL_MAX		 65536
#define REFUSAL_MAX	 4096

/* What ids are made of. */
#define ID_ALPHABET                  \
	"abcdefghijklmnopqrstuvwxyz" \
	"ABCDEFGHIJKLMNOPQRSTUVWXYZ" \
	"0123456789._-"

enum { OPTION_NODE, OPTION_COUNT, OPTION_RAW, OPTION_SINCE };

const struct ctl_option ctl_tail_options[] = {
	[OPTION_NODE] = {"node", "URL",
			 "connection node, host:port (default: one that the "
			 "dispatcher knows)"},
	[OPTION_COUNT] = {"count", "N", "end after N messages"},
	[OPTION_RAW] = {"raw", NULL, "print the event stream as it comes"},
	[OPTION_SINCE] = {"since", "PLACE",
			  "begin after this place: EPOCH:OFFSET of the one "
			  "channel, or an event id"},
	{NULL, NULL, NULL},
};

struct tail {
	const struct ctl_args *args;
	bool raw, json;
	unsigned long count, count_max; /* messages; 0: no maximum */
	struct ctl_sse_reader reader;
	bool stood;	   /* a stream was open once */
	unsigned failures; /* since then */

	/* of the connection under way */
	CURL *curl;
	struct buf node, url;
	struct buf refusal; /* the body of an answer that is no stream */
	uint64_t heard_ms;
	bool streaming, too_large, done;
};

/* --- output ------------------------------------------------------------ */

static void print_time(void)
{
	uint64_t now_ms = clock_wall_ms();
	time_t seconds = (time_t)(now_ms / 1000);
	struct tm tm;
	char text[16];

	localtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%H:%M:%S", &tm);
	printf("%s.%03u ", text, (unsigned)(now_ms % 1000));
}

static void print_message(const struct ctl_sse_event *event)
{
	json_t *message = json_loadb(event->data, event->data_len, 0, NULL);
	const char *channel = ctl_json_text(message, "channel");
	json_t *text = json_object_get(message, "data");
	bool named = strcmp(event->event, "message") != 0;

	print_time();
	ctl_print_text(stdout, channel, strlen(channel), -1);
	fputs(named ? " [" : "  ", stdout);
	if (named) {
		ctl_print_text(stdout, event->event, strlen(event->event), -1);
		fputs("] ", stdout);
	}
	if (json_is_string(text))
		ctl_print_text(stdout, json_string_value(text),
			       json_string_length(text), 13);
	else
		ctl_print_text(stdout, event->data, event->data_len, 13);
	putchar('\n');
	json_decref(message);
}

/* "# gap in score:42: expired, from 1760000000000:3 to 1760000000000:9" */
static void note_gap(const struct ctl_sse_event *event)
{
	json_t *gap = json_loadb(event->data, event->data_len, 0, NULL);
	const char *channel = ctl_json_text(gap, "channel");
	const char *reason = ctl_json_text(gap, "reason");
	char from[CTL_POSITION_SIZE], to[CTL_POSITION_SIZE];

	fputs("# gap in ", stderr);
	ctl_print_text(stderr, channel, strlen(channel), -1);
	fputs(": ", stderr);
	ctl_print_text(stderr, reason, strlen(reason), -1);
	fprintf(stderr, ", from %s to %s\n",
		ctl_json_position(gap, "from", from),
		ctl_json_position(gap, "to", to));
	json_decref(gap);
}

/* An event of Stentor's own, for people on stderr, so that stdout has nothing
 * but messages. */
static void note_event(const struct ctl_sse_event *event)
{
	if (strcmp(event->event, "stentor.gap") == 0) {
		note_gap(event);
		return;
	}
	fprintf(stderr, "# %s ", event->event);
	ctl_print_text(stderr, event->data, event->data_len, -1);
	fputc('\n', stderr);
}

static void print_event_json(const struct ctl_sse_event *event)
{
	json_t *line = json_pack("{s:s, s:s%}", "event", event->event, "data",
				 event->data, event->data_len);

	if (line) /* else it was not UTF-8, which Stentor never sends */
		json_dumpf(line, stdout, JSON_COMPACT);
	putchar('\n');
	json_decref(line);
}

static void on_event(void *ctx, const struct ctl_sse_event *event)
{
	struct tail *t = ctx;
	bool ours = strncmp(event->event, "stentor.", 8) == 0;

	if (t->done)
		return;
	if (!t->raw && t->json && ours)
		print_event_json(event);
	else if (!t->raw && t->json)
		printf("%s\n", event->data); /* is a line of JSON */
	else if (!t->raw && ours)
		note_event(event);
	else if (!t->raw)
		print_message(event);
	if (!ours && ++t->count == t->count_max)
		t->done = true;
}

/* --- one connection ---------------------------------------------------- */

static bool is_stream(CURL *curl)
{
	const char *type = NULL;
	long status = 0;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &type);
	return status == 200 && type &&
	       strncasecmp(type, "text/event-stream", 17) == 0;
}

static size_t on_bytes(char *bytes, size_t size, size_t count, void *ctx)
{
	struct tail *t = ctx;
	size_t len = size * count;

	t->heard_ms = clock_monotonic_ms();
	if (!t->streaming && !is_stream(t->curl)) {
		size_t room = REFUSAL_MAX - t->refusal.len;

		return buf_append(&t->refusal, bytes, min_of(len, room)) == 0
			       ? len
			       : 0;
	}
	if (!t->streaming) {
		t->streaming = t->stood = true;
		t->failures = 0;
	}
	if (t->raw)
		fwrite(bytes, 1, len, stdout);
	t->too_large = ctl_sse_feed(&t->reader, bytes, len) != 0;
	fflush(stdout);
	return t->too_large || t->done ? 0 : len;
}

/* libcurl calls this about once a second. Nonzero ends the connection. */
static int on_progress(void *ctx, curl_off_t a, curl_off_t b, curl_off_t c,
		       curl_off_t d)
{
	const struct tail *t = ctx;
	uint64_t silence = clock_monotonic_ms() - t->heard_ms;

	(void)a, (void)b, (void)c, (void)d;
	return silence > (t->streaming ? SILENCE_MAX_MS
				       : (uint64_t)ctl_timeout_ms(t->args));
}

static int make_url(struct tail *t)
{
	size_t node_len = t->node.len;
	int err;

	while (node_len > 0 && t->node.bytes[node_len - 1] == '/')
		node_len--;
	buf_clear(&t->url, URL_MAX);
	err = buf_printf(&t->url, "%.*s/v1/subscribe?format=%s", (int)node_len,
			 (const char *)t->node.bytes, t->raw ? "raw" : "json");
	for (size_t i = 0; i < t->args->count && !err; i++) {
		char *name = curl_easy_escape(t->curl, t->args->argument[i], 0);

		check(name);
		err = buf_printf(&t->url, "&channel=%s", name);
		curl_free(name);
	}
	return err;
}

static CURLcode perform(struct tail *t, const char *authorization, char *why)
{
	CURL *curl = t->curl;
	const char *id = ctl_sse_last_id(&t->reader);
	struct curl_slist *headers = NULL;
	struct buf line;
	CURLcode rc;

	buf_init(&line, CTL_SSE_EVENT_MAX + 64);
	headers = curl_slist_append(headers, "Accept: text/event-stream");
	headers = curl_slist_append(headers, "Cache-Control: no-cache");
	if (*authorization)
		headers = curl_slist_append(headers, authorization);
	if (*id && buf_printf(&line, "Last-Event-ID: %s", id) == 0)
		headers = curl_slist_append(headers, (char *)line.bytes);
	ctl_set_tls(t->args, curl);
	curl_easy_setopt(curl, CURLOPT_URL, (char *)t->url.bytes);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS,
			 ctl_timeout_ms(t->args));
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "stentorctl");
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, why);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, on_bytes);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, t);
	curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, on_progress);
	curl_easy_setopt(curl, CURLOPT_XFERINFODATA, t);
	rc = curl_easy_perform(curl);
	curl_slist_free_all(headers);
	buf_fini(&line);
	return rc;
}

/* --- which node -------------------------------------------------------- */

static bool has_ready_worker(const json_t *node)
{
	const json_t *worker;
	size_t i;

	json_array_foreach(json_object_get(node, "workers"), i, worker)
	{
		if (strcmp(ctl_json_text(worker, "state"),
			   "WORKER_STATE_READY") == 0)
			return true;
	}
	return false;
}

/* Where to connect: the address the node listens on, or, where that is a
 * wildcard, its port on the host that dispatchers reach the node under. */
static int set_node(struct tail *t, const json_t *node)
{
	const char *listen = ctl_json_text(node, "listenAddress");
	const json_t *workers = json_object_get(node, "workers");
	const char *link =
		ctl_json_text(json_array_get(workers, 0), "linkAddress");
	const char *host = strstr(link, "://");
	const char *port = strrchr(listen, ':');
	bool wildcard = strncmp(listen, "0.0.0.0:", 8) == 0 ||
			strncmp(listen, "[::]:", 5) == 0 || port == listen;

	buf_clear(&t->node, URL_MAX);
	host = host ? host + 3 : link;
	if (wildcard && strrchr(host, ':'))
		return buf_printf(&t->node, "http://%.*s%s",
				  (int)(strrchr(host, ':') - host), host, port);
	return buf_printf(&t->node, "%s%s", ctl_url_scheme(listen), listen);
}

static int tail_find_node(struct tail *t)
{
	const json_t *node, *chosen = NULL;
	json_t *response;
	size_t i, ready = 0;
	int rc = ctl_call(t->args, "stentor.v1.ClusterService/ListNodes",
			  json_object(), &response);

	if (rc != CTL_OK)
		return rc;
	json_array_foreach(json_object_get(response, "nodes"), i, node)
	{
		if (has_ready_worker(node) &&
		    *ctl_json_text(node, "listenAddress") &&
		    random_below(++ready) == 0) /* each with equal chance */
			chosen = node;
	}
	if (!chosen) {
		ctl_complain("the dispatcher knows no connection node that is "
			     "ready");
		rc = CTL_UNAVAILABLE;
	} else if (set_node(t, chosen) != 0) {
		rc = CTL_FAILED;
	}
	json_decref(response);
	return rc;
}

/* --- again and again --------------------------------------------------- */

/* What to do after a connection: an exit code, or AGAIN. */
#define AGAIN (-1)

static int tail_judge(struct tail *t, CURLcode rc, const char *why)
{
	long status = 0;

	curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
	if (t->done)
		return CTL_OK;
	if (t->too_large) {
		ctl_complain("an event is larger than %u bytes",
			     CTL_SSE_EVENT_MAX);
		return CTL_FAILED;
	}
	if (is_stream(t->curl)) { /* perhaps closed before the first byte */
		t->stood = true;
		return AGAIN;
	}
	if (status == 204) {
		fputs("# the node asks not to come back\n", stderr);
		return CTL_OK;
	}
	if (status == 200 || (status >= 400 && status < 500)) {
		fprintf(stderr, "stentorctl: HTTP status %ld from %s: ", status,
			(char *)t->url.bytes);
		ctl_print_text(stderr, (char *)t->refusal.bytes, t->refusal.len,
			       -1);
		fputc('\n', stderr);
		return CTL_FAILED;
	}
	if (status > 0)
		ctl_complain("HTTP status %ld from %s", status,
			     (char *)t->url.bytes);
	else
		ctl_complain("%s: %s", (char *)t->node.bytes,
			     *why ? why : curl_easy_strerror(rc));
	return t->stood ? AGAIN : CTL_UNAVAILABLE;
}

static int connect_once(struct tail *t)
{
	const char *given = t->args->option[OPTION_NODE];
	char authorization[CTL_AUTHORIZATION_SIZE];
	char why[CURL_ERROR_SIZE] = "";
	CURLcode code;
	int rc = ctl_authorization(t->args, authorization);

	if (rc != CTL_OK)
		return rc;
	buf_clear(&t->node, URL_MAX);
	rc = given ? buf_printf(&t->node, "%s%s", ctl_url_scheme(given), given)
		   : tail_find_node(t);
	if (rc == CTL_UNAVAILABLE && t->stood)
		return AGAIN;
	if (rc != CTL_OK)
		return rc;
	t->curl = curl_easy_init();
	check(t->curl);
	rc = make_url(t);
	if (rc != 0) {
		ctl_complain("so many channels make the address too long");
		curl_easy_cleanup(t->curl);
		return CTL_USAGE;
	}
	ctl_sse_restart(&t->reader);
	buf_clear(&t->refusal, REFUSAL_MAX);
	t->streaming = false;
	t->heard_ms = clock_monotonic_ms();
	code = perform(t, authorization, why);
	rc = tail_judge(t, code, why);
	curl_easy_cleanup(t->curl);
	return rc;
}

static void wait_before_retry(struct tail *t)
{
	uint64_t backoff = t->failures ? 500u << min_of(t->failures, 6u) : 0;
	uint64_t ms = max_of(t->reader.retry_ms,
			     min_of(backoff, (uint64_t)BACKOFF_MAX_MS));
	struct timespec pause = {.tv_sec = (time_t)(ms / 1000),
				 .tv_nsec = (long)(ms % 1000) * 1000000};

	t->failures++;
	fprintf(stderr, "# connection lost, again in %.1f s\n",
		(double)ms / 1000);
	nanosleep(&pause, NULL);
}

static int tail_follow(struct tail *t)
{
	int rc;

	while ((rc = connect_once(t)) == AGAIN)
		wait_before_retry(t);
	return rc;
}

/* The id that --since stands for. */
static int set_since(struct tail *t, const char *since)
{
	char id[PLACE_ID_SIZE(1)];
	struct place place;

	if (ctl_position(since, &place.epoch, &place.offset) &&
	    t->args->count == 1) {
		place_encode(id, place_list_hash(t->args->argument, 1), &place,
			     1);
		since = id;
	}
	if (!*since || since[strspn(since, ID_ALPHABET)]) {
		ctl_complain("--since is EPOCH:OFFSET, for one channel, or an "
			     "event id of the same channels, not '%s'",
			     since);
		return CTL_USAGE;
	}
	return ctl_sse_resume(&t->reader, since) == 0 ? CTL_OK : CTL_USAGE;
}

int ctl_tail(const struct ctl_args *args)
{
	const char *count = args->option[OPTION_COUNT];
	const char *node = args->option[OPTION_NODE];
	const char *since = args->option[OPTION_SINCE];
	struct tail t = {
		.args = args,
		.raw = args->option[OPTION_RAW] != NULL,
		.json = args->global[CTL_JSON] != NULL,
	};
	int rc = CTL_OK;

	if (count && !ctl_number(count, 1, COUNT_MAX, &t.count_max)) {
		ctl_complain("--count is a number from 1 to %d", COUNT_MAX);
		return CTL_USAGE;
	}
	if (node && !ctl_url_valid(node)) {
		ctl_complain(
			"--node is host:port or http://host:port, not '%s'",
			node);
		return CTL_USAGE;
	}
	ctl_sse_init(&t.reader, RETRY_DEFAULT_MS, on_event, &t);
	buf_init(&t.node, URL_MAX);
	buf_init(&t.url, URL_MAX);
	buf_init(&t.refusal, REFUSAL_MAX);
	if (since)
		rc = set_since(&t, since);
	if (rc == CTL_OK)
		rc = tail_follow(&t);
	buf_fini(&t.refusal);
	buf_fini(&t.url);
	buf_fini(&t.node);
	ctl_sse_fini(&t.reader);
	return rc;
}

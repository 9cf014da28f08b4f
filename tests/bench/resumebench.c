/*
 * resumebench - many browsers' EventSources that never give up: they come back
 * to any node with Last-Event-ID, and each checks that nothing of its channels
 * was lost, doubled or out of order over all its connections.
 *
 * One process, one epoll loop. Like an EventSource, a subscriber keeps the last
 * `id:` of a whole event over all connections, comes back `retry:` milliseconds
 * after whatever ended one, and sends that id. Unlike one, those with an odd
 * number also give up a connection that is silent for --silence-ms. Each comes
 * back to one of the --to addresses, by chance (--seed).
 *
 * A message starts with the stamp of bench.h: stream is the channel's number
 * plus one (0: the only channel), seq its number in the channel, which is also
 * its offset in the store (resumecheck.h).
 *
 *	stdout: "ready"     each has had its first stentor.ready
 *	stdin:  "stats"     one JSON object; of latencies since the last reset
 *	        "reset"     begins a new latency window
 *	        "tops A B"  each channel's last number, from channel 0 on: what
 *	                    `behind` of later stats is measured against
 *	        "patient"   from now on nobody gives up
 *	        "drop"      closes all connections and stays away
 *	        "go"        comes back, all at once
 *	        "quit"      (or end of input) ends
 *
 * Faults are told on stderr, the first FAULTS_TOLD of them. Bounded by
 * --max-seconds whatever happens.
 */
#include "bench.h"
#include "hist.h"
#include "resumecheck.h"
#include "sseinput.h"

#include <getopt.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

#define SUBSCRIBERS_MAX 100000u
#define CHANNELS_MAX	100000u
#define CHANNELS_EACH	16u
#define NODES_MAX	64u
#define EVENTS_MAX	1024
#define REQUEST_MAX	8192u
#define ID_MAX		4096u
#define TICK_MS		20 /* how late a reconnect may be */
#define CONNECTS_A_TURN 512u
#define FAULTS_TOLD	100u
#define GAPS_SHOWN	5u    /* of those that are true */
#define RETRY_MS	3000u /* until a server says otherwise */
#define NEVER		UINT64_MAX

enum format { FORMAT_RAW, FORMAT_JSON, FORMAT_MIXED };

struct options {
	struct sockaddr_in to[NODES_MAX];
	uint32_t nodes;
	const char *channel; /* with %d: its number, of `channels` */
	enum format format;
	uint32_t subscribers;
	uint32_t channels;
	uint32_t each;	     /* channels of one subscriber */
	uint32_t retry_ms;   /* most; 0: as the server says */
	uint32_t silence_ms; /* 0: all are patient */
	uint32_t seed;
	uint32_t max_seconds;
};

struct counters {
	uint64_t connects, resumes, refused, ended, silent, bad_status;
	uint64_t malformed, notices, strays, misplaced;
	uint64_t messages, replayed;
	struct resume_counts order;
};

enum state { SUB_AWAY, SUB_CONNECTING, SUB_OPEN };

struct subscriber {
	struct sse_input input;
	int fd;
	uint32_t number;
	uint32_t retry_ms;
	uint32_t node; /* it is, or was, connected to */
	uint8_t state;
	bool ready, was_ready;
	uint32_t id_len;
	char *id;		     /* the last one; NULL: none yet; owned */
	uint64_t begun_ns;	     /* this connection */
	uint64_t ready_ns;	     /* 0: not yet */
	struct resume_check *checks; /* of each of its channels */
};

struct bench {
	struct options options;
	size_t channel_prefix; /* bytes of the name before the number */
	struct subscriber *subscribers;
	uint64_t *due_ns; /* of each: when to come back or lose patience */
	uint64_t *tops;
	struct counters counters;
	uint32_t open, ready, were_ready;
	uint64_t faults;
	bool told, away;
	uint64_t random;
	int epoll;
	uint64_t now_ns;    /* when the turn began, or a read */
	struct hist live;   /* sent after its subscriber's stentor.ready */
	struct hist replay; /* from connect() to a message sent before */
	struct hist resume; /* from connect() to stentor.ready */
	char buffer[SSE_BUFFER_MAX];
};

/* xorshift64: the same seed, the same choices. */
static uint32_t random_below(struct bench *b, uint32_t bound)
{
	b->random ^= b->random << 13;
	b->random ^= b->random >> 7;
	b->random ^= b->random << 17;
	return (uint32_t)(b->random >> 32) % bound;
}

static uint32_t channel_of(const struct bench *b, const struct subscriber *s,
			   uint32_t slot)
{
	return (s->number * b->options.each + slot) % b->options.channels;
}

static bool wants_json(const struct bench *b, const struct subscriber *s)
{
	if (b->options.format == FORMAT_MIXED)
		return s->number / 2 % 2 == 1;
	return b->options.format == FORMAT_JSON;
}

static void __attribute__((format(printf, 3, 4)))
fault(struct bench *b, const struct subscriber *s, const char *format, ...)
{
	va_list args;

	if (b->faults++ >= FAULTS_TOLD)
		return;
	fprintf(stderr,
		"subscriber %u at node %u, %.3f s after connect, id %s: ",
		s->number, s->node,
		(double)(b->now_ns - s->begun_ns) / (double)NS_PER_S,
		s->id ? s->id : "-");
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/* --- what arrives ------------------------------------------------------ */

/* The subscriber's check of a channel; NULL: not one of its own. */
static struct resume_check *check_of(struct bench *b, struct subscriber *s,
				     uint64_t channel)
{
	for (uint32_t i = 0; i < b->options.each; i++)
		if (channel_of(b, s, i) == channel)
			return &s->checks[i];
	return NULL;
}

/* The next `"channel":"NAME"` in `text`; leaves *text behind it. */
static bool next_channel(const struct bench *b, const char **text,
			 const char *end, uint64_t *channel)
{
	static const char key[] = "\"channel\":\"";
	const char *at =
		memmem(*text, (size_t)(end - *text), key, sizeof(key) - 1);

	if (at == NULL)
		return false;
	at += sizeof(key) - 1 + b->channel_prefix;
	*channel = 0;
	for (; at < end && *at >= '0' && *at <= '9'; at++)
		*channel = *channel * 10 + (uint64_t)(*at - '0');
	*text = at < end ? at : end;
	return true;
}

/* stentor.ready tells the channels, each with its position if it has one. */
static void take_ready(struct bench *b, struct subscriber *s,
		       const struct sse_event *event)
{
	const char *at = event->data;
	const char *end = at + event->data_len;
	uint64_t channel, offset;

	if (!s->ready) {
		s->ready = true;
		s->ready_ns = b->now_ns;
		b->ready++;
		b->were_ready += !s->was_ready;
		s->was_ready = true;
		hist_add(&b->resume, b->now_ns - s->begun_ns);
	}
	while (next_channel(b, &at, end, &channel)) {
		const char *next =
			memmem(at, (size_t)(end - at), "\"channel\"", 9);
		struct resume_check *check = check_of(b, s, channel);
		size_t len = (size_t)((next ? next : end) - at);

		if (check != NULL && json_number(at, len, "offset", &offset))
			resume_check_ready(check, offset);
	}
}

static void take_gap(struct bench *b, struct subscriber *s,
		     const struct sse_event *event)
{
	const char *at = event->data;
	const char *end = at + event->data_len;
	struct resume_check *check = NULL;
	uint64_t channel, from, to, next = 0;
	bool good = false;

	if (next_channel(b, &at, end, &channel))
		check = check_of(b, s, channel);
	if (check != NULL &&
	    json_offset(at, (size_t)(end - at), "from", &from) &&
	    json_offset(at, (size_t)(end - at), "to", &to)) {
		next = check->next;
		good = resume_check_gap(&b->counters.order, check, from, to);
	} else {
		b->counters.order.gaps_told++;
		b->counters.order.gaps_false++;
	}
	if (good && b->counters.order.gaps_told > GAPS_SHOWN)
		return;
	fault(b, s, "%s gap %.*s, next %llu", good ? "true" : "FALSE",
	      (int)event->data_len, event->data, (unsigned long long)next);
}

static void take_message(struct bench *b, struct subscriber *s,
			 const struct sse_event *event)
{
	struct counters *counters = &b->counters;
	const char *data = event->data;
	size_t len = event->data_len;
	struct resume_check *check;
	struct stamp stamp;
	uint64_t offset, next;

	if (wants_json(b, s)) {
		data = memmem(data, len, "\"data\":\"", 8);
		if (data != NULL) {
			data += 8;
			len -= (size_t)(data - event->data);
		}
	}
	if (data == NULL || !stamp_read(data, len, &stamp)) {
		counters->malformed++;
		fault(b, s, "malformed %.*s", (int)event->data_len,
		      event->data);
		return;
	}
	check = check_of(b, s, stamp.stream > 0 ? stamp.stream - 1 : 0);
	if (check == NULL) {
		counters->strays++;
		return;
	}
	counters->messages++;
	next = check->next;
	if (!resume_check_message(&counters->order, check, stamp.seq))
		fault(b, s, "channel %u: %llu came instead of %llu",
		      stamp.stream, (unsigned long long)stamp.seq,
		      (unsigned long long)next);
	if (wants_json(b, s) && json_number(data, len, "offset", &offset) &&
	    offset != stamp.seq) {
		counters->misplaced++;
		fault(b, s, "number %llu has offset %llu",
		      (unsigned long long)stamp.seq,
		      (unsigned long long)offset);
	}
	if (s->ready_ns > 0 && stamp.sent_ns >= s->ready_ns) {
		hist_add(&b->live, b->now_ns - stamp.sent_ns);
	} else {
		counters->replayed++;
		hist_add(&b->replay, b->now_ns - s->begun_ns);
	}
}

static void take_id(struct subscriber *s, const struct sse_event *event)
{
	if (event->id_len > ID_MAX)
		die("an id of %zu bytes", event->id_len);
	if (s->id == NULL || s->id_len < event->id_len) {
		free(s->id);
		s->id = malloc(event->id_len + 1);
		if (s->id == NULL)
			die("out of memory");
	}
	memcpy(s->id, event->id, event->id_len);
	s->id[event->id_len] = '\0';
	s->id_len = (uint32_t)event->id_len;
}

static bool is_type(const struct sse_event *event, const char *type)
{
	return event->type != NULL && event->type_len == strlen(type) &&
	       memcmp(event->type, type, event->type_len) == 0;
}

struct arrival {
	struct bench *bench;
	struct subscriber *subscriber;
};

static void on_event(void *ctx, const struct sse_event *event)
{
	struct arrival *arrival = ctx;
	struct bench *b = arrival->bench;
	struct subscriber *s = arrival->subscriber;

	if (event->retry_len > 0)
		s->retry_ms = (uint32_t)strtoul(event->retry, NULL, 10);
	if (event->data == NULL)
		; /* fires no event */
	else if (is_type(event, "stentor.ready"))
		take_ready(b, s, event);
	else if (is_type(event, "stentor.gap"))
		take_gap(b, s, event);
	else if (event->type_len > 8 && !memcmp(event->type, "stentor.", 8))
		b->counters.notices++;
	else
		take_message(b, s, event);
	if (event->id != NULL)
		take_id(s, event);
}

/* --- connections ------------------------------------------------------- */

static void sub_leave(struct bench *b, struct subscriber *s)
{
	uint64_t wait_ms = s->retry_ms;

	if (s->state != SUB_AWAY)
		close(s->fd);
	b->open -= s->state == SUB_OPEN;
	b->ready -= s->ready;
	sse_input_fini(&s->input);
	s->state = SUB_AWAY;
	s->ready = false;
	s->ready_ns = 0;
	if (b->options.retry_ms > 0 && wait_ms > b->options.retry_ms)
		wait_ms = b->options.retry_ms;
	b->due_ns[s->number] = b->away ? NEVER : b->now_ns + wait_ms * 1000000;
}

/* When an impatient subscriber gives up, if nothing comes until then. */
static void sub_heard(struct bench *b, const struct subscriber *s)
{
	b->due_ns[s->number] = NEVER;
	if (b->options.silence_ms > 0 && s->number % 2 == 1)
		b->due_ns[s->number] =
			b->now_ns + b->options.silence_ms * 1000000ull;
}

static void sub_watch(struct bench *b, struct subscriber *s, int op,
		      uint32_t what)
{
	struct epoll_event event = {.events = what, .data.ptr = s};

	if (epoll_ctl(b->epoll, op, s->fd, &event) != 0)
		die("epoll_ctl: %s", strerror(errno));
}

/* Sends the request; false: not connected yet, or never. */
static bool sub_request(struct bench *b, struct subscriber *s)
{
	static char text[REQUEST_MAX];
	char channel[160];
	size_t n = (size_t)snprintf(text, sizeof(text),
				    "GET /v1/subscribe?format=%s",
				    wants_json(b, s) ? "json" : "raw");

	for (uint32_t i = 0; i < b->options.each; i++) {
		expand_number(channel, sizeof(channel), b->options.channel,
			      channel_of(b, s, i));
		n += (size_t)snprintf(text + n, sizeof(text) - n, "&channel=%s",
				      channel);
	}
	n += (size_t)snprintf(text + n, sizeof(text) - n,
			      " HTTP/1.1\r\nHost: bench\r\n"
			      "Accept: text/event-stream\r\n%s%s%s\r\n",
			      s->id_len > 0 ? "Last-Event-ID: " : "",
			      s->id_len > 0 ? s->id : "",
			      s->id_len > 0 ? "\r\n" : "");
	if (send(s->fd, text, n, MSG_NOSIGNAL) != (ssize_t)n)
		return false;
	b->counters.connects++;
	b->counters.resumes += s->id_len > 0;
	b->open++;
	s->state = SUB_OPEN;
	for (uint32_t i = 0; i < b->options.each && s->id_len == 0; i++)
		resume_check_forget(&s->checks[i]);
	return true;
}

static void sub_connect(struct bench *b, struct subscriber *s)
{
	struct linger reset = {.l_onoff = 1}; /* no TIME_WAIT: ports last */
	const struct sockaddr_in *to;

	s->node = random_below(b, b->options.nodes);
	to = &b->options.to[s->node];
	s->begun_ns = b->now_ns;
	s->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s->fd < 0)
		die("socket: %s", strerror(errno));
	setsockopt(s->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	s->state = SUB_CONNECTING;
	sub_heard(b, s);
	if (connect(s->fd, (const struct sockaddr *)to, sizeof(*to)) != 0 &&
	    errno != EINPROGRESS) {
		b->counters.refused++;
		sub_leave(b, s);
		return;
	}
	/* On loopback the connection mostly stands already. */
	sub_watch(b, s, EPOLL_CTL_ADD, sub_request(b, s) ? EPOLLIN : EPOLLOUT);
}

static void sub_read(struct bench *b, struct subscriber *s)
{
	struct arrival arrival = {.bench = b, .subscriber = s};
	ssize_t got;

	b->now_ns = now_ns();
	got = sse_input_read(&s->input, s->fd, b->buffer, on_event, &arrival);
	if (got > 0)
		sub_heard(b, s);
	if (got >= 0)
		return;
	if (got == SSE_INPUT_CLOSED) {
		b->counters.ended++;
	} else if (got == SSE_INPUT_REFUSED) {
		b->counters.bad_status++;
		fault(b, s, "status %u", s->input.status);
	} else {
		b->counters.malformed++;
		fault(b, s, "malformed stream");
	}
	sub_leave(b, s);
}

static void sub_event(struct bench *b, struct subscriber *s, uint32_t what)
{
	if (s->state == SUB_OPEN) {
		sub_read(b, s);
	} else if (s->state == SUB_CONNECTING) {
		if ((what & (EPOLLERR | EPOLLHUP)) != 0 || !sub_request(b, s)) {
			b->counters.refused++;
			sub_leave(b, s);
			return;
		}
		sub_watch(b, s, EPOLL_CTL_MOD, EPOLLIN);
	}
}

/* Whose time has come: those away come back, the others lose patience. At most
 * CONNECTS_A_TURN, so that what arrives is not kept waiting. */
static bool run_due(struct bench *b)
{
	uint32_t connects = 0;

	b->now_ns = now_ns();
	for (uint32_t i = 0; i < b->options.subscribers; i++) {
		struct subscriber *s = &b->subscribers[i];

		if (b->due_ns[i] > b->now_ns)
			continue;
		if (s->state != SUB_AWAY) {
			b->counters.silent++;
			sub_leave(b, s);
		} else if (connects++ < CONNECTS_A_TURN) {
			sub_connect(b, s);
		} else {
			return true;
		}
	}
	return false;
}

/* --- commands ---------------------------------------------------------- */

static void print_count(const char *name, uint64_t value)
{
	printf("\"%s\":%llu,", name, (unsigned long long)value);
}

/* Pairs of subscriber and channel that have not had all up to the top, and
 * those that have had more. */
static void count_behind(const struct bench *b, uint64_t *behind,
			 uint64_t *beyond)
{
	*behind = *beyond = 0;
	for (uint32_t i = 0; i < b->options.subscribers; i++) {
		const struct subscriber *s = &b->subscribers[i];

		for (uint32_t j = 0; j < b->options.each; j++) {
			uint64_t top = b->tops[channel_of(b, s, j)];

			*behind += s->checks[j].next <= top;
			*beyond += s->checks[j].next > top + 1;
		}
	}
}

static void print_stats(const struct bench *b)
{
	const struct counters *c = &b->counters;
	uint64_t behind, beyond;

	count_behind(b, &behind, &beyond);
	putchar('{');
	print_count("subscribers", b->options.subscribers);
	print_count("open", b->open);
	print_count("ready", b->ready);
	print_count("connects", c->connects);
	print_count("resumes", c->resumes);
	print_count("refused", c->refused);
	print_count("ended", c->ended);
	print_count("silent", c->silent);
	print_count("bad_status", c->bad_status);
	print_count("malformed", c->malformed);
	print_count("notices", c->notices);
	print_count("strays", c->strays);
	print_count("misplaced", c->misplaced);
	print_count("messages", c->messages);
	print_count("replayed", c->replayed);
	print_count("holes", c->order.holes);
	print_count("doubles", c->order.doubles);
	print_count("reorders", c->order.reorders);
	print_count("gaps_told", c->order.gaps_told);
	print_count("gaps_false", c->order.gaps_false);
	print_count("gap_messages", c->order.gap_messages);
	print_count("unanchored", c->order.unanchored);
	print_count("behind", behind);
	print_count("beyond", beyond);
	printf("\"live\":");
	hist_print(stdout, &b->live);
	printf(",\"replay\":");
	hist_print(stdout, &b->replay);
	printf(",\"resume\":");
	hist_print(stdout, &b->resume);
	puts("}");
}

static void set_tops(struct bench *b, const char *text)
{
	char *end;

	for (uint32_t i = 0; i < b->options.channels; i++) {
		b->tops[i] = strtoull(text, &end, 10);
		if (end == text)
			die("tops: only %u numbers", i);
		text = end;
	}
}

static void drop_all(struct bench *b)
{
	b->away = true;
	for (uint32_t i = 0; i < b->options.subscribers; i++)
		sub_leave(b, &b->subscribers[i]);
}

static void go_all(struct bench *b)
{
	b->away = false;
	for (uint32_t i = 0; i < b->options.subscribers; i++)
		if (b->subscribers[i].state == SUB_AWAY)
			b->due_ns[i] = 0;
}

/* Obeys one line; false: the end. */
static bool obey(struct bench *b, const char *line)
{
	if (strcmp(line, "quit\n") == 0)
		return false;
	if (strcmp(line, "stats\n") == 0) {
		print_stats(b);
	} else if (strcmp(line, "reset\n") == 0) {
		memset(&b->live, 0, sizeof(b->live));
		memset(&b->replay, 0, sizeof(b->replay));
		memset(&b->resume, 0, sizeof(b->resume));
	} else if (strncmp(line, "tops ", 5) == 0) {
		set_tops(b, line + 5);
	} else if (strcmp(line, "patient\n") == 0) {
		b->options.silence_ms = 0;
	} else if (strcmp(line, "drop\n") == 0) {
		drop_all(b);
	} else if (strcmp(line, "go\n") == 0) {
		go_all(b);
	} else {
		puts("{\"error\":\"unknown\"}");
	}
	return true;
}

/* --- the loop ---------------------------------------------------------- */

static void run(struct bench *b)
{
	static struct epoll_event events[EVENTS_MAX];
	uint64_t end_ns = now_ns() + b->options.max_seconds * NS_PER_S;
	char *line = NULL;
	size_t room = 0;

	while (b->now_ns < end_ns) {
		bool more = run_due(b);
		int n = epoll_wait(b->epoll, events, EVENTS_MAX,
				   more ? 0 : TICK_MS);

		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr != NULL)
				sub_event(b, events[i].data.ptr,
					  events[i].events);
			else if (getline(&line, &room, stdin) < 0 ||
				 !obey(b, line))
				return;
		}
		if (!b->told && b->were_ready == b->options.subscribers) {
			puts("ready");
			b->told = true;
		}
	}
}

static void start(struct bench *b)
{
	const struct options *o = &b->options;
	struct epoll_event in = {.events = EPOLLIN};
	const char *hole = strstr(o->channel, "%d");

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setvbuf(stdin, NULL, _IONBF, 0); /* epoll must see what is unread */
	setvbuf(stdout, NULL, _IOLBF, 0);
	b->channel_prefix =
		hole ? (size_t)(hole - o->channel) : strlen(o->channel);
	b->random = o->seed * 0x9e3779b97f4a7c15ull | 1;
	b->epoll = epoll_create1(EPOLL_CLOEXEC);
	b->subscribers = calloc(o->subscribers, sizeof(*b->subscribers));
	b->due_ns = calloc(o->subscribers, sizeof(*b->due_ns));
	b->tops = calloc(o->channels, sizeof(*b->tops));
	if (b->epoll < 0 || !b->subscribers || !b->due_ns || !b->tops ||
	    epoll_ctl(b->epoll, EPOLL_CTL_ADD, STDIN_FILENO, &in) != 0)
		die("cannot start: %s", strerror(errno));
	for (uint32_t i = 0; i < o->subscribers; i++) {
		struct subscriber *s = &b->subscribers[i];

		s->number = i;
		s->retry_ms = RETRY_MS;
		s->checks = calloc(o->each, sizeof(*s->checks));
		if (s->checks == NULL)
			die("out of memory");
	}
}

static const char usage[] =
	"resumebench --to ADDR:PORT [--to ...] --channel NAME [options]\n"
	"  --channel NAME      with %d: number of the channel\n"
	"  --channels N        default 1\n"
	"  --each N            channels of a subscriber, default 1\n"
	"  --subscribers N     default 1000\n"
	"  --format F          raw (default), json, or mixed: half and half\n"
	"  --retry-ms N        come back sooner than the server asks\n"
	"  --silence-ms N      after this every other one gives up\n"
	"  --seed N            default 1\n"
	"  --max-seconds N     then it ends by itself, default 120\n";

static const struct option long_options[] = {
	{"to", required_argument, NULL, 't'},
	{"channel", required_argument, NULL, 'C'},
	{"channels", required_argument, NULL, 'M'},
	{"each", required_argument, NULL, 'k'},
	{"subscribers", required_argument, NULL, 'n'},
	{"format", required_argument, NULL, 'f'},
	{"retry-ms", required_argument, NULL, 'r'},
	{"silence-ms", required_argument, NULL, 's'},
	{"seed", required_argument, NULL, 'S'},
	{"max-seconds", required_argument, NULL, 'm'},
	{0},
};

static void number_option(struct options *o, int c, const char *name)
{
	const struct {
		int c;
		uint32_t max;
		uint32_t *value;
	} rows[] = {
		{'n', SUBSCRIBERS_MAX, &o->subscribers},
		{'M', CHANNELS_MAX, &o->channels},
		{'k', CHANNELS_EACH, &o->each},
		{'r', 600000, &o->retry_ms},
		{'s', 600000, &o->silence_ms},
		{'S', UINT32_MAX, &o->seed},
		{'m', 7200, &o->max_seconds},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].c == c) {
			*rows[i].value =
				(uint32_t)arg_u64(name, optarg, rows[i].max);
			return;
		}
	}
	die("%s", usage);
}

static enum format arg_format(const char *text)
{
	if (strcmp(text, "json") == 0)
		return FORMAT_JSON;
	if (strcmp(text, "mixed") == 0)
		return FORMAT_MIXED;
	if (strcmp(text, "raw") != 0)
		die("--format: raw, json or mixed");
	return FORMAT_RAW;
}

static void parse_options(struct options *o, int argc, char **argv)
{
	int index = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, &index)) != -1) {
		if (c == 't' && o->nodes < NODES_MAX)
			o->to[o->nodes++] = arg_addr("to", optarg);
		else if (c == 'C')
			o->channel = optarg;
		else if (c == 'f')
			o->format = arg_format(optarg);
		else
			number_option(o, c, long_options[index].name);
	}
	if (o->channel == NULL || o->nodes == 0 || o->channels == 0 ||
	    o->subscribers == 0 || o->each == 0 || o->each > o->channels ||
	    optind != argc)
		die("%s", usage);
	if (o->subscribers + 64 > raise_nofile())
		die("the limit of open files is below %u", o->subscribers + 64);
}

int main(int argc, char **argv)
{
	static struct bench bench = {
		.options = {.subscribers = 1000,
			    .channels = 1,
			    .each = 1,
			    .seed = 1,
			    .max_seconds = 120},
	};

	parse_options(&bench.options, argc, argv);
	start(&bench);
	run(&bench);
	return 0;
}

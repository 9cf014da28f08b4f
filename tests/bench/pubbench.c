/*
 * pubbench - a gRPC producer of a given pace: PublisherService.Publish with
 * many calls at a time, or PublishStream with a window of unanswered requests.
 *
 * One HTTP/2 connection, one epoll loop, requests encoded by hand. A "call" is
 * one gRPC stream: unary calls carry one message and are made again and again,
 * stream calls live until the end. Message k goes to channel k mod M with the
 * sequence number k / M + 1, so that a later run goes on where this one ended
 * (--first). Ends after --count messages, after --seconds or on SIGTERM, waits
 * a bounded time for the answers still due, and prints one JSON object.
 */
#include "bench.h"
#include "hist.h"

#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define CALLS_MAX      4096u
#define WINDOW_MAX     65536u
#define CHANNEL_MAX    128u
#define MESSAGE_MAX    (DATA_BYTES_MAX + CHANNEL_MAX + 64)
#define CODES	       17u /* gRPC status codes 0..16 */
#define OUT_MAX	       (256u * 1024)
#define TICK_NS_MIN    500000ull
#define ANSWER_WAIT_NS (5 * NS_PER_S)
#define UNAVAILABLE    14u

struct options {
	struct sockaddr_in to;
	const char *channel; /* with %d: its number of `channels` */
	bool stream;
	uint32_t calls;
	uint32_t window; /* unanswered requests in a stream call */
	uint32_t channels;
	uint32_t rate; /* messages a second; 0: as fast as answers come */
	uint32_t size;
	uint32_t seconds;
	uint64_t count; /* 0: no limit but time */
	uint64_t first;
};

struct call {
	int32_t stream_id; /* 0: none open */
	bool deferred;	   /* the stream waits for something to send */
	uint32_t status;   /* of the whole call */
	uint64_t asked, answered;
	uint64_t *sent_ns; /* of request n at n mod window; owned */
	/* The answer being read: 5 bytes of prefix, then the message. */
	uint32_t prefix_len, body_left, code;
	uint8_t prefix[5];
	uint8_t body_head[2];
	uint32_t body_seen;
	/* The request being sent. */
	uint32_t out_len, out_done;
	char out[MESSAGE_MAX];
};

struct client {
	struct options options;
	nghttp2_session *session;
	int fd, epoll, timer;
	struct call *calls;
	char authority[32];
	uint64_t sent, answered, lost;
	uint64_t codes[CODES];
	uint64_t start_ns, stop_ns;
	bool stopping;
	bool broken; /* the connection is gone */
	struct hist latency;
	uint8_t out[OUT_MAX];
	size_t out_len;
};

static volatile sig_atomic_t interrupted;

static void on_signal(int number)
{
	(void)number;
	interrupted = 1;
}

/* --- requests ----------------------------------------------------------- */

static char *put_varint(char *out, uint64_t value)
{
	while (value >= 0x80) {
		*out++ = (char)(value | 0x80);
		value >>= 7;
	}
	*out++ = (char)value;
	return out;
}

/* A PublishRequest of channel (field 1) and data (field 2) in gRPC's frame. */
static void encode_request(struct client *cl, struct call *c)
{
	const struct options *o = &cl->options;
	uint64_t k = o->first + cl->sent;
	uint64_t number = k % o->channels;
	bool private = strstr(o->channel, "%d") != NULL;
	struct stamp stamp = {
		.stream = private ? (uint32_t)number + 1 : 0,
		.seq = k / o->channels + 1,
		.sent_ns = now_ns(),
	};
	char channel[CHANNEL_MAX];
	size_t n = expand_number(channel, sizeof(channel), o->channel, number);
	char *p = c->out + 5;
	uint32_t length;

	*p++ = 0x0a;
	p = put_varint(p, n);
	memcpy(p, channel, n);
	p += n;
	*p++ = 0x12;
	p = put_varint(p, o->size);
	data_write(p, o->size, &stamp);
	p += o->size;
	length = htonl((uint32_t)(p - c->out) - 5);
	c->out[0] = 0;
	memcpy(c->out + 1, &length, sizeof(length));
	c->out_len = (uint32_t)(p - c->out);
	c->out_done = 0;
	c->sent_ns[c->asked % o->window] = stamp.sent_ns;
	c->asked++;
	cl->sent++;
}

/* May one more message go out now, by pace, count and time? */
static bool may_send(const struct client *cl, uint64_t now)
{
	const struct options *o = &cl->options;

	if (cl->stopping || (o->count > 0 && cl->sent >= o->count))
		return false;
	return o->rate == 0 ||
	       (double)cl->sent < (double)o->rate *
					  (double)(now - cl->start_ns) /
					  (double)NS_PER_S;
}

static bool is_done(const struct client *cl)
{
	return cl->stopping ||
	       (cl->options.count > 0 && cl->sent >= cl->options.count);
}

static bool call_may_ask(const struct client *cl, const struct call *c)
{
	return c->asked - c->answered < cl->options.window &&
	       may_send(cl, now_ns());
}

static ssize_t on_data_wanted(nghttp2_session *session, int32_t stream_id,
			      uint8_t *buffer, size_t length, uint32_t *flags,
			      nghttp2_data_source *source, void *user)
{
	struct client *cl = user;
	struct call *c = source->ptr;
	size_t filled = 0;

	(void)session;
	(void)stream_id;
	while (filled < length) {
		size_t n = c->out_len - c->out_done;

		if (n == 0) {
			if (!cl->options.stream || !call_may_ask(cl, c))
				break;
			encode_request(cl, c);
			continue;
		}
		if (n > length - filled)
			n = length - filled;
		memcpy(buffer + filled, c->out + c->out_done, n);
		c->out_done += (uint32_t)n;
		filled += n;
	}
	if (c->out_done == c->out_len && (!cl->options.stream || is_done(cl))) {
		*flags |= NGHTTP2_DATA_FLAG_EOF;
		return (ssize_t)filled;
	}
	if (filled > 0)
		return (ssize_t)filled;
	c->deferred = true;
	return NGHTTP2_ERR_DEFERRED;
}

#define HEADER(n, v)                                                      \
	{                                                                 \
		.name = (uint8_t *)(uintptr_t)(n),                        \
		.value = (uint8_t *)(uintptr_t)(v), .namelen = strlen(n), \
		.valuelen = strlen(v),                                    \
	}

static void call_open(struct client *cl, struct call *c)
{
	const char *path =
		cl->options.stream
			? "/stentor.v1.PublisherService/PublishStream"
			: "/stentor.v1.PublisherService/Publish";
	const nghttp2_nv headers[] = {
		HEADER(":method", "POST"),
		HEADER(":scheme", "http"),
		HEADER(":path", path),
		HEADER(":authority", cl->authority),
		HEADER("content-type", "application/grpc"),
		HEADER("te", "trailers"),
	};
	nghttp2_data_provider provider = {
		.source.ptr = c,
		.read_callback = on_data_wanted,
	};

	c->deferred = false;
	c->status = UNAVAILABLE;
	c->prefix_len = c->body_left = c->code = 0;
	c->asked = c->answered = 0;
	c->out_len = c->out_done = 0;
	if (!cl->options.stream)
		encode_request(cl, c);
	c->stream_id = nghttp2_submit_request(
		cl->session, NULL, headers,
		sizeof(headers) / sizeof(headers[0]), &provider, c);
	if (c->stream_id < 0)
		die("request: %s", nghttp2_strerror(c->stream_id));
}

/* --- answers ------------------------------------------------------------ */

static void call_answered(struct client *cl, struct call *c, uint32_t code)
{
	cl->codes[code < CODES ? code : 2]++;
	if (c->asked == c->answered)
		return; /* more answers than requests: shows in the counts */
	if (code == 0)
		hist_add(&cl->latency,
			 now_ns() -
				 c->sent_ns[c->answered % cl->options.window]);
	c->answered++;
	cl->answered++;
}

/* A PublishResult is whole. Its code is field 1, which encoders write first
 * and leave out when it is 0. */
static void result_done(struct client *cl, struct call *c)
{
	uint32_t code = 0;

	if (c->body_seen >= 2 && c->body_head[0] == 0x08)
		code = c->body_head[1];
	if (cl->options.stream)
		call_answered(cl, c, code);
	c->prefix_len = 0;
	c->body_seen = 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream_id,
		   const uint8_t *data, size_t len, void *user)
{
	struct client *cl = user;
	struct call *c =
		nghttp2_session_get_stream_user_data(session, stream_id);

	(void)flags;
	while (c != NULL && len > 0) {
		if (c->prefix_len < 5) {
			c->prefix[c->prefix_len++] = *data++;
			len--;
			if (c->prefix_len < 5)
				continue;
			memcpy(&c->body_left, c->prefix + 1, 4);
			c->body_left = ntohl(c->body_left);
			c->body_seen = 0;
		} else {
			if (c->body_seen < 2)
				c->body_head[c->body_seen] = *data;
			c->body_seen++;
			c->body_left--;
			data++;
			len--;
		}
		if (c->body_left == 0)
			result_done(cl, c);
	}
	return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame,
		     const uint8_t *name, size_t name_len, const uint8_t *value,
		     size_t value_len, uint8_t flags, void *user)
{
	struct call *c = nghttp2_session_get_stream_user_data(
		session, frame->hd.stream_id);

	(void)flags;
	(void)user;
	(void)value_len; /* values end in a zero byte */
	if (c != NULL && name_len == 11 && !memcmp(name, "grpc-status", 11))
		c->status = (uint32_t)strtoul((const char *)value, NULL, 10);
	return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t stream_id,
			   uint32_t error, void *user)
{
	struct client *cl = user;
	struct call *c =
		nghttp2_session_get_stream_user_data(session, stream_id);

	(void)error;
	if (c == NULL)
		return 0;
	c->stream_id = 0;
	if (!cl->options.stream) {
		call_answered(cl, c, c->status);
	} else {
		/* A stream that fails takes its unanswered requests with it. */
		if (c->status != 0)
			cl->codes[c->status < CODES ? c->status : 2] +=
				c->asked - c->answered;
		cl->lost += c->asked - c->answered;
		if (!is_done(cl))
			cl->stopping = true;
	}
	return 0;
}

/* --- the connection ----------------------------------------------------- */

static void session_init(struct client *cl)
{
	const nghttp2_settings_entry settings[] = {
		{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1u << 20},
		{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
	};
	nghttp2_session_callbacks *callbacks;

	if (nghttp2_session_callbacks_new(&callbacks) != 0)
		die("out of memory");
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks,
								  on_data);
	nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
	nghttp2_session_callbacks_set_on_stream_close_callback(callbacks,
							       on_stream_close);
	if (nghttp2_session_client_new(&cl->session, callbacks, cl) != 0)
		die("out of memory");
	nghttp2_session_callbacks_del(callbacks);
	nghttp2_submit_settings(cl->session, NGHTTP2_FLAG_NONE, settings, 2);
	nghttp2_session_set_local_window_size(cl->session, NGHTTP2_FLAG_NONE, 0,
					      1 << 24);
}

static void watch(struct client *cl, int fd, int op, uint32_t what)
{
	struct epoll_event event = {.events = what, .data.fd = fd};

	if (epoll_ctl(cl->epoll, op, fd, &event) != 0)
		die("epoll_ctl: %s", strerror(errno));
}

static void client_connect(struct client *cl)
{
	int on = 1;

	cl->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (cl->fd < 0 ||
	    connect(cl->fd, (const struct sockaddr *)&cl->options.to,
		    sizeof(cl->options.to)) != 0)
		die("connect: %s", strerror(errno));
	setsockopt(cl->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (fcntl(cl->fd, F_SETFL, O_NONBLOCK) != 0)
		die("fcntl: %s", strerror(errno));
	snprintf(cl->authority, sizeof(cl->authority), "127.0.0.1:%u",
		 ntohs(cl->options.to.sin_port));
	session_init(cl);
	cl->epoll = epoll_create1(EPOLL_CLOEXEC);
	cl->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (cl->epoll < 0 || cl->timer < 0)
		die("epoll or timer: %s", strerror(errno));
	watch(cl, cl->fd, EPOLL_CTL_ADD, EPOLLIN);
	watch(cl, cl->timer, EPOLL_CTL_ADD, EPOLLIN);
}

static void set_timer(struct client *cl)
{
	uint64_t period = NS_PER_S / 100;
	struct itimerspec spec = {0};

	if (cl->options.rate > 100)
		period = NS_PER_S / cl->options.rate;
	if (period < TICK_NS_MIN)
		period = TICK_NS_MIN;
	spec.it_interval.tv_nsec = (long)period;
	spec.it_value.tv_nsec = (long)period;
	timerfd_settime(cl->timer, 0, &spec, NULL);
}

/* Everything nghttp2 has to say goes out in as few writes as fit. */
static void client_flush(struct client *cl)
{
	for (;;) {
		const uint8_t *data;
		ssize_t n = 0;

		while (cl->out_len < OUT_MAX / 2 &&
		       (n = nghttp2_session_mem_send(cl->session, &data)) > 0) {
			if ((size_t)n > OUT_MAX - cl->out_len)
				die("a frame of %zd bytes", n);
			memcpy(cl->out + cl->out_len, data, (size_t)n);
			cl->out_len += (size_t)n;
		}
		if (n < 0)
			die("nghttp2: %s", nghttp2_strerror((int)n));
		if (cl->out_len == 0)
			return;
		n = send(cl->fd, cl->out, cl->out_len, MSG_NOSIGNAL);
		if (n < 0 && errno == EAGAIN) {
			watch(cl, cl->fd, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
			return;
		}
		if (n < 0) {
			cl->broken = true;
			return;
		}
		cl->out_len -= (size_t)n;
		memmove(cl->out, cl->out + n, cl->out_len);
	}
}

static void client_read(struct client *cl)
{
	static uint8_t buffer[128 * 1024];
	ssize_t n = recv(cl->fd, buffer, sizeof(buffer), 0);

	if (n < 0 && errno == EAGAIN)
		return;
	if (n <= 0) {
		cl->broken = true;
		return;
	}
	n = nghttp2_session_mem_recv(cl->session, buffer, (size_t)n);
	if (n < 0)
		die("the server speaks no HTTP/2: %s",
		    nghttp2_strerror((int)n));
}

/* Puts to work every call that has something to send. */
static void feed_calls(struct client *cl)
{
	for (uint32_t i = 0; i < cl->options.calls; i++) {
		struct call *c = &cl->calls[i];

		if (c->stream_id == 0) {
			if (may_send(cl, now_ns()))
				call_open(cl, c);
		} else if (c->deferred &&
			   (call_may_ask(cl, c) || is_done(cl))) {
			c->deferred = false;
			nghttp2_session_resume_data(cl->session, c->stream_id);
		}
	}
}

static bool all_closed(const struct client *cl)
{
	for (uint32_t i = 0; i < cl->options.calls; i++)
		if (cl->calls[i].stream_id != 0)
			return false;
	return true;
}

static void client_run(struct client *cl)
{
	uint64_t end_ns = cl->start_ns + cl->options.seconds * NS_PER_S;
	struct epoll_event events[4];

	while (!cl->broken) {
		uint64_t now = now_ns();
		uint64_t ticks;
		int n;

		if (interrupted || now >= end_ns)
			cl->stopping = true;
		if (is_done(cl) && cl->stop_ns == 0)
			cl->stop_ns = now;
		if (cl->stop_ns > 0 &&
		    (all_closed(cl) || now - cl->stop_ns > ANSWER_WAIT_NS))
			return;
		feed_calls(cl);
		client_flush(cl);
		n = epoll_wait(cl->epoll, events, 4, 100);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == cl->timer) {
				if (read(cl->timer, &ticks, 8) < 0)
					continue;
				continue;
			}
			if ((events[i].events & EPOLLOUT) != 0)
				watch(cl, cl->fd, EPOLL_CTL_MOD, EPOLLIN);
			client_read(cl);
		}
	}
}

static void print_result(struct client *cl)
{
	uint64_t end_ns = cl->stop_ns > 0 ? cl->stop_ns : now_ns();

	printf("{\"sent\":%llu,\"answered\":%llu,\"unanswered\":%llu,"
	       "\"broken\":%s,\"seconds\":%.3f,\"codes\":{",
	       (unsigned long long)cl->sent, (unsigned long long)cl->answered,
	       (unsigned long long)(cl->sent - cl->answered),
	       cl->broken ? "true" : "false",
	       (double)(end_ns - cl->start_ns) / (double)NS_PER_S);
	for (uint32_t i = 0, n = 0; i < CODES; i++)
		if (cl->codes[i] > 0)
			printf("%s\"%u\":%llu", n++ > 0 ? "," : "", i,
			       (unsigned long long)cl->codes[i]);
	printf("},\"answers\":");
	hist_print(stdout, &cl->latency);
	puts("}");
}

/* --- options ------------------------------------------------------------ */

static const char usage[] =
	"pubbench --to ADDR:PORT --channel NAME [options]\n"
	"  --channel NAME   with %d: number of the channel\n"
	"  --channels M     how many, in turn; default 1\n"
	"  --mode M         unary (default) or stream\n"
	"  --calls N        unary calls at a time, or streams; default 1\n"
	"  --window N       unanswered requests in a stream, default 256\n"
	"  --rate N         messages a second, default as fast as it goes\n"
	"  --size N         bytes of data in a message, default 200\n"
	"  --count N        messages, default no limit\n"
	"  --first N        number of the first message, default 0\n"
	"  --seconds N      most seconds to send, default 10\n";

static const struct option long_options[] = {
	{"to", required_argument, NULL, 't'},
	{"channel", required_argument, NULL, 'C'},
	{"channels", required_argument, NULL, 'M'},
	{"mode", required_argument, NULL, 'm'},
	{"calls", required_argument, NULL, 'c'},
	{"window", required_argument, NULL, 'w'},
	{"rate", required_argument, NULL, 'r'},
	{"size", required_argument, NULL, 's'},
	{"count", required_argument, NULL, 'n'},
	{"first", required_argument, NULL, 'f'},
	{"seconds", required_argument, NULL, 'x'},
	{0},
};

static void number_option(struct options *o, int c, const char *name)
{
	const struct {
		int c;
		uint32_t max;
		uint32_t *value;
	} rows[] = {
		{'M', 10000000, &o->channels},	 {'c', CALLS_MAX, &o->calls},
		{'w', WINDOW_MAX, &o->window},	 {'r', 10000000, &o->rate},
		{'s', DATA_BYTES_MAX, &o->size}, {'x', 7200, &o->seconds},
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

static void parse_options(struct options *o, int argc, char **argv)
{
	int index = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, &index)) != -1) {
		if (c == 't')
			o->to = arg_addr("to", optarg);
		else if (c == 'C')
			o->channel = optarg;
		else if (c == 'm')
			o->stream = strcmp(optarg, "stream") == 0;
		else if (c == 'n')
			o->count = arg_u64("count", optarg, 1ull << 40);
		else if (c == 'f')
			o->first = arg_u64("first", optarg, 1ull << 40);
		else
			number_option(o, c, long_options[index].name);
	}
	if (o->to.sin_port == 0 || o->channel == NULL || o->channels == 0 ||
	    o->calls == 0 || o->window == 0 || o->size < STAMP_BYTES ||
	    optind != argc)
		die("%s", usage);
	if (!o->stream)
		o->window = 1;
}

int main(int argc, char **argv)
{
	static struct client client = {
		.options =
			{
				.calls = 1,
				.window = 256,
				.channels = 1,
				.size = 200,
				.seconds = 10,
			},
	};
	struct options *o = &client.options;

	parse_options(o, argc, argv);
	signal(SIGTERM, on_signal);
	signal(SIGINT, on_signal);
	client.calls = calloc(o->calls, sizeof(*client.calls));
	if (client.calls == NULL)
		die("out of memory");
	for (uint32_t i = 0; i < o->calls; i++) {
		client.calls[i].sent_ns = calloc(o->window, sizeof(uint64_t));
		if (client.calls[i].sent_ns == NULL)
			die("out of memory");
	}
	client_connect(&client);
	client.start_ns = now_ns();
	set_timer(&client);
	client_run(&client);
	print_result(&client);
	nghttp2_session_del(client.session);
	return client.sent > 0 && client.answered == client.sent ? 0 : 1;
}

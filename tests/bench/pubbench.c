/*
 * pubbench - a gRPC producer of a given pace: PublisherService.Publish or
 * PublishBatch with many calls at a time, or PublishStream with a window of
 * unanswered requests.
 *
 * One HTTP/2 connection, one epoll loop, requests encoded by hand. A "call" is
 * one gRPC stream: unary calls carry one message, or a batch of --window, and
 * are made again and again, stream calls live until the end. Unary calls made
 * at once may overtake each other; where order matters there is one call or one
 * stream.
 */
#include "publish.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define CHANNEL_MAX   128u
#define MESSAGE_SPARE 64u /* tags, lengths, and gRPC's prefix */
#define OUT_MAX	      (256u * 1024)
#define UNAVAILABLE   14u

/* Where a PublishBatchResponse is being read: it is results, each a tag, a
 * length and the PublishResult. */
enum batch_phase { BATCH_TAG, BATCH_LENGTH, BATCH_RESULT };

struct call {
	int32_t stream_id; /* 0: none open */
	bool deferred;	   /* the stream waits for something to send */
	uint32_t status;   /* of the whole call */
	uint64_t asked, answered;
	uint64_t *sent_ns; /* of request n at n mod window; owned */
	/* The answer being read: 5 bytes of prefix, then the message. */
	uint32_t prefix_len, body_left;
	uint8_t prefix[5];
	uint8_t body_head[2]; /* of a result */
	uint8_t batch_phase, length_shift;
	uint32_t result_left, result_seen;
	/* The request being sent; owned. */
	uint32_t out_len, out_done;
	char *out;
};

struct client {
	struct publish publish;
	nghttp2_session *session;
	int fd, epoll, timer;
	struct call *calls;
	char authority[32];
	uint8_t out[OUT_MAX];
	size_t out_len;
};

/* --- requests ---------------------------------------------------------- */

static char *put_varint(char *out, uint64_t value)
{
	while (value >= 0x80) {
		*out++ = (char)(value | 0x80);
		value >>= 7;
	}
	*out++ = (char)value;
	return out;
}

/* The next message: a PublishRequest of channel (field 1) and data (field 2),
 * as field 1 of a PublishBatchRequest if it is one of a batch. */
static char *put_message(struct client *cl, struct call *c, char *p)
{
	struct publish *o = &cl->publish;
	char channel[CHANNEL_MAX], head[CHANNEL_MAX + 16];
	struct stamp stamp;
	uint64_t number = publish_next(o, &stamp);
	size_t n = expand_number(channel, sizeof(channel), o->channel, number);
	char *h = head;

	*h++ = 0x0a;
	h = put_varint(h, n);
	memcpy(h, channel, n);
	h += n;
	*h++ = 0x12;
	h = put_varint(h, o->size);
	n = (size_t)(h - head);
	if (o->batch) {
		*p++ = 0x0a;
		p = put_varint(p, n + o->size);
	}
	memcpy(p, head, n);
	data_write(p + n, o->size, &stamp);
	c->sent_ns[c->asked % o->window] = stamp.sent_ns;
	c->asked++;
	return p + n + o->size;
}

/* One message, or a whole batch, in gRPC's frame. */
static void encode_request(struct client *cl, struct call *c)
{
	char *p = put_message(cl, c, c->out + 5);
	uint32_t length;

	while (cl->publish.batch && c->asked < cl->publish.window &&
	       !publish_is_done(&cl->publish))
		p = put_message(cl, c, p);
	length = htonl((uint32_t)(p - c->out) - 5);
	c->out[0] = 0;
	memcpy(c->out + 1, &length, sizeof(length));
	c->out_len = (uint32_t)(p - c->out);
	c->out_done = 0;
}

static bool call_may_ask(const struct client *cl, const struct call *c)
{
	return c->asked - c->answered < cl->publish.window &&
	       publish_may_send(&cl->publish);
}

static ssize_t on_data_wanted(nghttp2_session *session, int32_t stream_id,
			      uint8_t *buffer, size_t length, uint32_t *flags,
			      nghttp2_data_source *source, void *user)
{
	struct client *cl = user;
	struct call *c = source->ptr;
	bool stream = cl->publish.stream;
	size_t filled = 0;

	(void)session;
	(void)stream_id;
	while (filled < length) {
		size_t n = c->out_len - c->out_done;

		if (n == 0) {
			if (!stream || !call_may_ask(cl, c))
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
	if (c->out_done == c->out_len &&
	    (!stream || publish_is_done(&cl->publish))) {
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

static const char *path_of(const struct publish *p)
{
	if (p->stream)
		return "/stentor.v1.PublisherService/PublishStream";
	return p->batch ? "/stentor.v1.PublisherService/PublishBatch"
			: "/stentor.v1.PublisherService/Publish";
}

static void call_open(struct client *cl, struct call *c)
{
	const char *path = path_of(&cl->publish);
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
	c->batch_phase = BATCH_TAG;
	c->prefix_len = c->body_left = c->result_seen = 0;
	c->asked = c->answered = 0;
	c->out_len = c->out_done = 0;
	if (!cl->publish.stream)
		encode_request(cl, c);
	c->stream_id = nghttp2_submit_request(
		cl->session, NULL, headers,
		sizeof(headers) / sizeof(headers[0]), &provider, c);
	if (c->stream_id < 0)
		die("request: %s", nghttp2_strerror(c->stream_id));
}

/* --- answers ----------------------------------------------------------- */

/* More answers than requests show as a code too many in the report. */
static void call_answered(struct client *cl, struct call *c, uint32_t code)
{
	uint64_t slot = c->answered % cl->publish.window;

	publish_answered(&cl->publish, code, c->sent_ns[slot]);
	c->answered++;
}

/* A PublishResult is whole. Its code is field 1, which encoders write first
 * and leave out when it is 0. */
static void result_done(struct client *cl, struct call *c)
{
	uint32_t code = 0;

	if (c->result_seen >= 2 && c->body_head[0] == 0x08)
		code = c->body_head[1];
	c->result_seen = 0;
	call_answered(cl, c, code);
}

static void result_byte(struct call *c, uint8_t byte)
{
	if (c->result_seen < 2)
		c->body_head[c->result_seen] = byte;
	c->result_seen++;
}

static void batch_byte(struct client *cl, struct call *c, uint8_t byte)
{
	switch (c->batch_phase) {
	case BATCH_TAG:
		c->batch_phase = BATCH_LENGTH;
		c->result_left = c->length_shift = 0;
		break;
	case BATCH_LENGTH:
		c->result_left |= (byte & 0x7fu) << c->length_shift;
		c->length_shift += 7;
		if (byte < 0x80)
			c->batch_phase = BATCH_RESULT;
		break;
	default:
		result_byte(c, byte);
		if (--c->result_left > 0)
			break;
		c->batch_phase = BATCH_TAG;
		result_done(cl, c);
	}
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
			c->result_seen = 0;
		} else {
			if (cl->publish.batch)
				batch_byte(cl, c, *data);
			else
				result_byte(c, *data);
			c->body_left--;
			data++;
			len--;
		}
		if (c->body_left > 0)
			continue;
		if (cl->publish.stream)
			result_done(cl, c);
		c->prefix_len = 0;
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
	if (!cl->publish.stream) {
		while (c->answered < c->asked) /* a batch's have been */
			call_answered(cl, c, c->status);
		return 0;
	}
	/* A stream that fails takes its unanswered requests with it; what it
	 * says is counted once, and nothing more is sent. */
	if (c->status != 0)
		cl->publish
			.codes[c->status < PUBLISH_CODES ? c->status
							 : PUBLISH_UNKNOWN]++;
	if (cl->publish.stop_ns == 0)
		cl->publish.stop_ns = now_ns();
	return 0;
}

/* --- the connection ---------------------------------------------------- */

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
	    connect(cl->fd, (const struct sockaddr *)&cl->publish.to,
		    sizeof(cl->publish.to)) != 0)
		die("connect: %s", strerror(errno));
	setsockopt(cl->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (fcntl(cl->fd, F_SETFL, O_NONBLOCK) != 0)
		die("fcntl: %s", strerror(errno));
	snprintf(cl->authority, sizeof(cl->authority), "127.0.0.1:%u",
		 ntohs(cl->publish.to.sin_port));
	session_init(cl);
	cl->epoll = epoll_create1(EPOLL_CLOEXEC);
	cl->timer = publish_timer_new(&cl->publish);
	if (cl->epoll < 0)
		die("epoll: %s", strerror(errno));
	watch(cl, cl->fd, EPOLL_CTL_ADD, EPOLLIN);
	watch(cl, cl->timer, EPOLL_CTL_ADD, EPOLLIN);
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
			cl->publish.broken = true;
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
		cl->publish.broken = true;
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
	for (uint32_t i = 0; i < cl->publish.calls; i++) {
		struct call *c = &cl->calls[i];

		if (c->stream_id == 0) {
			if (publish_may_send(&cl->publish))
				call_open(cl, c);
		} else if (c->deferred && (call_may_ask(cl, c) ||
					   publish_is_done(&cl->publish))) {
			c->deferred = false;
			nghttp2_session_resume_data(cl->session, c->stream_id);
		}
	}
}

static bool all_closed(const struct client *cl)
{
	for (uint32_t i = 0; i < cl->publish.calls; i++)
		if (cl->calls[i].stream_id != 0)
			return false;
	return true;
}

static void client_run(struct client *cl)
{
	struct publish *p = &cl->publish;
	struct epoll_event events[4];

	while (!p->broken && !publish_is_over(p)) {
		uint64_t ticks;
		int n;

		feed_calls(cl);
		client_flush(cl);
		if (publish_is_done(p) && all_closed(cl))
			return;
		n = epoll_wait(cl->epoll, events, 4, 100);
		for (int i = 0; i < n; i++) {
			if (events[i].data.fd == cl->timer) {
				if (read(cl->timer, &ticks, 8) < 0)
					die("timer: %s", strerror(errno));
				continue;
			}
			if ((events[i].events & EPOLLOUT) != 0)
				watch(cl, cl->fd, EPOLL_CTL_MOD, EPOLLIN);
			client_read(cl);
		}
	}
}

int main(int argc, char **argv)
{
	static struct client client;
	struct publish *p = &client.publish;

	publish_init(p, argc, argv);
	if (!p->stream && !p->batch)
		p->window = 1;
	client.calls = calloc(p->calls, sizeof(*client.calls));
	if (client.calls == NULL)
		die("out of memory");
	for (uint32_t i = 0; i < p->calls; i++) {
		struct call *c = &client.calls[i];
		size_t room = p->size + CHANNEL_MAX + MESSAGE_SPARE;

		c->sent_ns = calloc(p->window, sizeof(uint64_t));
		c->out = malloc(p->batch ? p->window * room : room);
		if (c->sent_ns == NULL || c->out == NULL)
			die("out of memory");
	}
	client_connect(&client);
	client_run(&client);
	nghttp2_session_del(client.session);
	return publish_report(p);
}

/*
 * httppush - a producer over plain HTTP/1.1, for servers that take messages as
 * POST bodies (nginx with nchan): one request at a time on each of --calls
 * kept-alive connections. --channel is the request target.
 */
#include "publish.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define PATH_MAX_BYTES 256u
#define REQUEST_MAX    (DATA_BYTES_MAX + PATH_MAX_BYTES + 128)
#define ANSWER_MAX     4096u

struct call {
	int fd;
	bool busy; /* a request has no answer yet */
	uint64_t sent_ns;
	size_t answer_len;
	char answer[ANSWER_MAX + 1];
};

static void call_connect(const struct publish *p, struct call *c, int epoll)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
	int on = 1;

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (c->fd < 0 ||
	    connect(c->fd, (const struct sockaddr *)&p->to, sizeof(p->to)) != 0)
		die("connect: %s", strerror(errno));
	setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event) != 0)
		die("epoll_ctl: %s", strerror(errno));
}

static void call_send(struct publish *p, struct call *c)
{
	char text[REQUEST_MAX];
	char path[PATH_MAX_BYTES];
	struct stamp stamp;
	size_t n;

	expand_number(path, sizeof(path), p->channel, publish_next(p, &stamp));
	n = (size_t)snprintf(text, sizeof(text),
			     "POST %s HTTP/1.1\r\nHost: bench\r\n"
			     "Content-Length: %u\r\n\r\n",
			     path, p->size);
	data_write(text + n, p->size, &stamp);
	n += p->size;
	if (send(c->fd, text, n, MSG_NOSIGNAL) != (ssize_t)n)
		p->broken = true;
	c->busy = true;
	c->sent_ns = stamp.sent_ns;
	c->answer_len = 0;
}

/* Is the answer whole? Its length must be given, as nchan gives it. */
static bool answer_is_whole(const struct call *c)
{
	const char *end = strstr(c->answer, "\r\n\r\n");
	const char *length = strcasestr(c->answer, "\ncontent-length:");
	size_t body = 0;

	if (end == NULL)
		return false;
	if (length != NULL && length < end)
		body = strtoul(length + 16, NULL, 10);
	return c->answer_len >= (size_t)(end + 4 - c->answer) + body;
}

static void call_read(struct publish *p, struct call *c)
{
	ssize_t n = recv(c->fd, c->answer + c->answer_len,
			 ANSWER_MAX - c->answer_len, 0);

	if (n <= 0) {
		p->broken = true;
		return;
	}
	c->answer_len += (size_t)n;
	c->answer[c->answer_len] = '\0';
	if (!c->busy || !answer_is_whole(c))
		return;
	c->busy = false;
	publish_answered(
		p,
		memcmp(c->answer, "HTTP/1.1 2", 10) == 0 ? 0 : PUBLISH_UNKNOWN,
		c->sent_ns);
}

static void run(struct publish *p, struct call *calls, int epoll, int timer)
{
	struct epoll_event events[64];

	while (!p->broken && !publish_is_over(p)) {
		uint64_t ticks;
		int n;

		for (uint32_t i = 0; i < p->calls; i++)
			if (!calls[i].busy && publish_may_send(p))
				call_send(p, &calls[i]);
		if (publish_is_done(p) && p->answered == p->sent)
			return;
		n = epoll_wait(epoll, events, 64, 100);
		for (int i = 0; i < n; i++) {
			if (events[i].data.ptr != NULL)
				call_read(p, events[i].data.ptr);
			else if (read(timer, &ticks, sizeof(ticks)) < 0)
				die("timer: %s", strerror(errno));
		}
	}
}

int main(int argc, char **argv)
{
	static struct publish publish;
	struct epoll_event tick = {.events = EPOLLIN};
	struct call *calls;
	int epoll;
	int timer;

	publish_init(&publish, argc, argv);
	calls = calloc(publish.calls, sizeof(*calls));
	epoll = epoll_create1(EPOLL_CLOEXEC);
	timer = publish_timer_new(&publish);
	if (calls == NULL || epoll < 0 ||
	    epoll_ctl(epoll, EPOLL_CTL_ADD, timer, &tick) != 0)
		die("cannot start: %s", strerror(errno));
	for (uint32_t i = 0; i < publish.calls; i++)
		call_connect(&publish, &calls[i], epoll);
	run(&publish, calls, epoll, timer);
	return publish_report(&publish);
}

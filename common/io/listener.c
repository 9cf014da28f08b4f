/* All that can fail (socket, options, bind, listen) is done before libuv sees
 * the descriptor: so a failed start leaves nothing to close, and SO_REUSEPORT,
 * for which libuv 1.44 has no flag, can be set before bind().
 *
 * Descriptors: accept4() wants one before it looks whether anybody waits, so
 * EMFILE tells nothing of a connection. The spare is closed, which makes room
 * for one accept4(); that connection is closed, and the spare opened again.
 * Threads of nng open sockets at any time: one may come between, and the spare
 * is gone until descriptors are free again. Then nothing can be refused, and
 * polling would only spin: it stops, and a timer looks again. */
#include "common/io/listener.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Dead peers of quiet connections are found after about two minutes. */
#define KEEPALIVE_IDLE_S     60
#define KEEPALIVE_INTERVAL_S 20
#define KEEPALIVE_PROBES     3

int err_from_uv(int status)
{
	if (status >= 0)
		return 0;
	if (status == UV_EOF || status == UV_ECANCELED)
		return ERR_CLOSED;
	if (status <= UV_EAI_ADDRFAMILY && status >= UV_EAI_PROTOCOL)
		return ERR_NOT_FOUND;
	/* Elsewhere libuv's codes are negated errno values. */
	return err_from_errno(-status);
}

static int parse_port(const char *text, uint16_t *port)
{
	unsigned long value = 0;

	if (*text == '\0' || strlen(text) > 5)
		return ERR_ADDRESS;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return ERR_ADDRESS;
		value = value * 10 + (unsigned long)(*text - '0');
	}
	if (value > UINT16_MAX)
		return ERR_ADDRESS;
	*port = (uint16_t)value;
	return 0;
}

int address_parse(const char *text, struct sockaddr_storage *out)
{
	char host[INET6_ADDRSTRLEN + 16]; /* room for a %zone */
	const char *colon = strrchr(text, ':');
	size_t len;
	bool bracketed;
	uint16_t port;

	memset(out, 0, sizeof(*out));
	if (colon == NULL || parse_port(colon + 1, &port) < 0)
		return ERR_ADDRESS;
	len = (size_t)(colon - text);
	bracketed = len >= 2 && text[0] == '[' && text[len - 1] == ']';
	if (bracketed) {
		text++;
		len -= 2;
	}
	if (len >= sizeof(host))
		return ERR_ADDRESS;
	memcpy(host, text, len);
	host[len] = '\0';
	if (bracketed ? uv_ip6_addr(host, port, (struct sockaddr_in6 *)out)
		      : uv_ip4_addr(host, port, (struct sockaddr_in *)out))
		return ERR_ADDRESS;
	return 0;
}

static uint16_t address_port(const struct sockaddr_storage *address)
{
	return ntohs(address->ss_family == AF_INET6
			     ? ((const struct sockaddr_in6 *)address)->sin6_port
			     : ((const struct sockaddr_in *)address)->sin_port);
}

void address_format(const struct sockaddr *address, char *out)
{
	char host[INET6_ADDRSTRLEN] = "";

	if (address->sa_family == AF_INET6) {
		const struct sockaddr_in6 *v6 = (const void *)address;

		uv_ip6_name(v6, host, sizeof(host));
		snprintf(out, ADDRESS_TEXT, "[%s]:%u", host,
			 ntohs(v6->sin6_port));
	} else if (address->sa_family == AF_INET) {
		const struct sockaddr_in *v4 = (const void *)address;

		uv_ip4_name(v4, host, sizeof(host));
		snprintf(out, ADDRESS_TEXT, "%s:%u", host, ntohs(v4->sin_port));
	} else {
		snprintf(out, ADDRESS_TEXT, "?");
	}
}

static int set_option(int fd, int level, int option, uint32_t value)
{
	int number = value > INT32_MAX ? INT32_MAX : (int)value;

	if (setsockopt(fd, level, option, &number, sizeof(number)) < 0)
		return err_from_errno(errno);
	return 0;
}

/* Opens a bound socket; *port is the real one. */
static int bind_socket(const char *address, bool reuse_port, uint16_t *port)
{
	struct sockaddr_storage where;
	socklen_t len = sizeof(where);
	int fd, err;

	err = address_parse(address, &where);
	if (err < 0)
		return err;
	fd = socket(where.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC,
		    0);
	if (fd < 0)
		return err_from_errno(errno);
	err = set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (err == 0 && reuse_port)
		err = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (err < 0)
		goto err_after_socket;
	len = where.ss_family == AF_INET6 ? sizeof(struct sockaddr_in6)
					  : sizeof(struct sockaddr_in);
	if (bind(fd, (struct sockaddr *)&where, len) < 0 ||
	    getsockname(fd, (struct sockaddr *)&where, &len) < 0) {
		err = err_from_errno(errno);
		goto err_after_socket;
	}
	*port = address_port(&where);
	return fd;

err_after_socket:
	close(fd);
	return err;
}

/* On the listener, because accepted sockets inherit them. */
static int set_options(int fd, const struct listener_options *o)
{
	const struct {
		int level, name;
		uint32_t value;
	} options[] = {
		{IPPROTO_TCP, TCP_NODELAY, 1},
		{SOL_SOCKET, SO_KEEPALIVE, 1},
		{IPPROTO_TCP, TCP_KEEPIDLE, KEEPALIVE_IDLE_S},
		{IPPROTO_TCP, TCP_KEEPINTVL, KEEPALIVE_INTERVAL_S},
		{IPPROTO_TCP, TCP_KEEPCNT, KEEPALIVE_PROBES},
		{IPPROTO_TCP, TCP_USER_TIMEOUT, o->user_timeout_ms},
		{IPPROTO_TCP, TCP_NOTSENT_LOWAT, o->notsent_lowat},
		{SOL_SOCKET, SO_SNDBUF, o->send_buffer},
	};

	for (size_t i = 0; i < array_len(options); i++) {
		int err;

		if (options[i].value == 0)
			continue;
		err = set_option(fd, options[i].level, options[i].name,
				 options[i].value);
		if (err < 0)
			return err;
	}
	return 0;
}

static int spare_open(void)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static void on_patience(uv_timer_t *timer);

static void starve(struct listener *l, int code)
{
	l->short_ms = uv_now(l->loop);
	if (l->starved)
		return;
	l->starved = true;
	l->refused = 0;
	log_warn("ACCEPT-STARVED", "port=%u err=%s", l->port,
		 uv_err_name(-code));
	uv_timer_start(&l->patience, on_patience, LISTENER_REST_MS,
		       LISTENER_REST_MS);
}

static int accept_socket(const struct listener *l)
{
	return accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

/* Out of descriptors. False when nobody waits, or nothing can be done now. */
static bool refuse_one(struct listener *l, int code)
{
	int fd = -1;

	if (l->spare >= 0) {
		close(l->spare);
		fd = accept_socket(l);
		if (fd < 0)
			code = errno;
		else
			close(fd);
		l->spare = spare_open();
	}
	if (code == EAGAIN)
		return false;
	starve(l, code);
	if (fd < 0) {
		uv_poll_stop(&l->poll);
		return false;
	}
	l->taken++;
	l->refused++;
	if (l->on_refused != NULL)
		l->on_refused(l);
	return true;
}

static void hand_over(struct listener *l, int fd)
{
	l->taken++;
	l->accepted = fd;
	l->on_accept(l);
	if (l->accepted >= 0) /* let go */
		close(l->accepted);
	l->accepted = -1;
}

/* False when there is none to accept for now. */
static bool accept_one(struct listener *l)
{
	int fd = accept_socket(l);

	if (fd >= 0) {
		hand_over(l, fd);
		return true;
	}
	switch (errno) {
	case EAGAIN:
		return false;
	case EMFILE:
	case ENFILE:
		return refuse_one(l, errno);
	case ENOBUFS:
	case ENOMEM:
		starve(l, errno);
		uv_poll_stop(&l->poll);
		return false;
	default: /* of that one connection, which is gone: accept(2) */
		l->taken++;
		return true;
	}
}

static void on_readable(uv_poll_t *poll, int status UNUSED, int events UNUSED)
{
	struct listener *l = container_of(poll, struct listener, poll);

	while (l->open && l->taken < l->slice && accept_one(l))
		;
}

/* Polling stands still only while this timer runs. */
static void on_patience(uv_timer_t *timer)
{
	struct listener *l = container_of(timer, struct listener, patience);

	if (l->spare < 0)
		l->spare = spare_open();
	if (l->spare >= 0)
		uv_poll_start(&l->poll, UV_READABLE, on_readable);
	if (l->spare < 0 || uv_now(l->loop) - l->short_ms < LISTENER_PLENTY_MS)
		return;
	uv_timer_stop(&l->patience);
	l->starved = false;
	log_info("ACCEPT-AGAIN", "port=%u refused=%llu", l->port,
		 (unsigned long long)l->refused);
}

static void on_turn(uv_prepare_t *turn)
{
	container_of(turn, struct listener, turn)->taken = 0;
}

static void start_handles(struct listener *l)
{
	check(uv_poll_init(l->loop, &l->poll, l->fd) == 0);
	check(uv_prepare_init(l->loop, &l->turn) == 0);
	check(uv_timer_init(l->loop, &l->patience) == 0);
	l->handles = 3;
	uv_poll_start(&l->poll, UV_READABLE, on_readable);
	uv_prepare_start(&l->turn, on_turn);
	uv_unref((uv_handle_t *)&l->turn);
}

int listener_start(struct listener *l, uv_loop_t *loop, const char *address,
		   const struct listener_options *options,
		   listener_cb on_accept, void *ctx)
{
	int backlog = options->backlog ? options->backlog : SOMAXCONN;
	int fd, err;

	memset(l, 0, sizeof(*l));
	fd = bind_socket(address, options->reuse_port, &l->port);
	if (fd < 0)
		return fd;
	err = set_options(fd, options);
	/* Another socket may listen on the address although bind() passed. */
	if (err == 0 && listen(fd, backlog) < 0)
		err = err_from_errno(errno);
	if (err < 0) {
		close(fd);
		return err;
	}
	l->loop = loop;
	l->on_accept = on_accept;
	l->on_refused = options->on_refused;
	l->ctx = ctx;
	l->fd = fd;
	l->accepted = -1;
	l->spare = spare_open();
	l->slice = options->slice ? options->slice : LISTENER_SLICE;
	l->open = true;
	start_handles(l);
	return 0;
}

int listener_take(struct listener *l, uv_tcp_t *tcp)
{
	int fd = l->accepted;
	int status;

	check(fd >= 0);
	status = uv_tcp_open(tcp, fd);
	l->accepted = -1;
	if (status < 0)
		close(fd);
	return err_from_uv(status);
}

static void handle_closed(struct listener *l)
{
	if (--l->handles == 0 && l->on_closed != NULL)
		l->on_closed(l);
}

static void on_poll_closed(uv_handle_t *h)
{
	handle_closed(container_of(h, struct listener, poll));
}

static void on_turn_closed(uv_handle_t *h)
{
	handle_closed(container_of(h, struct listener, turn));
}

static void on_patience_closed(uv_handle_t *h)
{
	handle_closed(container_of(h, struct listener, patience));
}

void listener_close(struct listener *l, listener_cb on_closed)
{
	if (!l->open)
		return;
	l->open = false;
	l->on_closed = on_closed;
	uv_close((uv_handle_t *)&l->poll, on_poll_closed);
	uv_close((uv_handle_t *)&l->turn, on_turn_closed);
	uv_close((uv_handle_t *)&l->patience, on_patience_closed);
	/* libuv watches it no longer. */
	close(l->fd);
	if (l->spare >= 0)
		close(l->spare);
}

void listener_finish(struct listener *l, listener_cb on_closed)
{
	/* No more than the kernel's queue holds, whoever else comes. */
	l->taken = 0;
	while (l->open && l->taken < SOMAXCONN && accept_one(l))
		;
	listener_close(l, on_closed);
}

bool listener_idle(const struct listener *l)
{
	return !l->open && l->handles == 0;
}

int address_reserve(const char *address, uint16_t *port)
{
	/* Bound without SO_REUSEPORT, so that a port on which another program
	 * listens is an error even where that one allows sharing; with it from
	 * then on, so that the workers may bind beside it. A socket that is
	 * bound and does not listen gets no connections. */
	int fd = bind_socket(address, false, port);
	int err;

	if (fd < 0)
		return fd;
	err = set_option(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (err < 0) {
		close(fd);
		return err;
	}
	return fd;
}

/* All that can fail (socket, options, bind, listen) is done by hand before
 * libuv sees the descriptor: so a failed start leaves nothing to close, and
 * SO_REUSEPORT, for which libuv 1.44 has no flag, can be set before bind(). */
#include "common/io/listener.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <arpa/inet.h>
#include <errno.h>
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

static void on_dropped(uv_handle_t *handle)
{
	free(handle);
}

/* libuv stops listening while a connection waits to be accepted, so one that
 * the owner lets go must be taken all the same. */
static void drop_connection(struct listener *l)
{
	uv_tcp_t *tcp = xmalloc(sizeof(*tcp));

	check(uv_tcp_init(l->tcp.loop, tcp) == 0);
	if (uv_accept((uv_stream_t *)&l->tcp, (uv_stream_t *)tcp) < 0)
		log_debug("ACCEPT-DROP", "port=%u", l->port);
	uv_close((uv_handle_t *)tcp, on_dropped);
}

static void on_connection(uv_stream_t *stream, int status)
{
	struct listener *l = stream->data;

	if (status < 0) { /* EMFILE and the like; libuv goes on */
		log_warn("ACCEPT-FAILED", "port=%u err=%s", l->port,
			 uv_err_name(status));
		return;
	}
	l->on_accept(l);
	/* The field has been public, if unpraised, since libuv 0.11; it is the
	 * only way to see whether on_accept() took the connection. */
	if (l->open && l->tcp.accepted_fd >= 0 && !l->waits)
		drop_connection(l);
}

int listener_start(struct listener *l, uv_loop_t *loop, const char *address,
		   const struct listener_options *options,
		   listener_accept_cb on_accept, void *ctx)
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
	l->on_accept = on_accept;
	l->ctx = ctx;
	l->open = true;
	check(uv_tcp_init(loop, &l->tcp) == 0);
	l->tcp.data = l;
	check(uv_tcp_open(&l->tcp, fd) == 0);
	check(uv_listen((uv_stream_t *)&l->tcp, backlog, on_connection) == 0);
	return 0;
}

static void on_listener_closed(uv_handle_t *handle)
{
	struct listener *l = handle->data;

	if (l->on_closed != NULL)
		l->on_closed(l);
}

void listener_close(struct listener *l, listener_closed_cb on_closed)
{
	if (!l->open)
		return;
	l->open = false;
	l->on_closed = on_closed;
	uv_close((uv_handle_t *)&l->tcp, on_listener_closed);
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

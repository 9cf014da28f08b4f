/* listener.h - a TCP listener on a libuv loop.
 *
 * Binds with SO_REUSEADDR and, where asked, SO_REUSEPORT, so that the workers
 * of a node share a port and the kernel spreads connections. Socket options
 * that every accepted connection should have (TCP_NODELAY, TCP_USER_TIMEOUT,
 * keepalive, TCP_NOTSENT_LOWAT) are set on the listener: Linux's accepted
 * sockets inherit them, which saves system calls at each accept.
 */
#ifndef STENTOR_IO_LISTENER_H
#define STENTOR_IO_LISTENER_H

#include "common/base/check.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct listener;
typedef void (*listener_accept_cb)(struct listener *l);
typedef void (*listener_closed_cb)(struct listener *l);

struct listener {
	uv_tcp_t tcp;
	bool open;
	uint16_t port; /* the real one, when 0 was asked for */
	listener_accept_cb on_accept;
	bool waits; /* set by on_accept(): this connection is taken later */
	listener_closed_cb on_closed;
	void *ctx;
};

struct listener_options {
	bool reuse_port;
	int backlog;		  /* 0: SOMAXCONN */
	uint32_t user_timeout_ms; /* TCP_USER_TIMEOUT; 0: system default */
	uint32_t notsent_lowat;	  /* bytes; 0: system default */
	uint32_t send_buffer;	  /* SO_SNDBUF bytes; 0: system default */
};

/* Parses "HOST:PORT", "[V6]:PORT" (numeric hosts). ERR_ADDRESS otherwise. */
int address_parse(const char *text, struct sockaddr_storage *out) MUST_CHECK;
/* "127.0.0.1:8080" of an address; `out` of at least ADDRESS_TEXT bytes. */
#define ADDRESS_TEXT 64
void address_format(const struct sockaddr *address, char *out);

/* Starts listening. On error nothing is pending and `l` may be freed. The
 * callback calls uv_accept() on l->tcp once; or sets l->waits, calls it later,
 * and gets no other connection until then; or lets the connection go. */
int listener_start(struct listener *l, uv_loop_t *loop, const char *address,
		   const struct listener_options *options,
		   listener_accept_cb on_accept, void *ctx) MUST_CHECK;
/* Asynchronous and idempotent; on_closed may be NULL. */
void listener_close(struct listener *l, listener_closed_cb on_closed);

/* Takes an address without listening on it: a supervisor holds the ports of
 * its workers so that nobody else gets them and a busy one is found before any
 * worker starts. Returns a descriptor, or a negative err; *port is the real
 * port. */
int address_reserve(const char *address, uint16_t *port) MUST_CHECK;

int err_from_uv(int status);

#endif

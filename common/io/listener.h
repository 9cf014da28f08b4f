/* listener.h - a TCP listener on a libuv loop.
 *
 * Binds with SO_REUSEADDR and, where asked, SO_REUSEPORT, so that the workers
 * of a node share a port and the kernel spreads connections. Socket options
 * that every accepted connection should have (TCP_NODELAY, TCP_USER_TIMEOUT,
 * keepalive, TCP_NOTSENT_LOWAT) are set on the listener: Linux's accepted
 * sockets inherit them, which saves system calls at each accept.
 *
 * Accepts by itself and not by libuv, whose accept loop never ends once the
 * process is out of descriptors and another thread has taken the one that
 * libuv keeps for that case; and which takes all that wait in the kernel,
 * thousands in a storm of reconnects, before anything else gets a turn. Here a
 * turn of the loop takes a slice. Out of descriptors, connections are refused
 * (accepted and closed) by means of a spare descriptor; where that is gone too,
 * accepting rests for LISTENER_REST_MS. Either is logged once, as is its end.
 */
#ifndef STENTOR_IO_LISTENER_H
#define STENTOR_IO_LISTENER_H

#include "common/base/check.h"

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

struct listener;
typedef void (*listener_cb)(struct listener *l);

struct listener {
	bool open;
	uint16_t port; /* the real one, when 0 was asked for */
	void *ctx;
	/* private */
	uv_loop_t *loop;
	listener_cb on_accept, on_refused, on_closed;
	int fd;		   /* listens */
	int accepted;	   /* is on_accept()'s to take; else -1 */
	int spare;	   /* given up to refuse one; -1: others took it */
	unsigned slice;	   /* connections a turn */
	unsigned taken;	   /* in this turn */
	bool starved;	   /* descriptors are short, and that was logged */
	uint64_t short_ms; /* when they last were */
	uint64_t refused;  /* since then */
	unsigned handles;  /* that are open or being closed */
	uv_poll_t poll;	   /* of fd; stands still while no descriptor is left */
	uv_prepare_t turn; /* begins a new slice */
	uv_timer_t patience; /* runs while starved */
};

struct listener_options {
	bool reuse_port;
	int backlog;		  /* 0: SOMAXCONN */
	uint32_t user_timeout_ms; /* TCP_USER_TIMEOUT; 0: system default */
	uint32_t notsent_lowat;	  /* bytes; 0: system default */
	uint32_t send_buffer;	  /* SO_SNDBUF bytes; 0: system default */
	unsigned slice;		  /* connections a turn; 0: LISTENER_SLICE */
	listener_cb on_refused; /* one was, for want of descriptors; or NULL */
};

/* Parses "HOST:PORT", "[V6]:PORT" (numeric hosts). ERR_ADDRESS otherwise. */
int address_parse(const char *text, struct sockaddr_storage *out) MUST_CHECK;
/* "127.0.0.1:8080" of an address; `out` of at least ADDRESS_TEXT bytes. */
#define ADDRESS_TEXT 64
void address_format(const struct sockaddr *address, char *out);

#define LISTENER_SLICE	   64
#define LISTENER_REST_MS   100
#define LISTENER_PLENTY_MS 1000 /* without want: it is over */

/* Starts listening. On error nothing is pending and `l` may be freed. The
 * callback calls listener_take() once, or lets the connection go. */
int listener_start(struct listener *l, uv_loop_t *loop, const char *address,
		   const struct listener_options *options,
		   listener_cb on_accept, void *ctx) MUST_CHECK;
/* From on_accept(): the connection becomes `tcp`, which was initialised. On
 * error it is lost, and `tcp` to be closed. */
int listener_take(struct listener *l, uv_tcp_t *tcp) MUST_CHECK;
/* Asynchronous and idempotent; on_closed may be NULL. Nothing listens any more
 * when the call returns. Connections that the kernel has made and nobody has
 * taken are reset. */
void listener_close(struct listener *l, listener_cb on_closed);
/* The same, but hands those connections to on_accept() first. */
void listener_finish(struct listener *l, listener_cb on_closed);
/* Neither open nor about to be closed: it may be started, again too. */
bool listener_idle(const struct listener *l);

/* Takes an address without listening on it: a supervisor holds the ports of
 * its workers so that nobody else gets them and a busy one is found before any
 * worker starts. Returns a descriptor, or a negative err; *port is the real
 * port. */
int address_reserve(const char *address, uint16_t *port) MUST_CHECK;

int err_from_uv(int status);

#endif

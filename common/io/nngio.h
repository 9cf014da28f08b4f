/* nngio.h - every nng call of the project.
 *
 * Two kinds of socket, both simplex, because PUSH -> PULL is the only nng
 * pattern that pushes back instead of dropping, and sockets that only send are
 * the only ones that nng can close safely:
 *
 *   nng_inbox    PULL, listens. Lives as long as the process. Messages and
 *                pipe events reach the loop through a mailbox. Never closed
 *                while running (nng 1.5's reaper may wedge).
 *   nng_outbox   PUSH, dials one address and redials by itself. Sends from the
 *                loop, never blocking. May be closed at any time.
 *
 * nng's "connected" proves nothing: what a link is, is decided above.
 *
 * A process must call nngio_process_init() in main() before any thread starts
 * (it limits nng's thread count), and link common/io/nngshim.c, whose sendmsg()
 * keeps a remote peer from killing a listener for ever (nng #1518).
 */
#ifndef STENTOR_IO_NNGIO_H
#define STENTOR_IO_NNGIO_H

#include "common/base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#define NNGIO_MESSAGE_MAX (4u << 20) /* bytes of one received nng message */

void nngio_process_init(void);

/* Certificates for tls+tcp:// addresses: PEM files. All NULL: plain tcp. */
struct nng_tls_files {
	const char *cert, *key, *ca;
	const char
		*server_name; /* what a dialled peer's certificate must say */
};

struct nng_inbox;
struct nng_outbox;

/* `bytes` are borrowed during the call. `pipe` identifies the connection it
 * came by. */
typedef void (*nng_inbox_message_cb)(void *ctx, uint32_t pipe,
				     const uint8_t *bytes, size_t len);
typedef void (*nng_inbox_pipe_cb)(void *ctx, uint32_t pipe, bool up);

/* Listens at `url` (tcp:// or tls+tcp://). Returns 0 and *out, or ERR_ADDRESS,
 * ERR_CONFIG (certificates) or ERR_IO. `on_pipe` may be NULL. */
int nng_inbox_open(uv_loop_t *loop, const char *url,
		   const struct nng_tls_files *tls,
		   nng_inbox_message_cb on_message, nng_inbox_pipe_cb on_pipe,
		   void *ctx, struct nng_inbox **out) MUST_CHECK;
/* Messages received but not yet delivered to the loop. */
size_t nng_inbox_pending(const struct nng_inbox *in);
/* At process exit only: stops deliveries and lets the loop end. The nng socket
 * stays open until the process is gone (see above). */
void nng_inbox_stop(struct nng_inbox *in);

/* Connected (true) or the connection went (false); from the loop. */
typedef void (*nng_outbox_event_cb)(void *ctx, bool up);

int nng_outbox_open(uv_loop_t *loop, const char *url,
		    const struct nng_tls_files *tls,
		    nng_outbox_event_cb on_event, void *ctx,
		    struct nng_outbox **out) MUST_CHECK;

/* Copies `len` bytes, given as up to several pieces, into one message and
 * sends it. 0: nng took it (which proves nothing); ERR_AGAIN: the peer pushes
 * back or is not connected: nothing was sent, try again later. */
struct nng_piece {
	const void *bytes;
	size_t len;
};
int nng_outbox_send(struct nng_outbox *out, const struct nng_piece *pieces,
		    size_t count) MUST_CHECK;
bool nng_outbox_connected(const struct nng_outbox *out);
/* At once and from the loop; no callback comes after it. */
void nng_outbox_close(struct nng_outbox *out);

#endif

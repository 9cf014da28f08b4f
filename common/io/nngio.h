/* nngio.h - every nng call of the project (nngio.c, nngio_inbox.c,
 * nngio_outbox.c).
 *
 * Two kinds of socket, both simplex, because PUSH -> PULL is the only nng
 * pattern that pushes back instead of dropping, and sockets that only send are
 * the only ones that nng can close safely:
 *
 *   nng_inbox    PULL, listens. Lives as long as the process. Messages and
 *                pipe events reach the loop through a mailbox. Never closed
 *                while running (nng 1.5's reaper may wedge).
 *   nng_outbox   PUSH, dials one address and redials by itself, each time
 *                with a fresh socket: nothing taken for one connection is sent
 *                over the next. Sends from the loop, never blocking. May be
 *                closed at any time.
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
#include <sys/uio.h>
#include <uv.h>

#define NNGIO_MESSAGE_MAX (4u << 20) /* bytes of one received nng message */
/* Bytes an inbox holds for the loop before it stops receiving, so that TCP
 * pushes back on the senders. May be passed by one message. */
#define NNGIO_INBOX_BYTES_MAX (8u << 20)
/* Messages nng may hold for one connection beside the one in its hands: so many
 * can be sent in a row before ERR_AGAIN. Without, a link that retries each
 * millisecond gets 14 MB/s of 16 KiB batches; with, 67. Lost with it. */
#define NNGIO_SEND_QUEUE 8
/* Wait between dials that fail: random up to MIN, doubling to MAX. After a
 * connection that was lost: MIN. */
#define NNGIO_REDIAL_MIN_MS 100
#define NNGIO_REDIAL_MAX_MS 1000
/* A socket that nng has not closed after this time means that nng's reaper
 * thread is stuck for ever (see nngio_stuck()). */
#define NNGIO_CLOSE_MAX_MS 5000
/* Sockets being closed at once; more wait for their turn. */
#define NNGIO_CLOSING_MAX 16
#define NNGIO_HOST_MAX	  64
#define NNGIO_PEM_MAX	  (256u << 10) /* bytes of one certificate file */

void nngio_process_init(void);

/* nng 1.5 has a race over tls+tcp (not seen with 1.12) that stops the one
 * thread which buries connections: when one goes while a message of it is
 * between two records. From then on no loss of a connection is told any more,
 * and the descriptors of lost ones stay open; connecting, sending and receiving
 * go on, and nothing here ever waits for that thread. True once it has been
 * seen: the process should be replaced when it suits. Links must notice silence
 * by themselves and call nng_outbox_redial(). */
bool nngio_stuck(void);

/* Certificates for tls+tcp:// addresses: PEM files. All NULL: plain tcp. */
struct nng_tls_files {
	const char *cert, *key, *ca;
	const char *server_name; /* a DNS name that a dialled peer's certificate
				  * must bear; needed to dial */
};

struct nng_inbox;
struct nng_outbox;

/* `bytes` are borrowed during the call. `pipe` identifies the connection it
 * came by. */
typedef void (*nng_inbox_message_cb)(void *ctx, uint32_t pipe,
				     const uint8_t *bytes, size_t len);
/* A pipe's first messages may come before its `up`, its last after its `down`;
 * `down` comes once for each `up`. */
typedef void (*nng_inbox_pipe_cb)(void *ctx, uint32_t pipe, bool up);

/* Listens at `url` (tcp:// or tls+tcp://). Returns 0 and *out, or ERR_ADDRESS,
 * ERR_CONFIG (certificates: missing, bad, or given for tcp://) or ERR_IO. `tls`
 * is read during the call and may be NULL, as may `on_pipe`. */
int nng_inbox_open(uv_loop_t *loop, const char *url,
		   const struct nng_tls_files *tls,
		   nng_inbox_message_cb on_message, nng_inbox_pipe_cb on_pipe,
		   void *ctx, struct nng_inbox **out) MUST_CHECK;
/* Bytes received but not yet delivered to the loop. */
size_t nng_inbox_pending(const struct nng_inbox *in);
/* For how long there have been more than a turn could deliver. */
uint64_t nng_inbox_age_ms(const struct nng_inbox *in);
/* At process exit only: stops deliveries and lets the loop end. The nng socket
 * stays open, and `in` allocated, until the process is gone (see above). */
void nng_inbox_stop(struct nng_inbox *in);

/* Connected (true) or the connection went (false); from the loop. The callback
 * may close the outbox. */
typedef void (*nng_outbox_event_cb)(void *ctx, bool up);

/* Starts dialling. All outboxes of a process belong to one loop. Errors as for
 * an inbox; a peer that is not there is none. */
int nng_outbox_open(uv_loop_t *loop, const char *url,
		    const struct nng_tls_files *tls,
		    nng_outbox_event_cb on_event, void *ctx,
		    struct nng_outbox **out) MUST_CHECK;

/* Copies `len` bytes, given as up to several pieces, into one message and
 * sends it. 0: nng took it (which proves nothing); ERR_AGAIN: the peer pushes
 * back or is not connected: nothing was sent, try again later. */
int nng_outbox_send(struct nng_outbox *out, const struct iovec *pieces,
		    size_t count) MUST_CHECK;
bool nng_outbox_connected(const struct nng_outbox *out);
/* The address of this machine that the newest connection leaves from; "" before
 * the first. Borrowed until the outbox is closed. */
const char *nng_outbox_local_host(const struct nng_outbox *out);
/* Gives the connection up, if any, without a callback, and dials anew: for a
 * link that has been silent too long. */
void nng_outbox_redial(struct nng_outbox *out);
/* From the loop; no callback comes after it. What was sent last may be lost.
 * With nng 1.5 so may a descriptor, if nng is shaking hands with the peer just
 * then; it is not if the outbox is connected, or the peer not there. */
void nng_outbox_close(struct nng_outbox *out);

#endif

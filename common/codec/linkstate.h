/* linkstate.h - what one side of a link knows of it (pure).
 *
 * nng tells neither loss nor liveness, so every frame carries the epochs of
 * both sides, a sequence number and an acknowledgement. This module numbers
 * what goes out, judges what comes in, and counts what is under way. It knows
 * no roles: who greets whom is in connnode/link/announcer.c and
 * dispatcher/route/nodes_greet.c.
 *
 *	sent:      1 .. peer_ack .. tx_seq      (peer_ack, tx_seq] is under way
 *	received:  1 .. acked .. rx_seq         (acked, rx_seq] is not yet told
 *
 * Credit: at most LINK_CREDIT unacknowledged bytes may be under way, because a
 * stuck peer would otherwise hold megabytes in the kernel's buffers.
 */
#ifndef STENTOR_CODEC_LINKSTATE_H
#define STENTOR_CODEC_LINKSTATE_H

#include "common/codec/linkwire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINK_CREDIT	  (512u << 10) /* bytes */
#define LINK_ACK_BYTES	  (64u << 10)  /* received bytes that want an ack */
#define LINK_HEARTBEAT_MS 1000
#define LINK_DEAD_MS	  4000 /* silence after which a link is down */
#define LINK_GREET_MS	  500  /* between greetings */

struct link_state {
	uint64_t epoch, peer_epoch;
	uint64_t tx_seq, tx_bytes;
	uint64_t peer_ack, peer_ack_bytes;
	uint64_t rx_seq, rx_bytes;
	uint64_t acked_seq, acked_bytes;
	uint64_t last_rx_ms;
	bool hold_acks; /* the owner can't take more: tell nothing new */
};

/* A new attempt, under a fresh `epoch` (never 0); the peer's is not known. */
void link_state_init(struct link_state *s, uint64_t epoch, uint64_t now_ms);

/* Header of the next frame in sequence; counts only when link_state_sent()
 * follows, so that a send that was pushed back changes nothing. */
struct link_header link_state_next(const struct link_state *s);
/* Header outside the sequence: greetings and refusals. */
struct link_header link_state_greeting(const struct link_state *s);
/* The frame that link_state_next() described left with `bytes` bytes. */
void link_state_sent(struct link_state *s, size_t bytes);

/* Judges a received frame of `bytes` bytes in sequence. 0: take it; ERR_STALE:
 * of another epoch, ignore it; ERR_GAP: one or more before it are lost (or the
 * peer acknowledges what was never sent): the link must be made anew. */
int link_state_receive(struct link_state *s, const struct link_header *h,
		       size_t bytes, uint64_t now_ms) MUST_CHECK;

/* Bytes that may be sent now. Control frames need no credit. */
size_t link_state_credit(const struct link_state *s);
bool link_state_dead(const struct link_state *s, uint64_t now_ms);
/* Received bytes that were not yet acknowledged. */
size_t link_state_owed(const struct link_state *s);

#endif

#include "common/codec/linkstate.h"

#include "common/base/err.h"

void link_state_init(struct link_state *s, uint64_t epoch, uint64_t now_ms)
{
	check(epoch != 0);
	*s = (struct link_state){
		.epoch = epoch,
		.last_rx_ms = now_ms,
	};
}

static struct link_header header(const struct link_state *s, uint64_t seq)
{
	return (struct link_header){
		.sender_epoch = s->epoch,
		.receiver_epoch = s->peer_epoch,
		.seq = seq,
		.ack = s->hold_acks ? s->acked_seq : s->rx_seq,
		.ack_bytes = s->hold_acks ? s->acked_bytes : s->rx_bytes,
	};
}

struct link_header link_state_next(const struct link_state *s)
{
	return header(s, s->tx_seq + 1);
}

struct link_header link_state_greeting(const struct link_state *s)
{
	return header(s, 0);
}

void link_state_sent(struct link_state *s, size_t bytes)
{
	s->tx_seq++;
	s->tx_bytes += bytes;
	if (!s->hold_acks) {
		s->acked_seq = s->rx_seq;
		s->acked_bytes = s->rx_bytes;
	}
}

int link_state_receive(struct link_state *s, const struct link_header *h,
		       size_t bytes, uint64_t now_ms)
{
	if (h->receiver_epoch != s->epoch || h->sender_epoch != s->peer_epoch)
		return ERR_STALE;
	if (h->seq != s->rx_seq + 1)
		return h->seq <= s->rx_seq ? ERR_STALE : ERR_GAP;
	if (h->ack > s->tx_seq || h->ack_bytes > s->tx_bytes)
		return ERR_GAP;
	s->rx_seq = h->seq;
	s->rx_bytes += bytes;
	s->last_rx_ms = now_ms;
	if (h->ack >= s->peer_ack) {
		s->peer_ack = h->ack;
		s->peer_ack_bytes = h->ack_bytes;
	}
	return 0;
}

size_t link_state_credit(const struct link_state *s)
{
	uint64_t under_way = s->tx_bytes - s->peer_ack_bytes;

	return under_way < LINK_CREDIT ? LINK_CREDIT - (size_t)under_way : 0;
}

bool link_state_dead(const struct link_state *s, uint64_t now_ms)
{
	return now_ms - s->last_rx_ms >= LINK_DEAD_MS;
}

size_t link_state_owed(const struct link_state *s)
{
	return (size_t)(s->rx_bytes - s->acked_bytes);
}

/* net.h - the network between simulated processes, as nng over TCP behaves.
 *
 * A wire is one dialled, one-way connection. It redials by itself, delivers in
 * order with random latency, and pushes back (ERR_AGAIN) when more than
 * WIRE_BYTES are under way. What may go wrong:
 *
 *	broken	 the connection is lost; a prefix of what was under way may
 *		 still arrive, late, after the next connection's first frames.
 *		 The sender is told after a while, or never
 *	hole	 frames vanish for a time and nobody is told
 *	stall	 frames arrive much later, in order
 *	stuck	 the wire pushes back for a time
 *	replay	 a frame that was delivered once comes again, perhaps to the
 *		 successor of the process it was meant for
 *	barred	 there is no way from the one to the other, ever
 */
#ifndef STENTOR_TESTS_SIM_NET_H
#define STENTOR_TESTS_SIM_NET_H

#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/ds/list.h"
#include "tests/sim/world.h"

#include <sys/uio.h>

#define WIRE_BYTES   (200u << 10)
#define NEVER	     UINT64_MAX
#define REPLAYS	     64
#define LATENCY_MS   15
#define REORDER_MS   1500
#define REDIAL_MS    100
#define PROCESS_NAME 16

struct wire;

/* Whatever dials and is dialled; cluster.h embeds it. */
struct process {
	char name[PROCESS_NAME];
	bool alive, busy; /* busy: its loop has to take a turn */
	uint64_t instance;
	void (*receive)(struct process *p, const struct process *from,
			const uint8_t *bytes, size_t len);
	/* A wire that it dialled connected or was lost. */
	void (*event)(struct process *p, void *owner, bool up);
};

struct packet {
	struct list in_wire;
	struct process *from, *to;
	uint64_t to_instance;
	uint64_t at_ms;
	size_t len;
	uint8_t bytes[];
};

struct wire {
	struct list in_net;
	struct process *from, *to;
	void *owner; /* the dialling side's upstream or node_worker */
	uint64_t to_instance;
	bool connected, broken, closed, barred;
	uint64_t event_at_ms; /* next dial, or when a loss is noticed */
	uint64_t stuck_until_ms, hole_until_ms, stall_until_ms;
	uint64_t last_at_ms;
	struct list packets;
	size_t bytes;
};

static struct {
	struct list wires;
	struct list strays; /* packets that outlive their wire */
	struct packet *seen[REPLAYS];
} net;

static void net_init(void)
{
	memset(&net, 0, sizeof(net));
	list_init(&net.wires);
	list_init(&net.strays);
}

static struct wire *wire_open(struct process *from, struct process *to,
			      void *owner)
{
	struct wire *w = xcalloc(1, sizeof(*w));

	w->from = from;
	w->to = to;
	w->owner = owner;
	w->event_at_ms = world.now_ms + below(LATENCY_MS);
	list_init(&w->packets);
	list_push_back(&net.wires, &w->in_net);
	return w;
}

/* What was under way: a prefix survives as strays, the rest is lost. */
static void wire_spill(struct wire *w, bool survivors)
{
	uint64_t late = below(REORDER_MS);
	struct list *node;

	while ((node = list_pop_front(&w->packets)) != NULL) {
		struct packet *p = container_of(node, struct packet, in_wire);

		survivors = survivors && !chance(100);
		if (!survivors) {
			free(p);
			continue;
		}
		p->at_ms += late;
		list_push_back(&net.strays, &p->in_wire);
	}
	w->bytes = 0;
}

/* From now on nothing gets through; noticed at `notice_ms`. */
static void wire_break(struct wire *w, bool survivors, uint64_t notice_ms)
{
	if (!w->connected || w->broken || w->closed)
		return;
	wire_spill(w, survivors);
	w->broken = true;
	w->event_at_ms = notice_ms;
}

static void wire_close(struct wire *w)
{
	wire_spill(w, chance(500));
	w->closed = true;
}

static int wire_send(struct wire *w, const struct iovec *pieces, size_t count)
{
	struct packet *p;
	size_t len = 0;

	for (size_t i = 0; i < count; i++)
		len += pieces[i].iov_len;
	if (!w->connected || w->bytes > WIRE_BYTES ||
	    world.now_ms < w->stuck_until_ms)
		return ERR_AGAIN;
	if (w->broken || world.now_ms < w->hole_until_ms)
		return 0;
	p = xmalloc(sizeof(*p) + len);
	*p = (struct packet){
		.from = w->from,
		.to = w->to,
		.to_instance = w->to_instance,
	};
	for (size_t i = 0; i < count; i++) {
		if (pieces[i].iov_len == 0)
			continue;
		memcpy(p->bytes + p->len, pieces[i].iov_base,
		       pieces[i].iov_len);
		p->len += pieces[i].iov_len;
	}
	p->at_ms =
		max_of(world.now_ms, w->stall_until_ms) + 1 + below(LATENCY_MS);
	p->at_ms = w->last_at_ms = max_of(p->at_ms, w->last_at_ms);
	list_push_back(&w->packets, &p->in_wire);
	w->bytes += len;
	return 0;
}

/* Takes the packet; keeps it for a replay. */
static void packet_deliver(struct packet *p)
{
	struct packet **place = &net.seen[below(REPLAYS)];

	if (p->to->alive && p->to->instance == p->to_instance) {
		p->to->busy = true;
		p->to->receive(p->to, p->from, p->bytes, p->len);
	}
	free(*place);
	*place = p;
}

static void net_replay(void)
{
	struct packet *p = net.seen[below(REPLAYS)];

	if (p == NULL || !p->to->alive)
		return;
	trace("replay of %llu bytes", p->len);
	p->to->busy = true;
	p->to->receive(p->to, NULL, p->bytes, p->len);
}

static void wire_dial(struct wire *w)
{
	if (!w->to->alive || w->barred) {
		w->event_at_ms = world.now_ms + REDIAL_MS + below(900);
		return;
	}
	w->connected = true;
	w->broken = false;
	w->to_instance = w->to->instance;
	w->from->busy = true;
	w->from->event(w->from, w->owner, true);
}

static void wire_notice_loss(struct wire *w)
{
	w->connected = w->broken = false;
	w->event_at_ms = world.now_ms + REDIAL_MS;
	w->from->busy = true;
	w->from->event(w->from, w->owner, false);
}

static void deliver_due(struct list *packets, struct wire *w)
{
	while (!list_empty(packets)) {
		struct packet *p =
			container_of(packets->next, struct packet, in_wire);

		if (p->at_ms > world.now_ms)
			return;
		list_remove(&p->in_wire);
		if (w != NULL)
			w->bytes -= p->len;
		packet_deliver(p);
	}
}

/* Strays of several wires stand in one list; each wire's are in order. */
static void deliver_strays(void)
{
	struct list due;

	list_init(&due);
	list_for_each_safe (node, &net.strays) {
		struct packet *p = container_of(node, struct packet, in_wire);

		if (p->at_ms > world.now_ms)
			continue;
		list_remove(node);
		list_push_back(&due, node);
	}
	deliver_due(&due, NULL);
}

/* Everything that is due by now. */
static void net_step(void)
{
	list_for_each (node, &net.wires) {
		struct wire *w = container_of(node, struct wire, in_net);

		if (w->closed || !w->from->alive)
			continue;
		if (!w->connected && world.now_ms >= w->event_at_ms)
			wire_dial(w);
		else if (w->broken && world.now_ms >= w->event_at_ms)
			wire_notice_loss(w);
		if (!w->closed)
			deliver_due(&w->packets, w);
	}
	deliver_strays();
	list_for_each_safe (node, &net.wires) {
		struct wire *w = container_of(node, struct wire, in_net);

		if (!w->closed)
			continue;
		list_remove(&w->in_net);
		free(w);
	}
}

static struct wire *wire_any(void)
{
	uint64_t count = 0, pick;

	list_for_each (node, &net.wires)
		count++;
	pick = below(count);
	list_for_each (node, &net.wires) {
		if (pick-- == 0)
			return container_of(node, struct wire, in_net);
	}
	return NULL;
}

static void lose_one_packet(struct wire *w)
{
	struct packet *p;

	if (list_empty(&w->packets))
		return;
	p = container_of(w->packets.next, struct packet, in_wire);
	list_remove(&p->in_wire);
	w->bytes -= p->len;
	free(p);
}

/* One random misfortune of one wire. */
static void net_fault(void)
{
	struct wire *w = wire_any();

	if (w == NULL || w->closed)
		return;
	switch (below(6)) {
	case 0:
		trace("break a wire");
		wire_break(w, chance(700), world.now_ms + below(500));
		break;
	case 1:
		trace("break a wire, untold");
		wire_break(w, chance(700), NEVER);
		break;
	case 2:
		w->hole_until_ms = world.now_ms + below(8000);
		trace("hole until %llu ms", w->hole_until_ms);
		break;
	case 3:
		w->stall_until_ms = world.now_ms + below(6000);
		trace("stall until %llu ms", w->stall_until_ms);
		break;
	case 4:
		w->stuck_until_ms = world.now_ms + below(5000);
		trace("stuck until %llu ms", w->stuck_until_ms);
		break;
	default:
		trace("lose a packet");
		lose_one_packet(w);
	}
}

/* No new misfortune, and the old ones end. */
static void net_heal(void)
{
	uint64_t soon = world.now_ms + LATENCY_MS;

	list_for_each (node, &net.wires) {
		struct wire *w = container_of(node, struct wire, in_net);

		w->hole_until_ms = w->stall_until_ms = w->stuck_until_ms = 0;
		w->last_at_ms = min_of(w->last_at_ms, soon);
		list_for_each (in_wire, &w->packets) {
			struct packet *p =
				container_of(in_wire, struct packet, in_wire);

			p->at_ms = min_of(p->at_ms, soon);
		}
	}
}

/* A process died: its own wires end, those to it break. */
static void net_died(const struct process *p, bool told)
{
	list_for_each (node, &net.wires) {
		struct wire *w = container_of(node, struct wire, in_net);

		if (w->to == p && !w->closed)
			wire_break(w, false,
				   told ? world.now_ms + below(300) : NEVER);
	}
}

static void packets_free(struct list *packets)
{
	struct list *node;

	while ((node = list_pop_front(packets)) != NULL)
		free(container_of(node, struct packet, in_wire));
}

static void net_fini(void)
{
	struct list *node;

	while ((node = list_pop_front(&net.wires)) != NULL) {
		struct wire *w = container_of(node, struct wire, in_net);

		packets_free(&w->packets);
		free(w);
	}
	packets_free(&net.strays);
	for (unsigned i = 0; i < REPLAYS; i++)
		free(net.seen[i]);
}

#endif

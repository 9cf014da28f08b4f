/* Fuzz target: what peers send over links. The input is a series of frames,
 * each behind two bytes of length (big endian); the first byte says to whom
 * they go. Every frame is decoded; then a worker's announcer, or a
 * dispatcher's nodes with counts, history and a store behind them, takes it.
 * Nothing that a peer sends may trip a check.
 *
 * The epochs are fixed ones (see getrandom below), so that stored inputs know
 * them: 0x0101010101010101 and so on. */
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/codec/sse.h"
#include "connnode/link/announcer.h"
#include "connnode/node/pace.h"
#include "dispatcher/publish/history.h"
#include "dispatcher/route/counts.h"
#include "dispatcher/route/fleet.h"
#include "dispatcher/store/memlog.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define START_MS       1000
#define STORE_IDENTITY 7

static uint8_t drawn;

/* Epochs and keys of a run: all bytes 1, then all 2, ... */
ssize_t getrandom(void *bytes, size_t len, unsigned flags UNUSED)
{
	memset(bytes, ++drawn, len);
	return (ssize_t)len;
}

static struct rule match_all = {.pattern = "*", .priority = PRIORITY_NORMAL};
static const struct rules rules = {.rule = &match_all, .count = 1};

/* Reads what goes out, as a socket would: asan sees a bad piece. */
static size_t swallow(const struct iovec *pieces, size_t count)
{
	static volatile uint8_t sink;
	size_t len = 0;

	for (size_t i = 0; i < count; i++) {
		const uint8_t *bytes = pieces[i].iov_base;

		for (size_t k = 0; k < pieces[i].iov_len; k++)
			sink = bytes[k];
		len += pieces[i].iov_len;
	}
	(void)sink;
	return len;
}

/* --- a worker --------------------------------------------------------------
 */

static int worker_send(void *ctx UNUSED, struct upstream *u UNUSED,
		       const struct iovec *pieces, size_t count)
{
	return swallow(pieces, count) % 7 == 6 ? ERR_AGAIN : 0;
}

static void worker_redial(void *ctx UNUSED, struct upstream *u UNUSED)
{
}

/* As fanout.c renders them. */
static void worker_deliver(void *ctx UNUSED, LinkDelivery *const *deliveries,
			   size_t count)
{
	for (size_t i = 0; i < count; i++) {
		const LinkDelivery *d = deliveries[i];
		struct sse_event e = {
			.event = d->event,
			.data = (const char *)d->data.data,
			.data_len = d->data.len,
		};

		frame_release(sse_render(&e));
		frame_release(sse_render_json(&e, d->channel, NULL));
	}
}

static const struct announcer_ops worker_ops = {
	.send = worker_send,
	.redial = worker_redial,
	.deliver = worker_deliver,
};

struct fuzzed_worker {
	struct pace pace;
	struct channels channels;
	struct announcer announcer;
	struct subscription subscription;
};

static void worker_begin(struct fuzzed_worker *w)
{
	struct announcer_identity id = {
		.node = "n",
		.link_address = "tcp://w:1",
		.listen_address = "",
		.version = "",
		.token = "",
		.incarnation = 1,
	};
	struct channel *ch;

	pace_init(&w->pace, START_MS);
	channels_init(&w->channels, &rules);
	announcer_init(&w->announcer, &w->channels, &id, &worker_ops, w);
	ch = channels_get(&w->channels, "a", 1);
	channels_subscribe(&w->channels, ch, &w->subscription, NULL, false);
	announcer_touch(&w->announcer, ch);
	for (unsigned i = 0; i < 2; i++)
		announcer_connected(&w->announcer,
				    announcer_add(&w->announcer, "tcp://d:1"),
				    START_MS);
}

static void worker_frame(void *ctx, const uint8_t *bytes, size_t len,
			 uint64_t now_ms)
{
	struct fuzzed_worker *w = ctx;
	struct fleet_heard fleet;

	announcer_receive(&w->announcer, bytes, len, now_ms);
	announcer_flush(&w->announcer, now_ms);
	announcer_tick(&w->announcer, now_ms);
	fleet = announcer_fleet(&w->announcer);
	(void)!pace_due(&w->pace, now_ms, 1000, &fleet);
	if (len % 3 == 0)
		pace_drain(&w->pace, now_ms, 400);
}

static void worker_end(struct fuzzed_worker *w)
{
	channels_unsubscribe(&w->channels, &w->subscription);
	announcer_fini(&w->announcer);
	channels_fini(&w->channels);
}

/* --- a dispatcher ----------------------------------------------------------
 */

struct fuzzed_dispatcher {
	struct nodes nodes;
	struct fleet fleet;
	struct counts counts;
	struct history history;
	struct memlogs logs;
	struct list reads, tops; /* done after the frame */
};

static int dispatcher_open(void *ctx UNUSED, struct node_worker *w)
{
	if (strcmp(w->link_address, "tcp://") == 0)
		return ERR_ADDRESS;
	w->socket = w;
	return 0;
}

static void dispatcher_close(void *ctx UNUSED, struct node_worker *w)
{
	w->socket = NULL;
}

static int dispatcher_send(void *ctx UNUSED, struct node_worker *w UNUSED,
			   const struct iovec *pieces, size_t count)
{
	return swallow(pieces, count) % 7 == 6 ? ERR_AGAIN : 0;
}

static void dispatcher_counted(void *ctx, uint64_t id, uint64_t subscribers)
{
	struct fuzzed_dispatcher *d = ctx;

	counts_answer(&d->counts, id, subscribers);
}

static void dispatcher_history(void *ctx, struct node_worker *w,
			       const HistoryQuery *query)
{
	history_ask(&((struct fuzzed_dispatcher *)ctx)->history, w, query);
}

static void dispatcher_tops(void *ctx, struct node_worker *w,
			    const TopsQuery *query)
{
	history_ask_tops(&((struct fuzzed_dispatcher *)ctx)->history, w, query);
}

static void store_read_later(void *ctx, struct store_read *r)
{
	list_push_back(&((struct fuzzed_dispatcher *)ctx)->reads, &r->in_store);
}

static void store_tops_later(void *ctx, struct store_tops *t)
{
	list_push_back(&((struct fuzzed_dispatcher *)ctx)->tops, &t->in_store);
}

static const char *store_fault(void *ctx UNUSED)
{
	return NULL;
}

static void store_run(struct fuzzed_dispatcher *d, uint64_t now_ms)
{
	struct list *node;

	while ((node = list_pop_front(&d->reads)) != NULL) {
		struct store_read *r =
			container_of(node, struct store_read, in_store);

		memlogs_read(&d->logs, r, now_ms);
		r->done(r);
	}
	while ((node = list_pop_front(&d->tops)) != NULL) {
		struct store_tops *t =
			container_of(node, struct store_tops, in_store);

		memlogs_tops(&d->logs, t, now_ms);
		t->done(t);
	}
}

/* A log of some messages, one of which is none. */
static void store_fill(struct fuzzed_dispatcher *d)
{
	static const char *const records[] = {"\x12\x01x", "", "garbage",
					      "\x12\x01y"};

	for (size_t i = 0; i < array_len(records); i++) {
		struct store_append a = {
			.channel = "a",
			.record = records[i],
			.len = strlen(records[i]),
			.size = 10,
			.ttl_ms = 1000,
			.idempotency_key = "",
		};

		memlogs_append(&d->logs, &a, START_MS);
	}
}

static uint64_t dispatcher_wall(void *ctx UNUSED)
{
	return 1;
}

static bool dispatcher_advise(void *ctx, const struct node_worker *w,
			      FleetWord *fleet)
{
	struct fuzzed_dispatcher *d = ctx;

	fleet_advise(&d->fleet, w, fleet);
	(void)fleet_drain_eta_ms(w->node);
	return true;
}

static const struct nodes_ops dispatcher_ops = {
	.open = dispatcher_open,
	.close = dispatcher_close,
	.send = dispatcher_send,
	.history = dispatcher_history,
	.tops = dispatcher_tops,
	.advise = dispatcher_advise,
	.counted = dispatcher_counted,
	.wall_ms = dispatcher_wall,
};

static void on_count(void *ctx UNUSED, const struct count_result *r UNUSED)
{
}

static void dispatcher_begin(struct fuzzed_dispatcher *d)
{
	struct nodes_config config = {
		.name = "d",
		.version = "",
		.token = "",
		.workers_max = 3,
		.queue_bytes = 4096,
		.interest_max = 100,
	};
	struct history_store store = {
		.read = store_read_later,
		.tops = store_tops_later,
		.fault = store_fault,
		.ctx = d,
	};
	struct fleet_config fleet = {
		.rebalance = true,
		.margin_percent = 1,
		.rate_permille = 5,
	};
	uint8_t links;

	fleet_init(&d->fleet, &fleet, START_MS);
	nodes_init(&d->nodes, &config, &dispatcher_ops, d);
	counts_init(&d->counts, &d->nodes);
	links = drawn;
	list_init(&d->reads);
	list_init(&d->tops);
	memlogs_init(&d->logs, 1u << 20, 1000);
	store_fill(d);
	history_init(&d->history, &d->nodes, &store);
	nodes_set_store(&d->nodes, STORE_IDENTITY);
	drawn = links; /* epochs of links are what stored inputs know */
}

static void dispatcher_end(struct fuzzed_dispatcher *d)
{
	history_close(&d->history);
	store_run(d, START_MS);
	history_fini(&d->history);
	memlogs_fini(&d->logs);
	nodes_fini(&d->nodes);
	free(d);
}

/* Everything that is dialled connects, and gets a message and a question. */
static void dispatcher_frame(void *ctx, const uint8_t *bytes, size_t len,
			     uint64_t now_ms)
{
	struct fuzzed_dispatcher *d = ctx;

	nodes_receive(&d->nodes, bytes, len, now_ms);
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
		struct node_worker *w = d->nodes.by_id[i];
		struct frame *f;

		if (w == NULL)
			continue;
		if (!w->connected)
			nodes_connected(&d->nodes, w, now_ms);
		f = frame_from("\x82\x01\x00", 3);
		(void)!nodes_queue(&d->nodes, w, f, PRIORITY_NORMAL,
				   PRIORITY_NORMAL);
		frame_release(f);
	}
	(void)!counts_ask(&d->counts, "a", now_ms, on_count, NULL);
	if (len % 2 == 0)
		store_run(d, now_ms);
	nodes_flush(&d->nodes, now_ms);
	fleet_look(&d->fleet, &d->nodes, now_ms);
	nodes_tick(&d->nodes, now_ms);
	counts_tick(&d->counts, now_ms);
}

/* --- the input -------------------------------------------------------------
 */

static void decode(const uint8_t *bytes, size_t len)
{
	struct arena arena;
	const LinkFrame *f;

	arena_init(&arena, 1u << 20);
	f = link_frame_decode(&arena, bytes, len);
	if (f != NULL) {
		struct link_header h = link_frame_header(f);
		uint8_t out[LINK_HEADER_MAX];

		check(link_header_encode(out, &h) <= LINK_HEADER_MAX);
	}
	check(arena.held <= arena.max);
	arena_fini(&arena);
	if (link_record_valid(bytes, len)) {
		LinkDelivery *d =
			stentor__link__v1__delivery__unpack(NULL, len, bytes);

		check(d != NULL);
		stentor__link__v1__delivery__free_unpacked(d, NULL);
	}
}

static void feed(const uint8_t *data, size_t size, void *ctx,
		 void (*frame)(void *ctx, const uint8_t *bytes, size_t len,
			       uint64_t now_ms))
{
	uint64_t now_ms = START_MS;

	while (size >= 2) {
		size_t len = min_of((size_t)data[0] << 8 | data[1], size - 2);
		uint8_t *exact = xmalloc(len);

		memcpy(exact, data + 2, len);
		decode(exact, len);
		frame(ctx, exact, len, now_ms);
		free(exact);
		data += 2 + len;
		size -= 2 + len;
		now_ms += 150;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	drawn = 0;
	log_init("fuzz", LOG_ERROR, false);
	if (size == 0)
		return 0;
	if (data[0] % 2 == 0) {
		struct fuzzed_worker w;

		worker_begin(&w);
		feed(data + 1, size - 1, &w, worker_frame);
		worker_end(&w);
	} else {
		struct fuzzed_dispatcher *d = xcalloc(1, sizeof(*d));

		dispatcher_begin(d);
		feed(data + 1, size - 1, d, dispatcher_frame);
		dispatcher_end(d);
	}
	return 0;
}

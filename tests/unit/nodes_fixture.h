/* nodes_fixture.h - a dispatcher's nodes, and workers that speak to it. */
#ifndef STENTOR_TESTS_NODES_FIXTURE_H
#define STENTOR_TESTS_NODES_FIXTURE_H

#include "dispatcher/route/nodes.h"
#include "tests/unit/link_fixture.h"

#include <stdlib.h>

#define FRAME_INIT STENTOR__LINK__V1__FRAME__INIT
#define HELLO_INIT STENTOR__LINK__V1__HELLO__INIT

struct nodes_fixture {
	struct nodes nodes;
	struct sent sent;
	unsigned opened, closed;
	int open_answer;
	uint64_t counted_id, counted;
	unsigned briefed;
	struct frame *brief;  /* what each worker is told then; NULL: nothing */
	unsigned revocations; /* that workers told */
	uint64_t surplus;     /* that each worker is told; 0: nothing */
	void (*on_counted)(void *ctx, uint64_t id, uint64_t subscribers);
	void *counted_ctx;
};

static inline int fixture_open(void *ctx, struct node_worker *w)
{
	struct nodes_fixture *f = ctx;

	if (f->open_answer != 0)
		return f->open_answer;
	w->socket = w;
	f->opened++;
	return 0;
}

static inline void fixture_close(void *ctx, struct node_worker *w)
{
	w->socket = NULL;
	((struct nodes_fixture *)ctx)->closed++;
}

static inline int fixture_send(void *ctx, struct node_worker *w UNUSED,
			       const struct iovec *pieces, size_t count)
{
	return sent_take(&((struct nodes_fixture *)ctx)->sent, pieces, count);
}

static inline void fixture_counted(void *ctx, uint64_t id, uint64_t subscribers)
{
	struct nodes_fixture *f = ctx;

	if (f->on_counted != NULL)
		f->on_counted(f->counted_ctx, id, subscribers);
	f->counted_id = id;
	f->counted = subscribers;
}

static inline void fixture_brief(void *ctx, struct node_worker *w)
{
	struct nodes_fixture *f = ctx;

	f->briefed++;
	if (f->brief != NULL)
		nodes_tell_worker(&f->nodes, w, f->brief);
}

static inline void fixture_revocations(void *ctx, const LinkFrame *frame)
{
	((struct nodes_fixture *)ctx)->revocations +=
		(unsigned)frame->n_revocations;
}

static inline bool fixture_advise(void *ctx, const struct node_worker *w UNUSED,
				  Stentor__Link__V1__Fleet *fleet)
{
	struct nodes_fixture *f = ctx;

	fleet->surplus = f->surplus;
	return f->surplus != 0;
}

static inline uint64_t fixture_wall(void *ctx UNUSED)
{
	return 1;
}

static const struct nodes_ops fixture_ops = {
	.open = fixture_open,
	.close = fixture_close,
	.send = fixture_send,
	.brief = fixture_brief,
	.revocations = fixture_revocations,
	.advise = fixture_advise,
	.counted = fixture_counted,
	.wall_ms = fixture_wall,
};

static inline int nodes_set_up(void **state)
{
	struct nodes_fixture *f = xcalloc(1, sizeof(*f));
	struct nodes_config config = {
		.name = "d",
		.version = "v",
		.token = "secret",
		.config_hash = 3,
		.workers_max = 4,
		.queue_bytes = 2u << 20,
		.interest_max = 1000,
	};

	sent_init(&f->sent);
	nodes_init(&f->nodes, &config, &fixture_ops, f);
	*state = f;
	return 0;
}

static inline int nodes_tear_down(void **state)
{
	struct nodes_fixture *f = *state;

	nodes_fini(&f->nodes);
	assert_int_equal(f->opened, f->closed);
	sent_fini(&f->sent);
	free(f);
	return 0;
}

static inline void nodes_feed(struct nodes_fixture *f, struct link_header h,
			      LinkFrame *content, uint64_t now_ms)
{
	struct frame *bytes = peer_frame(h, content);

	nodes_receive(&f->nodes, bytes->bytes, bytes->len, now_ms);
	frame_release(bytes);
}

static inline Stentor__Link__V1__Hello hello_of(const char *node,
						uint32_t worker)
{
	Stentor__Link__V1__Hello h = HELLO_INIT;

	h.protocol = LINK_PROTOCOL;
	h.node = (char *)node;
	h.worker = worker;
	h.incarnation = 5;
	h.link_address = (char *)"tcp://w:1";
	h.dialed = (char *)"tcp://d:1";
	h.token = (char *)"secret";
	return h;
}

static inline void say_hello(struct nodes_fixture *f,
			     Stentor__Link__V1__Hello *h, uint64_t epoch,
			     uint64_t now_ms)
{
	LinkFrame content = FRAME_INIT;

	content.hello = h;
	nodes_feed(f, (struct link_header){epoch, 0, 0, 0, 0}, &content,
		   now_ms);
}

static inline struct node_worker *worker_of(const struct nodes_fixture *f,
					    uint64_t epoch)
{
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
		struct node_worker *w = f->nodes.by_id[i];

		if (w != NULL && w->link.peer_epoch == epoch)
			return w;
	}
	return NULL;
}

/* The worker's next frame, which acknowledges everything. */
static inline void worker_speaks(struct nodes_fixture *f, struct node_worker *w,
				 LinkFrame *content, uint64_t now_ms)
{
	LinkFrame empty = FRAME_INIT;

	nodes_feed(f,
		   (struct link_header){w->link.peer_epoch, w->link.epoch,
					w->link.rx_seq + 1, w->link.tx_seq,
					w->link.tx_bytes},
		   content ? content : &empty, now_ms);
}

static inline uint64_t interest_key(const struct nodes_fixture *f,
				    const char *channel)
{
	return hash_bytes(&f->nodes.key, channel, strlen(channel));
}

/* The worker that says this hello, linked; it wants one channel (NULL: none).
 */
static inline struct node_worker *greet_worker(struct nodes_fixture *f,
					       Stentor__Link__V1__Hello *h,
					       uint64_t epoch,
					       const char *channel)
{
	Stentor__Link__V1__Interest in = STENTOR__LINK__V1__INTEREST__INIT;
	LinkFrame content = FRAME_INIT;
	uint64_t key;
	struct node_worker *w;

	say_hello(f, h, epoch, 1000);
	w = worker_of(f, epoch);
	assert_non_null(w);
	nodes_connected(&f->nodes, w, 1000);
	if (channel != NULL) {
		key = interest_key(f, channel);
		in.add = &key;
		in.n_add = 1;
	}
	in.snapshot_end = true;
	content.interest = &in;
	worker_speaks(f, w, &content, 1000);
	assert_int_equal(w->phase, NODE_WORKER_READY);
	nodes_flush(&f->nodes, 1000);
	sent_clear(&f->sent);
	return w;
}

static inline struct node_worker *add_worker(struct nodes_fixture *f,
					     const char *node, uint32_t index,
					     uint64_t epoch,
					     const char *channel)
{
	Stentor__Link__V1__Hello h = hello_of(node, index);

	return greet_worker(f, &h, epoch, channel);
}

/* A delivery of `len` bytes of data. */
static inline void queue_some(struct nodes_fixture *f, struct node_worker *w,
			      size_t len)
{
	static uint8_t data[NODES_BATCH_BYTES_MAX];
	LinkDelivery d = STENTOR__LINK__V1__DELIVERY__INIT;
	struct frame *encoded;

	d.channel = (char *)"a";
	d.data.data = data;
	d.data.len = len;
	encoded = link_delivery_encode(&d);
	assert_int_equal(nodes_queue(&f->nodes, w, encoded, PRIORITY_NORMAL,
				     PRIORITY_NORMAL),
			 0);
	frame_release(encoded);
}

#endif

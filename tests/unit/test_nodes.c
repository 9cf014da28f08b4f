#include "tests/unit/nodes_fixture.h"

#define REASON(name) STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_##name

static size_t interested(struct nodes_fixture *f, const char *channel)
{
	const uint16_t *ids;

	return interest_lookup(&f->nodes.interest, interest_key(f, channel),
			       &ids);
}

static void test_nodes_link_comes_up(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);
	Stentor__Link__V1__Interest in = STENTOR__LINK__V1__INTEREST__INIT;
	LinkFrame content = FRAME_INIT;
	uint64_t key = interest_key(f, "a");
	const LinkFrame *ack;
	struct node_worker *w;

	say_hello(f, &h, 11, 1000);
	w = worker_of(f, 11);
	assert_int_equal(f->opened, 1);
	assert_int_equal(w->phase, NODE_WORKER_CONNECTING);
	assert_true(nodes_settled(&f->nodes)); /* maybe it never can be */
	say_hello(f, &h, 11, 1000);	       /* again: nothing new */
	assert_ptr_equal(worker_of(f, 11), w);
	assert_int_equal(f->sent.count, 0);
	nodes_connected(&f->nodes, w, 1001);
	ack = sent_decode(&f->sent, 0);
	assert_int_equal(ack->receiver_epoch, 11);
	assert_int_equal(ack->sender_epoch, w->link.epoch);
	assert_string_equal(ack->hello_ack->dispatcher, "d");
	assert_memory_equal(ack->hello_ack->hash_key.data, &f->nodes.key, 16);
	say_hello(f, &h, 11, 1001); /* our answer was lost */
	assert_int_equal(f->sent.count, 2);
	assert_ptr_equal(worker_of(f, 11), w);

	content.interest = &in;
	in.add = &key;
	in.n_add = 1;
	worker_speaks(f, w, &content, 1002);
	assert_int_equal(w->phase, NODE_WORKER_SYNCING);
	assert_false(nodes_settled(&f->nodes));
	in.n_add = 0;
	in.snapshot_end = true;
	worker_speaks(f, w, &content, 1002);
	assert_int_equal(w->phase, NODE_WORKER_READY);
	assert_true(nodes_settled(&f->nodes));
	assert_int_equal(interested(f, "a"), 1);
	sent_clear(&f->sent);
	nodes_flush(&f->nodes, 1002);
	assert_int_equal(f->sent.count, 1); /* acknowledged at once */
	assert_int_equal(sent_decode(&f->sent, 0)->ack, 2);
	in.add = NULL;
	in.remove = &key;
	in.n_remove = 1;
	worker_speaks(f, w, &content, 1003);
	assert_int_equal(interested(f, "a"), 0);
}

static void refuses(struct nodes_fixture *f, Stentor__Link__V1__Hello *h,
		    uint64_t epoch)
{
	uint64_t before = f->nodes.counters.hellos_refused;

	say_hello(f, h, epoch, 1000);
	assert_int_equal(f->nodes.counters.hellos_refused, before + 1);
	assert_int_equal(f->nodes.worker_count, 0);
}

static void test_nodes_refuses_bad_hellos(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);
	char text[NODES_TEXT_MAX + 2];

	refuses(f, &h, 0);
	h.incarnation = 0;
	refuses(f, &h, 1);
	h = hello_of("n", 0);
	h.protocol = LINK_PROTOCOL + 2;
	refuses(f, &h, 1);
	h.protocol = UINT32_MAX;
	refuses(f, &h, 1);
	h = hello_of("n", 0);
	h.token = (char *)"guess";
	refuses(f, &h, 1);
	h = hello_of("", 0);
	refuses(f, &h, 1);
	memset(text, 'n', sizeof(text));
	text[NODES_NAME_MAX + 1] = '\0';
	h = hello_of(text, 0);
	refuses(f, &h, 1);
	h = hello_of("n", 0);
	h.link_address = (char *)"ipc:///tmp/x";
	refuses(f, &h, 1);
	text[NODES_NAME_MAX + 1] = 'n';
	text[NODES_TEXT_MAX + 1] = '\0';
	h = hello_of("n", 0);
	h.version = text;
	refuses(f, &h, 1);
	h = hello_of("n", 0);
	h.dialed = text;
	refuses(f, &h, 1);
	h = hello_of("n", 0);
	h.listen_address = text;
	refuses(f, &h, 1);
	memcpy(text, "tcp://", 6);
	h = hello_of("n", 0);
	h.link_address = text;
	refuses(f, &h, 1);
	h = hello_of("n", 0);
	f->open_answer = ERR_ADDRESS;
	say_hello(f, &h, 1, 1000);
	assert_int_equal(f->nodes.worker_count, 0);
	assert_true(list_empty(&f->nodes.nodes));
}

static void test_nodes_limit_of_workers(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 9);

	for (unsigned i = 0; i < 4; i++)
		add_worker(f, "n", i, 11 + i, NULL);
	say_hello(f, &h, 99, 1000);
	assert_null(worker_of(f, 99));
	assert_int_equal(f->nodes.counters.hellos_refused, 1);
	assert_int_equal(f->nodes.worker_count, 4);
	nodes_disconnected(&f->nodes, worker_of(f, 12));
	say_hello(f, &h, 99, 1000);
	assert_non_null(worker_of(f, 99));
}

static void test_nodes_newer_hello_replaces(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");
	Stentor__Link__V1__Hello h = hello_of("n", 0);

	queue_some(f, w, 100);
	say_hello(f, &h, 12, 2000);
	assert_null(worker_of(f, 11));
	assert_non_null(worker_of(f, 12));
	assert_int_equal(f->closed, 1);
	assert_int_equal(interested(f, "a"), 0);
	assert_int_equal(
		f->nodes.dropped.messages[PRIORITY_NORMAL][LINKQ_CLEARED], 1);
	assert_int_equal(f->nodes.counters.links_lost, 1);
}

static void test_nodes_one_link_to_a_worker(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");
	Stentor__Link__V1__Hello h = hello_of("n", 0);
	const LinkFrame *answer;

	h.dialed = (char *)"tcp://d:2";
	say_hello(f, &h, 12, 2000);
	assert_ptr_equal(worker_of(f, 11), w);
	assert_null(worker_of(f, 12));
	answer = sent_decode(&f->sent, 0);
	assert_int_equal(answer->refuse->reason, REASON(DUPLICATE));
	assert_int_equal(answer->receiver_epoch, 12);
	/* A successor, or one whose first link is silent, is welcome. */
	h.incarnation++;
	say_hello(f, &h, 13, 2000);
	assert_non_null(worker_of(f, 13));
	h.dialed = (char *)"tcp://d:1";
	say_hello(f, &h, 14, 2000 + LINK_DEAD_MS);
	assert_non_null(worker_of(f, 14));
	assert_int_equal(f->nodes.worker_count, 1);
}

static void test_nodes_gap_asks_for_a_new_link(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");
	LinkFrame content = FRAME_INIT;
	const LinkFrame *answer;

	nodes_feed(f,
		   (struct link_header){11, w->link.epoch, w->link.rx_seq + 2,
					0, 0},
		   &content, 2000);
	assert_int_equal(f->nodes.counters.gaps, 1);
	answer = sent_decode(&f->sent, 0);
	assert_int_equal(answer->refuse->reason, REASON(RESET));
	assert_int_equal(answer->receiver_epoch, 11);
	assert_int_equal(answer->seq, 0);
	/* A double is not a gap. */
	nodes_feed(f, (struct link_header){11, w->link.epoch, 1, 0, 0},
		   &content, 2000);
	assert_int_equal(f->nodes.counters.frames_stale, 1);
	assert_int_equal(f->sent.count, 1);
}

static void test_nodes_silence(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("m", 0);

	add_worker(f, "n", 0, 11, "a");
	say_hello(f, &h, 12, 1000); /* it never becomes reachable */
	nodes_tick(&f->nodes, 1000 + LINK_DEAD_MS - 1);
	assert_int_equal(f->nodes.worker_count, 2);
	nodes_tick(&f->nodes, 1000 + LINK_DEAD_MS);
	assert_int_equal(f->nodes.worker_count, 0);
	assert_int_equal(interested(f, "a"), 0);
	assert_int_equal(f->nodes.counters.links_lost, 1);
	assert_true(nodes_settled(&f->nodes));
}

static void test_nodes_heartbeats(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, NULL);
	Stentor__Link__V1__Heartbeat beat = STENTOR__LINK__V1__HEARTBEAT__INIT;
	LinkFrame content = FRAME_INIT;

	nodes_tick(&f->nodes, 2000);
	nodes_tick(&f->nodes, 2000 + LINK_HEARTBEAT_MS - 1);
	assert_int_equal(f->sent.count, 1);
	assert_non_null(sent_decode(&f->sent, 0)->heartbeat);
	assert_null(sent_decode(&f->sent, 0)->heartbeat->fleet);
	assert_int_equal(sent_decode(&f->sent, 0)->heartbeat->config_hash,
			 f->nodes.config.config_hash);
	f->surplus = 3;
	nodes_tick(&f->nodes, 2000 + LINK_HEARTBEAT_MS);
	assert_int_equal(sent_decode(&f->sent, 1)->heartbeat->fleet->surplus,
			 3);
	beat.connections = 17;
	beat.config_hash = 99;
	beat.draining = true;
	content.heartbeat = &beat;
	worker_speaks(f, w, &content, 2500);
	assert_int_equal(w->connections, 17);
	assert_int_equal(w->config_hash, 99);
	assert_true(w->draining);
}

static void test_nodes_batches(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");

	/* An idle link sends at the end of the turn, all in one. */
	for (unsigned i = 0; i < 10; i++)
		queue_some(f, w, 100);
	assert_int_equal(f->sent.count, 0);
	assert_false(nodes_flush(&f->nodes, 3000));
	assert_int_equal(f->sent.count, 1);
	assert_int_equal(w->messages_sent, 10);
	/* No batch is larger than its limit. */
	for (unsigned i = 0; i < 10; i++)
		queue_some(f, w, NODES_BATCH_BYTES_MAX / 2 - 100);
	assert_false(nodes_flush(&f->nodes, 3001));
	assert_int_equal(f->sent.count, 6);
	for (unsigned i = 1; i < 6; i++)
		assert_true(f->sent.frames[i]->len <=
			    NODES_BATCH_BYTES_MAX + LINK_HEADER_MAX);
}

/* Under pressure a link that just sent gathers for NODES_BATCH_MS. */
static void test_nodes_busy_link_gathers(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");

	nodes_flush(&f->nodes, 3000);
	for (unsigned i = 0; i < 500; i++)
		queue_some(f, w, 10);
	assert_false(nodes_flush(&f->nodes, 3000));
	sent_clear(&f->sent);
	queue_some(f, w, 10);
	assert_true(nodes_flush(&f->nodes, 3000));
	assert_int_equal(f->sent.count, 0);
	assert_false(nodes_flush(&f->nodes, 3000 + NODES_BATCH_MS));
	assert_int_equal(f->sent.count, 1);
}

static void test_nodes_credit(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");
	unsigned under_way;

	for (unsigned i = 0; i < 100; i++)
		queue_some(f, w, 16000);
	/* What waits for credit asks for no timer. */
	assert_false(nodes_flush(&f->nodes, 3000));
	under_way = f->sent.count;
	assert_true(w->link.tx_bytes - w->link.peer_ack_bytes <= LINK_CREDIT);
	assert_true(under_way >= 6);
	assert_false(nodes_flush(&f->nodes, 3010));
	assert_int_equal(f->sent.count, under_way);
	worker_speaks(f, w, NULL, 3011);
	nodes_flush(&f->nodes, 3011);
	assert_true(f->sent.count > under_way);
	for (unsigned i = 0; i < 10; i++) {
		worker_speaks(f, w, NULL, 3012 + i);
		nodes_flush(&f->nodes, 3012 + i);
	}
	assert_int_equal(w->messages_sent, 100);
}

static void test_nodes_push_back_keeps_the_batch(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");
	uint64_t seq = w->link.tx_seq;

	queue_some(f, w, 100);
	f->sent.answer = ERR_AGAIN;
	assert_true(nodes_flush(&f->nodes, 3000));
	assert_true(nodes_flush(&f->nodes, 3005));
	f->sent.answer = 0;
	assert_false(nodes_flush(&f->nodes, 3006));
	assert_int_equal(f->sent.count, 1);
	assert_int_equal(sent_decode(&f->sent, 0)->seq, seq + 1);
	assert_int_equal(w->messages_sent, 1);
	/* A batch that is never taken is released with its worker. */
	queue_some(f, w, 100);
	f->sent.answer = ERR_AGAIN;
	assert_true(nodes_flush(&f->nodes, 3010));
	assert_int_equal(w->batch_count, 1);
	f->sent.answer = 0;
}

static void announce(struct nodes_fixture *f, struct node_worker *w,
		     unsigned from, unsigned count, uint64_t now_ms)
{
	Stentor__Link__V1__Interest in = STENTOR__LINK__V1__INTEREST__INIT;
	LinkFrame content = FRAME_INIT;
	uint64_t keys[1100];

	for (unsigned i = 0; i < count; i++)
		keys[i] = (from + i) * 0x9e3779b97f4a7c15u;
	in.add = keys;
	in.n_add = count;
	content.interest = &in;
	worker_speaks(f, w, &content, now_ms);
}

/* How many of so many keys reach the worker. */
static unsigned routed(struct nodes_fixture *f, const struct node_worker *w,
		       unsigned from, unsigned count)
{
	unsigned found = 0;

	for (unsigned i = from; i < from + count; i++) {
		const uint16_t *ids;
		size_t n = interest_lookup(&f->nodes.interest,
					   i * 0x9e3779b97f4a7c15u, &ids);

		for (size_t k = 0; k < n; k++)
			found += ids[k] == w->id;
	}
	return found;
}

/* A worker that comes back finds its own garbage in the way, and is whole. */
static void test_nodes_full_table_is_swept(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, NULL);

	announce(f, w, 0, 600, 2000);
	nodes_disconnected(&f->nodes, w);
	w = add_worker(f, "n", 0, 12, NULL);
	announce(f, w, 0, 600, 2100);
	assert_int_equal(routed(f, w, 0, 600), 600);
	assert_int_equal(interest_worker_entries(&f->nodes.interest, w->id),
			 600);
	assert_int_equal(f->nodes.counters.interest_full, 0);
}

/* What does not fit is not forgotten: the worker is sent everything, until
 * what it has fits again. */
static void test_nodes_full_table_routes_everything(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *other = add_worker(f, "m", 0, 10, NULL);
	struct node_worker *w = add_worker(f, "n", 0, 11, NULL);

	announce(f, other, 5000, 500, 2000);
	announce(f, w, 0, 600, 2000);
	assert_int_equal(f->nodes.counters.interest_full, 1);
	assert_int_equal(routed(f, w, 0, 600), 600);
	assert_int_equal(routed(f, w, 9000, 10), 10);
	assert_int_equal(routed(f, other, 5000, 500), 500);
	sent_clear(&f->sent);
	nodes_flush(&f->nodes, 2000);
	assert_true(f->sent.count > 0); /* acknowledged: it is kept */
	nodes_tick(&f->nodes, 2000);
	sent_clear(&f->sent);
	worker_speaks(f, w, NULL, 12000);
	worker_speaks(f, other, NULL, 12000);
	nodes_tick(&f->nodes, 2000 + NODES_RENEW_MS);
	assert_int_equal(f->sent.count, 2); /* heartbeats: nothing fits yet */
	nodes_disconnected(&f->nodes, other);
	sent_clear(&f->sent);
	while (interest_sweep(&f->nodes.interest, 1))
		;
	worker_speaks(f, w, NULL, 22000);
	nodes_tick(&f->nodes, 2000 + 2 * NODES_RENEW_MS);
	assert_int_equal(
		sent_decode(&f->sent, f->sent.count - 1)->refuse->reason,
		REASON(RESET));
	w = add_worker(f, "n", 0, 12, NULL);
	announce(f, w, 0, 600, 22100);
	assert_int_equal(routed(f, w, 0, 600), 600);
	assert_int_equal(routed(f, w, 9000, 10), 0);
	assert_int_equal(f->nodes.interest.all_count, 0);
}

/* Too many want everything: refused, and nothing was acknowledged. */
static void test_nodes_full_table_refuses(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *other = add_worker(f, "m", 0, 10, NULL);
	struct node_worker *w = add_worker(f, "n", 0, 11, NULL);
	const LinkFrame *answer;

	for (uint16_t i = 0; i < INTEREST_ALL_MAX; i++)
		assert_int_equal(interest_want_all(&f->nodes.interest,
						   (uint16_t)(100 + i)),
				 0);
	announce(f, other, 5000, 500, 2000);
	nodes_flush(&f->nodes, 2000);
	sent_clear(&f->sent);
	announce(f, w, 0, 600, 2000);
	assert_int_equal(w->phase, NODE_WORKER_REFUSED);
	assert_int_equal(routed(f, w, 0, 600), 0);
	nodes_flush(&f->nodes, 2000);
	assert_int_equal(f->sent.count, 1);
	answer = sent_decode(&f->sent, 0);
	assert_int_equal(answer->refuse->reason, REASON(FULL));
	assert_int_equal(answer->seq, 0);
	assert_false(nodes_outvoted(&f->nodes));
	for (uint16_t i = 0; i < INTEREST_ALL_MAX; i++)
		interest_drop_worker(&f->nodes.interest, (uint16_t)(100 + i));
	w = add_worker(f, "n", 0, 12, NULL);
	assert_int_equal(w->phase, NODE_WORKER_READY);
}

/* With a store of our own, what workers have seen is compared first. */
static void test_nodes_settled_when_compared(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);
	struct node_worker *w;

	h.logs = 3;
	w = greet_worker(f, &h, 11, "a");
	assert_true(nodes_settled(&f->nodes));
	f->nodes.config.store_embedded = true;
	assert_int_equal(nodes_awaited(&f->nodes), 1);
	w->compared = true;
	assert_true(nodes_settled(&f->nodes));
	add_worker(f, "m", 0, 12, "a"); /* it has none */
	assert_true(nodes_settled(&f->nodes));
}

static void test_nodes_strangers(void **state)
{
	struct nodes_fixture *f = *state;
	LinkFrame content = FRAME_INIT;

	nodes_receive(&f->nodes, "\xff", 1, 1000);
	assert_int_equal(f->nodes.counters.frames_malformed, 1);
	nodes_feed(f, (struct link_header){1, 2, 3, 4, 5}, &content, 1000);
	assert_int_equal(f->nodes.counters.frames_stale, 1);
}

/* --- what all workers are told ----------------------------------------- */

static struct frame *revocation_of(const char *jti)
{
	Stentor__Link__V1__Revocation r = STENTOR__LINK__V1__REVOCATION__INIT;
	Stentor__Link__V1__Revocation *list = &r;
	LinkFrame content = FRAME_INIT;

	r.jti = (char *)jti;
	content.revocations = &list;
	content.n_revocations = 1;
	return link_control_encode(&content);
}

static void test_nodes_tell_all(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("late", 0);
	struct frame *told = revocation_of("a");
	const LinkFrame *frame;

	add_worker(f, "n", 0, 11, "a");
	add_worker(f, "m", 0, 12, NULL);
	assert_int_equal(f->briefed, 2);
	/* Who is not READY is briefed when it is. */
	say_hello(f, &h, 13, 1000);
	nodes_tell(&f->nodes, told);
	nodes_flush(&f->nodes, 1001);
	assert_int_equal(f->sent.count, 2);
	frame = sent_decode(&f->sent, 0);
	assert_int_equal(frame->n_revocations, 1);
	assert_string_equal(frame->revocations[0]->jti, "a");
	frame_release(told);
}

static void test_nodes_brief_a_newcomer(void **state)
{
	struct nodes_fixture *f = *state;
	Stentor__Link__V1__Hello h = hello_of("n", 0);
	Stentor__Link__V1__Interest in = STENTOR__LINK__V1__INTEREST__INIT;
	LinkFrame content = FRAME_INIT;
	struct node_worker *w;

	f->brief = revocation_of("a");
	say_hello(f, &h, 11, 1000);
	w = worker_of(f, 11);
	nodes_connected(&f->nodes, w, 1000);
	worker_speaks(f, w, NULL, 1000);
	assert_int_equal(f->briefed, 0);
	sent_clear(&f->sent);
	in.snapshot_end = true;
	content.interest = &in;
	worker_speaks(f, w, &content, 1000);
	assert_int_equal(f->briefed, 1);
	nodes_flush(&f->nodes, 1001);
	assert_int_equal(sent_decode(&f->sent, 0)->n_revocations, 1);
	nodes_tick(&f->nodes, 1002); /* once */
	assert_int_equal(f->briefed, 1);
	frame_release(f->brief);
}

static void test_nodes_tell_again_who_had_no_room(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");
	struct frame *told = revocation_of("a");

	f->brief = told;
	f->sent.answer = ERR_AGAIN;
	while (linkq_room(&w->queue, PRIORITY_CRITICAL, told->len))
		(void)nodes_queue(&f->nodes, w, told, PRIORITY_CRITICAL,
				  PRIORITY_CRITICAL);
	nodes_tell(&f->nodes, told);
	assert_true(w->untold);
	assert_int_equal(linkq_drops_total(linkq_drops(&w->queue)), 0);
	nodes_tick(&f->nodes, 1001); /* there still is no room */
	assert_int_equal(f->briefed, 2);
	assert_true(w->untold);
	linkq_clear(&w->queue);
	f->sent.answer = 0;
	nodes_tick(&f->nodes, 1002);
	assert_false(w->untold);
	nodes_flush(&f->nodes, 1003);
	assert_int_equal(
		sent_decode(&f->sent, f->sent.count - 1)->n_revocations, 1);
	frame_release(told);
}

/* --- messages that the store keeps ------------------------------------- */

static bool queue_kept(struct nodes_fixture *f, struct node_worker *w,
		       uint64_t offset)
{
	static uint8_t data[1000];
	LinkDelivery d = STENTOR__LINK__V1__DELIVERY__INIT;
	struct frame *encoded;
	bool queued;

	d.channel = (char *)"a";
	d.data.data = data;
	d.data.len = sizeof(data);
	d.epoch = 5;
	d.offset = offset;
	encoded = link_delivery_encode(&d);
	queued = nodes_queue_kept(&f->nodes, w, encoded, PRIORITY_NORMAL,
				  interest_key(f, "a"), "a",
				  (struct place){5, offset});
	frame_release(encoded);
	return queued;
}

/* Behind until half of the queue is empty, though single ones would fit. */
static void test_nodes_behind_until_told(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");
	struct frame *out[4];
	const LinkFrame *last;
	size_t bytes;

	w->queue.max.frames = 8;
	f->sent.answer = ERR_AGAIN;
	for (unsigned i = 1; i <= 8; i++)
		assert_true(queue_kept(f, w, i));
	assert_false(queue_kept(f, w, 9));
	assert_int_equal(linkq_fill(&w->queue, out, 3, 9000, &bytes), 3);
	assert_false(queue_kept(f, w, 10));
	w->connected = false; /* nothing is sent, so nothing told */
	nodes_flush(&f->nodes, 2000);
	assert_false(queue_kept(f, w, 11));
	w->connected = true;
	for (unsigned i = 0; i < 3; i++)
		linkq_release(&w->queue, out[i]);
	f->sent.answer = 0;
	worker_speaks(f, w, NULL, 2000);
	nodes_flush(&f->nodes, 2010);
	nodes_flush(&f->nodes, 2020);
	assert_false(behind_any(&w->behind));
	last = sent_decode(&f->sent, f->sent.count - 1);
	assert_int_equal(last->n_moved, 1);
	assert_int_equal(last->moved[0]->top->offset, 11);
	assert_true(queue_kept(f, w, 12));
}

/* What the pool displaces is marked, once, and not told while the worker is
 * one of those that fill it. */
static void test_nodes_displaced_is_told_later(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");
	struct node_worker *quick = add_worker(f, "m", 0, 12, "b");

	f->nodes.pool.floor_shift = 10;
	f->sent.answer = ERR_AGAIN;
	for (unsigned i = 1; i <= 100; i++)
		assert_true(queue_kept(f, w, i));
	f->nodes.pool.max = f->nodes.pool.bytes;
	queue_some(f, quick, 500);
	queue_some(f, quick, 500);
	assert_true(behind_has(&w->behind, interest_key(f, "a"), "a"));
	assert_false(queue_kept(f, w, 101));
	w->connected = false;
	nodes_flush(&f->nodes, 2000);
	w->connected = true;
	/* Far below half of its own queue, but the pool is full. */
	worker_speaks(f, w, NULL, 2010);
	nodes_flush(&f->nodes, 2010);
	assert_true(behind_any(&w->behind));
	f->sent.answer = 0;
	for (unsigned i = 0; i < 4; i++) {
		worker_speaks(f, w, NULL, 2100 + 10 * i);
		nodes_flush(&f->nodes, 2100 + 10 * i);
	}
	assert_false(behind_any(&w->behind));
}

/* Links that take nothing hold little each once all have much under way. */
static void test_nodes_under_way_is_bounded(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, "a");

	f->nodes.pool.max = NODES_UNDER_WAY_SHARE * 100000;
	for (unsigned i = 0; i < 20; i++)
		queue_some(f, w, 16000);
	nodes_flush(&f->nodes, 3000);
	assert_true(f->nodes.under_way >= 100000);
	assert_true(f->nodes.under_way < 100000 + NODES_BATCH_BYTES_MAX);
	worker_speaks(f, w, NULL, 3001);
	assert_int_equal(f->nodes.under_way, 0);
	nodes_flush(&f->nodes, 3001);
	assert_true(f->nodes.under_way > 0);
}

static void test_nodes_hear_revocations(void **state)
{
	struct nodes_fixture *f = *state;
	struct node_worker *w = add_worker(f, "n", 0, 11, NULL);
	Stentor__Link__V1__Revocation r = STENTOR__LINK__V1__REVOCATION__INIT;
	Stentor__Link__V1__Revocation *list[2] = {&r, &r};
	LinkFrame content = FRAME_INIT;

	content.revocations = list;
	content.n_revocations = 2;
	worker_speaks(f, w, &content, 1001);
	assert_int_equal(f->revocations, 2);
}

int main(void)
{
#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, nodes_set_up, nodes_tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_nodes_link_comes_up),
		TEST(test_nodes_refuses_bad_hellos),
		TEST(test_nodes_limit_of_workers),
		TEST(test_nodes_newer_hello_replaces),
		TEST(test_nodes_one_link_to_a_worker),
		TEST(test_nodes_gap_asks_for_a_new_link),
		TEST(test_nodes_silence),
		TEST(test_nodes_heartbeats),
		TEST(test_nodes_batches),
		TEST(test_nodes_busy_link_gathers),
		TEST(test_nodes_credit),
		TEST(test_nodes_push_back_keeps_the_batch),
		TEST(test_nodes_full_table_is_swept),
		TEST(test_nodes_full_table_routes_everything),
		TEST(test_nodes_full_table_refuses),
		TEST(test_nodes_settled_when_compared),
		TEST(test_nodes_strangers),
		TEST(test_nodes_tell_all),
		TEST(test_nodes_brief_a_newcomer),
		TEST(test_nodes_tell_again_who_had_no_room),
		TEST(test_nodes_behind_until_told),
		TEST(test_nodes_displaced_is_told_later),
		TEST(test_nodes_under_way_is_bounded),
		TEST(test_nodes_hear_revocations),
	};

	return cmocka_run_group_tests_name("nodes", tests, NULL, NULL);
}

#include "tests/unit/announcer_fixture.h"

/* --- tests -----------------------------------------------------------------
 */

static void test_announcer_greets_until_answered(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = announcer_add(&f->a, "tcp://d:1");
	const LinkFrame *hello;

	announcer_tick(&f->a, 500);
	assert_int_equal(f->sent.count, 0); /* no connection yet */
	announcer_connected(&f->a, u, 1000);
	hello = sent_decode(&f->sent, 0);
	assert_string_equal(hello->hello->node, "n");
	assert_string_equal(hello->hello->token, "secret");
	assert_string_equal(hello->hello->dialed, "tcp://d:1");
	assert_string_equal(hello->hello->link_address, "tcp://w:1");
	assert_int_equal(hello->hello->worker, 3);
	assert_int_equal(hello->hello->incarnation, 9);
	assert_int_equal(hello->sender_epoch, u->link.epoch);
	assert_int_equal(hello->seq, 0);
	announcer_tick(&f->a, 1000 + LINK_GREET_MS - 1);
	assert_int_equal(f->sent.count, 1);
	announcer_tick(&f->a, 1000 + LINK_GREET_MS);
	assert_int_equal(f->sent.count, 2);
	assert_int_equal(sent_decode(&f->sent, 1)->sender_epoch, u->link.epoch);
	for (unsigned i = 2; i < ANNOUNCER_GREETINGS_MAX; i++)
		announcer_tick(&f->a, 1000 + i * LINK_GREET_MS);
	assert_int_equal(f->redials, 0);
	announcer_tick(&f->a, 1000000);
	assert_int_equal(f->redials, 1);
	assert_int_equal(u->phase, UPSTREAM_DOWN);
}

static void test_announcer_snapshot_then_changes(void **state)
{
	struct fixture *f = *state;
	struct subscription a, b, c;
	struct upstream *u;
	const LinkFrame *frame;

	join_channel(f, &a, "a");
	join_channel(f, &b, "b");
	flush(f);
	u = link_up(f, "tcp://d:1", 1);
	/* hello, snapshot */
	assert_int_equal(f->sent.count, 2);
	frame = sent_decode(&f->sent, 1);
	assert_int_equal(frame->seq, 1);
	assert_int_equal(frame->receiver_epoch, THEIRS);
	assert_int_equal(frame->interest->n_add, 2);
	assert_true(frame->interest->snapshot_end);
	sent_clear(&f->sent);

	join_channel(f, &c, "c");
	leave_channel(f, &a);
	flush(f);
	assert_int_equal(f->sent.count, 1);
	frame = sent_decode(&f->sent, 0);
	assert_int_equal(frame->seq, 2);
	assert_int_equal(frame->interest->n_add, 1);
	assert_int_equal(frame->interest->add[0], key_of(u, "c"));
	assert_int_equal(frame->interest->n_remove, 1);
	assert_int_equal(frame->interest->remove[0], key_of(u, "a"));
	assert_null(channels_find(&f->channels, "a", 1));
	sent_clear(&f->sent);

	/* What is undone within a turn is not told. */
	leave_channel(f, &b);
	join_channel(f, &b, "b");
	join_channel(f, &a, "a");
	leave_channel(f, &a);
	flush(f);
	assert_int_equal(f->sent.count, 0);
	assert_null(channels_find(&f->channels, "a", 1));
	leave_channel(f, &b);
	leave_channel(f, &c);
	flush(f);
	assert_int_equal(f->channels.by_name.count, 0);
}

static void test_announcer_confirms_what_all_acknowledged(void **state)
{
	struct fixture *f = *state;
	struct subscription s;
	struct channel *ch;
	struct upstream *one = link_up(f, "tcp://d:1", 1);
	struct upstream *two = link_up(f, "tcp://d:2", 2);

	assert_int_equal(announcer_up(&f->a), 2);
	ch = join_channel(f, &s, "a");
	assert_true(ch->generation > announcer_confirmed(&f->a));
	flush(f);
	assert_true(ch->generation > announcer_confirmed(&f->a));
	speak(f, one, one->link.tx_seq, NULL, 1002);
	assert_true(ch->generation > announcer_confirmed(&f->a));
	speak(f, two, two->link.tx_seq - 1, NULL, 1002);
	assert_true(ch->generation > announcer_confirmed(&f->a));
	speak(f, two, two->link.tx_seq, NULL, 1003);
	assert_int_equal(announcer_confirmed(&f->a), ch->generation);
	/* One that is gone holds nobody back. */
	announcer_disconnected(&f->a, two);
	assert_int_equal(announcer_confirmed(&f->a), ch->generation);
	announcer_disconnected(&f->a, one);
	assert_int_equal(announcer_confirmed(&f->a), 0);
	assert_int_equal(f->a.counters.links_lost, 2);
	leave_channel(f, &s);
}

/* A new link is not confirmed by what an older one had. */
static void test_announcer_confirms_a_new_link_anew(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	struct subscription s;
	struct channel *ch = join_channel(f, &s, "a");
	uint8_t key[16] = {1};

	flush(f);
	speak(f, u, u->link.tx_seq, NULL, 1002);
	assert_int_equal(announcer_confirmed(&f->a), ch->generation);
	announcer_connected(&f->a, u, 1003);
	welcome_as(f, u, THEIRS + 1, key, 1004);
	assert_true(ch->generation > announcer_confirmed(&f->a));
	speak(f, u, u->link.tx_seq, NULL, 1005);
	assert_int_equal(announcer_confirmed(&f->a), ch->generation);
	leave_channel(f, &s);
}

/* A lone change goes at once; those that follow it soon are gathered. */
static void test_announcer_gathers(void **state)
{
	struct fixture *f = *state;
	uint64_t now = 10000;
	struct subscription subs[14];
	char name[16];

	link_up(f, "tcp://d:1", 1);
	sent_clear(&f->sent);
	assert_true(announcer_due_ms(&f->a) == UINT64_MAX);
	join_channel(f, &subs[0], "a");
	announcer_flush(&f->a, now);
	assert_int_equal(f->sent.count, 1);
	join_channel(f, &subs[1], "b");
	assert_true(announcer_due_ms(&f->a) == now + ANNOUNCER_GATHER_MS);
	announcer_flush(&f->a, now + ANNOUNCER_GATHER_MS - 1);
	assert_int_equal(f->sent.count, 1);
	for (unsigned i = 0; i < 10; i++) {
		sprintf(name, "c%u", i);
		join_channel(f, &subs[2 + i], name);
	}
	now += ANNOUNCER_GATHER_MS;
	announcer_flush(&f->a, now);
	assert_int_equal(f->sent.count, 2);
	join_channel(f, &subs[12], "d"); /* more are likely now */
	announcer_flush(&f->a, now + ANNOUNCER_GATHER_MAX_MS - 1);
	assert_int_equal(f->sent.count, 2);
	now += ANNOUNCER_GATHER_MAX_MS;
	announcer_flush(&f->a, now);
	assert_int_equal(f->sent.count, 3);
	assert_true(announcer_due_ms(&f->a) == UINT64_MAX);
	/* Long after. */
	join_channel(f, &subs[13], "e");
	announcer_flush(&f->a, now + 1000);
	assert_int_equal(f->sent.count, 4);
	for (unsigned i = 0; i < 14; i++)
		leave_channel(f, &subs[i]);
}

/* More generations under way than there are marks: confirmed late, never
 * early. */
static void test_announcer_many_generations(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	struct subscription s;
	uint64_t sent_before[2 * UPSTREAM_MARKS];

	for (unsigned i = 0; i < 2 * UPSTREAM_MARKS; i++) {
		if (i % 2 == 0)
			join_channel(f, &s, "a");
		else
			leave_channel(f, &s);
		flush(f);
		sent_before[i] = u->link.tx_seq;
	}
	for (unsigned i = 0; i < 2 * UPSTREAM_MARKS; i++) {
		speak(f, u, sent_before[i], NULL, 1002);
		assert_true(announcer_confirmed(&f->a) <= i + 1);
	}
	assert_int_equal(announcer_confirmed(&f->a), 2 * UPSTREAM_MARKS);
}

static void test_announcer_push_back(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	struct subscription s;
	struct channel *ch = join_channel(f, &s, "a");
	uint64_t seq = u->link.tx_seq;

	f->sent.answer = ERR_AGAIN;
	flush(f);
	announcer_tick(&f->a, 1001); /* no heartbeat before what waits */
	assert_int_equal(u->link.tx_seq, seq);
	assert_true(u->queue_bytes > 0);
	speak(f, u, seq, NULL, 1002);
	assert_true(ch->generation > announcer_confirmed(&f->a));
	f->sent.answer = 0;
	sent_clear(&f->sent);
	flush(f);
	assert_int_equal(f->sent.count, 1);
	assert_int_equal(sent_decode(&f->sent, 0)->seq, seq + 1);
	assert_int_equal(u->queue_bytes, 0);
	leave_channel(f, &s);
}

static void test_announcer_gap(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	uint64_t epoch = u->link.epoch;
	LinkFrame content = FRAME_INIT;

	sent_clear(&f->sent);
	feed(f, (struct link_header){THEIRS, epoch, 2, 0, 0}, &content, 1001);
	assert_int_equal(f->a.counters.gaps, 1);
	assert_int_equal(u->phase, UPSTREAM_GREETING);
	assert_int_not_equal(u->link.epoch, epoch);
	assert_int_equal(f->sent.count, 1); /* greeted at once */
	assert_non_null(sent_decode(&f->sent, 0)->hello);
	/* What still comes for the older epoch is nobody. */
	feed(f, (struct link_header){THEIRS, epoch, 1, 0, 0}, &content, 1002);
	assert_int_equal(f->a.counters.frames_stale, 1);
}

static void test_announcer_refused(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	Stentor__Link__V1__Refuse r = STENTOR__LINK__V1__REFUSE__INIT;
	LinkFrame content = FRAME_INIT;
	struct link_header h = {THEIRS, u->link.epoch, 0, 0, 0};

	content.refuse = &r;
	r.reason = STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_RESET;
	sent_clear(&f->sent);
	feed(f, h, &content, 2000);
	assert_int_equal(f->sent.count, 1);
	assert_int_equal(u->phase, UPSTREAM_GREETING);
	feed(f, h, &content, 2000); /* of the older epoch: ignored */
	assert_int_equal(f->sent.count, 1);
	r.reason = STENTOR__LINK__V1__REFUSE_REASON__REFUSE_REASON_DUPLICATE;
	h.receiver_epoch = u->link.epoch;
	feed(f, h, &content, 2000);
	announcer_tick(&f->a, 2000 + 9 * LINK_GREET_MS);
	assert_int_equal(f->sent.count, 1); /* no haste */
	announcer_tick(&f->a, 2000 + 10 * LINK_GREET_MS);
	assert_int_equal(f->sent.count, 2);
}

/* The answer to a hello that was said twice. */
static void test_announcer_second_answer(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	uint8_t key[16] = {2};

	sent_clear(&f->sent);
	welcome_as(f, u, THEIRS + 1, key, 1001);
	assert_int_equal(u->link.peer_epoch, THEIRS);
	assert_int_equal(f->a.counters.frames_stale, 1);
	assert_int_equal(f->sent.count, 0);
}

static void test_announcer_one_link_to_a_dispatcher(void **state)
{
	struct fixture *f = *state;
	struct upstream *one = link_up(f, "tcp://d:1", 1);
	struct upstream *other = link_up(f, "tcp://e:1", 2);
	struct upstream *two = link_up(f, "tcp://d:2", 1);

	assert_int_equal(one->phase, UPSTREAM_GREETING);
	assert_int_equal(other->phase, UPSTREAM_UP);
	assert_int_equal(two->phase, UPSTREAM_UP);
}

static void test_announcer_heartbeats_and_silence(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	const LinkFrame *beat;

	sent_clear(&f->sent);
	f->a.connections = 12;
	f->a.draining = true;
	announcer_tick(&f->a, 1000);
	announcer_tick(&f->a, 1000 + LINK_HEARTBEAT_MS - 1);
	assert_int_equal(f->sent.count, 1);
	beat = sent_decode(&f->sent, 0);
	assert_int_equal(beat->heartbeat->connections, 12);
	assert_true(beat->heartbeat->draining);
	announcer_tick(&f->a, 1000 + LINK_DEAD_MS - 1);
	assert_int_equal(f->redials, 0);
	announcer_tick(&f->a, 1000 + LINK_DEAD_MS);
	assert_int_equal(f->redials, 1);
	assert_int_equal(u->phase, UPSTREAM_DOWN);
}

static void test_announcer_delivers_and_acknowledges(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	LinkDelivery d = STENTOR__LINK__V1__DELIVERY__INIT;
	LinkDelivery *list[1] = {&d};
	LinkFrame content = FRAME_INIT;
	static uint8_t data[LINK_ACK_BYTES];

	d.channel = (char *)"a";
	d.data.data = data;
	content.deliveries = list;
	content.n_deliveries = 1;
	sent_clear(&f->sent);
	speak(f, u, 0, &content, 1001);
	assert_string_equal(f->delivered, "a");
	flush(f);
	assert_int_equal(f->sent.count, 0); /* too little for an ack alone */
	d.data.len = sizeof(data);
	f->a.hold_acks = true;
	speak(f, u, 0, &content, 1002);
	flush(f);
	assert_int_equal(f->sent.count, 0);
	f->a.hold_acks = false;
	flush(f);
	assert_int_equal(f->sent.count, 1);
	assert_int_equal(sent_decode(&f->sent, 0)->ack, 2);
	assert_int_equal(sent_decode(&f->sent, 0)->ack_bytes, u->link.rx_bytes);
	assert_int_equal(f->deliveries, 2);
}

static void test_announcer_counts_subscribers(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	Stentor__Link__V1__CountQuery q = STENTOR__LINK__V1__COUNT_QUERY__INIT;
	Stentor__Link__V1__CountQuery *queries[1] = {&q};
	LinkFrame content = FRAME_INIT;
	struct subscription s[2];

	join_channel(f, &s[0], "a");
	join_channel(f, &s[1], "a");
	flush(f);
	sent_clear(&f->sent);
	content.count_queries = queries;
	content.n_count_queries = 1;
	q.id = 5;
	q.channel = (char *)"a";
	speak(f, u, 0, &content, 1001);
	q.id = 6;
	q.channel = (char *)"nobody";
	speak(f, u, 0, &content, 1001);
	flush(f);
	assert_int_equal(f->sent.count, 2);
	assert_int_equal(sent_decode(&f->sent, 0)->count_answers[0]->id, 5);
	assert_int_equal(
		sent_decode(&f->sent, 0)->count_answers[0]->subscribers, 2);
	assert_int_equal(sent_decode(&f->sent, 1)->count_answers[0]->id, 6);
	assert_int_equal(
		sent_decode(&f->sent, 1)->count_answers[0]->subscribers, 0);
	leave_channel(f, &s[0]);
	leave_channel(f, &s[1]);
}

/* Whoever asks and asks but never takes an answer is given up, and the memory
 * that small frames cost counts too. */
static void test_announcer_queue_is_bounded(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	Stentor__Link__V1__CountQuery q = STENTOR__LINK__V1__COUNT_QUERY__INIT;
	Stentor__Link__V1__CountQuery *queries[1000];
	LinkFrame content = FRAME_INIT;

	for (unsigned i = 0; i < array_len(queries); i++)
		queries[i] = &q;
	content.count_queries = queries;
	content.n_count_queries = array_len(queries);
	f->sent.answer = ERR_AGAIN;
	for (unsigned i = 0; i < 1000 && u->phase == UPSTREAM_UP; i++) {
		speak(f, u, 0, &content, 1001);
		flush(f);
		announcer_tick(&f->a, 1001);
	}
	assert_int_equal(u->phase, UPSTREAM_DOWN);
	assert_int_equal(u->queue_bytes, 0);
	assert_int_equal(f->redials, 1);
}

/* What a worker asks of the store goes round the dispatchers. */
static void test_announcer_asks_in_turn(void **state)
{
	struct fixture *f = *state;
	Stentor__Link__V1__TopsQuery q = STENTOR__LINK__V1__TOPS_QUERY__INIT;
	Stentor__Link__V1__TopsQuery *queries[1] = {&q};
	LinkFrame content = FRAME_INIT;
	struct upstream *one, *two, *down;
	struct frame *control;

	q.id = 5;
	content.tops_queries = queries;
	content.n_tops_queries = 1;
	control = link_control_encode(&content);
	down = announcer_add(&f->a, "tcp://d:0");
	assert_null(announcer_ask(&f->a, control, NULL));
	one = link_up(f, "tcp://d:1", 1);
	assert_ptr_equal(announcer_ask(&f->a, control, NULL), one);
	assert_ptr_equal(announcer_ask(&f->a, control, one), one);
	two = link_up(f, "tcp://d:2", 2);
	assert_ptr_equal(announcer_ask(&f->a, control, NULL), two);
	assert_ptr_equal(announcer_ask(&f->a, control, NULL), one);
	assert_ptr_equal(announcer_ask(&f->a, control, NULL), two);
	assert_ptr_equal(announcer_ask(&f->a, control, one), two);
	assert_ptr_equal(announcer_ask(&f->a, control, two), one);
	assert_ptr_equal(announcer_ask(&f->a, control, down), two);
	assert_int_equal(control->refs, 9);
	sent_clear(&f->sent);
	flush(f);
	assert_int_equal(control->refs, 1);
	assert_int_equal(f->sent.count, 8);
	assert_int_equal(sent_decode(&f->sent, 7)->tops_queries[0]->id, 5);
	frame_release(control);
}

static void test_announcer_routes_answers(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	Stentor__Link__V1__TopsAnswer t = STENTOR__LINK__V1__TOPS_ANSWER__INIT;
	Stentor__Link__V1__HistoryAnswer h =
		STENTOR__LINK__V1__HISTORY_ANSWER__INIT;
	Stentor__Link__V1__TopsAnswer *tops[1] = {&t};
	Stentor__Link__V1__HistoryAnswer *histories[2] = {&h, &h};
	LinkFrame content = FRAME_INIT;

	speak(f, u, 0, NULL, 1001);
	assert_int_equal(f->answered_ms, 0);
	content.tops_answers = tops;
	content.n_tops_answers = 1;
	speak(f, u, 0, &content, 1002);
	assert_int_equal(f->tops_answers, 1);
	assert_int_equal(f->answered_ms, 1002);
	content.n_tops_answers = 0;
	content.history_answers = histories;
	content.n_history_answers = 2;
	speak(f, u, 0, &content, 1003);
	assert_int_equal(f->history_answers, 2);
	assert_int_equal(f->tops_answers, 1);
	/* Out of sequence: nothing of it is taken. */
	feed(f,
	     (struct link_header){THEIRS, u->link.epoch, u->link.rx_seq + 2, 0,
				  0},
	     &content, 1004);
	assert_int_equal(f->history_answers, 2);
}

/* Up is told when the snapshot is acknowledged, the end whatever its cause. */
static void test_announcer_tells_link_changes(void **state)
{
	struct fixture *f = *state;
	Stentor__Link__V1__Refuse r = STENTOR__LINK__V1__REFUSE__INIT;
	LinkFrame refusal = FRAME_INIT;
	uint8_t key[16] = {3};
	struct upstream *u = link_up(f, "tcp://d:1", 1), *two;

	assert_int_equal(f->ups, 0);
	speak(f, u, 0, NULL, 1001);
	assert_int_equal(f->ups, 0);
	speak(f, u, u->link.tx_seq, NULL, 1001);
	assert_int_equal(f->ups, 1);
	assert_ptr_equal(f->changed, u);
	speak(f, u, u->link.tx_seq, NULL, 1001);
	assert_int_equal(f->ups, 1);
	announcer_disconnected(&f->a, u);
	assert_int_equal(f->downs, 1);
	announcer_disconnected(&f->a, u);
	assert_int_equal(f->downs, 1); /* it was down already */
	announcer_connected(&f->a, u, 2000);
	assert_int_equal(f->downs, 1);

	welcome_as(f, u, THEIRS, key, 2000); /* a sequence that breaks */
	feed(f, (struct link_header){THEIRS, u->link.epoch, 9, 0, 0}, &refusal,
	     2000);
	assert_int_equal(f->downs, 2);
	welcome_as(f, u, THEIRS, key, 2000); /* a refusal */
	refusal.refuse = &r;
	feed(f, (struct link_header){THEIRS, u->link.epoch, 0, 0, 0}, &refusal,
	     2000);
	assert_int_equal(f->downs, 3);
	welcome_as(f, u, THEIRS, key, 2000); /* connected anew */
	announcer_connected(&f->a, u, 2000);
	assert_int_equal(f->downs, 4);
	welcome_as(f, u, THEIRS, key, 2000); /* replaced by another link */
	two = announcer_add(&f->a, "tcp://d:2");
	announcer_connected(&f->a, two, 2000);
	welcome_as(f, two, THEIRS, key, 2000);
	assert_int_equal(f->downs, 5);
	assert_ptr_equal(f->changed, u);
	announcer_tick(&f->a, 2000 + LINK_DEAD_MS); /* silence */
	assert_int_equal(f->downs, 6);
	assert_ptr_equal(f->changed, two);
	announcer_connected(&f->a, two, 8000);
	welcome_as(f, two, THEIRS, key, 8000); /* removed */
	announcer_remove(&f->a, two);
	assert_int_equal(f->downs, 7);
	assert_int_equal(f->ups, 1);
}

static void tell_store(struct fixture *f, struct upstream *u, uint64_t store,
		       uint64_t now_ms)
{
	Stentor__Link__V1__Heartbeat beat = STENTOR__LINK__V1__HEARTBEAT__INIT;
	LinkFrame content = FRAME_INIT;

	beat.store = store;
	content.heartbeat = &beat;
	speak(f, u, 0, &content, now_ms);
}

static void test_announcer_one_store(void **state)
{
	struct fixture *f = *state;
	struct upstream *one = link_up(f, "tcp://d:1", 1), *two, *three;
	uint8_t key[16] = {2};
	unsigned hellos = 0;

	assert_int_equal(f->a.store, 0);
	tell_store(f, one, 0, 1001); /* it does not know yet */
	assert_int_equal(f->a.store, 0);
	tell_store(f, one, 55, 1001);
	assert_int_equal(f->a.store, 55);
	sent_clear(&f->sent);
	announcer_tick(&f->a, 1001);
	assert_int_equal(sent_decode(&f->sent, 0)->heartbeat->store, 55);

	/* Another says so in its answer to the hello. */
	two = announcer_add(&f->a, "tcp://d:2");
	sent_clear(&f->sent);
	announcer_connected(&f->a, two, 1002);
	assert_int_equal(sent_decode(&f->sent, 0)->hello->store, 55);
	welcome_with(f, two, THEIRS, key, 66, 1002);
	assert_int_equal(two->phase, UPSTREAM_GREETING);
	assert_int_equal(f->a.counters.store_refused, 1);
	assert_int_equal(f->a.store, 55);
	assert_int_equal(f->a.counters.links_lost, 0);
	sent_clear(&f->sent);
	announcer_tick(&f->a, 1002 + 10 * LINK_GREET_MS - 2001); /* no haste */
	for (unsigned i = 0; i < f->sent.count; i++)
		assert_null(sent_decode(&f->sent, i)->hello);

	/* The same, or none, is no harm; another one later is. */
	three = link_up(f, "tcp://d:3", 3);
	tell_store(f, three, 55, 3002);
	tell_store(f, three, 0, 3002);
	assert_int_equal(three->phase, UPSTREAM_UP);
	tell_store(f, three, 66, 3002);
	assert_int_equal(three->phase, UPSTREAM_GREETING);
	assert_int_equal(f->a.counters.store_refused, 2);
	assert_int_equal(f->downs, 1);

	/* The only one that is left says so: it was emptied. */
	tell_store(f, one, 77, 3002);
	assert_int_equal(one->phase, UPSTREAM_UP);
	assert_int_equal(f->a.store, 77);
	assert_int_equal(f->a.counters.store_refused, 2);
	assert_int_equal(f->downs, 1);
	/* Those that were refused may have the new one: they are asked now. */
	sent_clear(&f->sent);
	announcer_tick(&f->a, 3002);
	for (unsigned i = 0; i < f->sent.count; i++)
		hellos += sent_decode(&f->sent, i)->hello != NULL;
	assert_int_equal(hellos, 2);

	/* Nobody is left who has it: another may come. */
	announcer_disconnected(&f->a, one);
	assert_int_equal(f->a.store, 0);
	welcome_with(f, two, THEIRS, key, 66, 3003);
	assert_int_equal(two->phase, UPSTREAM_UP);
	assert_int_equal(f->a.store, 66);
}

/* The dispatcher's heartbeat, with what it says of the fleet. */
static void say_fleet(struct fixture *f, struct upstream *u, uint32_t takers,
		      uint64_t leave_per_ks, uint64_t surplus, bool full)
{
	Stentor__Link__V1__Fleet fleet = STENTOR__LINK__V1__FLEET__INIT;
	Stentor__Link__V1__Heartbeat beat = STENTOR__LINK__V1__HEARTBEAT__INIT;
	LinkFrame content = FRAME_INIT;

	fleet.takers = takers;
	fleet.leave_per_ks = leave_per_ks;
	fleet.surplus = surplus;
	fleet.full = full;
	beat.fleet = &fleet;
	beat.config_hash = surplus;
	content.heartbeat = &beat;
	speak(f, u, u->link.tx_seq, &content, 1500);
}

static void test_announcer_hears_the_least(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	struct upstream *v = link_up(f, "tcp://e:1", 2);

	assert_false(announcer_fleet(&f->a).known);
	say_fleet(f, u, 2, 500, 7, false);
	assert_true(announcer_fleet(&f->a).known);
	assert_int_equal(announcer_fleet(&f->a).leave_per_ks, 500);
	assert_false(announcer_fleet(&f->a).full);
	say_fleet(f, v, 3, 400, 9, true);
	assert_int_equal(announcer_fleet(&f->a).takers, 3);
	assert_int_equal(announcer_fleet(&f->a).leave_per_ks, 400);
	assert_int_equal(announcer_fleet(&f->a).surplus, 7);
	assert_true(announcer_fleet(&f->a).full);
	/* Rules, too, may have changed since the link came up. */
	f->a.identity.config_hash = 7;
	assert_int_equal(announcer_different(&f->a), 1);
	/* Who is gone has no say. */
	announcer_disconnected(&f->a, v);
	assert_int_equal(announcer_fleet(&f->a).leave_per_ks, 500);
	announcer_disconnected(&f->a, u);
	assert_false(announcer_fleet(&f->a).known);
}

static void test_announcer_hurries(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	LinkFrame *heard;

	announcer_tick(&f->a, 2000);
	sent_clear(&f->sent);
	f->a.draining = true;
	f->a.load.leave_per_ks = 5;
	announcer_tick(&f->a, 2001);
	assert_int_equal(f->sent.count, 0);
	announcer_hurry(&f->a);
	announcer_tick(&f->a, 2002);
	assert_int_equal(f->sent.count, 1);
	heard = sent_decode(&f->sent, 0);
	assert_true(heard->heartbeat->draining);
	assert_int_equal(heard->heartbeat->load->leave_per_ks, 5);
	assert_true(f->last == u);
}

static void test_announcer_passes_orders_on(void **state)
{
	struct fixture *f = *state;
	struct upstream *u = link_up(f, "tcp://d:1", 1);
	Stentor__Link__V1__DrainOrder order =
		STENTOR__LINK__V1__DRAIN_ORDER__INIT;
	LinkFrame content = FRAME_INIT;

	order.number = 99;
	content.drain = &order;
	speak(f, u, u->link.tx_seq, &content, 1500);
	assert_int_equal(f->drain_number, 99);
}

static void test_announcer_malformed(void **state)
{
	struct fixture *f = *state;

	link_up(f, "tcp://d:1", 1);
	announcer_receive(&f->a, "\xff", 1, 1001);
	assert_int_equal(f->a.counters.frames_malformed, 1);
	announcer_receive(&f->a, "", 0, 1001);
	assert_int_equal(f->a.counters.frames_stale, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_announcer_greets_until_answered),
		TEST(test_announcer_snapshot_then_changes),
		TEST(test_announcer_confirms_what_all_acknowledged),
		TEST(test_announcer_confirms_a_new_link_anew),
		TEST(test_announcer_gathers),
		TEST(test_announcer_many_generations),
		TEST(test_announcer_push_back),
		TEST(test_announcer_gap),
		TEST(test_announcer_refused),
		TEST(test_announcer_second_answer),
		TEST(test_announcer_one_link_to_a_dispatcher),
		TEST(test_announcer_heartbeats_and_silence),
		TEST(test_announcer_delivers_and_acknowledges),
		TEST(test_announcer_counts_subscribers),
		TEST(test_announcer_queue_is_bounded),
		TEST(test_announcer_asks_in_turn),
		TEST(test_announcer_routes_answers),
		TEST(test_announcer_tells_link_changes),
		TEST(test_announcer_one_store),
		TEST(test_announcer_hears_the_least),
		TEST(test_announcer_hurries),
		TEST(test_announcer_passes_orders_on),
		TEST(test_announcer_malformed),
	};

	return cmocka_run_group_tests_name("announcer", tests, NULL, NULL);
}

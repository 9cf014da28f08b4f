/* Which dispatchers there are, what their clocks say, and which logs moved. */
#include "tests/unit/announcer_fixture.h"

#define SECOND_US 1000000u

/* A heartbeat; `instances` ends with 0. */
static void beat(struct fixture *f, struct upstream *u, uint64_t *instances,
		 uint64_t wall_us, uint64_t now_ms)
{
	Stentor__Link__V1__Heartbeat b = STENTOR__LINK__V1__HEARTBEAT__INIT;
	LinkFrame content = FRAME_INIT;

	while (instances != NULL && instances[b.n_instances] != 0)
		b.n_instances++;
	b.instances = instances;
	b.wall_us = wall_us;
	content.heartbeat = &b;
	speak(f, u, u->link.tx_seq, &content, now_ms);
}

static struct upstream *link_to(struct fixture *f, const char *address,
				uint8_t key_byte, uint64_t instance)
{
	Stentor__Link__V1__HelloAck ack = STENTOR__LINK__V1__HELLO_ACK__INIT;
	struct upstream *u = announcer_add(&f->a, address);
	LinkFrame content = FRAME_INIT;
	uint8_t key[16];

	memset(key, key_byte, sizeof(key));
	announcer_connected(&f->a, u, 1000);
	ack.dispatcher = (char *)"d";
	ack.hash_key.data = key;
	ack.hash_key.len = 16;
	ack.instance = instance;
	content.hello_ack = &ack;
	feed(f, (struct link_header){THEIRS + key_byte, u->link.epoch, 0, 0, 0},
	     &content, 1000);
	assert_int_equal(u->phase, UPSTREAM_UP);
	return u;
}

static const Stentor__Link__V1__Heartbeat *own_beat(struct fixture *f,
						    uint64_t now_ms)
{
	const LinkFrame *frame;

	sent_clear(&f->sent);
	announcer_hurry(&f->a);
	announcer_tick(&f->a, now_ms);
	frame = sent_decode(&f->sent, 0);
	assert_non_null(frame->heartbeat);
	return frame->heartbeat;
}

static void test_peers_hello(void **state)
{
	struct fixture *f = *state;
	const LinkFrame *frame;

	f->a.logs = 77;
	announcer_connected(&f->a, announcer_add(&f->a, "tcp://d:1"), 1000);
	frame = sent_decode(&f->sent, 0);
	assert_int_equal(frame->hello->started, 1234);
	assert_int_equal(frame->hello->logs, 77);
}

/* Linked means that our interest was acknowledged. */
static void test_peers_whole(void **state)
{
	struct fixture *f = *state;
	uint64_t both[] = {11, 22, 0}, one[] = {11, 0};
	struct upstream *d, *e;

	assert_false(announcer_whole(&f->a));
	d = link_to(f, "tcp://d:1", 1, 11);
	assert_false(announcer_whole(&f->a));
	assert_int_equal(own_beat(f, 1100)->n_instances, 0);
	beat(f, d, one, 0, 1200);
	assert_true(announcer_whole(&f->a));
	assert_int_equal(own_beat(f, 1300)->n_instances, 1);
	assert_int_equal(own_beat(f, 1400)->instances[0], 11);
	/* One is named that we don't have. */
	beat(f, d, both, 0, 1500);
	assert_false(announcer_whole(&f->a));
	e = link_to(f, "tcp://e:1", 2, 22);
	assert_false(announcer_whole(&f->a));
	/* Whom it knows of is not told yet, by one that nobody names. */
	beat(f, d, one, 0, 1550);
	assert_false(announcer_whole(&f->a));
	beat(f, d, both, 0, 1560);
	beat(f, e, NULL, 0, 1600);
	assert_true(announcer_whole(&f->a));
	assert_int_equal(own_beat(f, 1700)->n_instances, 2);
	announcer_disconnected(&f->a, e);
	assert_false(announcer_whole(&f->a));
	/* Told at once, ahead of what is asked then. */
	sent_clear(&f->sent);
	flush(f);
	assert_int_equal(sent_decode(&f->sent, 0)->heartbeat->n_instances, 1);
	assert_int_equal(own_beat(f, 2800)->n_instances, 1);
	/* It is named no more: it has gone. */
	beat(f, d, one, 0, 2900);
	assert_true(announcer_whole(&f->a));
	announcer_disconnected(&f->a, d);
	assert_false(announcer_whole(&f->a));
}

/* One that tells nothing of the kind, or more than there can be. */
static void test_peers_untold(void **state)
{
	struct fixture *f = *state;
	uint64_t many[ANNOUNCER_PEERS_MAX + 10];
	struct upstream *d = link_to(f, "tcp://d:1", 1, 0);

	beat(f, d, NULL, 0, 1100);
	assert_true(announcer_whole(&f->a));
	assert_int_equal(own_beat(f, 1200)->n_instances, 0);
	for (unsigned i = 0; i < array_len(many); i++)
		many[i] = i + 1;
	many[array_len(many) - 1] = 0;
	beat(f, d, many, 0, 1300);
	assert_int_equal(d->peer_count, ANNOUNCER_PEERS_MAX);
	assert_false(announcer_whole(&f->a));
	for (unsigned i = 0; i < array_len(many) - 1; i++)
		many[i] = 11;
	d->instance = 11;
	beat(f, d, many, 0, 1400);
	assert_false(announcer_whole(&f->a));
}

static void send_messages(struct fixture *f, struct upstream *u,
			  uint64_t published_us, uint64_t now_ms)
{
	Stentor__Link__V1__HistoryAnswer answer =
		STENTOR__LINK__V1__HISTORY_ANSWER__INIT;
	LinkDelivery d = STENTOR__LINK__V1__DELIVERY__INIT, kept = d;
	LinkFrame content = FRAME_INIT;

	d.channel = (char *)"a";
	d.published_us = kept.published_us = published_us;
	d.ttl_ms = kept.ttl_ms = 5000;
	answer.n_messages = 1;
	answer.messages = &(LinkDelivery *){&kept};
	content.n_deliveries = 1;
	content.deliveries = &(LinkDelivery *){&d};
	content.n_history_answers = 1;
	content.history_answers =
		&(Stentor__Link__V1__HistoryAnswer *){&answer};
	speak(f, u, u->link.tx_seq, &content, now_ms);
}

/* Times are by our clock, whatever the dispatcher's says. */
static void test_peers_clock(void **state)
{
	struct fixture *f = *state;
	struct upstream *d = link_to(f, "tcp://d:1", 1, 11);

	f->wall_us = 1000 * SECOND_US;
	assert_int_equal(own_beat(f, 1000)->wall_us, f->wall_us);
	/* It has not told yet: live messages are of now, and of what was kept
	 * nothing has expired. */
	send_messages(f, d, 990 * SECOND_US, 1000);
	assert_int_equal(f->published_us, 1000 * SECOND_US);
	assert_int_equal(f->kept_us, 990 * SECOND_US);
	assert_int_equal(f->kept_ttl_ms, 0);
	beat(f, d, NULL, 990 * SECOND_US, 1000);
	assert_int_equal(announcer_skew_us(&f->a), 10 * SECOND_US);
	send_messages(f, d, 991 * SECOND_US, 1100);
	assert_int_equal(f->published_us, 1001 * SECOND_US);
	assert_int_equal(f->kept_us, 1001 * SECOND_US);
	assert_int_equal(f->kept_ttl_ms, 5000);
	/* Each link has its own. */
	struct upstream *e = link_to(f, "tcp://e:1", 2, 22);

	beat(f, e, NULL, 1003 * SECOND_US, 1000);
	send_messages(f, e, 1003 * SECOND_US, 1100);
	assert_int_equal(f->published_us, 1000 * SECOND_US);
	assert_int_equal(announcer_skew_us(&f->a), 10 * SECOND_US);
	announcer_disconnected(&f->a, d);
	assert_int_equal(announcer_skew_us(&f->a), 3 * SECOND_US);
	/* One of a version that tells no clock. */
	announcer_disconnected(&f->a, e);
	d = link_to(f, "tcp://g:1", 3, 0);
	beat(f, d, NULL, 0, 1200);
	send_messages(f, d, 5 * SECOND_US, 1300);
	assert_int_equal(f->published_us, 5 * SECOND_US);
	assert_int_equal(f->kept_ttl_ms, 5000);
}

static void test_peers_moved(void **state)
{
	struct fixture *f = *state;
	Stentor__Link__V1__Moved moved = STENTOR__LINK__V1__MOVED__INIT;
	struct upstream *d = link_to(f, "tcp://d:1", 1, 11);
	LinkDelivery delivery = STENTOR__LINK__V1__DELIVERY__INIT;
	LinkFrame content = FRAME_INIT;

	delivery.channel = (char *)"a";
	moved.channel = (char *)"b";
	content.n_moved = 1;
	content.moved = &(Stentor__Link__V1__Moved *){&moved};
	content.n_deliveries = 1;
	content.deliveries = &(LinkDelivery *){&delivery};
	speak(f, d, 0, &content, 1000);
	assert_int_equal(f->moved, 1);
	assert_string_equal(f->delivered, "a+moved");
	content = (LinkFrame)FRAME_INIT;
	content.moved_unnamed = true;
	speak(f, d, 0, &content, 1000);
	assert_int_equal(f->moved, 2);
	content.moved_unnamed = false;
	speak(f, d, 0, &content, 1000);
	assert_int_equal(f->moved, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_peers_hello),	 TEST(test_peers_whole),
		TEST(test_peers_untold), TEST(test_peers_clock),
		TEST(test_peers_moved),
	};

	return cmocka_run_group_tests_name("announcer_peers", tests, NULL,
					   NULL);
}

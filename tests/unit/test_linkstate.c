#include "common/codec/linkstate.h"

#include "common/base/err.h"
#include "tests/unit/unit.h"

#define OURS   11
#define THEIRS 22

static struct link_state make(void)
{
	struct link_state s;

	link_state_init(&s, OURS, 1000);
	s.peer_epoch = THEIRS;
	return s;
}

static int receive(struct link_state *s, uint64_t seq, uint64_t ack,
		   uint64_t ack_bytes)
{
	struct link_header h = {THEIRS, OURS, seq, ack, ack_bytes};

	return link_state_receive(s, &h, 100, 2000);
}

static void test_linkstate_numbers_what_left(void **state UNUSED)
{
	struct link_state s = make();
	struct link_header h = link_state_next(&s);

	assert_int_equal(h.sender_epoch, OURS);
	assert_int_equal(h.receiver_epoch, THEIRS);
	assert_int_equal(h.seq, 1);
	/* Pushed back: the number is used again. */
	assert_int_equal(link_state_next(&s).seq, 1);
	link_state_sent(&s, 50);
	assert_int_equal(link_state_next(&s).seq, 2);
	assert_int_equal(s.tx_bytes, 50);
	assert_int_equal(link_state_greeting(&s).seq, 0);
}

static void test_linkstate_order(void **state UNUSED)
{
	struct link_state s = make();

	assert_int_equal(receive(&s, 2, 0, 0), ERR_GAP);
	assert_int_equal(receive(&s, 1, 0, 0), 0);
	assert_int_equal(receive(&s, 1, 0, 0), ERR_STALE);
	assert_int_equal(receive(&s, 0, 0, 0), ERR_STALE);
	assert_int_equal(receive(&s, 2, 0, 0), 0);
	assert_int_equal(receive(&s, 4, 0, 0), ERR_GAP);
	assert_int_equal(receive(&s, UINT64_MAX, 0, 0), ERR_GAP);
	assert_int_equal(s.rx_seq, 2);
	assert_int_equal(s.rx_bytes, 200);
	assert_int_equal(link_state_next(&s).ack, 2);
	assert_int_equal(link_state_next(&s).ack_bytes, 200);
}

static void test_linkstate_epochs(void **state UNUSED)
{
	struct link_state s = make();
	struct link_header old_peer = {THEIRS + 1, OURS, 1, 0, 0};
	struct link_header to_older_us = {THEIRS, OURS + 1, 1, 0, 0};

	assert_int_equal(link_state_receive(&s, &old_peer, 1, 0), ERR_STALE);
	assert_int_equal(link_state_receive(&s, &to_older_us, 1, 0), ERR_STALE);
	assert_int_equal(s.rx_seq, 0);
	assert_int_equal(s.last_rx_ms, 1000);
}

static void test_linkstate_acknowledges_no_more_than_sent(void **state UNUSED)
{
	struct link_state s = make();

	link_state_sent(&s, 50);
	assert_int_equal(receive(&s, 1, 2, 50), ERR_GAP);
	assert_int_equal(receive(&s, 1, 1, 51), ERR_GAP);
	assert_int_equal(receive(&s, 1, 1, 50), 0);
	assert_int_equal(s.peer_ack, 1);
	/* An older acknowledgement takes nothing back. */
	assert_int_equal(receive(&s, 2, 0, 0), 0);
	assert_int_equal(s.peer_ack, 1);
	assert_int_equal(s.peer_ack_bytes, 50);
}

static void test_linkstate_credit(void **state UNUSED)
{
	struct link_state s = make();

	assert_int_equal(link_state_credit(&s), LINK_CREDIT);
	link_state_sent(&s, LINK_CREDIT - 10);
	assert_int_equal(link_state_credit(&s), 10);
	link_state_sent(&s, 20);
	assert_int_equal(link_state_credit(&s), 0);
	assert_int_equal(receive(&s, 1, 1, LINK_CREDIT - 10), 0);
	assert_int_equal(link_state_credit(&s), LINK_CREDIT - 20);
}

static void test_linkstate_holds_acks(void **state UNUSED)
{
	struct link_state s = make();

	assert_int_equal(receive(&s, 1, 0, 0), 0);
	link_state_sent(&s, 10);
	assert_int_equal(link_state_owed(&s), 0);
	s.hold_acks = true;
	assert_int_equal(receive(&s, 2, 0, 0), 0);
	link_state_sent(&s, 10);
	assert_int_equal(link_state_next(&s).ack, 1);
	assert_int_equal(link_state_next(&s).ack_bytes, 100);
	assert_int_equal(link_state_owed(&s), 100);
	s.hold_acks = false;
	assert_int_equal(link_state_next(&s).ack, 2);
	link_state_sent(&s, 10);
	assert_int_equal(link_state_owed(&s), 0);
}

static void test_linkstate_time(void **state UNUSED)
{
	struct link_state s = make();

	assert_false(link_state_dead(&s, 1000 + LINK_DEAD_MS - 1));
	assert_true(link_state_dead(&s, 1000 + LINK_DEAD_MS));
	assert_int_equal(receive(&s, 1, 0, 0), 0); /* at 2000 */
	assert_false(link_state_dead(&s, 2000 + LINK_DEAD_MS - 1));
	/* What is not in sequence is no sign of life. */
	assert_int_equal(receive(&s, 7, 0, 0), ERR_GAP);
	assert_true(link_state_dead(&s, 2000 + LINK_DEAD_MS));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linkstate_numbers_what_left),
		cmocka_unit_test(test_linkstate_order),
		cmocka_unit_test(test_linkstate_epochs),
		cmocka_unit_test(test_linkstate_acknowledges_no_more_than_sent),
		cmocka_unit_test(test_linkstate_credit),
		cmocka_unit_test(test_linkstate_holds_acks),
		cmocka_unit_test(test_linkstate_time),
	};

	return cmocka_run_group_tests_name("linkstate", tests, NULL, NULL);
}

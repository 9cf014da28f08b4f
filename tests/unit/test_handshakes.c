#include "common/io/handshakes.h"

#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#define PEERS (3 * HANDSHAKES_TURN)

/* Which of the peers comes next, its words checked; -1: none. */
static int next_of(struct handshakes *h, struct handshake *peers)
{
	char *first = NULL;
	size_t len = 0;
	struct handshake *s = handshakes_next(h, &first, &len);

	if (s == NULL)
		return -1;
	assert_int_equal(len, 2);
	assert_string_equal(first, "hi");
	free(first);
	assert_int_equal(s->state, HANDSHAKE_UNDER_WAY);
	return (int)(s - peers);
}

static void end_all(struct handshakes *h, struct handshake *peers)
{
	for (int i = 0; i < PEERS; i++)
		handshakes_end(h, &peers[i]);
	assert_true(list_empty(&h->waiting));
	assert_true(list_empty(&h->under_way));
	assert_int_equal(h->count, 0);
}

static void test_so_many_a_turn(void **state)
{
	struct handshake peers[PEERS] = {0};
	struct handshakes h;

	(void)state;
	handshakes_init(&h, PEERS);
	for (int i = 0; i < PEERS; i++)
		assert_int_equal(handshakes_arrive(&h, &peers[i], "hi", 2),
				 i < HANDSHAKES_TURN);
	assert_int_equal(next_of(&h, peers), -1);
	for (int i = HANDSHAKES_TURN; i < PEERS; i++) {
		if (i % HANDSHAKES_TURN == 0)
			handshakes_turn(&h);
		assert_int_equal(next_of(&h, peers), i);
	}
	assert_int_equal(h.count, PEERS);
	/* Those who waited have used this turn up too. */
	handshakes_end(&h, &peers[0]);
	assert_false(handshakes_arrive(&h, &peers[0], "hi", 2));
	end_all(&h, peers);
}

static void test_who_leaves_while_waiting(void **state)
{
	struct handshake peers[PEERS] = {0};
	struct handshakes h;

	(void)state;
	handshakes_init(&h, PEERS);
	for (int i = 0; i < PEERS; i++)
		(void)!handshakes_arrive(&h, &peers[i], "hi", 2);
	assert_false(handshakes_end(&h, &peers[HANDSHAKES_TURN]));
	handshakes_turn(&h);
	assert_int_equal(next_of(&h, peers), HANDSHAKES_TURN + 1);
	assert_true(handshakes_end(&h, &peers[HANDSHAKES_TURN + 1]));
	assert_false(handshakes_end(&h, &peers[HANDSHAKES_TURN + 1]));
	end_all(&h, peers);
}

static void test_the_oldest_is_cut(void **state)
{
	struct handshake peers[PEERS] = {0};
	struct handshakes h;

	(void)state;
	handshakes_init(&h, 2);
	for (int i = 0; i < 3; i++) {
		assert_null(handshakes_surplus(&h));
		assert_true(handshakes_arrive(&h, &peers[i], "hi", 2));
	}
	assert_ptr_equal(handshakes_surplus(&h), &peers[0]);
	assert_true(handshakes_end(&h, &peers[0]));
	assert_null(handshakes_surplus(&h));
	end_all(&h, peers);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_so_many_a_turn),
		cmocka_unit_test(test_who_leaves_while_waiting),
		cmocka_unit_test(test_the_oldest_is_cut),
	};

	return cmocka_run_group_tests_name("handshakes", tests, NULL, NULL);
}

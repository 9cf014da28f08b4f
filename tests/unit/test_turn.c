#include "connnode/turn.h"

#include "tests/unit/unit.h"

#include <limits.h>

/* Stages that have so much to do, and what they were given. */
struct work {
	unsigned left[3], given[3];
};

static unsigned run(struct work *w, unsigned i, unsigned budget)
{
	unsigned used = w->left[i] < budget ? w->left[i] : budget;

	w->given[i] = budget;
	w->left[i] -= used;
	return used;
}

static unsigned run_0(void *ctx, unsigned budget)
{
	return run(ctx, 0, budget);
}

static unsigned run_1(void *ctx, unsigned budget)
{
	return run(ctx, 1, budget);
}

static unsigned run_2(void *ctx, unsigned budget)
{
	return run(ctx, 2, budget);
}

static bool pending_0(void *ctx)
{
	return ((struct work *)ctx)->left[0] > 0;
}

static bool pending_2(void *ctx)
{
	return ((struct work *)ctx)->left[2] > 0;
}

static const struct stage stages[] = {
	{"first", run_0, pending_0},
	{"second", run_1, NULL},
	{"third", run_2, pending_2},
};

static void test_turn_shares_its_budget(void **state)
{
	struct work w = {.left = {100, 50, 10}};

	(void)state;
	turn_run(stages, 3, &w);
	assert_int_equal(w.given[0], TURN_BUDGET);
	assert_int_equal(w.given[1], TURN_BUDGET - 100);
	assert_int_equal(w.given[2], TURN_BUDGET - 150);
	assert_null(turn_pending(stages, 3, &w));
}

static void test_turn_leaves_nobody_out(void **state)
{
	struct work w = {.left = {UINT_MAX, 3, TURN_SHARE + 1}};

	(void)state;
	assert_string_equal(turn_pending(stages, 3, &w)->name, "first");
	turn_run(stages, 3, &w);
	assert_int_equal(w.given[1], TURN_SHARE);
	assert_int_equal(w.given[2], TURN_SHARE);
	assert_int_equal(w.left[2], 1);
	assert_string_equal(turn_pending(stages, 3, &w)->name, "first");
	w.left[0] = 0;
	assert_string_equal(turn_pending(stages, 3, &w)->name, "third");
	turn_run(stages, 3, &w);
	assert_null(turn_pending(stages, 3, &w));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_turn_shares_its_budget),
		cmocka_unit_test(test_turn_leaves_nobody_out),
	};

	return cmocka_run_group_tests_name("turn", tests, NULL, NULL);
}

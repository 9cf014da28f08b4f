#include "connnode/channel/past.h"

#include "tests/unit/unit.h"

#include <stdlib.h>

/* Places of one reader over several moves of a log. */

struct era {
	uint64_t epoch, offset;
};

struct fixture {
	struct past *past;
	uint64_t epoch;
};

static int set_up(void **state)
{
	static struct fixture f;

	f = (struct fixture){.epoch = 1};
	*state = &f;
	return 0;
}

static int tear_down(void **state)
{
	free(((struct fixture *)*state)->past);
	return 0;
}

/* The log, at `passed`, is in `epoch` now. */
static void move_to(struct fixture *f, uint64_t passed, uint64_t epoch,
		    const struct era *eras, size_t count)
{
	struct past_epoch from = {
		.epoch = f->epoch,
		.last = passed,
		.passed = passed,
		.sure = true,
	};
	Stentor__Link__V1__Era era[4], *all[4];
	LinkPlace top;

	stentor__link__v1__place__init(&top);
	for (size_t i = 0; i < count; i++) {
		stentor__link__v1__era__init(&era[i]);
		era[i].epoch = eras[i].epoch;
		era[i].offset = eras[i].offset;
		all[i] = &era[i];
	}
	top.epoch = epoch;
	top.offset = count > 0 ? eras[0].offset : 0;
	top.n_eras = count;
	top.eras = all;
	f->past = past_move(f->past, &from, &top);
	f->epoch = epoch;
}

static void expect_at(struct fixture *f, uint64_t epoch, uint64_t offset,
		      uint64_t now)
{
	struct place at = {epoch, offset};
	struct gap gap;

	assert_true(past_map(f->past, &at, &gap));
	assert_int_equal(at.epoch, f->epoch);
	assert_int_equal(at.offset, now);
}

static void test_past_moves(void **state)
{
	struct fixture *f = *state;

	move_to(f, 9, 10, (struct era[]){{1, 7}}, 1);
	expect_at(f, 1, 5, 5);
	expect_at(f, 1, 9, 7);
	move_to(f, 8, 20, (struct era[]){{10, 6}, {1, 6}}, 2);
	expect_at(f, 1, 5, 5);
	expect_at(f, 1, 9, 6);
	expect_at(f, 10, 8, 6);
}

/* Of an epoch that the store has forgotten, by way of one that it knows. */
static void test_past_forgotten(void **state)
{
	struct fixture *f = *state;

	move_to(f, 5, 10, (struct era[]){{1, 2}}, 1);
	expect_at(f, 1, 5, 2);
	/* Who was at 2 of the present epoch, which has grown, is there still. */
	move_to(f, 100, 20, (struct era[]){{10, 100}}, 1);
	expect_at(f, 1, 5, 2);
	expect_at(f, 1, 1, 1);
	expect_at(f, 10, 100, 100);
	/* And behind what is left of it. */
	move_to(f, 100, 30, (struct era[]){{20, 1}}, 1);
	expect_at(f, 1, 5, 1);
	expect_at(f, 10, 100, 1);
}

/* The log was made anew, has grown, and its store went back: of the log that is
 * gone all that is there is owed. */
static void test_past_gone(void **state)
{
	struct fixture *f = *state;

	move_to(f, 9, 10, NULL, 0);
	expect_at(f, 1, 9, 0);
	move_to(f, 50, 20, (struct era[]){{10, 40}}, 1);
	expect_at(f, 1, 9, 0);
	expect_at(f, 10, 50, 40);
}

/* Back at an earlier server: what came of the epoch before is not owed once
 * more (past.c). */
static void test_past_comes_back(void **state)
{
	struct fixture *f = *state;

	move_to(f, 6, 2, (struct era[]){{1, 4}}, 1);
	move_to(f, 7, 3, (struct era[]){{1, 6}}, 1);
	expect_at(f, 2, 7, 6);
	expect_at(f, 2, 3, 3);
	expect_at(f, 1, 6, 6);
}

/* The store went back, and then to one that had more: what readers had of it
 * comes no second time, also if the store has heard of the epoch between from
 * another worker. */
static void test_past_comes_back_known(void **state)
{
	struct fixture *f = *state;

	move_to(f, 18, 10, (struct era[]){{1, 13}}, 1);
	expect_at(f, 1, 18, 13);
	move_to(f, 13, 20, (struct era[]){{10, 13}, {1, 18}}, 2);
	expect_at(f, 10, 13, 18);
	expect_at(f, 10, 12, 12);
	/* Less of it than they had. */
	move_to(f, 18, 30, (struct era[]){{20, 15}, {1, 15}}, 2);
	expect_at(f, 20, 18, 15);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_past_moves, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_past_forgotten, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_past_gone, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_past_comes_back, set_up,
						tear_down),
		cmocka_unit_test_setup_teardown(test_past_comes_back_known,
						set_up, tear_down),
	};

	return cmocka_run_group_tests_name("past", tests, NULL, NULL);
}

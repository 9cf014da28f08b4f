#include "connnode/node/pace.h"

#include "common/base/check.h"
#include "tests/unit/unit.h"

#define TICK_MS 100

static const struct fleet_heard nobody_said;

static struct fleet_heard can_take(uint64_t per_second)
{
	return (struct fleet_heard){
		.known = true,
		.takers = 3,
		.leave_per_ks = per_second * 1000,
	};
}

static struct fleet_heard above_by(uint64_t surplus, uint64_t per_second)
{
	struct fleet_heard fleet = can_take(per_second);

	fleet.surplus = surplus;
	return fleet;
}

/* Lets time pass and streams go; returns how many went. */
static uint64_t run(struct pace *p, uint64_t *now_ms, uint64_t ms,
		    uint64_t *streams, const struct fleet_heard *fleet)
{
	uint64_t before = *streams;

	for (uint64_t end = *now_ms + ms; *now_ms < end;) {
		uint64_t due;

		*now_ms += TICK_MS;
		due = pace_due(p, *now_ms, *streams, fleet);
		*streams -= due < *streams ? due : *streams;
	}
	return before - *streams;
}

static void test_pace_drains_evenly(void **state UNUSED)
{
	uint64_t now = 5000, streams = 8000;
	struct pace p;

	pace_init(&p, now);
	pace_drain(&p, now, 100 * 1000);
	assert_in_range(run(&p, &now, 1000, &streams, &nobody_said), 99, 101);
	assert_in_range(p.per_ks, 99 * 1000, 101 * 1000);
	assert_in_range(run(&p, &now, 39 * 1000, &streams, &nobody_said), 3890,
			3910);
	assert_int_equal(pace_left_ms(&p, now), 60 * 1000);
	/* Done after four fifths. */
	run(&p, &now, 40 * 1000, &streams, &nobody_said);
	assert_int_equal(streams, 0);
}

static void test_pace_few_go_at_once(void **state UNUSED)
{
	uint64_t now = 0, streams = 100;
	struct pace p;

	pace_init(&p, now);
	pace_drain(&p, now, 1000 * 1000);
	assert_in_range(run(&p, &now, 1000, &streams, &nobody_said),
			PACE_LEAST - 1, PACE_LEAST + 1);
}

static void test_pace_as_others_can_take(void **state UNUSED)
{
	uint64_t now = 0, streams = 8000;
	struct fleet_heard slow = can_take(20), none = can_take(0);
	struct pace p;

	pace_init(&p, now);
	pace_drain(&p, now, 100 * 1000);
	assert_in_range(run(&p, &now, 10 * 1000, &streams, &slow), 199, 201);
	assert_int_equal(run(&p, &now, 60 * 1000, &streams, &none), 0);
	assert_int_equal(p.per_ks, 0);
	/* The last fifth goes whatever they say, evenly. */
	run(&p, &now, 10 * 1000, &streams, &none);
	assert_in_range(run(&p, &now, 10 * 1000, &streams, &none), 3700, 4100);
	run(&p, &now, 9 * 1000, &streams, &none);
	assert_in_range(streams, 1, 800);
	/* And then all. */
	run(&p, &now, 1000, &streams, &none);
	assert_int_equal(streams, 0);
	assert_int_equal(pace_left_ms(&p, now), 0);
}

static void test_pace_alone_waits_for_nobody(void **state UNUSED)
{
	uint64_t now = 0, streams = 1000;
	struct fleet_heard alone = {.known = true};
	struct pace p;

	pace_init(&p, now);
	pace_drain(&p, now, 100 * 1000);
	assert_in_range(run(&p, &now, 1000, &streams, &alone), PACE_LEAST - 1,
			PACE_LEAST + 1);
}

static void test_pace_no_time_at_all(void **state UNUSED)
{
	struct pace p;

	pace_init(&p, 7);
	pace_drain(&p, 7, 0);
	assert_true(pace_due(&p, 7, 10, &nobody_said) == UINT64_MAX);
}

static void test_pace_stops(void **state UNUSED)
{
	uint64_t now = 0, streams = 1000;
	struct pace p;

	pace_init(&p, now);
	pace_drain(&p, now, 100 * 1000);
	run(&p, &now, 1000, &streams, &nobody_said);
	pace_stop(&p);
	assert_int_equal(run(&p, &now, 10 * 1000, &streams, &nobody_said), 0);
	assert_int_equal(p.per_ks, 0);
	assert_int_equal(pace_left_ms(&p, now), 0);
}

static void test_pace_gives_its_surplus(void **state UNUSED)
{
	uint64_t now = 0, streams = 1000;
	struct fleet_heard fleet = above_by(300, 5), level = can_take(5);
	struct pace p;

	pace_init(&p, now);
	assert_int_equal(run(&p, &now, 10 * 1000, &streams, &nobody_said), 0);
	assert_in_range(run(&p, &now, 10 * 1000, &streams, &fleet), 49, 51);
	/* Never more than the surplus in one go, however fast. */
	fleet = above_by(3, 1000000);
	assert_int_equal(run(&p, &now, TICK_MS, &streams, &fleet), 3);
	assert_int_equal(run(&p, &now, 10 * 1000, &streams, &level), 0);
}

/* A load balancer that brings them back: not for ever. */
static void test_pace_rests_when_it_does_not_help(void **state UNUSED)
{
	uint64_t now = 0, streams, gone = 0;
	struct fleet_heard fleet = above_by(500, 10), level = can_take(5);
	struct pace p;

	pace_init(&p, now);
	for (unsigned i = 0; i < 300; i++) {
		streams = 1000; /* they are all back */
		gone += run(&p, &now, 1000, &streams, &fleet);
	}
	assert_int_equal(gone, 1000);
	/* A rest, and once more; then twice as long a rest. */
	for (gone = 0; gone == 0;) {
		streams = 1000;
		gone = run(&p, &now, 1000, &streams, &fleet);
	}
	assert_in_range(now, 100 * 1000 + PACE_REST_MS,
			102 * 1000 + PACE_REST_MS);
	while (gone < 1000) {
		streams = 1000;
		gone += run(&p, &now, 1000, &streams, &fleet);
	}
	streams = 1000;
	assert_int_equal(
		run(&p, &now, 2 * PACE_REST_MS - 4000, &streams, &fleet), 0);
	assert_in_range(run(&p, &now, 6000, &streams, &fleet), 10, 60);
	/* Level once, and the next rest is short again. */
	run(&p, &now, 1000, &streams, &level);
	assert_int_equal(p.rest_ms, PACE_REST_MS);
}

static void test_fleet_takes_if_there_is_room_elsewhere(void **state)
{
	struct fleet_heard f = can_take(0);

	(void)state;
	assert_true(fleet_heard_takes(&f));
	f.full = true;
	assert_false(fleet_heard_takes(&f));
	f = can_take(1);
	f.takers = 0;
	assert_false(fleet_heard_takes(&f));
	assert_false(fleet_heard_takes(&nobody_said));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pace_drains_evenly),
		cmocka_unit_test(test_pace_few_go_at_once),
		cmocka_unit_test(test_pace_as_others_can_take),
		cmocka_unit_test(test_pace_alone_waits_for_nobody),
		cmocka_unit_test(test_pace_no_time_at_all),
		cmocka_unit_test(test_pace_stops),
		cmocka_unit_test(test_fleet_takes_if_there_is_room_elsewhere),
		cmocka_unit_test(test_pace_gives_its_surplus),
		cmocka_unit_test(test_pace_rests_when_it_does_not_help),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "common/ds/wheel.h"

#include "tests/unit/unit.h"

#include <stdlib.h>

#define MANY 500u

struct fixture {
	struct wheel wheel;
	struct wheel_timer timers[MANY];
	struct wheel_timer *fired[4 * MANY];
	unsigned count;
	uint64_t now_ms;
	struct wheel_timer *rearm;  /* armed again in the past when it fires */
	struct wheel_timer *victim; /* cancelled by whichever fires */
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	f->now_ms = 1000003;
	wheel_init(&f->wheel, 8, 10, f->now_ms);
	for (unsigned i = 0; i < MANY; i++)
		wheel_timer_init(&f->timers[i]);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < MANY; i++)
		wheel_cancel(&f->timers[i]);
	wheel_fini(&f->wheel);
	free(f);
	return 0;
}

static void on_fire(void *ctx, struct wheel_timer *timer)
{
	struct fixture *f = ctx;

	assert_true(list_empty(&timer->slot)); /* disarmed before */
	assert_true(timer->deadline_ms <= f->now_ms);
	f->fired[f->count++] = timer;
	if (timer == f->rearm)
		wheel_arm(&f->wheel, timer, 1);
	if (f->victim)
		wheel_cancel(f->victim);
}

static unsigned run_at(struct fixture *f, uint64_t now_ms, unsigned max)
{
	f->now_ms = now_ms;
	return wheel_run(&f->wheel, now_ms, max, on_fire, f);
}

static void test_wheel_fires_at_the_deadline_not_before(void **state)
{
	struct fixture *f = *state;

	wheel_arm(&f->wheel, &f->timers[0], 1000025);
	assert_int_equal(run_at(f, 1000020, MANY), 0);
	assert_int_equal(run_at(f, 1000024, MANY), 0);
	assert_int_equal(run_at(f, 1000025, MANY), 1);
	assert_int_equal(run_at(f, 1000026, MANY), 0);
}

static void test_wheel_waits_whole_turns(void **state)
{
	struct fixture *f = *state;

	wheel_arm(&f->wheel, &f->timers[0], 1000003 + 800);
	for (uint64_t now = 1000003; now < 1000803; now += 7)
		assert_int_equal(run_at(f, now, MANY), 0);
	assert_int_equal(run_at(f, 1000803, MANY), 1);
}

static void test_wheel_long_silence_fires_all(void **state)
{
	struct fixture *f = *state;

	for (unsigned i = 0; i < MANY; i++)
		wheel_arm(&f->wheel, &f->timers[i], 1000003 + i * 3);
	wheel_arm(&f->wheel, &f->timers[7], 9000001);
	assert_int_equal(run_at(f, 9000000, MANY), MANY - 1);
	assert_int_equal(run_at(f, 9000001, MANY), 1);
	assert_ptr_equal(f->fired[MANY - 1], &f->timers[7]);
}

static void test_wheel_past_deadline_fires_in_the_next_run(void **state)
{
	struct fixture *f = *state;

	wheel_arm(&f->wheel, &f->timers[0], 5);
	assert_int_equal(run_at(f, 1000003, MANY), 1);
	/* Also when armed while firing: the next run, not this one. */
	f->rearm = &f->timers[1];
	wheel_arm(&f->wheel, &f->timers[1], 1000010);
	assert_int_equal(run_at(f, 1000500, MANY), 1);
	f->rearm = NULL;
	assert_int_equal(run_at(f, 1000500, MANY), 1);
	assert_int_equal(run_at(f, 1000500, MANY), 0);
}

static void test_wheel_cancel_and_rearm(void **state)
{
	struct fixture *f = *state;

	wheel_arm(&f->wheel, &f->timers[0], 1000010);
	wheel_arm(&f->wheel, &f->timers[1], 1000010);
	wheel_arm(&f->wheel, &f->timers[1], 1000060);
	wheel_cancel(&f->timers[0]);
	wheel_cancel(&f->timers[0]);
	assert_int_equal(run_at(f, 1000050, MANY), 0);
	assert_int_equal(run_at(f, 1000060, MANY), 1);
	assert_ptr_equal(f->fired[0], &f->timers[1]);
}

static void test_wheel_callback_may_cancel_one_that_is_due(void **state)
{
	struct fixture *f = *state;

	wheel_arm(&f->wheel, &f->timers[0], 1000010);
	wheel_arm(&f->wheel, &f->timers[1], 1000010);
	f->victim = &f->timers[1];
	assert_int_equal(run_at(f, 1000020, MANY), 1);
	assert_ptr_equal(f->fired[0], &f->timers[0]);
}

static void test_wheel_max_leaves_the_rest_to_later_runs(void **state)
{
	struct fixture *f = *state;
	unsigned runs = 0, fired = 0;

	for (unsigned i = 0; i < MANY; i++)
		wheel_arm(&f->wheel, &f->timers[i], 1000003 + i);
	while (fired < MANY) {
		unsigned n = run_at(f, 1010000 + runs * 100, 64);

		assert_true(n > 0 && n <= 64);
		fired += n;
		runs++;
	}
	assert_int_equal(runs, (MANY + 63) / 64);
}

static void test_wheel_agrees_with_a_plain_list(void **state)
{
	struct fixture *f = *state;
	uint64_t due[MANY] = {0};
	unsigned seed = 1;

	for (unsigned step = 0; step < 3000; step++) {
		unsigned i = (unsigned)rand_r(&seed) % MANY;
		uint64_t now = f->now_ms + (unsigned)rand_r(&seed) % 30;
		unsigned expected = 0;

		due[i] = f->now_ms + (unsigned)rand_r(&seed) % 400;
		wheel_arm(&f->wheel, &f->timers[i], due[i]);
		for (unsigned k = 0; k < MANY; k++) {
			if (due[k] && due[k] <= now) {
				due[k] = 0;
				expected++;
			}
		}
		f->count = 0;
		assert_int_equal(run_at(f, now, MANY), expected);
	}
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_wheel_fires_at_the_deadline_not_before),
		CASE(test_wheel_waits_whole_turns),
		CASE(test_wheel_long_silence_fires_all),
		CASE(test_wheel_past_deadline_fires_in_the_next_run),
		CASE(test_wheel_cancel_and_rearm),
		CASE(test_wheel_callback_may_cancel_one_that_is_due),
		CASE(test_wheel_max_leaves_the_rest_to_later_runs),
		CASE(test_wheel_agrees_with_a_plain_list),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* loop_fixture.h - a libuv loop for a unit test, and bounded waiting.
 *
 * Tests wait for conditions, never for time: loop_until(f, condition) turns the
 * loop until the condition holds and fails the test when it has not come true
 * within LOOP_WAIT_MS. Tear-down turns the loop until every handle is closed
 * and requires uv_loop_close() == 0: what a module forgot to close fails it.
 */
#ifndef STENTOR_TESTS_LOOP_FIXTURE_H
#define STENTOR_TESTS_LOOP_FIXTURE_H

#include "common/base/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>
#include <uv.h>

#define LOOP_WAIT_MS 30000

/* The loop wakes this often, for conditions that no event of it tells. */
#define LOOP_TICK_MS 2

struct loop_fixture {
	uv_loop_t loop;
	uv_timer_t guard;
	uint64_t deadline_ms;
	bool expired;
};

static inline void loop_on_guard(uv_timer_t *guard)
{
	struct loop_fixture *f = (struct loop_fixture *)guard->data;

	f->expired = uv_now(&f->loop) >= f->deadline_ms;
}

static inline void loop_guard_start(struct loop_fixture *f, uint64_t ms)
{
	f->expired = false;
	uv_update_time(&f->loop);
	f->deadline_ms = uv_now(&f->loop) + ms;
	assert_int_equal(uv_timer_start(&f->guard, loop_on_guard, LOOP_TICK_MS,
					LOOP_TICK_MS),
			 0);
}

/* The condition is evaluated once a turn and not again once it held. */
#define loop_until(f, condition)                                \
	do {                                                    \
		bool held_;                                     \
                                                                \
		loop_guard_start((f), LOOP_WAIT_MS);            \
		while (!(held_ = (condition)) && !(f)->expired) \
			uv_run(&(f)->loop, UV_RUN_ONCE);        \
		uv_timer_stop(&(f)->guard);                     \
		if (!held_)                                     \
			fail_msg("not in time: " #condition);   \
	} while (0)

static inline void loop_run_until(struct loop_fixture *f, const bool *done)
{
	loop_until(f, *done);
}

static inline int loop_setup(void **state)
{
	struct loop_fixture *f = calloc(1, sizeof(*f));

	if (f == NULL || uv_loop_init(&f->loop) != 0 ||
	    uv_timer_init(&f->loop, &f->guard) != 0)
		return -1;
	f->guard.data = f;
	*state = f;
	return 0;
}

/* Turns the loop until all has been closed: for handles in a test's own frame.
 * False when something is still open after LOOP_WAIT_MS. */
static inline bool loop_drain(struct loop_fixture *f)
{
	bool alive;

	loop_guard_start(f, LOOP_WAIT_MS);
	uv_unref((uv_handle_t *)&f->guard);
	while ((alive = uv_loop_alive(&f->loop)) && !f->expired)
		uv_run(&f->loop, UV_RUN_ONCE);
	uv_ref((uv_handle_t *)&f->guard);
	uv_timer_stop(&f->guard);
	return !alive;
}

static inline int loop_teardown(void **state)
{
	struct loop_fixture *f = *state;
	bool drained = loop_drain(f);

	uv_close((uv_handle_t *)&f->guard, NULL);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	if (!drained || uv_loop_close(&f->loop) != 0) {
		uv_print_all_handles(&f->loop, stderr);
		return -1;
	}
	free(f);
	return 0;
}

#endif

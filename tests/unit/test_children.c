/* This program is its own child: with a role in argv it says what it is given
 * on descriptor 3 (a pipe of the test) and does what the role says. */
#include "common/io/children.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "tests/unit/loop_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define REPORT_FD 3
#define CHILDREN  3

struct report {
	pid_t pid;
	char event; /* 's' started, 'o' orphaned */
	unsigned index;
};

static void report(char event, unsigned index)
{
	const struct report r = {getpid(), event, index};

	check(write(REPORT_FD, &r, sizeof(r)) == sizeof(r));
}

/* --- the children ------------------------------------------------------ */

static void on_orphaned(struct parent_watch *w)
{
	report('o', *(unsigned *)w->ctx);
	uv_close((uv_handle_t *)&w->pipe, NULL);
}

static int child_main(const char *role, unsigned index)
{
	struct parent_watch watch;
	uv_loop_t loop;

	report('s', index);
	if (strcmp(role, "fail") == 0)
		return 3;
	check(uv_loop_init(&loop) == 0);
	check(child_watch_parent(&loop, &watch, on_orphaned, &index) == 0);
	uv_run(&loop, UV_RUN_DEFAULT);
	return uv_loop_close(&loop);
}

/* --- the supervisor ---------------------------------------------------- */

struct boss {
	struct children *children;
	char *role;
	int pipe[2];
	char index[CHILDREN][4];
	char *argv[CHILDREN][4];
	unsigned exits;
	int64_t last_status;
	int last_signal;
	bool stopped;
	/* what the children reported */
	unsigned started[CHILDREN];
	pid_t pid[CHILDREN];
	unsigned orphaned;
};

static int prepare(void *ctx, unsigned index, char ***argv, int fds[4])
{
	struct boss *b = ctx;

	snprintf(b->index[index], sizeof(b->index[index]), "%u", index);
	b->argv[index][0] = "child";
	b->argv[index][1] = b->role;
	b->argv[index][2] = b->index[index];
	*argv = b->argv[index];
	fds[0] = b->pipe[1];
	return 1;
}

static void on_exit_cb(void *ctx, unsigned index, int64_t status, int signal)
{
	struct boss *b = ctx;

	assert_true(index < CHILDREN);
	b->exits++;
	b->last_status = status;
	b->last_signal = signal;
}

static void on_stopped(void *ctx)
{
	struct boss *b = ctx;

	b->stopped = true;
	children_free(b->children);
}

static const struct children_ops ops = {prepare, on_exit_cb, on_stopped};

static void boss_init(struct boss *b, char *role)
{
	memset(b, 0, sizeof(*b));
	b->role = role;
	assert_int_equal(pipe2(b->pipe, O_CLOEXEC), 0);
	assert_int_equal(fcntl(b->pipe[0], F_SETFL, O_NONBLOCK), 0);
}

static void boss_fini(struct boss *b)
{
	close(b->pipe[0]);
	close(b->pipe[1]);
}

static unsigned boss_read(struct boss *b)
{
	struct report r;
	unsigned total = 0;

	while (read(b->pipe[0], &r, sizeof(r)) == sizeof(r)) {
		check(r.index < CHILDREN);
		if (r.event == 's') {
			b->started[r.index]++;
			b->pid[r.index] = r.pid;
		} else {
			b->orphaned++;
		}
	}
	for (unsigned i = 0; i < CHILDREN; i++)
		total += b->started[i];
	return total;
}

static void boss_stop(struct loop_fixture *f, struct boss *b, int signal)
{
	children_stop(b->children);
	if (signal != 0)
		children_signal(b->children, signal);
	loop_run_until(f, &b->stopped);
	boss_fini(b);
}

static void test_children_start_and_stop(void **state)
{
	struct loop_fixture *f = *state;
	struct boss b;

	boss_init(&b, "live");
	assert_int_equal(
		children_start(&f->loop, CHILDREN, &ops, &b, &b.children), 0);
	loop_until(f, boss_read(&b) == CHILDREN);
	for (unsigned i = 0; i < CHILDREN; i++) {
		assert_int_equal(b.started[i], 1);
		assert_int_equal(b.pid[i], children_pid(b.children, i));
	}
	assert_int_equal(children_restarts(b.children), 0);
	boss_stop(f, &b, SIGTERM);
	assert_int_equal(b.exits, CHILDREN);
	assert_int_equal(b.last_signal, SIGTERM);
}

static void test_children_restart_one_that_is_killed(void **state)
{
	struct loop_fixture *f = *state;
	struct boss b;
	pid_t first;
	uint64_t killed_ms;

	boss_init(&b, "live");
	assert_int_equal(
		children_start(&f->loop, CHILDREN, &ops, &b, &b.children), 0);
	loop_until(f, boss_read(&b) == CHILDREN);
	first = children_pid(b.children, 1);
	killed_ms = clock_monotonic_ms();
	assert_int_equal(kill(first, SIGKILL), 0);
	loop_until(f, b.exits == 1);
	assert_int_equal(b.last_signal, SIGKILL);
	assert_int_equal(children_pid(b.children, 1), 0);
	loop_until(f, boss_read(&b) == CHILDREN + 1);
	assert_true(clock_monotonic_ms() - killed_ms >=
		    CHILDREN_BACKOFF_MIN_MS);
	assert_int_equal(b.started[1], 2);
	assert_int_not_equal(children_pid(b.children, 1), first);
	assert_int_equal(children_restarts(b.children), 1);
	boss_stop(f, &b, SIGKILL);
}

static void test_children_back_off_when_one_keeps_failing(void **state)
{
	struct loop_fixture *f = *state;
	struct boss b;
	uint64_t begin_ms = clock_monotonic_ms();

	boss_init(&b, "fail");
	assert_int_equal(children_start(&f->loop, 1, &ops, &b, &b.children), 0);
	loop_until(f, boss_read(&b) == 3 && b.exits == 3);
	assert_int_equal(b.last_status, 3);
	assert_int_equal(b.last_signal, 0);
	assert_true(clock_monotonic_ms() - begin_ms >=
		    3 * CHILDREN_BACKOFF_MIN_MS);
	/* Stopped while it waits for its next start. */
	boss_stop(f, &b, 0);
	assert_int_equal(b.exits, 3);
}

/* A supervisor that is killed: a middle process, with children of its own, that
 * reports through the same pipe. */
static void test_children_see_the_supervisor_die(void **state)
{
	struct loop_fixture *f = *state;
	struct boss b;
	pid_t supervisor;
	int status;

	boss_init(&b, "live");
	supervisor = fork();
	if (supervisor == 0) {
		dup2(b.pipe[1], REPORT_FD);
		execl("/proc/self/exe", "supervisor", (char *)NULL);
		_exit(127);
	}
	loop_until(f, boss_read(&b) == CHILDREN);
	assert_int_equal(b.orphaned, 0);
	assert_int_equal(kill(supervisor, SIGKILL), 0);
	assert_int_equal(waitpid(supervisor, &status, 0), supervisor);
	loop_until(f, (boss_read(&b), b.orphaned == CHILDREN));
	boss_fini(&b);
}

static int supervisor_main(void)
{
	struct boss b = {.role = "live", .pipe = {-1, REPORT_FD}};
	uv_loop_t loop;

	check(uv_loop_init(&loop) == 0);
	check(children_start(&loop, CHILDREN, &ops, &b, &b.children) == 0);
	return uv_run(&loop, UV_RUN_DEFAULT);
}

static void test_child_watch_parent_wants_a_pipe(void **state)
{
	struct loop_fixture *f = *state;
	struct parent_watch watch;
	int saved = dup(STDIN_FILENO), null = open("/dev/null", O_RDONLY);

	assert_true(null >= 0);
	dup2(null, STDIN_FILENO);
	assert_int_equal(
		child_watch_parent(&f->loop, &watch, on_orphaned, NULL),
		ERR_UNSUPPORTED);
	close(null);
	if (saved >= 0) {
		dup2(saved, STDIN_FILENO);
		close(saved);
	}
}

int main(int argc, char **argv)
{
#define T(name) cmocka_unit_test_setup_teardown(name, loop_setup, loop_teardown)
	const struct CMUnitTest tests[] = {
		T(test_children_start_and_stop),
		T(test_children_restart_one_that_is_killed),
		T(test_children_back_off_when_one_keeps_failing),
		T(test_children_see_the_supervisor_die),
		T(test_child_watch_parent_wants_a_pipe),
	};

	if (argc > 2 && strcmp(argv[0], "child") == 0)
		return child_main(argv[1], (unsigned)atoi(argv[2]));
	if (strcmp(argv[0], "supervisor") == 0)
		return supervisor_main();
	return cmocka_run_group_tests(tests, NULL, NULL);
}

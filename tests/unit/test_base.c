/* The small modules of base: err, check, mem, clock. */
#include "common/base/check.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void test_err_codes_have_names_and_texts(void **state)
{
	static const int codes[] = {
#define X(name, code, text) name,
		ERR_MAP(X)
#undef X
	};

	(void)state;
	for (size_t i = 0; i < array_len(codes); i++) {
		assert_true(codes[i] < 0);
		assert_int_equal(strncmp(err_name(codes[i]), "ERR_", 4), 0);
		assert_true(strlen(err_text(codes[i])) > 1);
		for (size_t k = 0; k < i; k++)
			assert_int_not_equal(codes[i], codes[k]);
	}
	assert_string_equal(err_name(ERR_GAP), "ERR_GAP");
	assert_string_equal(err_name(0), "OK");
	assert_string_equal(err_name(-9999), "?");
	assert_string_equal(err_text(1), "?");
}

static void test_err_from_errno(void **state)
{
	(void)state;
	assert_int_equal(err_from_errno(0), 0);
	assert_int_equal(err_from_errno(EAGAIN), ERR_AGAIN);
	assert_int_equal(err_from_errno(ECONNRESET), ERR_CLOSED);
	assert_int_equal(err_from_errno(EMFILE), ERR_FULL);
	assert_int_equal(err_from_errno(EADDRINUSE), ERR_ADDRESS);
	assert_int_equal(err_from_errno(EXDEV), ERR_IO);
}

/* Runs `crash` in a child; what it said on stderr. It must have aborted. */
static void run_to_abort(void (*crash)(void), char *text, size_t size)
{
	ssize_t len;
	int gate[2], status;
	pid_t child;

	assert_int_equal(pipe(gate), 0);
	child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct rlimit no_core = {0, 0};

		setrlimit(RLIMIT_CORE, &no_core);
		signal(SIGABRT, SIG_DFL);
		dup2(gate[1], STDERR_FILENO);
		crash();
		_exit(0);
	}
	close(gate[1]);
	len = read(gate[0], text, size - 1);
	assert_true(len >= 0);
	text[len] = '\0';
	close(gate[0]);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGABRT);
}

static void fail_a_check(void)
{
	int one = 1;

	check(one == 2);
}

static void test_check_failed_says_what_and_aborts(void **state)
{
	char text[1024];

	(void)state;
	run_to_abort(fail_a_check, text, sizeof(text));
	assert_non_null(strstr(text, "\"id\":\"CHECK-FAILED\""));
	assert_non_null(strstr(text, "\"msg\":\"one == 2\""));
	assert_non_null(strstr(text, "test_base.c:"));
	assert_non_null(strstr(text, "\"in\":\"fail_a_check\""));
}

static void ask_for_too_much(void)
{
	struct rlimit limit = {1 << 20, 1 << 20};

	setrlimit(RLIMIT_AS, &limit);
	free(xmalloc((size_t)1 << 40));
}

static void test_mem_ends_the_process_where_memory_ends(void **state)
{
	char text[1024];

	(void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	skip(); /* its allocator has limits and messages of its own */
#endif
	run_to_abort(ask_for_too_much, text, sizeof(text));
	assert_non_null(strstr(text, "CHECK-FAILED"));
}

static void test_mem_never_gives_null(void **state)
{
	char *text = xmemdupz("abc", 2), *empty = xmemdupz(NULL, 0);
	char *zeroed = xcalloc(0, 8);

	(void)state;
	assert_string_equal(text, "ab");
	assert_string_equal(empty, "");
	text = xrealloc(text, 0);
	free(text);
	free(empty);
	free(zeroed);
	text = xstrdup("copy");
	assert_string_equal(text, "copy");
	free(text);
}

static void test_clock_units_agree(void **state)
{
	uint64_t ms = clock_monotonic_ms(), ns = clock_monotonic_ns();
	uint64_t wall_ms = clock_wall_ms(), wall_us = clock_wall_us();

	(void)state;
	assert_true(ns / 1000000 >= ms && ns / 1000000 < ms + 10000);
	assert_true(clock_monotonic_ns() >= ns);
	assert_true(wall_us / 1000 >= wall_ms &&
		    wall_us / 1000 < wall_ms + 10000);
	assert_true(wall_ms / 1000 <= (uint64_t)time(NULL));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_err_codes_have_names_and_texts),
		cmocka_unit_test(test_err_from_errno),
		cmocka_unit_test(test_check_failed_says_what_and_aborts),
		cmocka_unit_test(test_mem_ends_the_process_where_memory_ends),
		cmocka_unit_test(test_mem_never_gives_null),
		cmocka_unit_test(test_clock_units_agree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

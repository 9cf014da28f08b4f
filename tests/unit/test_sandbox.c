/* Each case in a process of its own: there is no way out of a sandbox. */
#include "common/io/sandbox.h"

#include "common/base/log.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char directory[64], store[80];

/* The child's exit status: the line that failed, or 0. */
#define want(fact)                              \
	do {                                    \
		if (!(fact))                    \
			_exit(__LINE__ & 0xff); \
	} while (0)

static void run(void (*in_child)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		log_init("test", LOG_ERROR, false);
		in_child();
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static bool can_make(const char *path)
{
	int fd = open(path, O_WRONLY | O_CREAT, 0600);

	if (fd < 0)
		return false;
	close(fd);
	unlink(path);
	return true;
}

static void nothing_left(void)
{
	struct rlimit core;

	sandbox_enter(false, NULL);
	want(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1);
	want(getrlimit(RLIMIT_CORE, &core) == 0);
#ifndef __SANITIZE_ADDRESS__
	want(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0);
	want(core.rlim_cur == 0);
	want(core.rlim_max == 0);
#endif
}

static void dumps_wanted(void)
{
	struct rlimit before, after;

	want(getrlimit(RLIMIT_CORE, &before) == 0);
	sandbox_enter(true, NULL);
	want(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 1);
	want(getrlimit(RLIMIT_CORE, &after) == 0);
	want(after.rlim_cur == before.rlim_cur);
}

static void files_read_only(void)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "%s/file", directory);
	want(can_make(path));
	sandbox_enter(false, NULL);
	want(!can_make(path));
	want(errno == EACCES);
	want(mkdir(store, 0700) != 0);
	/* What is open already stays so, and reading is free. */
	fd = open("/proc/self/stat", O_RDONLY);
	want(fd >= 0);
	fd = open("/dev/null", O_RDWR);
	want(fd >= 0);
	want(write(fd, "x", 1) == 1);
}

/* As a store does: files are made, grow, are cut and deleted. */
static void store_writable(void)
{
	char path[128];
	int fd;

	sandbox_enter(false, store);
	snprintf(path, sizeof(path), "%s/file", directory);
	want(!can_make(path));
	snprintf(path, sizeof(path), "%s/data.mdb", store);
	fd = open(path, O_RDWR | O_CREAT, 0600);
	want(fd >= 0);
	want(write(fd, "data", 4) == 4);
	want(ftruncate(fd, 1) == 0);
	want(truncate(path, 0) == 0);
	want(unlink(path) == 0);
}

static void test_sandbox_keeps_memory_to_itself(void **state UNUSED)
{
	run(nothing_left);
}

static void test_sandbox_dumps_core_when_asked(void **state UNUSED)
{
	run(dumps_wanted);
}

static void need_landlock(void)
{
	if (syscall(SYS_landlock_create_ruleset, NULL, 0,
		    LANDLOCK_CREATE_RULESET_VERSION) < 1)
		skip();
}

static void test_sandbox_makes_files_read_only(void **state UNUSED)
{
	need_landlock();
	run(files_read_only);
}

static void test_sandbox_lets_the_store_write(void **state UNUSED)
{
	need_landlock();
	run(store_writable);
}

static int set_up(void **state UNUSED)
{
	strcpy(directory, "/tmp/stentor-sandbox-XXXXXX");
	if (mkdtemp(directory) == NULL)
		return -1;
	snprintf(store, sizeof(store), "%s/store", directory);
	return 0;
}

static int tear_down(void **state UNUSED)
{
	rmdir(store);
	return rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sandbox_keeps_memory_to_itself),
		cmocka_unit_test(test_sandbox_dumps_core_when_asked),
		cmocka_unit_test(test_sandbox_makes_files_read_only),
		cmocka_unit_test(test_sandbox_lets_the_store_write),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}

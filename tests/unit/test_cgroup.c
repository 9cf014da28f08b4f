#include "common/base/cgroup.h"

#include "tests/unit/unit.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static void put_in(const char *root, const char *dir, const char *file,
		   const char *limit)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof(path), "%s%s", root, dir);
	mkdir(path, 0700);
	snprintf(path, sizeof(path), "%s%s/%s", root, dir, file);
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "%s\n", limit);
	fclose(f);
}

static void put(const char *root, const char *dir, const char *limit)
{
	put_in(root, dir, "memory.max", limit);
}

static void drop(const char *root, const char *dir)
{
	char path[256];

	snprintf(path, sizeof(path), "%s%s/cpu.max", root, dir);
	unlink(path);

	snprintf(path, sizeof(path), "%s%s/memory.max", root, dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s%s", root, dir);
	rmdir(path);
}

/* The least of all levels, wherever it stands. */
static void test_cgroup_memory(void **state)
{
	char root[] = "/tmp/stentor-cgroup-XXXXXX";

	(void)state;
	assert_non_null(mkdtemp(root));
	assert_true(cgroup_memory_max_at(root, "/a/b") == UINT64_MAX);
	put(root, "/a", "max");
	put(root, "/a/b", "max");
	assert_true(cgroup_memory_max_at(root, "/a/b") == UINT64_MAX);
	put(root, "/a/b", "4000");
	assert_int_equal(cgroup_memory_max_at(root, "/a/b"), 4000);
	assert_true(cgroup_memory_max_at(root, "/a") == UINT64_MAX);
	put(root, "/a", "3000");
	assert_int_equal(cgroup_memory_max_at(root, "/a/b"), 3000);
	put(root, "", "2000"); /* in a container the root is its own */
	assert_int_equal(cgroup_memory_max_at(root, "/a/b"), 2000);
	assert_int_equal(cgroup_memory_max_at(root, "/"), 2000);
	assert_int_equal(cgroup_memory_max_at(root, "/not/there"), 2000);
	drop(root, "/a/b");
	drop(root, "/a");
	drop(root, "");
	assert_in_range(cgroup_memory_max(), 1 << 20, UINT64_MAX / 2);
}

static void test_cgroup_cores(void **state)
{
	char root[] = "/tmp/stentor-cgroup-XXXXXX";

	(void)state;
	assert_non_null(mkdtemp(root));
	assert_true(isinf(cgroup_cores_at(root, "/a/b")));
	put_in(root, "/a", "cpu.max", "max 100000");
	put_in(root, "/a/b", "cpu.max", "max 100000");
	assert_true(isinf(cgroup_cores_at(root, "/a/b")));
	put_in(root, "/a/b", "cpu.max", "400000 100000");
	assert_true(cgroup_cores_at(root, "/a/b") == 4);
	assert_true(isinf(cgroup_cores_at(root, "/a")));
	put_in(root, "/a", "cpu.max", "150000 100000");
	assert_true(cgroup_cores_at(root, "/a/b") == 1.5);
	put_in(root, "", "cpu.max", "50000 100000");
	assert_true(cgroup_cores_at(root, "/a/b") == 0.5);
	put_in(root, "", "cpu.max", "nonsense");
	assert_true(cgroup_cores_at(root, "/a/b") == 1.5);
	assert_true(isinf(cgroup_cores_at(root, "/not/there")));
	drop(root, "/a/b");
	drop(root, "/a");
	drop(root, "");
	assert_true(cgroup_cores() > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cgroup_memory),
		cmocka_unit_test(test_cgroup_cores),
	};

	return cmocka_run_group_tests_name("cgroup", tests, NULL, NULL);
}

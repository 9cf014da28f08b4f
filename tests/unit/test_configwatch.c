#include "common/io/configwatch.h"

#include "common/base/check.h"
#include "tests/unit/loop_fixture.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct fixture {
	struct config_watch watch;
	char directory[32], path[64], other[64];
	unsigned changes;
};

static void write_file(const char *path, const char *text)
{
	FILE *out = fopen(path, "w");

	assert_non_null(out);
	fputs(text, out);
	fclose(out);
}

static void on_changed(void *ctx)
{
	((struct fixture *)ctx)->changes++;
}

static void begin(struct fixture *f, struct loop_fixture *loop)
{
	*f = (struct fixture){.directory = "/tmp/configwatch-XXXXXX"};
	assert_non_null(mkdtemp(f->directory));
	snprintf(f->path, sizeof(f->path), "%s/a", f->directory);
	snprintf(f->other, sizeof(f->other), "%s/b", f->directory);
	write_file(f->path, "a: 1\n");
	config_watch_start(&f->watch, &loop->loop, f->path, on_changed, f);
}

static void end(struct fixture *f, struct loop_fixture *loop)
{
	config_watch_close(&f->watch);
	unlink(f->path);
	unlink(f->other);
	rmdir(f->directory);
	assert_true(loop_drain(loop));
}

static unsigned look(struct fixture *f)
{
	config_watch_look(&f->watch);
	return f->changes;
}

static void test_configwatch_waits_until_it_is_written(void **state)
{
	struct fixture f;

	begin(&f, *state);
	assert_int_equal(look(&f), 0);
	write_file(f.path, "a: 1\nb:\n");
	assert_int_equal(look(&f), 0);
	write_file(f.path, "a: 1\nb: 22\n");
	assert_int_equal(look(&f), 0);
	assert_int_equal(look(&f), 1);
	assert_int_equal(look(&f), 1);
	end(&f, *state);
}

/* As Kubernetes and careful editors do; the size is the same. */
static void test_configwatch_another_file_of_that_name(void **state)
{
	struct fixture f;

	begin(&f, *state);
	write_file(f.other, "a: 2\n");
	assert_int_equal(rename(f.other, f.path), 0);
	look(&f);
	assert_int_equal(look(&f), 1);
	end(&f, *state);
}

static void test_configwatch_gone_and_back(void **state)
{
	struct fixture f;

	begin(&f, *state);
	unlink(f.path);
	look(&f);
	assert_int_equal(look(&f), 1); /* who reads it finds that it is gone */
	write_file(f.path, "a: 1\n");
	look(&f);
	assert_int_equal(look(&f), 2);
	end(&f, *state);
}

static void test_configwatch_by_itself(void **state)
{
	struct loop_fixture *loop = *state;
	struct fixture f;

	begin(&f, loop);
	write_file(f.path, "a: 17\n");
	loop_until(loop, f.changes == 1);
	end(&f, loop);
}

static void test_configwatch_no_file(void **state)
{
	struct loop_fixture *loop = *state;
	struct config_watch none;

	config_watch_start(&none, &loop->loop, NULL, on_changed, NULL);
	config_watch_close(&none);
	assert_true(loop_drain(loop));
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, loop_setup, loop_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_configwatch_waits_until_it_is_written),
		TEST(test_configwatch_another_file_of_that_name),
		TEST(test_configwatch_gone_and_back),
		TEST(test_configwatch_by_itself),
		TEST(test_configwatch_no_file),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

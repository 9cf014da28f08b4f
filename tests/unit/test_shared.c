#include "connnode/shared.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/* Both ends of one page. */
struct fixture {
	struct worker_shared *worker, *supervisor;
	int fd;
	uint64_t taken, lost;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	f->fd = shared_create(&f->supervisor);
	f->worker = shared_attach(f->fd);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	munmap(f->worker, shared_size());
	munmap(f->supervisor, shared_size());
	close(f->fd);
	free(f);
	return 0;
}

static void tell(struct fixture *f, uint64_t n)
{
	struct auth_revocation r = {.before_s = n, .until_s = ~n};

	snprintf(r.sub, sizeof(r.sub), "%llu", (unsigned long long)n);
	shared_revoke(f->worker, &r);
}

/* False if there is none; else the number that it was told with. */
static bool take(struct fixture *f, uint64_t *n)
{
	struct auth_revocation r;

	if (!shared_revoked(f->supervisor, &f->taken, &f->lost, &r))
		return false;
	*n = r.before_s;
	assert_int_equal(strtoull(r.sub, NULL, 10), *n);
	assert_int_equal(r.until_s, ~*n);
	return true;
}

static void test_revocations_come_in_order(void **state)
{
	struct fixture *f = *state;
	uint64_t n;

	assert_false(take(f, &n));
	for (uint64_t i = 0; i < 3; i++)
		tell(f, i);
	for (uint64_t i = 0; i < 3; i++) {
		assert_true(take(f, &n));
		assert_int_equal(n, i);
	}
	assert_false(take(f, &n));
	tell(f, 3);
	assert_true(take(f, &n));
	assert_int_equal(n, 3);
	assert_int_equal(f->lost, 0);
}

static void test_all_that_a_worker_keeps_have_room(void **state)
{
	struct fixture *f = *state;
	uint64_t n;

	for (uint64_t i = 0; i < AUTH_REVOCATIONS_MAX; i++)
		tell(f, i);
	for (uint64_t i = 0; i < AUTH_REVOCATIONS_MAX; i++) {
		assert_true(take(f, &n));
		assert_int_equal(n, i);
	}
	assert_false(take(f, &n));
	assert_int_equal(f->lost, 0);
}

static void test_the_newest_are_kept(void **state)
{
	const uint64_t all = 3 * AUTH_REVOCATIONS_MAX + 7;
	struct fixture *f = *state;
	uint64_t n;

	for (uint64_t i = 0; i < all; i++)
		tell(f, i);
	for (uint64_t i = all - AUTH_REVOCATIONS_MAX; i < all; i++) {
		assert_true(take(f, &n));
		assert_int_equal(n, i);
	}
	assert_false(take(f, &n));
	assert_int_equal(f->lost, all - AUTH_REVOCATIONS_MAX);
}

static uint64_t behind(const struct fixture *f)
{
	return *(volatile uint64_t *)&f->worker->revocations.told - f->taken;
}

/* Taken where the other process is about to write; take() sees that none was
 * torn. */
static void test_told_by_another_process_meanwhile(void **state)
{
	const uint64_t all = 500000;
	struct fixture *f = *state;
	uint64_t n, least = 0, count = 0;
	pid_t child = fork();
	int status;

	check(child >= 0);
	if (child == 0) {
		for (uint64_t i = 0; i < all; i++)
			tell(f, i);
		_exit(0);
	}
	while (f->taken < all) {
		bool last = f->taken + AUTH_REVOCATIONS_MAX > all;

		if ((!last && behind(f) < AUTH_REVOCATIONS_MAX) || !take(f, &n))
			continue;
		assert_true(n >= least);
		least = n + 1;
		count++;
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_int_equal(count + f->lost, all);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_revocations_come_in_order),
		TEST(test_all_that_a_worker_keeps_have_room),
		TEST(test_the_newest_are_kept),
		TEST(test_told_by_another_process_meanwhile),
	};

	return cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}

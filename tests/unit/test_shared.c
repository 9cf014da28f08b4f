#include "connnode/node/shared.h"

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

static struct drain_order give(struct worker_shared *s, uint64_t number,
			       uint64_t seconds, bool drains)
{
	struct drain_order o = {number, seconds, drains};

	shared_give_order(s, &o);
	return shared_order(s);
}

static void test_shared_order_is_the_newest(void **state)
{
	struct fixture *f = *state;
	struct drain_order o = shared_order(f->supervisor);

	assert_true(o.number == 0 && o.seconds == 0 && !o.drains);
	o = give(f->worker, 1800000000000, 86400, true);
	assert_true(o.number == 1800000000000 && o.seconds == 86400 &&
		    o.drains);
	o = give(f->supervisor, 1799999999999, 1, false); /* an older one */
	assert_true(o.number == 1800000000000 && o.seconds == 86400 &&
		    o.drains);
	o = give(f->supervisor, 1800000000001, 0, false);
	assert_true(o.number == 1800000000001 && o.seconds == 0 && !o.drains);
	o = shared_order(f->worker);
	assert_true(o.number == 1800000000001);
	o = give(f->worker, UINT64_MAX, 0, true); /* of nobody's clock */
	assert_true(o.number == 1800000000001);
	o = give(f->worker, 1800000000002, UINT64_MAX, true);
	assert_true(o.seconds == ORDER_SECONDS_MAX && o.drains &&
		    o.number == 1800000000002);
}

/* Two of one moment, in whichever order they come: all follow the same. */
static void test_shared_orders_of_one_moment(void **state)
{
	struct fixture *f = *state;
	struct drain_order first, second;

	give(f->worker, 7, 0, false);
	first = give(f->worker, 7, 60, true);
	memset(f->worker, 0, sizeof(*f->worker));
	give(f->worker, 7, 60, true);
	second = give(f->worker, 7, 0, false);
	assert_true(first.drains && second.drains);
	assert_int_equal(first.seconds, second.seconds);
}

/* Orders that follow one another fast, written from both sides: each that is
 * read is one that was given. */
static void test_shared_orders_do_not_mix(void **state)
{
	struct fixture *f = *state;
	pid_t pid = fork();

	for (uint64_t n = pid == 0 ? 1 : 2; n < 200000; n += 2)
		give(pid == 0 ? f->worker : f->supervisor, n, n % 1000, n % 3);
	if (pid == 0)
		_exit(0);
	for (unsigned i = 0; i < 200000; i++) {
		struct drain_order o = shared_order(f->supervisor);

		assert_int_equal(o.seconds, o.number % 1000);
		assert_int_equal(o.drains, o.number % 3 != 0);
	}
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	assert_int_equal(shared_order(f->supervisor).number, 199999);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_shared_order_is_the_newest),
		TEST(test_shared_orders_of_one_moment),
		TEST(test_shared_orders_do_not_mix),
		TEST(test_revocations_come_in_order),
		TEST(test_all_that_a_worker_keeps_have_room),
		TEST(test_the_newest_are_kept),
		TEST(test_told_by_another_process_meanwhile),
	};

	return cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}

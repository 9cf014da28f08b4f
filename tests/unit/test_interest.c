#include "dispatcher/route/interest.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#define UNLIMITED UINT64_MAX

/* splitmix64: the same numbers in every run. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint64_t key_of(uint64_t number)
{
	return next_random(&number);
}

static void sweep_all(struct interest *t)
{
	while (interest_sweep(t, 7))
		;
}

static void test_interest_pairs(void **state)
{
	struct interest t;
	const uint16_t *workers;

	(void)state;
	interest_init(&t, UNLIMITED);
	assert_int_equal(interest_lookup(&t, 1, &workers), 0);
	assert_false(interest_remove(&t, 1, 0));
	/* Keys 0 and all ones, and the ends of the range of ids. */
	for (int i = 0; i < 2; i++) {
		uint64_t key = i ? UINT64_MAX : 0;

		assert_int_equal(interest_add(&t, key, 4095), 0);
		assert_int_equal(interest_add(&t, key, 4095), ERR_EXISTS);
		assert_int_equal(interest_lookup(&t, key, &workers), 1);
		assert_int_equal(workers[0], 4095);
		assert_int_equal(interest_add(&t, key, 0), 0);
		assert_int_equal(interest_add(&t, key, 0), ERR_EXISTS);
		assert_int_equal(interest_lookup(&t, key, &workers), 2);
		assert_int_equal(workers[0], 0);
		assert_int_equal(workers[1], 4095);
	}
	assert_int_equal(interest_entries(&t), 4);
	assert_int_equal(interest_worker_entries(&t, 4095), 2);
	assert_false(interest_remove(&t, 0, 7));
	assert_true(interest_remove(&t, 0, 0));
	assert_true(interest_remove(&t, 0, 4095));
	assert_int_equal(interest_lookup(&t, 0, &workers), 0);
	assert_int_equal(interest_entries(&t), 2);
	interest_fini(&t);
}

static void test_interest_set_grows_and_shrinks(void **state)
{
	struct interest t;
	const uint16_t *workers;
	size_t empty;

	(void)state;
	interest_init(&t, UNLIMITED);
	assert_int_equal(interest_add(&t, 5, 0), 0);
	empty = interest_bytes(&t);
	/* 1237 is prime to 4096, so this visits each id once, out of order. */
	for (unsigned i = 1; i < INTEREST_WORKERS_MAX; i++) {
		uint16_t worker = (uint16_t)(i * 1237 % INTEREST_WORKERS_MAX);

		assert_int_equal(interest_add(&t, 5, worker), 0);
		assert_int_equal(interest_add(&t, 5, worker), ERR_EXISTS);
		assert_int_equal(interest_lookup(&t, 5, &workers), i + 1);
	}
	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++)
		assert_int_equal(workers[i], i);
	for (uint16_t i = 0; i < INTEREST_WORKERS_MAX - 1; i++) {
		assert_true(interest_remove(&t, 5, i));
		assert_false(interest_remove(&t, 5, i));
	}
	assert_int_equal(interest_lookup(&t, 5, &workers), 1);
	assert_int_equal(workers[0], INTEREST_WORKERS_MAX - 1);
	assert_in_range(interest_bytes(&t), empty, empty + 1024);
	interest_fini(&t);
}

static void test_interest_full(void **state)
{
	struct interest t;

	(void)state;
	interest_init(&t, 2);
	assert_int_equal(interest_add(&t, 1, 1), 0);
	assert_int_equal(interest_add(&t, 2, 1), 0);
	assert_int_equal(interest_add(&t, 1, 2), ERR_FULL);
	assert_int_equal(interest_add(&t, 3, 1), ERR_FULL);
	assert_int_equal(interest_entries(&t), 2);
	assert_true(interest_remove(&t, 1, 1));
	assert_int_equal(interest_add(&t, 3, 1), 0);
	interest_fini(&t);
}

/* What waits to be swept gives way before anybody is told that it is full. */
static void test_interest_make_room(void **state)
{
	struct interest t;
	const uint16_t *workers;

	(void)state;
	interest_init(&t, 1000);
	for (unsigned i = 0; i < 1000; i++)
		assert_int_equal(interest_add(&t, key_of(i), i < 600 ? 1 : 2),
				 0);
	assert_int_equal(interest_add(&t, key_of(1000), 3), ERR_FULL);
	assert_false(interest_make_room(&t));
	interest_drop_worker(&t, 1);
	for (unsigned i = 0; i < 600; i++) {
		if (interest_add(&t, key_of(i), 3) == ERR_FULL) {
			assert_true(interest_make_room(&t));
			assert_int_equal(interest_add(&t, key_of(i), 3), 0);
		}
	}
	assert_false(interest_make_room(&t));
	for (unsigned i = 0; i < 1000; i++) {
		assert_int_equal(interest_lookup(&t, key_of(i), &workers), 1);
		assert_int_equal(workers[0], i < 600 ? 3 : 2);
	}
	interest_fini(&t);
}

static void assert_workers(const struct interest *t, uint64_t key, size_t count,
			   const uint16_t *expected)
{
	const uint16_t *workers;

	assert_int_equal(interest_lookup(t, key, &workers), count);
	if (count > 0)
		assert_memory_equal(workers, expected,
				    count * sizeof(*expected));
}

static void test_interest_wants_all(void **state)
{
	struct interest t;

	(void)state;
	interest_init(&t, 1000);
	for (uint16_t i = 10; i < 15; i++)
		assert_int_equal(interest_add(&t, 1, i), 0);
	assert_int_equal(interest_add(&t, 2, 12), 0);
	assert_int_equal(interest_want_all(&t, 12), 0);
	assert_int_equal(interest_want_all(&t, 12), 0); /* again: no change */
	assert_int_equal(interest_want_all(&t, 3), 0);
	/* Once each, in order, also where it had a pair. */
	assert_workers(&t, 1, 6, (uint16_t[]){3, 10, 11, 12, 13, 14});
	assert_workers(&t, 2, 2, (uint16_t[]){3, 12});
	assert_workers(&t, 99, 2, (uint16_t[]){3, 12});
	assert_int_equal(interest_want_all(&t, 90), 0);
	assert_workers(&t, 1, 7, (uint16_t[]){3, 10, 11, 12, 13, 14, 90});
	interest_drop_worker(&t, 90);
	/* Its pairs make room; nothing is kept of it. */
	sweep_all(&t);
	assert_true(interest_worker_clean(&t, 12));
	assert_int_equal(interest_add(&t, 5, 12), 0);
	assert_int_equal(interest_entries(&t), 4);
	assert_false(interest_remove(&t, 5, 12));
	assert_workers(&t, 1, 6, (uint16_t[]){3, 10, 11, 12, 13, 14});
	interest_drop_worker(&t, 3);
	assert_workers(&t, 99, 1, (uint16_t[]){12});
	interest_drop_worker(&t, 12);
	assert_workers(&t, 99, 0, NULL);
	assert_workers(&t, 1, 4, (uint16_t[]){10, 11, 13, 14});
	/* The id is as good as new. */
	assert_int_equal(interest_add(&t, 5, 12), 0);
	assert_workers(&t, 5, 1, (uint16_t[]){12});
	interest_fini(&t);
}

static void test_interest_wants_all_is_bounded(void **state)
{
	struct interest t;
	const uint16_t *workers;

	(void)state;
	interest_init(&t, 1000);
	for (uint16_t i = 0; i < INTEREST_ALL_MAX; i++)
		assert_int_equal(interest_want_all(&t, (uint16_t)(2 * i)), 0);
	assert_int_equal(interest_want_all(&t, 1), ERR_FULL);
	assert_int_equal(interest_lookup(&t, 7, &workers), INTEREST_ALL_MAX);
	interest_drop_worker(&t, 4);
	assert_int_equal(interest_want_all(&t, 1), 0);
	assert_int_equal(interest_lookup(&t, 7, &workers), INTEREST_ALL_MAX);
	assert_int_equal(workers[1], 1);
	interest_fini(&t);
}

static void test_interest_drop(void **state)
{
	struct interest t;
	const uint16_t *workers;

	(void)state;
	interest_init(&t, UNLIMITED);
	for (uint64_t i = 0; i < 2000; i++) {
		for (uint16_t w = 0; w < i % 6; w++)
			assert_int_equal(interest_add(&t, key_of(i), w), 0);
	}
	interest_drop_worker(&t, 1);
	interest_drop_worker(&t, 1);
	interest_drop_worker(&t, 4);
	interest_drop_worker(&t, 99); /* has nothing: clean at once */
	assert_true(interest_worker_clean(&t, 99));
	assert_false(interest_worker_clean(&t, 1));
	assert_int_equal(interest_worker_entries(&t, 1), 0);
	for (int swept = 0; swept < 2; swept++) {
		for (uint64_t i = 0; i < 2000; i++) {
			size_t n = i % 6;

			assert_int_equal(
				interest_lookup(&t, key_of(i), &workers),
				n - (n > 1) - (n > 4));
			if (n > 2)
				assert_int_equal(workers[1], 2);
		}
		assert_true(interest_sweep(&t, 1) == !swept);
		sweep_all(&t);
		assert_true(interest_worker_clean(&t, 1));
		assert_true(interest_worker_clean(&t, 4));
	}
	assert_int_equal(interest_add(&t, key_of(5), 1), 0); /* id used again */
	assert_int_equal(interest_lookup(&t, key_of(5), &workers), 4);
	interest_fini(&t);
}

/* --- against a naive model --------------------------------------------- */

#define KEYS	700
#define WORKERS 40

struct model {
	struct interest t;
	bool has[KEYS][WORKERS];
	bool dropped[WORKERS];
	uint64_t random;
};

static void model_compare(struct model *m)
{
	const uint16_t *workers = NULL;
	uint64_t entries = 0;

	for (unsigned k = 0; k < KEYS; k++) {
		size_t count = interest_lookup(&m->t, key_of(k), &workers);
		size_t at = 0;

		for (uint16_t w = 0; w < WORKERS; w++) {
			if (!m->has[k][w])
				continue;
			assert_true(at < count);
			assert_int_equal(workers[at++], w);
		}
		assert_int_equal(at, count);
		entries += count;
	}
	assert_int_equal(interest_entries(&m->t), entries);
}

static void model_drop(struct model *m, uint16_t w)
{
	interest_drop_worker(&m->t, w);
	m->dropped[w] = !interest_worker_clean(&m->t, w);
	for (unsigned k = 0; k < KEYS; k++)
		m->has[k][w] = false;
}

static void model_step(struct model *m, unsigned adds_of_16)
{
	uint64_t r = next_random(&m->random);
	unsigned k = (unsigned)(r % KEYS);
	uint16_t w = (uint16_t)(r >> 16) % WORKERS;

	/* Squaring makes some keys popular and most of them rare. */
	k = k * k / KEYS;
	if (r >> 52 == 0) {
		model_drop(m, w);
	} else if ((r >> 40 & 31) == 0) {
		interest_sweep(&m->t, 3);
		for (uint16_t i = 0; i < WORKERS; i++)
			m->dropped[i] &= !interest_worker_clean(&m->t, i);
	} else if (m->dropped[w]) {
		assert_int_equal(interest_worker_entries(&m->t, w), 0);
	} else if ((r >> 32 & 15) < adds_of_16) {
		assert_int_equal(interest_add(&m->t, key_of(k), w),
				 m->has[k][w] ? ERR_EXISTS : 0);
		m->has[k][w] = true;
	} else {
		assert_true(interest_remove(&m->t, key_of(k), w) ==
			    m->has[k][w]);
		m->has[k][w] = false;
	}
}

static void test_interest_like_the_model(void **state)
{
	struct model *m = calloc(1, sizeof(*m));

	(void)state;
	interest_init(&m->t, UNLIMITED);
	/* The mixer is random in life; here a failure must come again. */
	m->t.mixer = 0x9e3779b97f4a7c15u;
	m->random = 42;
	for (unsigned phase = 0; phase < 40; phase++) {
		for (unsigned i = 0; i < 5000; i++)
			model_step(m, phase % 2 ? 3 : 12);
		model_compare(m);
	}
	for (uint16_t w = 0; w < WORKERS; w++)
		model_drop(m, w);
	sweep_all(&m->t);
	model_compare(m);
	interest_fini(&m->t);
	free(m);
}

/* With a mixer of 1 the low key bits do not count and homes collide: the runs
 * get long and cross the table's end. */
static void test_interest_long_runs(void **state)
{
	struct interest t;
	const uint16_t *workers;

	(void)state;
	interest_init(&t, UNLIMITED);
	t.mixer = 1;
	for (uint64_t i = 0; i < 600; i++) {
		uint64_t home = i % 3 ? 0x00ffffffff000000u : 0;

		assert_int_equal(interest_add(&t, home | i, (uint16_t)i % 5),
				 0);
	}
	interest_drop_worker(&t, 2);
	sweep_all(&t);
	for (uint64_t i = 0; i < 600; i++) {
		uint64_t home = i % 3 ? 0x00ffffffff000000u : 0;
		uint16_t worker = (uint16_t)i % 5;

		assert_int_equal(interest_lookup(&t, home | i, &workers),
				 worker != 2);
		if (worker == 2)
			continue;
		assert_int_equal(workers[0], worker);
		assert_true(interest_remove(&t, home | i, worker));
	}
	assert_int_equal(interest_entries(&t), 0);
	interest_fini(&t);
}

/* --- size -------------------------------------------------------------- */

#define PAIRS	   1000000u
#define BYTES_MAX  24
#define PAIRS_FROM 100000u

static void assert_small(const struct interest *t, double *worst)
{
	double each = (double)interest_bytes(t) / (double)interest_entries(t);

	*worst = max_of(*worst, each);
	assert_true(each <= BYTES_MAX);
}

/* `spread` workers for each channel, up and down again. */
static void grow_and_shrink(unsigned pairs, unsigned spread)
{
	struct interest t;
	double worst = 0, full;
	uint64_t took, slowest = 0;
	unsigned slow = 0;

	interest_init(&t, UNLIMITED);
	for (unsigned i = 0; i < pairs; i++) {
		uint16_t worker = (uint16_t)(i % spread * 11);
		uint64_t start = clock_monotonic_ns();

		assert_int_equal(interest_add(&t, key_of(i / spread), worker),
				 0);
		took = clock_monotonic_ns() - start;
		slowest = max_of(slowest, took);
		slow += took > 1000000;
		if (i >= PAIRS_FROM && i % 997 == 0)
			assert_small(&t, &worst);
	}
	full = (double)interest_bytes(&t) / pairs;
	for (unsigned i = 0; i < pairs - PAIRS_FROM; i++) {
		uint16_t worker = (uint16_t)(i % spread * 11);

		assert_true(interest_remove(&t, key_of(i / spread), worker));
		if (i % 997 == 0)
			assert_small(&t, &worst);
	}
	/* A busy machine may take the processor away in the middle of an add,
	 * so this is for people to judge. */
	print_message("%u pairs, %u a channel: %.1f bytes each, %.1f at worst; "
		      "slowest add %.0f us, %u over 1 ms\n",
		      pairs, spread, full, worst, (double)slowest / 1e3, slow);
	interest_fini(&t);
}

static void test_interest_is_small(void **state)
{
	(void)state;
	grow_and_shrink(PAIRS, 1);
	grow_and_shrink(PAIRS / 4, 2);
	grow_and_shrink(PAIRS / 4, 3);
	grow_and_shrink(PAIRS / 4, 100);
}

/* Losing one worker of eighty, as when a node dies. */
static void test_interest_sweep_in_pieces(void **state)
{
	struct interest t;
	const uint16_t *workers;
	uint64_t slowest = 0, start, found = 0;
	bool more = true;

	(void)state;
	interest_init(&t, UNLIMITED);
	for (unsigned i = 0; i < PAIRS; i++)
		assert_int_equal(
			interest_add(&t, key_of(i), (uint16_t)(i % 80)), 0);
	start = clock_monotonic_ns();
	for (unsigned i = 0; i < PAIRS; i++)
		found += interest_lookup(&t, key_of(i * 7), &workers);
	print_message("a lookup, one in seven found: %lu ns\n",
		      (unsigned long)((clock_monotonic_ns() - start) / PAIRS));
	assert_int_equal(found, (PAIRS + 6) / 7);
	interest_drop_worker(&t, 3);
	assert_int_equal(interest_entries(&t), PAIRS - PAIRS / 80);
	for (unsigned turns = 0; more; turns++) {
		assert_true(turns <= INTEREST_SHARDS);
		start = clock_monotonic_ns();
		more = interest_sweep(&t, 1);
		slowest = max_of(slowest, clock_monotonic_ns() - start);
	}
	print_message("slowest shard swept in %.0f us\n",
		      (double)slowest / 1e3);
	assert_true(interest_worker_clean(&t, 3));
	interest_fini(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_interest_pairs),
		cmocka_unit_test(test_interest_set_grows_and_shrinks),
		cmocka_unit_test(test_interest_full),
		cmocka_unit_test(test_interest_make_room),
		cmocka_unit_test(test_interest_wants_all),
		cmocka_unit_test(test_interest_wants_all_is_bounded),
		cmocka_unit_test(test_interest_drop),
		cmocka_unit_test(test_interest_like_the_model),
		cmocka_unit_test(test_interest_long_runs),
		cmocka_unit_test(test_interest_is_small),
		cmocka_unit_test(test_interest_sweep_in_pieces),
	};

	return cmocka_run_group_tests_name("interest", tests, NULL, NULL);
}

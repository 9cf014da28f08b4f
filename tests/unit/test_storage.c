/* How the store of a dispatcher ends. */
#include "dispatcher/dispatcher.h"
#include "tests/unit/loop_fixture.h"
#include "tests/unit/nodes_fixture.h"

struct fixture {
	struct loop_fixture *l;
	struct nodes_fixture *n;
	struct dispatcher d;
	bool closed;
};

static void on_closed(struct dispatcher *d)
{
	container_of(d, struct fixture, d)->closed = true;
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct dispatcher *d = &f->d;
	struct publish_store appends = storage_publish(d);
	struct history_store reads = storage_history(d);

	loop_setup((void **)&f->l);
	nodes_set_up((void **)&f->n);
	d->loop = &f->l->loop;
	d->options.store = (char *)"memory:";
	assert_int_equal(storage_open(d), 0);
	publisher_init(&d->publisher, &f->n->nodes, &d->rules, 1000, &appends);
	history_init(&d->history, &f->n->nodes, &reads);
	moves_init(&d->moves, &f->n->nodes, &d->rules, &reads);
	*state = f;
	return 0;
}

/* So many appends whose callers were told that they may have been done. */
static void set_late(struct fixture *f, size_t count)
{
	f->d.publisher.late_count = f->d.publisher.pending.used = count;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	loop_until(f->l, f->closed);
	set_late(f, 0);
	moves_fini(&f->d.moves);
	history_fini(&f->d.history);
	publisher_fini(&f->d.publisher);
	nodes_tear_down((void **)&f->n);
	assert_int_equal(loop_teardown((void **)&f->l), 0);
	free(f);
	return 0;
}

static void test_storage_closes_at_once(void **state)
{
	struct fixture *f = *state;

	moves_doubt(&f->d.moves, "a");
	storage_close(&f->d, on_closed);
	assert_null(f->d.store);
	storage_tick(&f->d, uv_now(f->d.loop)); /* nothing more is asked */
	assert_int_equal(f->d.moves.count, 1);
}

/* While late appends are waited for, doubts are looked up as ever. */
static void test_storage_late_ones_and_doubts(void **state)
{
	struct fixture *f = *state;

	set_late(f, 1);
	storage_close(&f->d, on_closed);
	moves_doubt(&f->d.moves, "a");
	storage_tick(&f->d, uv_now(f->d.loop));
	loop_until(f->l, f->d.moves.counters.resolved == 1);
	assert_non_null(f->d.store);
	set_late(f, 0);
	storage_tick(&f->d, uv_now(f->d.loop));
	assert_null(f->d.store);
}

/* Not for ever; and what is being looked up by then is let go. */
static void test_storage_late_ones_never_come(void **state)
{
	struct fixture *f = *state;
	uint64_t now_ms = uv_now(f->d.loop);

	set_late(f, 1);
	storage_close(&f->d, on_closed);
	storage_tick(&f->d, now_ms + 1900);
	assert_non_null(f->d.store);
	moves_doubt(&f->d.moves, "a");
	storage_tick(&f->d, now_ms + 2000);
	assert_null(f->d.store);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_storage_closes_at_once),
		TEST(test_storage_late_ones_and_doubts),
		TEST(test_storage_late_ones_never_come),
	};

	return cmocka_run_group_tests_name("storage", tests, NULL, NULL);
}

/* How the store of a dispatcher ends. */
#include "dispatcher/publish/storage.h"
#include "tests/unit/loop_fixture.h"
#include "tests/unit/nodes_fixture.h"

struct fixture {
	struct loop_fixture *l;
	struct nodes_fixture *n;
	struct storage storage;
	struct rules rules;
	struct publisher publisher;
	struct history history;
	struct moves moves;
	bool closed;
};

static void on_closed(void *ctx)
{
	struct fixture *f = ctx;

	f->closed = true;
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct publish_store appends = storage_publish(&f->storage);
	struct history_store reads = storage_history(&f->storage);
	const struct store_config config = {.url = "memory:"};
	struct storage_parts parts;

	loop_setup((void **)&f->l);
	nodes_set_up((void **)&f->n);
	parts = (struct storage_parts){
		.rules = &f->rules,
		.nodes = &f->n->nodes,
		.publisher = &f->publisher,
		.history = &f->history,
		.moves = &f->moves,
	};
	assert_int_equal(
		storage_open(&f->storage, &f->l->loop, &parts, &config), 0);
	publisher_init(&f->publisher, &f->n->nodes, &f->rules, 1000, &appends);
	history_init(&f->history, &f->n->nodes, &reads);
	moves_init(&f->moves, &f->n->nodes, &f->rules, &reads);
	*state = f;
	return 0;
}

/* So many appends whose callers were told that they may have been done. */
static void set_late(struct fixture *f, size_t count)
{
	f->publisher.late_count = f->publisher.pending.used = count;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	loop_until(f->l, f->closed);
	set_late(f, 0);
	moves_fini(&f->moves);
	history_fini(&f->history);
	publisher_fini(&f->publisher);
	nodes_tear_down((void **)&f->n);
	assert_int_equal(loop_teardown((void **)&f->l), 0);
	free(f);
	return 0;
}

static void test_storage_closes_at_once(void **state)
{
	struct fixture *f = *state;

	moves_doubt(&f->moves, "a");
	storage_close(&f->storage, on_closed, f);
	assert_null(f->storage.store);
	storage_tick(&f->storage,
		     uv_now(&f->l->loop)); /* nothing more is asked */
	assert_int_equal(f->moves.count, 1);
}

/* While late appends are waited for, doubts are looked up as ever. */
static void test_storage_late_ones_and_doubts(void **state)
{
	struct fixture *f = *state;

	set_late(f, 1);
	storage_close(&f->storage, on_closed, f);
	moves_doubt(&f->moves, "a");
	storage_tick(&f->storage, uv_now(&f->l->loop));
	loop_until(f->l, f->moves.counters.resolved == 1);
	assert_non_null(f->storage.store);
	set_late(f, 0);
	storage_tick(&f->storage, uv_now(&f->l->loop));
	assert_null(f->storage.store);
}

/* Not for ever; and what is being looked up by then is let go. */
static void test_storage_late_ones_never_come(void **state)
{
	struct fixture *f = *state;
	uint64_t now_ms = uv_now(&f->l->loop);

	set_late(f, 1);
	storage_close(&f->storage, on_closed, f);
	storage_tick(&f->storage, now_ms + 1900);
	assert_non_null(f->storage.store);
	moves_doubt(&f->moves, "a");
	storage_tick(&f->storage, now_ms + 2000);
	assert_null(f->storage.store);
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

#include "dispatcher/route/counts.h"

#include "tests/unit/nodes_fixture.h"

struct fixture {
	struct nodes_fixture *n;
	struct counts counts;
	struct count_result result;
	unsigned done;
};

static void on_counted(void *ctx, uint64_t id, uint64_t subscribers)
{
	struct fixture *f = ctx;

	counts_answer(&f->counts, id, subscribers);
}

static void on_done(void *ctx, const struct count_result *result)
{
	struct fixture *f = ctx;

	f->result = *result;
	f->done++;
}

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	nodes_set_up((void **)&f->n);
	f->n->on_counted = on_counted;
	f->n->counted_ctx = f;
	counts_init(&f->counts, &f->n->nodes);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	nodes_tear_down((void **)&f->n);
	free(f);
	return 0;
}

static int ask(struct fixture *f, uint64_t now_ms)
{
	return counts_ask(&f->counts, "a", now_ms, on_done, f);
}

static void answer(struct fixture *f, struct node_worker *w, uint64_t id,
		   uint64_t subscribers)
{
	Stentor__Link__V1__CountAnswer a =
		STENTOR__LINK__V1__COUNT_ANSWER__INIT;
	Stentor__Link__V1__CountAnswer *answers[1] = {&a};
	LinkFrame content = FRAME_INIT;

	a.id = id;
	a.subscribers = subscribers;
	content.n_count_answers = 1;
	content.count_answers = answers;
	worker_speaks(f->n, w, &content, 2000);
}

static void test_counts_adds_up(void **state)
{
	struct fixture *f = *state;
	struct node_worker *one = add_worker(f->n, "n", 0, 11, "a");
	struct node_worker *two = add_worker(f->n, "n", 1, 12, "a");
	const LinkFrame *query;
	uint64_t id;

	add_worker(f->n, "m", 0, 13, "b");
	assert_int_equal(ask(f, 2000), 0);
	assert_int_equal(f->n->sent.count, 2);
	query = sent_decode(&f->n->sent, 0);
	assert_string_equal(query->count_queries[0]->channel, "a");
	id = query->count_queries[0]->id;
	answer(f, one, id, 30);
	assert_int_equal(f->done, 0);
	answer(f, two, id, 12);
	assert_int_equal(f->done, 1);
	assert_int_equal(f->result.subscribers, 42);
	assert_int_equal(f->result.workers, 2);
	assert_int_equal(f->result.nodes, 1);
	assert_true(f->result.complete);
	answer(f, two, id, 12); /* again: nobody waits for it */
	answer(f, two, 0, 12);
	assert_int_equal(f->done, 1);
}

static void test_counts_of_nobody(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(ask(f, 2000), 0);
	assert_int_equal(f->done, 1);
	assert_int_equal(f->result.subscribers, 0);
	assert_true(f->result.complete);
}

static void test_counts_give_up(void **state)
{
	struct fixture *f = *state;
	struct node_worker *one = add_worker(f->n, "n", 0, 11, "a");

	add_worker(f->n, "m", 0, 12, "a");
	assert_int_equal(ask(f, 2000), 0);
	answer(f, one, f->counts.last_id, 30);
	counts_tick(&f->counts, 2000 + COUNTS_TIMEOUT_MS - 1);
	assert_int_equal(f->done, 0);
	counts_tick(&f->counts, 2000 + COUNTS_TIMEOUT_MS);
	assert_int_equal(f->done, 1);
	assert_int_equal(f->result.subscribers, 30);
	assert_int_equal(f->result.nodes, 2);
	assert_false(f->result.complete);
}

static void test_counts_limit(void **state)
{
	struct fixture *f = *state;

	add_worker(f->n, "n", 0, 11, "a");
	for (unsigned i = 0; i < COUNTS_MAX; i++)
		assert_int_equal(ask(f, 2000), 0);
	assert_int_equal(ask(f, 2000), ERR_FULL);
	counts_tick(&f->counts, 2000 + COUNTS_TIMEOUT_MS);
	assert_int_equal(f->done, COUNTS_MAX);
	assert_int_equal(ask(f, 3000), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_counts_adds_up),
		TEST(test_counts_of_nobody),
		TEST(test_counts_give_up),
		TEST(test_counts_limit),
	};

	return cmocka_run_group_tests_name("counts", tests, NULL, NULL);
}

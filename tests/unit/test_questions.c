#include "connnode/channel/questions.h"

#include "common/base/mem.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#define SENT_MAX 300

/* Two dispatchers; only their addresses matter. */
static const char places[2];
#define ONE ((const struct upstream *)&places[0])
#define TWO ((const struct upstream *)&places[1])

struct fixture {
	struct questions qs;
	struct arena arena;
	bool one_up, two_up;
	struct {
		uint64_t id;
		bool history;
		char channel[32];
		const struct upstream *to;
	} sent[SENT_MAX];
	unsigned count;
};

struct asker {
	struct question q;
	unsigned answers;
	uint64_t top;
	struct questions *again; /* asks anew from inside */
};

static const struct upstream *on_send(void *ctx, struct frame *control,
				      const struct upstream *except)
{
	struct fixture *f = ctx;
	const struct upstream *to = f->one_up ? ONE : TWO;
	LinkFrame *frame;

	if (!f->one_up && !f->two_up)
		return NULL;
	if (to == except && f->two_up)
		to = TWO;
	frame = link_frame_decode(&f->arena, control->bytes, control->len);
	assert_non_null(frame);
	assert_true(f->count < SENT_MAX);
	f->sent[f->count].to = to;
	f->sent[f->count].history = frame->n_history_queries == 1;
	if (frame->n_history_queries == 1) {
		f->sent[f->count].id = frame->history_queries[0]->id;
		strcpy(f->sent[f->count].channel,
		       frame->history_queries[0]->channel);
	} else {
		assert_int_equal(frame->n_tops_queries, 1);
		f->sent[f->count].id = frame->tops_queries[0]->id;
	}
	f->count++;
	arena_reset(&f->arena);
	return to;
}

static const struct questions_ops ops = {.send = on_send};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	arena_init(&f->arena, LINK_DECODED_MAX);
	questions_init(&f->qs, &ops, f);
	f->one_up = true;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	questions_fini(&f->qs);
	arena_fini(&f->arena);
	free(f);
	return 0;
}

static void ask(struct fixture *f, struct asker *a, const char *channel,
		uint64_t now_ms)
{
	HistoryQuery query = STENTOR__LINK__V1__HISTORY_QUERY__INIT;

	query.channel = (char *)channel;
	questions_ask_history(&f->qs, &a->q, &query, now_ms);
}

static void on_answer(struct question *q, const HistoryAnswer *history,
		      const TopsAnswer *tops)
{
	struct asker *a = container_of(q, struct asker, q);

	assert_true((history == NULL) != (tops == NULL));
	assert_false(question_open(q));
	a->answers++;
	a->top = history ? history->top->offset : tops->tops[0]->offset;
	if (a->again != NULL) {
		HistoryQuery query = STENTOR__LINK__V1__HISTORY_QUERY__INIT;

		query.channel = (char *)"again";
		questions_ask_history(a->again, q, &query, a->again->now_ms);
	}
}

static void asker_init(struct asker *a)
{
	*a = (struct asker){0};
	question_init(&a->q, on_answer);
}

static void answer_history(struct fixture *f, uint64_t id, bool failed,
			   uint64_t now_ms)
{
	HistoryAnswer answer = STENTOR__LINK__V1__HISTORY_ANSWER__INIT;
	Stentor__Link__V1__Place top = STENTOR__LINK__V1__PLACE__INIT;

	top.offset = 7;
	answer.id = id;
	answer.failed = failed;
	answer.top = &top;
	questions_history(&f->qs, &answer, now_ms);
}

static void answer_tops(struct fixture *f, uint64_t id, uint64_t now_ms)
{
	TopsAnswer answer = STENTOR__LINK__V1__TOPS_ANSWER__INIT;
	Stentor__Link__V1__Place top = STENTOR__LINK__V1__PLACE__INIT;
	Stentor__Link__V1__Place *tops[1] = {&top};

	top.offset = 8;
	answer.id = id;
	answer.tops = tops;
	answer.n_tops = 1;
	questions_tops(&f->qs, &answer, now_ms);
}

/* --- tests ------------------------------------------------------------- */

static void test_questions_asks_and_answers(void **state)
{
	struct fixture *f = *state;
	struct asker a, b;
	TopsQuery query = STENTOR__LINK__V1__TOPS_QUERY__INIT;

	asker_init(&a);
	asker_init(&b);
	assert_false(question_open(&a.q));
	questions_cancel(&f->qs, &a.q); /* nothing happens */
	ask(f, &a, "a", 1000);
	questions_ask_tops(&f->qs, &b.q, &query, 1000);
	assert_true(question_open(&a.q));
	assert_int_equal(f->count, 0);
	questions_run(&f->qs, 1000);
	assert_int_equal(f->count, 2);
	assert_true(f->sent[0].history);
	assert_string_equal(f->sent[0].channel, "a");
	assert_false(f->sent[1].history);
	assert_int_not_equal(f->sent[0].id, f->sent[1].id);

	/* Nobody asked this, or not this kind of question. */
	answer_history(f, f->sent[1].id, false, 1001);
	answer_tops(f, f->sent[0].id, 1001);
	answer_history(f, 12345, false, 1001);
	assert_int_equal(a.answers + b.answers, 0);
	answer_history(f, f->sent[0].id, false, 1001);
	assert_int_equal(a.answers, 1);
	assert_int_equal(a.top, 7);
	answer_tops(f, f->sent[1].id, 1001);
	assert_int_equal(b.answers, 1);
	assert_int_equal(b.top, 8);
	answer_history(f, f->sent[0].id, false, 1002);
	assert_int_equal(a.answers, 1);
	questions_run(&f->qs, 100000);
	assert_int_equal(f->count, 2);
	assert_int_equal(f->qs.counters.asked, 2);
	assert_int_equal(f->qs.counters.answered, 2);
}

/* Without an answer it is asked of another dispatcher; the answer to either
 * attempt is good. */
static void test_questions_times_out(void **state)
{
	struct fixture *f = *state;
	struct asker a;

	f->two_up = true;
	asker_init(&a);
	ask(f, &a, "a", 1000);
	questions_run(&f->qs, 1000);
	questions_run(&f->qs, 1000 + QUESTION_TIMEOUT_MS - 1);
	assert_int_equal(f->count, 1);
	questions_run(&f->qs, 1000 + QUESTION_TIMEOUT_MS);
	assert_int_equal(f->count, 2);
	assert_ptr_equal(f->sent[0].to, ONE);
	assert_ptr_equal(f->sent[1].to, TWO);
	assert_int_equal(f->qs.counters.timeouts, 1);
	assert_int_equal(f->qs.asked_count, 1);
	answer_history(f, f->sent[0].id, false, 5000);
	assert_int_equal(a.answers, 1);
	answer_history(f, f->sent[1].id, false, 5000);
	assert_int_equal(a.answers, 1);
	assert_int_equal(f->qs.asked_count, 0);
}

static void test_questions_link_lost(void **state)
{
	struct fixture *f = *state;
	struct asker a, b;

	asker_init(&a);
	asker_init(&b);
	ask(f, &a, "a", 1000);
	questions_run(&f->qs, 1000);
	f->one_up = false;
	f->two_up = true;
	ask(f, &b, "b", 1000);
	questions_run(&f->qs, 1000);
	assert_int_equal(f->count, 2);
	questions_link_lost(&f->qs, ONE, 1100);
	questions_run(&f->qs, 1100);
	assert_int_equal(f->count, 3);
	assert_string_equal(f->sent[2].channel, "a");
	assert_ptr_equal(f->sent[2].to, TWO);

	/* None is left: asked when one comes. */
	f->two_up = false;
	questions_link_lost(&f->qs, TWO, 1200);
	questions_run(&f->qs, 1200);
	assert_int_equal(f->count, 3);
	f->one_up = true;
	questions_run(&f->qs, 1300);
	assert_int_equal(f->count, 5);
	questions_cancel(&f->qs, &a.q);
	questions_cancel(&f->qs, &b.q);
	assert_false(question_open(&a.q));
	answer_history(f, f->sent[3].id, false, 1400);
	assert_int_equal(a.answers + b.answers, 0);
}

/* The pauses double: 100, 200, 400 ... 2000, 2000. */
static void test_questions_pauses_when_the_store_fails(void **state)
{
	struct fixture *f = *state;
	struct asker a;
	uint64_t now_ms = 1000, pause_ms = QUESTION_RETRY_MS;

	f->two_up = true;
	asker_init(&a);
	ask(f, &a, "a", now_ms);
	questions_run(&f->qs, now_ms);
	for (unsigned i = 1; i < 80; i++) {
		answer_history(f, f->sent[0].id, true, now_ms);
		assert_int_equal(f->qs.asked_count, 0);
		questions_run(&f->qs, now_ms + pause_ms - 1);
		assert_int_equal(f->count, i);
		/* Pauses are looked at every QUESTION_RETRY_MS. */
		now_ms += pause_ms + QUESTION_RETRY_MS;
		questions_run(&f->qs, now_ms);
		assert_int_equal(f->count, i + 1);
		assert_true(f->sent[i].to != f->sent[i - 1].to);
		pause_ms = min_of(2 * pause_ms, QUESTION_RETRY_MAX_MS);
	}
	assert_int_equal(f->qs.counters.failed, 79);
	assert_int_equal(a.answers, 0);
	/* A late answer to an attempt before the one that failed is good. */
	answer_history(f, f->sent[0].id, true, now_ms);
	answer_history(f, f->sent[0].id, false, now_ms);
	assert_int_equal(a.answers, 1);
}

static void test_questions_few_under_way(void **state)
{
	struct fixture *f = *state;
	static struct asker askers[3 * QUESTIONS_MAX];

	for (unsigned i = 0; i < array_len(askers); i++) {
		asker_init(&askers[i]);
		ask(f, &askers[i], "a", 1000);
	}
	questions_run(&f->qs, 1000);
	assert_int_equal(f->count, QUESTIONS_MAX);
	questions_cancel(&f->qs, &askers[0].q);
	answer_history(f, f->sent[1].id, false, 1000);
	questions_run(&f->qs, 1000);
	assert_int_equal(f->count, QUESTIONS_MAX + 2);
	/* Those that failed stand behind those that were not asked yet. */
	for (unsigned i = 2; i < QUESTIONS_MAX + 2; i++)
		answer_history(f, f->sent[i].id, true, 1000);
	questions_run(&f->qs, 1000);
	assert_int_equal(f->count, 2 * QUESTIONS_MAX + 2);
	for (unsigned i = 0; i < f->count; i++)
		assert_int_equal(f->sent[i].id, askers[i].q.id);
	for (unsigned i = 0; i < array_len(askers); i++)
		questions_cancel(&f->qs, &askers[i].q);
	assert_int_equal(f->qs.asked_count, 0);
}

static void test_questions_asked_anew_from_inside(void **state)
{
	struct fixture *f = *state;
	struct asker a;

	asker_init(&a);
	a.again = &f->qs;
	ask(f, &a, "a", 1000);
	questions_run(&f->qs, 1000);
	answer_history(f, f->sent[0].id, false, 1001);
	assert_true(question_open(&a.q));
	questions_run(&f->qs, 1001);
	assert_int_equal(f->count, 2);
	assert_string_equal(f->sent[1].channel, "again");
	assert_int_not_equal(f->sent[0].id, f->sent[1].id);
	questions_cancel(&f->qs, &a.q);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_questions_asks_and_answers),
		TEST(test_questions_times_out),
		TEST(test_questions_link_lost),
		TEST(test_questions_pauses_when_the_store_fails),
		TEST(test_questions_few_under_way),
		TEST(test_questions_asked_anew_from_inside),
	};

	return cmocka_run_group_tests_name("questions", tests, NULL, NULL);
}

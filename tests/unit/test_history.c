#include "dispatcher/publish/history.h"

#include "common/base/err.h"
#include "tests/unit/nodes_fixture.h"

#include "tests/unit/fakestore.h"

struct fixture {
	struct nodes_fixture *n;
	struct fakestore store;
	struct history h;
	HistoryQuery q;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct history_store store = fakestore_history(&f->store);

	nodes_set_up((void **)&f->n);
	fakestore_init(&f->store);
	history_init(&f->h, &f->n->nodes, &store);
	stentor__link__v1__history_query__init(&f->q);
	f->q.channel = (char *)"score:1";
	f->q.epoch = FAKESTORE_EPOCH;
	f->q.after = 5;
	f->q.messages_max = 10;
	f->q.bytes_max = 1000;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	history_fini(&f->h);
	nodes_tear_down((void **)&f->n);
	free(f);
	return 0;
}

static void ask(struct fixture *f, struct node_worker *w, uint64_t id)
{
	f->q.id = id;
	history_ask(&f->h, w, &f->q);
}

/* Answers the oldest read with `count` messages behind what was asked for. */
static void answer_read(struct fixture *f, size_t count)
{
	struct store_read *r = fakestore_take_read(&f->store);
	struct store_record records[HISTORY_MESSAGES_MAX];
	LinkDelivery d = STENTOR__LINK__V1__DELIVERY__INIT;
	struct frame *record;

	d.data.data = (uint8_t *)"text";
	d.data.len = 4;
	record = link_record_encode(&d);
	assert_non_null(r);
	for (size_t i = 0; i < count; i++)
		records[i] = (struct store_record){r->after + 1 + i,
						   record->bytes, record->len};
	r->rc = 0;
	r->top = (struct store_place){FAKESTORE_EPOCH, 100};
	r->first = 2;
	r->records = records;
	r->count = count;
	r->done(r);
	frame_release(record);
}

/* The history answer in a frame that was sent. */
static const LinkHistoryAnswer *answered(struct fixture *f, unsigned i)
{
	const LinkFrame *frame = sent_decode(&f->n->sent, i);

	assert_int_equal(frame->n_history_answers, 1);
	return frame->history_answers[0];
}

static void flush(struct fixture *f)
{
	nodes_flush(&f->n->nodes, 2000);
}

static void test_history_answers(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, "score:1");
	const struct store_read *r;
	const LinkHistoryAnswer *a;

	ask(f, w, 77);
	assert_int_equal(f->store.submitted, 1);
	r = container_of(f->store.reads.next, struct store_read, in_store);
	assert_string_equal(r->channel, "score:1");
	assert_int_equal(r->epoch, FAKESTORE_EPOCH);
	assert_int_equal(r->after, 5);
	assert_int_equal(r->records_max, 10);
	assert_int_equal(r->bytes_max, 1000);
	assert_int_equal(w->questions, 1);
	answer_read(f, 3);
	assert_int_equal(w->questions, 0);
	/* Behind everything that is live, and never shed. */
	assert_int_equal(w->queue.lanes[PRIORITY_DROPPABLE].frames, 1);
	assert_int_equal(w->queue.held[PRIORITY_CRITICAL].frames, 1);
	flush(f);
	a = answered(f, 0);
	assert_int_equal(a->id, 77);
	assert_false(a->failed);
	assert_int_equal(a->top->epoch, FAKESTORE_EPOCH);
	assert_int_equal(a->top->offset, 100);
	assert_int_equal(a->first, 2);
	assert_int_equal(a->n_messages, 3);
	assert_int_equal(a->messages[2]->epoch, FAKESTORE_EPOCH);
	assert_int_equal(a->messages[2]->offset, 8);
	assert_memory_equal(a->messages[2]->data.data, "text", 4);
	assert_int_equal(f->h.counters.messages, 3);
}

static void test_history_same_question_is_one_read(void **state)
{
	struct fixture *f = *state;
	struct node_worker *one = add_worker(f->n, "n", 0, 11, NULL);
	struct node_worker *two = add_worker(f->n, "m", 0, 12, NULL);

	ask(f, one, 1);
	ask(f, two, 1);
	ask(f, two, 2);
	assert_int_equal(f->store.submitted, 1);
	assert_int_equal(f->h.counters.shared, 2);
	/* Not the same: */
	f->q.after = 6;
	ask(f, two, 3);
	f->q.after = 5;
	f->q.epoch = 0;
	ask(f, two, 4);
	f->q.epoch = FAKESTORE_EPOCH;
	f->q.messages_max = 11;
	ask(f, two, 5);
	f->q.messages_max = 10;
	f->q.channel = (char *)"score:2";
	ask(f, two, 6);
	assert_int_equal(f->store.submitted, 5);
	while (!list_empty(&f->store.reads))
		answer_read(f, 1);
	assert_int_equal(one->queue.all.frames, 1);
	assert_int_equal(two->queue.all.frames, 6);
	/* It is over: the next asks anew. */
	f->q.channel = (char *)"score:1";
	ask(f, one, 7);
	assert_int_equal(f->store.submitted, 6);
	answer_read(f, 0);
}

static void test_history_clamps(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);
	const struct store_read *r;

	f->q.messages_max = f->q.bytes_max = UINT32_MAX;
	ask(f, w, 1);
	r = container_of(f->store.reads.next, struct store_read, in_store);
	assert_int_equal(r->records_max, HISTORY_MESSAGES_MAX);
	assert_int_equal(r->bytes_max, HISTORY_BYTES_MAX);
	f->q.messages_max = f->q.bytes_max = 0;
	ask(f, w, 2);
	assert_int_equal(f->store.submitted, 1);
	answer_read(f, 0);
}

/* The largest answer of small messages fits one batch. */
static void test_history_answer_fits_a_batch(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);
	size_t each = HISTORY_BYTES_MAX / HISTORY_MESSAGES_MAX;
	struct store_record records[HISTORY_MESSAGES_MAX];
	struct store_read *r;
	LinkDelivery d = STENTOR__LINK__V1__DELIVERY__INIT;
	struct frame *record;
	char data[512] = {0};

	d.data.data = (uint8_t *)data;
	d.data.len = each - 2;
	record = link_record_encode(&d);
	assert_int_equal(record->len, each);
	ask(f, w, 1);
	r = fakestore_take_read(&f->store);
	for (size_t i = 0; i < HISTORY_MESSAGES_MAX; i++)
		records[i] = (struct store_record){(1u << 31) + i,
						   record->bytes, record->len};
	r->rc = 0;
	r->top = (struct store_place){FAKESTORE_EPOCH, UINT32_MAX};
	r->records = records;
	r->count = HISTORY_MESSAGES_MAX;
	r->done(r);
	assert_in_range(linkq_bytes(&w->queue), HISTORY_BYTES_MAX,
			NODES_BATCH_BYTES_MAX);
	frame_release(record);
}

static void test_history_store_fails(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);
	struct store_read *r;

	ask(f, w, 9);
	r = fakestore_take_read(&f->store);
	r->rc = ERR_UNAVAILABLE;
	r->done(r);
	flush(f);
	assert_true(answered(f, 0)->failed);
	assert_int_equal(answered(f, 0)->id, 9);
	assert_int_equal(f->h.counters.failed, 1);
	/* Away: not even asked. */
	f->store.fault = "gone";
	ask(f, w, 10);
	assert_int_equal(f->h.counters.failed, 2);
	assert_int_equal(f->store.submitted, 1);
}

static void test_history_leaves_out_what_is_no_record(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);
	struct store_record records[3] = {
		{6, (const uint8_t *)"\x12\x01x", 3},
		{7, (const uint8_t *)"garbage", 7},
		{8, (const uint8_t *)"", 0},
	};
	struct store_read *r;

	ask(f, w, 1);
	r = fakestore_take_read(&f->store);
	r->rc = 0;
	r->top = (struct store_place){FAKESTORE_EPOCH, 8};
	r->records = records;
	r->count = 3;
	r->done(r);
	flush(f);
	assert_int_equal(answered(f, 0)->n_messages, 2);
	assert_int_equal(answered(f, 0)->messages[0]->offset, 6);
	assert_int_equal(answered(f, 0)->messages[1]->offset, 8);
	assert_int_equal(f->h.counters.corrupt, 1);
}

static void test_history_worker_leaves(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);
	struct node_worker *other = add_worker(f->n, "m", 0, 12, NULL);

	ask(f, w, 1);
	ask(f, other, 2);
	nodes_disconnected(&f->n->nodes, w);
	answer_read(f, 1);
	assert_int_equal(other->queue.all.frames, 1);
	assert_int_equal(f->h.questions, 0);
	assert_int_equal(f->h.held, 0);
}

/* More than may be under way wait, the oldest first; a question that nobody
 * waits for any more is not asked. */
static void test_history_reads_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);
	struct node_worker *gone = add_worker(f->n, "m", 0, 12, NULL);
	const struct store_read *last;

	for (unsigned i = 0; i < HISTORY_READS_MAX; i++) {
		f->q.after = i;
		ask(f, w, i);
	}
	f->q.after = 1000;
	ask(f, gone, 1);
	f->q.after = 1001;
	ask(f, w, 1001);
	f->q.after = 1002;
	ask(f, w, 1002);
	assert_int_equal(f->store.submitted, HISTORY_READS_MAX);
	nodes_disconnected(&f->n->nodes, gone);
	answer_read(f, 0);
	assert_int_equal(f->store.submitted, HISTORY_READS_MAX + 1);
	last = container_of(f->store.reads.prev, struct store_read, in_store);
	assert_int_equal(last->after, 1001);
	while (!list_empty(&f->store.reads))
		answer_read(f, 0);
	assert_int_equal(f->store.submitted, HISTORY_READS_MAX + 2);
}

static void test_history_questions_are_bounded(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);
	struct node_worker *other = add_worker(f->n, "m", 0, 12, NULL);

	for (unsigned i = 0; i < HISTORY_WORKER_MAX; i++)
		ask(f, w, i);
	ask(f, w, 5000);
	assert_int_equal(f->h.counters.failed, 1);
	flush(f);
	assert_int_equal(answered(f, 0)->id, 5000);
	assert_true(answered(f, 0)->failed);
	/* One worker's crowd is not another's. */
	ask(f, other, 1);
	assert_int_equal(f->h.counters.failed, 1);
	f->h.questions += HISTORY_QUESTIONS_MAX;
	ask(f, other, 2);
	f->h.questions -= HISTORY_QUESTIONS_MAX;
	assert_int_equal(f->h.counters.failed, 2);
	f->h.held += HISTORY_HELD_MAX;
	ask(f, other, 3);
	f->h.held -= HISTORY_HELD_MAX;
	assert_int_equal(f->h.counters.failed, 3);
	answer_read(f, 0);
}

/* The smallest queue has room for an answer too. */
static void test_history_small_queue(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);

	f->n->nodes.config.queue_bytes = 64u << 10;
	f->q.bytes_max = 128u << 10;
	ask(f, w, 1);
	assert_int_equal(
		container_of(f->store.reads.next, struct store_read, in_store)
			->bytes_max,
		16u << 10);
	answer_read(f, 1);
}

/* Live messages keep half of a link's queue. */
static void test_history_leaves_room(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);

	w->queue.max.bytes = 100;
	ask(f, w, 1);
	answer_read(f, 10);
	flush(f);
	assert_true(answered(f, 0)->failed);
	assert_int_equal(f->h.counters.failed, 1);
}

static void test_history_bad_questions(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);
	TopsQuery tops = STENTOR__LINK__V1__TOPS_QUERY__INIT;
	char *names[STORE_TOPS_MAX + 1];

	f->q.channel = (char *)"no good";
	ask(f, w, 1);
	for (size_t i = 0; i < array_len(names); i++)
		names[i] = (char *)"a";
	tops.channels = names;
	history_ask_tops(&f->h, w, &tops);
	tops.n_channels = STORE_TOPS_MAX + 1;
	history_ask_tops(&f->h, w, &tops);
	tops.n_channels = 2;
	names[1] = (char *)"";
	history_ask_tops(&f->h, w, &tops);
	assert_int_equal(f->store.submitted, 0);
	assert_int_equal(f->h.counters.failed, 4);
}

static void test_history_tops(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);
	TopsQuery q = STENTOR__LINK__V1__TOPS_QUERY__INIT;
	const Stentor__Link__V1__TopsAnswer *a;
	char one[] = "score:1", two[] = "score:22", *names[] = {one, two};
	struct store_tops *t;

	q.id = 8;
	q.channels = names;
	q.n_channels = 2;
	history_ask_tops(&f->h, w, &q);
	memset(one, 'x', 3);
	t = fakestore_take_tops(&f->store);
	assert_int_equal(t->count, 2);
	assert_string_equal(t->channels[0], "score:1");
	assert_string_equal(t->channels[1], "score:22");
	t->places[0] = (struct store_place){FAKESTORE_EPOCH, 4};
	t->places[1] = (struct store_place){FAKESTORE_EPOCH + 1, 0};
	t->rc = 0;
	t->done(t);
	flush(f);
	assert_int_equal(sent_decode(&f->n->sent, 0)->n_tops_answers, 1);
	a = sent_decode(&f->n->sent, 0)->tops_answers[0];
	assert_int_equal(a->id, 8);
	assert_false(a->failed);
	assert_int_equal(a->n_tops, 2);
	assert_int_equal(a->tops[0]->offset, 4);
	assert_int_equal(a->tops[1]->epoch, FAKESTORE_EPOCH + 1);
	memcpy(one, "sco", 3);
	history_ask_tops(&f->h, w, &q);
	t = fakestore_take_tops(&f->store);
	t->rc = ERR_UNAVAILABLE;
	t->done(t);
	flush(f);
	assert_true(sent_decode(&f->n->sent, 1)->tops_answers[0]->failed);
}

/* What the worker has seen goes to the store; the eras come back. */
static void test_history_known_and_eras(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);
	TopsQuery q = STENTOR__LINK__V1__TOPS_QUERY__INIT;
	Stentor__Link__V1__Place none = STENTOR__LINK__V1__PLACE__INIT;
	Stentor__Link__V1__Place seen = STENTOR__LINK__V1__PLACE__INIT;
	Stentor__Link__V1__Place *known[2] = {&none, &seen};
	const Stentor__Link__V1__Place *top;
	char *names[] = {(char *)"score:1", (char *)"score:2"};
	struct store_tops *t;
	struct store_read *r;

	q.channels = names;
	q.n_channels = 2;
	q.known = known;
	q.n_known = 1; /* neither none nor of each */
	history_ask_tops(&f->h, w, &q);
	assert_int_equal(f->h.counters.failed, 1);
	flush(f);
	seen.epoch = 7;
	seen.offset = 9;
	q.n_known = 2;
	history_ask_tops(&f->h, w, &q);
	t = fakestore_take_tops(&f->store);
	assert_int_equal(t->known[0].epoch, 0);
	assert_int_equal(t->known[1].epoch, 7);
	assert_int_equal(t->known[1].offset, 9);
	t->places[0] = (struct store_place){8, 0};
	t->places[1] = (struct store_place){8, 5};
	t->eras[1] = (struct store_eras){2, {{7, 5}, {6, 2}}};
	assert_false(w->compared);
	t->done(t);
	assert_true(w->compared);
	flush(f);
	top = sent_decode(&f->n->sent, 1)->tops_answers[0]->tops[0];
	assert_int_equal(top->n_eras, 0);
	top = sent_decode(&f->n->sent, 1)->tops_answers[0]->tops[1];
	assert_int_equal(top->offset, 5);
	assert_int_equal(top->n_eras, 2);
	assert_int_equal(top->eras[0]->epoch, 7);
	assert_int_equal(top->eras[1]->epoch, 6);
	assert_int_equal(top->eras[1]->offset, 2);
	ask(f, w, 3);
	r = fakestore_take_read(&f->store);
	r->top = (struct store_place){8, 5};
	r->eras = (struct store_eras){1, {{7, 5}}};
	r->done(r);
	flush(f);
	top = answered(f, 2)->top;
	assert_int_equal(top->n_eras, 1);
	assert_int_equal(top->eras[0]->offset, 5);
}

/* Not before the last of its questions has its answer, and it is one. */
static void test_history_compared(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);
	TopsQuery q = STENTOR__LINK__V1__TOPS_QUERY__INIT;
	char *names[] = {(char *)"score:1"};

	q.channels = names;
	q.n_channels = 1;
	history_ask_tops(&f->h, w, &q);
	history_ask_tops(&f->h, w, &q);
	for (int i = 0; i < 2; i++) {
		struct store_tops *t = fakestore_take_tops(&f->store);

		t->rc = i == 1 ? ERR_UNAVAILABLE : 0;
		t->done(t);
		assert_false(w->compared);
	}
}

/* The store closes: what waits is forgotten, what is under way ends. */
static void test_history_close(void **state)
{
	struct fixture *f = *state;
	struct node_worker *w = add_worker(f->n, "n", 0, 11, NULL);

	for (unsigned i = 0; i < HISTORY_READS_MAX + 3; i++) {
		f->q.after = i;
		ask(f, w, i);
	}
	history_close(&f->h);
	ask(f, w, 1);
	while (!list_empty(&f->store.reads))
		answer_read(f, 0);
	assert_int_equal(f->store.submitted, HISTORY_READS_MAX);
	assert_int_equal(f->h.questions, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_history_answers),
		TEST(test_history_same_question_is_one_read),
		TEST(test_history_clamps),
		TEST(test_history_answer_fits_a_batch),
		TEST(test_history_store_fails),
		TEST(test_history_leaves_out_what_is_no_record),
		TEST(test_history_worker_leaves),
		TEST(test_history_reads_are_bounded),
		TEST(test_history_questions_are_bounded),
		TEST(test_history_small_queue),
		TEST(test_history_leaves_room),
		TEST(test_history_bad_questions),
		TEST(test_history_tops),
		TEST(test_history_known_and_eras),
		TEST(test_history_compared),
		TEST(test_history_close),
	};

	return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}

#include "connnode/channel/questions.h"

#include "common/base/check.h"

typedef Stentor__Link__V1__Frame Frame;

void questions_init(struct questions *qs, const struct questions_ops *ops,
		    void *ctx)
{
	*qs = (struct questions){.ops = ops, .ctx = ctx};
	list_init(&qs->waiting);
	list_init(&qs->asked);
	list_init(&qs->paused);
	hmap_init(&qs->by_id);
}

void questions_fini(struct questions *qs)
{
	check(qs->by_id.count == 0);
	hmap_fini(&qs->by_id);
}

void question_init(struct question *q, question_cb answered)
{
	*q = (struct question){.answered = answered};
	list_init(&q->in_questions);
}

/* The one place where a question changes its phase and list. */
static void move(struct questions *qs, struct question *q,
		 enum question_phase phase)
{
	struct list *const lists[] = {
		[QUESTION_WAITING] = &qs->waiting,
		[QUESTION_ASKED] = &qs->asked,
		[QUESTION_PAUSED] = &qs->paused,
	};

	qs->asked_count -= q->phase == QUESTION_ASKED;
	qs->asked_count += phase == QUESTION_ASKED;
	list_remove(&q->in_questions);
	if (phase != QUESTION_CLOSED)
		list_push_back(lists[phase], &q->in_questions);
	q->phase = phase;
}

static void ask(struct questions *qs, struct question *q, Frame *content,
		uint64_t now_ms)
{
	qs->now_ms = now_ms;
	q->control = link_control_encode(content);
	q->id = qs->last_id;
	q->upstream = NULL;
	q->failures = 0;
	hmap_insert(&qs->by_id, &q->by_id, q->id);
	move(qs, q, QUESTION_WAITING);
}

void questions_ask_history(struct questions *qs, struct question *q,
			   HistoryQuery *query, uint64_t now_ms)
{
	Frame content = STENTOR__LINK__V1__FRAME__INIT;

	check(!question_open(q));
	query->id = ++qs->last_id;
	content.n_history_queries = 1;
	content.history_queries = &query;
	q->history = true;
	ask(qs, q, &content, now_ms);
}

void questions_ask_tops(struct questions *qs, struct question *q,
			TopsQuery *query, uint64_t now_ms)
{
	Frame content = STENTOR__LINK__V1__FRAME__INIT;

	check(!question_open(q));
	query->id = ++qs->last_id;
	content.n_tops_queries = 1;
	content.tops_queries = &query;
	q->history = false;
	ask(qs, q, &content, now_ms);
}

static void close_question(struct questions *qs, struct question *q)
{
	move(qs, q, QUESTION_CLOSED);
	hmap_remove(&qs->by_id, &q->by_id);
	frame_release(q->control);
	q->control = NULL;
}

void questions_cancel(struct questions *qs, struct question *q)
{
	if (question_open(q))
		close_question(qs, q);
}

/* --- answers ----------------------------------------------------------- */

static struct question *find(const struct questions *qs, uint64_t id,
			     bool history)
{
	hmap_for_each_hash (node, &qs->by_id, id) {
		struct question *q = container_of(node, struct question, by_id);

		if (q->id == id && q->history == history)
			return q;
	}
	return NULL;
}

static void pause(struct questions *qs, struct question *q)
{
	uint64_t pause_ms = QUESTION_RETRY_MAX_MS;

	if (q->failures < 10)
		pause_ms = min_of(pause_ms,
				  (uint64_t)QUESTION_RETRY_MS << q->failures);
	q->failures++;
	qs->counters.failed++;
	q->due_ms = qs->now_ms + pause_ms;
	if (list_empty(&qs->paused))
		qs->paused_due_ms = qs->now_ms + QUESTION_RETRY_MS;
	move(qs, q, QUESTION_PAUSED);
}

/* The open question that is answered now, closed, or NULL. */
static struct question *take(struct questions *qs, uint64_t id, bool history,
			     bool failed, uint64_t now_ms)
{
	struct question *q = find(qs, id, history);

	qs->now_ms = now_ms;
	if (q == NULL)
		return NULL;
	if (failed) {
		pause(qs, q);
		return NULL;
	}
	qs->counters.answered++;
	close_question(qs, q);
	return q;
}

void questions_history(struct questions *qs, const HistoryAnswer *answer,
		       uint64_t now_ms)
{
	struct question *q = take(qs, answer->id, true, answer->failed, now_ms);

	if (q != NULL)
		q->answered(q, answer, NULL);
}

void questions_tops(struct questions *qs, const TopsAnswer *answer,
		    uint64_t now_ms)
{
	struct question *q =
		take(qs, answer->id, false, answer->failed, now_ms);

	if (q != NULL)
		q->answered(q, NULL, answer);
}

void questions_link_lost(struct questions *qs, const struct upstream *u,
			 uint64_t now_ms)
{
	qs->now_ms = now_ms;
	list_for_each_safe (node, &qs->asked) {
		struct question *q =
			container_of(node, struct question, in_questions);

		if (q->upstream == u)
			move(qs, q, QUESTION_WAITING);
	}
}

size_t history_sound(const HistoryAnswer *a, uint64_t after)
{
	size_t n = 0;

	while (n < a->n_messages &&
	       (n == 0 ? a->messages[0]->offset > after
		       : a->messages[n]->offset ==
				 a->messages[n - 1]->offset + 1))
		n++;
	return n;
}

/* --- asking ------------------------------------------------------------ */

/* All are given the same time, so the list is in the order of due_ms. */
static void give_up(struct questions *qs)
{
	while (!list_empty(&qs->asked)) {
		struct question *q = container_of(
			qs->asked.next, struct question, in_questions);

		if (q->due_ms > qs->now_ms)
			return;
		qs->counters.timeouts++;
		move(qs, q, QUESTION_WAITING);
	}
}

/* There may be as many as there are channels, in no order: not each turn. */
static void end_pauses(struct questions *qs)
{
	if (list_empty(&qs->paused) || qs->now_ms < qs->paused_due_ms)
		return;
	qs->paused_due_ms = qs->now_ms + QUESTION_RETRY_MS;
	list_for_each_safe (node, &qs->paused) {
		struct question *q =
			container_of(node, struct question, in_questions);

		if (q->due_ms <= qs->now_ms)
			move(qs, q, QUESTION_WAITING);
	}
}

void questions_run(struct questions *qs, uint64_t now_ms)
{
	qs->now_ms = now_ms;
	give_up(qs);
	end_pauses(qs);
	while (!list_empty(&qs->waiting) && qs->asked_count < QUESTIONS_MAX) {
		struct question *q = container_of(
			qs->waiting.next, struct question, in_questions);
		const struct upstream *u =
			qs->ops->send(qs->ctx, q->control, q->upstream);

		if (u == NULL)
			return;
		q->upstream = u;
		q->due_ms = now_ms + QUESTION_TIMEOUT_MS;
		qs->counters.asked++;
		move(qs, q, QUESTION_ASKED);
	}
}

/* questions.h - what this worker asks of the store, through any dispatcher
 * (pure: sends through struct questions_ops).
 *
 * A question is embedded in its asker's own struct and asked again, of another
 * dispatcher, until it is answered or cancelled: after QUESTION_TIMEOUT_MS
 * without an answer, when the link it went by is lost, and, after a pause that
 * doubles up to QUESTION_RETRY_MAX_MS, when the answer is that the store can't
 * be asked. At most QUESTIONS_MAX are under way; more wait, the oldest first.
 */
#ifndef STENTOR_CONNNODE_QUESTIONS_H
#define STENTOR_CONNNODE_QUESTIONS_H

#include "common/codec/linkwire.h"
#include "common/ds/hmap.h"
#include "common/ds/list.h"

#include <stdbool.h>
#include <stdint.h>

#define QUESTIONS_MAX	      64
#define QUESTION_TIMEOUT_MS   3000
#define QUESTION_RETRY_MS     100
#define QUESTION_RETRY_MAX_MS 2000

typedef Stentor__Link__V1__HistoryQuery HistoryQuery;
typedef Stentor__Link__V1__HistoryAnswer HistoryAnswer;
typedef Stentor__Link__V1__TopsQuery TopsQuery;
typedef Stentor__Link__V1__TopsAnswer TopsAnswer;

struct question;
struct upstream;

/* The answer is borrowed during the call. The question is the asker's again
 * and may be asked anew, or freed, from inside. One of the two is NULL. */
typedef void (*question_cb)(struct question *q, const HistoryAnswer *history,
			    const TopsAnswer *tops);

struct question {
	question_cb answered;
	/* private */
	struct list in_questions; /* waiting, or under way; else empty */
	struct hmap_node by_id;
	uint64_t id;	       /* 0: not under way */
	struct frame *control; /* encoded, without the id */
	bool history;	       /* or tops */
	const struct upstream *upstream;
	uint64_t due_ms; /* under way: given up then; waiting: not sooner */
	uint32_t failures;
};

struct questions_ops {
	/* Queues a control frame for one of the dispatchers that are UP, not
	 * `except` if there is another. NULL: none is UP. */
	const struct upstream *(*send)(void *ctx, struct frame *control,
				       const struct upstream *except);
};

struct questions {
	const struct questions_ops *ops;
	void *ctx;
	struct list waiting, asked; /* struct question.in_questions */
	struct hmap by_id;
	unsigned asked_count;
	uint64_t last_id;
	struct {
		uint64_t asked, answered, failed, timeouts;
	} counters;
};

void questions_init(struct questions *q, const struct questions_ops *ops,
		    void *ctx);
/* Every question must have been answered or cancelled. */
void questions_fini(struct questions *q);

void question_init(struct question *q, question_cb answered);
static inline bool question_open(const struct question *q)
{
	return !list_empty(&q->in_questions);
}
/* The query is borrowed during the call (its id is set here). */
void questions_ask_history(struct questions *qs, struct question *q,
			   HistoryQuery *query, uint64_t now_ms);
void questions_ask_tops(struct questions *qs, struct question *q,
			TopsQuery *query, uint64_t now_ms);
/* Does nothing if it is not open. */
void questions_cancel(struct questions *qs, struct question *q);

/* Answers that arrived; unknown ids are ignored (late). */
void questions_history(struct questions *qs, const HistoryAnswer *answer,
		       uint64_t now_ms);
void questions_tops(struct questions *qs, const TopsAnswer *answer,
		    uint64_t now_ms);
/* The link to a dispatcher is lost: what went by it is asked anew. */
void questions_link_lost(struct questions *qs, const struct upstream *u,
			 uint64_t now_ms);
/* Sends what waits and may go; every turn or so, and when a link comes up. */
void questions_run(struct questions *qs, uint64_t now_ms);

#endif

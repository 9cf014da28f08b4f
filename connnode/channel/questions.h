/* questions.h - what this worker asks of the store, through any dispatcher
 * (pure: sends through struct questions_ops).
 *
 * A question is embedded in its asker's own struct and asked again, of another
 * dispatcher, until it is answered or cancelled:
 *
 *	WAITING --questions_run()--> ASKED --answered--> the asker's
 *	   ^  ^                       |  |
 *	   |  +--link lost, timeout---+  | the store can't be asked
 *	   +----------------PAUSED <-----+
 *
 * It keeps its id all the time, so that a late answer is as good as the one to
 * the latest attempt. A pause is QUESTION_RETRY_MS and doubles with each
 * failure up to QUESTION_RETRY_MAX_MS. At most QUESTIONS_MAX are under way;
 * more wait, the oldest first.
 */
#ifndef STENTOR_CONNNODE_CHANNEL_QUESTIONS_H
#define STENTOR_CONNNODE_CHANNEL_QUESTIONS_H

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

enum question_phase {
	QUESTION_CLOSED,
	QUESTION_WAITING,
	QUESTION_ASKED,
	QUESTION_PAUSED
};

struct question {
	question_cb answered;
	/* private */
	enum question_phase phase;
	struct list in_questions; /* the phase's list */
	struct hmap_node by_id;
	uint64_t id;
	struct frame *control;		 /* encoded */
	bool history;			 /* or tops */
	const struct upstream *upstream; /* asked last; only ever compared */
	uint64_t due_ms; /* ASKED: given up then; PAUSED: its end */
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
	/* struct question.in_questions, in the order they got there */
	struct list waiting, asked, paused;
	struct hmap by_id;
	unsigned asked_count;
	uint64_t last_id;
	uint64_t now_ms;	/* as of the last call, for askers */
	uint64_t paused_due_ms; /* no pause is looked at before */
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
	return q->phase != QUESTION_CLOSED;
}
/* The query is borrowed during the call (its id is set here). */
void questions_ask_history(struct questions *qs, struct question *q,
			   HistoryQuery *query, uint64_t now_ms);
void questions_ask_tops(struct questions *qs, struct question *q,
			TopsQuery *query, uint64_t now_ms);
/* Does nothing if it is not open. */
void questions_cancel(struct questions *qs, struct question *q);

/* Answers that arrived; ids that are not open are ignored (late, or forged). */
void questions_history(struct questions *qs, const HistoryAnswer *answer,
		       uint64_t now_ms);
void questions_tops(struct questions *qs, const TopsAnswer *answer,
		    uint64_t now_ms);
/* How many of the answer's messages are in order, behind `after` and without a
 * hole; the dispatcher may be of another version, and is not trusted to the
 * end. */
size_t history_sound(const HistoryAnswer *a, uint64_t after);
/* The link to a dispatcher is lost: what went by it is asked anew. */
void questions_link_lost(struct questions *qs, const struct upstream *u,
			 uint64_t now_ms);
/* Sends what waits and may go; every turn or so, and when a link comes up. */
void questions_run(struct questions *qs, uint64_t now_ms);

#endif

/* history.h - workers' questions about logs, answered from the store (pure).
 *
 * A question becomes an operation of the store, or joins one that waits or is
 * under way and asks the same: a crowd that comes back to a channel at once is
 * one read. Its answer goes on the worker's queue in the lowest lane, so that
 * replays do not delay live messages, and is never shed there.
 *
 * Limits: HISTORY_READS_MAX operations are under way, more questions wait, the
 * oldest first. Too many questions (HISTORY_WORKER_MAX of one worker,
 * HISTORY_QUESTIONS_MAX or HISTORY_HELD_MAX bytes in all), or a worker's queue
 * that is half full, or all of them half full of what can't be displaced, or
 * the store away: the answer is `failed`, and the worker asks again later, or
 * another dispatcher. A record that is none is left out. An answer is at most
 * about one batch, unless its only message is larger.
 *
 * A worker's question after tops carries what it has seen of each log, and the
 * answers tell a log's eras (store.h): so both learn of it when a store has
 * gone back. Once all of its questions are answered the worker is `compared`.
 */
#ifndef STENTOR_DISPATCHER_PUBLISH_HISTORY_H
#define STENTOR_DISPATCHER_PUBLISH_HISTORY_H

#include "dispatcher/route/nodes.h"
#include "dispatcher/store/store.h"

#define HISTORY_READS_MAX     64
#define HISTORY_WORKER_MAX    128
#define HISTORY_QUESTIONS_MAX 8192
#define HISTORY_HELD_MAX      ((size_t)64 << 20)
/* Of one answer: records, and what each costs beside its bytes, fit a batch. */
#define HISTORY_MESSAGES_MAX 512
#define HISTORY_BYTES_MAX    (54u << 10)

struct history_store {
	void (*read)(void *ctx, struct store_read *r);
	void (*tops)(void *ctx, struct store_tops *t);
	/* Why it can't be asked now; NULL: it can. Borrowed. */
	const char *(*fault)(void *ctx);
	void *ctx;
};

struct history {
	struct nodes *nodes;
	struct history_store store;
	struct hash_key key;
	struct list waiting;	 /* struct history_job.in_waiting */
	struct hmap by_question; /* reads that wait or are under way */
	unsigned under_way;
	size_t questions, held; /* not answered; bytes of their jobs */
	bool closing;
	struct {
		uint64_t questions, shared, failed, refused, messages;
		uint64_t corrupt; /* records */
	} counters;
};

void history_init(struct history *h, struct nodes *nodes,
		  const struct history_store *store);
/* Before the store closes: what waits is forgotten, nothing more is asked. */
void history_close(struct history *h);
/* After the store has closed. */
void history_fini(struct history *h);

/* nodes_ops.history and .tops; borrowed. */
void history_ask(struct history *h, struct node_worker *w,
		 const HistoryQuery *query);
void history_ask_tops(struct history *h, struct node_worker *w,
		      const TopsQuery *query);

#endif

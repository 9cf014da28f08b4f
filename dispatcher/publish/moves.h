/* moves.h - tops of logs that have moved without a message that we could route
 * (pure).
 *
 *	heard	 another dispatcher of the store has appended; workers that have
 *		 no link to it are told
 *	doubtful an append of ours, of which nobody can know whether it was done
 *		 because the connection to the store broke: when the store can
 *		 be asked again, tops are read, MOVES_READ at each tick, and all
 *		 interested workers are told
 *
 * Told means marked: nodes.h sends it when the link has room. At most
 * MOVES_DOUBTS_MAX channels are doubtful; beyond that workers are told, once
 * the store is back, that logs have moved which can't be named.
 */
#ifndef STENTOR_DISPATCHER_PUBLISH_MOVES_H
#define STENTOR_DISPATCHER_PUBLISH_MOVES_H

#include "common/base/config.h"
#include "dispatcher/publish/history.h"
#include "dispatcher/route/nodes.h"
#include "dispatcher/store/store.h"

#define MOVES_DOUBTS_MAX 8192
#define MOVES_READ	 256

struct moves {
	struct nodes *nodes;
	const struct rules *rules; /* a channel's lane; may be exchanged */
	struct history_store store;
	struct hmap by_channel; /* struct doubt (moves.c) */
	struct list doubts;	/* struct doubt.in_doubts, the oldest first */
	size_t count;
	bool unnamed; /* there were too many */
	bool reading; /* `tops` is under way, of `names` */
	bool closing;
	struct store_tops tops;
	char *names[MOVES_READ];
	struct store_place places[MOVES_READ];
	struct {
		uint64_t heard, missed, doubts, resolved;
	} counters;
};

void moves_init(struct moves *m, struct nodes *nodes, const struct rules *rules,
		const struct history_store *store);
/* Before the store closes: nothing more is asked. */
void moves_close(struct moves *m);
/* After the store has closed. */
void moves_fini(struct moves *m);

/* store_config.moved: `by` has appended, or (channel NULL) may have. */
void moves_heard(struct moves *m, uint64_t by, const char *channel,
		 struct store_place top);
/* publish_store.doubt */
void moves_doubt(struct moves *m, const char *channel);
/* Every 100 ms or so. */
void moves_tick(struct moves *m);

#endif

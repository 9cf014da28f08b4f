/* parts.h - what a simulated cluster is made of: processes, subscribers, and what
 * is known of this run.
 */
#ifndef STENTOR_TESTS_SIM_PARTS_H
#define STENTOR_TESTS_SIM_PARTS_H

#include "connnode/channel/channels.h"
#include "connnode/channel/logs.h"
#include "connnode/link/announcer.h"
#include "dispatcher/publish/history.h"
#include "dispatcher/publish/publish.h"
#include "dispatcher/route/counts.h"
#include "tests/sim/store.h"

#define WORKERS_MAX	5
#define ENTRIES_MAX	(3 * WORKERS_MAX) /* those that are refused, too */
#define SUBSCRIBERS_MAX 24		  /* of one worker */
#define TICK_MS		100
#define SETTLE_MS	2000
#define QUEUE_BYTES	(4u << 20)
#define QUEUE_NARROW	(192u << 10)
#define QUEUE_TIGHT	8192
#define HELD_BYTES	(1u << 20)
#define HELD_FEW	2000
#define SWEEP_MS	3000
#define SWEEP_NEVER	(1000u * SWEEP_MS)

/* A message that a subscriber must get while the link that carries it lives. */
struct expected {
	uint64_t link; /* epoch of the dispatcher's side */
	uint64_t number;
};

/* What a subscriber gets from one dispatcher. */
struct feed {
	uint64_t instance; /* of the dispatcher */
	uint64_t last;	   /* number of the newest message */
	struct expected *expected;
	size_t first, count, cap;
};

struct subscriber {
	struct subscription subscription;
	struct list in_worker;
	unsigned channel;
	uint64_t id, generation;
	bool ready;
	struct feed feeds[DISPATCHERS_MAX];
};

/* What a worker has passed on of a reliable channel. */
struct track {
	bool known;
	unsigned number; /* of the log: whose store the worker follows */
	struct place at, begun;
	uint64_t begun_ms;
	struct store_place from; /* the log's top when it was opened */
	/* By number of a message, less one. */
	enum { NOTHING, PASSED, TOLD } got[MESSAGES_MAX];
};

struct sim_worker {
	struct process process;
	unsigned index;
	char node[24], address[24];
	struct channels channels;
	struct announcer announcer;
	struct questions questions;
	struct logs logs;
	struct track tracks[RELIABLE];
	struct list subscribers;
	unsigned count, on_channel[CHANNELS];
	uint64_t tick_ms, dead_until_ms, held_until_ms;
	uint64_t link;	/* sender's epoch of the frame being received */
	bool whole;	/* at the last tick */
	uint64_t swept; /* by the sweep alone, when the faults had ended */
};

struct sim_dispatcher {
	struct process process;
	unsigned index;
	struct nodes nodes;
	struct publisher publisher;
	struct history history;
	struct counts counts;
	struct moves moves;
	unsigned store;
	bool barred[WORKERS_MAX]; /* it can't dial them back */
	uint64_t tick_ms, again_ms, started_ms, dead_until_ms;
	uint64_t heard_ms[WORKERS_MAX];
};

static struct {
	unsigned dispatchers, workers;
	bool alias;	     /* workers know dispatcher 0 by two addresses */
	bool calm;	     /* nothing fails, and everybody is linked to all */
	bool barred;	     /* some workers can't be dialled by somebody */
	bool drops;	     /* queues so small that messages are dropped */
	bool tight;	     /* so small that no answer from the store fits */
	bool stray;	     /* the last dispatcher has a store of its own */
	bool quiet;	     /* only stores and news fail */
	unsigned marks_loss; /* per mille of "moved", beyond all promises */
	size_t queue_bytes, held_bytes;
	uint64_t sweep_ms;
	uint64_t subscribers;
	struct {
		uint64_t delivered, confirmed, expected, links;
		uint64_t passed, fetched, gaps[GAP_REASONS];
		uint64_t late; /* told to be lost after the move */
		uint64_t owed; /* acknowledged, and passed on or told */
		uint64_t marks, marks_lost; /* frames of "moved" */
		uint64_t swept;		    /* found by the sweep alone */
		uint64_t switched; /* logs that went to the other store's */
	} total;
	struct sim_dispatcher dispatcher[DISPATCHERS_MAX];
	struct sim_worker worker[WORKERS_MAX];
} cluster;

static struct rule rules_of_all[] = {
	{.pattern = "log:*",
	 .priority = PRIORITY_NORMAL,
	 .history_size = HISTORY_SIZE,
	 .history_ttl_ms = HISTORY_TTL},
	{.pattern = "critical:*", .priority = PRIORITY_CRITICAL},
	{.pattern = "droppable:*", .priority = PRIORITY_DROPPABLE},
	{.pattern = "*", .priority = PRIORITY_NORMAL},
};
static const struct rules rules = {.rule = rules_of_all, .count = 4};

/* "tcp://d0", "tcp://d0b" (the same), "tcp://w3" */
static struct process *process_at(const char *address)
{
	unsigned index = (unsigned)(address[7] - '0');

	return address[6] == 'd' ? &cluster.dispatcher[index].process
				 : &cluster.worker[index].process;
}

#endif

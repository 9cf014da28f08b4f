/* store.h - the store that the dispatchers share, and the truth about it.
 *
 * Operations take random time: each is *done* at one moment and answered at a
 * later one; a dispatcher that dies in between has appended a message that it
 * never routed. Each dispatcher's are done in order. What may go wrong:
 *
 *	down	 operations fail for a time; an append may be done all the same
 *	slow	 they take long
 *	rewound	 the newest messages of a log are lost (only in some runs)
 *	gone	 a log that was silent for LINGER_MS is forgotten, and the next
 *		 message begins a new one (only in some runs)
 *
 * Messages go by the rule: all but the newest, or all when they are too old.
 * For the truth every message is remembered, with the log it was in.
 */
#ifndef STENTOR_TESTS_SIM_STORE_H
#define STENTOR_TESTS_SIM_STORE_H

#include "common/codec/place.h"
#include "common/ds/frame.h"
#include "dispatcher/store/store.h"
#include "tests/sim/net.h"

#define RELIABLE	2 /* channels, the first ones */
#define DISPATCHERS_MAX 3
#define HISTORY_SIZE	60
#define LOST_MAX	256
#define HISTORY_TTL	2500 /* ms */
#define LINGER_MS	7500
#define SILENCE_MS	8192 /* of the producers of a channel, now and then */
#define STORE_MS	8    /* an operation takes */
#define STORE_SLOW_MS	600  /* sometimes */
#define LOGS_MAX	64   /* of one channel */
#define STORE_ID	77

struct sim_log {
	uint64_t epoch, top, used_ms;
	uint64_t kept;		/* messages with a greater offset are there */
	uint64_t rewound;	/* so many messages were always the same */
	struct frame **records; /* by offset - 1 */
	size_t cap;
};

enum sim_op_kind { SIM_APPEND, SIM_READ, SIM_TOPS };

struct sim_op {
	struct list in_store;
	enum sim_op_kind kind;
	void *op; /* struct store_append, _read or _tops */
	uint64_t at_ms, answer_ms;
	bool executed;
	struct store_record *records;
};

static struct {
	struct sim_log logs[RELIABLE][LOGS_MAX];
	unsigned count[RELIABLE];
	bool there[RELIABLE]; /* the newest one is not gone */
	/* What this run has */
	bool rewinds, goes, expires, short_of_room;
	struct place acknowledged[RELIABLE]; /* the greatest, to a producer */
	uint64_t down_until_ms, slow_until_ms;
	struct list ops[DISPATCHERS_MAX]; /* struct sim_op.in_store */
	/* Rewound messages that a read may still point to. */
	struct frame *lost[LOST_MAX];
	unsigned lost_next;
	struct {
		uint64_t appended, epochs, rewinds, failed;
	} total;
} store;

static const char *const channel_names[] = {
	"log:a", "log:b", "critical:a", "droppable:a",
	"a",	 "b",	  "c",		"score:1"};
#define CHANNELS 8

static bool place_before(struct place a, struct place b)
{
	return a.epoch != b.epoch ? a.epoch < b.epoch : a.offset < b.offset;
}

static unsigned channel_number(const char *name)
{
	unsigned i = 0;

	while (strcmp(channel_names[i], name) != 0)
		i++;
	return i;
}

static struct sim_log *newest_log(unsigned channel)
{
	return store.count[channel] > 0
		       ? &store.logs[channel][store.count[channel] - 1]
		       : NULL;
}

/* The log that is there now, or NULL. */
static struct sim_log *current_log(unsigned channel)
{
	struct sim_log *log = newest_log(channel);

	if (log == NULL || !store.there[channel])
		return NULL;
	if (store.goes && world.now_ms - log->used_ms >= LINGER_MS) {
		store.there[channel] = false;
		return NULL;
	}
	if (store.expires && world.now_ms - log->used_ms >= HISTORY_TTL)
		log->kept = log->top;
	return log;
}

static struct sim_log *log_of(unsigned channel, uint64_t epoch)
{
	for (unsigned i = 0; i < store.count[channel]; i++) {
		if (store.logs[channel][i].epoch == epoch)
			return &store.logs[channel][i];
	}
	return NULL;
}

static struct store_place store_top(unsigned channel)
{
	const struct sim_log *log = current_log(channel);

	return log ? (struct store_place){log->epoch, log->top}
		   : (struct store_place){world.now_ms, 0};
}

static struct sim_log *log_begin(unsigned channel)
{
	struct sim_log *last = newest_log(channel), *log;
	uint64_t after = last ? last->epoch + 1 : 0;

	if (store.count[channel] == LOGS_MAX)
		fail("too many logs");
	log = &store.logs[channel][store.count[channel]++];
	*log = (struct sim_log){
		.epoch = max_of(world.now_ms, after),
		.rewound = UINT64_MAX,
	};
	store.there[channel] = true;
	store.total.epochs++;
	return log;
}

static void store_lose(struct frame *record)
{
	struct frame **place = &store.lost[store.lost_next++ % LOST_MAX];

	if (*place != NULL)
		frame_release(*place);
	*place = record;
}

static void do_append(struct store_append *a)
{
	unsigned channel = channel_number(a->channel);
	struct sim_log *log = current_log(channel);

	if (log == NULL)
		log = log_begin(channel);
	if (log->top == log->cap) {
		size_t cap = max_of(2 * log->cap, (size_t)64);

		log->records =
			xrealloc(log->records, cap * sizeof(*log->records));
		memset(log->records + log->cap, 0,
		       (cap - log->cap) * sizeof(*log->records));
		log->cap = cap;
	}
	if (log->records[log->top] != NULL)
		store_lose(log->records[log->top]);
	log->records[log->top++] = frame_from(a->record, a->len);
	log->used_ms = world.now_ms;
	if (store.short_of_room && log->top - log->kept > HISTORY_SIZE)
		log->kept = log->top - HISTORY_SIZE;
	a->place = (struct store_place){log->epoch, log->top};
	store.total.appended++;
	trace("store: channel %llu has %llu:%llu", channel, log->epoch,
	      log->top);
}

static void do_read(struct sim_op *op, struct store_read *r)
{
	unsigned channel = channel_number(r->channel);
	const struct sim_log *log = current_log(channel);
	uint64_t from;
	size_t bytes = 0;

	r->top = store_top(channel);
	r->first = log ? log->kept + 1 : 1;
	r->count = 0;
	if (log == NULL || (r->epoch != 0 && r->epoch != log->epoch))
		return;
	op->records = xcalloc(r->records_max, sizeof(*op->records));
	r->records = op->records;
	from = max_of(r->after, log->kept);
	while (from < log->top && r->count < r->records_max) {
		const struct frame *f = log->records[from++];

		bytes += f->len;
		if (r->count > 0 && bytes > r->bytes_max)
			break;
		op->records[r->count++] =
			(struct store_record){from, f->bytes, f->len};
	}
}

static void execute(struct sim_op *op)
{
	bool down = world.now_ms < store.down_until_ms;
	int rc = down ? ERR_UNAVAILABLE : 0;
	struct store_append *a = op->op;
	struct store_tops *t = op->op;

	op->executed = true;
	store.total.failed += down;
	switch (op->kind) {
	case SIM_APPEND:
		a->rc = rc;
		a->definite = false;
		a->duplicate = false;
		if (!down || chance(300))
			do_append(a);
		break;
	case SIM_READ:
		((struct store_read *)op->op)->rc = rc;
		if (!down)
			do_read(op, op->op);
		break;
	case SIM_TOPS:
		t->rc = rc;
		for (size_t i = 0; i < t->count && !down; i++)
			t->places[i] =
				store_top(channel_number(t->channels[i]));
	}
}

static void answer(struct sim_op *op)
{
	list_remove(&op->in_store);
	if (op->kind == SIM_APPEND)
		((struct store_append *)op->op)->done(op->op);
	else if (op->kind == SIM_READ)
		((struct store_read *)op->op)->done(op->op);
	else
		((struct store_tops *)op->op)->done(op->op);
	free(op->records);
	free(op);
}

static void store_submit(unsigned dispatcher, enum sim_op_kind kind, void *what)
{
	struct list *ops = &store.ops[dispatcher];
	struct sim_op *op = xcalloc(1, sizeof(*op));
	bool slow = chance(10) || world.now_ms < store.slow_until_ms;
	uint64_t takes_ms = slow ? STORE_SLOW_MS : STORE_MS;

	op->kind = kind;
	op->op = what;
	op->at_ms = world.now_ms + below(takes_ms);
	op->answer_ms = op->at_ms + below(takes_ms);
	if (!list_empty(ops)) {
		const struct sim_op *last =
			container_of(ops->prev, struct sim_op, in_store);

		op->at_ms = max_of(op->at_ms, last->at_ms);
		op->answer_ms = max_of(op->answer_ms, last->answer_ms);
	}
	list_push_back(ops, &op->in_store);
}

/* Everything of a dispatcher's that is due by now. True if something was
 * answered. */
static bool store_step(unsigned dispatcher)
{
	struct list *ops = &store.ops[dispatcher];
	bool answered = false;

	list_for_each (node, ops) {
		struct sim_op *op = container_of(node, struct sim_op, in_store);

		if (!op->executed && op->at_ms <= world.now_ms)
			execute(op);
	}
	while (!list_empty(ops)) {
		struct sim_op *op =
			container_of(ops->next, struct sim_op, in_store);

		if (!op->executed || op->answer_ms > world.now_ms)
			break;
		answer(op);
		answered = true;
	}
	return answered;
}

/* A dispatcher dies. What it has sent off is done or not; nobody is answered,
 * except that the operation's memory has to be given back. */
static void store_forsake(unsigned dispatcher)
{
	struct list *ops = &store.ops[dispatcher];

	while (!list_empty(ops)) {
		struct sim_op *op =
			container_of(ops->next, struct sim_op, in_store);

		if (op->kind == SIM_APPEND) {
			struct store_append *a = op->op;

			if (!op->executed && chance(500))
				execute(op);
			a->rc = ERR_UNAVAILABLE;
		} else if (op->kind == SIM_READ) {
			((struct store_read *)op->op)->rc = ERR_UNAVAILABLE;
		} else {
			((struct store_tops *)op->op)->rc = ERR_UNAVAILABLE;
		}
		answer(op);
	}
}

static void store_rewind(void)
{
	unsigned channel = (unsigned)below(RELIABLE);
	struct sim_log *log = newest_log(channel);
	struct place *acknowledged = &store.acknowledged[channel];

	if (log == NULL || log->top == log->kept)
		return;
	log->top -= 1 + below(min_of(log->top - log->kept, (uint64_t)5));
	log->rewound = min_of(log->rewound, log->top);
	if (acknowledged->epoch == log->epoch)
		acknowledged->offset = min_of(acknowledged->offset, log->top);
	store.total.rewinds++;
	trace("store: the log %llu is rewound to %llu", log->epoch, log->top);
}

/* One random misfortune of the store. */
static void store_fault(void)
{
	if (store.rewinds && chance(300)) {
		store_rewind();
	} else if (chance(500)) {
		store.down_until_ms = world.now_ms + below(2500);
		trace("store: down until %llu ms", store.down_until_ms);
	} else {
		store.slow_until_ms = world.now_ms + below(1500);
		trace("store: slow until %llu ms", store.slow_until_ms);
	}
}

static void store_heal(void)
{
	store.down_until_ms = store.slow_until_ms = 0;
}

static void store_begin(void)
{
	memset(&store, 0, sizeof(store));
	store.rewinds = chance(200);
	store.goes = chance(400);
	store.expires = chance(300);
	store.short_of_room = chance(300);
	for (unsigned i = 0; i < DISPATCHERS_MAX; i++)
		list_init(&store.ops[i]);
}

static void store_end(void)
{
	for (unsigned i = 0; i < LOST_MAX; i++) {
		if (store.lost[i] != NULL)
			frame_release(store.lost[i]);
	}
	for (unsigned c = 0; c < RELIABLE; c++) {
		for (unsigned i = 0; i < store.count[c]; i++) {
			struct sim_log *log = &store.logs[c][i];

			for (size_t k = 0; k < log->cap; k++) {
				if (log->records[k] != NULL)
					frame_release(log->records[k]);
			}
			free(log->records);
		}
	}
}

#endif

/* store.h - the store that the dispatchers share, and the truth about it.
 *
 * Operations take random time: each is *done* at one moment and answered at a
 * later one; a dispatcher that dies in between has appended a message that it
 * never routed. Each dispatcher's are done in order. What may go wrong:
 *
 *	down	 operations fail for a time; an append may be done all the same
 *	slow	 they take long
 *	rewound	 the newest messages of a log are lost (only in some runs): it
 *		 gets a new epoch before anything is appended, or when somebody
 *		 has seen more than is left
 *	gone	 a log that was silent for LINGER_MS is forgotten, and the next
 *		 message begins a new one (only in some runs)
 *
 * Messages go by the rule: all but the newest, or all when they are too old.
 * For the truth every message is remembered, with the log it was in, under a
 * number of its own (its record's accepted_us).
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
#define HISTORY_TTL	2500 /* ms */
#define LINGER_MS	7500
#define SILENCE_MS	8192 /* of the producers of a channel, now and then */
#define STORE_MS	8    /* an operation takes */
#define STORE_SLOW_MS	600  /* sometimes */
#define LOGS_MAX	64   /* of one channel, epochs counted */
#define MESSAGES_MAX	65536
#define STORE_ID	77

struct sim_log {
	uint64_t epoch, top, used_ms;
	uint64_t kept;		/* messages with a greater offset are there */
	uint64_t ever;		/* the greatest top it ever had */
	bool suspect;		/* it was rewound: a new epoch is due */
	bool carries;		/* it is an epoch of the log before: */
	uint64_t base;		/* up to here they are the same */
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
	bool renews; /* a log that was rewound, also when its top is asked */
	struct place acknowledged[RELIABLE]; /* the greatest, to a producer */
	/* Of each message: where it was first, and whether its producer was
	 * told that it is there. */
	struct sim_message {
		unsigned channel;
		struct place place;
		bool acknowledged;
		uint64_t lost_ms; /* when the store went back */
	} messages[MESSAGES_MAX];
	uint64_t message_count;
	uint64_t down_until_ms, slow_until_ms;
	struct list ops[DISPATCHERS_MAX]; /* struct sim_op.in_store */
	struct {
		uint64_t appended, epochs, rewinds, failed;
	} total;
} store;

static const char *const channel_names[] = {
	"log:a", "log:b", "critical:a", "droppable:a",
	"a",	 "b",	  "c",		"score:1"};
#define CHANNELS 8

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

/* Where there is no log, a clock that is beyond all epochs there were. */
static struct store_place store_top(unsigned channel)
{
	const struct sim_log *log = current_log(channel);
	uint64_t epoch = world.now_ms;

	if (log != NULL)
		return (struct store_place){log->epoch, log->top};
	if (newest_log(channel) != NULL)
		epoch = max_of(epoch, newest_log(channel)->epoch + 1);
	return (struct store_place){epoch, 0};
}

/* The eras of the log that is there now. */
static void store_eras_of(unsigned channel, struct store_eras *eras)
{
	const struct sim_log *log = current_log(channel);
	uint64_t base = UINT64_MAX;

	eras->count = 0;
	for (; log != NULL && log->carries && eras->count < STORE_ERAS_MAX;
	     log--) {
		base = min_of(base, log->base);
		eras->era[eras->count++] =
			(struct store_era){log[-1].epoch, base};
	}
}

/* How many messages the logs `a` and `b`, a later one, have in common. */
static uint64_t store_common(const struct sim_log *a, const struct sim_log *b)
{
	uint64_t base = UINT64_MAX;

	for (; b > a; b--) {
		if (!b->carries)
			return 0;
		base = min_of(base, b->base);
	}
	return base;
}

static struct sim_log *log_begin(unsigned channel, uint64_t after)
{
	struct sim_log *last = newest_log(channel), *log;

	if (last != NULL)
		after = max_of(after, last->epoch);
	if (store.count[channel] == LOGS_MAX)
		fail("too many logs");
	log = &store.logs[channel][store.count[channel]++];
	*log = (struct sim_log){.epoch = max_of(world.now_ms, after + 1)};
	store.there[channel] = true;
	store.total.epochs++;
	return log;
}

static void log_grow(struct sim_log *log, uint64_t room)
{
	size_t cap = max_of(2 * log->cap, (size_t)64);

	if (room <= log->cap)
		return;
	cap = max_of(cap, room);
	log->records = xrealloc(log->records, cap * sizeof(*log->records));
	memset(log->records + log->cap, 0,
	       (cap - log->cap) * sizeof(*log->records));
	log->cap = cap;
}

/* The log goes on in a new epoch, with all that it still has. */
static struct sim_log *log_carry(unsigned channel, uint64_t after)
{
	struct sim_log *last = newest_log(channel);
	struct sim_log *log = log_begin(channel, after);

	log->carries = true;
	log->base = log->top = log->ever = last->top;
	log->kept = min_of(last->kept, last->top);
	log->used_ms = last->used_ms;
	log_grow(log, log->top);
	for (uint64_t i = 0; i < log->top; i++)
		log->records[i] = frame_hold(last->records[i]);
	trace("store: channel %llu goes on at %llu:%llu", channel, log->epoch,
	      log->top);
	return log;
}

static uint64_t message_new(unsigned channel, const struct sim_log *log)
{
	struct sim_message *m = &store.messages[store.message_count];

	if (++store.message_count == MESSAGES_MAX)
		fail("too many messages");
	*m = (struct sim_message){
		.channel = channel,
		.place = {log->epoch, log->top},
		.lost_ms = UINT64_MAX,
	};
	return store.message_count;
}

/* Of a position, or NULL. */
static struct sim_message *message_at(unsigned channel, struct place at)
{
	const struct sim_log *log = log_of(channel, at.epoch);

	if (log == NULL || at.offset == 0 || at.offset > log->ever)
		return NULL;
	return &store.messages[log->records[at.offset - 1]->accepted_us - 1];
}

static void do_append(struct store_append *a)
{
	unsigned channel = channel_number(a->channel);
	struct sim_log *log = current_log(channel);

	if (log == NULL)
		log = log_begin(channel, 0);
	else if (log->suspect)
		log = log_carry(channel, 0);
	log_grow(log, log->top + 1);
	log->records[log->top] = frame_from(a->record, a->len);
	log->ever = ++log->top;
	log->records[log->top - 1]->accepted_us = message_new(channel, log);
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
	store_eras_of(channel, &r->eras);
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

/* What a worker says that it has seen must have been there. If it is there no
 * more, the log has gone back. */
static void compare(unsigned channel, struct store_place known)
{
	const struct sim_log *seen = log_of(channel, known.epoch);
	struct sim_log *log = current_log(channel);

	if (known.offset > (seen != NULL ? seen->ever : 0))
		fail("channel %u: nobody has seen %llu:%llu", channel,
		     (unsigned long long)known.epoch,
		     (unsigned long long)known.offset);
	if (log != NULL &&
	    (known.epoch > log->epoch ||
	     (known.epoch == log->epoch && known.offset > log->top)))
		log_carry(channel, known.epoch);
}

static void do_tops(struct store_tops *t)
{
	for (size_t i = 0; i < t->count; i++) {
		unsigned channel = channel_number(t->channels[i]);

		if (t->known != NULL)
			compare(channel, t->known[i]);
		if (store.renews && current_log(channel) != NULL &&
		    current_log(channel)->suspect)
			log_carry(channel, 0);
		t->places[i] = store_top(channel);
		if (t->eras != NULL)
			store_eras_of(channel, &t->eras[i]);
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
		if (!down)
			do_tops(t);
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
	uint64_t least;

	if (log == NULL || store.count[channel] > LOGS_MAX / 2)
		return;
	/* A state from before the carry would be the epoch before. */
	least = max_of(log->kept, log->carries ? log->base : 0);
	if (log->top == least)
		return;
	log->top -= 1 + below(min_of(log->top - least, (uint64_t)5));
	log->suspect = true;
	for (uint64_t i = log->top; i < log->ever; i++) {
		struct sim_message *m =
			message_at(channel, (struct place){log->epoch, i + 1});

		m->lost_ms = min_of(m->lost_ms, world.now_ms);
	}
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
	store.rewinds = chance(300);
	store.renews = chance(500);
	store.goes = chance(400);
	store.expires = chance(300);
	store.short_of_room = chance(300);
	for (unsigned i = 0; i < DISPATCHERS_MAX; i++)
		list_init(&store.ops[i]);
}

static void store_end(void)
{
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

/* store.h - the store that the dispatchers share, and the truth about it; in
 * some runs a second one, of a minority that is configured wrongly.
 *
 * Operations take random time: each is *done* at one moment and answered at a
 * later one; a dispatcher that dies in between has appended a message that it
 * never routed. Each dispatcher's are done in order. What may go wrong:
 *
 *	down	 operations fail for a time; an append may be done all the same,
 *		 and then its reply is lost, or comes late
 *	slow	 they take long, mostly longer than STORE_TIMEOUT_MS: an append
 *		 fails, its producer is told UNAVAILABLE, and the reply comes
 *		 late
 *	rewound	 the newest messages of a log are lost (only in some runs): it
 *		 gets a new epoch before anything is appended or its top is
 *		 told, or when somebody has seen more than is left
 *	emptied	 a log and all its messages are gone at once (likewise)
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
#include "tests/sim/news.h"

#define RELIABLE	 2 /* channels, the first ones */
#define STORES		 2
#define LOGS		 (STORES * RELIABLE) /* by store, then by channel */
#define HISTORY_SIZE	 60
#define HISTORY_TTL	 2500 /* ms */
#define LINGER_MS	 7500
#define SILENCE_MS	 8192 /* of the producers of a channel, now and then */
#define STORE_MS	 8    /* an operation takes */
#define STORE_SLOW_MS	 600  /* sometimes */
#define STORE_TIMEOUT_MS 500
#define EPOCHS_MAX	 64 /* of one log */
#define MESSAGES_MAX	 65536
#define STORE_ID	 77 /* the second one: 78 */

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

/* What becomes known of an append. */
enum sim_fate {
	SIM_DONE,
	SIM_REFUSED, /* certainly not done */
	SIM_LATE,    /* done, but the reply takes longer than anyone waits */
	SIM_UNKNOWN  /* the reply was lost with its connection */
};

struct sim_op {
	struct list in_store;
	enum sim_op_kind kind;
	unsigned dispatcher, store;
	void *op; /* struct store_append, _read or _tops */
	uint64_t at_ms, answer_ms, timeout_ms;
	bool executed;
	bool answered; /* an append's `done`; its `late` is to come */
	enum sim_fate fate;
	uint64_t message; /* that was appended; 0: none */
	struct store_place place;
	struct store_record *records;
};

static struct {
	struct sim_log logs[LOGS][EPOCHS_MAX];
	unsigned count[LOGS];
	bool there[LOGS]; /* the newest one is not gone */
	/* What this run has */
	bool rewinds, goes, expires, short_of_room;
	uint64_t least[LOGS]; /* epoch of the next one: of what was known */
	/* Of each message: where it was first, and whether it is owed to
	 * everybody. It is when its producer was told that it is there, when
	 * its dispatcher heard so too late for that, and when that can't know
	 * but lives on and can look. */
	struct sim_message {
		unsigned number; /* of its log */
		struct place place;
		bool owed;
		uint64_t doubt; /* instance of a dispatcher that has to look */
		uint64_t lost_ms; /* when the store went back */
	} messages[MESSAGES_MAX];
	uint64_t message_count;
	uint64_t down_until_ms, slow_until_ms;
	struct list ops[DISPATCHERS_MAX]; /* struct sim_op.in_store */
	struct {
		uint64_t appended, epochs, rewinds, failed, late, unknown;
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

static unsigned log_number(const struct sim_op *op, const char *channel)
{
	return op->store * RELIABLE + channel_number(channel);
}

static struct sim_log *newest_log(unsigned number)
{
	return store.count[number] > 0
		       ? &store.logs[number][store.count[number] - 1]
		       : NULL;
}

/* The log that is there now, or NULL. */
static struct sim_log *current_log(unsigned number)
{
	struct sim_log *log = newest_log(number);

	if (log == NULL || !store.there[number])
		return NULL;
	if (store.goes && world.now_ms - log->used_ms >= LINGER_MS) {
		store.there[number] = false;
		return NULL;
	}
	if (store.expires && world.now_ms - log->used_ms >= HISTORY_TTL)
		log->kept = log->top;
	return log;
}

/* The log's that has, or had, the epoch; NULL. */
static struct sim_log *log_of(unsigned number, uint64_t epoch)
{
	for (unsigned i = 0; i < store.count[number]; i++) {
		if (store.logs[number][i].epoch == epoch)
			return &store.logs[number][i];
	}
	return NULL;
}

/* The same of all stores; LOGS: none. */
static unsigned number_of(unsigned channel, uint64_t epoch)
{
	for (unsigned i = channel; i < LOGS; i += RELIABLE) {
		if (log_of(i, epoch) != NULL)
			return i;
	}
	return LOGS;
}

/* Where there is no log, a clock that is beyond all epochs there were. */
static struct store_place store_top(unsigned number)
{
	const struct sim_log *log = current_log(number);
	uint64_t epoch = max_of(world.now_ms, store.least[number]);

	if (log != NULL)
		return (struct store_place){log->epoch, log->top};
	if (newest_log(number) != NULL)
		epoch = max_of(epoch, newest_log(number)->epoch + 1);
	return (struct store_place){epoch, 0};
}

/* The eras of the log that is there now. */
static void store_eras_of(unsigned number, struct store_eras *eras)
{
	const struct sim_log *log = current_log(number);
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

static struct sim_log *log_begin(unsigned number, uint64_t after)
{
	struct sim_log *last = newest_log(number), *log;

	if (last != NULL)
		after = max_of(after, last->epoch);
	if (store.count[number] == EPOCHS_MAX)
		fail("too many logs");
	after = max_of(world.now_ms, max_of(after + 1, store.least[number]));
	/* Two stores could have the same, and nobody could tell. */
	while (number_of(number % RELIABLE, after) != LOGS)
		after++;
	log = &store.logs[number][store.count[number]++];
	*log = (struct sim_log){.epoch = after};
	store.there[number] = true;
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
static struct sim_log *log_carry(unsigned number, uint64_t after)
{
	struct sim_log *last = newest_log(number);
	struct sim_log *log = log_begin(number, after);

	log->carries = true;
	log->base = log->top = log->ever = last->top;
	log->kept = min_of(last->kept, last->top);
	log->used_ms = last->used_ms;
	log_grow(log, log->top);
	for (uint64_t i = 0; i < log->top; i++)
		log->records[i] = frame_hold(last->records[i]);
	trace("store: channel %llu goes on at %llu:%llu", number, log->epoch,
	      log->top);
	return log;
}

static uint64_t message_new(unsigned number, const struct sim_log *log)
{
	struct sim_message *m = &store.messages[store.message_count];

	if (++store.message_count == MESSAGES_MAX)
		fail("too many messages");
	*m = (struct sim_message){
		.number = number,
		.place = {log->epoch, log->top},
		.lost_ms = UINT64_MAX,
	};
	return store.message_count;
}

/* Of a position, or NULL. */
static struct sim_message *message_at(unsigned number, struct place at)
{
	const struct sim_log *log = log_of(number, at.epoch);

	if (log == NULL || at.offset == 0 || at.offset > log->ever)
		return NULL;
	return &store.messages[log->records[at.offset - 1]->accepted_us - 1];
}

static void do_append(struct sim_op *op, const struct store_append *a)
{
	unsigned number = log_number(op, a->channel);
	struct sim_log *log = current_log(number);

	if (log == NULL)
		log = log_begin(number, 0);
	else if (log->suspect)
		log = log_carry(number, 0);
	log_grow(log, log->top + 1);
	log->records[log->top] = frame_from(a->record, a->len);
	log->ever = ++log->top;
	op->message = message_new(number, log);
	log->records[log->top - 1]->accepted_us = op->message;
	log->used_ms = world.now_ms;
	if (store.short_of_room && log->top - log->kept > HISTORY_SIZE)
		log->kept = log->top - HISTORY_SIZE;
	op->place = (struct store_place){log->epoch, log->top};
	store.total.appended++;
	trace("store: channel %llu has %llu:%llu", number, log->epoch,
	      log->top);
}

static void do_read(struct sim_op *op, struct store_read *r)
{
	unsigned number = log_number(op, r->channel);
	const struct sim_log *log = current_log(number);
	uint64_t from;
	size_t bytes = 0;

	r->top = store_top(number);
	store_eras_of(number, &r->eras);
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

/* What a worker says that it has seen must have been there, or in the other
 * store. If it is there no more, the log has gone back. */
static void compare(unsigned number, struct store_place known)
{
	unsigned in = number_of(number % RELIABLE, known.epoch);
	const struct sim_log *seen = in < LOGS ? log_of(in, known.epoch) : NULL;
	struct sim_log *log = current_log(number);

	if (known.offset > (seen != NULL ? seen->ever : 0))
		fail("channel %u: nobody has seen %llu:%llu", number,
		     (unsigned long long)known.epoch,
		     (unsigned long long)known.offset);
	if (log == NULL)
		store.least[number] =
			max_of(store.least[number], known.epoch + 1);
	else if ((known.epoch > log->epoch ||
		  (known.epoch == log->epoch && known.offset > log->top)))
		log_carry(number, known.epoch);
}

static void do_tops(const struct sim_op *op, struct store_tops *t)
{
	for (size_t i = 0; i < t->count; i++) {
		unsigned number = log_number(op, t->channels[i]);

		if (t->known != NULL)
			compare(number, t->known[i]);
		if (current_log(number) != NULL && current_log(number)->suspect)
			log_carry(number, 0);
		t->places[i] = store_top(number);
		if (t->eras != NULL)
			store_eras_of(number, &t->eras[i]);
	}
}

static void execute_append(struct sim_op *op, bool down)
{
	bool done = !down || chance(300);

	op->fate = SIM_DONE;
	if (down && done)
		op->fate = chance(500) ? SIM_LATE : SIM_UNKNOWN;
	else if (down)
		op->fate = chance(500) ? SIM_REFUSED : SIM_UNKNOWN;
	if (done)
		do_append(op, op->op);
}

static void execute(struct sim_op *op)
{
	bool down = world.now_ms < store.down_until_ms;
	int rc = down ? ERR_UNAVAILABLE : 0;

	op->executed = true;
	store.total.failed += down;
	switch (op->kind) {
	case SIM_APPEND:
		execute_append(op, down);
		break;
	case SIM_READ:
		((struct store_read *)op->op)->rc = rc;
		if (!down)
			do_read(op, op->op);
		break;
	case SIM_TOPS:
		((struct store_tops *)op->op)->rc = rc;
		if (!down)
			do_tops(op, op->op);
	}
}

static void op_free(struct sim_op *op)
{
	list_remove(&op->in_store);
	free(op->records);
	free(op);
}

/* All that is heard of the append; for its caller, and for other dispatchers. */
static void tell_append(struct sim_op *op)
{
	struct store_append *a = op->op;
	struct store_place look = {0, 0};

	a->duplicate = false;
	a->place = op->place;
	a->definite = op->fate == SIM_REFUSED;
	a->rc = op->fate == SIM_DONE || op->fate == SIM_LATE ? 0
							     : ERR_UNAVAILABLE;
	if (a->rc == 0)
		news_moved(op->dispatcher,
			   channel_names[channel_number(a->channel)], a->place,
			   0);
	else if (!a->definite)
		news_moved(op->dispatcher,
			   channel_names[channel_number(a->channel)], look,
			   store.down_until_ms);
}

/* It is not known yet what became of an append: its caller waits no more. */
static void give_up(struct sim_op *op)
{
	struct store_append *a = op->op;

	op->answered = true;
	op->answer_ms =
		max_of(op->answer_ms, world.now_ms + below(STORE_TIMEOUT_MS));
	a->rc = ERR_UNAVAILABLE;
	a->definite = a->duplicate = false;
	a->done(a);
}

static void owe(const struct sim_op *op, bool known)
{
	struct sim_message *m;

	if (op->message == 0)
		return;
	m = &store.messages[op->message - 1];
	m->owed |= known;
	if (!known)
		m->doubt = news.desks[op->dispatcher].instance;
}

static void end_append(struct sim_op *op)
{
	struct store_append *a = op->op;

	if (!op->answered &&
	    (op->fate == SIM_LATE || op->fate == SIM_UNKNOWN)) {
		give_up(op);
		return;
	}
	tell_append(op);
	if (!op->answered) {
		a->done(a);
	} else {
		store.total.late += a->rc == 0;
		store.total.unknown += a->rc != 0 && !a->definite;
		owe(op, a->rc == 0);
		a->late(a);
	}
	op_free(op);
}

static void end(struct sim_op *op)
{
	if (op->kind == SIM_APPEND) {
		end_append(op);
		return;
	}
	if (op->kind == SIM_READ)
		((struct store_read *)op->op)->done(op->op);
	else
		((struct store_tops *)op->op)->done(op->op);
	op_free(op);
}

/* It has taken too long. What only asks is over then. */
static void time_out(struct sim_op *op)
{
	if (op->kind == SIM_APPEND) {
		give_up(op);
		return;
	}
	if (op->kind == SIM_READ)
		((struct store_read *)op->op)->rc = ERR_UNAVAILABLE;
	else
		((struct store_tops *)op->op)->rc = ERR_UNAVAILABLE;
	end(op);
}

static void store_submit(unsigned dispatcher, enum sim_op_kind kind, void *what)
{
	struct list *ops = &store.ops[dispatcher];
	struct sim_op *op = xcalloc(1, sizeof(*op));
	bool slow = chance(10) || world.now_ms < store.slow_until_ms;
	uint64_t takes_ms = slow ? STORE_SLOW_MS : STORE_MS;

	op->kind = kind;
	op->dispatcher = dispatcher;
	op->store = news.desks[dispatcher].store;
	op->op = what;
	op->at_ms = world.now_ms + below(takes_ms);
	op->answer_ms = op->at_ms + below(takes_ms);
	op->timeout_ms = world.now_ms + STORE_TIMEOUT_MS;
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
	list_for_each_safe (node, ops) {
		struct sim_op *op = container_of(node, struct sim_op, in_store);

		if (op->executed && op->answer_ms <= world.now_ms)
			end(op);
		else if (!op->answered && op->timeout_ms <= world.now_ms)
			time_out(op);
		else
			continue;
		answered = true;
	}
	return answered;
}

/* A dispatcher dies. What it has sent off is done or not; nobody is answered,
 * except that the operation's memory has to be given back. Nobody looks any
 * more, either, at what it could not know. */
static void store_forsake(unsigned dispatcher)
{
	struct list *ops = &store.ops[dispatcher];

	while (!list_empty(ops)) {
		struct sim_op *op =
			container_of(ops->next, struct sim_op, in_store);
		struct store_append *a = op->op;

		if (op->kind != SIM_APPEND) {
			time_out(op);
			continue;
		}
		if (!op->executed && chance(500))
			execute(op);
		if (!op->answered) {
			a->rc = ERR_UNAVAILABLE;
			a->definite = true; /* that is, no `late` */
			a->done(a);
		}
		op_free(op);
	}
	for (uint64_t i = 0; i < store.message_count; i++) {
		struct sim_message *m = &store.messages[i];

		if (m->doubt == news.desks[dispatcher].instance)
			m->doubt = 0;
	}
}

static void store_rewind(void)
{
	unsigned number = (unsigned)below(RELIABLE);
	struct sim_log *log = newest_log(number);
	struct store_eras eras;
	uint64_t least;

	if (log == NULL || store.count[number] > EPOCHS_MAX / 2)
		return;
	/* An epoch that is forgotten is as good as another log's. */
	store_eras_of(number, &eras);
	if (eras.count >= STORE_ERAS_MAX - 1)
		return;
	/* A state from before the carry would be the epoch before. */
	least = max_of(log->kept, log->carries ? log->base : 0);
	if (log->top == least)
		return;
	log->top -= 1 + below(min_of(log->top - least, (uint64_t)5));
	log->suspect = true;
	for (uint64_t i = log->top; i < log->ever; i++) {
		struct sim_message *m =
			message_at(number, (struct place){log->epoch, i + 1});

		m->lost_ms = min_of(m->lost_ms, world.now_ms);
	}
	store.total.rewinds++;
	trace("store: the log %llu is rewound to %llu", log->epoch, log->top);
}

/* Not a log so young that it may have come and gone between two looks at the
 * channel: that messages live longer than that, a worker relies on. */
static void store_empty(void)
{
	unsigned number = (unsigned)below(RELIABLE);
	struct sim_log *log = current_log(number);

	if (log == NULL || store.count[number] > EPOCHS_MAX / 2 ||
	    world.now_ms - log->epoch < HISTORY_TTL)
		return;
	for (uint64_t i = 0; i < log->ever; i++) {
		struct sim_message *m =
			message_at(number, (struct place){log->epoch, i + 1});

		m->lost_ms = min_of(m->lost_ms, world.now_ms);
	}
	store.there[number] = false;
	store.total.rewinds++;
	trace("store: the log %llu is emptied", log->epoch);
}

/* One random misfortune of the stores. */
static void store_fault(void)
{
	if (store.rewinds && chance(300)) {
		if (chance(250))
			store_empty();
		else
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
	store.goes = chance(400);
	store.expires = chance(300);
	store.short_of_room = chance(300);
	for (unsigned i = 0; i < DISPATCHERS_MAX; i++)
		list_init(&store.ops[i]);
}

static void store_end(void)
{
	for (unsigned c = 0; c < LOGS; c++) {
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

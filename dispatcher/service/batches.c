#include "dispatcher/service/batches.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "dispatcher/api/items.h"
#include "dispatcher/api/rpc.h"
#include "dispatcher/service/calls.h"
#include "dispatcher/service/outcome.h"
#include "dispatcher/service/share.h"

#include <stdio.h>
#include <stdlib.h>

#define STEP_MESSAGES 16
#define STEP_ANSWERS  64

#define GIVEN_UP                                                           \
	"the store did not take an earlier message of the batch; nothing " \
	"was published, retry"

struct batch;

struct batch_item {
	struct batch *batch;
	bool known;
	uint64_t begun_ns; /* given to the store; 0: not looked at */
	struct outcome outcome;
};

struct batch {
	struct batches *all;
	struct rpc_call *call;
	struct items *request;
	struct list in_work; /* of its peer's batches, or stalled ones */
	size_t bytes;	     /* as counted */
	bool prepared, abandoned;
	size_t count;	 /* of messages */
	size_t begun;	 /* of which an outcome is known or comes */
	size_t pending;	 /* of those, that wait for the store */
	size_t answered; /* in order, of those that are known */
	size_t accepted;
	/* The first fault that is none of a message's own; OK: none. */
	enum grpc_code code;
	char *text;
	bool overflow;
	struct batch_item *items;
};

/* --- turns ------------------------------------------------------------- */

static void batches_on_turn(uv_idle_t *idle);

static void batch_work(struct batch *b)
{
	struct batches *all = b->all;
	struct rpc_peer *peer = b->call->peer;

	list_remove(&b->in_work);
	if (list_empty(&peer->stalled))
		list_remove(&peer->in_stalled);
	list_push_back(&peer->batches, &b->in_work);
	if (list_empty(&peer->in_turn))
		list_push_back(&all->turns, &peer->in_turn);
	uv_idle_start(&all->turn, batches_on_turn);
}

/* Whether it has messages that go no further without room in the store. */
static bool wants_room(const struct batch *b)
{
	return b->begun < b->count && !b->abandoned && !b->call->cancelled;
}

/* It can't go on before there is room, or before one of its own is known. */
static void batch_stall(struct batch *b)
{
	struct rpc_peer *peer = b->call->peer;

	list_remove(&b->in_work);
	if (list_empty(&peer->batches))
		list_remove(&peer->in_turn);
	if (!wants_room(b))
		return;
	list_push_back(&peer->stalled, &b->in_work);
	if (list_empty(&peer->in_stalled))
		list_push_back(&b->all->stalled, &peer->in_stalled);
}

static bool batches_have_room(const struct batches *all)
{
	return all->pending < min_of(all->window, all->limits.pending_max);
}

/* The first that stands in line, if there is room. Never more than that: those
 * behind it would find that it has taken all, for each message that the store
 * is done with. What it leaves is for the next one after its step, so as long
 * as there is room and somebody waits for it there are turns. */
static void batches_wake_first(struct batches *all)
{
	struct list *stalled = &all->stalled;
	struct rpc_peer *peer;

	if (list_empty(stalled) || !batches_have_room(all))
		return;
	peer = container_of(list_shift(stalled, stalled), struct rpc_peer,
			    in_stalled);
	batch_work(container_of(peer->stalled.next, struct batch, in_work));
}

/* Gives up its request, and its messages but the first `count`. */
static void batch_shrink(struct batch *b, size_t count)
{
	struct batches *all = b->all;
	struct rpc_peer *peer = b->call->peer;

	all->messages -= b->count - count;
	peer->batch_messages -= b->count - count;
	b->count = count;
	all->bytes -= b->bytes;
	peer->batch_bytes -= b->bytes;
	b->bytes = 0;
	if (b->request)
		items_free(b->request);
	b->request = NULL;
}

static void batch_free(struct batch *b)
{
	struct rpc_peer *peer = b->call->peer;

	check(b->pending == 0);
	list_remove(&b->in_work);
	if (list_empty(&peer->batches))
		list_remove(&peer->in_turn);
	batch_shrink(b, 0);
	for (size_t i = b->answered; i < b->begun; i++)
		free(b->items[i].outcome.error);
	free(b->items);
	free(b->text);
	free(b);
}

/* Ends call and batch. */
static void batch_fail(struct batch *b, enum grpc_code code, const char *text)
{
	struct rpc_call *call = b->call;

	calls_observe(b->all->calls, call);
	batch_free(b);
	rpc_fail(call, code, "%s", text);
}

static void batch_finish(struct batch *b)
{
	struct rpc_call *call = b->call;
	struct items *request = b->request;
	char text[PUBLISH_ERROR_SIZE];
	const struct buf *answer;

	if (b->accepted == 0 && b->code != GRPC_OK) {
		snprintf(text, sizeof(text), "%s", b->text);
		batch_fail(b, b->code, text);
		return;
	}
	answer = b->overflow ? NULL : items_answer_end(request);
	if (!answer) {
		batch_fail(b, GRPC_RESOURCE_EXHAUSTED,
			   "answer exceeds a limit");
		return;
	}
	b->request = NULL; /* the answer is in it */
	calls_observe(b->all->calls, call);
	batch_free(b);
	rpc_reply_encoded(call, answer);
	items_free(request);
}

/* --- a step ------------------------------------------------------------ */

static void batch_prepare(struct batch *b)
{
	struct batches *all = b->all;
	struct rpc_peer *peer = b->call->peer;
	char why[MESSAGE_WHY_MAX];
	enum grpc_code code;
	size_t count;
	int rv = items_prepare(b->request, PUBLISH_BATCH_MAX, &code, why);

	if (rv == ERR_AGAIN)
		return;
	if (rv != 0) {
		batch_fail(b, code, why);
		return;
	}
	count = items_count(b->request);
	if (!share_allows(peer->batch_messages, all->messages,
			  BATCHES_MESSAGES_MAX, count)) {
		all->calls->share_refused++;
		batch_fail(b, GRPC_UNAVAILABLE,
			   "too many messages of batches are under way; "
			   "nothing was published, retry");
		return;
	}
	b->prepared = true;
	b->count = count;
	b->items = xmalloc(max_of(count, (size_t)1) * sizeof(b->items[0]));
	all->messages += count;
	peer->batch_messages += count;
}

/* It has not taken a message that may be taken later. */
static bool is_the_store(enum grpc_code code)
{
	return code == GRPC_UNAVAILABLE || code == GRPC_RESOURCE_EXHAUSTED;
}

static void batch_known(struct batch_item *item, const struct publish_result *r)
{
	struct batch *b = item->batch;

	item->known = true;
	outcome_keep(&item->outcome, r);
	b->accepted += r->code == GRPC_OK;
	if (b->code == GRPC_OK && is_the_store(r->code)) {
		b->code = r->code;
		b->text = xstrdup(r->error);
	}
}

/* --- the window -------------------------------------------------------- */

/* What stands in the store's queue delays what comes behind it, by a time that
 * depends on the store, the disk and the machine. As TCP Vegas has it: where
 * messages wait for longer than the shortest wait of late and what batches may
 * add to it, the window shrinks; else it grows. Each change is judged by what
 * was begun after it. */
static void batches_learn(struct batches *all, uint64_t begun_ns)
{
	uint64_t now = clock_monotonic_ns(), waited = now - begun_ns, least;

	if (now - all->period_ns >= BATCHES_PERIOD_NS) {
		all->period_ns = now;
		all->least_ns[1] = all->least_ns[0];
		all->least_ns[0] = UINT64_MAX;
	}
	all->least_ns[0] = min_of(all->least_ns[0], waited);
	if (begun_ns < all->window_ns)
		return;
	least = min_of(all->least_ns[0], all->least_ns[1]);
	all->window_ns = now;
	if (waited > least + BATCHES_DELAY_NS)
		all->window =
			max_of(all->window * 3 / 4, (size_t)BATCHES_WINDOW_MIN);
	else
		all->window += all->window / 8 + 1;
}

/* Whether its next message may go its way. */
static bool may_publish(const struct batch *b)
{
	return b->begun < b->count &&
	       (b->abandoned || batches_have_room(b->all));
}

static bool may_answer(const struct batch *b)
{
	return b->answered < b->begun && b->items[b->answered].known;
}

static bool may_go_on(const struct batch *b)
{
	return b->call->cancelled ? b->pending == 0
				  : may_publish(b) || may_answer(b);
}

static void batch_on_published(void *ctx, const struct publish_result *r)
{
	struct batch_item *item = ctx;
	struct batch *b = item->batch;
	struct batches *all = b->all;

	calls_published(b->call);
	b->pending--;
	if (item->begun_ns != 0)
		batches_learn(all, item->begun_ns);
	/* No larger than it could be, or it would take long to shrink. */
	all->window = min_of(all->window, all->limits.pending_max);
	all->pending--;
	batch_known(item, r);
	/* The store has trouble. What is for it would wait in vain, and might
	 * overtake in its channel what failed. */
	b->abandoned |= is_the_store(r->code);
	/* Who stands in line keeps its place there. */
	if (!wants_room(b) && may_go_on(b))
		batch_work(b);
	if (list_empty(&all->turns))
		batches_wake_first(all);
}

static bool is_kept(const struct publisher *p,
		    const Stentor__V1__PublishRequest *q)
{
	return rule_reliable(rules_match(p->rules, q->channel));
}

static void batch_publish_next(struct batch *b, uint64_t now_ns)
{
	struct publish_calls *calls = b->all->calls;
	struct publisher *p = calls->publisher;
	struct batch_item *item = &b->items[b->begun++];
	const ProtobufCMessage *m = items_next(b->request);
	const Stentor__V1__PublishRequest *q =
		(const Stentor__V1__PublishRequest *)m;
	struct publish_result r;

	item->batch = b;
	item->known = false;
	item->begun_ns = now_ns;
	if (!m) {
		publish_refuse(p, "", GRPC_INVALID_ARGUMENT,
			       "not a valid stentor.v1.PublishRequest message",
			       &r);
	} else if (b->abandoned && is_kept(p, q)) {
		publish_refuse(p, q->channel, GRPC_UNAVAILABLE, GIVEN_UP, &r);
	} else if (!calls_publish(calls, b->call, q, &r, batch_on_published,
				  item)) {
		b->pending++;
		b->all->pending++;
		return;
	}
	/* At the store's door: what comes behind it must not overtake it. */
	b->abandoned |= is_the_store(r.code) && m != NULL && is_kept(p, q);
	batch_known(item, &r);
}

/* Appends the next outcome, which is known. */
static void batch_answer_next(struct batch *b)
{
	struct batch_item *item = &b->items[b->answered++];
	struct answer a;

	answer_result(&a, &item->outcome);
	if (!b->overflow)
		b->overflow = items_answer(b->request, &a.result.base) != 0;
	free(item->outcome.error);
}

/* Nobody waits for the answer: none is made, and nothing more is begun. What
 * the store has been given has to come back, and all else is free at once. */
static void batch_give_up(struct batch *b)
{
	if (b->pending == 0) {
		batch_fail(b, GRPC_CANCELLED, "");
		return;
	}
	batch_shrink(b, b->begun);
	batch_stall(b);
}

static void batch_step(struct batch *b)
{
	if (b->call->cancelled) {
		batch_give_up(b);
		return;
	}
	if (!b->prepared) {
		batch_prepare(b);
		return;
	}
	/* One of each step tells how long the store takes. */
	for (unsigned i = 0; i < STEP_MESSAGES && may_publish(b); i++)
		batch_publish_next(b, i == 0 ? clock_monotonic_ns() : 0);
	for (unsigned i = 0; i < STEP_ANSWERS && may_answer(b); i++)
		batch_answer_next(b);
	if (b->answered == b->count)
		batch_finish(b);
	else if (!may_go_on(b))
		batch_stall(b);
}

static void batches_take_turn(struct batches *all)
{
	struct list *turns = &all->turns;
	struct rpc_peer *peer = container_of(list_shift(turns, turns),
					     struct rpc_peer, in_turn);

	batch_step(container_of(list_shift(&peer->batches, &peer->batches),
				struct batch, in_work));
	batches_wake_first(all);
}

static void batches_on_turn(uv_idle_t *idle)
{
	struct batches *all = idle->data;
	uint64_t begun = clock_monotonic_ns();

	while (!list_empty(&all->turns) &&
	       clock_monotonic_ns() - begun < BATCHES_TURN_NS)
		batches_take_turn(all);
	if (list_empty(&all->turns))
		uv_idle_stop(idle);
}

/* --- the whole --------------------------------------------------------- */

void batches_take(struct batches *all, struct rpc_call *call,
		  struct items *request)
{
	size_t bytes = items_cost(request);
	struct batch *b;

	if (!share_allows(call->peer->batch_bytes, all->bytes,
			  all->limits.bytes_max, bytes)) {
		all->calls->share_refused++;
		items_free(request);
		rpc_fail(call, GRPC_UNAVAILABLE,
			 "%zu bytes of batches are under way; nothing was "
			 "published, retry",
			 all->bytes);
		return;
	}
	b = xcalloc(1, sizeof(*b));
	b->all = all;
	b->call = call;
	b->request = request;
	b->bytes = bytes;
	all->bytes += bytes;
	call->peer->batch_bytes += bytes;
	list_init(&b->in_work);
	call->state = b;
	batch_work(b);
}

void batches_give_up(struct rpc_call *call)
{
	/* It may be waiting for others' messages only. */
	batch_work(call->state);
}

void batches_init(struct batches *all, uv_loop_t *loop,
		  struct publish_calls *calls,
		  const struct batches_limits *limits)
{
	*all = (struct batches){
		.calls = calls,
		.limits = *limits,
		.window = BATCHES_WINDOW_MIN * 2,
		.least_ns = {UINT64_MAX, UINT64_MAX},
		.period_ns = clock_monotonic_ns(),
	};
	list_init(&all->turns);
	list_init(&all->stalled);
	uv_idle_init(loop, &all->turn);
	all->turn.data = all;
}

void batches_close(struct batches *all)
{
	check(list_empty(&all->turns) && list_empty(&all->stalled));
	check(all->bytes == 0 && all->messages == 0);
	uv_close((uv_handle_t *)&all->turn, NULL);
}

/* store.c - what all stores have in common: the table of kinds, the bound on
 * appends that wait, times, counters and the log of going up and down. */
#include "dispatcher/store/store.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "dispatcher/store/store_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What an append costs beside its record: the caller's struct, the channel. */
#define APPEND_OVERHEAD 512

static const struct store_ops *const kinds[] = {&store_memory, &store_lmdb,
						&store_redis};

static const char *const moved_names[] = {"sent", "heard", "missed", NULL};
const char *const store_op_names[] = {"append", "read", "tops", "trim", NULL};

const struct metric_desc store_metrics[SM_COUNT] = {
	[SM_DURATION] = {"store_op_duration_seconds", METRIC_HISTOGRAM, "op",
			 store_op_names,
			 "Time from an operation's start to its end", NULL,
			 NULL},
	[SM_ERRORS] = {"store_errors_total", METRIC_COUNTER, "op",
		       store_op_names, "Operations that failed", NULL, NULL},
	[SM_BATCH_APPENDS] = {"store_appended_total", METRIC_COUNTER, NULL,
			      NULL, "Appends that were made durable", NULL,
			      NULL},
	[SM_BATCHES] = {"store_batches_total", METRIC_COUNTER, NULL, NULL,
			"Batches of appends: commits or pipelines", NULL, NULL},
	[SM_DUPLICATES] = {"store_duplicates_total", METRIC_COUNTER, NULL, NULL,
			   "Appends answered by their idempotency key", NULL,
			   NULL},
	[SM_LATE] = {"store_late_total", METRIC_COUNTER, NULL, NULL,
		     "Appends that turned out to be done after they were "
		     "answered UNAVAILABLE",
		     NULL, NULL},
	[SM_HISTORIES] = {"store_histories_total", METRIC_COUNTER, NULL, NULL,
			  "Times that the store may have gone back to an "
			  "earlier state",
			  NULL, NULL},
	[SM_ERAS] = {"store_eras_total", METRIC_COUNTER, NULL, NULL,
		     "New epochs of logs because the store may have gone back",
		     NULL, NULL},
	[SM_QUEUE_BYTES] = {"store_queue_bytes", METRIC_GAUGE, NULL, NULL,
			    "Bytes of appends that wait for the store", NULL,
			    NULL},
	[SM_UP] = {"store_up", METRIC_GAUGE, NULL, NULL,
		   "1 if the store can be used", NULL, NULL},
	[SM_BYTES] = {"store_bytes", METRIC_GAUGE, NULL, NULL,
		      "Bytes used, where known", NULL, NULL},
	[SM_BYTES_MAX] = {"store_bytes_max", METRIC_GAUGE, NULL, NULL,
			  "Most bytes that may be used, where known", NULL,
			  NULL},
	[SM_PEERS] = {"store_peers", METRIC_GAUGE, NULL, NULL,
		      "Other dispatchers of the store that are heard (Redis)",
		      NULL, NULL},
	[SM_MOVED] = {"store_moved_total", METRIC_COUNTER, "direction",
		      moved_names,
		      "Channels that dispatchers of one Redis told one "
		      "another of; missed: times that some were, which are "
		      "asked for then",
		      NULL, NULL},
	[SM_NEWS_UP] = {"store_news_up", METRIC_GAUGE, NULL, NULL,
			"1 if other dispatchers can be heard (Redis SUBSCRIBE)",
			NULL, NULL},
	[SM_NEWS_IGNORED] = {"store_news_ignored_total", METRIC_COUNTER, NULL,
			     NULL,
			     "Messages on Redis's channel stentor:moved that "
			     "no dispatcher of this version wrote",
			     NULL, NULL},
	[SM_RECONNECTS] = {"store_reconnects_total", METRIC_COUNTER, NULL, NULL,
			   "Connections to the store made again", NULL, NULL},
};

/* --- open and close ---------------------------------------------------- */

int store_open(uv_loop_t *loop, const struct store_config *config,
	       struct store **out, char fault[STORE_FAULT_SIZE])
{
	for (size_t i = 0; i < array_len(kinds); i++)
		if (strncmp(config->url, kinds[i]->scheme,
			    strlen(kinds[i]->scheme)) == 0)
			return kinds[i]->open(loop, config, out, fault);
	/* Not the whole URL: it may hold a password. */
	snprintf(fault, STORE_FAULT_SIZE,
		 "store \"%.*s\" is not memory:, lmdb:PATH, redis://... or "
		 "rediss://...",
		 (int)min_of(strcspn(config->url, ":"), (size_t)32),
		 config->url);
	return ERR_CONFIG;
}

const char *store_directory(const char *url)
{
	size_t scheme = strlen(store_lmdb.scheme);

	return strncmp(url, store_lmdb.scheme, scheme) == 0 ? url + scheme
							    : NULL;
}

static void on_refusal(uv_idle_t *idle)
{
	struct store *s = idle->data;
	struct list refused, *node;

	uv_idle_stop(idle);
	list_init(&refused);
	list_splice_back(&refused, &s->refused);
	while ((node = list_pop_front(&refused)))
		store_append_done(
			s, container_of(node, struct store_append, in_store));
}

void store_init(struct store *s, const struct store_ops *ops, uv_loop_t *loop,
		const struct store_config *config)
{
	s->ops = ops;
	s->loop = loop;
	s->config = *config;
	metrics_init(&s->metrics, store_metrics, SM_COUNT, NULL);
	list_init(&s->refused);
	uv_idle_init(loop, &s->refusal);
	s->refusal.data = s;
}

void store_close(struct store *s, void (*closed)(void *ctx), void *ctx)
{
	check(!s->closing);
	s->closing = true;
	s->closed = closed;
	s->closed_ctx = ctx;
	s->ops->close(s);
}

static void on_refusal_closed(uv_handle_t *handle)
{
	struct store *s = handle->data;

	on_refusal(&s->refusal);
	check(s->operations == 0 && s->state.queue_bytes == 0);
	metrics_fini(&s->metrics, NULL);
	if (s->closed)
		s->closed(s->closed_ctx);
	free(s);
}

void store_closed(struct store *s)
{
	check(s->closing);
	uv_close((uv_handle_t *)&s->refusal, on_refusal_closed);
}

/* --- operations -------------------------------------------------------- */

static size_t append_cost(const struct store_append *a)
{
	return a->len + APPEND_OVERHEAD;
}

void store_append(struct store *s, struct store_append *a)
{
	check(!s->closing);
	s->operations++;
	s->state.queue_bytes += append_cost(a);
	a->started_ns = clock_monotonic_ns();
	a->rc = 0;
	a->definite = a->duplicate = a->busy = false;
	a->place = (struct store_place){0, 0};
	list_init(&a->in_store);
	if (s->state.queue_bytes <= s->config.queue_bytes) {
		s->ops->append(s, a);
		return;
	}
	a->rc = ERR_FULL;
	a->busy = true;
	list_push_back(&s->refused, &a->in_store);
	uv_idle_start(&s->refusal, on_refusal);
}

void store_read(struct store *s, struct store_read *r)
{
	check(!s->closing);
	s->operations++;
	r->started_ns = clock_monotonic_ns();
	r->rc = 0;
	r->top = (struct store_place){0, 0};
	r->eras.count = 0;
	r->first = 0;
	r->records = NULL;
	r->count = 0;
	list_init(&r->in_store);
	s->ops->read(s, r);
}

void store_tops(struct store *s, struct store_tops *t)
{
	check(!s->closing && t->count <= STORE_TOPS_MAX);
	s->operations++;
	t->started_ns = clock_monotonic_ns();
	t->rc = 0;
	for (size_t i = 0; t->eras != NULL && i < t->count; i++)
		t->eras[i].count = 0;
	list_init(&t->in_store);
	s->ops->tops(s, t);
}

void store_trim(struct store *s)
{
	check(!s->closing);
	if (s->ops->trim)
		s->ops->trim(s);
}

void store_report(struct store *s, uint64_t workers)
{
	s->workers = workers;
}

static void count_done(struct store *s, enum store_op op, uint64_t started_ns,
		       int rc)
{
	uint64_t us = (clock_monotonic_ns() - started_ns) / 1000;

	metric_observe_us(&s->metrics, SM_DURATION, op, us, 1);
	if (rc != 0)
		metric_add(&s->metrics, SM_ERRORS, op, 1);
}

static void operation_done(struct store *s, enum store_op op,
			   uint64_t started_ns, int rc)
{
	check(s->operations > 0);
	s->operations--;
	count_done(s, op, started_ns, rc);
}

static void append_answered(struct store *s, struct store_append *a)
{
	if (a->rc == ERR_FULL || a->rc == ERR_IO || a->rc == ERR_EXISTS)
		a->definite = true;
	if (a->rc == 0)
		metric_add(&s->metrics,
			   a->duplicate ? SM_DUPLICATES : SM_BATCH_APPENDS, 0,
			   1);
	/* A producer's error is none of the store. */
	operation_done(s, STORE_APPEND, a->started_ns,
		       a->rc == ERR_EXISTS ? 0 : a->rc);
}

/* What it holds is bounded until nothing of it is borrowed any more. */
static void append_released(struct store *s, const struct store_append *a)
{
	check(s->state.queue_bytes >= append_cost(a));
	s->state.queue_bytes -= append_cost(a);
}

/* It is not known whether it was done, and the caller wants to hear. */
static bool left_open(const struct store_append *a)
{
	return a->rc == ERR_UNAVAILABLE && !a->definite && a->late != NULL;
}

void store_append_done(struct store *s, struct store_append *a)
{
	append_answered(s, a);
	if (left_open(a)) {
		a->done(a);
		store_append_late(s, a);
		return;
	}
	append_released(s, a);
	a->done(a);
}

bool store_append_overdue(struct store *s, struct store_append *a)
{
	bool open;

	append_answered(s, a);
	open = left_open(a);
	if (!open)
		append_released(s, a);
	a->done(a);
	return open;
}

void store_append_late(struct store *s, struct store_append *a)
{
	append_released(s, a);
	if (a->rc == 0) {
		metric_add(&s->metrics, SM_LATE, 0, 1);
		metric_add(&s->metrics,
			   a->duplicate ? SM_DUPLICATES : SM_BATCH_APPENDS, 0,
			   1);
	}
	a->late(a);
}

void store_read_done(struct store *s, struct store_read *r)
{
	operation_done(s, STORE_READ, r->started_ns, r->rc);
	r->done(r);
}

void store_tops_done(struct store *s, struct store_tops *t)
{
	operation_done(s, STORE_TOPS, t->started_ns, t->rc);
	t->done(t);
}

void store_trim_done(struct store *s, uint64_t started_ns, int rc)
{
	count_done(s, STORE_TRIM, started_ns, rc);
}

/* --- state ------------------------------------------------------------- */

void store_set_up(struct store *s, const char *fault)
{
	bool was_up = s->state.up;

	s->state.up = fault == NULL;
	snprintf(s->state.fault, sizeof(s->state.fault), "%s",
		 fault ? fault : "");
	if (s->state.up == was_up)
		return;
	if (fault == NULL)
		log_info("STORE-UP", "store=%s identity=%016llx",
			 s->ops->scheme, (unsigned long long)s->state.identity);
	else
		log_error("STORE-DOWN", "store=%s reason=\"%s\"",
			  s->ops->scheme, fault);
}

bool store_embedded(const struct store *s)
{
	return s->ops->embedded;
}

const struct store_state *store_state(const struct store *s)
{
	return &s->state;
}

const struct metrics *store_counters(struct store *s)
{
	metric_set(&s->metrics, SM_QUEUE_BYTES, 0, s->state.queue_bytes);
	metric_set(&s->metrics, SM_UP, 0, s->state.up);
	metric_set(&s->metrics, SM_PEERS, 0, s->state.peer_count);
	metric_set(&s->metrics, SM_BYTES, 0, s->state.bytes);
	metric_set(&s->metrics, SM_BYTES_MAX, 0, s->state.bytes_max);
	return &s->metrics;
}

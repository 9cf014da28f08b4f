/* memory.c - memory: the reference behind the interface of store.h.
 *
 * Operations are queued and done in the loop's next turn: appends, then reads,
 * then tops, each in the order in which they came. What is durable here is what
 * lives as long as the process.
 */
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "dispatcher/store/memlog.h"
#include "dispatcher/store/store_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEME	   "memory:"
#define TRIM_STEPS 1000 /* logs and keys a call */

struct memory {
	struct store store;
	struct memlogs logs;
	struct list appends, reads, tops; /* that wait for the next turn */
	uv_idle_t turn;
};

static struct memory *memory_of(struct store *s)
{
	return container_of(s, struct memory, store);
}

static void do_appends(struct memory *m, struct list *list)
{
	uint64_t now_ms = clock_wall_ms();
	struct list *node;

	if (!list_empty(list))
		metric_add(&m->store.metrics, SM_BATCHES, 0, 1);
	while ((node = list_pop_front(list))) {
		struct store_append *a =
			container_of(node, struct store_append, in_store);

		memlogs_append(&m->logs, a, now_ms);
		m->store.state.bytes = m->logs.bytes;
		store_append_done(&m->store, a);
	}
}

static void do_reads(struct memory *m, struct list *list)
{
	struct list *node;

	while ((node = list_pop_front(list))) {
		struct store_read *r =
			container_of(node, struct store_read, in_store);

		memlogs_read(&m->logs, r, clock_wall_ms());
		store_read_done(&m->store, r);
	}
}

static void do_tops(struct memory *m, struct list *list)
{
	struct list *node;

	while ((node = list_pop_front(list))) {
		struct store_tops *t =
			container_of(node, struct store_tops, in_store);

		uint64_t eras = m->logs.eras;

		memlogs_tops(&m->logs, t, clock_wall_ms());
		metric_add(&m->store.metrics, SM_ERAS, 0, m->logs.eras - eras);
		store_tops_done(&m->store, t);
	}
}

/* What the operations' owners submit from their `done` waits for the next. */
static void on_turn(uv_idle_t *idle)
{
	struct memory *m = idle->data;
	struct list appends, reads, tops;

	uv_idle_stop(idle);
	list_init(&appends);
	list_init(&reads);
	list_init(&tops);
	list_splice_back(&appends, &m->appends);
	list_splice_back(&reads, &m->reads);
	list_splice_back(&tops, &m->tops);
	do_appends(m, &appends);
	do_reads(m, &reads);
	do_tops(m, &tops);
}

static void memory_append(struct store *s, struct store_append *a)
{
	struct memory *m = memory_of(s);

	list_push_back(&m->appends, &a->in_store);
	uv_idle_start(&m->turn, on_turn);
}

static void memory_read(struct store *s, struct store_read *r)
{
	struct memory *m = memory_of(s);

	list_push_back(&m->reads, &r->in_store);
	uv_idle_start(&m->turn, on_turn);
}

static void memory_tops(struct store *s, struct store_tops *t)
{
	struct memory *m = memory_of(s);

	list_push_back(&m->tops, &t->in_store);
	uv_idle_start(&m->turn, on_turn);
}

static void memory_trim(struct store *s)
{
	struct memory *m = memory_of(s);
	uint64_t started_ns = clock_monotonic_ns();

	memlogs_trim(&m->logs, TRIM_STEPS, clock_wall_ms());
	s->state.bytes = m->logs.bytes;
	store_trim_done(s, started_ns, 0);
}

static int memory_open(uv_loop_t *loop, const struct store_config *config,
		       struct store **out, char fault[STORE_FAULT_SIZE])
{
	struct memory *m;

	if (strcmp(config->url, SCHEME) != 0) {
		snprintf(fault, STORE_FAULT_SIZE,
			 "store \"%.64s\": nothing may follow " SCHEME,
			 config->url);
		return ERR_CONFIG;
	}
	m = xcalloc(1, sizeof(*m));
	store_init(&m->store, &store_memory, loop, config);
	memlogs_init(&m->logs, config->map_bytes, config->idempotency_ms);
	list_init(&m->appends);
	list_init(&m->reads);
	list_init(&m->tops);
	uv_idle_init(loop, &m->turn);
	m->turn.data = m;
	m->store.state.identity = random_nonzero();
	m->store.state.bytes_max = config->map_bytes;
	store_set_up(&m->store, NULL);
	*out = &m->store;
	return 0;
}

/* What still waits is simply done: that is as quick as to refuse it. */
static void on_turn_closed(uv_handle_t *handle)
{
	struct memory *m = handle->data;

	on_turn(&m->turn);
	memlogs_fini(&m->logs);
	store_closed(&m->store);
}

static void memory_close(struct store *s)
{
	uv_close((uv_handle_t *)&memory_of(s)->turn, on_turn_closed);
}

const struct store_ops store_memory = {
	.scheme = SCHEME,
	.embedded = true,
	.open = memory_open,
	.append = memory_append,
	.read = memory_read,
	.tops = memory_tops,
	.trim = memory_trim,
	.close = memory_close,
};

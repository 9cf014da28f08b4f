/* lmdb.c - lmdb:PATH, embedded: group commit on a worker thread.
 *
 * What is appended while a commit is under way, or within one turn of the loop,
 * makes up the next batch: one transaction, one fsync for all, then `done`.
 * Reads and tops are batched in the same way, on another worker thread. Both
 * are libuv's (uv_queue_work): at most one job of each kind is under way, and
 * what it works on belongs to it until it is over, so there are no locks.
 *
 *	        submit                    turn               after
 *	appends ------> appends (waiting) ----> batch (job) -----> done
 *	                                    next one begins, then ^
 *
 * Tops that find a log gone back are the writer's: they end when its new epoch
 * is durable.
 *
 * A commit can't be taken back: while the disk stalls, the batch under way
 * waits for it, longer than timeout_ms; what waits behind it does not, and the
 * store is not up.
 *
 * After an error of the disk the store is not up, appends fail at once, and it
 * tries each second whether it works again. After corruption it stays so.
 * lmdblog.h tells how the file is made.
 */
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "dispatcher/store/lmdblog.h"
#include "dispatcher/store/store_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEME "lmdb:"

#define BATCH_APPENDS 4096
#define BATCH_BYTES   ((size_t)8 << 20)
#define BATCH_READ_BYTES \
	((size_t)16 << 20) /* by what reads ask for at most \
			    */
#define BATCH_TOPS 64
#define ARENA_MAX  ((size_t)1 << 40) /* reads are bounded one by one */

#define TICK_MS	 100
#define RETRY_MS 1000

struct batch {
	struct store_append *appends[BATCH_APPENDS];
	size_t count;
};

enum job { JOB_APPEND, JOB_RENEW, JOB_TRIM, JOB_RECOVER };

struct lmdb {
	struct store store;
	struct lmdblog log;
	struct list appends, reads, tops; /* that wait, oldest first */
	struct list behind;		  /* tops that wait for the writer */
	uv_idle_t turn;			  /* runs when something can begin */
	uv_timer_t tick;
	uint64_t clock_ms; /* never goes back */

	/* The writer's job. */
	uv_work_t writer;
	bool writing;
	enum job job;
	struct batch batches[2]; /* one may begin before the other is told */
	unsigned current;
	int written; /* its result: lmdblog's code */
	struct store_tops *renewing[BATCH_TOPS];
	size_t renewing_count;
	uint64_t written_ms, writing_since_ns;
	bool trim_due, trim_more, trim_next, stalled;

	/* The reader's job. */
	uv_work_t reader;
	bool reading;
	struct list reading_reads, reading_tops, reading_behind;
	struct arena arena;
	int read;	  /* its result */
	unsigned handles; /* of turn and tick, not closed yet */
	uint64_t read_ms, made_ms;

	enum lmdblog_health health;
	int down_rc; /* what appends get while it is not LMDBLOG_WELL */
	uint64_t retry_ns;
	uint64_t histories, eras; /* of the log, that were counted */
};

static struct lmdb *lmdb_of(struct store *s)
{
	return container_of(s, struct lmdb, store);
}

static uint64_t wall_ms(struct lmdb *m)
{
	m->clock_ms = max_of(m->clock_ms, clock_wall_ms());
	return m->clock_ms;
}

static void begin_jobs(struct lmdb *m);
static void maybe_closed(struct lmdb *m);

/* --- health ------------------------------------------------------------ */

static void set_health(struct lmdb *m, int rc)
{
	char fault[STORE_FAULT_SIZE];

	m->health = lmdblog_health(rc);
	m->retry_ns = clock_monotonic_ns() + RETRY_MS * 1000000ull;
	if (m->health == LMDBLOG_WELL) {
		store_set_up(&m->store, NULL);
		return;
	}
	m->down_rc = lmdblog_err(rc);
	if (m->health == LMDBLOG_DEAD)
		snprintf(fault, sizeof(fault),
			 "%.100s/data.mdb is corrupt (%s): restore it, or "
			 "move it away",
			 m->log.path, mdb_strerror(rc));
	else
		snprintf(fault, sizeof(fault), "%.100s: %s", m->log.path,
			 mdb_strerror(rc));
	store_set_up(&m->store, fault);
}

/* Corruption is final. That all is well again is for the writer to say; what
 * readers meet meanwhile does not put off the next try. */
static void judge(struct lmdb *m, int rc, bool writer)
{
	enum lmdblog_health health = lmdblog_health(rc);
	bool well = m->health == LMDBLOG_WELL && !m->stalled;

	if (m->health == LMDBLOG_DEAD)
		return;
	if (health == LMDBLOG_WELL ? writer && !well
				   : writer || well || health == LMDBLOG_DEAD)
		set_health(m, rc);
	if (writer)
		m->stalled = false;
}

static void end_append(struct lmdb *m, struct list *node, int rc)
{
	struct store_append *a =
		container_of(node, struct store_append, in_store);

	a->rc = rc;
	a->definite = true;
	store_append_done(&m->store, a);
}

static void end_read(struct lmdb *m, struct list *node, int rc)
{
	struct store_read *r = container_of(node, struct store_read, in_store);

	r->rc = rc;
	store_read_done(&m->store, r);
}

static void end_tops(struct lmdb *m, struct list *node, int rc)
{
	struct store_tops *t = container_of(node, struct store_tops, in_store);

	t->rc = rc;
	store_tops_done(&m->store, t);
}

static void end_all(struct lmdb *m, struct list *waiting,
		    void (*end)(struct lmdb *m, struct list *node, int rc),
		    int rc)
{
	struct list ending, *node;

	list_init(&ending); /* their owners may submit more */
	list_splice_back(&ending, waiting);
	while ((node = list_pop_front(&ending)))
		end(m, node, rc);
}

/* --- the writer's jobs ------------------------------------------------- */

/* On a worker thread. */
static void write_job(uv_work_t *work)
{
	struct lmdb *m = work->data;
	struct batch *b = &m->batches[m->current];

	switch (m->job) {
	case JOB_APPEND:
		m->written = lmdblog_append(&m->log, b->appends, b->count,
					    m->written_ms);
		break;
	case JOB_RENEW:
		m->written = lmdblog_renew(&m->log, m->renewing,
					   m->renewing_count, m->written_ms);
		break;
	case JOB_TRIM:
		m->written =
			lmdblog_trim(&m->log, m->written_ms, &m->trim_more);
		break;
	case JOB_RECOVER:
		m->written = lmdblog_recover(&m->log);
		break;
	}
}

static void tell_batch(struct lmdb *m, struct batch *b)
{
	metric_add(&m->store.metrics, SM_BATCHES, 0, 1);
	for (size_t i = 0; i < b->count; i++)
		store_append_done(&m->store, b->appends[i]);
	b->count = 0;
}

/* Tops are not refused for want of room: they can be asked again. */
static void tell_renewed(struct lmdb *m)
{
	struct store_tops *told[BATCH_TOPS];
	size_t count = m->renewing_count;

	memcpy(told, m->renewing, sizeof(told)); /* another job may begin */
	m->renewing_count = 0;
	begin_jobs(m);
	for (size_t i = 0; i < count; i++) {
		if (told[i]->rc == ERR_FULL)
			told[i]->rc = ERR_UNAVAILABLE;
		store_tops_done(&m->store, told[i]);
	}
}

static void count_history(struct lmdb *m)
{
	metric_add(&m->store.metrics, SM_HISTORIES, 0,
		   m->log.histories - m->histories);
	metric_add(&m->store.metrics, SM_ERAS, 0, m->log.eras - m->eras);
	m->histories = m->log.histories;
	m->eras = m->log.eras;
}

/* The disk is busy with the next batch while this one is told. */
static void after_write(uv_work_t *work, int status UNUSED)
{
	struct lmdb *m = work->data;
	struct batch *b = &m->batches[m->current];
	enum job job = m->job;

	m->writing = false;
	m->current ^= 1;
	m->store.state.bytes = m->log.used;
	count_history(m);
	judge(m, m->written, true);
	if (job == JOB_RENEW)
		tell_renewed(m);
	if (job == JOB_TRIM) {
		m->trim_due = m->trim_more && m->written == 0;
		store_trim_done(&m->store, m->writing_since_ns,
				lmdblog_err(m->written));
	}
	begin_jobs(m);
	if (job == JOB_APPEND)
		tell_batch(m, b);
	maybe_closed(m);
}

static void start_write(struct lmdb *m, enum job job)
{
	m->job = job;
	m->writing = true;
	m->written_ms = wall_ms(m);
	m->writing_since_ns = clock_monotonic_ns();
	m->writer.data = m;
	check(uv_queue_work(m->store.loop, &m->writer, write_job,
			    after_write) == 0);
}

static void fill_batch(struct lmdb *m)
{
	struct batch *b = &m->batches[m->current];
	size_t bytes = 0;

	check(b->count == 0);
	while (b->count < BATCH_APPENDS && bytes < BATCH_BYTES) {
		struct list *node = list_pop_front(&m->appends);

		if (node == NULL)
			return;
		b->appends[b->count] =
			container_of(node, struct store_append, in_store);
		bytes += b->appends[b->count++]->len;
	}
}

static void fill_renewing(struct lmdb *m)
{
	struct list *node;

	while (m->renewing_count < BATCH_TOPS &&
	       (node = list_pop_front(&m->behind)))
		m->renewing[m->renewing_count++] =
			container_of(node, struct store_tops, in_store);
}

/* What is not an append takes turns with appends, and trims with renewals. */
static void begin_writing(struct lmdb *m)
{
	bool appends = !list_empty(&m->appends);
	bool behind = !list_empty(&m->behind);

	if (m->writing || m->health != LMDBLOG_WELL)
		return;
	if ((behind || m->trim_due) && (!appends || m->job == JOB_APPEND)) {
		m->trim_next = m->trim_due && (!behind || m->trim_next);
		if (!m->trim_next)
			fill_renewing(m);
		start_write(m, m->trim_next ? JOB_TRIM : JOB_RENEW);
		m->trim_next = !m->trim_next;
	} else if (appends) {
		fill_batch(m);
		start_write(m, JOB_APPEND);
	}
}

/* --- the reader's jobs ------------------------------------------------- */

static int do_reads(struct lmdb *m, MDB_txn *txn)
{
	int worst = 0;

	list_for_each (node, &m->reading_reads) {
		struct store_read *r =
			container_of(node, struct store_read, in_store);
		int rc = lmdblog_read(&m->log, txn, r, &m->arena, m->read_ms,
				      m->made_ms);

		r->rc = lmdblog_err(rc);
		worst = rc ? rc : worst;
	}
	list_for_each_safe (node, &m->reading_tops) {
		struct store_tops *t =
			container_of(node, struct store_tops, in_store);
		bool behind;
		int rc = lmdblog_tops(&m->log, txn, t, m->made_ms, &behind);

		t->rc = lmdblog_err(rc);
		worst = rc ? rc : worst;
		if (rc != 0 || !behind)
			continue;
		list_remove(node);
		list_push_back(&m->reading_behind, node);
	}
	return worst;
}

static void fail_reads(struct lmdb *m)
{
	list_for_each (node, &m->reading_reads)
		container_of(node, struct store_read, in_store)->rc = ERR_IO;
	list_for_each (node, &m->reading_tops)
		container_of(node, struct store_tops, in_store)->rc = ERR_IO;
}

/* On a worker thread. */
static void read_job(uv_work_t *work)
{
	struct lmdb *m = work->data;
	MDB_txn *txn;

	m->read = MDB_PANIC;
	if (m->log.env)
		m->read = mdb_txn_begin(m->log.env, NULL, MDB_RDONLY, &txn);
	if (m->read != 0) {
		fail_reads(m);
		return;
	}
	m->read = do_reads(m, txn);
	mdb_txn_abort(txn);
}

static void after_read(uv_work_t *work, int status UNUSED)
{
	struct lmdb *m = work->data;
	struct list *node;

	judge(m, m->read, false);
	while ((node = list_pop_front(&m->reading_reads)))
		store_read_done(&m->store, container_of(node, struct store_read,
							in_store));
	while ((node = list_pop_front(&m->reading_tops)))
		store_tops_done(&m->store, container_of(node, struct store_tops,
							in_store));
	arena_reset(&m->arena);
	m->reading = false;
	list_splice_back(&m->behind, &m->reading_behind);
	if (m->store.closing || m->health != LMDBLOG_WELL)
		end_all(m, &m->behind, end_tops, ERR_UNAVAILABLE);
	begin_jobs(m);
	maybe_closed(m);
}

static void begin_reading(struct lmdb *m)
{
	size_t bytes = 0;

	if (m->reading || (m->writing && m->job == JOB_RECOVER))
		return;
	while (bytes < BATCH_READ_BYTES && !list_empty(&m->reads)) {
		struct list *node = list_shift(&m->reading_reads, &m->reads);

		bytes += container_of(node, struct store_read, in_store)
				 ->bytes_max;
	}
	for (unsigned i = 0; i < BATCH_TOPS && !list_empty(&m->tops); i++)
		list_shift(&m->reading_tops, &m->tops);
	if (list_empty(&m->reading_reads) && list_empty(&m->reading_tops))
		return;
	m->reading = true;
	m->read_ms = wall_ms(m);
	/* Before the epoch of any log that the transaction may not see. */
	m->made_ms = (m->writing ? m->written_ms : m->read_ms) - 1;
	m->reader.data = m;
	check(uv_queue_work(m->store.loop, &m->reader, read_job, after_read) ==
	      0);
}

/* --- what begins when -------------------------------------------------- */

static bool recover_due(const struct lmdb *m)
{
	return m->health == LMDBLOG_RETRY && !m->writing &&
	       clock_monotonic_ns() >= m->retry_ns;
}

/* Recovering has the file to itself: it lets the reader end first. */
static void begin_jobs(struct lmdb *m)
{
	if (m->store.closing)
		return;
	if (recover_due(m)) {
		if (!m->reading)
			start_write(m, JOB_RECOVER);
		return;
	}
	begin_writing(m);
	begin_reading(m);
}

static void on_turn(uv_idle_t *idle)
{
	struct lmdb *m = idle->data;

	uv_idle_stop(idle);
	begin_jobs(m);
	if (m->health != LMDBLOG_WELL) {
		end_all(m, &m->appends, end_append, m->down_rc);
		end_all(m, &m->behind, end_tops, ERR_UNAVAILABLE);
	}
	if (m->health == LMDBLOG_DEAD) {
		end_all(m, &m->reads, end_read, ERR_IO);
		end_all(m, &m->tops, end_tops, ERR_IO);
	}
}

/* Nothing begins inside a call: more may come in this turn. */
static void wake(struct lmdb *m)
{
	if (!uv_is_active((uv_handle_t *)&m->turn))
		uv_idle_start(&m->turn, on_turn);
}

static void lmdb_append(struct store *s, struct store_append *a)
{
	struct lmdb *m = lmdb_of(s);

	list_push_back(&m->appends, &a->in_store);
	if (!m->writing)
		wake(m);
}

static void lmdb_read(struct store *s, struct store_read *r)
{
	struct lmdb *m = lmdb_of(s);

	list_push_back(&m->reads, &r->in_store);
	if (!m->reading)
		wake(m);
}

static void lmdb_tops(struct store *s, struct store_tops *t)
{
	struct lmdb *m = lmdb_of(s);

	list_push_back(&m->tops, &t->in_store);
	if (!m->reading)
		wake(m);
}

static void lmdb_trim(struct store *s)
{
	struct lmdb *m = lmdb_of(s);

	m->trim_due = true;
	wake(m);
}

/* --- what waits too long ----------------------------------------------- */

static bool too_old(const struct lmdb *m, uint64_t started_ns)
{
	return clock_monotonic_ns() - started_ns >
	       m->store.config.timeout_ms * 1000000;
}

static void end_old_tops(struct lmdb *m, struct list *waiting)
{
	list_for_each_safe (node, waiting) {
		if (!too_old(m, container_of(node, struct store_tops, in_store)
					->started_ns))
			break;
		list_remove(node);
		end_tops(m, node, ERR_UNAVAILABLE);
	}
}

static void end_too_old(struct lmdb *m)
{
	list_for_each_safe (node, &m->appends) {
		if (!too_old(m,
			     container_of(node, struct store_append, in_store)
				     ->started_ns))
			break;
		list_remove(node);
		end_append(m, node, ERR_UNAVAILABLE);
	}
	list_for_each_safe (node, &m->reads) {
		if (!too_old(m, container_of(node, struct store_read, in_store)
					->started_ns))
			break;
		list_remove(node);
		end_read(m, node, ERR_UNAVAILABLE);
	}
	end_old_tops(m, &m->tops);
	end_old_tops(m, &m->behind);
}

static void on_tick(uv_timer_t *timer)
{
	struct lmdb *m = timer->data;

	if (m->writing && !m->stalled && m->health == LMDBLOG_WELL &&
	    too_old(m, m->writing_since_ns)) {
		m->stalled = true;
		store_set_up(&m->store, "the disk takes longer than timeout_ms "
					"for a commit");
	}
	end_too_old(m);
	begin_jobs(m);
}

/* --- life -------------------------------------------------------------- */

static int lmdb_open(uv_loop_t *loop, const struct store_config *config,
		     struct store **out, char fault[STORE_FAULT_SIZE])
{
	const char *path = config->url + strlen(SCHEME);
	struct lmdb *m = xcalloc(1, sizeof(*m));
	int rc;

	rc = lmdblog_open(&m->log, path, config->map_bytes,
			  config->idempotency_ms, wall_ms(m), fault);
	if (rc != 0) {
		free(m);
		return rc;
	}
	store_init(&m->store, &store_lmdb, loop, config);
	list_init(&m->appends);
	list_init(&m->reads);
	list_init(&m->tops);
	list_init(&m->behind);
	list_init(&m->reading_reads);
	list_init(&m->reading_tops);
	list_init(&m->reading_behind);
	arena_init(&m->arena, ARENA_MAX);
	uv_idle_init(loop, &m->turn);
	uv_timer_init(loop, &m->tick);
	m->turn.data = m->tick.data = m;
	m->handles = 2;
	uv_timer_start(&m->tick, on_tick, TICK_MS, TICK_MS);
	m->store.state.identity = m->log.global.identity;
	m->store.state.bytes_max = config->map_bytes;
	m->store.state.bytes = m->log.used;
	count_history(m);
	set_health(m, 0);
	*out = &m->store;
	return 0;
}

/* Called from all that a close waits for. */
static void maybe_closed(struct lmdb *m)
{
	if (!m->store.closing || m->handles > 0 || m->writing || m->reading)
		return;
	lmdblog_close(&m->log);
	arena_fini(&m->arena);
	store_closed(&m->store);
}

static void on_handle_closed(uv_handle_t *handle)
{
	struct lmdb *m = handle->data;

	if (--m->handles > 0)
		return;
	end_all(m, &m->appends, end_append, ERR_UNAVAILABLE);
	end_all(m, &m->reads, end_read, ERR_UNAVAILABLE);
	end_all(m, &m->tops, end_tops, ERR_UNAVAILABLE);
	end_all(m, &m->behind, end_tops, ERR_UNAVAILABLE);
	maybe_closed(m);
}

static void lmdb_close(struct store *s)
{
	struct lmdb *m = lmdb_of(s);

	uv_close((uv_handle_t *)&m->turn, on_handle_closed);
	uv_close((uv_handle_t *)&m->tick, on_handle_closed);
}

const struct store_ops store_lmdb = {
	.scheme = SCHEME,
	.embedded = true,
	.open = lmdb_open,
	.append = lmdb_append,
	.read = lmdb_read,
	.tops = lmdb_tops,
	.trim = lmdb_trim,
	.close = lmdb_close,
};

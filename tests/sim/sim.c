/* sim.c - a whole cluster under one seeded clock.
 *
 * Each run draws a cluster, then for some thousand steps subscribers come and
 * go, messages are published through any dispatcher, and the network and the
 * processes fail in every way that net.h knows. At each step:
 *
 *	- no subscriber that was told `stentor.ready` misses a message that was
 *	  published after that through a dispatcher it is linked with, while
 *	  that link stands; per channel and dispatcher nothing comes twice or
 *	  out of order (workers.h, feed_take)
 *	- of a reliable channel every worker passes on exactly what the store
 *	  has, in its order, without a hole or a double, from the moment on
 *	  at which its place is known, also when the store has gone back
 *	  (tracks.h, on_worker_pass and _moved); in the end every message
 *	  that was acknowledged was passed on or told as a gap (check_owed),
 *	  also when its producer was told that nobody knows, and nothing of
 *	  that was left to the sweep (check_sweep), except in runs in which
 *	  things are lost that nobody can notice
 *	- a worker that has been silent for SILENT_MS is in no routing table
 *	- queues, credit and tables keep their limits
 *
 * Then the faults stop, and within CONVERGE_MS every dispatcher's table must
 * say exactly who has subscribers, of those that it can dial and that follow its
 * store, and it must know whether it has the majority; nothing expected may be
 * outstanding, every worker must be where the store is, and a last message on
 * each channel reaches everyone in EXAM_MS. A check() that trips fails the run,
 * a leak shows when built with MODE=asan.
 *
 *	SIM_SEED=N	  this run only
 *	SIM_RUNS=N	  so many (default 200), from seed 1
 *	SIM_TRACE=N	  lines of trace at a failure (default 80)
 */
#include "common/base/log.h"
#include "tests/sim/cluster.h"

#include <limits.h>

#define RUNS	     200
#define STEPS	     4000
#define STEP_MS_MAX  14
#define SILENT_MS    5000
#define CONVERGE_MS  15000
#define STABLE_MS    5000
#define CALM_STEP_MS 10
#define EXAM_MS	     1000
#define RESTART_MS   4000
#define EXAM_BURST   20 /* of EXAM_BYTES: more than LINK_CREDIT */
#define EXAM_BYTES   48000
#define COUNTED	     UINT_MAX
#define HOLD_MS	     1500
#define CREDIT_SLACK 8192 /* control frames and headers */

static struct {
	uint64_t steps, published, converge_ms_max;
} total;

/* --- invariants -------------------------------------------------------- */

static void check_link(struct sim_dispatcher *d, const struct node_worker *w)
{
	uint64_t pairs = interest_worker_entries(&d->nodes.interest, w->id);
	uint64_t silent = world.now_ms - d->heard_ms[w->index];

	if (pairs > 0 && silent > SILENT_MS)
		fail("d%u routes to w%u, silent for %llu ms", d->index,
		     w->index, (unsigned long long)silent);
	if (linkq_bytes(&w->queue) > d->nodes.config.queue_bytes)
		fail("d%u: the queue to w%u is over its limit", d->index,
		     w->index);
	if (w->link.tx_bytes - w->link.peer_ack_bytes >
	    LINK_CREDIT + CREDIT_SLACK)
		fail("d%u: %llu bytes under way to w%u", d->index,
		     (unsigned long long)(w->link.tx_bytes -
					  w->link.peer_ack_bytes),
		     w->index);
}

static void check_invariants(void)
{
	for (unsigned i = 0; i < cluster.dispatchers; i++) {
		struct sim_dispatcher *d = &cluster.dispatcher[i];

		if (!d->process.alive)
			continue;
		for (unsigned id = 0;
		     id < INTEREST_WORKERS_MAX && id < 4 * WORKERS_MAX; id++) {
			if (d->nodes.by_id[id] != NULL)
				check_link(d, d->nodes.by_id[id]);
		}
		if (d->nodes.worker_count > ENTRIES_MAX)
			fail("d%u knows too many workers", i);
	}
	for (unsigned i = 0; i < cluster.workers; i++) {
		struct sim_worker *w = &cluster.worker[i];

		if (!w->process.alive)
			continue;
		list_for_each (node, &w->announcer.upstreams) {
			struct upstream *u = container_of(node, struct upstream,
							  in_announcer);

			if (u->queue_bytes > ANNOUNCER_QUEUE_MAX)
				fail("w%u: too much waits", i);
		}
		if (w->logs.held_bytes > cluster.held_bytes)
			fail("w%u: %zu bytes are held", i, w->logs.held_bytes);
		if (w->questions.asked_count > QUESTIONS_MAX)
			fail("w%u: too many questions", i);
	}
}

/* Whether there is to be a link. */
static bool belong(const struct sim_dispatcher *d, const struct sim_worker *w)
{
	return !d->barred[w->index] &&
	       w->announcer.store == STORE_ID + d->store;
}

/* NULL, or what is wrong with a dispatcher's view of a worker. */
static const char *view_fault(struct sim_dispatcher *d, struct sim_worker *w)
{
	const struct node_worker *side = linked(d, w);

	if (!belong(d, w))
		return side == NULL ? NULL : "a link too many";
	if (side == NULL)
		return "no link";
	if (side->connections != w->count)
		return "connections";
	for (unsigned c = 0; c < CHANNELS; c++) {
		bool wanted = w->on_channel[c] > 0;

		if (routed(d, side, c) != wanted)
			return wanted ? "a channel less" : "a channel too many";
	}
	return NULL;
}

static const char *cluster_fault(void)
{
	for (unsigned i = 0; i < cluster.workers; i++) {
		const struct sim_worker *w = &cluster.worker[i];

		if (w->announcer.store == 0 && is_reachable(w))
			return "a worker follows no store";
	}
	for (unsigned i = 0; i < cluster.dispatchers; i++) {
		struct sim_dispatcher *d = &cluster.dispatcher[i];
		uint64_t pairs = 0;
		unsigned workers = 0;

		for (unsigned j = 0; j < cluster.workers; j++) {
			struct sim_worker *w = &cluster.worker[j];
			const char *fault = view_fault(d, w);

			if (fault != NULL)
				return fault;
			if (!belong(d, w))
				continue;
			workers++;
			for (unsigned c = 0; c < CHANNELS; c++)
				pairs += w->on_channel[c] > 0;
		}
		if (interest_entries(&d->nodes.interest) != pairs)
			return "pairs of nobody";
		if (d->nodes.in_phase[NODE_WORKER_READY] != workers)
			return "workers that are no more";
		if (!d->publisher.open)
			return "not open";
		if (nodes_outvoted(&d->nodes) != is_outvoted(d))
			return is_outvoted(d) ? "goes on against a majority"
					      : "stopped by a minority";
	}
	return NULL;
}

static bool link_stands(unsigned dispatcher, struct sim_worker *w,
			uint64_t epoch)
{
	const struct node_worker *side =
		linked(&cluster.dispatcher[dispatcher], w);

	return side != NULL && side->link.epoch == epoch;
}

/* All that was sent had time to arrive. */
static void check_nothing_missed(void)
{
	for (unsigned i = 0; i < cluster.workers; i++) {
		struct sim_worker *w = &cluster.worker[i];

		list_for_each (node, &w->subscribers) {
			struct subscriber *s = container_of(
				node, struct subscriber, in_worker);

			if (!s->ready && is_reachable(w))
				fail("subscriber %llu was never ready",
				     (unsigned long long)s->id);
			for (unsigned j = 0; j < cluster.dispatchers; j++) {
				struct feed *f = &s->feeds[j];

				for (size_t k = 0; k < f->count; k++) {
					struct expected *e =
						&f->expected[f->first + k];

					if (link_stands(j, w, e->link))
						fail("subscriber %llu of %s "
						     "lost %llu of d%u",
						     (unsigned long long)s->id,
						     channel_names[s->channel],
						     (unsigned long long)
							     e->number,
						     j);
				}
			}
		}
	}
}

/* --- what happens ------------------------------------------------------ */

static struct sim_worker *any_worker(void)
{
	return &cluster.worker[below(cluster.workers)];
}

static struct subscriber *any_subscriber(struct sim_worker *w)
{
	uint64_t pick = below(w->count);

	list_for_each (node, &w->subscribers) {
		if (pick-- == 0)
			return container_of(node, struct subscriber, in_worker);
	}
	return NULL;
}

/* A queue in which no answer from the store fits has no use for them. */
static unsigned any_channel(void)
{
	return cluster.tight ? RELIABLE + (unsigned)below(CHANNELS - RELIABLE)
			     : (unsigned)below(CHANNELS);
}

static void come_or_go(void)
{
	struct sim_worker *w = any_worker();

	if (!w->process.alive)
		return;
	/* Few subscribers, so that channels often get their first and lose
	 * their last. */
	if (w->count < below(SUBSCRIBERS_MAX))
		subscriber_add(w, any_channel());
	else if (w->count > 0)
		subscriber_remove(w, any_subscriber(w));
}

/* Where logs go when they are silent, they are silent in turn. */
static bool producers_rest(unsigned channel)
{
	return store.goes && channel < RELIABLE &&
	       (world.now_ms / SILENCE_MS + channel) % 2 == 0;
}

static void publish_some(void)
{
	struct sim_dispatcher *d =
		&cluster.dispatcher[below(cluster.dispatchers)];
	unsigned channel = any_channel();
	uint64_t burst = chance(30) ? below(40) : 1;

	if (!d->process.alive || producers_rest(channel))
		return;
	for (uint64_t i = 0; i < burst; i++) {
		size_t len = chance(20) ? below(50000) : below(300);

		publish(d, channel, len);
		total.published++;
	}
}

static void kill_something(void)
{
	bool told = chance(600);
	uint64_t until_ms = world.now_ms + below(RESTART_MS);

	if (chance(500)) {
		struct sim_worker *w = any_worker();

		if (!w->process.alive)
			return;
		worker_stop(w);
		w->dead_until_ms = until_ms;
		net_died(&w->process, told);
	} else {
		struct sim_dispatcher *d =
			&cluster.dispatcher[below(cluster.dispatchers)];

		/* Who followed it follows others then. */
		if (cluster.stray && chance(500))
			d = &cluster.dispatcher[cluster.dispatchers - 1];
		if (!d->process.alive)
			return;
		dispatcher_stop(d);
		d->dead_until_ms = until_ms;
		net_died(&d->process, told);
	}
}

static void restart_the_dead(bool at_once)
{
	for (unsigned i = 0; i < cluster.workers; i++) {
		struct sim_worker *w = &cluster.worker[i];

		if (!w->process.alive &&
		    (at_once || world.now_ms >= w->dead_until_ms))
			worker_start(w);
	}
	for (unsigned i = 0; i < cluster.dispatchers; i++) {
		struct sim_dispatcher *d = &cluster.dispatcher[i];

		if (!d->process.alive &&
		    (at_once || world.now_ms >= d->dead_until_ms))
			dispatcher_start(d);
	}
}

static void misfortune(void)
{
	if (cluster.quiet) {
		store_fault();
		return;
	}
	switch (below(12)) {
	case 0:
		kill_something();
		break;
	case 10:
	case 11:
		store_fault();
		break;
	case 1:
		any_worker()->held_until_ms = world.now_ms + below(HOLD_MS);
		break;
	case 2:
	case 3:
		net_replay();
		break;
	default:
		net_fault();
	}
}

static void step(uint64_t ms)
{
	world.now_ms += ms;
	cluster_turn();
	check_invariants();
	total.steps++;
}

/* --- a run ------------------------------------------------------------- */

static void turmoil(void)
{
	static const unsigned fault_rates[] = {0, 2, 10, 30}; /* per mille */
	unsigned faults = fault_rates[below(array_len(fault_rates))];

	cluster.calm = faults == 0 && !cluster.barred && !cluster.stray &&
		       news.loss == 0 && !sweep_may_find();
	cluster.quiet |= faults == 0;
	trace("%llu dispatchers, %llu workers, faults %llu, tight %llu",
	      cluster.dispatchers, cluster.workers, faults, cluster.tight);
	for (unsigned i = 0; i < STEPS; i++) {
		if (chance(400))
			come_or_go();
		if (chance(600))
			publish_some();
		if (chance(faults))
			misfortune();
		restart_the_dead(false);
		step(below(STEP_MS_MAX));
	}
}

/* What is broken may still be unknown to those it concerns, so the state must
 * have been right for STABLE_MS, which is more than silence may last. */
static void converge(void)
{
	uint64_t from_ms = world.now_ms, wrong_ms = world.now_ms;
	const char *fault;

	trace("the faults stop");
	net_heal();
	store_heal();
	restart_the_dead(true);
	while (world.now_ms - wrong_ms < STABLE_MS) {
		step(CALM_STEP_MS);
		fault = cluster_fault();
		if (fault == NULL)
			continue;
		wrong_ms = world.now_ms;
		if (wrong_ms - from_ms > CONVERGE_MS)
			fail("not converged: %s", fault);
	}
	trace("converged");
	total.converge_ms_max =
		max_of(total.converge_ms_max, wrong_ms - from_ms);
}

static void on_count(void *ctx, const struct count_result *r)
{
	unsigned channel = *(unsigned *)ctx % CHANNELS;
	struct sim_dispatcher *d =
		&cluster.dispatcher[*(unsigned *)ctx / CHANNELS];
	uint64_t subscribers = 0;

	for (unsigned i = 0; i < cluster.workers; i++) {
		struct sim_worker *w = &cluster.worker[i];

		if (belong(d, w))
			subscribers += w->on_channel[channel];
	}
	if (!r->complete || r->subscribers != subscribers)
		fail("%llu subscribers counted on %s, complete=%d",
		     (unsigned long long)r->subscribers, channel_names[channel],
		     r->complete);
	*(unsigned *)ctx = COUNTED;
}

static void wait_ms(uint64_t ms)
{
	uint64_t end_ms = world.now_ms + ms;

	while (world.now_ms < end_ms)
		step(CALM_STEP_MS);
}

/* Until all is there. Lost news show by the next sign of life that is not lost;
 * a sweep may come two times SWEEP_MS after a message, and looks again. */
static uint64_t patience_ms(void)
{
	if (sweep_may_find())
		return 2 * SWEEP_MS + LOGS_FOUND_MS + LOGS_AGAIN_MS + EXAM_MS;
	return news.loss > 0 ? SILENCE_LOST_MS + LOGS_LOOK_MS + EXAM_MS
			     : 2 * EXAM_MS;
}

/* Everyone gets the next message of each channel, even behind more than the
 * credit of a link and the buffers of a wire allow at once, and counts are
 * right. */
static void exam(void)
{
	unsigned asked[DISPATCHERS_MAX][CHANNELS];

	wait_ms(patience_ms());
	check_nothing_missed();
	check_logs();
	if (!cluster.quiet)
		check_sweep_from_now();
	for (unsigned i = 0; i < cluster.dispatchers; i++) {
		struct sim_dispatcher *d = &cluster.dispatcher[i];

		for (unsigned c = 0; c < CHANNELS; c++) {
			asked[i][c] = i * CHANNELS + c;
			if (c >= RELIABLE || !cluster.tight)
				publish(d, c, 100);
			check(counts_ask(&d->counts, channel_names[c],
					 world.now_ms, on_count,
					 &asked[i][c]) == 0);
		}
		for (unsigned k = 0; k < EXAM_BURST; k++)
			publish(d, CHANNELS - 1, EXAM_BYTES);
	}
	wait_ms(patience_ms());
	check_nothing_missed();
	check_logs();
	check_sweep();
	for (unsigned i = 0; i < cluster.dispatchers; i++) {
		for (unsigned c = 0; c < CHANNELS; c++) {
			if (asked[i][c] != COUNTED)
				fail("a count was never answered");
		}
	}
}

static void run(uint64_t seed)
{
	world_begin(seed);
	cluster_begin();
	turmoil();
	converge();
	exam();
	cluster_end();
}

static uint64_t number_from(const char *name, uint64_t def)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : def;
}

int main(void)
{
	uint64_t seed = number_from("SIM_SEED", 0);
	uint64_t runs = seed ? 1 : number_from("SIM_RUNS", RUNS);
	uint64_t delivered = 0, confirmed = 0, expected = 0, links = 0;
	uint64_t passed = 0, fetched = 0, appended = 0, rewinds = 0;
	uint64_t owed = 0, late = 0, switched = 0, overdue = 0, unknown = 0;
	uint64_t marks = 0, marks_lost = 0, heard = 0, lost = 0, swept = 0;
	uint64_t gaps[GAP_REASONS] = {0};

	/* Errors of a cluster that is configured wrongly are what is wanted. */
	log_init("sim", (enum log_level)(LOG_ERROR + 1), false);
	for (uint64_t i = 0; i < runs; i++) {
		run(seed ? seed : i + 1);
		delivered += cluster.total.delivered;
		confirmed += cluster.total.confirmed;
		expected += cluster.total.expected;
		links += cluster.total.links;
		passed += cluster.total.passed;
		fetched += cluster.total.fetched;
		appended += store.total.appended;
		rewinds += store.total.rewinds;
		owed += cluster.total.owed;
		late += cluster.total.late;
		switched += cluster.total.switched;
		overdue += store.total.late;
		unknown += store.total.unknown;
		marks += cluster.total.marks;
		marks_lost += cluster.total.marks_lost;
		heard += news.heard;
		lost += news.lost + news.forgotten;
		swept += cluster.total.swept;
		for (unsigned k = 0; k < GAP_REASONS; k++)
			gaps[k] += cluster.total.gaps[k];
	}
	printf("%llu runs, %llu steps: %llu published, %llu delivered "
	       "(%llu of them promised), %llu subscribers confirmed, %llu "
	       "links lost, converged in %llu ms at most\n",
	       (unsigned long long)runs, (unsigned long long)total.steps,
	       (unsigned long long)total.published,
	       (unsigned long long)delivered, (unsigned long long)expected,
	       (unsigned long long)confirmed, (unsigned long long)links,
	       (unsigned long long)total.converge_ms_max);
	printf("reliable: %llu appended, %llu passed on (%llu fetched), %llu "
	       "owed; the store went back %llu times; gaps (%llu told late):",
	       (unsigned long long)appended, (unsigned long long)passed,
	       (unsigned long long)fetched, (unsigned long long)owed,
	       (unsigned long long)rewinds, (unsigned long long)late);
	for (unsigned k = 0; k < GAP_REASONS; k++) {
		if (gaps[k] > 0)
			printf(" %llu %s", (unsigned long long)gaps[k],
			       gap_names[k]);
	}
	printf("\nappends: %llu answered late, %llu not known; news: %llu "
	       "heard, "
	       "%llu lost; moved: %llu told, %llu lost; %llu found by the "
	       "sweep; %llu logs of another store\n",
	       (unsigned long long)overdue, (unsigned long long)unknown,
	       (unsigned long long)heard, (unsigned long long)lost,
	       (unsigned long long)marks, (unsigned long long)marks_lost,
	       (unsigned long long)swept, (unsigned long long)switched);
	return 0;
}

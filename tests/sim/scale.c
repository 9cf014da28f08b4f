/* scale.c - a match day of a whole fleet under one seeded clock: who comes and
 * goes, how nodes are lost, released, added and taken away, and what clients
 * see of it.
 *
 * The cores are the real ones (fleet.h), and so is the arithmetic of what is
 * around them (clients.h, balancer.h, autoscaler.h). What has to hold is said
 * below, phase by phase; and always:
 *
 *	- no message of a channel with history is lost to a client that comes
 *	  back, however long it was kept waiting
 *	- no node begins more streams than its workers' rate allows
 *	- a dispatcher's routing table says exactly who has subscribers
 *	  (scenario.h, check_table)
 *
 *	scale		30,000 clients on 10 nodes, RUNS seeds, every second
 *			one with --least
 *	scale --full	5 million on 100 nodes, one seed
 *	--least		the load balancer takes the less loaded of two nodes
 *	--out PREFIX	writes PREFIX.csv and PREFIX.json
 *	SIM_SEED=N	this run only
 */
#include "common/base/log.h"
#include "tests/sim/scale/scenario.h"

#include <math.h>

#define RUNS 4

/* A second's burst is allowed, once. */
#define BURST_S 1
/* Where half the nodes are full, fewer than 1 % try more often: 0.5^7. */
#define TRIES_P99 7
/* Nobody is told to come later than this. */
#define WINDOW_MOST_MS (RETRY_WINDOW_MS * 5 / 4 + RETRY_MAX_MS)
#define SHORT_MS       (SYNC_MS + START_MAX_MS + NOTICE_MAX_MS)
#define ABSENT_MS      (60 * SECOND)
#define LEVEL_MS       (3 * MINUTE)
#define MARGIN_PERCENT 15

/* --- what has to hold -------------------------------------------------- */

static void within(const char *what, uint64_t value, uint64_t limit)
{
	if (value > limit)
		fail("%s: %s is %llu, more than %llu", phase_now()->name, what,
		     (unsigned long long)value, (unsigned long long)limit);
}

/* Of clients that were refused and have no stream yet. */
static uint64_t longest_wait_ms(void)
{
	uint64_t longest = 0;

	for (uint32_t i = 0; i < clients.slots; i++) {
		const struct client *c = &clients.all[i];

		if (c->present && c->refused)
			longest = max_of(longest,
					 (uint64_t)day_ms() - c->since_ms);
	}
	return longest;
}

/* Ends the phase. All that were refused are in after `in_ms`. */
static const struct phase *over(uint64_t in_ms)
{
	const struct phase *p = report_phase_over(messages.total.lost);
	uint64_t rate = WORKERS * cluster.plan->rate_max;

	within("messages lost", p->lost, 0);
	within("streams begun in a second", p->busiest, rate * (BURST_S + 1));
	within("streams begun in ten", p->busiest_row,
	       rate * (BURST_S + ROW_MS / SECOND));
	within("wait of those refused", p->refused_ms, in_ms);
	within("wait of those who still do", longest_wait_ms(), in_ms);
	within("streams cut off", p->cut, 0);
	within("a drain", p->drain_ms, cluster.plan->drain_ms);
	return p;
}

/* Nobody is refused, and a client comes back at the first attempt. */
static void calm(const struct phase *p)
{
	within("refused", p->refused, 0);
	within("p99 of coming back", tally_ms(&p->back, 990),
	       RETRY_MAX_MS + CONNECT_MS + 2 * STEP_MS);
}

/* --- phases ------------------------------------------------------------ */

static void phase(const char *name)
{
	report_phase(name, messages.total.lost);
}

static void morning(const struct plan *p)
{
	phase("morning");
	crowd_moves(p->first, MINUTE);
	run_ms(SETTLE_MS);
	calm(over(0));
}

/* The autoscaler is behind for as long as a node takes to come. */
static void ramp(const struct plan *p)
{
	phase("ramp");
	crowd_moves(p->clients, p->ramp_ms);
	run_ms(p->ramp_ms + SETTLE_MS);
	over(SHORT_MS + WINDOW_MOST_MS);
}

static void plateau(const struct plan *p)
{
	phase("plateau");
	run_ms(p->plateau_ms);
	node_snapshot();
	calm(over(0));
}

static void few_lost(const struct plan *p)
{
	const struct phase *done;

	phase("few lost");
	lose(p->few, 5 * SECOND);
	run_ms(p->lost_ms);
	done = over(WINDOW_MOST_MS);
	/* The load balancer has them on its list for a while. */
	within("coming back", done->back.max_ms,
	       RESET_MS + LOST_MS + TIME_OUT_MS + 2 * RETRY_MAX_MS);
}

/* The others have no room for that many: they leave as it comes. */
static void half_drained(const struct plan *p)
{
	phase("half drained");
	drain(report_spread().serving / 2);
	run_ms(p->lost_ms);
	over(RETRY_WINDOW_MS / 2);
}

static void half_lost(const struct plan *p)
{
	const struct phase *done;
	unsigned nodes = report_spread().serving;

	phase("half lost");
	lose(nodes / 2, ABSENT_MS);
	run_ms(p->lost_ms);
	done = over(ABSENT_MS + SHORT_MS + WINDOW_MOST_MS);
	/* Each worker has as many come as it holds over the window, each a
	 * quarter of its time sooner or later. */
	within("refused in a second", done->turned_away,
	       (nodes - nodes / 2) * p->connections_max * SECOND * 5 / 4 /
		       RETRY_WINDOW_MS);
}

static void release(const struct plan *p)
{
	const struct phase *done;

	phase("release");
	autoscaler.version++;
	if (!run_until(is_released, p->release_ms))
		fail("the release does not end");
	done = over(RETRY_WINDOW_MS);
	within("p99 of coming back", tally_ms(&done->back, 990),
	       TRIES_P99 * RETRY_MAX_MS);
	phase("after it");
	run_ms(p->lost_ms);
	over(RETRY_WINDOW_MS);
}

/* Once it is level, it stays so. */
static void scale_out(const struct plan *p)
{
	const struct phase *done;
	uint64_t level, margin;

	phase("scale out");
	autoscaler.min = autoscaler.replicas + p->more;
	run_ms(p->added_ms);
	done = over(0);
	calm(done);
	level = clients.connected / done->nodes;
	margin = level * MARGIN_PERCENT / 100;
	within("the fullest node", done->fullest, level + margin);
	/* Nobody is sent to it; and a balancer that chooses at random leaves
	 * four standard deviations now and then. */
	within("the lack of the emptiest node",
	       level - min_of(level, done->emptiest),
	       margin + 4 * (uint64_t)sqrt((double)level));
	within("rounds of levelling", done->rounds, 1);
	within("a node's part in them", done->episodes, 2);
	within("the last stream given away", done->gave_ms,
	       done->to_ms - LEVEL_MS);
}

static void evening(const struct plan *p)
{
	phase("evening");
	autoscaler.min = p->nodes_min;
	crowd_moves(p->first, p->leave_ms);
	run_ms(p->leave_ms);
	over(RETRY_WINDOW_MS);
	phase("scale in");
	if (!run_until(is_shrunk, p->shrink_ms))
		fail("the fleet does not shrink");
	over(RETRY_WINDOW_MS);
}

static void run(const struct plan *plan, uint64_t seed, FILE *rows)
{
	day_begin(plan, seed, rows);
	morning(plan);
	ramp(plan);
	plateau(plan);
	few_lost(plan);
	half_drained(plan);
	half_lost(plan);
	release(plan);
	scale_out(plan);
	evening(plan);
	day_end();
}

/* --- the program ------------------------------------------------------- */

static uint64_t number_from(const char *name, uint64_t def)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 10) : def;
}

static FILE *file_of(const char *prefix, const char *suffix)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s%s", prefix, suffix);
	f = fopen(path, "w");
	if (f == NULL) {
		perror(path);
		exit(1);
	}
	return f;
}

static void write_sums(FILE *out)
{
	fprintf(out,
		"{\"entries\": %llu, \"entry_bytes\": %.1f, "
		"\"table_bytes\": %llu, \"links_bytes\": %llu, "
		"\"snapshot_keys\": %llu, \"snapshot_ms\": %.1f, "
		"\"published\": %llu, \"published_peak\": %llu, "
		"\"delivered\": %llu, \"resumed\": %llu, \"lost\": %llu, "
		"\"phases\": [",
		(unsigned long long)day.entries,
		(double)day.bytes / (double)day.entries,
		(unsigned long long)day.bytes,
		(unsigned long long)day.links_bytes,
		(unsigned long long)day.snapshot_keys, day.snapshot_ms,
		(unsigned long long)messages.total.published,
		(unsigned long long)messages.total.peak,
		(unsigned long long)messages.total.delivered,
		(unsigned long long)messages.total.resumed,
		(unsigned long long)messages.total.lost);
	report_json(out);
	fprintf(out, "]}\n");
}

static void run_and_write(const struct plan *plan, uint64_t seed,
			  const char *prefix)
{
	FILE *rows = prefix ? file_of(prefix, ".csv") : NULL;
	FILE *sums;

	run(plan, seed, rows);
	report_table();
	if (prefix == NULL)
		return;
	sums = file_of(prefix, ".json");
	write_sums(sums);
	fclose(sums);
	fclose(rows);
}

int main(int argc, char **argv)
{
	uint64_t seed = number_from("SIM_SEED", 0);
	struct plan plan = plan_small;
	bool full = false, least = false;
	const char *prefix = NULL;

	for (int i = 1; i < argc; i++) {
		full |= strcmp(argv[i], "--full") == 0;
		least |= strcmp(argv[i], "--least") == 0;
		if (strcmp(argv[i], "--out") == 0 && i + 1 < argc)
			prefix = argv[++i];
	}
	if (full)
		plan = plan_full;
	log_init("scale", LOG_ERROR, false);
	for (uint64_t i = 1; i <= (full || seed ? 1 : RUNS); i++) {
		uint64_t n = seed ? seed : i;

		plan.balance = least || (!full && n % 2 == 0) ? BALANCE_LEAST
							      : BALANCE_RANDOM;
		run_and_write(&plan, n, prefix);
	}
	return 0;
}

/* report.h - what a run is asked for: a row every ROW_MS for the curves, sums
 * of each phase for the table and for what has to hold.
 */
#ifndef STENTOR_TESTS_SIM_SCALE_REPORT_H
#define STENTOR_TESTS_SIM_SCALE_REPORT_H

#include "tests/sim/scale/fleet.h"

#define ROW_MS	    10000
#define TALLY_MS    100
#define TALLY_SLOTS 6000 /* up to ten minutes */
#define PHASES_MAX  12
#define GIVING_MS   20000 /* without giving: that episode is over */
/* Of a phase: when all have come at once, and nothing has changed yet. */
#define STORM_FROM_MS 30000
#define STORM_TO_MS   60000

/* Times, in steps of TALLY_MS. */
struct tally {
	uint32_t in_slot[TALLY_SLOTS];
	uint64_t count, max_ms;
};

struct phase {
	const char *name;
	uint64_t from_ms, to_ms;
	struct tally back;	    /* from a lost stream to the next one */
	uint64_t refused;	    /* attempts: full, or over the rate */
	uint64_t refused_ms;	    /* longest until one of those was in */
	uint64_t turned_away;	    /* in a second, in the storm */
	uint64_t busiest;	    /* node: streams begun in a second */
	uint64_t busiest_row;	    /* and in ROW_MS */
	uint64_t drained, given;    /* streams sent away: to drain, to level */
	uint64_t cut;		    /* that were left at a drain's end */
	uint64_t drain_ms;	    /* longest drain */
	uint64_t gave_ms;	    /* when one was given last */
	unsigned rounds;	    /* of giving, of all nodes together */
	unsigned episodes;	    /* of giving, of one node at most, since the
				     * fleet changed */
	uint64_t lost;		    /* messages */
	uint64_t fullest, emptiest; /* node at the end */
	unsigned nodes;
};

static struct {
	struct phase phase[PHASES_MAX];
	unsigned phases;
	FILE *rows; /* NULL: none */
	uint64_t second_ms, row_ms;
	uint64_t refused_before; /* a second ago */
	/* Since the last row */
	struct tally back;
	uint64_t begun, busiest, refused, sent_away;
} report;

static struct phase *phase_now(void)
{
	return &report.phase[report.phases - 1];
}

/* --- tallies ----------------------------------------------------------- */

static void tally_add(struct tally *t, uint64_t ms)
{
	t->in_slot[min_of(ms / TALLY_MS, (uint64_t)TALLY_SLOTS - 1)]++;
	t->count++;
	t->max_ms = max_of(t->max_ms, ms);
}

static uint64_t tally_ms(const struct tally *t, unsigned permille)
{
	uint64_t wanted = (t->count * permille + 999) / 1000, seen = 0;

	for (unsigned i = 0; i < TALLY_SLOTS && t->count > 0; i++) {
		seen += t->in_slot[i];
		if (seen >= wanted)
			return (uint64_t)i * TALLY_MS;
	}
	return 0;
}

/* --- events ------------------------------------------------------------ */

/* A client has a stream, `ms` after it came or lost one. */
static void report_in(uint64_t ms, bool back, bool refused)
{
	struct phase *p = phase_now();

	if (refused)
		p->refused_ms = max_of(p->refused_ms, ms);
	if (!back)
		return;
	tally_add(&p->back, ms);
	tally_add(&report.back, ms);
}

static void report_refused(bool *refused)
{
	*refused = true;
	phase_now()->refused++;
	report.refused++;
}

static void report_drained(uint64_t streams, bool cut)
{
	phase_now()->drained += streams;
	if (cut)
		phase_now()->cut += streams;
	report.sent_away += streams;
}

static void report_given(struct sim_node *n, uint64_t streams)
{
	struct phase *p = phase_now();

	if (n->gave_ms == 0 || world.now_ms - n->gave_ms >= GIVING_MS)
		n->episodes++;
	if (p->gave_ms == 0 || world.now_ms - p->gave_ms >= GIVING_MS) {
		p->rounds++;
		trace("node %llu begins a round", n->number);
	}
	n->gave_ms = p->gave_ms = world.now_ms;
	p->episodes = max_of(p->episodes, n->episodes);
	p->given += streams;
	report.sent_away += streams;
}

static void report_drain_over(const struct sim_node *n)
{
	struct phase *p = phase_now();

	p->drain_ms = max_of(p->drain_ms, world.now_ms - n->drain_ms);
}

/* --- nodes ------------------------------------------------------------- */

struct spread {
	unsigned serving, draining;
	uint64_t fullest, emptiest; /* of those that serve */
	uint64_t streams;
};

static struct spread report_spread(void)
{
	struct spread s = {.emptiest = UINT64_MAX};

	for (unsigned i = 0; i < cluster.nodes; i++) {
		const struct sim_node *n = cluster.node[i];
		uint64_t streams = node_streams(n);

		s.draining += n->state == NODE_DRAINS;
		s.streams += streams;
		if (n->state != NODE_SERVES)
			continue;
		s.serving++;
		s.fullest = max_of(s.fullest, streams);
		s.emptiest = min_of(s.emptiest, streams);
	}
	if (s.serving == 0)
		s.emptiest = 0;
	return s;
}

static void report_second(void)
{
	struct phase *p = phase_now();

	for (unsigned i = 0; i < cluster.nodes; i++) {
		struct sim_node *n = cluster.node[i];
		uint64_t begun = node_begun(n);

		report.begun += begun - n->begun_second;
		report.busiest =
			max_of(report.busiest, begun - n->begun_second);
		n->begun_second = begun;
	}
	p->busiest = max_of(p->busiest, report.busiest);
	if (world.now_ms - p->from_ms > STORM_FROM_MS &&
	    world.now_ms - p->from_ms <= STORM_TO_MS)
		p->turned_away = max_of(p->turned_away,
					report.refused - report.refused_before);
	report.refused_before = report.refused;
}

static void write_row(uint64_t present, unsigned wanted)
{
	struct spread s = report_spread();
	double seconds = ROW_MS / 1000.0;

	fprintf(report.rows,
		"%.0f,%s,%llu,%llu,%u,%u,%u,%llu,%.1f,%.1f,%.1f,%.1f,%llu,%llu,"
		"%.1f\n",
		(double)(world.now_ms - report.phase[0].from_ms) / 1000,
		phase_now()->name, (unsigned long long)present,
		(unsigned long long)s.streams, s.serving, s.draining, wanted,
		(unsigned long long)report.busiest,
		(double)report.begun / seconds / (double)max_of(s.serving, 1u),
		(double)report.refused / seconds,
		(double)tally_ms(&report.back, 500) / 1000,
		(double)tally_ms(&report.back, 990) / 1000,
		(unsigned long long)s.fullest, (unsigned long long)s.emptiest,
		(double)report.sent_away / seconds);
}

static void report_row(uint64_t present, unsigned wanted)
{
	struct phase *p = phase_now();

	for (unsigned i = 0; i < cluster.nodes; i++) {
		struct sim_node *n = cluster.node[i];
		uint64_t begun = node_begun(n);

		p->busiest_row = max_of(p->busiest_row, begun - n->begun_row);
		n->begun_row = begun;
	}
	if (report.rows != NULL)
		write_row(present, wanted);
	report.back = (struct tally){.count = 0};
	report.begun = report.busiest = report.sent_away = 0;
	report.refused = report.refused_before = 0;
}

static void report_tick(uint64_t present, unsigned wanted)
{
	if (world.now_ms - report.second_ms >= SECOND) {
		report.second_ms = world.now_ms;
		report_second();
	}
	if (world.now_ms - report.row_ms >= ROW_MS) {
		report.row_ms = world.now_ms;
		report_row(present, wanted);
	}
}

/* --- phases ------------------------------------------------------------ */

static void report_phase(const char *name, uint64_t lost)
{
	struct phase *p = &report.phase[report.phases++];

	check(report.phases <= PHASES_MAX);
	p->name = name;
	p->from_ms = world.now_ms;
	p->lost = lost;
	trace("%llu: next phase", report.phases);
}

static struct phase *report_phase_over(uint64_t lost)
{
	struct phase *p = phase_now();
	struct spread s = report_spread();

	p->to_ms = world.now_ms;
	p->lost = lost - p->lost;
	p->fullest = s.fullest;
	p->emptiest = s.emptiest;
	p->nodes = s.serving;
	return p;
}

static void report_table(void)
{
	printf("%-11s %6s %5s %8s %8s %6s %6s %6s %6s %6s %8s %6s %8s %8s %8s "
	       "%4s\n",
	       "phase", "s", "nodes", "back", "refused", "in", "p50", "p99",
	       "max", "acc/s", "drained", "in", "given", "fullest", "emptiest",
	       "lost");
	for (unsigned i = 0; i < report.phases; i++) {
		const struct phase *p = &report.phase[i];

		printf("%-11s %6.0f %5u %8llu %8llu %6.1f %6.1f %6.1f %6.1f "
		       "%6llu %8llu %6.1f %8llu %8llu %8llu %4llu\n",
		       p->name, (double)(p->to_ms - p->from_ms) / 1000,
		       p->nodes, (unsigned long long)p->back.count,
		       (unsigned long long)p->refused,
		       (double)p->refused_ms / 1000,
		       (double)tally_ms(&p->back, 500) / 1000,
		       (double)tally_ms(&p->back, 990) / 1000,
		       (double)p->back.max_ms / 1000,
		       (unsigned long long)p->busiest,
		       (unsigned long long)p->drained,
		       (double)p->drain_ms / 1000, (unsigned long long)p->given,
		       (unsigned long long)p->fullest,
		       (unsigned long long)p->emptiest,
		       (unsigned long long)p->lost);
	}
}

static void report_json(FILE *out)
{
	for (unsigned i = 0; i < report.phases; i++) {
		const struct phase *p = &report.phase[i];

		fprintf(out,
			"%s\n  {\"phase\": \"%s\", \"seconds\": %.0f, "
			"\"nodes\": %u, \"back\": %llu, \"back_p50_s\": %.1f, "
			"\"back_p99_s\": %.1f, \"back_max_s\": %.1f, "
			"\"refused\": %llu, \"refused_in_s\": %.1f, "
			"\"busiest\": %llu, \"drained\": %llu, "
			"\"given\": %llu, \"fullest\": %llu, "
			"\"emptiest\": %llu, \"lost\": %llu}",
			i == 0 ? "" : ",", p->name,
			(double)(p->to_ms - p->from_ms) / 1000, p->nodes,
			(unsigned long long)p->back.count,
			(double)tally_ms(&p->back, 500) / 1000,
			(double)tally_ms(&p->back, 990) / 1000,
			(double)p->back.max_ms / 1000,
			(unsigned long long)p->refused,
			(double)p->refused_ms / 1000,
			(unsigned long long)p->busiest,
			(unsigned long long)p->drained,
			(unsigned long long)p->given,
			(unsigned long long)p->fullest,
			(unsigned long long)p->emptiest,
			(unsigned long long)p->lost);
	}
}

static void report_begin(FILE *rows)
{
	memset(&report, 0, sizeof(report));
	report.rows = rows;
	report.second_ms = report.row_ms = world.now_ms;
	if (rows != NULL)
		fprintf(rows, "second,phase,present,connected,nodes,draining,"
			      "wanted,busiest,mean,refused,back_p50,back_p99,"
			      "fullest,emptiest,sent_away\n");
}

#endif

/* metrics.h - counters, gauges and histograms from one table.
 *
 * A program's table (`static const struct metric_desc`, indexed by an enum) is
 * the code, the exposition and the documentation. The cells are plain 64-bit
 * numbers in one block of memory, so that a worker's block can be a shared
 * mapping that its supervisor reads and adds up: one writer, any reader; a
 * reader may see a histogram half a message old, never a torn number.
 *
 * Exposition is Prometheus text 0.0.4. Names get the prefix "stentor_".
 */
#ifndef STENTOR_BASE_METRICS_H
#define STENTOR_BASE_METRICS_H

#include "common/base/check.h"

#include <stddef.h>
#include <stdint.h>

enum metric_type { METRIC_COUNTER, METRIC_GAUGE, METRIC_HISTOGRAM };

/* Upper bounds of the latency buckets, in seconds, +Inf not counted. */
#define METRIC_BUCKETS 18
extern const double metric_bucket_seconds[METRIC_BUCKETS];

struct metric_desc {
	/* Without the prefix: a counter's ends in _total, a histogram's in
	 * _seconds. */
	const char *name;
	enum metric_type type;
	const char *label;	   /* one bounded label, or NULL */
	const char *const *values; /* its values, NULL-terminated */
	const char *help;
	const char *label2; /* a second one, or NULL; none for histograms */
	const char *const *values2;
};

struct metrics {
	const struct metric_desc *table;
	size_t count;
	uint64_t *cells;
	uint32_t *first; /* of each metric, index into cells */
};

/* Bytes of a block for the table. */
size_t metrics_size(const struct metric_desc *table, size_t count);

/* Uses `memory` (zeroed, metrics_size() bytes, 8-aligned, borrowed until
 * metrics_fini) or allocates where it is NULL. */
void metrics_init(struct metrics *m, const struct metric_desc *table,
		  size_t count, void *memory);
void metrics_fini(struct metrics *m, void *memory);

/* `metric` is an index of the table, `label` an index of its values (0 where
 * it has none; with two labels first * values of the second + second). */
static inline void metric_add(struct metrics *m, unsigned metric,
			      unsigned label, uint64_t n)
{
	uint64_t *cell = &m->cells[m->first[metric] + label];

	__atomic_store_n(cell, *cell + n, __ATOMIC_RELAXED);
}

static inline void metric_set(struct metrics *m, unsigned metric,
			      unsigned label, uint64_t value)
{
	__atomic_store_n(&m->cells[m->first[metric] + label], value,
			 __ATOMIC_RELAXED);
}

static inline uint64_t metric_get(const struct metrics *m, unsigned metric,
				  unsigned label)
{
	return __atomic_load_n(&m->cells[m->first[metric] + label],
			       __ATOMIC_RELAXED);
}

/* One observation of a histogram; `n` equal ones at once for fan-outs. `label`
 * as above. */
void metric_observe_us(struct metrics *m, unsigned metric, unsigned label,
		       uint64_t us, uint64_t n);

/* A growing text for a scrape. */
struct metrics_text {
	char *bytes;
	size_t len, cap;
};

void metrics_text_free(struct metrics_text *t);
/* Appends what the exposition has no function for. */
void metrics_printf(struct metrics_text *t, const char *format, ...)
	PRINTF(2, 3);

/* The whole table, summed over `blocks` blocks (a supervisor's workers; gauges
 * are added too). All blocks have the same table. */
void metrics_render(struct metrics_text *t, const struct metrics *blocks[],
		    size_t count);

/* For metrics with labels that are only known at run time (node, worker). A
 * family is one head, then its samples. `labels` is ready text such as
 * node="a",worker="0" made with metrics_label(). */
void metrics_head(struct metrics_text *t, const char *name,
		  enum metric_type type, const char *help);
void metrics_sample(struct metrics_text *t, const char *name,
		    const char *labels, double value);
/* Appends key="value" (escaped), with a comma if `labels` is not empty. */
void metrics_label(char *labels, size_t size, const char *key,
		   const char *value);

/* stentor_build_info and the process_* family of this process, with those of
 * `children` pids added to cpu, memory and descriptors. The cpu of children
 * that ended and were waited for stays in the sum. */
void metrics_process(struct metrics_text *t, const char *version,
		     const int *children, size_t count);

#endif

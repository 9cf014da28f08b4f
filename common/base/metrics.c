#include "common/base/metrics.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PREFIX	   "stentor_"
#define LABELS_MAX 256 /* bytes of a sample's labels */

const double metric_bucket_seconds[METRIC_BUCKETS] = {
	0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
	0.1,	0.25,	 0.5,	 1,	2.5,	5,     10,   30,    60,
};

static const uint64_t bucket_us[METRIC_BUCKETS] = {
	100,	 250,	  500,	   1000,     2500,     5000,
	10000,	 25000,	  50000,   100000,   250000,   500000,
	1000000, 2500000, 5000000, 10000000, 30000000, 60000000,
};

/* Cells of each value of a histogram's label: each bucket's own count, that of
 * +Inf, and the sum in microseconds. The count of all is the sum of the
 * buckets, so that the two agree in every scrape. */
#define CELL_INF	METRIC_BUCKETS
#define CELL_SUM	(METRIC_BUCKETS + 1u)
#define HISTOGRAM_CELLS (METRIC_BUCKETS + 2u)

static const char *const type_names[] = {"counter", "gauge", "histogram"};

/* --- cells ------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);

	return len > end_len && strcmp(text + len - end_len, end) == 0;
}

/* The conventions that scrapers and linters rely on. */
static void check_desc(const struct metric_desc *d)
{
	check(d->name != NULL && d->help != NULL);
	check(strspn(d->name, "abcdefghijklmnopqrstuvwxyz0123456789_") ==
	      strlen(d->name));
	check((d->type == METRIC_COUNTER) == ends_with(d->name, "_total"));
	check((d->label == NULL) == (d->values == NULL));
	check((d->label2 == NULL) == (d->values2 == NULL));
	check(d->label2 == NULL || d->label != NULL);
	check(d->type != METRIC_HISTOGRAM || d->label2 == NULL);
	check(d->type != METRIC_HISTOGRAM || ends_with(d->name, "_seconds"));
}

static uint32_t values_in(const char *const *values)
{
	uint32_t count = 0;

	if (values == NULL)
		return 1;
	while (values[count])
		count++;
	return count;
}

static uint32_t samples_of(const struct metric_desc *d)
{
	return values_in(d->values) * values_in(d->values2);
}

static uint32_t cells_of(const struct metric_desc *d)
{
	return samples_of(d) *
	       (d->type == METRIC_HISTOGRAM ? HISTOGRAM_CELLS : 1);
}

size_t metrics_size(const struct metric_desc *table, size_t count)
{
	size_t cells = 0;

	for (size_t i = 0; i < count; i++)
		cells += cells_of(&table[i]);
	return cells * sizeof(uint64_t);
}

void metrics_init(struct metrics *m, const struct metric_desc *table,
		  size_t count, void *memory)
{
	uint32_t next = 0;

	m->table = table;
	m->count = count;
	m->first = xcalloc(count, sizeof(*m->first));
	for (size_t i = 0; i < count; i++) {
		check_desc(&table[i]);
		m->first[i] = next;
		next += cells_of(&table[i]);
	}
	m->cells = memory ? memory : xcalloc(next, sizeof(*m->cells));
}

void metrics_fini(struct metrics *m, void *memory)
{
	if (m->cells != memory)
		free(m->cells);
	free(m->first);
	*m = (struct metrics){0};
}

void metric_observe_us(struct metrics *m, unsigned metric, unsigned label,
		       uint64_t us, uint64_t n)
{
	unsigned first = label * HISTOGRAM_CELLS, bucket = 0;

	check(m->table[metric].type == METRIC_HISTOGRAM);
	while (bucket < METRIC_BUCKETS && us > bucket_us[bucket])
		bucket++;
	metric_add(m, metric, first + bucket, n);
	metric_add(m, metric, first + CELL_SUM, us * n);
}

/* --- text -------------------------------------------------------------- */

void metrics_printf(struct metrics_text *t, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	check(n >= 0);
	if (t->len + (size_t)n + 1 > t->cap) {
		t->cap = max_of(2 * t->cap, t->len + (size_t)n + 4096);
		t->bytes = xrealloc(t->bytes, t->cap);
	}
	va_start(args, format);
	vsnprintf(t->bytes + t->len, (size_t)n + 1, format, args);
	va_end(args);
	t->len += (size_t)n;
}

void metrics_text_free(struct metrics_text *t)
{
	free(t->bytes);
	*t = (struct metrics_text){0};
}

void metrics_head(struct metrics_text *t, const char *name,
		  enum metric_type type, const char *help)
{
	metrics_printf(t, "# HELP " PREFIX "%s ", name);
	for (; *help; help++) {
		if (*help == '\n')
			metrics_printf(t, "\\n");
		else if (*help == '\\')
			metrics_printf(t, "\\\\");
		else
			metrics_printf(t, "%c", *help);
	}
	metrics_printf(t, "\n# TYPE " PREFIX "%s %s\n", name, type_names[type]);
}

void metrics_sample(struct metrics_text *t, const char *name,
		    const char *labels, double value)
{
	bool braces = labels && *labels;

	metrics_printf(t, PREFIX "%s%s%s%s ", name, braces ? "{" : "",
		       braces ? labels : "", braces ? "}" : "");
	if (value == trunc(value) && fabs(value) < 9007199254740992.0)
		metrics_printf(t, "%.0f\n", value);
	else if (isnan(value))
		metrics_printf(t, "NaN\n");
	else if (isinf(value))
		metrics_printf(t, "%sInf\n", value < 0 ? "-" : "+");
	else
		metrics_printf(t, "%.15g\n", value);
}

/* A value that does not fit is cut, the pair stays well-formed. */
void metrics_label(char *labels, size_t size, const char *key,
		   const char *value)
{
	size_t used = strlen(labels);
	int n = snprintf(labels + used, size - used, "%s%s=\"",
			 used > 0 ? "," : "", key);

	check(n > 0 && used + (size_t)n + 2 <= size);
	used += (size_t)n;
	for (; *value && used + 4 <= size; value++) {
		char c = *value == '\n' ? 'n' : *value;

		if (c != *value || c == '"' || c == '\\')
			labels[used++] = '\\';
		labels[used++] = c;
	}
	labels[used++] = '"';
	labels[used] = '\0';
}

/* --- exposition -------------------------------------------------------- */

static uint64_t sum_of(const struct metrics *const blocks[], size_t count,
		       size_t metric, uint32_t cell)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < count; i++)
		sum += metric_get(blocks[i], (unsigned)metric, cell);
	return sum;
}

/* The labels of the sample with this index, as text; empty if there are none.
 */
static void sample_labels(const struct metric_desc *d, uint32_t index,
			  char *text, size_t size)
{
	uint32_t per_value = values_in(d->values2);

	*text = '\0';
	if (d->label)
		metrics_label(text, size, d->label,
			      d->values[index / per_value]);
	if (d->label2)
		metrics_label(text, size, d->label2,
			      d->values2[index % per_value]);
}

/* The buckets, sum and count of one value of the label. */
static void render_histogram(struct metrics_text *t,
			     const struct metrics *const blocks[], size_t count,
			     size_t metric, uint32_t value)
{
	const struct metric_desc *d = &blocks[0]->table[metric];
	uint32_t first = value * HISTOGRAM_CELLS;
	char labels[LABELS_MAX], braced[LABELS_MAX + 2] = "";
	const char *comma;
	uint64_t total = 0;

	sample_labels(d, value, labels, sizeof(labels));
	comma = *labels ? "," : "";
	if (*labels)
		snprintf(braced, sizeof(braced), "{%s}", labels);
	for (uint32_t i = 0; i < METRIC_BUCKETS; i++) {
		total += sum_of(blocks, count, metric, first + i);
		metrics_printf(t,
			       PREFIX "%s_bucket{%s%sle=\"%g\"} %" PRIu64 "\n",
			       d->name, labels, comma, metric_bucket_seconds[i],
			       total);
	}
	total += sum_of(blocks, count, metric, first + CELL_INF);
	metrics_printf(t, PREFIX "%s_bucket{%s%sle=\"+Inf\"} %" PRIu64 "\n",
		       d->name, labels, comma, total);
	metrics_printf(t, PREFIX "%s_sum%s %.6f\n", d->name, braced,
		       (double)sum_of(blocks, count, metric, first + CELL_SUM) /
			       1e6);
	metrics_printf(t, PREFIX "%s_count%s %" PRIu64 "\n", d->name, braced,
		       total);
}

static void render_plain(struct metrics_text *t,
			 const struct metrics *const blocks[], size_t count,
			 size_t metric, uint32_t index)
{
	const struct metric_desc *d = &blocks[0]->table[metric];
	char labels[LABELS_MAX];

	sample_labels(d, index, labels, sizeof(labels));
	metrics_printf(t, PREFIX "%s%s%s%s %" PRIu64 "\n", d->name,
		       *labels ? "{" : "", labels, *labels ? "}" : "",
		       sum_of(blocks, count, metric, index));
}

void metrics_render(struct metrics_text *t, const struct metrics *blocks[],
		    size_t count)
{
	check(count > 0);
	for (size_t i = 0; i < blocks[0]->count; i++) {
		const struct metric_desc *d = &blocks[0]->table[i];

		metrics_head(t, d->name, d->type, d->help);
		for (uint32_t k = 0; k < samples_of(d); k++) {
			if (d->type == METRIC_HISTOGRAM)
				render_histogram(t, blocks, count, i, k);
			else
				render_plain(t, blocks, count, i, k);
		}
	}
}

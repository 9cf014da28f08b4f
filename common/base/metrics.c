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

#define PREFIX "stentor_"

const double metric_bucket_seconds[METRIC_BUCKETS] = {
	0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05,
	0.1,	0.25,	 0.5,	 1,	2.5,	5,     10,   30,    60,
};

static const uint64_t bucket_us[METRIC_BUCKETS] = {
	100,	 250,	  500,	   1000,     2500,     5000,
	10000,	 25000,	  50000,   100000,   250000,   500000,
	1000000, 2500000, 5000000, 10000000, 30000000, 60000000,
};

/* Cells of a histogram: each bucket's own count, that of +Inf, and the sum in
 * microseconds. The count of all is the sum of the buckets, so that the two
 * agree in every scrape. */
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
	check(d->type != METRIC_HISTOGRAM || d->label == NULL);
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

static uint32_t cells_of(const struct metric_desc *d)
{
	if (d->type == METRIC_HISTOGRAM)
		return HISTOGRAM_CELLS;
	return values_in(d->values) * values_in(d->values2);
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

void metric_observe_us(struct metrics *m, unsigned metric, uint64_t us,
		       uint64_t n)
{
	unsigned bucket = 0;

	check(m->table[metric].type == METRIC_HISTOGRAM);
	while (bucket < METRIC_BUCKETS && us > bucket_us[bucket])
		bucket++;
	metric_add(m, metric, bucket, n);
	metric_add(m, metric, CELL_SUM, us * n);
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

static void render_histogram(struct metrics_text *t,
			     const struct metrics *const blocks[], size_t count,
			     size_t metric)
{
	const char *name = blocks[0]->table[metric].name;
	uint64_t total = 0;

	for (uint32_t i = 0; i < METRIC_BUCKETS; i++) {
		total += sum_of(blocks, count, metric, i);
		metrics_printf(t, PREFIX "%s_bucket{le=\"%g\"} %" PRIu64 "\n",
			       name, metric_bucket_seconds[i], total);
	}
	total += sum_of(blocks, count, metric, CELL_INF);
	metrics_printf(t, PREFIX "%s_bucket{le=\"+Inf\"} %" PRIu64 "\n", name,
		       total);
	metrics_printf(t, PREFIX "%s_sum %.6f\n", name,
		       (double)sum_of(blocks, count, metric, CELL_SUM) / 1e6);
	metrics_printf(t, PREFIX "%s_count %" PRIu64 "\n", name, total);
}

void metrics_render(struct metrics_text *t, const struct metrics *blocks[],
		    size_t count)
{
	check(count > 0);
	for (size_t i = 0; i < blocks[0]->count; i++) {
		const struct metric_desc *d = &blocks[0]->table[i];

		metrics_head(t, d->name, d->type, d->help);
		if (d->type == METRIC_HISTOGRAM) {
			render_histogram(t, blocks, count, i);
			continue;
		}
		for (uint32_t k = 0; k < cells_of(d); k++) {
			uint32_t per_value = values_in(d->values2);
			char label[256] = "";

			if (d->label)
				metrics_label(label, sizeof(label), d->label,
					      d->values[k / per_value]);
			if (d->label2)
				metrics_label(label, sizeof(label), d->label2,
					      d->values2[k % per_value]);
			metrics_printf(t, PREFIX "%s%s%s%s %" PRIu64 "\n",
				       d->name, d->label ? "{" : "", label,
				       d->label ? "}" : "",
				       sum_of(blocks, count, i, k));
		}
	}
}

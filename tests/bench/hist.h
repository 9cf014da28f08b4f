/*
 * hist.h - a latency histogram of flat memory: log-linear buckets, 64 to each
 * power of two, so that a value is known to 1.6 % from 1 ns to hours.
 *
 * It holds counts only, so that it can lie in memory shared by processes, be
 * added to another and be subtracted from a later copy of itself (a window).
 */
#ifndef TESTS_BENCH_HIST_H
#define TESTS_BENCH_HIST_H

#include <stdint.h>
#include <stdio.h>

#define HIST_SUB_BITS  6u
#define HIST_SUB       (1u << HIST_SUB_BITS)
#define HIST_EXPONENTS 38u /* up to 2^43 ns, 2.4 hours; more is clamped */
#define HIST_BUCKETS   (HIST_SUB * HIST_EXPONENTS)

struct hist {
	uint64_t sum_ns;
	uint64_t buckets[HIST_BUCKETS];
};

static inline uint32_t hist_bucket(uint64_t ns)
{
	uint32_t exponent;
	uint32_t bucket;

	if (ns < HIST_SUB)
		return (uint32_t)ns;
	exponent = 63u - (uint32_t)__builtin_clzll(ns) - HIST_SUB_BITS;
	bucket = (exponent + 1) * HIST_SUB +
		 (uint32_t)((ns >> exponent) & (HIST_SUB - 1));
	return bucket < HIST_BUCKETS ? bucket : HIST_BUCKETS - 1;
}

/* The highest value that falls into `bucket`. */
static inline uint64_t hist_bucket_top(uint32_t bucket)
{
	uint32_t exponent;
	uint64_t base;

	if (bucket < HIST_SUB)
		return bucket;
	exponent = bucket / HIST_SUB - 1;
	base = (uint64_t)(HIST_SUB + bucket % HIST_SUB) << exponent;
	return base + (1ull << exponent) - 1;
}

static inline void hist_add(struct hist *h, uint64_t ns)
{
	h->sum_ns += ns;
	h->buckets[hist_bucket(ns)]++;
}

static inline void hist_merge(struct hist *into, const struct hist *from)
{
	into->sum_ns += from->sum_ns;
	for (uint32_t i = 0; i < HIST_BUCKETS; i++)
		into->buckets[i] += from->buckets[i];
}

static inline void hist_subtract(struct hist *from, const struct hist *earlier)
{
	from->sum_ns -= earlier->sum_ns;
	for (uint32_t i = 0; i < HIST_BUCKETS; i++)
		from->buckets[i] -= earlier->buckets[i];
}

static inline uint64_t hist_count(const struct hist *h)
{
	uint64_t count = 0;

	for (uint32_t i = 0; i < HIST_BUCKETS; i++)
		count += h->buckets[i];
	return count;
}

/* The value that `share` (0..1) of all values do not exceed; 0 when empty. */
static inline uint64_t hist_quantile(const struct hist *h, double share)
{
	uint64_t count = hist_count(h);
	uint64_t rank = (uint64_t)(share * (double)count);
	uint64_t seen = 0;

	if (rank >= count)
		rank = count - (count > 0);
	for (uint32_t i = 0; i < HIST_BUCKETS; i++) {
		seen += h->buckets[i];
		if (seen > rank)
			return hist_bucket_top(i);
	}
	return 0;
}

/* Prints one JSON object, times in microseconds. */
static inline void hist_print(FILE *out, const struct hist *h)
{
	uint64_t count = hist_count(h);
	double mean = count > 0 ? (double)h->sum_ns / (double)count : 0;

	fprintf(out,
		"{\"count\":%llu,\"mean_us\":%.1f,\"p50_us\":%.1f,"
		"\"p99_us\":%.1f,\"p999_us\":%.1f,\"max_us\":%.1f}",
		(unsigned long long)count, mean / 1e3,
		(double)hist_quantile(h, 0.5) / 1e3,
		(double)hist_quantile(h, 0.99) / 1e3,
		(double)hist_quantile(h, 0.999) / 1e3,
		(double)hist_quantile(h, 1.0) / 1e3);
}

#endif

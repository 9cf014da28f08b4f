/* world.h - what every part of a simulated run shares: one seeded source of
 * chance, one clock, and a trace of what happened last.
 *
 * The same seed gives the same run: the cores' own random numbers (epochs,
 * keys) come from it too, because getrandom() is ours here. The trace holds
 * formats and numbers and is only rendered when a run fails.
 */
#ifndef STENTOR_TESTS_SIM_WORLD_H
#define STENTOR_TESTS_SIM_WORLD_H

#include "common/base/check.h"

#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define TRACE_LINES 4096 /* remembered */
#define TRACE_TAIL  80	 /* printed; SIM_TRACE=N prints more */

struct trace_line {
	uint64_t at_ms;
	const char *format; /* of up to four unsigned long long */
	unsigned long long n[4];
};

static struct {
	uint64_t seed, random, now_ms;
	struct trace_line trace[TRACE_LINES];
	uint64_t traced;
} world;

/* --- chance ------------------------------------------------------------ */

/* splitmix64 */
static uint64_t chance_next(void)
{
	uint64_t x = world.random += 0x9e3779b97f4a7c15u;

	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
	x = (x ^ x >> 27) * 0x94d049bb133111ebu;
	return x ^ x >> 31;
}

static uint64_t below(uint64_t bound)
{
	return bound > 0 ? chance_next() % bound : 0;
}

static bool chance(unsigned per_mille)
{
	return below(1000) < per_mille;
}

ssize_t getrandom(void *bytes, size_t len, unsigned flags UNUSED)
{
	for (size_t i = 0; i < len; i++)
		((uint8_t *)bytes)[i] = (uint8_t)chance_next();
	return (ssize_t)len;
}

/* --- trace ------------------------------------------------------------- */

static void trace_add(const char *format, unsigned long long a,
		      unsigned long long b, unsigned long long c,
		      unsigned long long d)
{
	world.trace[world.traced++ % TRACE_LINES] =
		(struct trace_line){world.now_ms, format, {a, b, c, d}};
}

/* trace("format", up to four numbers); %llu each. */
#define TRACE_ARGS(format, a, b, c, d, ...)                                 \
	trace_add(format, (unsigned long long)(a), (unsigned long long)(b), \
		  (unsigned long long)(c), (unsigned long long)(d))
#define trace(...) TRACE_ARGS(__VA_ARGS__, 0, 0, 0, 0)

static void trace_print(void)
{
	const char *wanted = getenv("SIM_TRACE");
	uint64_t lines = wanted ? strtoull(wanted, NULL, 10) : TRACE_TAIL;
	uint64_t i;

	lines = min_of(min_of(lines, TRACE_LINES), world.traced);
	for (i = world.traced - lines; i < world.traced; i++) {
		const struct trace_line *t = &world.trace[i % TRACE_LINES];

		fprintf(stderr, "%8llu ms  ", (unsigned long long)t->at_ms);
		fprintf(stderr, t->format, t->n[0], t->n[1], t->n[2], t->n[3]);
		fputc('\n', stderr);
	}
}

/* --- failure ----------------------------------------------------------- */

static void PRINTF(1, 2) fail(const char *format, ...)
{
	va_list args;

	trace_print();
	fprintf(stderr,
		"FAILED at %llu ms: ", (unsigned long long)world.now_ms);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\nreplay: SIM_SEED=%llu\n",
		(unsigned long long)world.seed);
	_exit(1);
}

/* A check() that tripped has said so on stderr already. */
static void on_crash(int number)
{
	fail("signal %d", number);
}

static void world_begin(uint64_t seed)
{
	world.seed = world.random = seed;
	world.now_ms = 1000000;
	world.traced = 0;
	signal(SIGABRT, on_crash);
#ifndef __SANITIZE_ADDRESS__
	signal(SIGSEGV, on_crash);
#endif
}

#endif

/*
 * eventlog.h - what each reader was given, for a judge who reads it afterwards
 * (tests/system/oracle.py): the channels' numbers and positions, gaps, and when
 * a reader came, left, or began anew.
 *
 * A log grows with what happens, not with what is delivered: messages whose
 * numbers and offsets both count on are one record, a *run*. Of when messages
 * came a record each is kept of the late ones only, and a count a second of the
 * others. A run is written before whatever else its reader has to tell, so the
 * records of a reader and channel are in order. Memory: one run for each reader
 * and channel.
 *
 * Records are 64 bytes, of this machine's byte order; times are CLOCK_MONOTONIC
 * in nanoseconds. A place of epoch 0 is none.
 */
#ifndef TESTS_BENCH_EVENTLOG_H
#define TESTS_BENCH_EVENTLOG_H

#include "bench.h"

#define EVENTLOG_LATE_NS (50ull * 1000 * 1000) /* after it was sent */
#define EVENTLOG_ALL	 UINT32_MAX	       /* no one channel's */

enum eventlog_type {
	EVENTLOG_BEGIN = 'B',	/* connects without an id: a new life */
	EVENTLOG_CONNECT = 'C', /* comes back with one */
	EVENTLOG_READY = 'R',	/* place a, b */
	EVENTLOG_RUN =
		'M', /* `count` from place a, b and number c; d: last t */
	EVENTLOG_LATE = 'L',   /* sent a, reader ready b, number c */
	EVENTLOG_GAP = 'G',    /* reason `detail`, places a, b to c, d */
	EVENTLOG_END = 'X',    /* the connection */
	EVENTLOG_DEATH = 'E',  /* ends its life */
	EVENTLOG_PROMPT = 'P', /* b live messages came in second a, not late */
	EVENTLOG_MISPLACED = 'W', /* JSON has place a, b; the id has c, d */
};

struct eventlog_record {
	uint8_t type;
	uint8_t pad;
	uint16_t detail;
	uint32_t reader, life, channel, count, pad2;
	uint64_t a, b, c, d, t;
};
_Static_assert(sizeof(struct eventlog_record) == 64, "as the judge reads it");

/* Of a reader and channel; count 0: none. */
struct eventlog_run {
	uint64_t epoch, offset, number; /* of the first */
	uint64_t first_ns, last_ns;
	uint32_t count;
};

struct eventlog {
	FILE *file; /* NULL: nothing is kept */
	uint64_t second, prompt;
};

static inline void eventlog_open(struct eventlog *l, const char *path)
{
	l->file = fopen(path, "wb");
	if (l->file == NULL || setvbuf(l->file, NULL, _IOFBF, 1u << 20) != 0)
		die("%s: %s", path, strerror(errno));
}

static inline void eventlog_write(struct eventlog *l,
				  const struct eventlog_record *r)
{
	if (fwrite(r, sizeof(*r), 1, l->file) != 1)
		die("event log: %s", strerror(errno));
}

/* Ends a run, if there is one. */
static inline void eventlog_cut(struct eventlog *l, struct eventlog_run *run,
				uint32_t reader, uint32_t life,
				uint32_t channel)
{
	struct eventlog_record r = {
		.type = EVENTLOG_RUN,
		.reader = reader,
		.life = life,
		.channel = channel,
		.count = run->count,
		.a = run->epoch,
		.b = run->offset,
		.c = run->number,
		.d = run->last_ns,
		.t = run->first_ns,
	};

	if (run->count > 0)
		eventlog_write(l, &r);
	run->count = 0;
}

/* Offset 0: the channel has no places, and its numbers alone make a run. */
static inline bool eventlog_continues(const struct eventlog_run *run,
				      uint64_t epoch, uint64_t offset,
				      uint64_t number)
{
	uint64_t next = run->offset > 0 ? run->offset + run->count : 0;

	return run->count > 0 && epoch == run->epoch && offset == next &&
	       number == run->number + run->count;
}

/* A message that came to a reader; where it does not go on, its run is cut
 * first. */
static inline void eventlog_message(struct eventlog *l,
				    struct eventlog_run *run, uint32_t reader,
				    uint32_t life, uint32_t channel,
				    uint64_t epoch, uint64_t offset,
				    uint64_t number, uint64_t t)
{
	if (!eventlog_continues(run, epoch, offset, number)) {
		eventlog_cut(l, run, reader, life, channel);
		*run = (struct eventlog_run){.epoch = epoch,
					     .offset = offset,
					     .number = number,
					     .first_ns = t};
	}
	run->count++;
	run->last_ns = t;
}

static inline void eventlog_prompt_cut(struct eventlog *l)
{
	struct eventlog_record r = {.type = EVENTLOG_PROMPT,
				    .channel = EVENTLOG_ALL,
				    .a = l->second,
				    .b = l->prompt};

	if (l->prompt > 0)
		eventlog_write(l, &r);
	l->prompt = 0;
}

/* When a message came that was sent to a reader that was ready. */
static inline void eventlog_live(struct eventlog *l, uint32_t reader,
				 uint32_t life, uint32_t channel,
				 const struct stamp *stamp, uint64_t ready_ns,
				 uint64_t t)
{
	struct eventlog_record r = {
		.type = EVENTLOG_LATE,
		.reader = reader,
		.life = life,
		.channel = channel,
		.a = stamp->sent_ns,
		.b = ready_ns,
		.c = stamp->seq,
		.t = t,
	};

	if (t - stamp->sent_ns > EVENTLOG_LATE_NS) {
		eventlog_write(l, &r);
		return;
	}
	if (t / NS_PER_S != l->second)
		eventlog_prompt_cut(l);
	l->second = t / NS_PER_S;
	l->prompt++;
}

#endif

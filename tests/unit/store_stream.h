/* store_stream.h - a stream of appends while something happens to a store;
 * after store_conformance.h.
 *
 * A few appends of each channel are always under way. Whatever happens, those
 * that are acknowledged have rising offsets in one epoch, and stream_check()
 * finds all of them in the log, in the order in which they were submitted.
 */
#ifndef STENTOR_TESTS_STORE_STREAM_H
#define STENTOR_TESTS_STORE_STREAM_H

#include "common/base/clock.h"
#include "tests/unit/store_conformance.h"

#define STREAM_CHANNELS 4
#define STREAM_MAX	100000 /* what the history holds */
#define STREAM_DEPTH	8      /* under way of each channel */

struct stream;

struct streamed {
	struct store_append a;
	struct stream *stream;
	unsigned channel;
	char text[16], key[20];
};

struct stream {
	struct conformance *f;
	char names[STREAM_CHANNELS][NAME_SIZE];
	unsigned submitted[STREAM_CHANNELS], under_way;
	uint64_t last[STREAM_CHANNELS]; /* offset acknowledged */
	uint64_t epoch[STREAM_CHANNELS];
	unsigned acknowledged, failed, unknown;
	bool stop, epochs_may_change;
	unsigned newest[STREAM_CHANNELS]; /* acknowledged */
	/* The number of the message acknowledged at an offset, plus one. */
	unsigned *at[STREAM_CHANNELS];
};

static void stream_next(struct stream *s, unsigned channel);

static void on_streamed(struct store_append *a)
{
	struct streamed *p = container_of(a, struct streamed, a);
	struct stream *s = p->stream;

	s->under_way--;
	if (a->rc == 0) {
		/* In the order in which they were submitted, given once. */
		if (a->place.epoch == s->epoch[p->channel])
			assert_true(a->place.offset > s->last[p->channel]);
		else {
			assert_true(a->place.epoch > s->epoch[p->channel]);
			memset(s->at[p->channel], 0,
			       (STREAM_MAX + 1) * sizeof(*s->at[0]));
		}
		s->newest[p->channel] = (unsigned)strtoul(p->text, NULL, 10);
		s->at[p->channel][a->place.offset] = 1 + s->newest[p->channel];
		s->last[p->channel] = a->place.offset;
		if (s->epoch[p->channel] != 0 && !s->epochs_may_change)
			assert_int_equal(a->place.epoch, s->epoch[p->channel]);
		s->epoch[p->channel] = a->place.epoch;
		s->acknowledged++;
	} else {
		assert_int_equal(a->rc, ERR_UNAVAILABLE);
		s->failed++;
		s->unknown += !a->definite;
	}
	stream_next(s, p->channel);
	free(p);
}

static void stream_next(struct stream *s, unsigned channel)
{
	struct streamed *p;

	if (s->stop || s->submitted[channel] == STREAM_MAX)
		return;
	p = xcalloc(1, sizeof(*p));
	p->stream = s;
	p->channel = channel;
	snprintf(p->text, sizeof(p->text), "%u", s->submitted[channel]++);
	snprintf(p->key, sizeof(p->key), "k%s", p->text);
	p->a = (struct store_append){
		.channel = s->names[channel],
		.record = p->text,
		.len = strlen(p->text),
		.size = 100000,
		.ttl_ms = 600000,
		/* Every other one: those need a key that is not there. */
		.idempotency_key = channel % 2 ? p->key : "",
		.message_id = "id",
		.done = on_streamed,
	};
	s->under_way++;
	store_append(s->f->store, &p->a);
}

static void stream_start(struct stream *s, struct conformance *f,
			 const char *tag)
{
	*s = (struct stream){.f = f};
	for (unsigned i = 0; i < STREAM_CHANNELS; i++)
		s->at[i] = xcalloc(STREAM_MAX + 1, sizeof(*s->at[i]));
	for (unsigned i = 0; i < STREAM_CHANNELS; i++)
		snprintf(s->names[i], NAME_SIZE, "%s-%u-%016" PRIx64, tag, i,
			 f->prefix);
}

static inline void stream_free(struct stream *s)
{
	for (unsigned i = 0; i < STREAM_CHANNELS; i++)
		free(s->at[i]);
}

static void stream_fill(struct stream *s)
{
	for (unsigned i = 0; i < STREAM_CHANNELS; i++)
		for (unsigned n = 0; n < STREAM_DEPTH; n++)
			stream_next(s, i);
}

/* Turns the loop for some time: the only way to let others go on meanwhile. */
static inline void turn_for(struct conformance *f, uint64_t ms)
{
	uint64_t until = clock_monotonic_ms() + ms;

	loop_until(f->l, clock_monotonic_ms() >= until);
}

/* All that was acknowledged is there, in order, without a double. */
static void stream_check(struct stream *s)
{
	for (unsigned i = 0; i < STREAM_CHANNELS; i++) {
		uint64_t after = 0;
		long last = -1;
		struct reading r;

		do {
			r = (struct reading){.f = s->f};
			r.r = (struct store_read){
				.channel = s->names[i],
				.after = after,
				.records_max = array_len(s->f->got),
				.bytes_max = 64 << 20,
				.done = on_read,
			};
			read_wait(&r);
			for (size_t n = 0; n < s->f->got_count; n++) {
				long text =
					strtol((const char *)s->f->got[n].bytes,
					       NULL, 10);

				assert_int_equal(s->f->got[n].offset, ++after);
				assert_true(text > last);
				if (s->at[i][after] != 0)
					assert_int_equal(s->at[i][after],
							 text + 1);
				last = text;
			}
		} while (after < r.r.top.offset);
		assert_true(after >= s->last[i]);
	}
}

static inline void stream_end(struct stream *s)
{
	s->stop = true;
	loop_until(s->f->l, s->under_way == 0);
	print_message("%u acknowledged, %u failed (%u unknown)\n",
		      s->acknowledged, s->failed, s->unknown);
	stream_check(s);
	stream_free(s);
}

#endif

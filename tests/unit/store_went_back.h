/* store_went_back.h - what every store must do where it may have gone back; a
 * part of store_conformance.h.
 *
 * What a test can always do is to claim to know more than the store has. Stores
 * that can really be put back have tests of their own for it, with
 * assert_gone_back().
 */
#ifndef STENTOR_TESTS_STORE_WENT_BACK_H
#define STENTOR_TESTS_STORE_WENT_BACK_H

#include "tests/unit/store_fixture.h"

static void assert_era(const struct store_eras *eras, unsigned i,
		       uint64_t epoch, uint64_t offset)
{
	assert_true(i < eras->count);
	assert_int_equal(eras->era[i].epoch, epoch);
	assert_int_equal(eras->era[i].offset, offset);
}

/* For tests in which a store really went back, by whatever means: the messages
 * "1", "2" ... up to `kept` are left of an epoch that had them up to `lost`,
 * each under its text as key. Appends one, and returns its position. */
static inline struct store_place assert_gone_back(struct conformance *f,
						  const char *channel,
						  uint64_t kept,
						  struct store_place lost)
{
	struct store_eras eras;
	struct appending p;
	struct reading r;
	char text[24];

	for (uint64_t i = 1; i <= kept + 1; i++) {
		snprintf(text, sizeof(text), "%" PRIu64, i);
		append_init(f, &p, channel, text, text);
		append_wait(&p);
		assert_int_equal(p.a.rc, 0);
		/* The answer for a message that is lost is lost with it. */
		assert_int_equal(p.a.duplicate, i <= kept);
		assert_true(p.a.place.epoch > lost.epoch);
		assert_int_equal(p.a.place.offset, i);
	}
	read_init(f, &r, channel, 0);
	r.r.epoch = p.a.place.epoch;
	read_wait(&r);
	assert_int_equal(f->got_count, kept + 1);
	for (uint64_t i = 1; i <= kept + 1; i++) {
		snprintf(text, sizeof(text), "%" PRIu64, i);
		assert_got(f, i - 1, i, text);
	}
	assert_era(&r.r.eras, 0, lost.epoch, kept);
	top_known(f, channel, &lost, &eras);
	assert_int_equal(eras.count, r.r.eras.count);
	return p.a.place;
}

/* Messages 1 to 3, and somebody who has seen 5: that is the store gone back by
 * two. Returns the top it then has. */
static struct store_place went_back(struct conformance *f, const char *channel,
				    struct store_place *old)
{
	struct store_place known, top;
	struct store_eras eras;

	append_text(f, channel, "1");
	append_text(f, channel, "2");
	*old = append_text(f, channel, "3");
	known = (struct store_place){old->epoch, 5};
	top = top_known(f, channel, &known, &eras);
	assert_true(top.epoch > old->epoch);
	assert_int_equal(top.offset, 3);
	assert_int_equal(eras.count, 1);
	assert_era(&eras, 0, old->epoch, 3);
	return top;
}

static void test_store_went_back(void **state)
{
	struct conformance *f = *state;
	struct store_place old, top = went_back(f, "a", &old), place, known;
	struct store_eras eras;
	struct reading r;

	/* Asked again, and by somebody who was further behind. */
	for (uint64_t offset = 1; offset <= 5; offset++) {
		known = (struct store_place){old.epoch, offset};
		place = top_known(f, "a", &known, &eras);
		assert_memory_equal(&place, &top, sizeof(top));
		assert_int_equal(eras.count, 1);
	}
	place = append_text(f, "a", "4");
	assert_int_equal(place.epoch, top.epoch);
	assert_int_equal(place.offset, 4);
	place = top_known(f, "a", &place, NULL);
	assert_int_equal(place.epoch, top.epoch);
	assert_int_equal(place.offset, 4);
	read_init(f, &r, "a", 0);
	r.r.epoch = top.epoch;
	read_wait(&r);
	assert_int_equal(f->got_count, 4);
	assert_got(f, 0, 1, "1");
	assert_got(f, 3, 4, "4");
	assert_int_equal(r.r.eras.count, 1);
	assert_era(&r.r.eras, 0, old.epoch, 3);
	r.r.epoch = old.epoch; /* nothing is served for it any more */
	read_wait(&r);
	assert_int_equal(f->got_count, 0);
	assert_int_equal(r.r.top.epoch, top.epoch);
	assert_era(&r.r.eras, 0, old.epoch, 3);
	assert_int_equal(metric_get(store_counters(f->store), SM_ERAS, 0), 1);
}

/* An epoch that the store has never had: it has forgotten all of it. */
static void test_store_went_back_an_epoch(void **state)
{
	struct conformance *f = *state;
	struct store_place old, known, top;
	struct store_eras eras;

	append_text(f, "a", "1");
	old = append_text(f, "a", "2");
	known = (struct store_place){old.epoch + 1000000, 1};
	top = top_known(f, "a", &known, &eras);
	assert_true(top.epoch > known.epoch);
	assert_int_equal(top.offset, 2);
	assert_int_equal(eras.count, 1);
	assert_era(&eras, 0, old.epoch, 2);
	assert_int_equal(append_text(f, "a", "3").offset, 3);
}

/* Where nothing is left, what comes is greater than what there was. */
static void test_store_went_back_to_nothing(void **state)
{
	struct conformance *f = *state;
	struct store_place none = top_of(f, "a");
	struct store_place known = {none.epoch + 1000000, 5}, top;
	struct store_eras eras;

	top = top_known(f, "a", &known, &eras);
	assert_int_equal(top.offset, 0);
	assert_true(top.epoch > known.epoch);
	assert_int_equal(eras.count, 0);
	if (CONFORMANCE_KEEPS_EPOCHS)
		conformance_reopen(f);
	top = append_text(f, "a", "1");
	assert_true(top.epoch > known.epoch);
	assert_int_equal(top.offset, 1);
	known = (struct store_place){top.epoch, 0};
	none = top_known(f, "b", &known, NULL);
	assert_true(none.epoch >= known.epoch);
	assert_int_equal(none.offset, 0);
}

/* Epochs must not be used up by whoever claims to know one. */
static void test_store_known_by_nobody(void **state)
{
	static const uint64_t epochs[] = {STORE_KNOWN_MAX + 1, UINT64_MAX / 2,
					  UINT64_MAX};
	struct conformance *f = *state;
	struct store_place place = append_text(f, "a", "1"), top;

	for (size_t i = 0; i < array_len(epochs); i++) {
		struct store_place known = {epochs[i], UINT64_MAX};

		top = top_known(f, "a", &known, NULL);
		assert_memory_equal(&top, &place, sizeof(top));
		assert_true(top_known(f, "b", &known, NULL).epoch <
			    STORE_KNOWN_MAX);
	}
	assert_true(append_text(f, "b", "1").epoch < STORE_KNOWN_MAX);
}

/* What is remembered under a key is where it was, in the new epoch. */
static void test_store_went_back_idempotency(void **state)
{
	struct conformance *f = *state;
	struct store_place known, top;
	struct appending p;

	append_text(f, "a", "1");
	append_init(f, &p, "a", "k", "2");
	append_wait(&p);
	for (unsigned i = 0; i < 3; i++) {
		known = (struct store_place){p.a.place.epoch, 100};
		top = top_known(f, "a", &known, NULL);
		append_init(f, &p, "a", "k", "other");
		append_wait(&p);
		assert_int_equal(p.a.rc, 0);
		assert_true(p.a.duplicate);
		assert_int_equal(p.a.place.epoch, top.epoch);
		assert_int_equal(p.a.place.offset, 2);
		assert_string_equal(p.a.message_id, "id-2");
	}
	assert_int_equal(append_text(f, "a", "3").offset, 3);
}

/* Again and again: the last eras are remembered, the newest first. */
static void test_store_many_eras(void **state)
{
	struct conformance *f = *state;
	struct store_place tops[STORE_ERAS_MAX + 4];
	struct store_eras eras;
	struct reading r;

	for (unsigned i = 0; i < array_len(tops); i++) {
		struct store_place known = append_text(f, "a", "x");

		assert_int_equal(known.offset, i + 1);
		known.offset += 10;
		tops[i] = (struct store_place){known.epoch, i + 1};
		assert_true(top_known(f, "a", &known, &eras).epoch >
			    known.epoch);
		assert_int_equal(eras.count,
				 min_of(i + 1, (unsigned)STORE_ERAS_MAX));
		for (unsigned k = 0; k < eras.count; k++)
			assert_era(&eras, k, tops[i - k].epoch, i - k + 1);
	}
	if (CONFORMANCE_PERSISTENT)
		conformance_reopen(f);
	read_init(f, &r, "a", 0);
	read_wait(&r);
	assert_int_equal(f->got_count, array_len(tops));
	assert_int_equal(r.r.eras.count, eras.count);
	assert_memory_equal(r.r.eras.era, eras.era, sizeof(eras.era));
}

#define UNDER_WAY 500

/* Several ask with the same knowledge while messages come: one new epoch, and
 * none of what is acknowledged twice. */
static void test_store_went_back_under_way(void **state)
{
	struct conformance *f = *state;
	struct appending *p = xcalloc(UNDER_WAY, sizeof(*p));
	struct store_place old, top = went_back(f, "a", &old), known;
	struct store_place places[UNDER_WAY / 50];
	struct topping t[UNDER_WAY / 50];
	char name[NAME_SIZE];
	const char *names[] = {channel_name(f, name, "a")};
	uint64_t offset = top.offset;
	struct store_eras eras;
	unsigned done = 0;

	known = (struct store_place){top.epoch, 10000};
	for (unsigned i = 0; i < UNDER_WAY; i++) {
		append_init(f, &p[i], "a", "", "x");
		p[i].all_done = &done;
		append_submit(&p[i]);
		if (i % 100 == 99)
			uv_run(&f->l->loop, UV_RUN_NOWAIT);
		if (i % 50 != 0)
			continue;
		t[i / 50] = (struct topping){
			.f = f,
			.t = {.channels = names,
			      .known = &known,
			      .count = 1,
			      .places = &places[i / 50],
			      .done = on_tops},
		};
		store_tops(f->store, &t[i / 50].t);
	}
	for (unsigned i = 0; i < array_len(t); i++) {
		loop_until(f->l, t[i].done > 0);
		assert_int_equal(t[i].t.rc, 0);
		assert_true(places[i].epoch > known.epoch);
		assert_int_equal(places[i].epoch, places[0].epoch);
	}
	loop_until(f->l, done == UNDER_WAY);
	top_known(f, "a", &known, &eras);
	assert_int_equal(eras.count, 2);
	assert_era(&eras, 0, known.epoch, eras.era[0].offset);
	assert_era(&eras, 1, old.epoch, 3);
	for (unsigned i = 0; i < UNDER_WAY; i++) {
		assert_int_equal(p[i].a.rc, 0);
		assert_int_equal(p[i].a.place.offset, ++offset);
		assert_int_equal(p[i].a.place.epoch,
				 offset <= eras.era[0].offset
					 ? known.epoch
					 : places[0].epoch);
	}
	free(p);
}

/* The store went back behind the beginning of an epoch, and knows nothing of it:
 * who was in that epoch tells. Its places are moved then, also by who asks
 * later. */
static void test_store_learns_epochs(void **state)
{
	struct conformance *f = *state;
	struct store_place old, top, known, lost;
	struct store_eras eras, more = {.count = 1};

	for (unsigned i = 0; i < 5; i++)
		old = append_text(f, "a", "x");
	/* An epoch that began behind the third message. */
	lost = (struct store_place){old.epoch + 1000, 9};
	more.era[0] = (struct store_era){old.epoch, 3};
	top = top_taught(f, "a", &lost, &more, &eras);
	assert_true(top.epoch > lost.epoch);
	assert_int_equal(top.offset, 5);
	assert_int_equal(eras.count, 2);
	assert_era(&eras, 0, lost.epoch, 3);
	assert_era(&eras, 1, old.epoch, 5);

	/* By who is in the present epoch already; once. */
	known = top;
	more.era[0] = (struct store_era){old.epoch + 10, 4};
	for (unsigned i = 0; i < 2; i++) {
		top = top_taught(f, "a", &known, &more, &eras);
		assert_int_equal(top.epoch, known.epoch);
		assert_int_equal(eras.count, 3);
		assert_era(&eras, 0, lost.epoch, 3);
		assert_era(&eras, 1, old.epoch + 10, 4);
		assert_era(&eras, 2, old.epoch, 5);
	}
	/* Not beyond the top, nor of an epoch to come, nor of another log. */
	more.era[0] = (struct store_era){old.epoch + 20, 100};
	top_taught(f, "a", &known, &more, &eras);
	assert_era(&eras, 1, old.epoch + 20, 5);
	more.era[0] = (struct store_era){top.epoch + 5, 2};
	top_taught(f, "a", &known, &more, &eras);
	more.era[0] = (struct store_era){old.epoch - 5, 2};
	top_taught(f, "a", &known, &more, &eras);
	assert_int_equal(eras.count, 4);
	assert_int_equal(append_text(f, "a", "6").offset, 6);
	if (CONFORMANCE_PERSISTENT)
		conformance_reopen(f);
	top_known(f, "a", NULL, &eras);
	assert_int_equal(eras.count, 4);
	assert_era(&eras, 0, lost.epoch, 3);
	assert_era(&eras, 3, old.epoch, 5);

	/* It goes back and learns in one: what the epoch that it has just left
	 * has in common with the new one counts. */
	known = (struct store_place){top.epoch, 9};
	more.era[0] = (struct store_era){old.epoch + 30, 4};
	top = top_taught(f, "a", &known, &more, &eras);
	assert_true(top.epoch > known.epoch);
	assert_int_equal(eras.count, 6);
	assert_era(&eras, 0, known.epoch, 6);
	assert_era(&eras, 1, lost.epoch, 3);
	assert_era(&eras, 2, old.epoch + 30, 4);
}

#define WENT_BACK_TESTS                                             \
	CONFORMANCE_CASE(test_store_went_back),                     \
		CONFORMANCE_CASE(test_store_went_back_an_epoch),    \
		CONFORMANCE_CASE(test_store_went_back_to_nothing),  \
		CONFORMANCE_CASE(test_store_known_by_nobody),       \
		CONFORMANCE_CASE(test_store_learns_epochs),         \
		CONFORMANCE_CASE(test_store_went_back_idempotency), \
		CONFORMANCE_CASE(test_store_many_eras),             \
		CONFORMANCE_CASE(test_store_went_back_under_way)

#endif

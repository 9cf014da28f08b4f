/* store_conformance.h - what every store must do, whichever it is.
 *
 * Included by one test program a kind, which first defines
 *
 *	static void conformance_config(struct store_config *c);
 *		changes the defaults: at least the URL; called at each test's
 *		start
 *	CONFORMANCE_PERSISTENT	1 if what was appended survives store_close()
 *	CONFORMANCE_KEEPS_EPOCHS
 *				1 if what is `known` of a log that is not there
 *				does too
 *
 * and puts CONFORMANCE_TESTS into its list. Channels have names of their own in
 * each test, so a store need not be empty.
 */
#ifndef STENTOR_TESTS_STORE_CONFORMANCE_H
#define STENTOR_TESTS_STORE_CONFORMANCE_H

#include "tests/unit/store_fixture.h"
#include "tests/unit/store_went_back.h"

/* --- positions --------------------------------------------------------- */

static void test_store_counts_from_one(void **state)
{
	struct conformance *f = *state;
	struct store_place first = append_text(f, "a", "1");

	assert_true(store_state(f->store)->identity != 0);
	assert_true(first.epoch > 0);
	assert_int_equal(first.offset, 1);
	for (uint64_t i = 2; i <= 20; i++) {
		struct store_place place = append_text(f, "a", "x");

		assert_int_equal(place.epoch, first.epoch);
		assert_int_equal(place.offset, i);
	}
	assert_int_equal(top_of(f, "a").epoch, first.epoch);
	assert_int_equal(top_of(f, "a").offset, 20);
}

/* Where there is no log, the place told is before any log made later. */
static void test_store_no_log(void **state)
{
	struct conformance *f = *state;
	struct store_place none = top_of(f, "a");
	struct reading p;

	assert_int_equal(none.offset, 0);
	assert_true(none.epoch > 0);
	read_init(f, &p, "a", 0);
	read_wait(&p);
	assert_int_equal(p.r.count, 0);
	assert_int_equal(p.r.top.offset, 0);
	assert_true(p.r.top.epoch >= none.epoch);
	assert_int_equal(p.r.first, 1);
	assert_true(append_text(f, "a", "1").epoch > p.r.top.epoch);
}

/* Names that begin alike are different logs. */
static void test_store_channels_apart(void **state)
{
	static const char *const names[] = {"a",   "a-", "aa", "a.b",
					    "a:1", "A",	 "~@/"};
	struct conformance *f = *state;
	char longest[NAME_SIZE];
	struct reading p;

	for (size_t i = 0; i < array_len(names); i++) {
		assert_int_equal(append_text(f, names[i], names[i]).offset, 1);
		assert_int_equal(append_text(f, names[i], "2").offset, 2);
	}
	for (size_t i = 0; i < array_len(names); i++) {
		read_init(f, &p, names[i], 0);
		read_wait(&p);
		assert_int_equal(f->got_count, 2);
		assert_got(f, 0, 1, names[i]);
	}
	memset(longest, 'n', sizeof(longest));
	longest[128 - 17] = '\0';
	assert_int_equal(append_text(f, longest, "x").offset, 1);
	assert_int_equal(top_of(f, longest).offset, 1);
}

#define MANY	      500
#define MANY_CHANNELS 7

/* What is submitted within a turn is done in that order in each channel. */
static void test_store_many_in_a_turn(void **state)
{
	struct conformance *f = *state;
	struct appending *p = xcalloc(MANY, sizeof(*p));
	uint64_t offsets[MANY_CHANNELS] = {0};
	unsigned done = 0;
	struct reading r;

	for (unsigned i = 0; i < MANY; i++) {
		char channel[16], text[16];

		snprintf(channel, sizeof(channel), "c%u", i % MANY_CHANNELS);
		snprintf(text, sizeof(text), "%u", i / MANY_CHANNELS + 1);
		append_init(f, &p[i], channel, "", text);
		p[i].all_done = &done;
		append_submit(&p[i]);
	}
	loop_until(f->l, done == MANY);
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(p[i].a.rc, 0);
		assert_int_equal(p[i].a.place.offset,
				 ++offsets[i % MANY_CHANNELS]);
		assert_int_equal(p[i].a.place.epoch,
				 p[i % MANY_CHANNELS].a.place.epoch);
	}
	read_init(f, &r, "c0", 0);
	read_wait(&r);
	assert_int_equal(f->got_count, offsets[0]);
	for (uint64_t i = 0; i < f->got_count; i++) {
		char text[24];

		snprintf(text, sizeof(text), "%" PRIu64, i + 1);
		assert_got(f, i, i + 1, text);
	}
	assert_int_equal(
		metric_get(store_counters(f->store), SM_BATCH_APPENDS, 0),
		MANY);
	assert_true(metric_get(store_counters(f->store), SM_BATCHES, 0) > 0);
	free(p);
}

/* --- reading ----------------------------------------------------------- */

static void test_store_read_limits(void **state)
{
	struct conformance *f = *state;
	struct store_place top = {0, 0};
	struct reading p;

	for (unsigned i = 0; i < 9; i++)
		top = append_text(f, "a", "123456789");
	read_init(f, &p, "a", 4);
	p.r.records_max = 3;
	read_wait(&p);
	assert_int_equal(f->got_count, 3);
	assert_got(f, 0, 5, "123456789");
	assert_int_equal(f->got[2].offset, 7);
	assert_int_equal(p.r.first, 1);
	assert_int_equal(p.r.top.epoch, top.epoch);
	assert_int_equal(p.r.top.offset, 9);

	read_init(f, &p, "a", 0);
	p.r.bytes_max = 20;
	read_wait(&p);
	assert_int_equal(f->got_count, 2);
	p.r.bytes_max = 1; /* the first comes all the same */
	read_wait(&p);
	assert_int_equal(f->got_count, 1);
	assert_got(f, 0, 1, "123456789");

	read_init(f, &p, "a", 9);
	read_wait(&p);
	assert_int_equal(f->got_count, 0);
	p.r.after = UINT64_MAX;
	read_wait(&p);
	assert_int_equal(f->got_count, 0);
	assert_int_equal(p.r.top.offset, 9);
}

static void test_store_read_latest(void **state)
{
	struct conformance *f = *state;
	struct reading p;

	for (unsigned i = 0; i < 9; i++)
		append_text(f, "a", "123456789");
	read_init(f, &p, "a", 100);
	p.r.latest = true;
	p.r.records_max = 4;
	read_wait(&p);
	assert_int_equal(f->got_count, 4);
	assert_int_equal(f->got[0].offset, 6);
	assert_int_equal(f->got[3].offset, 9);
	p.r.records_max = 100;
	read_wait(&p);
	assert_int_equal(f->got_count, 9);
	assert_int_equal(f->got[0].offset, 1);
}

static void test_store_read_epoch(void **state)
{
	struct conformance *f = *state;
	struct store_place place = append_text(f, "a", "x");
	struct reading p;

	read_init(f, &p, "a", 0);
	p.r.epoch = place.epoch;
	read_wait(&p);
	assert_int_equal(f->got_count, 1);
	p.r.epoch = place.epoch - 1;
	read_wait(&p);
	assert_int_equal(f->got_count, 0);
	assert_int_equal(p.r.top.epoch, place.epoch);
	assert_int_equal(p.r.top.offset, 1);
}

#define BIG ((size_t)1 << 20)

static void test_store_any_bytes(void **state)
{
	struct conformance *f = *state;
	uint8_t all[256], *big = xmalloc(BIG);
	struct appending p;
	struct reading r;

	for (unsigned i = 0; i < sizeof(all); i++)
		all[i] = (uint8_t)(255 - i);
	for (size_t i = 0; i < BIG; i++)
		big[i] = (uint8_t)(i * 7 + i / 256);
	append_init(f, &p, "a", "", "");
	p.a.record = all;
	p.a.len = sizeof(all);
	append_wait(&p);
	assert_int_equal(p.a.rc, 0);
	append_init(f, &p, "a", "", "");
	p.a.record = big;
	p.a.len = BIG;
	append_wait(&p);
	assert_int_equal(p.a.rc, 0);
	append_text(f, "a", "after");
	read_init(f, &r, "a", 0);
	read_wait(&r);
	assert_int_equal(f->got_count, 3);
	assert_int_equal(f->got[0].len, sizeof(all));
	assert_memory_equal(f->got[0].bytes, all, sizeof(all));
	assert_int_equal(f->got[1].len, BIG);
	assert_memory_equal(f->got[1].bytes, big, BIG);
	assert_got(f, 2, 3, "after");
	free(big);
}

static void test_store_tops_in_bulk(void **state)
{
	struct conformance *f = *state;
	const char **names = xcalloc(STORE_TOPS_MAX, sizeof(*names));
	struct store_place *tops = xcalloc(STORE_TOPS_MAX, sizeof(*tops));
	struct topping p = {
		.f = f,
		.t = {.channels = names,
		      .count = STORE_TOPS_MAX,
		      .places = tops,
		      .done = on_tops},
	};
	struct store_place last = {0, 0};
	char name[16];

	for (unsigned i = 0; i < STORE_TOPS_MAX; i++) {
		snprintf(name, sizeof(name), "c%u", i);
		names[i] = channel_name(f, xmalloc(NAME_SIZE), name);
		if (i % 64 != 0)
			continue;
		append_text(f, name, "1");
		last = append_text(f, name, "2");
	}
	store_tops(f->store, &p.t);
	loop_until(f->l, p.done > 0);
	assert_int_equal(p.t.rc, 0);
	for (unsigned i = 0; i < STORE_TOPS_MAX; i++) {
		assert_int_equal(tops[i].offset, i % 64 == 0 ? 2 : 0);
		assert_true(tops[i].epoch > 0);
		free((void *)names[i]);
	}
	assert_int_equal(tops[STORE_TOPS_MAX - 64].epoch, last.epoch);
	free(names);
	free(tops);
}

/* --- what goes --------------------------------------------------------- */

static void test_store_size(void **state)
{
	struct conformance *f = *state;
	struct appending p;
	struct reading r;

	for (unsigned i = 1; i <= 25; i++) {
		char text[8];

		snprintf(text, sizeof(text), "%u", i);
		append_init(f, &p, "a", "", text);
		p.a.size = 5;
		append_wait(&p);
		assert_int_equal(p.a.place.offset, i);
	}
	read_init(f, &r, "a", 0);
	read_wait(&r);
	assert_int_equal(r.r.first, 21);
	assert_int_equal(f->got_count, 5);
	assert_got(f, 0, 21, "21");
	assert_got(f, 4, 25, "25");
	r.r.after = 10;
	read_wait(&r);
	assert_int_equal(f->got[0].offset, 21);
}

static bool all_expired(struct conformance *f, struct reading *r)
{
	store_trim(f->store);
	read_wait(r);
	return f->got_count == 0;
}

/* Messages go; the counting may stay or begin anew in a greater epoch. */
static void test_store_ttl(void **state)
{
	struct conformance *f = *state;
	struct store_place old = {0, 0}, place;
	struct appending p;
	struct reading r;

	for (unsigned i = 0; i < 3; i++) {
		append_init(f, &p, "a", "", "x");
		p.a.ttl_ms = 400;
		append_wait(&p);
		old = p.a.place;
	}
	append_text(f, "stays", "x");
	read_init(f, &r, "a", 0);
	read_wait(&r);
	assert_int_equal(f->got_count, 3);
	loop_until(f->l, all_expired(f, &r));
	assert_int_equal(r.r.first, r.r.top.offset + 1);
	place = append_text(f, "a", "y");
	if (place.epoch == old.epoch) {
		assert_int_equal(place.offset, 4);
	} else {
		assert_true(place.epoch > old.epoch);
		assert_int_equal(place.offset, 1);
	}
	read_init(f, &r, "stays", 0);
	read_wait(&r);
	assert_int_equal(f->got_count, 1);
}

#define AGE_TTL_MS 600
#define AGE_OFF_MS 30 /* by which a store's own clock may be off */

/* Each message by its own age. What is asserted follows from when it was asked
 * and answered, so a slow machine does not matter. */
static void test_store_ttl_by_age(void **state)
{
	struct conformance *f = *state;
	uint64_t from_ms[4], to_ms[4], read_ms;
	struct appending p;
	struct reading r;
	unsigned appended = 0, gone = 0;

	while (gone < array_len(from_ms)) {
		uint64_t now_ms = clock_monotonic_ms();

		if (appended < array_len(from_ms) &&
		    (appended == 0 ||
		     now_ms >= to_ms[appended - 1] + AGE_TTL_MS / 3)) {
			append_init(f, &p, "a", "", "x");
			p.a.ttl_ms = AGE_TTL_MS;
			from_ms[appended] = now_ms;
			append_wait(&p);
			to_ms[appended++] = clock_monotonic_ms();
			assert_int_equal(p.a.place.offset, appended);
		}
		if (gone == 1) /* with and without a trim */
			store_trim(f->store);
		read_ms = clock_monotonic_ms();
		read_init(f, &r, "a", 0);
		read_wait(&r);
		now_ms = clock_monotonic_ms();
		gone = appended - (unsigned)f->got_count;
		assert_int_equal(r.r.first, gone + 1);
		assert_int_equal(r.r.top.offset, appended);
		for (unsigned i = 0; i < appended; i++) {
			if (now_ms + AGE_OFF_MS < from_ms[i] + AGE_TTL_MS)
				assert_true(i >= gone);
			if (read_ms >= to_ms[i] + AGE_TTL_MS + AGE_OFF_MS)
				assert_true(i < gone);
		}
	}
	append_init(f, &p, "a", "", "y");
	p.a.ttl_ms = AGE_TTL_MS;
	append_wait(&p);
	assert_int_equal(p.a.place.offset, appended + 1);
	read_wait(&r);
	assert_true(r.r.first >= appended + 1);
	assert_int_equal(r.r.first + f->got_count, appended + 2);
}

/* --- idempotency ------------------------------------------------------- */

static void test_store_idempotency(void **state)
{
	struct conformance *f = *state;
	char longest[STORE_IDEMPOTENCY_KEY_MAX + 1];
	struct appending first, p;

	memset(longest, '~', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	append_text(f, "a", "0");
	append_init(f, &first, "a", longest, "1");
	append_wait(&first);
	assert_false(first.a.duplicate);
	append_init(f, &p, "a", longest, "2");
	append_wait(&p);
	assert_int_equal(p.a.rc, 0);
	assert_true(p.a.duplicate);
	assert_int_equal(p.a.place.epoch, first.a.place.epoch);
	assert_int_equal(p.a.place.offset, 2);
	assert_string_equal(p.a.message_id, "id-1");
	assert_int_equal(top_of(f, "a").offset, 2);

	append_init(f, &p, "b", longest, "3");
	append_wait(&p);
	assert_false(p.a.duplicate);
	longest[0] = '!';
	append_init(f, &p, "a", longest, "4");
	append_wait(&p);
	assert_false(p.a.duplicate);
	assert_int_equal(metric_get(store_counters(f->store), SM_DUPLICATES, 0),
			 1);
}

static void test_store_idempotency_in_a_turn(void **state)
{
	struct conformance *f = *state;
	struct appending p[9];
	unsigned done = 0;

	for (unsigned i = 0; i < array_len(p); i++) {
		char text[8];

		snprintf(text, sizeof(text), "%u", i);
		append_init(f, &p[i], "a", i % 3 == 0 ? "k" : "", text);
		p[i].all_done = &done;
		append_submit(&p[i]);
	}
	loop_until(f->l, done == array_len(p));
	for (unsigned i = 0; i < array_len(p); i++) {
		assert_int_equal(p[i].a.rc, 0);
		assert_int_equal(p[i].a.duplicate, i == 3 || i == 6);
		if (p[i].a.duplicate) {
			assert_int_equal(p[i].a.place.offset, 1);
			assert_string_equal(p[i].a.message_id, "id-0");
		}
	}
	assert_int_equal(top_of(f, "a").offset, 7);
}

static bool not_duplicate(struct appending *p)
{
	p->done = 0;
	store_trim(p->f->store);
	append_wait(p);
	assert_int_equal(p->a.rc, 0);
	return !p->a.duplicate;
}

static void test_store_idempotency_window(void **state)
{
	struct conformance *f = *state;
	struct store_place first;
	struct appending p;

	f->config.idempotency_ms = 400;
	conformance_reopen(f);
	append_init(f, &p, "a", "k", "x");
	append_wait(&p);
	first = p.a.place;
	assert_false(not_duplicate(&p));
	loop_until(f->l, not_duplicate(&p));
	assert_int_equal(p.a.place.epoch, first.epoch);
	assert_int_equal(p.a.place.offset, first.offset + 1);
}

/* The same key is used with something else: a mistake of the producer. */
static void test_store_idempotency_digest(void **state)
{
	/* They differ in one half only, and in what a double would hold. */
	static const uint64_t digests[] = {
		0xfedcba9876543210, 0xfedcba9876543210, 0xfedcba9876543211,
		0x7edcba9876543210, 0xfedcba9876543210,
	};
	struct conformance *f = *state;
	struct appending p;

	for (unsigned i = 0; i < array_len(digests); i++) {
		append_init(f, &p, "a", "k", "1");
		p.a.digest = digests[i];
		append_wait(&p);
		assert_int_equal(p.a.rc,
				 digests[i] == digests[0] ? 0 : ERR_EXISTS);
		assert_int_equal(p.a.definite, digests[i] != digests[0]);
		assert_int_equal(p.a.duplicate,
				 i > 0 && digests[i] == digests[0]);
		assert_int_equal(top_of(f, "a").offset, 1);
	}
	append_init(f, &p, "b", "k", "1");
	p.a.digest = 7;
	append_wait(&p);
	assert_int_equal(p.a.rc, 0);
	assert_false(p.a.duplicate);
}

/* --- bounds and ends --------------------------------------------------- */

static void test_store_queue_full(void **state)
{
	struct conformance *f = *state;
	struct appending *p = xcalloc(MANY, sizeof(*p));
	uint64_t offset = 0;
	unsigned done = 0;

	f->config.queue_bytes = 64 << 10;
	conformance_reopen(f);
	for (unsigned i = 0; i < MANY; i++) {
		append_init(f, &p[i], "a", "", "x");
		p[i].all_done = &done;
		append_submit(&p[i]);
		assert_true(store_state(f->store)->queue_bytes > 0);
	}
	loop_until(f->l, done == MANY);
	for (unsigned i = 0; i < MANY; i++) {
		if (p[i].a.rc == 0) {
			assert_int_equal(p[i].a.place.offset, ++offset);
		} else {
			assert_int_equal(p[i].a.rc, ERR_FULL);
			assert_true(p[i].a.definite && p[i].a.busy);
		}
	}
	assert_true(offset > 0 && offset < MANY);
	assert_int_equal(store_state(f->store)->queue_bytes, 0);
	assert_int_equal(
		metric_get(store_counters(f->store), SM_ERRORS, STORE_APPEND),
		MANY - offset);
	assert_int_equal(append_text(f, "a", "x").offset, offset + 1);
	free(p);
}

static void test_store_close_under_way(void **state)
{
	struct conformance *f = *state;
	struct appending *p = xcalloc(MANY, sizeof(*p));
	struct reading r[10];
	char name[NAME_SIZE];
	const char *names[] = {channel_name(f, name, "a")};
	struct store_place top;
	struct topping t = {
		.f = f,
		.t = {.channels = names,
		      .count = 1,
		      .places = &top,
		      .done = on_tops},
	};

	for (unsigned i = 0; i < MANY; i++) {
		append_init(f, &p[i], "a", "", "x");
		append_submit(&p[i]);
		if (i == MANY / 2)
			uv_run(&f->l->loop, UV_RUN_NOWAIT);
	}
	for (unsigned i = 0; i < array_len(r); i++) {
		read_init(f, &r[i], "a", 0);
		r[i].r.records_max = 10;
		read_submit(&r[i]);
	}
	store_tops(f->store, &t.t);
	conformance_close(f);
	for (unsigned i = 0; i < MANY; i++) {
		assert_int_equal(p[i].done, 1);
		assert_true(p[i].a.rc == 0 || p[i].a.rc == ERR_UNAVAILABLE);
	}
	for (unsigned i = 0; i < array_len(r); i++)
		assert_int_equal(r[i].done, 1);
	assert_int_equal(t.done, 1);
	free(p);
}

/* What was acknowledged is there after an end in order. */
static void test_store_reopen(void **state)
{
	struct conformance *f = *state;
	uint64_t identity = store_state(f->store)->identity;
	struct store_place place, none;
	struct appending p;
	struct reading r;

	append_text(f, "a", "1");
	append_init(f, &p, "a", "k", "2");
	append_wait(&p);
	place = p.a.place;
	none = top_of(f, "b");
	conformance_reopen(f);
	if (!CONFORMANCE_PERSISTENT) {
		assert_int_equal(top_of(f, "a").offset, 0);
		return;
	}
	assert_int_equal(store_state(f->store)->identity, identity);
	assert_int_equal(top_of(f, "a").epoch, place.epoch);
	assert_int_equal(top_of(f, "a").offset, 2);
	append_init(f, &p, "a", "k", "3");
	append_wait(&p);
	assert_true(p.a.duplicate);
	assert_string_equal(p.a.message_id, "id-2");
	assert_int_equal(append_text(f, "a", "3").offset, 3);
	assert_true(append_text(f, "b", "1").epoch > none.epoch);
	read_init(f, &r, "a", 0);
	read_wait(&r);
	assert_int_equal(f->got_count, 3);
	assert_got(f, 1, 2, "2");
}

#define CONFORMANCE_TESTS                                                 \
	CONFORMANCE_CASE(test_store_counts_from_one),                     \
		CONFORMANCE_CASE(test_store_no_log),                      \
		CONFORMANCE_CASE(test_store_channels_apart),              \
		CONFORMANCE_CASE(test_store_many_in_a_turn),              \
		CONFORMANCE_CASE(test_store_read_limits),                 \
		CONFORMANCE_CASE(test_store_read_latest),                 \
		CONFORMANCE_CASE(test_store_read_epoch),                  \
		CONFORMANCE_CASE(test_store_any_bytes),                   \
		CONFORMANCE_CASE(test_store_tops_in_bulk),                \
		CONFORMANCE_CASE(test_store_size),                        \
		CONFORMANCE_CASE(test_store_ttl),                         \
		CONFORMANCE_CASE(test_store_ttl_by_age),                  \
		CONFORMANCE_CASE(test_store_idempotency),                 \
		CONFORMANCE_CASE(test_store_idempotency_in_a_turn),       \
		CONFORMANCE_CASE(test_store_idempotency_window),          \
		CONFORMANCE_CASE(test_store_idempotency_digest),          \
		WENT_BACK_TESTS, CONFORMANCE_CASE(test_store_queue_full), \
		CONFORMANCE_CASE(test_store_close_under_way),             \
		CONFORMANCE_CASE(test_store_reopen)

#endif

/* store_fixture.h - a store for a test, operations on it and waiting for them.
 *
 * The test program defines conformance_config(); store_conformance.h tells
 * more.
 */
#ifndef STENTOR_TESTS_STORE_FIXTURE_H
#define STENTOR_TESTS_STORE_FIXTURE_H

#include "tests/unit/loop_fixture.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/mem.h"
#include "dispatcher/store/store.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define NAME_SIZE 136

static void conformance_config(struct store_config *c);

/* --- fixture ----------------------------------------------------------- */

struct conformance {
	struct loop_fixture *l;
	struct store *store;
	struct store_config config;
	uint64_t prefix; /* of this test's channels */
	bool in_call;	 /* of the store: no `done` may come */
	bool closed;
	struct store_record got[1024]; /* copies of what the last read gave */
	size_t got_count;
};

static void conformance_open(struct conformance *f)
{
	char fault[STORE_FAULT_SIZE] = "";

	if (store_open(&f->l->loop, &f->config, &f->store, fault) != 0)
		fail_msg("store_open(%s): %s", f->config.url, fault);
	loop_until(f->l, store_state(f->store)->up);
	f->closed = false;
}

static void conformance_on_closed(void *ctx)
{
	struct conformance *f = ctx;

	assert_false(f->closed);
	f->closed = true;
	f->store = NULL;
}

static void conformance_close(struct conformance *f)
{
	f->in_call = true;
	store_close(f->store, conformance_on_closed, f);
	f->in_call = false;
	loop_run_until(f->l, &f->closed);
}

static void conformance_reopen(struct conformance *f)
{
	conformance_close(f);
	conformance_open(f);
}

static int conformance_setup(void **state)
{
	struct conformance *f = xcalloc(1, sizeof(*f));

	if (loop_setup((void **)&f->l) != 0)
		return -1;
	f->prefix = random_nonzero();
	f->config = (struct store_config){
		.url = "",
		.password = "",
		.queue_bytes = 64 << 20,
		.timeout_ms = 5000,
		.idempotency_ms = 300000,
		.map_bytes = 64 << 20,
	};
	conformance_config(&f->config);
	conformance_open(f);
	*state = f;
	return 0;
}

static void forget_got(struct conformance *f)
{
	while (f->got_count > 0)
		free((void *)f->got[--f->got_count].bytes);
}

static int conformance_teardown(void **state)
{
	struct conformance *f = *state;
	int rc;

	if (f->store)
		conformance_close(f);
	forget_got(f);
	rc = loop_teardown((void **)&f->l);
	free(f);
	return rc;
}

static const char *channel_name(const struct conformance *f, char *to,
				const char *name)
{
	snprintf(to, NAME_SIZE, "%s-%016" PRIx64, name, f->prefix);
	return to;
}

#define CONFORMANCE_CASE(test)                                   \
	cmocka_unit_test_setup_teardown(test, conformance_setup, \
					conformance_teardown)

/* --- operations, and waiting for them ---------------------------------- */

struct appending {
	struct store_append a;
	struct conformance *f;
	char channel[NAME_SIZE], text[32];
	unsigned done;
	unsigned *all_done; /* counted too, where it is not NULL */
};

static void on_appended(struct store_append *a)
{
	struct appending *p = container_of(a, struct appending, a);

	assert_false(p->f->in_call);
	assert_int_equal(p->done++, 0);
	if (p->all_done)
		++*p->all_done;
}

/* The text is the record unless `p->a.record` is set afterwards. */
static void append_init(struct conformance *f, struct appending *p,
			const char *channel, const char *key, const char *text)
{
	*p = (struct appending){.f = f};
	channel_name(f, p->channel, channel);
	snprintf(p->text, sizeof(p->text), "%s", text);
	p->a = (struct store_append){
		.channel = p->channel,
		.record = p->text,
		.len = strlen(p->text),
		.size = 1000,
		.ttl_ms = 600000,
		.idempotency_key = key,
		.done = on_appended,
	};
	snprintf(p->a.message_id, sizeof(p->a.message_id), "id-%s", p->text);
}

static void append_submit(struct appending *p)
{
	p->f->in_call = true;
	store_append(p->f->store, &p->a);
	p->f->in_call = false;
}

static void append_wait(struct appending *p)
{
	append_submit(p);
	loop_until(p->f->l, p->done > 0);
}

/* Appends one message and returns its position. */
static struct store_place append_text(struct conformance *f,
				      const char *channel, const char *text)
{
	struct appending p;

	append_init(f, &p, channel, "", text);
	append_wait(&p);
	assert_int_equal(p.a.rc, 0);
	assert_false(p.a.duplicate);
	return p.a.place;
}

struct reading {
	struct store_read r;
	struct conformance *f;
	char channel[NAME_SIZE];
	unsigned done;
};

static void on_read(struct store_read *r)
{
	struct reading *p = container_of(r, struct reading, r);
	struct conformance *f = p->f;

	assert_false(f->in_call);
	assert_int_equal(p->done++, 0);
	forget_got(f);
	assert_true(r->count <= array_len(f->got));
	for (size_t i = 0; i < r->count; i++) {
		f->got[i] = r->records[i];
		f->got[i].bytes = (uint8_t *)xmemdupz(r->records[i].bytes,
						      r->records[i].len);
	}
	f->got_count = r->count;
}

static void read_init(struct conformance *f, struct reading *p,
		      const char *channel, uint64_t after)
{
	*p = (struct reading){.f = f};
	p->r = (struct store_read){
		.channel = channel_name(f, p->channel, channel),
		.after = after,
		.records_max = array_len(f->got),
		.bytes_max = 64 << 20,
		.done = on_read,
	};
}

static void read_submit(struct reading *p)
{
	p->f->in_call = true;
	store_read(p->f->store, &p->r);
	p->f->in_call = false;
}

static void read_wait(struct reading *p)
{
	p->done = 0;
	read_submit(p);
	loop_until(p->f->l, p->done > 0);
	assert_int_equal(p->r.rc, 0);
}

static void assert_got(const struct conformance *f, size_t i, uint64_t offset,
		       const char *text)
{
	assert_true(i < f->got_count);
	assert_int_equal(f->got[i].offset, offset);
	assert_int_equal(f->got[i].len, strlen(text));
	assert_memory_equal(f->got[i].bytes, text, strlen(text));
}

struct topping {
	struct store_tops t;
	struct conformance *f;
	unsigned done;
};

static void on_tops(struct store_tops *t)
{
	struct topping *p = container_of(t, struct topping, t);

	assert_false(p->f->in_call);
	assert_int_equal(p->done++, 0);
}

/* The top of one log, and its eras; `known` NULL: nothing is. */
static struct store_place top_taught(struct conformance *f, const char *channel,
				     const struct store_place *known,
				     const struct store_eras *known_eras,
				     struct store_eras *eras)
{
	char name[NAME_SIZE];
	const char *names[] = {channel_name(f, name, channel)};
	struct store_place top = {0, 0};
	struct topping p = {
		.f = f,
		.t = {.channels = names,
		      .known = known,
		      .known_eras = known_eras,
		      .count = 1,
		      .places = &top,
		      .eras = eras,
		      .done = on_tops},
	};

	f->in_call = true;
	store_tops(f->store, &p.t);
	f->in_call = false;
	loop_until(f->l, p.done > 0);
	assert_int_equal(p.t.rc, 0);
	return top;
}

static struct store_place top_known(struct conformance *f, const char *channel,
				    const struct store_place *known,
				    struct store_eras *eras)
{
	return top_taught(f, channel, known, NULL, eras);
}

static struct store_place top_of(struct conformance *f, const char *channel)
{
	return top_known(f, channel, NULL, NULL);
}

#endif

/* store_party.h - one of several dispatchers of a store, in one process: opens
 * the store by its own name and keeps what the others tell it. */
#ifndef STENTOR_TESTS_STORE_PARTY_H
#define STENTOR_TESTS_STORE_PARTY_H

#include "tests/unit/loop_fixture.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "dispatcher/store/store.h"

#include <stdio.h>
#include <string.h>

#define PARTY_NEWS_MAX 8192

struct party_news {
	uint64_t by;
	char channel[129];
	struct store_place top;
};

struct party {
	struct loop_fixture *l;
	struct store *store;
	struct store_config config;
	bool closed, in_call;
	struct party_news news[PARTY_NEWS_MAX];
	unsigned count, missed; /* named; times that some were missed */
	uint64_t missed_by;
};

static inline void party_on_moved(void *ctx, uint64_t by, const char *channel,
				  struct store_place top)
{
	struct party *p = ctx;
	struct party_news *n = &p->news[p->count];

	assert_false(p->in_call);
	assert_true(by != p->config.instance);
	if (channel == NULL) {
		assert_int_equal(top.epoch, 0);
		p->missed++;
		p->missed_by = by;
		return;
	}
	assert_true(p->count < PARTY_NEWS_MAX);
	n->by = by;
	n->top = top;
	snprintf(n->channel, sizeof(n->channel), "%s", channel);
	p->count++;
}

static inline struct party *party_open(struct loop_fixture *l, const char *url,
				       uint64_t instance)
{
	struct party *p = xcalloc(1, sizeof(*p));
	char fault[STORE_FAULT_SIZE] = "";

	p->l = l;
	p->config = (struct store_config){
		.url = url,
		.password = "",
		.queue_bytes = 64 << 20,
		.timeout_ms = 2000,
		.idempotency_ms = 1000,
		.instance = instance,
		.moved = party_on_moved,
		.ctx = p,
	};
	if (store_open(&l->loop, &p->config, &p->store, fault) != 0)
		fail_msg("store_open(%s): %s", url, fault);
	loop_until(l, store_state(p->store)->up);
	return p;
}

static inline void party_on_closed(void *ctx)
{
	((struct party *)ctx)->closed = true;
}

static inline void party_close(struct party *p)
{
	struct loop_fixture *l = p->l;

	p->in_call = true;
	store_close(p->store, party_on_closed, p);
	p->in_call = false;
	loop_run_until(l, &p->closed);
	free(p);
}

static inline uint64_t party_metric(struct party *p, enum store_metric metric,
				    unsigned label)
{
	return metric_get(store_counters(p->store), metric, label);
}

static inline unsigned party_peers(const struct party *p)
{
	return store_state(p->store)->peer_count;
}

struct party_append {
	struct store_append a;
	bool done;
};

static inline void party_on_appended(struct store_append *a)
{
	container_of(a, struct party_append, a)->done = true;
}

static inline void party_submit(struct party *p, struct party_append *a,
				const char *channel)
{
	*a = (struct party_append){
		.a = {.channel = channel,
		      .record = "r",
		      .len = 1,
		      .size = 100,
		      .ttl_ms = 60000,
		      .idempotency_key = "",
		      .message_id = "id",
		      .done = party_on_appended},
	};
	p->in_call = true;
	store_append(p->store, &a->a);
	p->in_call = false;
}

static inline struct store_place party_append(struct party *p,
					      const char *channel)
{
	struct party_append a;

	party_submit(p, &a, channel);
	loop_run_until(p->l, &a.done);
	assert_int_equal(a.a.rc, 0);
	return a.a.place;
}

/* The last that was heard of a channel is this place. */
static inline bool party_heard(const struct party *p, uint64_t by,
			       const char *channel, struct store_place top)
{
	for (unsigned i = p->count; i-- > 0;) {
		const struct party_news *n = &p->news[i];

		if (strcmp(n->channel, channel) == 0)
			return n->by == by && n->top.epoch == top.epoch &&
			       n->top.offset == top.offset;
	}
	return false;
}

static inline void party_turn(struct party *p, uint64_t ms)
{
	uint64_t until = clock_monotonic_ms() + ms;

	loop_until(p->l, clock_monotonic_ms() >= until);
}

#endif

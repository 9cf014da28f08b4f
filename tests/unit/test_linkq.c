#include "dispatcher/route/linkq.h"

#include "common/base/err.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

#define CRITICAL  PRIORITY_CRITICAL
#define NORMAL	  PRIORITY_NORMAL
#define DROPPABLE PRIORITY_DROPPABLE

#define BATCH 64

/* A frame of `len` bytes that starts with a number to know it by. */
static struct frame *numbered(uint32_t number, size_t len)
{
	struct frame *f = frame_new(len);

	memset(f->bytes, 0, len);
	memcpy(f->bytes, &number, sizeof(number));
	return f;
}

static uint32_t number_of(const struct frame *f)
{
	uint32_t number;

	memcpy(&number, f->bytes, sizeof(number));
	return number;
}

static int push(struct linkq *q, uint32_t number, size_t len,
		enum priority lane, enum priority drop_class)
{
	struct frame *f = numbered(number, len);
	int err = linkq_push(q, f, lane, drop_class);

	assert_int_equal(f->refs, err ? 1 : 2);
	frame_release(f);
	return err;
}

/* Takes one batch and compares its numbers with the given ones, 0 at the end.
 */
static void assert_batch(struct linkq *q, size_t bytes_max,
			 const uint32_t *numbers)
{
	struct frame *frames[BATCH];
	size_t bytes, count = linkq_fill(q, frames, BATCH, bytes_max, &bytes);

	assert_true(bytes <= bytes_max || count == 1);
	for (size_t i = 0; i < count; i++) {
		assert_int_equal(number_of(frames[i]), numbers[i]);
		assert_int_equal(frames[i]->refs, 1);
		frame_release(frames[i]);
	}
	assert_int_equal(numbers[count], 0);
}

#define BATCH_IS(q, bytes_max, ...) \
	assert_batch(q, bytes_max, (const uint32_t[]){__VA_ARGS__, 0})

static struct linkq make(size_t bytes_max, uint32_t frames_max)
{
	struct linkq q;

	linkq_init(&q, bytes_max, NULL);
	q.max.frames = frames_max;
	return q;
}

static void test_linkq_order(void **state)
{
	struct linkq q = make(10000, 100);

	(void)state;
	assert_int_equal(push(&q, 1, 10, DROPPABLE, DROPPABLE), 0);
	assert_int_equal(push(&q, 2, 10, NORMAL, NORMAL), 0);
	assert_int_equal(push(&q, 3, 10, CRITICAL, CRITICAL), 0);
	assert_int_equal(push(&q, 4, 10, DROPPABLE, DROPPABLE), 0);
	assert_int_equal(push(&q, 5, 10, NORMAL, DROPPABLE), 0);
	assert_int_equal(push(&q, 6, 10, CRITICAL, NORMAL), 0);
	assert_int_equal(q.all.bytes, 60);
	BATCH_IS(&q, 1000, 3, 6, 2, 5, 1, 4);
	assert_true(linkq_empty(&q));
	assert_int_equal(q.all.bytes, 0);
	linkq_fini(&q);
}

static void test_linkq_batch_limits(void **state)
{
	struct linkq q = make(10000, 100);
	struct frame *frames[2];
	size_t bytes;

	(void)state;
	for (uint32_t i = 1; i <= 5; i++)
		assert_int_equal(push(&q, i, 40, NORMAL, NORMAL), 0);
	assert_int_equal(push(&q, 6, 500, NORMAL, NORMAL), 0);
	assert_int_equal(push(&q, 7, 40, NORMAL, NORMAL), 0);
	assert_int_equal(linkq_fill(&q, frames, 0, 100, &bytes), 0);
	assert_int_equal(linkq_fill(&q, frames, 2, 1000, &bytes), 2);
	assert_int_equal(bytes, 80);
	assert_int_equal(number_of(frames[1]), 2);
	frame_release(frames[0]);
	frame_release(frames[1]);
	BATCH_IS(&q, 80, 3, 4);
	BATCH_IS(&q, 100, 5); /* 6 does not fit and nothing overtakes it */
	BATCH_IS(&q, 100, 6); /* larger than a batch: alone */
	BATCH_IS(&q, 100, 7);
	linkq_fini(&q);
}

static void test_linkq_no_starvation(void **state)
{
	struct linkq q = make(1000000, 100000);
	struct frame *frames[BATCH];
	size_t bytes, sent[PRIORITY_CLASSES] = {0};

	(void)state;
	for (uint32_t i = 0; i < 8000; i++) {
		assert_int_equal(push(&q, 0, 50, CRITICAL, CRITICAL), 0);
		assert_int_equal(push(&q, 1, 25, NORMAL, NORMAL), 0);
		if (i % 50 == 0)
			assert_int_equal(push(&q, 2, 900, DROPPABLE, DROPPABLE),
					 0);
	}
	/* Batches of less than a droppable frame must not shut it out. */
	while (sent[0] + sent[1] + sent[2] < 100000) {
		size_t count = linkq_fill(&q, frames, BATCH, 800, &bytes);

		for (size_t i = 0; i < count; i++) {
			sent[number_of(frames[i])] += frames[i]->len;
			frame_release(frames[i]);
		}
	}
	assert_in_range(sent[NORMAL], 100000 / 9 - 900, 100000 / 7);
	assert_in_range(sent[DROPPABLE], 100000 / 9 - 900, 100000 / 7);
	assert_true(sent[CRITICAL] > 70000);
	linkq_fini(&q);
}

static void test_linkq_droppable_is_refused(void **state)
{
	struct linkq q = make(100, 100);

	(void)state;
	assert_int_equal(push(&q, 1, 60, DROPPABLE, DROPPABLE), 0);
	assert_true(linkq_room(&q, DROPPABLE, 40));
	assert_false(linkq_room(&q, DROPPABLE, 41));
	assert_int_equal(push(&q, 2, 41, DROPPABLE, DROPPABLE), ERR_FULL);
	assert_int_equal(push(&q, 3, 41, CRITICAL, DROPPABLE), ERR_FULL);
	assert_int_equal(push(&q, 4, 40, DROPPABLE, DROPPABLE), 0);
	assert_false(linkq_room(&q, DROPPABLE, 1));
	assert_int_equal(q.drops.messages[DROPPABLE][LINKQ_REFUSED], 2);
	BATCH_IS(&q, 1000, 1, 4);
	linkq_fini(&q);
}

static void test_linkq_normal_displaces_droppable(void **state)
{
	struct linkq q = make(100, 100);

	(void)state;
	assert_int_equal(push(&q, 1, 20, NORMAL, DROPPABLE), 0);
	assert_int_equal(push(&q, 2, 20, NORMAL, NORMAL), 0);
	assert_int_equal(push(&q, 3, 20, CRITICAL, DROPPABLE), 0);
	assert_int_equal(push(&q, 4, 20, DROPPABLE, DROPPABLE), 0);
	assert_int_equal(push(&q, 5, 20, NORMAL, DROPPABLE), 0);
	assert_false(linkq_room(&q, DROPPABLE, 1));
	assert_true(linkq_room(&q, NORMAL, 80));
	assert_false(linkq_room(&q, NORMAL, 81));
	assert_true(linkq_room(&q, CRITICAL, 100));
	assert_false(linkq_room(&q, CRITICAL, 101));
	/* Too large even without the droppable ones: nobody is displaced. */
	assert_int_equal(push(&q, 6, 81, NORMAL, NORMAL), ERR_FULL);
	assert_int_equal(q.all.frames, 5);
	assert_int_equal(push(&q, 7, 40, NORMAL, NORMAL), 0); /* 4 and 1 go */
	assert_int_equal(q.drops.messages[NORMAL][LINKQ_REFUSED], 1);
	assert_int_equal(q.drops.messages[DROPPABLE][LINKQ_EVICTED], 2);
	BATCH_IS(&q, 1000, 3, 2, 5, 7);
	linkq_fini(&q);
}

static void test_linkq_critical_displaces_all_but_critical(void **state)
{
	struct linkq q = make(1000, 4);

	(void)state;
	assert_int_equal(push(&q, 1, 10, NORMAL, NORMAL), 0);
	assert_int_equal(push(&q, 2, 10, DROPPABLE, DROPPABLE), 0);
	assert_int_equal(push(&q, 3, 10, CRITICAL, CRITICAL), 0);
	assert_int_equal(push(&q, 4, 10, DROPPABLE, CRITICAL), 0);
	assert_int_equal(push(&q, 5, 10, CRITICAL, CRITICAL), 0); /* 2 goes */
	assert_int_equal(q.drops.messages[DROPPABLE][LINKQ_EVICTED], 1);
	assert_int_equal(push(&q, 6, 10, CRITICAL, CRITICAL), 0); /* 1 goes */
	assert_int_equal(q.drops.messages[NORMAL][LINKQ_EVICTED], 1);
	assert_false(linkq_room(&q, CRITICAL, 1));
	assert_int_equal(push(&q, 7, 10, CRITICAL, CRITICAL), ERR_FULL);
	assert_int_equal(q.drops.messages[CRITICAL][LINKQ_REFUSED], 1);
	assert_int_equal(push(&q, 8, 10, NORMAL, NORMAL), ERR_FULL);
	BATCH_IS(&q, 1000, 3, 5, 6, 4);
	linkq_fini(&q);
}

static void test_linkq_limit_of_frames(void **state)
{
	struct linkq q;
	struct linkq_drops sum = {0};

	(void)state;
	linkq_init(&q, 10 * LINKQ_FRAME_BYTES, NULL);
	for (uint32_t i = 1; i <= 10; i++)
		assert_int_equal(push(&q, i, 4, NORMAL, NORMAL), 0);
	assert_int_equal(push(&q, 11, 4, NORMAL, NORMAL), ERR_FULL);
	linkq_drops_add(&sum, linkq_drops(&q));
	linkq_drops_add(&sum, linkq_drops(&q));
	assert_int_equal(sum.messages[NORMAL][LINKQ_REFUSED], 2);
	linkq_fini(&q);
}

static void test_linkq_clear(void **state)
{
	struct linkq q = make(1000000, 5000);
	struct frame *shared = numbered(1, 10);

	(void)state;
	for (unsigned i = 0; i < 5000; i++)
		assert_int_equal(linkq_push(&q, shared, i % 3, i % 2), 0);
	assert_int_equal(shared->refs, 5001);
	linkq_clear(&q);
	assert_int_equal(shared->refs, 1);
	assert_true(linkq_empty(&q));
	assert_int_equal(q.drops.messages[CRITICAL][LINKQ_CLEARED], 2500);
	assert_int_equal(q.drops.messages[NORMAL][LINKQ_CLEARED], 2500);
	assert_int_equal(linkq_drops_total(linkq_drops(&q)), 5000);
	for (unsigned i = 0; i < PRIORITY_CLASSES; i++)
		assert_null(q.lanes[i].ring); /* large rings are not kept */
	assert_int_equal(push(&q, 9, 10, NORMAL, NORMAL), 0);
	BATCH_IS(&q, 100, 9);
	frame_release(shared);
	linkq_fini(&q);
}

/* --- against a naive model --------------------------------------------- */

struct message {
	uint32_t number, len;
	enum priority lane, drop_class;
};

#define MODEL_FRAMES 300
#define MODEL_BYTES  9000

struct model {
	struct message held[MODEL_FRAMES]; /* oldest first */
	size_t count, bytes;
	uint64_t random;
};

static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (uint32_t)(*state >> 33);
}

static void model_remove(struct model *m, size_t at)
{
	m->bytes -= m->held[at].len;
	m->count--;
	memmove(&m->held[at], &m->held[at + 1],
		(m->count - at) * sizeof(m->held[0]));
}

static bool model_evict(struct model *m, enum priority drop_class)
{
	for (unsigned lane = PRIORITY_CLASSES; lane-- > 0;) {
		for (size_t i = 0; i < m->count; i++) {
			if (m->held[i].lane == lane &&
			    m->held[i].drop_class == drop_class) {
				model_remove(m, i);
				return true;
			}
		}
	}
	return false;
}

static bool model_fits(const struct model *m, const struct message *message)
{
	return m->count < MODEL_FRAMES &&
	       m->bytes + message->len <= MODEL_BYTES;
}

static int model_push(struct model *m, struct message message)
{
	struct model before = *m;

	while (!model_fits(m, &message)) {
		if ((message.drop_class < DROPPABLE &&
		     model_evict(m, DROPPABLE)) ||
		    (message.drop_class < NORMAL && model_evict(m, NORMAL)))
			continue;
		*m = before;
		return ERR_FULL;
	}
	m->held[m->count++] = message;
	m->bytes += message.len;
	return 0;
}

/* Each frame of a batch must be the oldest of some lane. */
static void model_fill(struct model *m, struct linkq *q)
{
	struct frame *frames[BATCH];
	size_t bytes, count;

	count = linkq_fill(q, frames, BATCH, next_random(&m->random) % 2000,
			   &bytes);

	assert_true(count > 0 || m->count == 0);
	for (size_t i = 0; i < count; i++) {
		bool seen[PRIORITY_CLASSES] = {false};
		size_t at = 0;

		while (m->held[at].number != number_of(frames[i])) {
			seen[m->held[at++].lane] = true;
			assert_true(at < m->count);
		}
		assert_false(seen[m->held[at].lane]);
		assert_int_equal(m->held[at].len, frames[i]->len);
		model_remove(m, at);
		frame_release(frames[i]);
	}
}

static void test_linkq_like_the_model(void **state)
{
	struct linkq q = make(MODEL_BYTES, MODEL_FRAMES);
	struct model m = {.random = 7};

	(void)state;
	for (uint32_t i = 1; i < 60000; i++) {
		uint32_t r = next_random(&m.random);
		/* Mostly small, so that either limit is the one that acts. */
		struct message message = {
			.number = i,
			.len = 4 + (r % 8 ? r % 24 : r % 300),
			.lane = (r >> 10) % 3,
			.drop_class = (r >> 14) % 3,
		};

		assert_int_equal(push(&q, i, message.len, message.lane,
				      message.drop_class),
				 model_push(&m, message));
		assert_int_equal(q.all.frames, m.count);
		assert_int_equal(q.all.bytes, m.bytes);
		if (r >> 25 == 0 || (i / 5000 % 2 && r >> 29 == 0))
			model_fill(&m, &q);
	}
	while (m.count > 0)
		model_fill(&m, &q);
	assert_true(linkq_empty(&q));
	assert_true(q.drops.messages[NORMAL][LINKQ_EVICTED] > 100);
	assert_true(q.drops.messages[CRITICAL][LINKQ_REFUSED] > 100);
	linkq_fini(&q);
}

/* --- the pool ---------------------------------------------------------- */

struct pooled {
	struct linkq_pool pool;
	struct linkq q[3];
	unsigned kept[3]; /* displaced */
	enum priority lane;
};

static void on_kept(void *ctx, struct linkq *q, const struct frame *delivery,
		    enum priority lane)
{
	struct pooled *p = ctx;

	assert_true(delivery->len > 0);
	p->kept[q - p->q]++;
	p->lane = lane;
}

static void pooled_init(struct pooled *p, size_t max)
{
	memset(p, 0, sizeof(*p));
	linkq_pool_init(&p->pool, max, 4);
	p->pool.on_kept = on_kept;
	p->pool.ctx = p;
	for (unsigned i = 0; i < array_len(p->q); i++)
		linkq_init(&p->q[i], 1u << 20, &p->pool);
}

static void pooled_fini(struct pooled *p)
{
	for (unsigned i = 0; i < array_len(p->q); i++)
		linkq_fini(&p->q[i]);
	assert_int_equal(p->pool.bytes, 0);
	assert_int_equal(p->pool.firm, 0);
	for (unsigned i = 0; i < LINKQ_POOL_SIZES; i++)
		assert_true(list_empty(&p->pool.by_size[i]));
}

#define KEPT PRIORITY_CLASSES

/* One frame of its own. */
static int put(struct pooled *p, unsigned q, unsigned class, size_t len)
{
	struct frame *f = frame_new(len);
	int rc = class == KEPT ? linkq_push_kept(&p->q[q], f, PRIORITY_NORMAL)
			       : linkq_push(&p->q[q], f, PRIORITY_NORMAL,
					    (enum priority) class);

	frame_release(f);
	return rc;
}

static void put_many(struct pooled *p, unsigned q, unsigned class,
		     unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		assert_int_equal(put(p, q, class, 1000), 0);
}

/* A frame costs once, whoever holds it, until the last batch with it is gone.
 */
static void test_linkq_pool_counts_once(void **state)
{
	struct pooled p;
	struct frame *f = frame_new(1000), *out[4];
	size_t rings, bytes;

	(void)state;
	pooled_init(&p, 1u << 20);
	for (unsigned i = 0; i < 3; i++)
		put_many(&p, i, PRIORITY_NORMAL, 1);
	for (unsigned i = 0; i < 3; i++)
		linkq_clear(&p.q[i]);
	rings = p.pool.bytes;
	assert_true(rings >= 3 * 16 * sizeof(struct linkq_entry));
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(linkq_push(&p.q[i], f, PRIORITY_NORMAL,
					    PRIORITY_CRITICAL),
				 0);
	assert_int_equal(p.pool.bytes, rings + linkq_frame_cost(f));
	assert_int_equal(p.pool.firm, 3000);
	frame_release(f);
	linkq_clear(&p.q[1]);
	assert_int_equal(linkq_fill(&p.q[0], out, 4, 5000, &bytes), 1);
	linkq_clear(&p.q[2]);
	assert_int_equal(p.pool.bytes, rings + linkq_frame_cost(out[0]));
	assert_int_equal(p.pool.firm, 0);
	linkq_release(&p.q[0], out[0]);
	assert_int_equal(p.pool.bytes, rings);
	pooled_fini(&p);
}

/* Who holds most gives way, the least of it first, and is told of what is
 * kept; the newcomer gets in. */
static void test_linkq_pool_fullest_gives_way(void **state)
{
	struct pooled p;
	uint64_t before;

	(void)state;
	pooled_init(&p, 64u << 10);
	put_many(&p, 0, KEPT, 20);
	put_many(&p, 0, PRIORITY_NORMAL, 3);
	put_many(&p, 0, PRIORITY_DROPPABLE, 2);
	put_many(&p, 1, KEPT, 10);
	put_many(&p, 2, PRIORITY_NORMAL, 1);
	linkq_clear(&p.q[2]); /* its ring stays */
	p.pool.max = p.pool.bytes;
	put_many(&p, 2, PRIORITY_DROPPABLE, 2);
	assert_int_equal(
		p.q[0].drops.messages[PRIORITY_DROPPABLE][LINKQ_EVICTED], 2);
	put_many(&p, 2, PRIORITY_DROPPABLE, 3);
	assert_int_equal(p.q[0].drops.messages[PRIORITY_NORMAL][LINKQ_EVICTED],
			 3);
	assert_int_equal(p.kept[0], 0);
	before = linkq_drops_total(linkq_drops(&p.q[0]));
	put_many(&p, 2, PRIORITY_DROPPABLE, 4);
	assert_int_equal(p.kept[0], 4);
	assert_int_equal(p.lane, PRIORITY_NORMAL);
	assert_int_equal(linkq_drops_total(linkq_drops(&p.q[0])), before);
	assert_int_equal(p.kept[1], 0);
	assert_int_equal(p.q[2].all.frames, 9);
	assert_true(p.pool.bytes <= p.pool.max);
	assert_int_equal(p.pool.displaced, 9);
	pooled_fini(&p);
}

/* The fullest one's own newcomers displace only what is less than they are. */
static void test_linkq_pool_own_newcomers(void **state)
{
	struct pooled p;

	(void)state;
	pooled_init(&p, 64u << 10);
	put_many(&p, 0, KEPT, 20);
	put_many(&p, 0, PRIORITY_NORMAL, 2);
	put_many(&p, 0, PRIORITY_DROPPABLE, 1);
	p.pool.max = p.pool.bytes;
	assert_int_equal(put(&p, 0, PRIORITY_DROPPABLE, 1000), ERR_FULL);
	assert_int_equal(put(&p, 0, PRIORITY_NORMAL, 1000), 0);
	assert_int_equal(put(&p, 0, PRIORITY_NORMAL, 1000), ERR_FULL);
	put_many(&p, 0, KEPT, 3);
	assert_int_equal(put(&p, 0, KEPT, 1000), ERR_FULL);
	assert_int_equal(p.kept[0], 0);
	put_many(&p, 0, PRIORITY_CRITICAL, 2);
	assert_int_equal(p.kept[0], 2);
	assert_true(p.pool.bytes <= p.pool.max);
	pooled_fini(&p);
}

static void test_linkq_pool_critical_is_firm(void **state)
{
	struct pooled p;

	(void)state;
	pooled_init(&p, 64u << 10);
	put_many(&p, 0, PRIORITY_CRITICAL, 20);
	put_many(&p, 1, KEPT, 12);
	p.pool.max = p.pool.bytes;
	assert_true(linkq_pool_reserve(&p.pool, 1000));
	assert_int_equal(p.kept[1], 1);
	assert_false(linkq_pool_reserve(&p.pool, 20000));
	assert_int_equal(put(&p, 2, PRIORITY_CRITICAL, 20000), ERR_FULL);
	assert_int_equal(p.q[0].all.frames, 20);
	assert_false(linkq_pool_take(&p.pool, 20000));
	pooled_fini(&p);
}

/* Each queue in turn, whatever its size: what they hold and its cost agree. */
static void test_linkq_pool_stays_below(void **state)
{
	struct pooled p;
	struct frame *out[64];
	uint64_t seed = 1;

	(void)state;
	pooled_init(&p, 200u << 10);
	for (unsigned i = 0; i < 200000; i++) {
		unsigned q, class;
		size_t bytes, count;

		seed = seed * 6364136223846793005u + 1442695040888963407u;
		q = (unsigned)(seed >> 33) % 3;
		class = (unsigned)(seed >> 40) % 16;
		if (class >= 4)
			(void)!put(&p, q, 1 + class % 3,
				   (size_t)(seed >> 50) % 3000 + 1);
		else if (class >= 1)
			(void)!put(&p, q, PRIORITY_CRITICAL, 60);
		if (class != 0 || q == 2) /* one takes nothing */
			continue;
		count = linkq_fill(&p.q[q], out, 64, 20000, &bytes);
		while (count > 0)
			linkq_release(&p.q[q], out[--count]);
		assert_true(p.pool.bytes <= p.pool.max);
	}
	assert_true(p.pool.displaced > 1000);
	assert_true(p.kept[2] > p.kept[0] + p.kept[1]);
	pooled_fini(&p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linkq_order),
		cmocka_unit_test(test_linkq_batch_limits),
		cmocka_unit_test(test_linkq_no_starvation),
		cmocka_unit_test(test_linkq_droppable_is_refused),
		cmocka_unit_test(test_linkq_normal_displaces_droppable),
		cmocka_unit_test(
			test_linkq_critical_displaces_all_but_critical),
		cmocka_unit_test(test_linkq_limit_of_frames),
		cmocka_unit_test(test_linkq_clear),
		cmocka_unit_test(test_linkq_like_the_model),
		cmocka_unit_test(test_linkq_pool_counts_once),
		cmocka_unit_test(test_linkq_pool_fullest_gives_way),
		cmocka_unit_test(test_linkq_pool_own_newcomers),
		cmocka_unit_test(test_linkq_pool_critical_is_firm),
		cmocka_unit_test(test_linkq_pool_stays_below),
	};

	return cmocka_run_group_tests_name("linkq", tests, NULL, NULL);
}

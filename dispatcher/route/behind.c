#include "dispatcher/route/behind.h"

#include "common/base/mem.h"
#include "common/codec/linkwire.h"

#include <stdlib.h>
#include <string.h>

struct mark {
	struct list in_marks;
	struct hmap_node by_channel;
	struct place top;
	size_t cost; /* in the pool */
	char channel[];
};

#define HEAP_HEAD 16 /* of malloc, and the mark's share of the buckets */
#define NAMELESS  PRIORITY_DROPPABLE /* its lane: behind everything */

typedef Stentor__Link__V1__Moved Moved;
typedef Stentor__Link__V1__Place Place;

void behind_init(struct behind *b, struct linkq_pool *pool)
{
	*b = (struct behind){.pool = pool};
	hmap_init(&b->by_channel);
	for (unsigned i = 0; i < PRIORITY_CLASSES; i++)
		list_init(&b->marks[i]);
}

static void mark_free(struct behind *b, struct mark *m)
{
	list_remove(&m->in_marks);
	hmap_remove(&b->by_channel, &m->by_channel);
	linkq_pool_give_back(b->pool, m->cost);
	b->count--;
	free(m);
}

static struct mark *behind_oldest(const struct behind *b, unsigned lane)
{
	return list_empty(&b->marks[lane])
		       ? NULL
		       : container_of(b->marks[lane].next, struct mark,
				      in_marks);
}

static void behind_forget_names(struct behind *b)
{
	struct mark *m;

	for (unsigned i = 0; i < PRIORITY_CLASSES; i++) {
		while ((m = behind_oldest(b, i)) != NULL)
			mark_free(b, m);
	}
	hmap_fini(&b->by_channel);
	hmap_init(&b->by_channel);
}

void behind_fini(struct behind *b)
{
	behind_forget_names(b);
}

static struct mark *behind_find(const struct behind *b, uint64_t key,
				const char *channel)
{
	hmap_for_each_hash (node, &b->by_channel, key) {
		struct mark *m = container_of(node, struct mark, by_channel);

		if (strcmp(m->channel, channel) == 0)
			return m;
	}
	return NULL;
}

bool behind_has(const struct behind *b, uint64_t key, const char *channel)
{
	return b->unnamed ||
	       (b->count > 0 && behind_find(b, key, channel) != NULL);
}

static bool greater(struct place a, struct place b)
{
	return a.epoch != b.epoch ? a.epoch > b.epoch : a.offset > b.offset;
}

void behind_mark_all(struct behind *b)
{
	behind_forget_names(b);
	b->unnamed = true;
}

void behind_mark(struct behind *b, uint64_t key, const char *channel,
		 enum priority lane, struct place top)
{
	size_t size = sizeof(struct mark) + strlen(channel) + 1;
	struct mark *m;

	if (b->unnamed)
		return;
	m = behind_find(b, key, channel);
	if (m != NULL) {
		if (top.epoch == 0 ||
		    (m->top.epoch != 0 && greater(top, m->top)))
			m->top = top;
		return;
	}
	if (b->count == BEHIND_MAX ||
	    !linkq_pool_take(b->pool, size + HEAP_HEAD)) {
		behind_mark_all(b);
		return;
	}
	m = xmalloc(size);
	m->top = top;
	m->cost = size + HEAP_HEAD;
	memcpy(m->channel, channel, strlen(channel) + 1);
	list_push_back(&b->marks[lane], &m->in_marks);
	hmap_insert(&b->by_channel, &m->by_channel, key);
	b->count++;
}

struct frame *behind_tell(const struct behind *b, enum priority lane,
			  unsigned *count)
{
	Moved moved[BEHIND_TOLD_MAX], *list[BEHIND_TOLD_MAX];
	Place tops[BEHIND_TOLD_MAX];
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;
	unsigned n = 0;

	f.moved_unnamed = b->unnamed && lane == NAMELESS;
	list_for_each (each, &b->marks[lane]) {
		const struct mark *m =
			container_of(each, struct mark, in_marks);

		if (n == BEHIND_TOLD_MAX)
			break;
		stentor__link__v1__place__init(&tops[n]);
		tops[n].epoch = m->top.epoch;
		tops[n].offset = m->top.offset;
		stentor__link__v1__moved__init(&moved[n]);
		moved[n].channel = (char *)m->channel;
		moved[n].top = &tops[n];
		list[n] = &moved[n];
		n++;
	}
	*count = n;
	if (n == 0 && !f.moved_unnamed)
		return NULL;
	f.n_moved = n;
	f.moved = list;
	return link_control_encode(&f);
}

void behind_told(struct behind *b, enum priority lane, unsigned count)
{
	while (count-- > 0) {
		struct mark *m = behind_oldest(b, lane);

		check(m != NULL);
		mark_free(b, m);
	}
	if (lane == NAMELESS)
		b->unnamed = false;
	if (b->count == 0)
		behind_forget_names(b); /* and the buckets */
}

/* fakestore.h - a store that waits until the test says what comes of an
 * operation. */
#ifndef STENTOR_TESTS_FAKESTORE_H
#define STENTOR_TESTS_FAKESTORE_H

#include "dispatcher/publish/history.h"
#include "dispatcher/publish/publish.h"

#include <string.h>

#define FAKESTORE_EPOCH 1760000000000u

struct fakestore {
	struct list appends, reads, tops; /* in_store, the oldest first */
	const char *fault;
	unsigned submitted;
	uint64_t offset;  /* of the last append; one log for all channels */
	char doubted[64]; /* the last channel in doubt */
	unsigned doubts;
};

static inline void fakestore_doubt(void *ctx, const char *channel)
{
	struct fakestore *s = ctx;

	s->doubts++;
	strncpy(s->doubted, channel, sizeof(s->doubted) - 1);
}

static inline void fakestore_append(void *ctx, struct store_append *a)
{
	struct fakestore *s = ctx;

	s->submitted++;
	list_push_back(&s->appends, &a->in_store);
}

static inline void fakestore_read(void *ctx, struct store_read *r)
{
	struct fakestore *s = ctx;

	s->submitted++;
	list_push_back(&s->reads, &r->in_store);
}

static inline void fakestore_tops(void *ctx, struct store_tops *t)
{
	struct fakestore *s = ctx;

	s->submitted++;
	list_push_back(&s->tops, &t->in_store);
}

static inline const char *fakestore_fault(void *ctx)
{
	return ((struct fakestore *)ctx)->fault;
}

static inline void fakestore_init(struct fakestore *s)
{
	*s = (struct fakestore){.fault = NULL};
	list_init(&s->appends);
	list_init(&s->reads);
	list_init(&s->tops);
}

static inline struct publish_store fakestore_publish(struct fakestore *s)
{
	return (struct publish_store){
		.append = fakestore_append,
		.fault = fakestore_fault,
		.ctx = s,
		.doubt = fakestore_doubt,
	};
}

static inline struct history_store fakestore_history(struct fakestore *s)
{
	return (struct history_store){fakestore_read, fakestore_tops,
				      fakestore_fault, s};
}

static inline size_t fakestore_waiting(const struct list *of)
{
	size_t count = 0;

	list_for_each (node, of)
		count++;
	return count;
}

/* The oldest append that waits; NULL: none. */
static inline struct store_append *fakestore_next(const struct fakestore *s)
{
	return list_empty(&s->appends)
		       ? NULL
		       : container_of(s->appends.next, struct store_append,
				      in_store);
}

/* Ends the oldest append: rc 0 gives it the next position. */
static inline void fakestore_appended(struct fakestore *s, int rc)
{
	struct store_append *a = fakestore_next(s);

	list_remove(&a->in_store);
	a->rc = rc;
	if (rc == 0 && !a->duplicate)
		a->place = (struct store_place){FAKESTORE_EPOCH, ++s->offset};
	a->done(a);
}

/* Takes the oldest read off the list, for the test to fill in. */
static inline struct store_read *fakestore_take_read(struct fakestore *s)
{
	struct list *node = list_pop_front(&s->reads);

	return node ? container_of(node, struct store_read, in_store) : NULL;
}

static inline struct store_tops *fakestore_take_tops(struct fakestore *s)
{
	struct list *node = list_pop_front(&s->tops);

	return node ? container_of(node, struct store_tops, in_store) : NULL;
}

#endif

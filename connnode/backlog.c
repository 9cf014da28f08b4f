#include "connnode/backlog.h"

#include "common/base/check.h"

void backlog_init(struct backlog *b)
{
	for (unsigned i = 0; i < BACKLOG_CLASSES; i++)
		list_init(&b->by_size[i]);
}

void backlog_entry_init(struct backlog_entry *e)
{
	list_init(&e->in_size);
	e->class = 0;
}

void backlog_move(struct backlog *b, struct backlog_entry *e, uint8_t class)
{
	list_remove(&e->in_size);
	e->class = class;
	if (class > 0)
		list_push_back(&b->by_size[class], &e->in_size);
}

struct backlog_entry *backlog_longest(const struct backlog *b)
{
	for (unsigned i = BACKLOG_CLASSES - 1; i > 0; i--) {
		if (!list_empty(&b->by_size[i]))
			return container_of(b->by_size[i].next,
					    struct backlog_entry, in_size);
	}
	return NULL;
}

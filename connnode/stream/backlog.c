#include "connnode/stream/backlog.h"

void backlog_init(struct backlog *b)
{
	for (unsigned i = 0; i < BACKLOG_CLASSES; i++)
		list_init(&b->by_size[i]);
}

void backlog_move(struct backlog *b, struct list *in_size, uint8_t class)
{
	list_remove(in_size);
	if (class > 0)
		list_push_back(&b->by_size[class], in_size);
}

struct list *backlog_longest(const struct backlog *b)
{
	for (unsigned i = BACKLOG_CLASSES - 1; i > 0; i--) {
		if (!list_empty(&b->by_size[i]))
			return b->by_size[i].next;
	}
	return NULL;
}

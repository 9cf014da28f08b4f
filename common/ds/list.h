/* list.h - intrusive doubly linked list (pure).
 *
 * The head is a node of its own; an empty list points at itself. A node's
 * field name says which list it is on. A node that is on no list is
 * initialised with list_init() too, so that list_remove() is always allowed.
 */
#ifndef STENTOR_DS_LIST_H
#define STENTOR_DS_LIST_H

#include "common/base/check.h"

#include <stdbool.h>

struct list {
	struct list *next, *prev;
};

static inline void list_init(struct list *node)
{
	node->next = node->prev = node;
}

static inline bool list_empty(const struct list *node)
{
	return node->next == node;
}

static inline void list_insert_after(struct list *where, struct list *node)
{
	node->next = where->next;
	node->prev = where;
	where->next->prev = node;
	where->next = node;
}

#define list_push_front(head, node) list_insert_after((head), (node))
#define list_push_back(head, node)  list_insert_after((head)->prev, (node))

static inline void list_remove(struct list *node)
{
	node->prev->next = node->next;
	node->next->prev = node->prev;
	list_init(node);
}

static inline struct list *list_pop_front(struct list *head)
{
	struct list *node = head->next;

	if (node == head)
		return NULL;
	list_remove(node);
	return node;
}

/* Moves the first node of `from`, which has one, to the end of `to`, which may
 * be the same list; returns it. */
static inline struct list *list_shift(struct list *to, struct list *from)
{
	struct list *node = from->next;

	check(node != from);
	list_remove(node);
	list_push_back(to, node);
	return node;
}

/* Moves all nodes of `from` to the end of `to`; `from` is empty then. */
static inline void list_splice_back(struct list *to, struct list *from)
{
	if (list_empty(from))
		return;
	from->next->prev = to->prev;
	to->prev->next = from->next;
	from->prev->next = to;
	to->prev = from->prev;
	list_init(from);
}

#define list_for_each(node, head)                              \
	for (struct list *node = (head)->next; node != (head); \
	     node = node->next)

/* `node` may be removed in the body. */
#define list_for_each_safe(node, head)                                    \
	for (struct list *node = (head)->next, *node##_next = node->next; \
	     node != (head); node = node##_next, node##_next = node->next)

#endif

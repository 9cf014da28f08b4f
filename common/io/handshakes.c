#include "common/io/handshakes.h"

#include "common/base/mem.h"

#include <stdlib.h>

void handshakes_init(struct handshakes *h, uint64_t max)
{
	list_init(&h->waiting);
	list_init(&h->under_way);
	h->count = 0;
	h->max = max;
	h->turn_left = HANDSHAKES_TURN;
}

static void begin(struct handshakes *h, struct handshake *s)
{
	check(h->turn_left > 0);
	h->turn_left--;
	h->count++;
	s->state = HANDSHAKE_UNDER_WAY;
	list_push_back(&h->under_way, &s->in_list);
}

bool handshakes_arrive(struct handshakes *h, struct handshake *s,
		       const void *bytes, size_t len)
{
	check(s->state == HANDSHAKE_NONE);
	if (h->turn_left > 0) {
		begin(h, s);
		return true;
	}
	s->state = HANDSHAKE_WAITS;
	s->first = xmemdupz(bytes, len);
	s->first_len = len;
	list_push_back(&h->waiting, &s->in_list);
	return false;
}

void handshakes_turn(struct handshakes *h)
{
	h->turn_left = HANDSHAKES_TURN;
}

struct handshake *handshakes_next(struct handshakes *h, char **first,
				  size_t *len)
{
	struct list *node =
		h->turn_left > 0 ? list_pop_front(&h->waiting) : NULL;
	struct handshake *s;

	if (node == NULL)
		return NULL;
	s = container_of(node, struct handshake, in_list);
	*first = s->first;
	*len = s->first_len;
	s->first = NULL;
	begin(h, s);
	return s;
}

struct handshake *handshakes_surplus(struct handshakes *h)
{
	return h->count <= h->max ? NULL
				  : container_of(h->under_way.next,
						 struct handshake, in_list);
}

bool handshakes_end(struct handshakes *h, struct handshake *s)
{
	bool was_under_way = s->state == HANDSHAKE_UNDER_WAY;

	if (s->state == HANDSHAKE_NONE)
		return false;
	if (was_under_way)
		h->count--;
	list_remove(&s->in_list);
	s->state = HANDSHAKE_NONE;
	free(s->first);
	s->first = NULL;
	return was_under_way;
}

#include "connnode/channel/held.h"

#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct held_message {
	struct list in_held;
	size_t cost; /* bytes of memory */
	LinkDelivery delivery;
};

void held_init(struct held *h, size_t *total)
{
	*h = (struct held){.total = total};
	list_init(&h->messages);
}

static struct held_message *message_at(const struct list *node)
{
	return container_of(node, struct held_message, in_held);
}

static struct place position(const struct held_message *m)
{
	return (struct place){m->delivery.epoch, m->delivery.offset};
}

static void message_free(struct held *h, struct held_message *m)
{
	list_remove(&m->in_held);
	h->bytes -= m->cost;
	*h->total -= m->cost;
	free(m);
}

size_t held_clear(struct held *h)
{
	size_t count = 0;

	list_for_each_safe (node, &h->messages) {
		message_free(h, message_at(node));
		count++;
	}
	return count;
}

static char *copy(char **to, const void *bytes, size_t len)
{
	char *at = memcpy(*to, bytes, len);

	*to += len;
	return at;
}

static struct held_message *message_new(const LinkDelivery *d, char *channel)
{
	size_t event = strlen(d->event) + 1;
	size_t key = strlen(d->conflation_key) + 1;
	size_t cost = sizeof(struct held_message) + event + key + d->data.len;
	struct held_message *m = xmalloc(cost);
	char *to = (char *)(m + 1);

	m->cost = cost;
	list_init(&m->in_held);
	m->delivery = *d;
	m->delivery.base.n_unknown_fields = 0;
	m->delivery.base.unknown_fields = NULL;
	m->delivery.channel = channel;
	m->delivery.event = copy(&to, d->event, event);
	m->delivery.conflation_key = copy(&to, d->conflation_key, key);
	m->delivery.data.data = (uint8_t *)to;
	if (d->data.len > 0)
		memcpy(to, d->data.data, d->data.len);
	return m;
}

/* The newest that is not behind the position, or the list itself. */
static struct list *predecessor(struct held *h, struct place at)
{
	struct list *node = h->messages.prev;

	while (node != &h->messages &&
	       place_before(at, position(message_at(node))))
		node = node->prev;
	return node;
}

static bool is_at(const struct held *h, const struct list *node,
		  struct place at)
{
	return node != &h->messages &&
	       !place_before(position(message_at(node)), at);
}

bool held_add(struct held *h, const LinkDelivery *d, char *channel)
{
	struct place at = {d->epoch, d->offset};
	struct list *where = predecessor(h, at);
	struct held_message *m;

	if (is_at(h, where, at))
		return false;
	m = message_new(d, channel);
	list_insert_after(where, &m->in_held);
	h->bytes += m->cost;
	*h->total += m->cost;
	return true;
}

const LinkDelivery *held_first(const struct held *h)
{
	return list_empty(&h->messages)
		       ? NULL
		       : &message_at(h->messages.next)->delivery;
}

void held_pop(struct held *h)
{
	message_free(h, message_at(h->messages.next));
}

/* It may be there already: the owner drops doubles. */
static void carry(struct held *h, struct held_message *m, uint64_t epoch)
{
	list_remove(&m->in_held);
	m->delivery.epoch = epoch;
	list_insert_after(predecessor(h, position(m)), &m->in_held);
}

void held_carry(struct held *h, uint64_t epoch,
		bool (*same)(void *ctx, struct place at), void *ctx)
{
	list_for_each_safe (node, &h->messages) {
		struct held_message *m = message_at(node);

		if (m->delivery.epoch >= epoch)
			break; /* as are all behind it */
		if (same(ctx, position(m)))
			carry(h, m, epoch);
		else
			message_free(h, m);
	}
}

bool held_between(const struct held *h, uint64_t from, uint64_t to,
		  bool (*same)(void *ctx, struct place at), void *ctx)
{
	list_for_each (node, &h->messages) {
		struct place at = position(message_at(node));

		if (at.epoch >= to)
			break;
		if (at.epoch > from && !same(ctx, at))
			return true;
	}
	return false;
}

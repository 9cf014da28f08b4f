#include "dispatcher/publish/moves.h"

#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct doubt {
	struct list in_doubts;
	struct hmap_node by_channel;
	char channel[];
};

void moves_init(struct moves *m, struct nodes *nodes, const struct rules *rules,
		const struct history_store *store)
{
	memset(m, 0, sizeof(*m));
	m->nodes = nodes;
	m->rules = rules;
	m->store = *store;
	hmap_init(&m->by_channel);
	list_init(&m->doubts);
}

void moves_close(struct moves *m)
{
	m->closing = true;
}

static struct doubt *first(const struct moves *m)
{
	return list_empty(&m->doubts)
		       ? NULL
		       : container_of(m->doubts.next, struct doubt, in_doubts);
}

static void doubt_free(struct moves *m, struct doubt *d)
{
	list_remove(&d->in_doubts);
	hmap_remove(&m->by_channel, &d->by_channel);
	m->count--;
	free(d);
}

static void moves_forget_names(struct moves *m)
{
	struct doubt *d;

	while ((d = first(m)) != NULL)
		doubt_free(m, d);
}

void moves_fini(struct moves *m)
{
	check(!m->reading);
	moves_forget_names(m);
	hmap_fini(&m->by_channel);
}

/* --- telling ----------------------------------------------------------- */

static uint64_t key_of(const struct moves *m, const char *channel)
{
	return hash_bytes(&m->nodes->key, channel, strlen(channel));
}

/* Tells those that want the channel, but not who hears of it from `by`, whose
 * link brings the message itself. 0: nobody does. */
static void moves_tell(struct moves *m, uint64_t by, const char *channel,
		       struct store_place top)
{
	struct nodes *n = m->nodes;
	uint64_t key = key_of(m, channel);
	enum priority lane = rules_match(m->rules, channel)->priority;
	const uint16_t *ids;
	size_t count = interest_lookup(&n->interest, key, &ids);

	for (size_t i = 0; i < count; i++) {
		struct node_worker *w = n->by_id[ids[i]];

		if (w->phase == NODE_WORKER_READY &&
		    (by == 0 || !nodes_lists(w, by)))
			nodes_moved(n, w, key, channel, lane,
				    (struct place){top.epoch, top.offset});
	}
}

/* Whether the worker has what `by` appends by a link of its own. 0: whoever. */
static bool hears(const struct nodes *n, const struct node_worker *w,
		  uint64_t by)
{
	return by != 0 ? nodes_lists(w, by) : nodes_lists_all(n, w);
}

/* `all`: also those that hear of it anyway. */
static void tell_unnamed(struct moves *m, uint64_t by, bool all)
{
	struct nodes *n = m->nodes;

	for (unsigned i = 0; i < INTEREST_WORKERS_MAX; i++) {
		struct node_worker *w = n->by_id[i];

		if (w != NULL && w->phase == NODE_WORKER_READY &&
		    (all || !hears(n, w, by)))
			nodes_moved_unnamed(n, w);
	}
}

void moves_heard(struct moves *m, uint64_t by, const char *channel,
		 struct store_place top)
{
	if (by == m->nodes->config.instance && by != 0)
		return;
	if (channel == NULL) {
		m->counters.missed++;
		tell_unnamed(m, by, false);
	} else {
		m->counters.heard++;
		moves_tell(m, by, channel, top);
	}
}

/* --- doubts ------------------------------------------------------------ */

static bool doubted(const struct moves *m, uint64_t key, const char *channel)
{
	hmap_for_each_hash (node, &m->by_channel, key) {
		if (strcmp(container_of(node, struct doubt, by_channel)
				   ->channel,
			   channel) == 0)
			return true;
	}
	return false;
}

static void keep_doubt(struct moves *m, const char *channel)
{
	uint64_t key = key_of(m, channel);
	size_t len = strlen(channel) + 1;
	struct doubt *d;

	if (m->unnamed || doubted(m, key, channel))
		return;
	if (m->count == MOVES_DOUBTS_MAX) {
		moves_forget_names(m);
		m->unnamed = true;
		return;
	}
	d = xmalloc(sizeof(*d) + len);
	memcpy(d->channel, channel, len);
	list_push_back(&m->doubts, &d->in_doubts);
	hmap_insert(&m->by_channel, &d->by_channel, key);
	m->count++;
}

void moves_doubt(struct moves *m, const char *channel)
{
	m->counters.doubts++;
	keep_doubt(m, channel);
}

static void moves_on_tops(struct store_tops *t)
{
	struct moves *m = container_of(t, struct moves, tops);

	m->reading = false;
	for (size_t i = 0; i < t->count; i++) {
		if (t->rc != 0) {
			keep_doubt(m, m->names[i]);
		} else {
			m->counters.resolved++;
			/* No log: nothing was appended, or it is gone again. */
			if (t->places[i].offset != 0)
				moves_tell(m, 0, m->names[i], t->places[i]);
		}
		free(m->names[i]);
	}
}

void moves_tick(struct moves *m)
{
	struct doubt *d;
	size_t count = 0;

	if (m->closing || m->reading || (m->count == 0 && !m->unnamed) ||
	    m->store.fault(m->store.ctx) != NULL)
		return;
	if (m->unnamed) {
		m->unnamed = false;
		tell_unnamed(m, 0, true);
		return;
	}
	while (count < MOVES_READ && (d = first(m)) != NULL) {
		m->names[count++] = xstrdup(d->channel);
		doubt_free(m, d);
	}
	m->tops = (struct store_tops){
		.channels = (const char *const *)m->names,
		.count = count,
		.places = m->places,
		.done = moves_on_tops,
	};
	m->reading = true;
	m->store.tops(m->store.ctx, &m->tops);
}

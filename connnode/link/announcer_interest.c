/* announcer_interest.c - what the dispatchers are told of our channels: all of
 * them when a link comes up, then what has changed. */
#include "connnode/link/announcer_internal.h"

#include "common/base/mem.h"

#include <stdlib.h>

typedef Stentor__Link__V1__Interest Interest;

struct batch {
	Interest interest;
	uint64_t add[ANNOUNCER_KEYS_PER_FRAME];
	uint64_t remove[ANNOUNCER_KEYS_PER_FRAME];
};

static void batch_init(struct batch *b)
{
	stentor__link__v1__interest__init(&b->interest);
	b->interest.add = b->add;
	b->interest.remove = b->remove;
}

static void batch_queue(struct upstream *u, struct batch *b,
			uint64_t generation)
{
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;
	struct upstream_frame *queued;

	f.interest = &b->interest;
	queued = announcer_enqueue(u, link_control_encode(&f));
	queued->generation = generation;
	queued->snapshot_end = b->interest.snapshot_end;
	b->interest.n_add = b->interest.n_remove = 0;
}

static void batch_put(struct upstream *u, struct batch *b,
		      const struct channel *ch)
{
	uint64_t key = hash_bytes(&u->key, ch->name, ch->name_len);

	if (ch->announced)
		b->add[b->interest.n_add++] = key;
	else
		b->remove[b->interest.n_remove++] = key;
	if (b->interest.n_add == ANNOUNCER_KEYS_PER_FRAME ||
	    b->interest.n_remove == ANNOUNCER_KEYS_PER_FRAME)
		batch_queue(u, b, 0);
}

/* All announced channels. The dispatcher starts every link empty. */
void announcer_snapshot(struct announcer *a, struct upstream *u)
{
	struct batch *b = xmalloc(sizeof(*b));
	const struct hmap *map = &a->channels->by_name;

	batch_init(b);
	for (struct hmap_node *n = hmap_iterate(map, NULL); n != NULL;
	     n = hmap_iterate(map, n)) {
		struct channel *ch = container_of(n, struct channel, by_name);

		if (ch->announced)
			batch_put(u, b, ch);
	}
	b->interest.snapshot_end = true;
	batch_queue(u, b, a->generation);
	free(b);
}

void announcer_touch(struct announcer *a, struct channel *ch)
{
	if (list_empty(&ch->unannounced))
		list_push_back(&a->unannounced, &ch->unannounced);
	if (!ch->announced)
		ch->generation = a->generation + 1;
}

/* Keeps on the list just the channels whose state differs from what was told,
 * and marks them as told. */
static void settle_changes(struct announcer *a, struct list *changed)
{
	struct list *node;

	while ((node = list_pop_front(&a->unannounced)) != NULL) {
		struct channel *ch =
			container_of(node, struct channel, unannounced);
		bool wanted = ch->subscribers > 0;

		if (wanted != ch->announced) {
			ch->announced = wanted;
			list_push_back(changed, &ch->unannounced);
		} else if (!wanted && ch->job == NULL) {
			channels_forget(a->channels, ch);
		}
	}
}

void announcer_announce(struct announcer *a, uint64_t now_ms)
{
	struct list changed, *node;
	uint64_t count = 0;
	struct batch *b;

	list_init(&changed);
	settle_changes(a, &changed);
	if (list_empty(&changed))
		return;
	a->generation++;
	b = xmalloc(sizeof(*b));
	list_for_each (up, &a->upstreams) {
		struct upstream *u =
			container_of(up, struct upstream, in_announcer);

		if (u->phase != UPSTREAM_UP)
			continue;
		batch_init(b);
		list_for_each (n, &changed)
			batch_put(u, b,
				  container_of(n, struct channel, unannounced));
		batch_queue(u, b, a->generation);
	}
	free(b);
	while ((node = list_pop_front(&changed)) != NULL) {
		struct channel *ch =
			container_of(node, struct channel, unannounced);

		count++;
		if (!ch->announced && ch->job == NULL)
			channels_forget(a->channels, ch);
	}
	a->announce_at_ms = now_ms + min_of(count * ANNOUNCER_GATHER_MS,
					    (uint64_t)ANNOUNCER_GATHER_MAX_MS);
}

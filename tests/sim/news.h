/* news.h - what the dispatchers of one store tell one another, as redis_watch.c
 * does by pub/sub: that a top moved, and who is there.
 *
 * Every dispatcher numbers its news, and says once a second how many there
 * were; who sees a number that it can't explain, or hears nothing more of
 * somebody, knows that it missed something. What may go wrong:
 *
 *	lost	  some of the news; their numbers tell
 *	forgotten so that nobody can know: beyond what is promised. Only in
 *		  some runs; the workers' sweep has to find what they told of
 */
#ifndef STENTOR_TESTS_SIM_NEWS_H
#define STENTOR_TESTS_SIM_NEWS_H

#include "dispatcher/publish/moves.h"
#include "tests/sim/net.h"

#define DISPATCHERS_MAX 4
#define PRESENT_MS	1000 /* between two signs of life */
#define SILENCE_LOST_MS 3000 /* of a peer */

enum news_kind { NEWS_PRESENT, NEWS_MOVED, NEWS_GONE };

struct news_item {
	struct list in_desk;
	uint64_t at_ms;
	enum news_kind kind;
	bool asks; /* who else is there? */
	uint64_t by, number;
	const char *channel;
	struct store_place top;
};

struct news_peer {
	uint64_t instance, number, heard_ms;
};

/* Of one dispatcher. */
struct news_desk {
	struct moves *moves; /* NULL: it is not there */
	unsigned store;
	uint64_t instance, number, present_ms, report_ms;
	struct news_peer peers[DISPATCHERS_MAX * 4];
	unsigned peer_count;
	struct list coming; /* struct news_item.in_desk */
};

static struct {
	unsigned loss, oblivion; /* per mille */
	uint64_t lost, forgotten, heard;
	struct news_desk desks[DISPATCHERS_MAX];
} news;

static void news_begin(void)
{
	static const unsigned losses[] = {0, 0, 100, 500};

	memset(&news, 0, sizeof(news));
	news.loss = losses[below(array_len(losses))];
	news.oblivion = chance(100) ? 300 : 0;
	for (unsigned i = 0; i < DISPATCHERS_MAX; i++)
		list_init(&news.desks[i].coming);
}

static void news_send(struct news_desk *from, struct news_item item,
		      uint64_t not_before_ms)
{
	uint64_t start_ms = max_of(world.now_ms, not_before_ms);

	item.by = from->instance;
	item.number = from->number;
	for (unsigned i = 0; i < DISPATCHERS_MAX; i++) {
		struct news_desk *to = &news.desks[i];
		struct news_item *copy;

		if (to == from || to->moves == NULL || to->store != from->store)
			continue;
		if (chance(news.loss)) {
			trace("news %llu of %llu are lost to d%llu",
			      item.number, item.by, i);
			news.lost++;
			continue;
		}
		copy = xmalloc(sizeof(*copy));
		*copy = item;
		copy->at_ms = start_ms + 1 + below(LATENCY_MS);
		if (!list_empty(&to->coming))
			copy->at_ms =
				max_of(copy->at_ms,
				       container_of(to->coming.prev,
						    struct news_item, in_desk)
					       ->at_ms);
		list_push_back(&to->coming, &copy->in_desk);
	}
}

static void news_present(struct news_desk *desk, bool asks)
{
	desk->present_ms = world.now_ms + PRESENT_MS;
	news_send(desk, (struct news_item){.kind = NEWS_PRESENT, .asks = asks},
		  0);
}

static void news_open(unsigned dispatcher, unsigned store, uint64_t instance,
		      struct moves *moves)
{
	struct news_desk *desk = &news.desks[dispatcher];

	desk->moves = moves;
	desk->store = store;
	desk->instance = instance;
	desk->number = 0;
	desk->peer_count = 0;
	desk->report_ms = world.now_ms;
	news_present(desk, true);
}

static void news_close(unsigned dispatcher, bool told)
{
	struct news_desk *desk = &news.desks[dispatcher];
	struct list *node;

	if (told)
		news_send(desk, (struct news_item){.kind = NEWS_GONE}, 0);
	desk->moves = NULL;
	while ((node = list_pop_front(&desk->coming)) != NULL)
		free(container_of(node, struct news_item, in_desk));
}

/* A dispatcher's append moved the top; {0, 0}: or may have. */
static void news_moved(unsigned dispatcher, const char *channel,
		       struct store_place top, uint64_t not_before_ms)
{
	struct news_desk *desk = &news.desks[dispatcher];

	if (chance(news.oblivion)) {
		trace("news of %llu are forgotten", desk->instance);
		news.forgotten++;
		return;
	}
	desk->number++;
	news_send(desk,
		  (struct news_item){
			  .kind = NEWS_MOVED, .channel = channel, .top = top},
		  not_before_ms);
}

static void news_missed(struct news_desk *desk, uint64_t by)
{
	trace("%llu has missed news of %llu", desk->instance, by);
	moves_heard(desk->moves, by, NULL, (struct store_place){0, 0});
}

static struct news_peer *news_peer_of(struct news_desk *desk,
				      const struct news_item *n)
{
	for (unsigned i = 0; i < desk->peer_count; i++) {
		if (desk->peers[i].instance == n->by)
			return &desk->peers[i];
	}
	if (n->kind == NEWS_GONE)
		return NULL;
	check(desk->peer_count < array_len(desk->peers));
	desk->present_ms = world.now_ms;
	desk->peers[desk->peer_count] = (struct news_peer){.instance = n->by};
	return &desk->peers[desk->peer_count++];
}

static void news_hear(struct news_desk *desk, const struct news_item *n)
{
	struct news_peer *p = news_peer_of(desk, n);
	uint64_t before = n->kind == NEWS_MOVED ? n->number - 1 : n->number;
	bool missed;

	if (p == NULL)
		return;
	news.heard++;
	missed = before > p->number;
	p->number = max_of(p->number, n->number);
	p->heard_ms = world.now_ms;
	if (n->kind == NEWS_GONE)
		*p = desk->peers[--desk->peer_count];
	if (n->asks)
		desk->present_ms = world.now_ms;
	if (missed)
		news_missed(desk, n->by);
	if (n->kind == NEWS_MOVED)
		trace("%llu hears news %llu of %llu", desk->instance, n->number,
		      n->by);
	if (n->kind == NEWS_MOVED)
		moves_heard(desk->moves, n->by, n->channel, n->top);
}

static void news_forget_silent(struct news_desk *desk)
{
	for (unsigned i = 0; i < desk->peer_count;) {
		struct news_peer p = desk->peers[i];

		if (world.now_ms - p.heard_ms < SILENCE_LOST_MS) {
			i++;
			continue;
		}
		desk->peers[i] = desk->peers[--desk->peer_count];
		news_missed(desk, p.instance);
	}
}

/* True if something came. */
static bool news_step(unsigned dispatcher)
{
	struct news_desk *desk = &news.desks[dispatcher];
	bool heard = false;

	while (!list_empty(&desk->coming)) {
		struct news_item *n = container_of(desk->coming.next,
						   struct news_item, in_desk);

		if (n->at_ms > world.now_ms)
			break;
		list_remove(&n->in_desk);
		news_hear(desk, n);
		free(n);
		heard = true;
	}
	news_forget_silent(desk);
	if (world.now_ms >= desk->present_ms)
		news_present(desk, false);
	return heard;
}

/* What storage.c does once a second: whom the workers are told of. */
static void news_report(unsigned dispatcher)
{
	struct news_desk *desk = &news.desks[dispatcher];
	uint64_t instances[array_len(desk->peers)];

	if (world.now_ms < desk->report_ms)
		return;
	desk->report_ms = world.now_ms + PRESENT_MS;
	for (unsigned i = 0; i < desk->peer_count; i++)
		instances[i] = desk->peers[i].instance;
	nodes_set_peers(desk->moves->nodes, instances, desk->peer_count);
}

#endif

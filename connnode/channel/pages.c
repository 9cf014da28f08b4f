#include "connnode/channel/pages.h"

#include "common/base/mem.h"
#include "connnode/channel/render.h"

#include <stdlib.h>

static void on_answer(struct question *q, const HistoryAnswer *history,
		      const TopsAnswer *tops);

void pages_init(struct pages *ps, struct channels *channels,
		struct questions *questions, size_t bytes_max,
		void (*loaded)(struct page_reader *r))
{
	*ps = (struct pages){
		.channels = channels,
		.questions = questions,
		.bytes_max = bytes_max,
		.loaded = loaded,
	};
	hmap_init(&ps->by_start);
	list_init(&ps->waiting);
	list_init(&ps->idle);
}

void pages_fini(struct pages *ps)
{
	check(ps->by_start.count == 0);
	check(ps->bytes == 0);
	hmap_fini(&ps->by_start);
}

static uint64_t start_hash(const struct pages *ps, const struct channel *ch,
			   struct place after, unsigned variant)
{
	uint64_t key[] = {(uintptr_t)ch, after.epoch, after.offset, variant};

	return hash_bytes(&ps->channels->key, key, sizeof(key));
}

static struct page *page_find(const struct pages *ps, const struct channel *ch,
			      struct place after, unsigned variant)
{
	uint64_t hash = start_hash(ps, ch, after, variant);

	hmap_for_each_hash (node, &ps->by_start, hash) {
		struct page *p = container_of(node, struct page, by_start);

		if (p->channel == ch && p->epoch == after.epoch &&
		    p->after == after.offset && p->variant == variant)
			return p;
	}
	return NULL;
}

static void page_account(struct page *p, size_t bytes)
{
	p->pages->bytes += bytes;
	p->pages->bytes -= p->bytes;
	p->bytes = bytes;
}

/* Nobody finds it any more. */
static void page_hide(struct page *p)
{
	if (list_empty(&p->in_channel))
		return;
	list_remove(&p->in_channel);
	hmap_remove(&p->pages->by_start, &p->by_start);
}

static void page_free(struct page *p)
{
	check(list_empty(&p->readers));
	p->pages->waiting_count -= p->state == PAGE_WAITING;
	page_hide(p);
	list_remove(&p->in_state);
	questions_cancel(p->pages->questions, &p->question);
	for (size_t i = 0; i < p->count; i++)
		frame_release(p->frames[i]);
	free(p->frames);
	page_account(p, 0);
	free(p);
}

static struct page *in_state(struct list *node)
{
	return container_of(node, struct page, in_state);
}

static bool has_room(const struct pages *ps)
{
	return ps->bytes == 0 || ps->bytes + PAGE_BYTES <= ps->bytes_max;
}

bool pages_pending(const struct pages *ps)
{
	/* What is idle makes room. */
	return !list_empty(&ps->waiting) &&
	       (has_room(ps) || !list_empty(&ps->idle));
}

static void page_ask(struct page *p)
{
	HistoryQuery query = STENTOR__LINK__V1__HISTORY_QUERY__INIT;
	struct pages *ps = p->pages;

	list_remove(&p->in_state);
	ps->waiting_count--;
	ps->asked++;
	p->state = PAGE_ASKED;
	page_account(p, PAGE_BYTES);
	query.channel = p->channel->name;
	query.epoch = p->epoch;
	query.after = p->after;
	query.messages_max =
		PAGE_MESSAGES - (uint32_t)(p->after % PAGE_MESSAGES);
	query.bytes_max = PAGE_BYTES;
	questions_ask_history(ps->questions, &p->question, &query,
			      ps->questions->now_ms);
}

void pages_run(struct pages *ps)
{
	while (pages_pending(ps)) {
		while (!has_room(ps) && !list_empty(&ps->idle))
			page_free(in_state(ps->idle.next));
		if (has_room(ps))
			page_ask(in_state(ps->waiting.next));
	}
}

static struct page *page_new(struct pages *ps, struct channel *ch,
			     struct place after, unsigned variant)
{
	struct page *p = xcalloc(1, sizeof(*p));

	p->pages = ps;
	p->channel = ch;
	p->epoch = after.epoch;
	p->after = after.offset;
	p->variant = (uint8_t)variant;
	list_init(&p->in_state);
	list_init(&p->readers);
	question_init(&p->question, on_answer);
	list_push_back(&ch->pages, &p->in_channel);
	hmap_insert(&ps->by_start, &p->by_start,
		    start_hash(ps, ch, after, variant));
	list_push_back(&ps->waiting, &p->in_state);
	ps->waiting_count++;
	return p;
}

/* One that begins at a multiple of PAGE_MESSAGES may end before the place (it
 * may be short, by bytes or by the log's end). From then on, pages begin at the
 * place. */
static struct page *page_for(struct pages *ps, struct channel *ch,
			     struct place at, unsigned variant, bool begun)
{
	struct place after = at;
	struct page *p;

	if (!begun)
		after.offset -= at.offset % PAGE_MESSAGES;
	p = page_find(ps, ch, after, variant);
	if (p != NULL && p->state == PAGE_LOADED && p->to <= at.offset) {
		after = at;
		p = page_find(ps, ch, after, variant);
	}
	return p != NULL ? p : page_new(ps, ch, after, variant);
}

void pages_join(struct pages *ps, struct page_reader *r, struct channel *ch,
		struct place at, unsigned variant, bool begun)
{
	struct page *p = page_for(ps, ch, at, variant, begun);

	r->page = p;
	list_push_back(&p->readers, &r->in_page);
	if (p->state == PAGE_LOADED)
		list_remove(&p->in_state); /* no longer idle */
	else
		pages_run(ps);
}

void pages_leave(struct pages *ps, struct page_reader *r)
{
	struct page *p = r->page;

	if (p == NULL)
		return;
	r->page = NULL;
	list_remove(&r->in_page);
	if (!list_empty(&p->readers))
		return;
	if (p->state == PAGE_LOADED && !list_empty(&p->in_channel)) {
		p->idle_ms = ps->questions->now_ms;
		list_push_back(&ps->idle, &p->in_state);
	} else {
		page_free(p);
	}
}

static void page_fill(struct page *p, const HistoryAnswer *a)
{
	size_t bytes = sizeof(*p);

	if (a->top != NULL)
		p->top = (struct place){a->top->epoch, a->top->offset};
	if (p->top.epoch == p->epoch)
		p->count = history_sound(a, p->after);
	p->frames = xcalloc(p->count, sizeof(struct frame *));
	p->to = p->after;
	for (size_t i = 0; i < p->count; i++) {
		const LinkDelivery *d = a->messages[i];

		p->frames[i] = render_message(p->pages->channels, p->channel, d,
					      p->variant);
		p->to = d->offset;
		bytes += sizeof(struct frame) + p->frames[i]->len;
	}
	page_account(p, bytes);
}

static void on_answer(struct question *q, const HistoryAnswer *history,
		      const TopsAnswer *tops UNUSED)
{
	struct page *p = container_of(q, struct page, question);
	struct pages *ps = p->pages;

	page_fill(p, history);
	p->state = PAGE_LOADED;
	/* Nothing there is true just for those who have waited for it. */
	if (p->count == 0)
		page_hide(p);
	list_for_each (node, &p->readers)
		ps->loaded(container_of(node, struct page_reader, in_page));
	pages_run(ps);
}

void pages_close(struct pages *ps, struct channel *ch)
{
	while (!list_empty(&ch->pages))
		page_free(
			container_of(ch->pages.next, struct page, in_channel));
	pages_run(ps);
}

void pages_tick(struct pages *ps, uint64_t now_ms)
{
	while (!list_empty(&ps->idle)) {
		struct page *p = in_state(ps->idle.next);

		if (now_ms - p->idle_ms < PAGES_KEEP_MS)
			break;
		page_free(p);
	}
	pages_run(ps);
}

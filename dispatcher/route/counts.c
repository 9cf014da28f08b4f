#include "dispatcher/route/counts.h"

#include "common/base/err.h"

#include <string.h>

void counts_init(struct counts *c, struct nodes *nodes)
{
	*c = (struct counts){.nodes = nodes};
}

static struct count *counts_slot(struct counts *c, uint64_t id)
{
	for (unsigned i = 0; i < COUNTS_MAX; i++) {
		if (c->open[i].id == id)
			return &c->open[i];
	}
	return NULL;
}

static void counts_finish(struct count *q)
{
	struct count done = *q;

	q->id = 0;
	done.result.complete = done.awaited == 0;
	done.done(done.ctx, &done.result);
}

static void counts_ask_worker(struct counts *c, struct node_worker *w,
			      uint64_t id, const char *channel)
{
	Stentor__Link__V1__CountQuery query =
		STENTOR__LINK__V1__COUNT_QUERY__INIT;
	Stentor__Link__V1__CountQuery *queries[1] = {&query};
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;

	query.id = id;
	query.channel = (char *)channel;
	f.n_count_queries = 1;
	f.count_queries = queries;
	nodes_send_control(c->nodes, w, link_control_encode(&f));
}

int counts_ask(struct counts *c, const char *channel, uint64_t now_ms,
	       count_done_cb done, void *ctx)
{
	struct nodes *n = c->nodes;
	struct count *q = counts_slot(c, 0);
	uint64_t key = hash_bytes(&n->key, channel, strlen(channel));
	const uint16_t *ids = NULL;
	size_t workers;

	if (q == NULL)
		return ERR_FULL;
	*q = (struct count){
		.id = ++c->last_id,
		.deadline_ms = now_ms + COUNTS_TIMEOUT_MS,
		.done = done,
		.ctx = ctx,
	};
	workers = interest_lookup(&n->interest, key, &ids);
	q->awaited = q->result.workers = (uint32_t)workers;
	for (size_t i = 0; i < workers; i++) {
		struct node_worker *w = n->by_id[ids[i]];
		bool first = true;

		for (size_t j = 0; j < i && first; j++)
			first = n->by_id[ids[j]]->node != w->node;
		q->result.nodes += first;
		counts_ask_worker(c, w, q->id, channel);
	}
	if (q->awaited == 0)
		counts_finish(q);
	return 0;
}

void counts_answer(struct counts *c, uint64_t id, uint64_t subscribers)
{
	struct count *q = id != 0 ? counts_slot(c, id) : NULL;

	if (q == NULL)
		return;
	q->result.subscribers += subscribers;
	q->awaited--;
	if (q->awaited == 0)
		counts_finish(q);
}

void counts_tick(struct counts *c, uint64_t now_ms)
{
	for (unsigned i = 0; i < COUNTS_MAX; i++) {
		if (c->open[i].id != 0 && now_ms >= c->open[i].deadline_ms)
			counts_finish(&c->open[i]);
	}
}

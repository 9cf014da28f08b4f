#include "dispatcher/publish/history.h"

#include "common/base/mem.h"
#include "common/codec/channel.h"

#include <stdlib.h>
#include <string.h>

/* Who asked, under the id of its question. The worker may be gone when the
 * answer is there: it is known by its link. */
struct asker {
	struct list in_job;
	uint64_t worker; /* our epoch of the link */
	uint64_t id;
};

/* One operation of the store, and all who wait for it. */
struct history_job {
	struct history *history;
	struct list in_waiting; /* else it is under way */
	struct hmap_node by_question;
	struct list askers;
	size_t size; /* of its memory */
	bool is_tops;
	union {
		struct store_read read;
		struct store_tops tops;
	};
	/* Of a read its channel; of tops the channels' names, each ended by a
	 * zero, behind the arrays that `tops` points to. */
	_Alignas(struct store_place) char names[];
};

void history_init(struct history *h, struct nodes *nodes,
		  const struct history_store *store)
{
	*h = (struct history){
		.nodes = nodes,
		.store = *store,
		.key = hash_key_random(),
	};
	list_init(&h->waiting);
	hmap_init(&h->by_question);
}

static void history_job_free(struct history_job *job)
{
	struct history *h = job->history;
	struct list *node;

	while ((node = list_pop_front(&job->askers)) != NULL) {
		free(container_of(node, struct asker, in_job));
		h->questions--;
	}
	if (!job->is_tops)
		hmap_remove(&h->by_question, &job->by_question);
	h->held -= job->size;
	list_remove(&job->in_waiting);
	free(job);
}

void history_close(struct history *h)
{
	h->closing = true;
	while (!list_empty(&h->waiting))
		history_job_free(container_of(h->waiting.next,
					      struct history_job, in_waiting));
}

void history_fini(struct history *h)
{
	check(h->under_way == 0 && h->questions == 0 && h->held == 0);
	hmap_fini(&h->by_question);
}

/* --- answers ----------------------------------------------------------- */

/* Never shed; a queue that is full all the same loses it, and the worker asks
 * again. */
static void history_send(struct history *h, struct node_worker *w,
			 struct frame *f)
{
	if (nodes_queue(h->nodes, w, f, PRIORITY_DROPPABLE,
			PRIORITY_CRITICAL) != 0)
		h->counters.refused++;
	frame_release(f);
}

/* Live messages keep half of the queue, and of all queues together. */
static bool answer_fits(const struct history *h, const struct node_worker *w,
			size_t bytes)
{
	const struct linkq_pool *pool = &h->nodes->pool;

	return linkq_bytes(&w->queue) + bytes <= w->queue.max.bytes / 2 &&
	       pool->firm + bytes <= pool->max / 2;
}

static void fail_history(struct history *h, struct node_worker *w, uint64_t id)
{
	LinkHistoryAnswer answer = STENTOR__LINK__V1__HISTORY_ANSWER__INIT;

	answer.id = id;
	answer.failed = true;
	h->counters.failed++;
	history_send(h, w, link_history_encode(&answer, NULL, 0));
}

static void history_send_tops(struct history *h, struct node_worker *w,
			      Stentor__Link__V1__TopsAnswer *answer)
{
	LinkFrame f = STENTOR__LINK__V1__FRAME__INIT;

	f.n_tops_answers = 1;
	f.tops_answers = &answer;
	history_send(h, w, link_control_encode(&f));
}

static void fail_tops(struct history *h, struct node_worker *w, uint64_t id)
{
	Stentor__Link__V1__TopsAnswer answer =
		STENTOR__LINK__V1__TOPS_ANSWER__INIT;

	answer.id = id;
	answer.failed = true;
	h->counters.failed++;
	history_send_tops(h, w, &answer);
}

/* --- places ------------------------------------------------------------ */

typedef Stentor__Link__V1__Place Place;
typedef Stentor__Link__V1__Era Era;

/* Places as messages: of `places` each with as many eras as it has. */
struct told_places {
	Place *places, **list;
	Era *eras, **era_list;
};

static void told_places_init(struct told_places *told,
			     const struct store_place *places,
			     const struct store_eras *eras, size_t count)
{
	size_t all = 0;

	for (size_t i = 0; i < count; i++)
		all += eras[i].count;
	*told = (struct told_places){
		.places = xcalloc(count, sizeof(Place)),
		.list = xcalloc(count, sizeof(Place *)),
		.eras = xcalloc(all, sizeof(Era)),
		.era_list = xcalloc(all, sizeof(Era *)),
	};
	all = 0;
	for (size_t i = 0; i < count; i++) {
		Place *place = told->list[i] = &told->places[i];

		stentor__link__v1__place__init(place);
		place->epoch = places[i].epoch;
		place->offset = places[i].offset;
		place->n_eras = eras[i].count;
		place->eras = &told->era_list[all];
		for (size_t k = 0; k < eras[i].count; k++, all++) {
			stentor__link__v1__era__init(&told->eras[all]);
			told->eras[all].epoch = eras[i].era[k].epoch;
			told->eras[all].offset = eras[i].era[k].offset;
			told->era_list[all] = &told->eras[all];
		}
	}
}

static void told_places_fini(struct told_places *told)
{
	free(told->places);
	free(told->list);
	free(told->eras);
	free(told->era_list);
}

/* The next of a job's askers that is still there. */
static struct node_worker *next_asker(struct history_job *job, uint64_t *id)
{
	struct history *h = job->history;
	struct list *node;

	while ((node = list_pop_front(&job->askers)) != NULL) {
		struct asker *a = container_of(node, struct asker, in_job);
		struct node_worker *w = nodes_worker(h->nodes, a->worker);

		*id = a->id;
		free(a);
		h->questions--;
		if (w == NULL)
			continue;
		w->questions--;
		if (w->phase != NODE_WORKER_REFUSED)
			return w;
	}
	return NULL;
}

static void start_waiting(struct history *h);

static void job_done(struct history_job *job)
{
	struct history *h = job->history;

	history_job_free(job);
	h->under_way--;
	start_waiting(h);
}

/* One that can't be decoded would spoil the whole frame, and the link. */
static size_t take_records(struct history *h, const struct store_read *r,
			   struct link_record records[HISTORY_MESSAGES_MAX])
{
	size_t count = 0;

	check(r->count <= HISTORY_MESSAGES_MAX);
	for (size_t i = 0; i < r->count; i++) {
		const struct store_record *from = &r->records[i];

		if (link_record_valid(from->bytes, from->len))
			records[count++] = (struct link_record){
				from->offset, from->bytes, from->len};
		else
			h->counters.corrupt++;
	}
	return count;
}

static void history_on_read(struct store_read *r)
{
	struct history_job *job = container_of(r, struct history_job, read);
	struct history *h = job->history;
	struct link_record records[HISTORY_MESSAGES_MAX];
	struct told_places top;
	LinkHistoryAnswer answer = STENTOR__LINK__V1__HISTORY_ANSWER__INIT;
	struct node_worker *w;
	size_t count;
	uint64_t id;

	count = take_records(h, r, records);
	told_places_init(&top, &r->top, &r->eras, 1);
	answer.top = &top.places[0];
	answer.first = r->first;
	while ((w = next_asker(job, &id)) != NULL) {
		struct frame *f;

		answer.id = id;
		if (r->rc != 0) {
			fail_history(h, w, id);
			continue;
		}
		f = link_history_encode(&answer, records, count);
		if (answer_fits(h, w, f->len)) {
			h->counters.messages += count;
			history_send(h, w, f);
		} else {
			frame_release(f);
			fail_history(h, w, id);
		}
	}
	told_places_fini(&top);
	job_done(job);
}

static void history_on_tops(struct store_tops *t)
{
	struct history_job *job = container_of(t, struct history_job, tops);
	struct history *h = job->history;
	Stentor__Link__V1__TopsAnswer answer =
		STENTOR__LINK__V1__TOPS_ANSWER__INIT;
	struct told_places tops;
	uint64_t id;
	struct node_worker *w = next_asker(job, &id);

	if (w == NULL) {
		/* nobody waits for it */
	} else if (t->rc != 0) {
		fail_tops(h, w, id);
	} else {
		told_places_init(&tops, t->places, t->eras, t->count);
		answer.id = id;
		answer.n_tops = t->count;
		answer.tops = tops.list;
		history_send_tops(h, w, &answer);
		told_places_fini(&tops);
		w->compared |= w->questions == 0;
	}
	job_done(job);
}

/* --- questions --------------------------------------------------------- */

/* Whether somebody still waits for it. */
static bool wanted(struct history_job *job)
{
	list_for_each (node, &job->askers) {
		const struct asker *a =
			container_of(node, struct asker, in_job);

		if (nodes_worker(job->history->nodes, a->worker) != NULL)
			return true;
	}
	return false;
}

static void start_waiting(struct history *h)
{
	while (h->under_way < HISTORY_READS_MAX && !list_empty(&h->waiting)) {
		struct history_job *job = container_of(
			h->waiting.next, struct history_job, in_waiting);

		if (!wanted(job)) {
			history_job_free(job);
			continue;
		}
		list_remove(&job->in_waiting);
		h->under_way++;
		if (job->is_tops)
			h->store.tops(h->store.ctx, &job->tops);
		else
			h->store.read(h->store.ctx, &job->read);
	}
}

static struct history_job *job_new(struct history *h, size_t room)
{
	struct history_job *job = xcalloc(1, sizeof(*job) + room);

	job->history = h;
	job->size = sizeof(*job) + room;
	h->held += job->size;
	list_init(&job->askers);
	list_push_back(&h->waiting, &job->in_waiting);
	return job;
}

static void add_asker(struct history_job *job, struct node_worker *w,
		      uint64_t id)
{
	struct asker *a = xmalloc(sizeof(*a));

	a->worker = w->link.epoch;
	a->id = id;
	list_push_back(&job->askers, &a->in_job);
	w->questions++;
	job->history->questions++;
	job->history->counters.questions++;
}

static bool may_ask(const struct history *h, const struct node_worker *w,
		    size_t room)
{
	return !h->closing && h->store.fault(h->store.ctx) == NULL &&
	       w->questions < HISTORY_WORKER_MAX &&
	       h->questions < HISTORY_QUESTIONS_MAX &&
	       h->held + sizeof(struct history_job) + room <=
		       HISTORY_HELD_MAX &&
	       answer_fits(h, w, 0);
}

static bool name_valid(const char *name)
{
	return channel_name_valid(name, strlen(name));
}

static uint32_t clamp(uint32_t asked, uint32_t max)
{
	return asked == 0 ? max : min_of(asked, max);
}

/* Of an answer: so much that a quarter of a link's queue has room for it, or it
 * would never find any. */
static uint32_t bytes_max(const struct history *h, const HistoryQuery *q)
{
	uint64_t quarter = h->nodes->config.queue_bytes / 4;

	return clamp(q->bytes_max,
		     (uint32_t)min_of((uint64_t)HISTORY_BYTES_MAX, quarter));
}

static struct history_job *find_read(struct history *h, const HistoryQuery *q,
				     uint64_t hash)
{
	hmap_for_each_hash (node, &h->by_question, hash) {
		struct history_job *job =
			container_of(node, struct history_job, by_question);
		const struct store_read *r = &job->read;

		if (strcmp(job->names, q->channel) == 0 &&
		    r->epoch == q->epoch && r->after == q->after &&
		    r->records_max ==
			    clamp(q->messages_max, HISTORY_MESSAGES_MAX) &&
		    r->bytes_max == bytes_max(h, q))
			return job;
	}
	return NULL;
}

void history_ask(struct history *h, struct node_worker *w,
		 const HistoryQuery *q)
{
	size_t len = strlen(q->channel);
	uint64_t hash = hash_bytes(&h->key, q->channel, len) + q->after;
	struct history_job *job;

	if (!name_valid(q->channel) || !may_ask(h, w, len + 1)) {
		fail_history(h, w, q->id);
		return;
	}
	job = find_read(h, q, hash);
	if (job == NULL) {
		job = job_new(h, len + 1);
		memcpy(job->names, q->channel, len + 1);
		job->read = (struct store_read){
			.channel = job->names,
			.epoch = q->epoch,
			.after = q->after,
			.records_max =
				clamp(q->messages_max, HISTORY_MESSAGES_MAX),
			.bytes_max = bytes_max(h, q),
			.done = history_on_read,
		};
		hmap_insert(&h->by_question, &job->by_question, hash);
	} else {
		h->counters.shared++;
	}
	add_asker(job, w, q->id);
	start_waiting(h);
}

/* Bytes of the names; 0: not a question of ours. */
static size_t names_size(const TopsQuery *q)
{
	size_t size = 0;

	if (q->n_channels > STORE_TOPS_MAX ||
	    (q->n_known != 0 && q->n_known != q->n_channels))
		return 0;
	for (size_t i = 0; i < q->n_channels; i++) {
		if (!name_valid(q->channels[i]))
			return 0;
		size += strlen(q->channels[i]) + 1;
	}
	return size;
}

/* What is kept for each channel of a question, beside its name. */
#define TOPS_EACH                                                       \
	(2 * (sizeof(struct store_place) + sizeof(struct store_eras)) + \
	 sizeof(const char *))

static void copy_known(struct store_place *place, struct store_eras *eras,
		       const Stentor__Link__V1__Place *known)
{
	*place = (struct store_place){known->epoch, known->offset};
	eras->count = (unsigned)min_of(known->n_eras, (size_t)STORE_ERAS_MAX);
	for (unsigned i = 0; i < eras->count; i++)
		eras->era[i] = (struct store_era){known->eras[i]->epoch,
						  known->eras[i]->offset};
}

/* Lays the arrays and names of a question out in the job's memory. */
static void copy_question(struct history_job *job, const TopsQuery *q)
{
	size_t count = q->n_channels;
	struct store_place *known = (struct store_place *)job->names;
	struct store_eras *eras, *known_eras;
	const char **channels;
	char *at;

	job->tops.places = known + count;
	eras = (struct store_eras *)(job->tops.places + count);
	known_eras = eras + count;
	channels = (const char **)(known_eras + count);
	at = (char *)(channels + count);
	job->tops.known = q->n_known > 0 ? known : NULL;
	job->tops.known_eras = q->n_known > 0 ? known_eras : NULL;
	job->tops.eras = eras;
	job->tops.channels = channels;
	job->tops.count = count;
	for (size_t i = 0; i < count; i++) {
		size_t len = strlen(q->channels[i]) + 1;

		channels[i] = memcpy(at, q->channels[i], len);
		at += len;
		if (q->n_known > 0)
			copy_known(&known[i], &known_eras[i], q->known[i]);
	}
}

void history_ask_tops(struct history *h, struct node_worker *w,
		      const TopsQuery *q)
{
	size_t names = names_size(q);
	size_t arrays = q->n_channels * TOPS_EACH;
	struct history_job *job;

	if (names == 0 || !may_ask(h, w, arrays + names)) {
		fail_tops(h, w, q->id);
		return;
	}
	job = job_new(h, arrays + names);
	job->is_tops = true;
	copy_question(job, q);
	job->tops.done = history_on_tops;
	add_asker(job, w, q->id);
	start_waiting(h);
}

#include "connnode/fanout.h"

#include "common/base/mem.h"
#include "common/codec/sse.h"
#include "connnode/session.h"

#include <stdlib.h>
#include <string.h>

/* A message, rendered for the formats that were wanted when it came. */
struct message {
	struct list in_job;
	uint64_t number;	  /* of its channel */
	struct frame *raw, *json; /* NULL: nobody wants it */
};

struct fanout_job {
	struct list in_jobs;
	struct list cursor; /* marker in channel->subscriptions */
	struct channel *channel;
	struct list active;  /* messages of this walk */
	struct list pending; /* messages of the next */
};

void fanout_init(struct fanout *f)
{
	*f = (struct fanout){0};
	list_init(&f->jobs);
}

static void message_fini(struct fanout *f, struct message *m)
{
	if (m->raw != NULL) {
		f->backlog_bytes -= m->raw->len;
		frame_release(m->raw);
	}
	if (m->json != NULL) {
		f->backlog_bytes -= m->json->len;
		frame_release(m->json);
	}
}

static void messages_free(struct fanout *f, struct list *messages)
{
	struct list *node;

	while ((node = list_pop_front(messages)) != NULL) {
		struct message *m = container_of(node, struct message, in_job);

		message_fini(f, m);
		free(m);
	}
}

static void job_free(struct fanout *f, struct fanout_job *job)
{
	list_remove(&job->in_jobs);
	list_remove(&job->cursor);
	messages_free(f, &job->active);
	messages_free(f, &job->pending);
	job->channel->job = NULL;
	free(job);
}

void fanout_fini(struct fanout *f)
{
	list_for_each_safe (node, &f->jobs)
		job_free(f, container_of(node, struct fanout_job, in_jobs));
}

/* --- rendering --------------------------------------------------------- */

static enum priority class_of(const LinkDelivery *d)
{
	if (d->priority < 1 || d->priority > PRIORITY_CLASSES)
		return PRIORITY_NORMAL;
	return (enum priority)(d->priority - 1);
}

static struct frame *account(struct fanout *f, struct frame *frame,
			     const LinkDelivery *d)
{
	frame->accepted_us = d->published_us != 0 ? d->published_us : 1;
	frame->class = (uint8_t)class_of(d);
	f->backlog_bytes += frame->len;
	return frame;
}

static void render(struct fanout *f, struct channel *ch, const LinkDelivery *d,
		   struct message *m)
{
	struct sse_event e = {
		.event = d->event,
		.data = (const char *)d->data.data,
		.data_len = d->data.len,
	};

	*m = (struct message){.number = ++ch->messages};
	list_init(&m->in_job);
	if (ch->subscribers > ch->json_subscribers)
		m->raw = account(f, sse_render(&e), d);
	if (ch->json_subscribers > 0)
		m->json = account(f, sse_render_json(&e, ch->name, NULL), d);
}

/* --- delivering -------------------------------------------------------- */

static void push(struct subscription *sub, const struct message *m,
		 const struct rule *rule)
{
	struct frame *frame = sub->json ? m->json : m->raw;

	if (m->number <= sub->since)
		return;
	check(frame != NULL);
	session_push_message(sub->session, frame, rule);
}

static void push_to_all(const struct channel *ch, const struct message *m)
{
	list_for_each (node, &ch->subscriptions)
		push(container_of(node, struct subscription, in_channel), m,
		     ch->rule);
}

static void job_add(struct fanout *f, struct channel *ch,
		    const struct message *m)
{
	struct message *copy = xmalloc(sizeof(*copy));
	struct fanout_job *job = ch->job;

	*copy = *m;
	list_init(&copy->in_job);
	if (job == NULL) {
		job = xcalloc(1, sizeof(*job));
		job->channel = ch;
		list_init(&job->cursor);
		list_init(&job->active);
		list_init(&job->pending);
		list_push_back(&f->jobs, &job->in_jobs);
		ch->job = job;
	}
	list_push_back(&job->pending, &copy->in_job);
}

void fanout_deliver(struct worker *w, const LinkDelivery *d)
{
	struct fanout *f = &w->fanout;
	struct channel *ch =
		channels_find(&w->channels, d->channel, strlen(d->channel));
	struct message m;

	metric_add(&w->metrics, NM_RECEIVED, class_of(d), 1);
	if (ch == NULL || ch->subscribers == 0) {
		metric_add(&w->metrics, NM_DROPPED,
			   class_of(d) * DROP_REASONS + DROP_NO_SUBSCRIBER, 1);
		return;
	}
	render(f, ch, d, &m);
	if (ch->job == NULL && ch->subscribers <= FANOUT_INLINE) {
		push_to_all(ch, &m);
		message_fini(f, &m);
	} else {
		job_add(f, ch, &m);
	}
}

/* --- jobs -------------------------------------------------------------- */

static void serve(struct fanout_job *job, struct subscription *sub)
{
	list_for_each (node, &job->active)
		push(sub, container_of(node, struct message, in_job),
		     job->channel->rule);
}

/* Puts the cursor before the first subscription, with all that waits. */
static void job_begin_walk(struct fanout_job *job)
{
	list_splice_back(&job->active, &job->pending);
	list_push_front(&job->channel->subscriptions, &job->cursor);
}

/* Walks on over at most `budget` subscriptions; returns how many. The walk is
 * over when the cursor is the last in the list. */
static unsigned job_walk(struct fanout_job *job, unsigned budget)
{
	struct list *head = &job->channel->subscriptions;
	struct list *node = job->cursor.next;
	unsigned walked = 0;

	list_remove(&job->cursor);
	while (node != head && walked < budget) {
		struct subscription *sub =
			container_of(node, struct subscription, in_channel);
		struct list *next = node->next;

		__builtin_prefetch(
			container_of(next, struct subscription, in_channel)
				->session);
		serve(job, sub);
		node = next;
		walked++;
	}
	list_insert_after(node->prev, &job->cursor);
	return walked;
}

static bool job_walk_done(const struct fanout_job *job)
{
	return job->cursor.next == &job->channel->subscriptions;
}

static void job_end(struct worker *w, struct fanout_job *job)
{
	struct channel *ch = job->channel;

	job_free(&w->fanout, job);
	/* Its last subscriber may have left meanwhile. */
	if (ch->subscribers == 0)
		announcer_touch(&w->announcer, ch);
}

bool fanout_run(struct worker *w)
{
	struct fanout *f = &w->fanout;
	unsigned budget = FANOUT_SLICE;

	while (budget > 0 && !list_empty(&f->jobs)) {
		struct fanout_job *job =
			container_of(f->jobs.next, struct fanout_job, in_jobs);
		unsigned share = min_of(budget, FANOUT_SLICE / 2);
		unsigned walked;

		if (list_empty(&job->active))
			job_begin_walk(job);
		walked = job_walk(job, share);
		budget -= max_of(walked, 1u);
		list_remove(&job->in_jobs);
		list_push_back(&f->jobs, &job->in_jobs);
		if (!job_walk_done(job))
			continue;
		list_remove(&job->cursor);
		messages_free(f, &job->active);
		if (list_empty(&job->pending))
			job_end(w, job);
	}
	return !list_empty(&f->jobs);
}

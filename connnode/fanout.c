#include "connnode/fanout.h"

#include "common/base/mem.h"
#include "connnode/render.h"
#include "connnode/session.h"

#include <limits.h>
#include <stdlib.h>

#define FANOUT_AGE_LOOKS 64

/* A message, rendered for the variants that were wanted when it came. */
struct message {
	struct list in_job;
	uint64_t number; /* of its channel; 0: goes to all */
	uint64_t came_ms;
	struct frame *frames[VARIANTS]; /* NULL: nobody wants it */
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
	for (unsigned v = 0; v < VARIANTS; v++) {
		if (m->frames[v] == NULL)
			continue;
		f->backlog_bytes -= m->frames[v]->len;
		frame_release(m->frames[v]);
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

/* The number that the message has in its channel. One without a position on a
 * channel that has a log (its dispatcher follows other rules than we do) has
 * none. */
static uint64_t count(struct channel *ch, const LinkDelivery *d)
{
	if (ch->log == NULL)
		return ++ch->messages;
	if (d->offset != 0)
		ch->messages = d->offset;
	return d->offset;
}

static void render(struct worker *w, struct channel *ch, const LinkDelivery *d,
		   struct message *m)
{
	*m = (struct message){
		.number = count(ch, d),
		.came_ms = worker_now(w),
	};
	list_init(&m->in_job);
	for (unsigned v = 0; v < VARIANTS; v++) {
		if (ch->variants[v] == 0)
			continue;
		m->frames[v] = render_message(&w->channels, ch, d, v);
		w->fanout.backlog_bytes += m->frames[v]->len;
	}
}

/* --- delivering -------------------------------------------------------- */

static void push(struct subscription *sub, const struct message *m)
{
	struct frame *frame = m->frames[sub->variant];

	if (m->number == 0 && frame == NULL)
		return; /* it came after the message */
	if (m->number != 0) {
		if (m->number <= sub->at)
			return;
		sub->at = m->number;
	}
	check(frame != NULL);
	session_push_message(sub->session, sub, frame);
}

static void push_to_all(const struct channel *ch, const struct message *m)
{
	list_for_each (node, &ch->subscriptions)
		push(container_of(node, struct subscription, in_channel), m);
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

void fanout_message(struct worker *w, struct channel *ch, const LinkDelivery *d)
{
	struct message m;

	render(w, ch, d, &m);
	if (ch->job == NULL && ch->subscribers <= FANOUT_INLINE) {
		push_to_all(ch, &m);
		message_fini(&w->fanout, &m);
	} else {
		job_add(&w->fanout, ch, &m);
	}
}

/* --- jobs -------------------------------------------------------------- */

static void serve(struct fanout_job *job, struct subscription *sub)
{
	list_for_each (node, &job->active)
		push(sub, container_of(node, struct message, in_job));
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

/* One step of a job, of at most `budget` subscriptions. Returns how many it
 * has walked; the job may have ended. */
static unsigned job_step(struct worker *w, struct fanout_job *job,
			 unsigned budget)
{
	unsigned walked;

	if (list_empty(&job->active))
		job_begin_walk(job);
	walked = job_walk(job, budget);
	if (!job_walk_done(job))
		return walked;
	list_remove(&job->cursor);
	messages_free(&w->fanout, &job->active);
	if (list_empty(&job->pending))
		job_end(w, job);
	return walked;
}

static const struct message *job_oldest(const struct fanout_job *job)
{
	const struct list *list =
		list_empty(&job->active) ? &job->pending : &job->active;

	return container_of(list->next, struct message, in_job);
}

/* Jobs take turns, so those in front are like all others. */
uint64_t fanout_age_ms(const struct worker *w)
{
	uint64_t now = worker_now(w), age = 0;
	unsigned looks = FANOUT_AGE_LOOKS;

	list_for_each (node, &w->fanout.jobs) {
		const struct message *m = job_oldest(
			container_of(node, struct fanout_job, in_jobs));

		age = max_of(age, now - m->came_ms);
		if (--looks == 0)
			break;
	}
	return age;
}

void fanout_finish(struct worker *w, struct channel *ch)
{
	while (ch->job != NULL)
		job_step(w, ch->job, UINT_MAX);
}

bool fanout_run(struct worker *w)
{
	struct fanout *f = &w->fanout;
	unsigned budget = FANOUT_SLICE;

	while (budget > 0 && !list_empty(&f->jobs)) {
		struct list *node = list_shift(&f->jobs, &f->jobs);
		unsigned share = min_of(budget, FANOUT_SLICE / 2), walked;

		walked = job_step(
			w, container_of(node, struct fanout_job, in_jobs),
			share);
		budget -= max_of(walked, 1u);
	}
	return !list_empty(&f->jobs);
}

#include "connnode/channel/fanout.h"

#include "common/base/mem.h"
#include "connnode/channel/render.h"

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

void fanout_init(struct fanout *f, struct channels *channels,
		 const struct fanout_ops *ops, void *ctx)
{
	*f = (struct fanout){
		.channels = channels,
		.ops = ops,
		.ctx = ctx,
		.turn_left = FANOUT_TURN,
	};
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

static void render(struct fanout *f, struct channel *ch, const LinkDelivery *d,
		   uint64_t now_ms, struct message *m)
{
	*m = (struct message){
		.number = count(ch, d),
		.came_ms = now_ms,
	};
	list_init(&m->in_job);
	for (unsigned v = 0; v < VARIANTS; v++) {
		if (ch->variants[v] == 0)
			continue;
		m->frames[v] = render_message(f->channels, ch, d, v);
		f->backlog_bytes += m->frames[v]->len;
	}
}

/* --- delivering -------------------------------------------------------- */

static void push(const struct fanout *f, struct subscription *sub,
		 const struct message *m)
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
	f->ops->push(sub, frame);
}

static void push_to_all(const struct fanout *f, const struct channel *ch,
			const struct message *m)
{
	list_for_each (node, &ch->subscriptions)
		push(f, container_of(node, struct subscription, in_channel), m);
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

static bool is_for_now(const struct fanout *f, const struct channel *ch)
{
	uint32_t most = min_of(f->turn_left, (unsigned)FANOUT_INLINE);

	return ch->job == NULL &&
	       ch->subscribers <= max_of(most, (uint32_t)FANOUT_TINY);
}

void fanout_message(struct fanout *f, struct channel *ch, const LinkDelivery *d,
		    uint64_t now_ms)
{
	struct message m;

	render(f, ch, d, now_ms, &m);
	if (is_for_now(f, ch)) {
		f->turn_left -= min_of(ch->subscribers, f->turn_left);
		push_to_all(f, ch, &m);
		message_fini(f, &m);
	} else {
		job_add(f, ch, &m);
	}
}

/* --- jobs -------------------------------------------------------------- */

static void serve(const struct fanout *f, struct fanout_job *job,
		  struct subscription *sub)
{
	list_for_each (node, &job->active)
		push(f, sub, container_of(node, struct message, in_job));
}

/* Puts the cursor before the first subscription, with all that waits. */
static void job_begin_walk(struct fanout_job *job)
{
	list_splice_back(&job->active, &job->pending);
	list_push_front(&job->channel->subscriptions, &job->cursor);
}

/* Walks on over at most `budget` subscriptions; returns how many. The walk is
 * over when the cursor is the last in the list. */
static unsigned job_walk(const struct fanout *f, struct fanout_job *job,
			 unsigned budget)
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
		serve(f, job, sub);
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

static void job_end(struct fanout *f, struct fanout_job *job)
{
	struct channel *ch = job->channel;

	job_free(f, job);
	/* Its last subscriber may have left meanwhile. */
	if (ch->subscribers == 0)
		f->ops->forsaken(f->ctx, ch);
}

/* One step of a job, of at most `budget` subscriptions. Returns how many it
 * has walked; the job may have ended. */
static unsigned job_step(struct fanout *f, struct fanout_job *job,
			 unsigned budget)
{
	unsigned walked;

	if (list_empty(&job->active))
		job_begin_walk(job);
	walked = job_walk(f, job, budget);
	if (!job_walk_done(job))
		return walked;
	list_remove(&job->cursor);
	messages_free(f, &job->active);
	if (list_empty(&job->pending))
		job_end(f, job);
	return walked;
}

static const struct message *job_oldest(const struct fanout_job *job)
{
	const struct list *list =
		list_empty(&job->active) ? &job->pending : &job->active;

	return container_of(list->next, struct message, in_job);
}

/* Jobs take turns, so those in front are like all others. */
uint64_t fanout_age_ms(const struct fanout *f, uint64_t now_ms)
{
	unsigned looks = FANOUT_AGE_LOOKS;
	uint64_t age = 0;

	list_for_each (node, &f->jobs) {
		const struct message *m = job_oldest(
			container_of(node, struct fanout_job, in_jobs));

		age = max_of(age, now_ms - m->came_ms);
		if (--looks == 0)
			break;
	}
	return age;
}

void fanout_finish(struct fanout *f, struct channel *ch)
{
	while (ch->job != NULL)
		job_step(f, ch->job, UINT_MAX);
}

unsigned fanout_run(struct fanout *f, unsigned budget)
{
	unsigned slice = min_of(budget * FANOUT_PUSHES, (unsigned)FANOUT_SLICE);
	unsigned left = slice;

	while (left > 0 && !list_empty(&f->jobs)) {
		struct list *node = list_shift(&f->jobs, &f->jobs);
		unsigned share = min_of(left, max_of(slice / 2, 1u)), walked;

		walked = job_step(
			f, container_of(node, struct fanout_job, in_jobs),
			share);
		left -= min_of(max_of(walked, 1u), left);
	}
	f->turn_left = FANOUT_TURN;
	return (slice - left + FANOUT_PUSHES - 1) / FANOUT_PUSHES;
}

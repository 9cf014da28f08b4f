/* The doorbell (the uv_async_t) has a life of its own, because libuv wants its
 * memory until the close callback, long after the mailbox may have gone. It is
 * rung with the lock held: so whoever detaches, and takes the doorbell away
 * under the lock, knows that nobody is about to ring it. */
#include "common/io/mailbox.h"

#include "common/base/mem.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

struct mailbox {
	pthread_mutex_t lock;
	/* Guarded by the lock. */
	struct list posted;
	size_t pending;	  /* bytes posted and not delivered */
	uv_async_t *bell; /* NULL: detached */
	/* The loop's own. */
	struct list batch; /* being delivered */
	uint64_t
		left_ms; /* the loop's time: some of it is left since; 0: none */
	mailbox_deliver_cb deliver;
	void *ctx;
};

/* Moves what has been posted to the end of the batch. */
static void take_posted(struct mailbox *m)
{
	pthread_mutex_lock(&m->lock);
	list_splice_back(&m->batch, &m->posted);
	pthread_mutex_unlock(&m->lock);
}

/* The batch is a list of the mailbox and not of this frame, so that a receiver
 * may detach the mailbox: the rest is then delivered by that call. */
static void deliver_batch(struct mailbox *m, size_t bytes_max)
{
	struct list *node;
	size_t bytes = 0;

	while (bytes < bytes_max &&
	       (node = list_pop_front(&m->batch)) != NULL) {
		struct mail *mail = container_of(node, struct mail, in_mailbox);

		bytes += mail->bytes;
		m->deliver(m->ctx, mail);
	}
	pthread_mutex_lock(&m->lock);
	check(m->pending >= bytes);
	m->pending -= bytes;
	pthread_mutex_unlock(&m->lock);
}

/* A slice only: for the rest it rings again, and the loop's other work gets its
 * turn first. */
static void on_bell(uv_async_t *bell)
{
	struct mailbox *m = bell->data;

	take_posted(m);
	deliver_batch(m, MAILBOX_SLICE);
	if (list_empty(&m->batch)) {
		m->left_ms = 0;
		return;
	}
	if (m->left_ms == 0)
		m->left_ms = uv_now(bell->loop);
	check(uv_async_send(bell) == 0);
}

uint64_t mailbox_age_ms(const struct mailbox *m)
{
	if (m->left_ms == 0)
		return 0;
	return uv_now(m->bell->loop) - m->left_ms;
}

static void on_bell_closed(uv_handle_t *handle)
{
	free(handle);
}

struct mailbox *mailbox_new(uv_loop_t *loop, mailbox_deliver_cb deliver,
			    void *ctx)
{
	struct mailbox *m = xcalloc(1, sizeof(*m));

	check(pthread_mutex_init(&m->lock, NULL) == 0);
	list_init(&m->posted);
	list_init(&m->batch);
	m->deliver = deliver;
	m->ctx = ctx;
	mailbox_attach(m, loop);
	return m;
}

bool mailbox_post(struct mailbox *m, struct mail *mail)
{
	bool taken;

	pthread_mutex_lock(&m->lock);
	taken = m->bell != NULL;
	if (taken) {
		bool was_empty = list_empty(&m->posted);

		list_push_back(&m->posted, &mail->in_mailbox);
		m->pending += mail->bytes;
		if (was_empty)
			check(uv_async_send(m->bell) == 0);
	}
	pthread_mutex_unlock(&m->lock);
	return taken;
}

size_t mailbox_pending(struct mailbox *m)
{
	size_t bytes;

	pthread_mutex_lock(&m->lock);
	bytes = m->pending;
	pthread_mutex_unlock(&m->lock);
	return bytes;
}

void mailbox_attach(struct mailbox *m, uv_loop_t *loop)
{
	uv_async_t *bell = xmalloc(sizeof(*bell));

	check(uv_async_init(loop, bell, on_bell) == 0);
	bell->data = m;
	pthread_mutex_lock(&m->lock);
	check(m->bell == NULL);
	m->bell = bell;
	pthread_mutex_unlock(&m->lock);
}

void mailbox_detach(struct mailbox *m)
{
	uv_async_t *bell;

	pthread_mutex_lock(&m->lock);
	bell = m->bell;
	m->bell = NULL;
	pthread_mutex_unlock(&m->lock);
	if (bell == NULL)
		return;
	m->left_ms = 0;
	uv_close((uv_handle_t *)bell, on_bell_closed);
	take_posted(m);
	deliver_batch(m, SIZE_MAX);
}

void mailbox_close(struct mailbox *m)
{
	mailbox_detach(m);
	check(m->pending == 0);
	pthread_mutex_destroy(&m->lock);
	free(m);
}

/* mailbox.h - the one way from another thread into a loop.
 *
 * Mutex, intrusive list, and one uv_async_send() only when the list was empty;
 * the loop detaches the whole batch, drops the lock, then delivers,
 * MAILBOX_SLICE bytes in a turn. Posts from one thread keep their order.
 *
 * A mailbox may be detached from its loop and lives on: it then refuses mail.
 * That is for posters that cannot be stopped for certain (nng's threads): they
 * may keep their pointer as long as the process lives.
 */
#ifndef STENTOR_IO_MAILBOX_H
#define STENTOR_IO_MAILBOX_H

#include "common/base/check.h"
#include "common/ds/list.h"

#include <stdbool.h>
#include <stddef.h>
#include <uv.h>

#define MAILBOX_SLICE (128u << 10)

struct mailbox;

struct mail {
	struct list in_mailbox;
	size_t bytes; /* what it holds; counted by mailbox_pending() */
};

/* Called on the loop for each mail, in order. The receiver owns the mail. */
typedef void (*mailbox_deliver_cb)(void *ctx, struct mail *mail);

struct mailbox *mailbox_new(uv_loop_t *loop, mailbox_deliver_cb deliver,
			    void *ctx);
/* From any thread. Takes the mail and returns true; false, and the mail stays
 * the caller's, where the mailbox is detached. */
bool mailbox_post(struct mailbox *m, struct mail *mail);
/* Bytes posted and not yet delivered; from any thread. A slice counts until its
 * last mail has been delivered. */
size_t mailbox_pending(struct mailbox *m);
/* On the loop: for how long there has been more than a turn could deliver. */
uint64_t mailbox_age_ms(const struct mailbox *m);

/* On the loop. No mail is taken any more; what still lies in it is delivered
 * before the call returns. It no longer keeps the loop alive. */
void mailbox_detach(struct mailbox *m);
/* On the loop, which may be another one than before. */
void mailbox_attach(struct mailbox *m, uv_loop_t *loop);

/* On the loop, after every poster has stopped, and not from `deliver`. Mails
 * that still lie in it are delivered first. */
void mailbox_close(struct mailbox *m);

#endif

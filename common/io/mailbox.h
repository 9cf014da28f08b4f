/* mailbox.h - the one way from another thread into a loop.
 *
 * Mutex, intrusive list, and one uv_async_send() only when the list was empty;
 * the loop detaches the whole batch, drops the lock, then delivers. Posts from
 * one thread keep their order.
 */
#ifndef STENTOR_IO_MAILBOX_H
#define STENTOR_IO_MAILBOX_H

#include "common/base/check.h"
#include "common/ds/list.h"

#include <uv.h>

struct mailbox;

struct mail {
	struct list in_mailbox;
};

/* Called on the loop for each mail, in order. The receiver owns the mail. */
typedef void (*mailbox_deliver_cb)(void *ctx, struct mail *mail);

struct mailbox *mailbox_new(uv_loop_t *loop, mailbox_deliver_cb deliver,
			    void *ctx);
/* From any thread. Takes the mail. */
void mailbox_post(struct mailbox *m, struct mail *mail);
/* On the loop, after every poster has stopped. Mails that still lie in it are
 * delivered first. The memory goes when libuv has closed the handle. */
void mailbox_close(struct mailbox *m);

#endif

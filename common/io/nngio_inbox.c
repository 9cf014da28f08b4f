/* nngio_inbox.c - sockets that receive; see nngio.c for threads and lifetimes.
 */
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/ds/hmap.h"
#include "common/io/mailbox.h"
#include "common/io/nngio_internal.h"

#include <nng/protocol/pipeline0/pull.h>
#include <stdlib.h>

/* Pipes whose REM_POST came first, remembered until their ADD_POST. Bounded:
 * a pipe refused for its protocol has no ADD_POST at all. */
#define GONE_MAX 64

enum inbox_mail_kind { INBOX_MESSAGE, INBOX_UP, INBOX_DOWN };

struct inbox_mail {
	struct mail mail;
	enum inbox_mail_kind kind;
	uint32_t pipe;
	nng_msg *msg; /* INBOX_MESSAGE */
	bool last;    /* the receive has not been started again */
};

struct inbox_pipe {
	struct hmap_node by_id;
	uint32_t id;
};

struct nng_inbox {
	/* Set at open, then only read. */
	nng_socket socket;
	nng_aio *aio;
	struct mailbox *mailbox;
	nng_inbox_message_cb on_message;
	nng_inbox_pipe_cb on_pipe;
	void *ctx;
	/* The loop's own. */
	bool stopped;
	struct hmap pipes; /* told as up */
	uint32_t gone[GONE_MAX];
	unsigned gone_next;
};

static struct inbox_mail *inbox_mail_new(enum inbox_mail_kind kind,
					 nng_pipe pipe)
{
	struct inbox_mail *mail = xcalloc(1, sizeof(*mail));

	mail->kind = kind;
	mail->pipe = (uint32_t)nng_pipe_id(pipe);
	mail->mail.bytes = sizeof(*mail);
	return mail;
}

static void inbox_mail_free(struct inbox_mail *mail)
{
	if (mail->msg != NULL)
		nng_msg_free(mail->msg);
	free(mail);
}

/* On an nng thread. */
static void on_received(void *arg)
{
	struct nng_inbox *in = arg;
	int code = nng_aio_result(in->aio);
	struct inbox_mail *mail;
	nng_msg *msg;
	bool last;

	if (code == NNG_ECLOSED || code == NNG_ECANCELED)
		return;
	if (code != 0) {
		nng_recv_aio(in->socket, in->aio);
		return;
	}
	msg = nng_aio_get_msg(in->aio);
	nng_aio_set_msg(in->aio, NULL);
	mail = inbox_mail_new(INBOX_MESSAGE, nng_msg_get_pipe(msg));
	mail->msg = msg;
	mail->mail.bytes += nng_msg_len(msg);
	last = mailbox_pending(in->mailbox) + mail->mail.bytes >
	       NNGIO_INBOX_BYTES_MAX;
	mail->last = last;
	if (!mailbox_post(in->mailbox, &mail->mail)) {
		inbox_mail_free(mail);
		return;
	}
	if (!last)
		nng_recv_aio(in->socket, in->aio);
}

/* On an nng thread. */
static void on_inbox_pipe(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
	struct nng_inbox *in = arg;
	struct inbox_mail *mail = inbox_mail_new(
		event == NNG_PIPE_EV_ADD_POST ? INBOX_UP : INBOX_DOWN, pipe);

	if (!mailbox_post(in->mailbox, &mail->mail))
		inbox_mail_free(mail);
}

static struct inbox_pipe *inbox_find_pipe(struct nng_inbox *in, uint32_t id)
{
	hmap_for_each_hash (node, &in->pipes, id)
		return container_of(node, struct inbox_pipe, by_id);
	return NULL;
}

static bool inbox_forget_gone(struct nng_inbox *in, uint32_t id)
{
	for (size_t i = 0; i < GONE_MAX; i++) {
		if (in->gone[i] == id) {
			in->gone[i] = 0;
			return true;
		}
	}
	return false;
}

static void inbox_pipe_up(struct nng_inbox *in, uint32_t id)
{
	struct inbox_pipe *pipe;

	if (inbox_forget_gone(in, id))
		return;
	pipe = xcalloc(1, sizeof(*pipe));
	pipe->id = id;
	hmap_insert(&in->pipes, &pipe->by_id, id);
	if (in->on_pipe != NULL)
		in->on_pipe(in->ctx, id, true);
}

static void inbox_pipe_down(struct nng_inbox *in, uint32_t id)
{
	struct inbox_pipe *pipe = inbox_find_pipe(in, id);

	if (pipe == NULL) {
		in->gone[in->gone_next++ % GONE_MAX] = id;
		return;
	}
	hmap_remove(&in->pipes, &pipe->by_id);
	free(pipe);
	if (in->on_pipe != NULL)
		in->on_pipe(in->ctx, id, false);
}

static void on_inbox_mail(void *ctx, struct mail *m)
{
	struct nng_inbox *in = ctx;
	struct inbox_mail *mail = container_of(m, struct inbox_mail, mail);

	if (in->stopped) {
		inbox_mail_free(mail);
		return;
	}
	switch (mail->kind) {
	case INBOX_MESSAGE:
		in->on_message(in->ctx, mail->pipe, nng_msg_body(mail->msg),
			       nng_msg_len(mail->msg));
		break;
	case INBOX_UP:
		inbox_pipe_up(in, mail->pipe);
		break;
	case INBOX_DOWN:
		inbox_pipe_down(in, mail->pipe);
		break;
	}
	if (mail->last && !in->stopped)
		nng_recv_aio(in->socket, in->aio);
	inbox_mail_free(mail);
}

static int listen_at(nng_socket socket, const char *url, nng_tls_config *config)
{
	nng_listener listener;
	int code = nng_listener_create(&listener, socket, url);

	if (code == 0)
		code = nng_listener_set_size(listener, NNG_OPT_RECVMAXSZ,
					     NNGIO_MESSAGE_MAX);
	if (code == 0)
		code = nng_listener_set_bool(listener, NNG_OPT_TCP_KEEPALIVE,
					     true);
	if (code == 0 && config != NULL)
		code = nng_listener_set_ptr(listener, NNG_OPT_TLS_CONFIG,
					    config);
	if (code == 0)
		code = nng_listener_start(listener, 0);
	return err_from_nng(code);
}

int nng_inbox_open(uv_loop_t *loop, const char *url,
		   const struct nng_tls_files *tls,
		   nng_inbox_message_cb on_message, nng_inbox_pipe_cb on_pipe,
		   void *ctx, struct nng_inbox **out)
{
	struct nng_inbox *in;
	nng_tls_config *config;
	int err = nngio_tls_config(url, tls, NNG_TLS_MODE_SERVER, &config);

	if (err < 0)
		return err;
	in = xcalloc(1, sizeof(*in));
	in->on_message = on_message;
	in->on_pipe = on_pipe;
	in->ctx = ctx;
	hmap_init(&in->pipes);
	in->mailbox = mailbox_new(loop, on_inbox_mail, in);
	check(nng_pull0_open(&in->socket) == 0);
	check(nng_aio_alloc(&in->aio, on_received, in) == 0);
	check(nng_pipe_notify(in->socket, NNG_PIPE_EV_ADD_POST, on_inbox_pipe,
			      in) == 0);
	check(nng_pipe_notify(in->socket, NNG_PIPE_EV_REM_POST, on_inbox_pipe,
			      in) == 0);
	err = listen_at(in->socket, url, config);
	if (config != NULL)
		nng_tls_config_free(config);
	if (err < 0)
		goto err_after_socket;
	nng_recv_aio(in->socket, in->aio);
	*out = in;
	return 0;

err_after_socket: /* no pipe has been, so closing it is safe */
	nng_close(in->socket);
	nng_aio_free(in->aio);
	mailbox_close(in->mailbox);
	hmap_fini(&in->pipes);
	free(in);
	return err;
}

size_t nng_inbox_pending(const struct nng_inbox *in)
{
	return mailbox_pending(in->mailbox);
}

uint64_t nng_inbox_age_ms(const struct nng_inbox *in)
{
	return mailbox_age_ms(in->mailbox);
}

void nng_inbox_stop(struct nng_inbox *in)
{
	in->stopped = true;
	mailbox_detach(in->mailbox);
}

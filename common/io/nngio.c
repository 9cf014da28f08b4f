/* Threads and lifetimes
 *
 * nng calls back on threads of its own. Those callbacks touch nothing but what
 * lives as long as the process, and hand everything to the loop as mail:
 *
 *   inbox    is never freed, nor is its mailbox. nng_inbox_stop() detaches the
 *            mailbox; what nng receives afterwards is refused and dropped, and
 *            the receive is not started again.
 *   outbox   may be closed at any time, and whether nng can still be in one of
 *            its pipe callbacks after nng_close() differs between its versions
 *            (REM_POST runs on the reaper thread). So the callback's argument
 *            is no pointer but the number of the outbox's present socket; its
 *            event goes to the one mailbox of all outboxes, and only the loop
 *            looks the number up. An event of a socket that is gone finds
 *            nothing.
 *
 * nng_close() waits for the reaper thread, and that may be stuck for ever (see
 * nngio_stuck()). So it is called on a thread of its own, which reports by mail
 * when it is done; when it has not after NNGIO_CLOSE_MAX_MS it is given up. For
 * the same reason an outbox does not leave redialling a lost connection to nng,
 * whose dialer is woken by the reaper, but takes a fresh socket.
 *
 * Receiving is one nng_aio, started again by its own callback: any other way
 * costs a thread change per message, ten times the time. When too many bytes
 * wait for the loop the callback marks its mail `last` and does not start the
 * next receive; the loop does when it gets to that mail, which is when all
 * mail before it has been delivered.
 *
 * ADD_POST and REM_POST of a pipe come from different threads and may overtake
 * each other; both kinds of box put that right, so that those above see "up",
 * then "down", and never an "up" of a pipe that is gone already.
 */
#include "common/io/nngio.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/ds/hmap.h"
#include "common/ds/list.h"
#include "common/io/mailbox.h"
#include "common/io/nngshim.h"

#include <arpa/inet.h>
#include <nng/nng.h>
#include <nng/protocol/pipeline0/pull.h>
#include <nng/protocol/pipeline0/push.h>
#include <nng/supplemental/tls/tls.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

enum outbox_mail_kind { OUTBOX_UP, OUTBOX_DOWN, OUTBOX_CLOSED };

struct outbox_mail {
	struct mail mail;
	enum outbox_mail_kind kind;
	uintptr_t number;	    /* of the socket */
	uint32_t pipe;		    /* OUTBOX_UP, OUTBOX_DOWN */
	nng_socket socket;	    /* OUTBOX_CLOSED, and on its way there */
	char local[NNGIO_HOST_MAX]; /* OUTBOX_UP: our end's address */
};

struct nng_outbox {
	struct list in_hub;
	char *url;
	nng_tls_config *tls; /* NULL: plain tcp */
	uv_timer_t *redial;  /* runs while there is no socket */
	bool open;	     /* has a socket */
	nng_socket socket;
	uintptr_t number; /* of the socket; none is used twice */
	uint32_t pipe;	  /* 0: not connected */
	uint32_t gone;	  /* its REM_POST came before its ADD_POST */
	char local[NNGIO_HOST_MAX];
	nng_outbox_event_cb on_event;
	void *ctx;
};

/* What all outboxes share. File-scope because nng is: its callbacks may come as
 * long as the process lives. The loop's own, except the mailbox, which is made
 * before the first callback can come and never freed. */
static struct {
	struct mailbox *mailbox;
	uv_loop_t *loop; /* NULL: nothing is open, the mailbox is detached */
	uv_timer_t *patience; /* with sockets that are being closed */
	struct list outboxes;
	struct list retired; /* struct outbox_mail.mail: to be closed */
	uintptr_t last_number;
	uintptr_t
		given_up; /* closings of sockets up to this one count no more */
	unsigned closing;
	bool stuck;
} hub;

static int err_from_nng(int code)
{
	switch (code) {
	case 0:
		return 0;
	case NNG_EAGAIN:
	case NNG_ETIMEDOUT:
		return ERR_AGAIN;
	case NNG_ECLOSED:
		return ERR_CLOSED;
	case NNG_EADDRINUSE:
	case NNG_EADDRINVAL:
	case NNG_EINVAL: /* of a url */
	case NNG_ENOTSUP:
	case NNG_EPERM:
		return ERR_ADDRESS;
	case NNG_ECRYPTO:
	case NNG_EPEERAUTH:
		return ERR_CONFIG;
	case NNG_EMSGSIZE:
		return ERR_TOO_LARGE;
	case NNG_ENOFILES:
	case NNG_ENOMEM:
		return ERR_FULL;
	default:
		return ERR_IO;
	}
}

void nngio_process_init(void)
{
	nng_aio *aio;

	/* Any allocation starts nng's threads. */
	nngshim_one_processor(true);
	check(nng_aio_alloc(&aio, NULL, NULL) == 0);
	nng_aio_free(aio);
	nngshim_one_processor(false);
}

/* --- certificates ------------------------------------------------------ */

/* The file's text, zero-terminated and the caller's, or NULL. */
static char *read_pem(const char *path)
{
	FILE *file = path != NULL ? fopen(path, "re") : NULL;
	char *text;
	size_t len;

	if (file == NULL)
		return NULL;
	text = xmalloc(NNGIO_PEM_MAX + 1);
	len = fread(text, 1, NNGIO_PEM_MAX + 1, file);
	fclose(file);
	if (len == 0 || len > NNGIO_PEM_MAX) {
		free(text);
		return NULL;
	}
	text[len] = '\0';
	return text;
}

/* nng copies what it takes. */
static int fill_tls(nng_tls_config *config, const struct nng_tls_files *files)
{
	char *ca = read_pem(files->ca), *cert = read_pem(files->cert),
	     *key = read_pem(files->key);
	int err = ERR_CONFIG;

	if (ca != NULL && cert != NULL && key != NULL &&
	    nng_tls_config_ca_chain(config, ca, NULL) == 0 &&
	    nng_tls_config_own_cert(config, cert, key, NULL) == 0 &&
	    nng_tls_config_auth_mode(config, NNG_TLS_AUTH_MODE_REQUIRED) == 0)
		err = 0;
	free(ca);
	free(cert);
	free(key);
	return err;
}

/* *out is NULL for tcp://; otherwise it is the caller's to free. */
static int tls_config(const char *url, const struct nng_tls_files *files,
		      nng_tls_mode mode, nng_tls_config **out)
{
	static const char scheme[] = "tls+";
	bool given =
		files != NULL && (files->ca != NULL || files->cert != NULL ||
				  files->key != NULL);
	int err;

	*out = NULL;
	/* Never plain where certificates were given, nor the other way. */
	if ((strncmp(url, scheme, sizeof(scheme) - 1) == 0) != given)
		return ERR_CONFIG;
	if (!given)
		return 0;
	/* Without a name nng would accept any certificate of the CA. */
	if (mode == NNG_TLS_MODE_CLIENT &&
	    (files->server_name == NULL || files->server_name[0] == '\0'))
		return ERR_CONFIG;
	if (nng_tls_config_alloc(out, mode) != 0)
		return ERR_CONFIG; /* an nng built without TLS */
	err = fill_tls(*out, files);
	if (err == 0 && mode == NNG_TLS_MODE_CLIENT &&
	    nng_tls_config_server_name(*out, files->server_name) != 0)
		err = ERR_CONFIG;
	if (err < 0) {
		nng_tls_config_free(*out);
		*out = NULL;
	}
	return err;
}

/* --- inbox ------------------------------------------------------------- */

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
	int err = tls_config(url, tls, NNG_TLS_MODE_SERVER, &config);

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

void nng_inbox_stop(struct nng_inbox *in)
{
	in->stopped = true;
	mailbox_detach(in->mailbox);
}

/* --- outboxes together ------------------------------------------------- */

static void on_outbox_mail(void *ctx, struct mail *m);

static void on_timer_closed(uv_handle_t *handle)
{
	free(handle);
}

static uv_timer_t *timer_new(uv_loop_t *loop, void *data)
{
	uv_timer_t *timer = xmalloc(sizeof(*timer));

	check(uv_timer_init(loop, timer) == 0);
	timer->data = data;
	return timer;
}

static void timer_free(uv_timer_t *timer)
{
	uv_close((uv_handle_t *)timer, on_timer_closed);
}

static void hub_attach(uv_loop_t *loop)
{
	if (hub.loop != NULL) {
		check(hub.loop == loop);
		return;
	}
	if (hub.mailbox == NULL) {
		list_init(&hub.outboxes);
		list_init(&hub.retired);
		hub.mailbox = mailbox_new(loop, on_outbox_mail, NULL);
	} else {
		mailbox_attach(hub.mailbox, loop);
	}
	hub.loop = loop;
	hub.patience = timer_new(loop, NULL);
}

/* Lets the loop go when nothing needs it any more. */
static void hub_maybe_detach(void)
{
	if (hub.loop == NULL || !list_empty(&hub.outboxes) || hub.closing > 0 ||
	    (!hub.stuck && !list_empty(&hub.retired)))
		return;
	hub.loop = NULL;
	timer_free(hub.patience);
	mailbox_detach(hub.mailbox);
}

/* Connections come and go seldom: a walk will do. */
static struct nng_outbox *hub_find(uintptr_t number)
{
	list_for_each (node, &hub.outboxes) {
		struct nng_outbox *out =
			container_of(node, struct nng_outbox, in_hub);

		if (out->open && out->number == number)
			return out;
	}
	return NULL;
}

/* On a thread of its own. */
static void *close_socket(void *arg)
{
	struct outbox_mail *mail = arg;

	nng_close(mail->socket);
	if (!mailbox_post(hub.mailbox, &mail->mail))
		free(mail);
	return NULL;
}

static void on_patience_ended(uv_timer_t *timer UNUSED)
{
	hub.stuck = true;
	log_error("NNG-STUCK", "closing=%u", hub.closing);
	hub.given_up = hub.last_number;
	hub.closing = 0;
	hub_maybe_detach();
}

/* Closes the sockets that wait for it, NNGIO_CLOSING_MAX at a time. Once nng
 * is stuck a close would never return: better a descriptor lost than a thread
 * too. */
static void close_retired(void)
{
	while (!list_empty(&hub.retired) && !hub.stuck &&
	       hub.closing < NNGIO_CLOSING_MAX) {
		struct list *node = list_pop_front(&hub.retired);
		pthread_t thread;

		if (pthread_create(&thread, NULL, close_socket,
				   container_of(node, struct outbox_mail,
						mail.in_mailbox)) != 0) {
			list_push_front(&hub.retired, node);
			return; /* the next one that is closed tries again */
		}
		pthread_detach(thread);
		if (hub.closing++ == 0)
			check(uv_timer_start(hub.patience, on_patience_ended,
					     NNGIO_CLOSE_MAX_MS, 0) == 0);
	}
}

static void socket_retire(nng_socket socket, uintptr_t number)
{
	struct outbox_mail *mail = xcalloc(1, sizeof(*mail));

	mail->kind = OUTBOX_CLOSED;
	mail->socket = socket;
	mail->number = number;
	mail->mail.bytes = sizeof(*mail);
	list_push_back(&hub.retired, &mail->mail.in_mailbox);
	close_retired();
}

static void on_socket_closed(uintptr_t number)
{
	if (number <= hub.given_up)
		return;
	check(hub.closing > 0);
	hub.closing--;
	uv_timer_stop(hub.patience);
	if (hub.closing > 0)
		check(uv_timer_start(hub.patience, on_patience_ended,
				     NNGIO_CLOSE_MAX_MS, 0) == 0);
	close_retired();
	hub_maybe_detach();
}

bool nngio_stuck(void)
{
	return hub.stuck;
}

/* --- one outbox -------------------------------------------------------- */

/* On an nng thread, maybe after the outbox has gone. */
/* The host part of a connection's own address; "" where nng does not tell. */
static void local_host(nng_pipe pipe, char out[NNGIO_HOST_MAX])
{
	nng_sockaddr a;

	out[0] = '\0';
	if (nng_pipe_get_addr(pipe, NNG_OPT_LOCADDR, &a) != 0)
		return;
	if (a.s_family == NNG_AF_INET)
		inet_ntop(AF_INET, &a.s_in.sa_addr, out, NNGIO_HOST_MAX);
	else if (a.s_family == NNG_AF_INET6)
		inet_ntop(AF_INET6, a.s_in6.sa_addr, out, NNGIO_HOST_MAX);
}

static void on_outbox_pipe(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
	struct outbox_mail *mail = xcalloc(1, sizeof(*mail));

	mail->kind = event == NNG_PIPE_EV_ADD_POST ? OUTBOX_UP : OUTBOX_DOWN;
	mail->number = (uintptr_t)arg;
	mail->pipe = (uint32_t)nng_pipe_id(pipe);
	if (mail->kind == OUTBOX_UP)
		local_host(pipe, mail->local);
	mail->mail.bytes = sizeof(*mail);
	if (!mailbox_post(hub.mailbox, &mail->mail))
		free(mail);
}

static int dial_to(nng_socket socket, const char *url, nng_tls_config *config)
{
	nng_dialer dialer;
	int code = nng_dialer_create(&dialer, socket, url);

	if (code == 0)
		code = nng_dialer_set_size(dialer, NNG_OPT_RECVMAXSZ,
					   NNGIO_MESSAGE_MAX);
	if (code == 0)
		code = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMINT,
					 NNGIO_REDIAL_MIN_MS);
	if (code == 0)
		code = nng_dialer_set_ms(dialer, NNG_OPT_RECONNMAXT,
					 NNGIO_REDIAL_MAX_MS);
	if (code == 0)
		code = nng_dialer_set_bool(dialer, NNG_OPT_TCP_KEEPALIVE, true);
	if (code == 0 && config != NULL)
		code = nng_dialer_set_ptr(dialer, NNG_OPT_TLS_CONFIG, config);
	if (code == 0)
		code = nng_dialer_start(dialer, NNG_FLAG_NONBLOCK);
	return err_from_nng(code);
}

static int outbox_dial(struct nng_outbox *out)
{
	void *number;
	int err;

	out->number = ++hub.last_number;
	number = (void *)out->number;
	check(nng_push0_open(&out->socket) == 0);
	check(nng_socket_set_int(out->socket, NNG_OPT_SENDBUF,
				 NNGIO_SEND_QUEUE) == 0);
	check(nng_pipe_notify(out->socket, NNG_PIPE_EV_ADD_POST, on_outbox_pipe,
			      number) == 0);
	check(nng_pipe_notify(out->socket, NNG_PIPE_EV_REM_POST, on_outbox_pipe,
			      number) == 0);
	err = dial_to(out->socket, out->url, out->tls);
	if (err < 0) { /* no pipe has been: this does not wait */
		nng_close(out->socket);
		return err;
	}
	out->open = true;
	out->pipe = 0;
	out->gone = 0;
	return 0;
}

static void on_redial(uv_timer_t *timer)
{
	struct nng_outbox *out = timer->data;
	int err = outbox_dial(out);

	if (err == 0)
		return;
	log_warn("OUTBOX-DIAL", "url=%s err=%s", out->url, err_name(err));
	check(uv_timer_start(out->redial, on_redial, NNGIO_REDIAL_MAX_MS, 0) ==
	      0);
}

static void outbox_hang_up(struct nng_outbox *out)
{
	if (!out->open)
		return;
	socket_retire(out->socket, out->number);
	out->open = false;
	out->pipe = 0;
}

void nng_outbox_redial(struct nng_outbox *out)
{
	if (!out->open)
		return; /* about to */
	outbox_hang_up(out);
	check(uv_timer_start(out->redial, on_redial, NNGIO_REDIAL_MIN_MS, 0) ==
	      0);
}

/* The callback may close the outbox: nothing may follow it here. */
static void outbox_tell(struct nng_outbox *out, bool up)
{
	if (out->on_event != NULL)
		out->on_event(out->ctx, up);
}

static void outbox_lost(struct nng_outbox *out)
{
	nng_outbox_redial(out);
	outbox_tell(out, false);
}

static void outbox_up(struct nng_outbox *out, uint32_t pipe)
{
	if (out->gone == pipe) {
		out->gone = 0;
		return;
	}
	/* nng's next connection, before the news that the first is gone. */
	if (out->pipe != 0) {
		outbox_lost(out);
		return;
	}
	out->pipe = pipe;
	outbox_tell(out, true);
}

/* One that was not told as up has been refused, or its `up` is still to come;
 * nng goes on dialling with its own back-off. */
static void outbox_down(struct nng_outbox *out, uint32_t pipe)
{
	if (out->pipe == pipe)
		outbox_lost(out);
	else
		out->gone = pipe;
}

static void on_outbox_mail(void *ctx UNUSED, struct mail *m)
{
	struct outbox_mail *mail = container_of(m, struct outbox_mail, mail);
	enum outbox_mail_kind kind = mail->kind;
	uintptr_t number = mail->number;
	uint32_t pipe = mail->pipe;
	struct nng_outbox *out = hub_find(number);

	if (out != NULL && kind == OUTBOX_UP)
		memcpy(out->local, mail->local, sizeof(out->local));
	free(mail);
	if (kind == OUTBOX_CLOSED)
		on_socket_closed(number);
	if (out == NULL)
		return;
	if (kind == OUTBOX_UP)
		outbox_up(out, pipe);
	else if (kind == OUTBOX_DOWN)
		outbox_down(out, pipe);
}

int nng_outbox_open(uv_loop_t *loop, const char *url,
		    const struct nng_tls_files *tls,
		    nng_outbox_event_cb on_event, void *ctx,
		    struct nng_outbox **out)
{
	struct nng_outbox *box;
	nng_tls_config *config;
	int err = tls_config(url, tls, NNG_TLS_MODE_CLIENT, &config);

	if (err < 0)
		return err;
	hub_attach(loop);
	box = xcalloc(1, sizeof(*box));
	box->url = xstrdup(url);
	box->tls = config;
	box->on_event = on_event;
	box->ctx = ctx;
	box->redial = timer_new(loop, box);
	list_push_back(&hub.outboxes, &box->in_hub);
	err = outbox_dial(box);
	if (err < 0) {
		nng_outbox_close(box);
		return err;
	}
	*out = box;
	return 0;
}

int nng_outbox_send(struct nng_outbox *out, const struct iovec *pieces,
		    size_t count)
{
	size_t total = 0;
	nng_msg *msg;
	int code;

	for (size_t i = 0; i < count; i++)
		total += pieces[i].iov_len;
	if (total > NNGIO_MESSAGE_MAX)
		return ERR_TOO_LARGE;
	if (out->pipe == 0) /* nng would queue it for whoever comes */
		return ERR_AGAIN;
	check(nng_msg_alloc(&msg, 0) == 0);
	/* Without this each append would reallocate exactly. */
	check(nng_msg_reserve(msg, total) == 0);
	for (size_t i = 0; i < count; i++)
		check(nng_msg_append(msg, pieces[i].iov_base,
				     pieces[i].iov_len) == 0);
	code = nng_sendmsg(out->socket, msg, NNG_FLAG_NONBLOCK);
	if (code != 0)
		nng_msg_free(msg);
	return err_from_nng(code);
}

const char *nng_outbox_local_host(const struct nng_outbox *out)
{
	return out->local;
}

bool nng_outbox_connected(const struct nng_outbox *out)
{
	return out->pipe != 0;
}

void nng_outbox_close(struct nng_outbox *out)
{
	outbox_hang_up(out);
	list_remove(&out->in_hub);
	timer_free(out->redial);
	if (out->tls != NULL)
		nng_tls_config_free(out->tls);
	free(out->url);
	free(out);
	hub_maybe_detach();
}

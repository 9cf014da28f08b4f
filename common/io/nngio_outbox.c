/* nngio_outbox.c - sockets that send; see nngio.c for threads and lifetimes. */
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/ds/list.h"
#include "common/io/mailbox.h"
#include "common/io/nngio_internal.h"

#include <arpa/inet.h>
#include <nng/protocol/pipeline0/push.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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
	bool lost;	  /* its connection is: nothing may be sent any more */
	uint32_t pipe;	  /* 0: not connected */
	char local[NNGIO_HOST_MAX];
	nng_outbox_event_cb on_event;
	void *ctx;
};

/* What all outboxes share. File-scope because nng is: its callbacks may come as
 * long as the process lives. The loop's own, except the mailbox, which is made
 * before the first callback can come and never freed, and what `lock` is for:
 * the loop changes the list, `open` and `number` with it, callbacks look at
 * these and set `lost` with it, and the loop sends with it. */
static struct {
	pthread_mutex_t lock;
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
} hub = {.lock = PTHREAD_MUTEX_INITIALIZER};

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
		struct list *node = hub.retired.next;
		pthread_t thread;

		list_remove(node);
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

/* nng is about to free the connection. Its PUSH socket may still know it then
 * (see nngio.c), so it must not be used again: neither by a send nor by nng's
 * next connection. */
static void stop_using(uintptr_t number, nng_pipe pipe)
{
	struct nng_outbox *out;

	pthread_mutex_lock(&hub.lock);
	out = hub_find(number);
	if (out != NULL)
		out->lost = true;
	pthread_mutex_unlock(&hub.lock);
	nng_dialer_close(nng_pipe_dialer(pipe));
}

/* On an nng thread, maybe after the outbox has gone. */
static void on_outbox_pipe(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
	struct outbox_mail *mail = xcalloc(1, sizeof(*mail));

	mail->kind = event == NNG_PIPE_EV_ADD_POST ? OUTBOX_UP : OUTBOX_DOWN;
	mail->number = (uintptr_t)arg;
	mail->pipe = (uint32_t)nng_pipe_id(pipe);
	if (mail->kind == OUTBOX_UP)
		local_host(pipe, mail->local);
	else
		stop_using(mail->number, pipe);
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

static void outbox_set_open(struct nng_outbox *out, bool open)
{
	pthread_mutex_lock(&hub.lock);
	out->open = open;
	out->lost = false;
	if (open)
		out->number = ++hub.last_number;
	pthread_mutex_unlock(&hub.lock);
	out->pipe = 0;
}

static int outbox_dial(struct nng_outbox *out)
{
	void *number;
	int err;

	check(nng_push0_open(&out->socket) == 0);
	outbox_set_open(out, true);
	number = (void *)out->number;
	check(nng_socket_set_int(out->socket, NNG_OPT_SENDBUF,
				 NNGIO_SEND_QUEUE) == 0);
	check(nng_pipe_notify(out->socket, NNG_PIPE_EV_ADD_POST, on_outbox_pipe,
			      number) == 0);
	check(nng_pipe_notify(out->socket, NNG_PIPE_EV_REM_POST, on_outbox_pipe,
			      number) == 0);
	err = dial_to(out->socket, out->url, out->tls);
	if (err < 0) { /* no pipe has been: this does not wait */
		nng_close(out->socket);
		outbox_set_open(out, false);
	}
	return err;
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
	outbox_set_open(out, false);
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

static void outbox_up(struct nng_outbox *out, uint32_t pipe)
{
	out->pipe = pipe;
	outbox_tell(out, true);
}

/* One that was not told as up has been refused, or its `up` is still to come,
 * and then finds nothing. */
static void outbox_down(struct nng_outbox *out)
{
	bool was_up = out->pipe != 0;

	nng_outbox_redial(out);
	if (was_up)
		outbox_tell(out, false);
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
		outbox_down(out);
}

int nng_outbox_open(uv_loop_t *loop, const char *url,
		    const struct nng_tls_files *tls,
		    nng_outbox_event_cb on_event, void *ctx,
		    struct nng_outbox **out)
{
	struct nng_outbox *box;
	nng_tls_config *config;
	int err = nngio_tls_config(url, tls, NNG_TLS_MODE_CLIENT, &config);

	if (err < 0)
		return err;
	hub_attach(loop);
	box = xcalloc(1, sizeof(*box));
	box->url = xstrdup(url);
	box->tls = config;
	box->on_event = on_event;
	box->ctx = ctx;
	box->redial = timer_new(loop, box);
	pthread_mutex_lock(&hub.lock);
	list_push_back(&hub.outboxes, &box->in_hub);
	pthread_mutex_unlock(&hub.lock);
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
	pthread_mutex_lock(&hub.lock);
	code = out->lost ? NNG_EAGAIN
			 : nng_sendmsg(out->socket, msg, NNG_FLAG_NONBLOCK);
	pthread_mutex_unlock(&hub.lock);
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
	pthread_mutex_lock(&hub.lock);
	list_remove(&out->in_hub);
	pthread_mutex_unlock(&hub.lock);
	timer_free(out->redial);
	if (out->tls != NULL)
		nng_tls_config_free(out->tls);
	free(out->url);
	free(out);
	hub_maybe_detach();
}

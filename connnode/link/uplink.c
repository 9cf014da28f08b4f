#include "connnode/link/uplink.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/version.h"
#include "common/io/gossip.h"
#include "common/io/linkurl.h"
#include "common/io/listener.h"
#include "common/io/nngio.h"
#include "connnode/intake.h"
#include "connnode/stream/drain.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define DNS_SCHEME "dns:"

struct uplink {
	struct worker *worker;
	struct nng_inbox *inbox;
	struct nng_tls_files tls;
	const char *scheme;	   /* "tcp://" or "tls+tcp://", as we listen */
	char *dns_name, *dns_port; /* NULL: a fixed list */
	uv_getaddrinfo_t lookup;
	bool looking_up, stopped;
	bool whole; /* announcer_whole() at the last look */
	uint64_t look_up_at_ms;
	unsigned dispatchers;
	uint16_t link_port;
};

/* One dispatcher's socket. */
struct dial {
	struct uplink *uplink;
	struct upstream *upstream;
	struct nng_outbox *outbox;
	bool listed; /* in the last answer of the name service */
};

/* --- sockets ----------------------------------------------------------- */

/* What dispatchers are told to dial: link-advertise, or the address that we
 * reach them from. */
static void tell_own_address(struct dial *d)
{
	struct uplink *up = d->uplink;
	const char *host = up->worker->options->link_advertise;
	char url[LINKURL_MAX];
	bool bare_v6;

	if (host[0] == '\0')
		host = nng_outbox_local_host(d->outbox);
	bare_v6 = strchr(host, ':') != NULL && host[0] != '[';
	snprintf(url, sizeof(url), bare_v6 ? "%s[%s]:%u" : "%s%s:%u",
		 up->scheme, host, up->link_port);
	announcer_own_address(d->upstream, url);
}

static void on_dial_event(void *ctx, bool up)
{
	struct dial *d = ctx;
	struct worker *w = d->uplink->worker;

	if (!up) {
		announcer_disconnected(&w->announcer, d->upstream);
		return;
	}
	tell_own_address(d);
	announcer_connected(&w->announcer, d->upstream, worker_now(w));
}

static struct upstream *upstream_find(struct worker *w, const char *address)
{
	list_for_each (node, &w->announcer.upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		if (strcmp(u->address, address) == 0)
			return u;
	}
	return NULL;
}

/* Dials it, if that is not done already. Errors are those of our own address or
 * certificates. */
static int add_dispatcher(struct uplink *up, const char *address)
{
	struct worker *w = up->worker;
	struct upstream *u = upstream_find(w, address);
	struct dial *d;
	int rc;

	if (u != NULL) {
		((struct dial *)u->socket)->listed = true;
		return 0;
	}
	if (up->dispatchers == UPLINK_DISPATCHERS_MAX) {
		log_warn("DISPATCHERS-FULL", "address=%s max=%d", address,
			 UPLINK_DISPATCHERS_MAX);
		return 0;
	}
	d = xcalloc(1, sizeof(*d));
	d->uplink = up;
	d->listed = true;
	d->upstream = announcer_add(&w->announcer, address);
	d->upstream->socket = d;
	rc = nng_outbox_open(w->loop, address, &up->tls, on_dial_event, d,
			     &d->outbox);
	if (rc != 0) {
		log_error("LINK-DIAL", "dispatcher=%s err=%s", address,
			  err_name(rc));
		announcer_remove(&w->announcer, d->upstream);
		free(d);
		return rc;
	}
	up->dispatchers++;
	return 0;
}

static void drop_dispatcher(struct uplink *up, struct upstream *u)
{
	struct dial *d = u->socket;

	nng_outbox_close(d->outbox);
	free(d);
	announcer_remove(&up->worker->announcer, u);
	up->dispatchers--;
}

static int on_send(void *ctx UNUSED, struct upstream *u,
		   const struct iovec *pieces, size_t count)
{
	return nng_outbox_send(((struct dial *)u->socket)->outbox, pieces,
			       count);
}

static void on_redial(void *ctx UNUSED, struct upstream *u)
{
	nng_outbox_redial(((struct dial *)u->socket)->outbox);
}

static void on_deliver(void *ctx, LinkDelivery *const *deliveries, size_t count)
{
	intake_deliveries(ctx, deliveries, count);
}

static void on_answers(void *ctx, const LinkFrame *f, uint64_t now_ms UNUSED)
{
	intake_answers(ctx, f);
}

static void on_moved(void *ctx, const LinkFrame *f)
{
	intake_moved(ctx, f);
}

static uint64_t on_wall(void *ctx UNUSED)
{
	return clock_wall_us();
}

static void on_revocations(void *ctx, const LinkFrame *f)
{
	struct worker *w = ctx;

	if (w->auth != NULL)
		gossip_take(w->auth, f);
}

static void on_drain(void *ctx, const Stentor__Link__V1__DrainOrder *order)
{
	drain_ordered(ctx, order);
}

static void tell_newcomer(void *ctx, struct frame *control)
{
	struct upstream *u = ctx;
	struct worker *w = ((struct dial *)u->socket)->uplink->worker;

	announcer_tell(&w->announcer, u, control);
}

/* What may have been on the way by that link is looked for in the store. */
static void on_link_changed(void *ctx, struct upstream *u, bool up)
{
	struct worker *w = ctx;

	if (!up)
		questions_link_lost(&w->questions, u, worker_now(w));
	else if (w->auth != NULL)
		gossip_all(w->auth, tell_newcomer, u);
	logs_resync(&w->logs, !up);
	if (up)
		w->uplink->whole = announcer_whole(&w->announcer);
}

/* A dispatcher that we had no link to is named no more: it may have appended
 * until it ended. */
static void watch_whole(struct worker *w)
{
	bool whole = announcer_whole(&w->announcer);

	if (whole && !w->uplink->whole)
		logs_resync(&w->logs, false);
	w->uplink->whole = whole;
}

static const struct announcer_ops announcer_ops = {
	.send = on_send,
	.redial = on_redial,
	.deliver = on_deliver,
	.answers = on_answers,
	.moved = on_moved,
	.wall_us = on_wall,
	.revocations = on_revocations,
	.drain = on_drain,
	.link_changed = on_link_changed,
};

static void on_message(void *ctx, uint32_t pipe UNUSED, const uint8_t *bytes,
		       size_t len)
{
	struct worker *w = ctx;

	announcer_receive(&w->announcer, bytes, len, worker_now(w));
}

/* --- where the dispatchers are ----------------------------------------- */

/* Splits "dns:NAME:PORT"; NULL name on anything else. */
static bool split_dns(const char *text, char *name, char *port, size_t size)
{
	const char *colon;

	if (strncmp(text, DNS_SCHEME, strlen(DNS_SCHEME)) != 0)
		return false;
	text += strlen(DNS_SCHEME);
	colon = strrchr(text, ':');
	if (colon == NULL || colon == text || colon[1] == '\0' ||
	    strspn(colon + 1, "0123456789") != strlen(colon + 1) ||
	    (size_t)(colon - text) >= size || strlen(colon + 1) >= size)
		return false;
	memcpy(name, text, (size_t)(colon - text));
	name[colon - text] = '\0';
	strcpy(port, colon + 1);
	return true;
}

static bool url_valid(const char *url, size_t len)
{
	char copy[LINKURL_MAX];
	const char *address;

	if (len >= sizeof(copy))
		return false;
	memcpy(copy, url, len);
	copy[len] = '\0';
	address = linkurl_address(copy);
	return address != NULL && strrchr(address, ':') > address;
}

bool uplink_list_valid(const char *list)
{
	char name[LINKURL_MAX], port[LINKURL_MAX];

	if (strncmp(list, DNS_SCHEME, strlen(DNS_SCHEME)) == 0)
		return split_dns(list, name, port, LINKURL_MAX);
	while (*list != '\0') {
		size_t len = strcspn(list, ",");

		if (!url_valid(list, len))
			return false;
		list += len;
		list += strspn(list, ", ");
	}
	return true;
}

static int add_list(struct uplink *up, const char *list)
{
	char url[LINKURL_MAX];
	int rc = 0;

	while (*list != '\0' && rc == 0) {
		size_t len = strcspn(list, ",");

		memcpy(url, list, len);
		url[len] = '\0';
		rc = add_dispatcher(up, url);
		list += len;
		list += strspn(list, ", ");
	}
	return rc;
}

static void unlist_all(struct worker *w)
{
	list_for_each (node, &w->announcer.upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);

		((struct dial *)u->socket)->listed = false;
	}
}

static void on_looked_up(uv_getaddrinfo_t *lookup, int status,
			 struct addrinfo *found)
{
	struct uplink *up = container_of(lookup, struct uplink, lookup);
	char address[ADDRESS_TEXT], url[LINKURL_MAX];

	up->looking_up = false;
	if (status == 0 && !up->stopped) {
		unlist_all(up->worker);
		for (struct addrinfo *a = found; a != NULL; a = a->ai_next) {
			address_format(a->ai_addr, address);
			snprintf(url, sizeof(url), "%s%s", up->scheme, address);
			if (add_dispatcher(up, url) != 0)
				break; /* logged; the next look-up tries again
					*/
		}
	} else if (!up->stopped) {
		log_warn("DNS-FAILED", "name=%s err=%s", up->dns_name,
			 uv_err_name(status));
	}
	uv_freeaddrinfo(found);
}

static void look_up(struct uplink *up)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct worker *w = up->worker;

	if (up->looking_up || worker_now(w) < up->look_up_at_ms)
		return;
	up->look_up_at_ms = worker_now(w) + w->options->resolve_ms;
	up->looking_up =
		uv_getaddrinfo(w->loop, &up->lookup, on_looked_up, up->dns_name,
			       up->dns_port, &hints) == 0;
}

void uplink_tick(struct worker *w)
{
	struct uplink *up = w->uplink;

	if (up->dns_name != NULL)
		look_up(up);
	watch_whole(w);
	list_for_each_safe (node, &w->announcer.upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);
		struct dial *d = u->socket;

		if (!d->listed && u->phase == UPSTREAM_DOWN)
			drop_dispatcher(up, u);
	}
}

/* --- life cycle -------------------------------------------------------- */

static void identify(struct uplink *up)
{
	struct worker *w = up->worker;
	struct announcer_identity id = {
		.node = w->options->process.name,
		.worker = w->index,
		.incarnation = random_nonzero(),
		.link_address = "", /* told for each dispatcher */
		.listen_address = w->options->listen,
		.version = stentor_version,
		.token = w->options->process.link_token,
		.config_hash = w->rules->hash,
		.connections_max = w->connections_max,
		.started_ms = clock_wall_ms(),
	};

	announcer_init(&w->announcer, &w->channels, &id, &announcer_ops, w);
}

int uplink_start(struct worker *w, const char *link_url)
{
	const struct connnode_options *o = w->options;
	struct uplink *up = xcalloc(1, sizeof(*up));
	char name[LINKURL_MAX], port[LINKURL_MAX];
	int rc;

	w->uplink = up;
	up->worker = w;
	up->scheme =
		strncmp(link_url, "tls+", 4) == 0 ? "tls+tcp://" : "tcp://";
	up->link_port = (uint16_t)atoi(strrchr(link_url, ':') + 1);
	up->tls = process_link_tls(&o->process);
	identify(up);
	rc = nng_inbox_open(w->loop, link_url, &up->tls, on_message, NULL, w,
			    &up->inbox);
	if (rc != 0) {
		log_error("LINK-LISTEN", "address=%s err=%s", link_url,
			  err_name(rc));
		return rc;
	}
	if (split_dns(o->dispatchers, name, port, LINKURL_MAX)) {
		up->dns_name = xstrdup(name);
		up->dns_port = xstrdup(port);
		look_up(up);
	} else {
		rc = add_list(up, o->dispatchers);
	}
	return rc;
}

size_t uplink_pending(const struct worker *w)
{
	return nng_inbox_pending(w->uplink->inbox);
}

uint64_t uplink_age_ms(const struct worker *w)
{
	return nng_inbox_age_ms(w->uplink->inbox);
}

void uplink_stop(struct worker *w)
{
	struct uplink *up = w->uplink;

	up->stopped = true;
	if (up->looking_up)
		uv_cancel((uv_req_t *)&up->lookup);
	list_for_each_safe (node, &w->announcer.upstreams)
		drop_dispatcher(
			up, container_of(node, struct upstream, in_announcer));
	nng_inbox_stop(up->inbox);
}

void uplink_free(struct worker *w)
{
	free(w->uplink->dns_name);
	free(w->uplink->dns_port);
	free(w->uplink);
	w->uplink = NULL;
}

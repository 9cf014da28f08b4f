#include "connnode/link/uplink.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/linkurl.h"
#include "common/io/listener.h"
#include "common/io/nngio.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define DNS_SCHEME "dns:"

struct uplink {
	uv_loop_t *loop;
	struct announcer *announcer;
	const char *advertise;
	struct nng_inbox *inbox;
	struct nng_tls_files tls;
	const char *scheme;	   /* "tcp://" or "tls+tcp://", as we listen */
	char *dns_name, *dns_port; /* NULL: a fixed list */
	uv_getaddrinfo_t lookup;
	bool looking_up, stopped;
	uint64_t resolve_ms, look_up_at_ms;
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
	const char *host = up->advertise;
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
	struct uplink *uplink = d->uplink;

	if (!up) {
		announcer_disconnected(uplink->announcer, d->upstream);
		return;
	}
	tell_own_address(d);
	announcer_connected(uplink->announcer, d->upstream,
			    uv_now(uplink->loop));
}

static struct upstream *upstream_find(struct announcer *a, const char *address)
{
	list_for_each (node, &a->upstreams) {
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
	struct upstream *u = upstream_find(up->announcer, address);
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
	d->upstream = announcer_add(up->announcer, address);
	d->upstream->socket = d;
	rc = nng_outbox_open(up->loop, address, &up->tls, on_dial_event, d,
			     &d->outbox);
	if (rc != 0) {
		log_error("LINK-DIAL", "dispatcher=%s err=%s", address,
			  err_name(rc));
		announcer_remove(up->announcer, d->upstream);
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
	announcer_remove(up->announcer, u);
	up->dispatchers--;
}

int uplink_send(void *ctx UNUSED, struct upstream *u,
		const struct iovec *pieces, size_t count)
{
	return nng_outbox_send(((struct dial *)u->socket)->outbox, pieces,
			       count);
}

void uplink_redial(void *ctx UNUSED, struct upstream *u)
{
	nng_outbox_redial(((struct dial *)u->socket)->outbox);
}

static void on_message(void *ctx, uint32_t pipe UNUSED, const uint8_t *bytes,
		       size_t len)
{
	struct uplink *up = ctx;

	announcer_receive(up->announcer, bytes, len, uv_now(up->loop));
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

static void unlist_all(struct uplink *up)
{
	list_for_each (node, &up->announcer->upstreams) {
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
		unlist_all(up);
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

	if (up->looking_up || uv_now(up->loop) < up->look_up_at_ms)
		return;
	up->look_up_at_ms = uv_now(up->loop) + up->resolve_ms;
	up->looking_up =
		uv_getaddrinfo(up->loop, &up->lookup, on_looked_up,
			       up->dns_name, up->dns_port, &hints) == 0;
}

void uplink_tick(struct uplink *up)
{
	if (up->dns_name != NULL)
		look_up(up);
	list_for_each_safe (node, &up->announcer->upstreams) {
		struct upstream *u =
			container_of(node, struct upstream, in_announcer);
		struct dial *d = u->socket;

		if (!d->listed && u->phase == UPSTREAM_DOWN)
			drop_dispatcher(up, u);
	}
}

/* --- life cycle -------------------------------------------------------- */

int uplink_start(const struct uplink_start *s, struct uplink **out)
{
	struct uplink *up = xcalloc(1, sizeof(*up));
	char name[LINKURL_MAX], port[LINKURL_MAX];
	int rc;

	*out = up;
	up->loop = s->loop;
	up->announcer = s->announcer;
	up->advertise = s->advertise;
	up->resolve_ms = s->resolve_ms;
	up->tls = s->tls;
	up->scheme =
		strncmp(s->link_url, "tls+", 4) == 0 ? "tls+tcp://" : "tcp://";
	up->link_port = (uint16_t)atoi(strrchr(s->link_url, ':') + 1);
	rc = nng_inbox_open(up->loop, s->link_url, &up->tls, on_message, NULL,
			    up, &up->inbox);
	if (rc != 0) {
		log_error("LINK-LISTEN", "address=%s err=%s", s->link_url,
			  err_name(rc));
		return rc;
	}
	if (split_dns(s->dispatchers, name, port, LINKURL_MAX)) {
		up->dns_name = xstrdup(name);
		up->dns_port = xstrdup(port);
		look_up(up);
	} else {
		rc = add_list(up, s->dispatchers);
	}
	return rc;
}

size_t uplink_pending(const struct uplink *up)
{
	return nng_inbox_pending(up->inbox);
}

uint64_t uplink_age_ms(const struct uplink *up)
{
	return nng_inbox_age_ms(up->inbox);
}

void uplink_stop(struct uplink *up)
{
	up->stopped = true;
	if (up->looking_up)
		uv_cancel((uv_req_t *)&up->lookup);
	list_for_each_safe (node, &up->announcer->upstreams)
		drop_dispatcher(
			up, container_of(node, struct upstream, in_announcer));
	nng_inbox_stop(up->inbox);
}

void uplink_free(struct uplink *up)
{
	free(up->dns_name);
	free(up->dns_port);
	free(up);
}

/* rediss://: TLS under a connection's bytes.
 *
 *	socket --> redis_tls_input() --plain--> redis_link_input()
 *	node->out --> redis_tls_flush() --encrypted--> socket, or link->writing
 *
 * The handshake belongs to connecting: it has the rest of that time. Whoever
 * is connected to must show a certificate for the host that it was named by: in
 * the URL, or where a Cluster or a Sentinel announces its servers, by these
 * (cluster-announce-hostname, replica-announce-ip, sentinel announce-hostnames;
 * an address must stand in the certificate).
 *
 * Requests count as given to the kernel when they are encrypted: what of them
 * left is not known after that.
 */
#include "common/base/err.h"
#include "common/base/log.h"
#include "dispatcher/store/redis_internal.h"

#include <stdio.h>
#include <string.h>

#define PLAIN_BYTES (16u << 10) /* decrypted at once: a record */

static const char *or_null(const char *text)
{
	return text != NULL && text[0] != 0 ? text : NULL;
}

int redis_tls_open(struct redis_store *s, const struct store_config *config,
		   char fault[STORE_FAULT_SIZE])
{
	const struct tls_client_files files = {
		.ca = or_null(config->tls_ca),
		.cert = or_null(config->tls_cert),
		.key = or_null(config->tls_key),
	};
	char text[TLS_FAULT];

	if (!s->url.tls) {
		if (files.ca == NULL && files.cert == NULL && files.key == NULL)
			return 0;
		/* Whoever names an authority means to be safe. */
		snprintf(fault, STORE_FAULT_SIZE,
			 "store-tls-ca, -cert and -key are for a store of "
			 "rediss://");
		return ERR_CONFIG;
	}
	if (tls_client_context_new(&files, &s->tls, text) != 0) {
		snprintf(fault, STORE_FAULT_SIZE, "store-tls: %.200s", text);
		return ERR_CONFIG;
	}
	return 0;
}

void redis_tls_tick(struct redis_store *s, uint64_t now_ms)
{
	if (s->tls == NULL || now_ms < s->tls_refresh_ms)
		return;
	s->tls_refresh_ms = now_ms + TLS_REFRESH_MS;
	tls_context_refresh(s->tls);
}

/* --- bytes out ------------------------------------------------------------ */

/* False: the connection was dropped. */
static bool send_pending(struct redis_link *link)
{
	const uint8_t *bytes;
	size_t len = tls_pending(link->tls, &bytes);
	uv_buf_t b = uv_buf_init((char *)bytes, (unsigned)len);
	int n;

	if (len == 0 || link->write_pending)
		return true;
	n = uv_try_write((uv_stream_t *)&link->tcp, &b, 1);
	if (n < 0 && n != UV_EAGAIN) {
		redis_node_drop(link->node, uv_strerror(n));
		return false;
	}
	if (n > 0)
		tls_sent(link->tls, (size_t)n);
	len = tls_pending(link->tls, &bytes);
	if (len == 0)
		return true;
	check(buf_append(&link->writing, bytes, len) == 0);
	tls_sent(link->tls, len);
	return redis_link_write(link);
}

void redis_tls_flush(struct redis_node *node)
{
	struct redis_link *link = node->link;

	/* Before a new record there is room for it. */
	if (link->write_pending || !send_pending(link) || link->write_pending)
		return;
	if (node->state < REDIS_NODE_SETUP || node->out.len == 0)
		return;
	if (tls_write(link->tls, node->out.bytes, node->out.len) != 0) {
		redis_node_drop(node, "TLS: it can't be written to");
		return;
	}
	node->given = node->encoded;
	redis_node_written(node);
	send_pending(link);
}

/* --- bytes in ------------------------------------------------------------- */

/* What people can do about it. */
static const struct {
	const char *reason, *hint;
} hints[] = {
	{"wrong version number", "it does not speak TLS on this port"},
	{"certificate required", "it asks for a client certificate "
				 "(store-tls-cert)"},
	{"self-signed certificate", "not of an authority in store-tls-ca"},
	{"self signed certificate", "not of an authority in store-tls-ca"},
	{"local issuer", "not of an authority in store-tls-ca"},
	{"ostname mismatch", "not for the host that it was named by"},
	{"IP address mismatch", "not for the address that it was named by"},
	{"alert unknown ca", "it does not trust our certificate "
			     "(store-tls-cert)"},
};

static void fail(struct redis_link *link)
{
	const char *fault = tls_fault(link->tls), *hint = "";
	char why[STORE_FAULT_SIZE];
	const uint8_t *bytes;
	size_t len = tls_pending(link->tls, &bytes);
	uv_buf_t alert = uv_buf_init((char *)bytes, (unsigned)len);

	for (size_t i = 0; i < array_len(hints) && hint[0] == 0; i++)
		if (strstr(fault, hints[i].reason) != NULL)
			hint = hints[i].hint;
	/* The server is to know too, if the kernel takes it. */
	if (len > 0 && !link->write_pending)
		(void)!uv_try_write((uv_stream_t *)&link->tcp, &alert, 1);
	snprintf(why, sizeof(why), "TLS: %s%s%s", fault,
		 hint[0] != 0 ? ": " : "", hint);
	redis_node_drop(link->node, why);
}

void redis_tls_begin(struct redis_link *link)
{
	link->tls = tls_connect(link->s->tls, link->node->address.host,
				SIZE_MAX / 8);
	send_pending(link);
}

void redis_tls_input(struct redis_link *link, const char *bytes, size_t len)
{
	char plain[PLAIN_BYTES];
	bool was_established = tls_established(link->tls);
	int n = tls_feed(link->tls, bytes, len);

	if (n == 0 && !was_established && tls_established(link->tls)) {
		if (!send_pending(link))
			return;
		redis_node_connected(link->node);
	}
	while (n >= 0 && link->node != NULL) {
		n = tls_read(link->tls, plain, sizeof(plain));
		if (n <= 0)
			break;
		redis_link_input(link, plain, (size_t)n);
	}
	if (link->node == NULL)
		return;
	if (n == ERR_CLOSED)
		redis_node_drop(link->node, "it closed the connection");
	else if (n < 0)
		fail(link);
	else
		send_pending(link);
}

const char *redis_tls_late(const struct redis_link *link)
{
	return link != NULL && link->tls != NULL && !tls_established(link->tls)
		       ? "TLS: the handshake is not over in time (does it "
			 "speak TLS on this port?)"
		       : "it does not answer in time";
}

const char *redis_tls_end(const struct redis_link *link, int status)
{
	/* Redis itself ends so what it takes for no TLS, or for no client. */
	if (!link->heard && link->tls == NULL)
		return "it ended the connection before a word (does it speak "
		       "TLS? then rediss://)";
	if (!link->heard && !tls_established(link->tls))
		return "TLS: it ended the connection in the handshake";
	if (!link->heard)
		return "TLS: it ended the connection before a word (does it "
		       "ask for a client certificate? then store-tls-cert)";
	return status == UV_EOF ? "it closed the connection"
				: uv_strerror(status);
}

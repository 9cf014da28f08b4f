/* One connection to one server.
 *
 *	WAITING --time--> CONNECTING --> SETUP --> READY <--> SILENT
 *	   ^                  |            |         |          |
 *	   +---- drop() ------+------------+---------+----------+
 *
 * A link is the socket and parser of one attempt. It outlives its place in the
 * node until libuv has closed its handle, so that the next attempt need not
 * wait; a detached link has no node and hears nothing.
 *
 * Time-outs: an attempt to connect and to set up, and a server that says
 * nothing while a request is under way, have config.timeout_ms. One that still
 * takes bytes (its kernel does: TCP_USER_TIMEOUT) but says nothing has
 * stopped, not gone: where an append is under way whose caller would hear late,
 * the connection is listened to for as long again, and used when a probe has
 * been answered.
 */
#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "dispatcher/store/redis_internal.h"

#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OUT_KEEP (256u << 10) /* memory that an empty `out` keeps */

/* --- life ---------------------------------------------------------------- */

struct redis_node *redis_node_new(struct redis_store *s,
				  const struct redis_address *address)
{
	struct redis_node *node = xcalloc(1, sizeof(*node));

	node->s = s;
	node->address = *address;
	snprintf(node->name, sizeof(node->name),
		 strchr(address->host, ':') != NULL ? "[%s]:%u" : "%s:%u",
		 address->host, address->port);
	node->born_ms = uv_now(s->store.loop);
	buf_init(&node->out, SIZE_MAX / 4);
	list_init(&node->sent);
	list_init(&node->unconfirmed);
	list_init(&node->in_dirty);
	list_init(&node->in_nodes);
	return node;
}

bool redis_node_is(const struct redis_node *node,
		   const struct redis_address *address)
{
	return node->address.port == address->port &&
	       strcmp(node->address.host, address->host) == 0;
}

static void link_free(struct redis_link *link)
{
	struct redis_store *s = link->s;

	redisReaderFree(link->reader);
	tls_free(link->tls);
	arena_fini(&link->arena);
	buf_fini(&link->writing);
	free(link);
	redis_handle_closed(s);
}

static void on_link_closed(uv_handle_t *handle)
{
	link_free(handle->data);
}

static void link_detach(struct redis_link *link)
{
	link->node = NULL;
	if (link->tcp_open)
		uv_close((uv_handle_t *)&link->tcp, on_link_closed);
	else if (link->resolving) /* on_resolved() frees it */
		uv_cancel((uv_req_t *)&link->resolve);
	else
		link_free(link);
}

/* --- down ---------------------------------------------------------------- */

/* Their `done` may submit operations; these wait for the next connection. */
static void end_requests(struct redis_node *node, uint64_t given)
{
	struct list sent, unconfirmed, *at;

	list_init(&sent);
	list_init(&unconfirmed);
	list_splice_back(&sent, &node->sent);
	list_splice_back(&unconfirmed, &node->unconfirmed);
	redis_slots_confirm(&unconfirmed, ERR_UNAVAILABLE);
	while ((at = list_pop_front(&sent))) {
		struct redis_request *q =
			container_of(at, struct redis_request, in_node);

		q->done(q, node, NULL, q->begins >= given);
	}
}

void redis_node_drop(struct redis_node *node, const char *why)
{
	uint64_t now = uv_now(node->s->store.loop), given = node->given;
	uint64_t pause = REDIS_BACKOFF_MAX_MS;
	char fault[STORE_FAULT_SIZE];
	bool news;

	if (node->state == REDIS_NODE_WAITING)
		return;
	snprintf(fault, sizeof(fault), "%.120s: %.120s", node->name, why);
	/* Of several attempts one may tell more than the first. */
	news = node->was_ready || node->failures == 0 ||
	       strcmp(fault, node->fault) != 0;
	memcpy(node->fault, fault, sizeof(node->fault));
	if (news)
		log_warn("STORE-REDIS-DOWN", "server=\"%s\" reason=\"%s\"",
			 node->name, why);
	if (node->failures < 6)
		pause = min_of(pause, (uint64_t)REDIS_BACKOFF_MIN_MS
					      << node->failures);
	node->failures++;
	node->retry_at_ms = now + pause / 2 + random_below(pause / 2 + 1);
	node->state = REDIS_NODE_WAITING;
	node->doomed = NULL;
	node->wait_due = node->probing = false;
	node->scripts_due = 0;
	node->durable[0] = 0;
	/* One that never was ready had no appends, and has not ended the one
	 * before it. */
	if (node->was_ready) {
		node->stale_client = node->client;
		memcpy(node->stale_run_id, node->server.run_id,
		       sizeof(node->stale_run_id));
	}
	node->was_ready = false;
	node->client = 0;
	if (node->link != NULL)
		link_detach(node->link);
	node->link = NULL;
	buf_clear(&node->out, OUT_KEEP);
	node->encoded = node->given = 0;
	end_requests(node, given);
	if (node->watch) { /* the store does without */
		redis_watch_lost(node);
		return;
	}
	if (node->sentinel)
		redis_sentinel_lost(node->s);
	else
		redis_suspect(node->s);
	redis_update(node->s, node->fault);
}

void redis_node_doom(struct redis_node *node, const char *why)
{
	if (node->doomed == NULL)
		node->doomed = why;
}

void redis_node_leave(struct redis_node *node)
{
	node->was_ready = false; /* it is no news */
	node->failures = 1;
	redis_node_drop(node, "not needed any more");
}

void redis_node_free(struct redis_node *node)
{
	struct redis_store *s = node->s;

	for (unsigned slot = 0; node->slots > 0 && slot < REDIS_SLOTS; slot++)
		if (s->slots[slot].master == node)
			redis_slot_assign(s, slot, NULL);
	redis_node_leave(node);
	list_remove(&node->in_dirty);
	list_remove(&node->in_nodes);
	buf_fini(&node->out);
	free(node);
}

/* --- sending ------------------------------------------------------------- */

static bool queue(struct redis_node *node, struct redis_request *q,
		  const struct redis_arg *args, size_t count)
{
	size_t had = node->out.len;

	if (!redis_encode(&node->out, args, count))
		return false;
	if (list_empty(&node->sent))
		node->heard_ms = uv_now(node->s->store.loop);
	q->begins = node->encoded;
	node->encoded += node->out.len - had;
	list_push_back(&node->sent, &q->in_node);
	if (list_empty(&node->in_dirty)) {
		list_push_back(&node->s->dirty, &node->in_dirty);
		redis_wake(node->s);
	}
	return true;
}

bool redis_node_send(struct redis_node *node, struct redis_request *q,
		     const struct redis_arg *args, size_t count)
{
	size_t bytes = node->out.len;

	for (size_t i = 0; i < count; i++)
		bytes += args[i].len;
	/* A single one goes whatever its size. */
	if (node->out.len > 0 && bytes > REDIS_OUT_MAX)
		return false;
	return queue(node, q, args, count);
}

struct word {
	struct redis_request request;
	void (*done)(struct redis_request *q, struct redis_node *node,
		     const struct redis_reply *reply, bool unsent);
};

static void on_word(struct redis_request *q, struct redis_node *node,
		    const struct redis_reply *reply, bool unsent)
{
	struct word *word = container_of(q, struct word, request);

	if (word->done != NULL)
		word->done(q, node, reply, unsent);
	free(word);
}

void redis_node_tell(struct redis_node *node,
		     void (*done)(struct redis_request *q,
				  struct redis_node *node,
				  const struct redis_reply *reply, bool unsent),
		     const struct redis_arg *args, size_t count)
{
	struct word *word = xcalloc(1, sizeof(*word));

	word->request.done = on_word;
	word->done = done;
	check(queue(node, &word->request, args, count));
}

static void on_wait(struct redis_request *q UNUSED, struct redis_node *node,
		    const struct redis_reply *reply, bool unsent UNUSED)
{
	struct list ops;
	bool enough;

	if (reply == NULL)
		return; /* end_requests() has told them */
	enough = reply->type == REDIS_REPLY_INTEGER && reply->integer >= 0 &&
		 (uint64_t)reply->integer >= node->s->store.config.replicas;
	list_init(&ops);
	list_splice_back(&ops, &node->unconfirmed);
	node->short_of_replicas = !enough;
	redis_slots_confirm(&ops, enough ? 0 : ERR_UNAVAILABLE);
	redis_update(node->s, NULL);
}

static void on_written(uv_write_t *write, int status)
{
	struct redis_link *link = write->data;

	link->write_pending = false;
	buf_clear(&link->writing, OUT_KEEP);
	if (link->node == NULL)
		return;
	if (status < 0) {
		redis_node_drop(link->node, uv_strerror(status));
		return;
	}
	redis_node_flush(link->node);
	/* There is room again for what waits in slots. */
	redis_slots_kick(link->s);
}

bool redis_link_write(struct redis_link *link)
{
	uv_buf_t rest = uv_buf_init((char *)link->writing.bytes,
				    (unsigned)link->writing.len);
	int rc;

	link->write.data = link;
	rc = uv_write(&link->write, (uv_stream_t *)&link->tcp, &rest, 1,
		      on_written);
	link->write_pending = rc == 0;
	if (rc < 0)
		redis_node_drop(link->node, uv_strerror(rc));
	return rc == 0;
}

/* Hands the rest of `out` to libuv, whole: what of it leaves is not known. */
static void write_rest(struct redis_node *node)
{
	struct redis_link *link = node->link;
	struct buf empty = link->writing;

	link->writing = node->out;
	node->out = empty;
	node->given = node->encoded;
	redis_link_write(link);
}

void redis_node_written(struct redis_node *node)
{
	buf_clear(&node->out, OUT_KEEP);
}

void redis_node_flush(struct redis_node *node)
{
	struct redis_store *s = node->s;
	struct redis_link *link = node->link;
	uv_buf_t bytes;
	int n;

	if (link == NULL || link->write_pending)
		return;
	if (node->state < REDIS_NODE_SETUP) {
		if (link->tls != NULL)
			redis_tls_flush(node); /* of the handshake */
		return;
	}
	if (node->wait_due) {
		const struct redis_arg wait[] = {
			redis_arg_text("WAIT"),
			redis_arg_text(s->replicas),
			redis_arg_text(s->wait_ms),
		};

		node->wait_due = false;
		if (s->store.config.replicas > 0)
			redis_node_tell(node, on_wait, wait, 3);
		metric_add(&s->store.metrics, SM_BATCHES, 0, 1);
	}
	if (link->tls != NULL) {
		redis_tls_flush(node);
		return;
	}
	if (node->out.len == 0)
		return;
	bytes = uv_buf_init((char *)node->out.bytes, (unsigned)node->out.len);
	n = uv_try_write((uv_stream_t *)&link->tcp, &bytes, 1);
	if (n < 0 && n != UV_EAGAIN) {
		redis_node_drop(node, uv_strerror(n));
		return;
	}
	if (n > 0)
		node->given += (uint64_t)n;
	if (n == (int)node->out.len) {
		redis_node_written(node);
		return;
	}
	if (n > 0)
		buf_consume(&node->out, (size_t)n);
	write_rest(node);
}

/* --- receiving ----------------------------------------------------------- */

static void on_reply(struct redis_node *node, const struct redis_reply *reply)
{
	struct list *at;
	const char *word;

	word = node->sentinel || node->watch ? redis_element_text(reply, 0)
					     : NULL;
	if (word != NULL && strcmp(word, "message") == 0) {
		if (node->watch)
			redis_watch_heard(node, reply);
		else
			redis_sentinel_heard(node, reply);
		return;
	}
	at = list_pop_front(&node->sent);
	if (at == NULL) {
		redis_node_doom(node, "an answer to no question");
		if (reply->type == REDIS_REPLY_ERROR &&
		    strstr(reply->text, "max number of clients") != NULL)
			node->doomed = "the server has too many clients";
		return;
	}
	struct redis_request *q =
		container_of(at, struct redis_request, in_node);

	q->done(q, node, reply, false);
}

/* Handles what the parser has whole. The link may be detached by it. */
static void read_replies(struct redis_link *link)
{
	while (link->node != NULL) {
		void *reply = NULL;

		if (redisReaderGetReply(link->reader, &reply) != REDIS_OK) {
			redis_node_drop(link->node,
					link->reader->err == REDIS_ERR_OOM
						? "an answer larger than "
						  "the limit"
						: "an answer that is no "
						  "Redis protocol");
			return;
		}
		if (reply == NULL)
			break;
		on_reply(link->node, reply);
		arena_reset(&link->arena);
		if (link->node != NULL && link->node->doomed != NULL)
			redis_node_drop(link->node, link->node->doomed);
	}
	if (link->node != NULL &&
	    link->reader->len - link->reader->pos > REDIS_REPLY_MAX)
		redis_node_drop(link->node, "an answer larger than the limit");
}

void redis_link_input(struct redis_link *link, const char *bytes, size_t len)
{
	link->heard = true;
	if (redisReaderFeed(link->reader, bytes, len) != REDIS_OK) {
		redis_node_drop(link->node, "no memory for its answer");
		return;
	}
	read_replies(link);
}

static void on_alloc(uv_handle_t *handle, size_t suggested UNUSED,
		     uv_buf_t *out)
{
	struct redis_link *link = handle->data;

	*out = uv_buf_init(link->s->inbox, sizeof(link->s->inbox));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *bytes)
{
	struct redis_link *link = stream->data;

	if (link->node == NULL || n == 0)
		return;
	if (n < 0) {
		redis_node_drop(link->node, redis_tls_end(link, (int)n));
		return;
	}
	link->node->heard_ms = uv_now(link->s->store.loop);
	if (link->tls != NULL)
		redis_tls_input(link, bytes->base, (size_t)n);
	else
		redis_link_input(link, bytes->base, (size_t)n);
}

/* --- connecting ---------------------------------------------------------- */

/* What we sent and the other end's kernel has not taken in for so long breaks
 * the connection. */
static void limit_silence(struct redis_link *link)
{
	unsigned ms = (unsigned)min_of(link->s->store.config.timeout_ms,
				       (uint64_t)INT_MAX);
	uv_os_fd_t fd;

	if (uv_fileno((uv_handle_t *)&link->tcp, &fd) == 0 &&
	    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &ms, sizeof(ms)) != 0)
		log_warn("STORE-REDIS-SOCKET", "option=TCP_USER_TIMEOUT");
}

void redis_node_connected(struct redis_node *node)
{
	node->state = REDIS_NODE_SETUP;
	node->since_ms = uv_now(node->s->store.loop);
	if (node->sentinel)
		redis_sentinel_begin(node);
	else if (node->watch)
		redis_watch_begin(node);
	else
		redis_setup_begin(node);
}

static void on_connected(uv_connect_t *connect, int status)
{
	struct redis_link *link = connect->data;
	struct redis_node *node = link->node;
	int rc = status;

	if (node == NULL)
		return;
	if (rc == 0)
		rc = uv_read_start((uv_stream_t *)&link->tcp, on_alloc,
				   on_read);
	if (rc < 0) {
		redis_node_drop(node, uv_strerror(rc));
		return;
	}
	uv_tcp_nodelay(&link->tcp, 1);
	uv_tcp_keepalive(&link->tcp, 1, 15);
	limit_silence(link);
	if (link->s->tls != NULL)
		redis_tls_begin(link);
	else
		redis_node_connected(node);
}

static void link_connect(struct redis_link *link, const struct sockaddr *to)
{
	int rc = uv_tcp_init(link->s->store.loop, &link->tcp);

	if (rc == 0) {
		link->tcp_open = true;
		link->tcp.data = link;
		link->connect.data = link;
		rc = uv_tcp_connect(&link->connect, &link->tcp, to,
				    on_connected);
	}
	if (rc < 0)
		redis_node_drop(link->node, uv_strerror(rc));
}

/* Each attempt takes the next of a name's addresses. */
static const struct sockaddr *choose(const struct addrinfo *found,
				     unsigned attempt)
{
	unsigned count = 0;

	for (const struct addrinfo *at = found; at != NULL; at = at->ai_next)
		count++;
	check(count > 0);
	attempt %= count;
	while (attempt-- > 0)
		found = found->ai_next;
	return found->ai_addr;
}

static void on_resolved(uv_getaddrinfo_t *resolve, int status,
			struct addrinfo *found)
{
	struct redis_link *link = resolve->data;

	link->resolving = false;
	if (link->node == NULL)
		link_free(link);
	else if (status < 0)
		redis_node_drop(link->node, uv_strerror(status));
	else
		link_connect(link, choose(found, link->node->failures));
	uv_freeaddrinfo(found);
}

static void node_connect(struct redis_node *node, uint64_t now_ms)
{
	const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
	struct redis_link *link = xcalloc(1, sizeof(*link));
	struct sockaddr_storage to;
	char port[8];
	int rc;

	link->s = node->s;
	link->node = node;
	arena_init(&link->arena, REDIS_REPLY_MAX);
	link->reader = redis_reader_new(&link->arena);
	buf_init(&link->writing, SIZE_MAX / 4);
	node->link = link;
	node->state = REDIS_NODE_CONNECTING;
	node->since_ms = now_ms;
	node->s->handles++;
	if (uv_ip4_addr(node->address.host, node->address.port,
			(struct sockaddr_in *)&to) == 0 ||
	    uv_ip6_addr(node->address.host, node->address.port,
			(struct sockaddr_in6 *)&to) == 0) {
		link_connect(link, (struct sockaddr *)&to);
		return;
	}
	snprintf(port, sizeof(port), "%u", node->address.port);
	link->resolve.data = link;
	rc = uv_getaddrinfo(node->s->store.loop, &link->resolve, on_resolved,
			    node->address.host, port, &hints);
	link->resolving = rc == 0;
	if (rc < 0)
		redis_node_drop(node, uv_strerror(rc));
}

void redis_node_ready(struct redis_node *node)
{
	struct redis_store *s = node->s;

	node->state = REDIS_NODE_READY;
	if (node->was_ready_once && !node->watch)
		metric_add(&s->store.metrics, SM_RECONNECTS, 0, 1);
	node->was_ready = node->was_ready_once = true;
	node->failures = 0;
	node->fault[0] = 0;
	node->stale_client = 0;
	node->probe_at_ms = uv_now(s->store.loop) + REDIS_PROBE_MS;
	log_info("STORE-REDIS-READY", "server=\"%s\"", node->name);
}

static void node_silent(struct redis_node *node)
{
	snprintf(node->fault, sizeof(node->fault),
		 "%.120s: it does not answer in time", node->name);
	log_warn("STORE-REDIS-SILENT", "server=\"%s\"", node->name);
	node->state = REDIS_NODE_SILENT;
	if (!node->probing) {
		node->probing = true;
		redis_setup_probe(node);
	}
	redis_suspect(node->s);
	redis_update(node->s, node->fault);
}

void redis_node_awake(struct redis_node *node)
{
	if (node->state != REDIS_NODE_SILENT)
		return;
	node->state = REDIS_NODE_READY;
	node->fault[0] = 0;
	log_info("STORE-REDIS-READY", "server=\"%s\"", node->name);
	redis_slots_kick(node->s);
}

/* It has said nothing for longer than it may. */
static void node_overdue(struct redis_node *node, uint64_t silent_ms)
{
	const struct redis_store *s = node->s;
	/* Another server has its place: nothing is to wait for it. */
	bool replaced = s->mode == REDIS_CLUSTER && node->slots == 0;

	if (silent_ms > 2 * s->store.config.timeout_ms || replaced ||
	    !redis_slots_await(node))
		redis_node_drop(node, "it does not answer in time");
	else if (node->state == REDIS_NODE_READY)
		node_silent(node);
}

void redis_node_tick(struct redis_node *node, uint64_t now_ms)
{
	uint64_t timeout = node->s->store.config.timeout_ms;

	switch (node->state) {
	case REDIS_NODE_WAITING:
		if (now_ms >= node->retry_at_ms)
			node_connect(node, now_ms);
		return;
	case REDIS_NODE_CONNECTING:
	case REDIS_NODE_SETUP:
		if (now_ms - node->since_ms > timeout)
			redis_node_drop(node, redis_tls_late(node->link));
		return;
	case REDIS_NODE_SILENT:
	case REDIS_NODE_READY:
		break;
	}
	if (!list_empty(&node->sent) && now_ms - node->heard_ms > timeout) {
		node_overdue(node, now_ms - node->heard_ms);
		return;
	}
	if (now_ms >= node->probe_at_ms && !node->probing) {
		node->probing = true;
		node->probe_at_ms = now_ms + (node->s->store.state.up
						      ? REDIS_PROBE_MS
						      : REDIS_PROBE_DOWN_MS);
		redis_setup_probe(node);
	}
}

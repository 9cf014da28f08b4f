/* Who is master, told by Sentinels.
 *
 * One Sentinel at a time is asked for the master's address and then listened to
 * (+switch-master). When its connection breaks, when it does not know the name,
 * or when the master it named does not do, the next one is asked. The master is
 * the store's only node; a new one takes the old one's place, whose requests
 * under way end without an answer. Which fail-over it is the master of is asked
 * for with it, and anew when one is heard of (redis_script.c). That the server
 * is a master indeed is seen when it is connected to (INFO), and by every
 * probe. */
#include "common/base/log.h"
#include "dispatcher/store/redis_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void set_master(struct redis_store *s, const char *host,
		       const char *port_text)
{
	unsigned long port = strtoul(port_text, NULL, 10);
	struct redis_node *master;
	struct redis_address address;

	if (port == 0 || port > UINT16_MAX || host[0] == 0 ||
	    strlen(host) >= sizeof(address.host))
		return;
	memset(&address, 0, sizeof(address));
	snprintf(address.host, sizeof(address.host), "%s", host);
	address.port = (uint16_t)port;
	if (!list_empty(&s->nodes)) {
		master = container_of(s->nodes.next, struct redis_node,
				      in_nodes);
		if (redis_node_is(master, &address))
			return;
		s->node_count--;
		redis_node_free(master);
		metric_add(&s->store.metrics, SM_HISTORIES, 0, 1);
	}
	master = redis_cluster_node(s, &address);
	log_info("STORE-REDIS-MASTER", "server=%s", master->name);
}

static void on_master(struct redis_request *q UNUSED, struct redis_node *node,
		      const struct redis_reply *reply, bool unsent UNUSED)
{
	const char *host, *port;

	if (reply == NULL || node->s->store.closing)
		return;
	host = redis_element_text(reply, 0);
	port = redis_element_text(reply, 1);
	if (host == NULL || port == NULL) {
		redis_node_doom(node, reply->type == REDIS_REPLY_ERROR
					      ? "the Sentinel refuses to answer"
					      : "the Sentinel does not know "
						"the master's name");
		return;
	}
	set_master(node->s, host, port);
}

/* "name", "the-master", "ip", "127.0.0.1", ... */
static void on_term(struct redis_request *q UNUSED, struct redis_node *node,
		    const struct redis_reply *reply, bool unsent UNUSED)
{
	for (size_t i = 0; reply != NULL && i + 1 < reply->count; i += 2) {
		const char *name = redis_element_text(reply, i);
		const char *value = redis_element_text(reply, i + 1);

		if (name != NULL && value != NULL &&
		    strcmp(name, "config-epoch") == 0)
			node->s->term = strtoull(value, NULL, 10);
	}
}

static void on_subscribed(struct redis_request *q UNUSED,
			  struct redis_node *node,
			  const struct redis_reply *reply, bool unsent UNUSED)
{
	if (reply == NULL || node->doomed != NULL)
		return;
	if (reply->type != REDIS_REPLY_ARRAY)
		redis_node_doom(node, "the Sentinel refuses a subscription");
	else
		redis_node_ready(node);
}

void redis_sentinel_begin(struct redis_node *node)
{
	const struct redis_arg who[] = {
		redis_arg_text("SENTINEL"),
		redis_arg_text("get-master-addr-by-name"),
		redis_arg_text(node->s->url.sentinel),
	};
	const struct redis_arg term[] = {
		redis_arg_text("SENTINEL"),
		redis_arg_text("MASTER"),
		redis_arg_text(node->s->url.sentinel),
	};
	const struct redis_arg listen[] = {
		redis_arg_text("SUBSCRIBE"),
		redis_arg_text("+switch-master"),
	};

	redis_setup_begin(node);
	/* Once it is listened to it takes no questions any more. */
	redis_node_tell(node, on_term, term, array_len(term));
	redis_node_tell(node, on_master, who, 3);
	redis_node_tell(node, on_subscribed, listen, 2);
}

/* ["message", channel, "name old-ip old-port new-ip new-port"] */
void redis_sentinel_heard(struct redis_node *node,
			  const struct redis_reply *reply)
{
	char name[128], host[REDIS_HOST_SIZE], port[8];
	const char *text = redis_element_text(reply, 2);

	if (text == NULL ||
	    sscanf(text, "%127s %*s %*s %255s %7s", name, host, port) != 3)
		return;
	if (strcmp(name, node->s->url.sentinel) != 0)
		return;
	set_master(node->s, host, port);
	node->s->refresh_turn--; /* the same one, for the term */
	redis_node_leave(node);
}

static void next_sentinel(struct redis_store *s)
{
	struct redis_url *url = &s->url;

	s->sentinel->address = url->addresses[s->refresh_turn++ % url->count];
	snprintf(s->sentinel->name, sizeof(s->sentinel->name),
		 "sentinel %.200s:%u", s->sentinel->address.host,
		 s->sentinel->address.port);
}

void redis_sentinel_open(struct redis_store *s)
{
	s->mode = REDIS_SENTINEL;
	s->sentinel = redis_node_new(s, &s->url.addresses[0]);
	s->sentinel->sentinel = true;
	next_sentinel(s);
}

void redis_sentinel_lost(struct redis_store *s)
{
	if (!s->store.closing)
		next_sentinel(s);
}

/* While the master is not ready, or was doubted, the next one is asked. */
void redis_sentinel_tick(struct redis_store *s, uint64_t now_ms)
{
	const struct redis_node *master = NULL;

	redis_node_tick(s->sentinel, now_ms);
	if (!list_empty(&s->nodes))
		master = container_of(s->nodes.next, struct redis_node,
				      in_nodes);
	if (s->sentinel->state != REDIS_NODE_READY ||
	    now_ms < s->refresh_at_ms ||
	    now_ms - s->sentinel->since_ms < REDIS_REFRESH_MS ||
	    (!s->refresh_due && master != NULL &&
	     master->state == REDIS_NODE_READY))
		return;
	s->refresh_due = false;
	s->refresh_at_ms = now_ms + REDIS_REFRESH_MS;
	redis_node_leave(s->sentinel);
}

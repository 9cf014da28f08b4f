/* The nodes and, in a Cluster, who is master of which slot.
 *
 * The map is asked for (CLUSTER SLOTS) from any node that is ready, in turn:
 * when a node comes up, is lost, redirects us or says that the cluster is down;
 * not more often than every REDIS_REFRESH_MS. While a slot has no master that
 * is ready, every REDIS_REFRESH_MS again. */
#include "common/base/hash.h"
#include "common/base/log.h"
#include "dispatcher/store/redis_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- slots ---------------------------------------------------------------- */

/* CRC16 as Redis Cluster takes it (XMODEM: polynomial 0x1021, from 0), four
 * bits at a time. */
static uint16_t crc16(const char *bytes)
{
	static const uint16_t table[16] = {
		0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
		0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef,
	};
	unsigned crc = 0;

	for (; *bytes != 0; bytes++) {
		unsigned byte = (unsigned char)*bytes;

		crc = (crc << 4) ^ table[(crc >> 12 ^ byte >> 4) & 15];
		crc = (crc << 4) ^ table[(crc >> 12 ^ byte) & 15];
	}
	return (uint16_t)crc;
}

uint16_t redis_slot(const char *channel)
{
	return crc16(channel) % REDIS_SLOTS;
}

/* --- nodes ---------------------------------------------------------------- */

struct redis_node *redis_cluster_node(struct redis_store *s,
				      const struct redis_address *address)
{
	struct redis_node *node;

	list_for_each (at, &s->nodes) {
		node = container_of(at, struct redis_node, in_nodes);
		if (redis_node_is(node, address))
			return node;
	}
	if (s->node_count == REDIS_NODES_MAX)
		return NULL;
	s->node_count++;
	node = redis_node_new(s, address);
	list_push_back(&s->nodes, &node->in_nodes);
	return node;
}

/* "host:port"; an empty host is the one that `from` was reached at. */
static bool read_address(const struct redis_node *from, const char *text,
			 struct redis_address *out)
{
	const char *colon = strrchr(text, ':');
	unsigned long port;

	if (colon == NULL || (size_t)(colon - text) >= sizeof(out->host))
		return false;
	port = strtoul(colon + 1, NULL, 10);
	if (port == 0 || port > UINT16_MAX)
		return false;
	out->port = (uint16_t)port;
	snprintf(out->host, sizeof(out->host), "%.*s", (int)(colon - text),
		 text);
	if (out->host[0] == 0 || strcmp(out->host, "?") == 0)
		snprintf(out->host, sizeof(out->host), "%s",
			 from->address.host);
	return true;
}

bool redis_cluster_target(const struct redis_node *from, const char *text,
			  struct redis_address *out)
{
	const char *slot = strchr(text, ' ');
	const char *address = slot != NULL ? strchr(slot + 1, ' ') : NULL;

	return address != NULL && read_address(from, address + 1, out);
}

/* --- the map -------------------------------------------------------------- */

static const struct redis_reply *element(const struct redis_reply *reply,
					 size_t i)
{
	return reply != NULL && reply->type == REDIS_REPLY_ARRAY &&
			       i < reply->count
		       ? reply->elements[i]
		       : NULL;
}

static bool is_slot(const struct redis_reply *reply)
{
	return reply != NULL && reply->type == REDIS_REPLY_INTEGER &&
	       reply->integer >= 0 && reply->integer < REDIS_SLOTS;
}

/* The master of a range: [ip, port, id, ...]. */
static struct redis_node *range_master(struct redis_node *from,
				       const struct redis_reply *range)
{
	const struct redis_reply *master = element(range, 2);
	const struct redis_reply *port = element(master, 1);
	const char *host = redis_element_text(master, 0);
	struct redis_address address;

	if (port == NULL || port->type != REDIS_REPLY_INTEGER ||
	    port->integer < 1 || port->integer > UINT16_MAX)
		return NULL;
	if (host == NULL || host[0] == 0 || strcmp(host, "?") == 0)
		host = from->address.host;
	if (strlen(host) >= sizeof(address.host))
		return NULL;
	snprintf(address.host, sizeof(address.host), "%s", host);
	address.port = (uint16_t)port->integer;
	return redis_cluster_node(from->s, &address);
}

/* Nodes that are master of nothing and stand in no URL go. Not the one that
 * has just answered, whose connection is in use, nor a new one: a slot may be
 * on its way to it. */
static void forget_nodes(struct redis_store *s, const struct redis_node *from)
{
	list_for_each_safe (at, &s->nodes) {
		struct redis_node *node =
			container_of(at, struct redis_node, in_nodes);

		if (node->slots > 0 || node->seed || node == from ||
		    uv_now(s->store.loop) - node->born_ms < REDIS_NODE_KEEP_MS)
			continue;
		s->node_count--;
		redis_node_free(node);
	}
}

static void on_map(struct redis_request *q UNUSED, struct redis_node *node,
		   const struct redis_reply *reply, bool unsent UNUSED)
{
	struct redis_store *s = node->s;
	unsigned covered = 0;
	bool taken_over = false;

	s->refreshing = false;
	if (reply == NULL || s->store.closing)
		return;
	for (size_t i = 0; i < reply->count; i++) {
		const struct redis_reply *range = element(reply, i);
		const struct redis_reply *first = element(range, 0);
		const struct redis_reply *last = element(range, 1);
		struct redis_node *master = range_master(node, range);

		if (!is_slot(first) || !is_slot(last) || master == NULL)
			continue;
		for (long long n = first->integer; n <= last->integer; n++) {
			const struct redis_node *was = s->slots[n].master;

			taken_over |= was != NULL && was != master;
			redis_slot_assign(s, (unsigned)n, master);
		}
		covered += (unsigned)(last->integer - first->integer + 1);
	}
	if (covered < REDIS_SLOTS) {
		redis_update(s, "the Cluster does not cover all slots");
		s->refresh_due = true;
	}
	forget_nodes(s, node);
	metric_add(&s->store.metrics, SM_HISTORIES, 0, taken_over);
	redis_slots_kick(s);
	redis_update(s, NULL);
}

void redis_suspect(struct redis_store *s)
{
	s->refresh_due = true;
}

static bool master_is_missing(const struct redis_store *s)
{
	list_for_each (at, &s->nodes) {
		const struct redis_node *node =
			container_of(at, struct redis_node, in_nodes);

		if (node->slots > 0 && node->state != REDIS_NODE_READY)
			return true;
	}
	return false;
}

struct redis_node *redis_ready_node(struct redis_store *s, unsigned turn)
{
	unsigned ready = 0;

	list_for_each (at, &s->nodes)
		ready += container_of(at, struct redis_node, in_nodes)->state ==
			 REDIS_NODE_READY;
	if (!ready)
		return NULL;
	turn %= ready;
	list_for_each (at, &s->nodes) {
		struct redis_node *node =
			container_of(at, struct redis_node, in_nodes);

		if (node->state == REDIS_NODE_READY && turn-- == 0)
			return node;
	}
	return NULL;
}

void redis_cluster_tick(struct redis_store *s, uint64_t now_ms)
{
	const struct redis_arg slots[] = {
		redis_arg_text("CLUSTER"),
		redis_arg_text("SLOTS"),
	};
	struct redis_node *node;

	if (s->mode != REDIS_CLUSTER || s->refreshing ||
	    now_ms < s->refresh_at_ms ||
	    !(s->refresh_due || master_is_missing(s)))
		return;
	node = redis_ready_node(s, s->refresh_turn++);
	if (node == NULL)
		return;
	s->refresh_due = false;
	s->refreshing = true;
	s->refresh_at_ms = now_ms + REDIS_REFRESH_MS;
	redis_node_tell(node, on_map, slots, 2);
}

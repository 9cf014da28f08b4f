/* Whether a restart of the server may lose anything.
 *
 * A single server with `appendonly yes` and `appendfsync always` has lost
 * nothing when it comes back, so its logs go on in their epoch. What they are
 * counted by (redis_script.c) is then a number in its data, REDIS_DURABLE_KEY:
 * made where a dispatcher first finds it so set, and taken away by the first
 * that finds it otherwise, or that finds the data behind what was answered.
 * From then on all that was counted by it is suspect. The scripts look at the
 * key themselves, so one dispatcher decides for all at once. They don't use it
 * either where the server was made a master in this run: its data may have been
 * another's.
 *
 * What is left: settings that are changed, or an older copy of the data that is
 * put back, and an end of the server within REDIS_PROBE_MS of that, are seen
 * only by what was last appended to (is_behind), and by a dispatcher that
 * lives; else by what workers know (store_tops).
 */
#include "common/base/hash.h"
#include "common/base/log.h"
#include "dispatcher/store/redis_internal.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- settings ------------------------------------------------------------- */

/* "a", "1", "b", "2": what CONFIG GET says of one. "" if nothing. */
static const char *setting(const struct redis_reply *reply, const char *name)
{
	for (size_t i = 0; i + 1 < reply->count; i += 2) {
		const char *at = redis_element_text(reply, i);
		const char *value = redis_element_text(reply, i + 1);

		if (at != NULL && value != NULL && strcmp(at, name) == 0)
			return value;
	}
	return "";
}

/* With Sentinels, or in a Cluster, another server may come back in its place.
 */
static bool is_single(const struct redis_node *node)
{
	return !node->server.cluster && node->s->url.sentinel[0] == 0;
}

/* All that it has answered is on its disk. A rewrite of the AOF may suspend
 * that. */
static bool is_durable(const struct redis_node *node,
		       const struct redis_reply *settings)
{
	return is_single(node) && node->server.aof &&
	       strcmp(setting(settings, "appendfsync"), "always") == 0 &&
	       strcmp(setting(settings, "no-appendfsync-on-rewrite"), "no") ==
		       0;
}

static void warn_of_nodes(const struct redis_node *node,
			  const struct redis_reply *settings)
{
	unsigned long bytes =
		strtoul(setting(settings, "stream-node-max-bytes"), NULL, 10);

	if (bytes > REDIS_STREAM_NODE_BYTES)
		log_warn("STORE-REDIS-NODES",
			 "server=%s stream-node-max-bytes=%lu each channel "
			 "takes more than 4 KiB of its memory; with 512 about "
			 "1 KiB",
			 node->name, bytes);
}

/* --- what is in the data -------------------------------------------------- */

static void forget_key(struct redis_node *node)
{
	const struct redis_arg del[] = {
		redis_arg_text("DEL"),
		redis_arg_text(REDIS_DURABLE_KEY),
	};

	node->durable[0] = 0;
	redis_node_tell(node, NULL, del, array_len(del));
}

static void on_key(struct redis_request *q UNUSED, struct redis_node *node,
		   const struct redis_reply *reply, bool unsent UNUSED)
{
	if (reply != NULL && reply->type == REDIS_REPLY_STRING &&
	    reply->len < sizeof(node->durable))
		memcpy(node->durable, reply->text, reply->len + 1);
	else
		node->durable[0] = 0;
}

static void ask_key(struct redis_node *node)
{
	char value[REDIS_NUMBER_SIZE];
	const struct redis_arg set[] = {
		redis_arg_text("SET"),
		redis_arg_text(REDIS_DURABLE_KEY),
		{value, (size_t)snprintf(value, sizeof(value), "%" PRIu64,
					 random_nonzero())},
		redis_arg_text("NX"),
	};
	const struct redis_arg get[] = {
		redis_arg_text("GET"),
		redis_arg_text(REDIS_DURABLE_KEY),
	};

	redis_node_tell(node, NULL, set, array_len(set));
	redis_node_tell(node, on_key, get, array_len(get));
}

/* --- what was last appended to -------------------------------------------- */

/* epoch, top and eras of the log: as redis_script.c writes them. What is not
 * there, or is no number, was lost. */
static bool is_behind(const struct redis_reply *reply, struct store_place last)
{
	const char *eras = redis_element_text(reply, 2);
	uint64_t epoch, top, began, present;

	if (!redis_element_number(reply, 0, &epoch) ||
	    !redis_element_number(reply, 1, &top))
		return true;
	if (redis_number(&eras, &began) && redis_number(&eras, &present) &&
	    began == epoch)
		epoch = present;
	return epoch < last.epoch || (epoch == last.epoch && top < last.offset);
}

static void on_last(struct redis_request *q UNUSED, struct redis_node *node,
		    const struct redis_reply *reply, bool unsent UNUSED)
{
	struct redis_store *s = node->s;

	if (reply == NULL || reply->type != REDIS_REPLY_ARRAY ||
	    !is_behind(reply, s->last))
		return;
	log_warn("STORE-REDIS-BEHIND",
		 "server=%s channel=%s it has lost what it had answered",
		 node->name, s->last_channel);
	s->last_channel[0] = 0;
	node->behind = true;
}

static void ask_last(struct redis_node *node)
{
	char key[REDIS_KEY_SIZE];
	const struct redis_arg get[] = {
		redis_arg_text("HMGET"),
		redis_key(key, node->s->last_channel, "meta", ""),
		redis_arg_text("epoch"),
		redis_arg_text("top"),
		redis_arg_text("eras"),
	};

	redis_node_tell(node, on_last, get, array_len(get));
}

/* --- both ----------------------------------------------------------------- */

void redis_durable_ask(struct redis_node *node,
		       void (*done)(struct redis_request *q,
				    struct redis_node *node,
				    const struct redis_reply *reply,
				    bool unsent))
{
	const struct redis_arg get[] = {
		redis_arg_text("CONFIG"),
		redis_arg_text("GET"),
		redis_arg_text("appendfsync"),
		redis_arg_text("no-appendfsync-on-rewrite"),
		redis_arg_text("stream-node-max-bytes"),
	};

	if (node->state == REDIS_NODE_READY &&
	    !(is_single(node) && node->settings_told))
		return;
	/* Only at the beginning: more is appended behind it later. */
	if (node->state == REDIS_NODE_SETUP && is_single(node) &&
	    node->s->last_channel[0] != 0)
		ask_last(node);
	redis_node_tell(node, done, get, array_len(get));
}

void redis_durable_take(struct redis_node *node,
			const struct redis_reply *settings)
{
	bool first = node->state == REDIS_NODE_SETUP;

	/* A probe asks for no more than it is let have. */
	node->settings_told = settings->type == REDIS_REPLY_ARRAY;
	if (!node->was_ready_once && first)
		warn_of_nodes(node, settings);
	if (!is_single(node))
		return;
	if (node->behind ||
	    (!is_durable(node, settings) && (first || node->durable[0] != 0)))
		forget_key(node);
	node->behind = false;
	if (is_durable(node, settings))
		ask_key(node);
}

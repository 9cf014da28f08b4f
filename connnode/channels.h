/* channels.h - who listens to what in this worker (pure).
 *
 * Channel names -> channels -> subscriptions. A channel exists while it has
 * subscribers or while the dispatchers still believe that it has (the
 * announcer forgets it once they have been told).
 *
 * A channel counts its messages, and a subscription knows the count at which it
 * began: a fan-out that takes several turns leaves out who came after.
 */
#ifndef STENTOR_CONNNODE_CHANNELS_H
#define STENTOR_CONNNODE_CHANNELS_H

#include "common/base/config.h"
#include "common/base/hash.h"
#include "common/ds/hmap.h"
#include "common/ds/list.h"

#include <stdbool.h>
#include <stdint.h>

struct session;
struct fanout_job;

struct channel {
	struct hmap_node by_name;
	struct list subscriptions; /* struct subscription.in_channel */
	uint32_t subscribers, json_subscribers; /* all; of format json */
	bool announced;		 /* the dispatchers are told that we want it */
	struct list unannounced; /* on the announcer's list of changes */
	uint64_t generation;	 /* of the announcement that carries it */
	const struct rule *rule; /* borrowed from the worker's rules */
	struct fanout_job *job;	 /* a fan-out under way, or NULL */
	uint64_t messages;	 /* delivered here so far */
	uint8_t name_len;
	char name[];
};

struct subscription {
	struct list in_channel;
	struct channel *channel;
	struct session *session;
	uint64_t since; /* channel->messages when it began */
	bool json;
};

struct channels {
	struct hmap by_name;
	struct hash_key key;
	const struct rules *rules;
	uint64_t subscriptions;
};

void channels_init(struct channels *c, const struct rules *rules);
/* Every channel must have been forgotten. */
void channels_fini(struct channels *c);

struct channel *channels_find(const struct channels *c, const char *name,
			      size_t len);
/* Finds or makes it, without subscribers. */
struct channel *channels_get(struct channels *c, const char *name, size_t len);
/* Frees a channel that has no subscriber, job or announcement. */
void channels_forget(struct channels *c, struct channel *ch);

/* True when it is the channel's first: the announcer must know. */
bool channels_subscribe(struct channels *c, struct channel *ch,
			struct subscription *s, struct session *session,
			bool json);
/* True when it was the channel's last. */
bool channels_unsubscribe(struct channels *c, struct subscription *s);

/* New rules: every channel finds its own anew. */
void channels_apply_rules(struct channels *c, const struct rules *rules);

#endif

/* channels.h - who listens to what in this worker (pure).
 *
 * Channel names -> channels -> subscriptions. A channel exists while it has
 * subscribers or while the dispatchers still believe that it has (the
 * announcer forgets it once they have been told).
 *
 * A channel counts its messages, and a subscription knows the count up to which
 * it has them: a fan-out that takes several turns leaves out who came after. A
 * reliable channel's count is the offset in its log (logs.h).
 *
 * What is reliable is said by the rules, but processes read new ones one after
 * another: a channel also has a log when a message with a position comes for it
 * or a client with a place, because others know more then (intake.h).
 *
 * The main door of channel/, which knows who listens to what, and where each
 * log is, but neither sockets nor links:
 *
 *	in	a subscription (channels_subscribe())
 *	in	a message: fanout_message(), or logs_deliver() if it has a
 *		position
 *	out	a frame for each subscriber (fanout_ops.push)
 *	out	what became of a log (logs_ops)
 *	out	questions to a dispatcher, and back (questions.h)
 */
#ifndef STENTOR_CONNNODE_CHANNEL_CHANNELS_H
#define STENTOR_CONNNODE_CHANNEL_CHANNELS_H

#include "common/base/config.h"
#include "common/base/hash.h"
#include "common/codec/place.h"
#include "common/ds/hmap.h"
#include "common/ds/list.h"

#include <stdbool.h>
#include <stdint.h>

struct session;
struct fanout_job;
struct log;
struct replay;

/* How a message is rendered for a subscription; its bits index frames. */
enum variant {
	VARIANT_JSON = 1,  /* or raw */
	VARIANT_ALONE = 2, /* the connection has no other channel: the `id:`
			    * is the same for all such, and in the frame */
};
#define VARIANTS 4

struct channel {
	struct hmap_node by_name;
	struct list subscriptions; /* struct subscription.in_channel */
	uint32_t subscribers;
	uint32_t variants[VARIANTS]; /* subscribers of each */
	bool announced;		 /* the dispatchers are told that we want it */
	struct list unannounced; /* on the announcer's list of changes */
	uint64_t generation;	 /* of the announcement that carries it */
	const struct rule *rule; /* borrowed from the worker's rules */
	bool was_reliable;	 /* by the rules before these */
	struct log *log;	 /* NULL: ephemeral */
	struct list pages;	 /* of its log, being replayed: pages.h */
	struct list unplaced;	 /* replays that wait for its log: replay.c */
	struct fanout_job *job;	 /* a fan-out under way, or NULL */
	/* Delivered here so far; or the log's place, as far as subscriptions
	 * have been told: its epoch (0: not known, or no log) and offset. */
	uint64_t epoch, messages;
	uint64_t since_ms;     /* its first subscriber came, wall clock */
	struct place log_left; /* of a log that was closed by new rules */
	uint32_t list_hash;    /* place_list_hash() of this channel alone */
	uint8_t name_len;
	char name[];
};

struct subscription {
	struct list in_channel;
	struct channel *channel;
	struct session *session;
	/* It has the channel's messages up to this one; SUBSCRIPTION_HELD while
	 * its replay (replay.h) has yet to bring it up to the live ones. */
	uint64_t at;
	struct replay *replay;
	uint8_t variant;
	bool moved; /* its place was in an earlier epoch of the log */
};
#define SUBSCRIPTION_HELD UINT64_MAX

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
			unsigned variant);
/* True when it was the channel's last. */
bool channels_unsubscribe(struct channels *c, struct subscription *s);

/* New rules: every channel finds its own anew. */
void channels_apply_rules(struct channels *c, const struct rules *rules);

#endif

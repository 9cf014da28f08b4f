#include "connnode/channel/render.h"

#include "common/codec/sse.h"

#include <stdio.h>
#include <string.h>

enum priority message_class(const LinkDelivery *d)
{
	if (d->priority < 1 || d->priority > PRIORITY_CLASSES)
		return PRIORITY_NORMAL;
	return (enum priority)(d->priority - 1);
}

uint64_t message_expires_us(const LinkDelivery *d)
{
	return d->ttl_ms != 0 ? d->published_us + d->ttl_ms * 1000ull : 0;
}

void render_position(char text[POSITION_JSON_SIZE], const struct place *place)
{
	snprintf(text, POSITION_JSON_SIZE,
		 "{\"epoch\":\"%llu\",\"offset\":\"%llu\"}",
		 (unsigned long long)place->epoch,
		 (unsigned long long)place->offset);
}

/* The same for equal keys of one channel, and for hardly anything else. */
static uint64_t conflation(const struct channels *c, const struct channel *ch,
			   const char *key)
{
	struct hash_key keyed = c->key;

	if (key[0] == '\0')
		return 0;
	keyed.k0 ^= ch->by_name.hash;
	return hash_bytes(&keyed, key, strlen(key)) | 1;
}

/* A slow reader may miss it: by the rule, and, unless it asked for that, never
 * a message that has a position. */
static bool droppable(const struct rule *rule, bool reliable)
{
	return rule->lagging == LAGGING_DROP_OLDEST ||
	       (rule->lagging == LAGGING_CONFLATE && !reliable);
}

struct frame *render_message(const struct channels *c, const struct channel *ch,
			     const LinkDelivery *d, unsigned variant)
{
	struct place place = {d->epoch, d->offset};
	struct sse_event e = {
		.event = d->event,
		.data = (const char *)d->data.data,
		.data_len = d->data.len,
	};
	char id[PLACE_ID_SIZE(1)], position[POSITION_JSON_SIZE];
	bool reliable = d->offset != 0;
	struct frame *f;

	if (reliable && variant & VARIANT_ALONE) {
		place_encode(id, ch->list_hash, &place, 1);
		e.id = id;
	}
	if (variant & VARIANT_JSON) {
		render_position(position, &place);
		f = sse_render_json(&e, ch->name, reliable ? position : NULL);
	} else {
		f = sse_render(&e);
	}
	f->accepted_us = d->published_us != 0 ? d->published_us : 1;
	f->expires_us = message_expires_us(d);
	f->epoch = d->epoch;
	f->offset = d->offset;
	f->conflation = conflation(c, ch, d->conflation_key);
	f->channel = ch;
	f->class = (uint8_t)message_class(d);
	f->droppable = droppable(ch->rule, reliable);
	return f;
}

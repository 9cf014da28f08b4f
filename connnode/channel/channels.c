#include "connnode/channel/channels.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

void channels_init(struct channels *c, const struct rules *rules)
{
	*c = (struct channels){.key = hash_key_random(), .rules = rules};
	hmap_init(&c->by_name);
}

void channels_fini(struct channels *c)
{
	check(c->by_name.count == 0);
	check(c->subscriptions == 0);
	hmap_fini(&c->by_name);
}

static struct channel *find(const struct channels *c, const char *name,
			    size_t len, uint64_t hash)
{
	hmap_for_each_hash (node, &c->by_name, hash) {
		struct channel *ch =
			container_of(node, struct channel, by_name);

		if (ch->name_len == len && memcmp(ch->name, name, len) == 0)
			return ch;
	}
	return NULL;
}

struct channel *channels_find(const struct channels *c, const char *name,
			      size_t len)
{
	return find(c, name, len, hash_bytes(&c->key, name, len));
}

struct channel *channels_get(struct channels *c, const char *name, size_t len)
{
	uint64_t hash = hash_bytes(&c->key, name, len);
	struct channel *ch = find(c, name, len, hash);

	if (ch != NULL)
		return ch;
	check(len <= UINT8_MAX);
	ch = xmalloc(sizeof(*ch) + len + 1);
	*ch = (struct channel){.name_len = (uint8_t)len};
	memcpy(ch->name, name, len);
	ch->name[len] = '\0';
	ch->rule = rules_match(c->rules, ch->name);
	list_init(&ch->subscriptions);
	list_init(&ch->unannounced);
	list_init(&ch->pages);
	list_init(&ch->unplaced);
	ch->list_hash = place_list_hash(&(const char *){ch->name}, 1);
	hmap_insert(&c->by_name, &ch->by_name, hash);
	return ch;
}

void channels_forget(struct channels *c, struct channel *ch)
{
	check(ch->subscribers == 0);
	check(ch->job == NULL);
	check(ch->log == NULL);
	check(!ch->announced);
	check(list_empty(&ch->unannounced));
	hmap_remove(&c->by_name, &ch->by_name);
	free(ch);
}

bool channels_subscribe(struct channels *c, struct channel *ch,
			struct subscription *s, struct session *session,
			unsigned variant)
{
	*s = (struct subscription){
		.channel = ch,
		.session = session,
		.at = ch->messages,
		.variant = (uint8_t)variant,
	};
	ch->variants[variant]++;
	list_push_back(&ch->subscriptions, &s->in_channel);
	c->subscriptions++;
	return ++ch->subscribers == 1;
}

bool channels_unsubscribe(struct channels *c, struct subscription *s)
{
	check(s->channel->subscribers > 0);
	list_remove(&s->in_channel);
	s->channel->variants[s->variant]--;
	c->subscriptions--;
	return --s->channel->subscribers == 0;
}

void channels_apply_rules(struct channels *c, const struct rules *rules)
{
	c->rules = rules;
	for (struct hmap_node *n = hmap_iterate(&c->by_name, NULL); n != NULL;
	     n = hmap_iterate(&c->by_name, n)) {
		struct channel *ch = container_of(n, struct channel, by_name);

		ch->was_reliable = rule_reliable(ch->rule);
		ch->rule = rules_match(rules, ch->name);
	}
}

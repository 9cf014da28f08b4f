/* Tokens in use by the sub and the jti that they say, so that a revocation
 * finds those it means without a look at all others: a node has tens of
 * thousands of streams, and revocations come by the thousand.
 *
 * Each sub and jti has one entry with a list of its tokens. (A hash map of the
 * tokens themselves would have all of one sub in one chain, and taking them out
 * one by one would be quadratic.) */
#include "common/io/auth_internal.h"

#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct named {
	struct token_index *index;
	struct hmap_node by_id;
	struct list tokens; /* indexed.in_sub or .in_jti */
	bool jti;
	char id[];
};

void index_init(struct token_index *ix)
{
	ix->key = hash_key_random();
	hmap_init(&ix->by_id);
	list_init(&ix->revoked);
}

/* A sub and a jti that read alike meet in one bucket and are told apart. */
static struct named *named_find(const struct token_index *ix, const char *id,
				bool jti, uint64_t hash)
{
	hmap_for_each_hash (node, &ix->by_id, hash) {
		struct named *n = container_of(node, struct named, by_id);

		if (n->jti == jti && strcmp(n->id, id) == 0)
			return n;
	}
	return NULL;
}

/* NULL for a token that does not say one. */
static struct named *named_join(struct token_index *ix, const char *id,
				bool jti, struct list *place)
{
	size_t len = strlen(id);
	uint64_t hash = hash_bytes(&ix->key, id, len);
	struct named *n;

	if (len == 0)
		return NULL;
	n = named_find(ix, id, jti, hash);
	if (n == NULL) {
		n = xmalloc(sizeof(*n) + len + 1);
		n->index = ix;
		n->jti = jti;
		memcpy(n->id, id, len + 1);
		list_init(&n->tokens);
		hmap_insert(&ix->by_id, &n->by_id, hash);
	}
	list_push_back(&n->tokens, place);
	return n;
}

/* A name without tokens is no more. */
static void named_tidy(struct named *n)
{
	if (!list_empty(&n->tokens))
		return;
	hmap_remove(&n->index->by_id, &n->by_id);
	free(n);
}

/* `kept` is let be, whose list the caller walks. */
static void named_leave(struct named **name, struct list *place,
			const struct named *kept)
{
	struct named *n = *name;

	*name = NULL;
	list_remove(place);
	if (n != NULL && n != kept)
		named_tidy(n);
}

static void index_take_out(struct checked *c, const struct named *kept)
{
	named_leave(&c->indexed.sub, &c->indexed.in_sub, kept);
	named_leave(&c->indexed.jti, &c->indexed.in_jti, kept);
}

void index_add(struct token_index *ix, struct checked *c)
{
	struct indexed *i = &c->indexed;

	list_init(&i->in_sub);
	list_init(&i->in_jti);
	list_init(&i->in_revoked);
	i->sub = named_join(ix, c->claims->sub, false, &i->in_sub);
	i->jti = named_join(ix, c->claims->jti, true, &i->in_jti);
}

void index_remove(struct checked *c)
{
	index_take_out(c, NULL);
	list_remove(&c->indexed.in_revoked);
}

static struct checked *token_of(const struct named *n, struct list *node)
{
	return n->jti ? container_of(node, struct checked, indexed.in_jti)
		      : container_of(node, struct checked, indexed.in_sub);
}

void index_fini(struct token_index *ix)
{
	struct hmap_node *node;

	while ((node = hmap_iterate(&ix->by_id, NULL)) != NULL) {
		struct named *n = container_of(node, struct named, by_id);

		/* The last one takes the name with it. */
		index_remove(token_of(n, n->tokens.next));
	}
	while (list_pop_front(&ix->revoked) != NULL)
		;
	hmap_fini(&ix->by_id);
}

void index_revoke(struct token_index *ix, const struct auth_revocation *r)
{
	bool jti = *r->jti != '\0';
	const char *id = jti ? r->jti : r->sub;
	struct named *n =
		named_find(ix, id, jti, hash_bytes(&ix->key, id, strlen(id)));

	if (n == NULL)
		return;
	list_for_each_safe (node, &n->tokens) {
		struct checked *c = token_of(n, node);

		/* One that does not say when it was made (0) is as old as any.
		 */
		if (!jti && c->claims->iat_s > r->before_s)
			continue;
		index_take_out(c, n);
		if (!list_empty(&c->token.users))
			list_push_back(&ix->revoked, &c->indexed.in_revoked);
	}
	named_tidy(n);
}

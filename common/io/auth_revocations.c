/* Tokens that are good no more though they have not ended: all of a subject up
 * to a moment, or one by its id.
 *
 * Two revocations of the same subject are one: the later moments of both count.
 * So whatever way they travel, all processes come to the same. */
#include "common/io/auth_internal.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct kept {
	struct auth_revocation r;
	struct hmap_node by_id;
	struct list in_age, in_news;
};

void revocations_init(struct revocations *r)
{
	r->key = hash_key_random();
	hmap_init(&r->by_id);
	list_init(&r->by_age);
	list_init(&r->news);
	r->forgot_s = 0;
}

static void forget(struct revocations *r, struct kept *k)
{
	hmap_remove(&r->by_id, &k->by_id);
	list_remove(&k->in_age);
	list_remove(&k->in_news);
	free(k);
}

void revocations_fini(struct revocations *r)
{
	list_for_each_safe (node, &r->by_age)
		forget(r, container_of(node, struct kept, in_age));
	hmap_fini(&r->by_id);
}

/* A sub and a jti that read alike meet in one bucket and are told apart. */
static uint64_t hash_id(const struct revocations *r, const char *id)
{
	return hash_bytes(&r->key, id, strlen(id));
}

/* One of sub and jti is "". */
static struct kept *find(const struct revocations *r, const char *sub,
			 const char *jti)
{
	uint64_t hash = hash_id(r, *sub != '\0' ? sub : jti);

	hmap_for_each_hash (node, &r->by_id, hash) {
		struct kept *k = container_of(node, struct kept, by_id);

		if (strcmp(k->r.sub, sub) == 0 && strcmp(k->r.jti, jti) == 0)
			return k;
	}
	return NULL;
}

/* True if it says more than what is known already. */
static bool widen(struct revocations *r, struct kept *k,
		  const struct auth_revocation *add)
{
	if (add->before_s <= k->r.before_s && add->until_s <= k->r.until_s)
		return false;
	k->r.before_s = max_of(k->r.before_s, add->before_s);
	k->r.until_s = max_of(k->r.until_s, add->until_s);
	list_remove(&k->in_age);
	list_remove(&k->in_news);
	list_push_back(&r->by_age, &k->in_age);
	list_push_back(&r->news, &k->in_news);
	return true;
}

int revocations_add(struct revocations *r, const struct auth_revocation *add,
		    uint64_t now_s, const struct auth_revocation **kept)
{
	struct kept *k;

	if ((*add->sub != '\0') == (*add->jti != '\0'))
		return ERR_MALFORMED;
	if (add->until_s < now_s)
		return ERR_STALE;
	k = find(r, add->sub, add->jti);
	if (k != NULL) {
		*kept = &k->r;
		return widen(r, k, add) ? 0 : ERR_EXISTS;
	}
	/* None ends within a second, so a flood over a full table looks for
	 * old ones once a second, not each time. */
	if (r->by_id.count >= AUTH_REVOCATIONS_MAX && r->forgot_s != now_s)
		revocations_forget(r, now_s);
	if (r->by_id.count >= AUTH_REVOCATIONS_MAX)
		return ERR_FULL;
	k = xcalloc(1, sizeof(*k));
	k->r = *add;
	hmap_insert(&r->by_id, &k->by_id,
		    hash_id(r, *add->sub != '\0' ? add->sub : add->jti));
	list_push_back(&r->by_age, &k->in_age);
	list_push_back(&r->news, &k->in_news);
	*kept = &k->r;
	return 0;
}

void revocations_forget(struct revocations *r, uint64_t now_s)
{
	r->forgot_s = now_s;
	list_for_each_safe (node, &r->by_age) {
		struct kept *k = container_of(node, struct kept, in_age);

		if (k->r.until_s < now_s)
			forget(r, k);
	}
}

bool revocations_mean(const struct revocations *r,
		      const struct token_claims *claims)
{
	const struct kept *k;

	if (r->by_id.count == 0)
		return false;
	if (*claims->jti != '\0' && find(r, "", claims->jti) != NULL)
		return true;
	k = *claims->sub != '\0' ? find(r, claims->sub, "") : NULL;
	/* One that does not say when it was made (0) is as old as any. */
	return k != NULL && claims->iat_s <= k->r.before_s;
}

const struct auth_revocation *
revocations_next(const struct revocations *r,
		 const struct auth_revocation *after)
{
	const struct list *node = &r->by_age;

	if (after != NULL)
		node = &container_of(after, struct kept, r)->in_age;
	if (node->next == &r->by_age)
		return NULL;
	return &container_of(node->next, struct kept, in_age)->r;
}

const struct auth_revocation *revocations_news(struct revocations *r)
{
	struct list *node = list_pop_front(&r->news);

	return node != NULL ? &container_of(node, struct kept, in_news)->r
			    : NULL;
}

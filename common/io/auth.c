/* Checking tokens: the cache of those that were good, the keys in force and
 * their exchange.
 *
 * The cache finds a token by one keyed hash and compares a second one of
 * another key: 128 bits that nobody can aim at, so the token itself need not
 * be kept. Keys that change take all that was checked with them out of the
 * cache; streams that stand keep their claims. */
#include "common/io/auth_internal.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct auth {
	uv_timer_t watch;
	struct auth_config config; /* our own */
	struct file_stamp stamps[AUTH_KEYS_MAX];
	struct token_keys *keys;

	struct hash_key find_key, compare_key;
	struct hmap by_hash; /* struct checked */
	struct list by_use;  /* the longest unused first */
	struct revocations revocations;
	struct token_index index;
	void (*on_revoked)(void *ctx, const struct auth_revocation *r);
	void *ctx;
	uint64_t faults[TOKEN_FAULTS];
};

static uint64_t now_s(void)
{
	return clock_wall_ms() / 1000;
}

/* --- configuration ----------------------------------------------------- */

static struct auth_config copy_config(const struct auth_config *from)
{
	struct auth_config to = {
		.issuer = xstrdup(from->issuer),
		.audience = xstrdup(from->audience),
		.leeway_s = from->leeway_s,
		.key = xcalloc(from->key_count, sizeof(*to.key)),
		.key_count = from->key_count,
	};

	check(from->key_count <= AUTH_KEYS_MAX);
	for (size_t i = 0; i < from->key_count; i++) {
		const struct auth_key *key = &from->key[i];

		to.key[i].kid = key->kid != NULL ? xstrdup(key->kid) : NULL;
		to.key[i].alg = key->alg;
		to.key[i].file = xstrdup(key->file);
	}
	return to;
}

/* --- cache ------------------------------------------------------------- */

static void release(struct checked *c)
{
	check(c->token.refs > 0);
	if (--c->token.refs > 0)
		return;
	index_remove(c);
	token_claims_free(c->claims);
	free(c);
}

static void cache_drop(struct auth *a, struct checked *c)
{
	hmap_remove(&a->by_hash, &c->by_hash);
	list_remove(&c->in_use);
	release(c);
}

static void cache_forget(struct auth *a, uint64_t ended_s)
{
	list_for_each_safe (node, &a->by_use) {
		struct checked *c = container_of(node, struct checked, in_use);

		if (c->claims->exp_s <= ended_s)
			cache_drop(a, c);
	}
}

static struct checked *cache_find(const struct auth *a, uint64_t hash,
				  uint64_t compare)
{
	hmap_for_each_hash (node, &a->by_hash, hash) {
		struct checked *c = container_of(node, struct checked, by_hash);

		if (c->compare == compare)
			return c;
	}
	return NULL;
}

/* Takes the claims. */
static struct checked *cache_add(struct auth *a, uint64_t hash,
				 uint64_t compare, struct token_claims *claims)
{
	struct checked *c = xcalloc(1, sizeof(*c));

	if (a->by_hash.count >= AUTH_CACHE_MAX)
		cache_drop(a, container_of(a->by_use.next, struct checked,
					   in_use));
	c->token.refs = 1;
	c->token.claims = c->claims = claims;
	list_init(&c->token.users);
	index_add(&a->index, c);
	c->compare = compare;
	hmap_insert(&a->by_hash, &c->by_hash, hash);
	list_push_back(&a->by_use, &c->in_use);
	return c;
}

/* --- keys that change -------------------------------------------------- */

/* Takes the keys. */
static void use_keys(struct auth *a, struct token_keys *keys)
{
	cache_forget(a, UINT64_MAX);
	token_keys_free(a->keys);
	a->keys = keys;
	log_info("AUTH-KEYS", "keys=%zu", token_keys_count(keys));
}

/* A faulty file has been looked at, so it is logged once and read again when
 * it has changed again. */
void auth_look(struct auth *a)
{
	char fault[AUTH_FAULT];
	struct token_keys *keys;

	cache_forget(a, now_s());
	revocations_forget(&a->revocations, now_s());
	if (!auth_keys_changed(&a->config, a->stamps))
		return;
	if (auth_keys_read(&a->config, a->stamps, &keys, fault) == 0)
		use_keys(a, keys);
	else
		log_error("AUTH-KEYS-FAULTY",
			  "why=\"%s\" what=\"the old keys stay\"", fault);
}

static void on_watch(uv_timer_t *timer)
{
	auth_look(container_of(timer, struct auth, watch));
}

/* --- public ------------------------------------------------------------ */

int auth_config_check(const struct auth_config *config, char fault[AUTH_FAULT])
{
	struct file_stamp stamps[AUTH_KEYS_MAX];
	struct token_keys *keys;
	int rc = auth_keys_read(config, stamps, &keys, fault);

	if (rc == 0)
		token_keys_free(keys);
	return rc;
}

int auth_start(uv_loop_t *loop, const struct auth_config *config,
	       void (*on_revoked)(void *ctx, const struct auth_revocation *r),
	       void *ctx, struct auth **out)
{
	struct auth *a = xcalloc(1, sizeof(*a));
	char fault[AUTH_FAULT];
	struct token_keys *keys;
	int rc = auth_keys_read(config, a->stamps, &keys, fault);

	if (rc != 0) {
		log_error("AUTH-KEYS-FAULTY", "why=\"%s\"", fault);
		free(a);
		return rc;
	}
	a->config = copy_config(config);
	a->find_key = hash_key_random();
	a->compare_key = hash_key_random();
	hmap_init(&a->by_hash);
	list_init(&a->by_use);
	revocations_init(&a->revocations);
	index_init(&a->index);
	a->on_revoked = on_revoked;
	a->ctx = ctx;
	use_keys(a, keys);
	check(uv_timer_init(loop, &a->watch) == 0);
	check(uv_timer_start(&a->watch, on_watch, AUTH_WATCH_MS,
			     AUTH_WATCH_MS) == 0);
	uv_unref((uv_handle_t *)&a->watch);
	*out = a;
	return 0;
}

static void on_watch_closed(uv_handle_t *handle)
{
	struct auth *a = container_of(handle, struct auth, watch);

	cache_forget(a, UINT64_MAX);
	hmap_fini(&a->by_hash);
	revocations_fini(&a->revocations);
	index_fini(&a->index);
	token_keys_free(a->keys);
	auth_config_free(&a->config);
	free(a);
}

void auth_close(struct auth *a)
{
	if (a != NULL)
		uv_close((uv_handle_t *)&a->watch, on_watch_closed);
}

void auth_reload(struct auth *a, const struct auth_config *config)
{
	struct file_stamp stamps[AUTH_KEYS_MAX];
	char fault[AUTH_FAULT];
	struct token_keys *keys;

	if (auth_keys_read(config, stamps, &keys, fault) != 0) {
		log_error("AUTH-KEYS-FAULTY",
			  "why=\"%s\" what=\"the old keys stay\"", fault);
		return;
	}
	auth_config_free(&a->config);
	a->config = copy_config(config);
	memcpy(a->stamps, stamps, config->key_count * sizeof(*stamps));
	use_keys(a, keys);
}

static enum token_fault find_or_check(struct auth *a, const char *token,
				      size_t len, struct checked **out)
{
	uint64_t hash = hash_bytes(&a->find_key, token, len);
	uint64_t compare = hash_bytes(&a->compare_key, token, len);
	struct token_claims *claims;
	enum token_fault fault;

	*out = cache_find(a, hash, compare);
	if (*out != NULL && (*out)->claims->exp_s <= now_s()) {
		cache_drop(a, *out);
		return TOKEN_EXPIRED;
	}
	if (*out != NULL) {
		list_remove(&(*out)->in_use);
		list_push_back(&a->by_use, &(*out)->in_use);
		return TOKEN_OK;
	}
	fault = token_check(a->keys, token, len, now_s(), &claims);
	if (fault == TOKEN_OK)
		*out = cache_add(a, hash, compare, claims);
	return fault;
}

enum token_fault auth_check(struct auth *a, const char *token, size_t len,
			    struct auth_token **out)
{
	enum token_fault fault = TOKEN_MALFORMED;
	struct checked *c = NULL;

	if (len <= TOKEN_BYTES_MAX)
		fault = find_or_check(a, token, len, &c);
	if (fault == TOKEN_OK && auth_revoked(a, c->claims)) {
		cache_drop(a, c);
		fault = TOKEN_REVOKED;
	}
	a->faults[fault]++;
	if (fault != TOKEN_OK)
		return fault;
	c->token.refs++;
	*out = &c->token;
	return TOKEN_OK;
}

void auth_token_release(struct auth *a UNUSED, struct auth_token *token)
{
	release(container_of(token, struct checked, token));
}

bool auth_remembers(const struct auth *a, const char *token, size_t len)
{
	return cache_find(a, hash_bytes(&a->find_key, token, len),
			  hash_bytes(&a->compare_key, token, len)) != NULL;
}

int auth_revoke(struct auth *a, const struct auth_revocation *r)
{
	const struct auth_revocation *kept;
	int rc = revocations_add(&a->revocations, r, now_s(), &kept);

	if (rc != 0)
		return rc;
	index_revoke(&a->index, kept);
	if (a->on_revoked != NULL)
		a->on_revoked(a->ctx, kept);
	return 0;
}

struct auth_token *auth_next_revoked(struct auth *a)
{
	while (!list_empty(&a->index.revoked)) {
		struct checked *c =
			container_of(a->index.revoked.next, struct checked,
				     indexed.in_revoked);

		if (!list_empty(&c->token.users))
			return &c->token;
		list_remove(&c->indexed.in_revoked);
	}
	return NULL;
}

const struct auth_revocation *auth_news_take(struct auth *a)
{
	return revocations_news(&a->revocations);
}

bool auth_has_news(const struct auth *a)
{
	return !list_empty(&a->revocations.news);
}

bool auth_revoked(const struct auth *a, const struct token_claims *claims)
{
	return revocations_mean(&a->revocations, claims);
}

const struct auth_revocation *
auth_revocation_next(const struct auth *a, const struct auth_revocation *after)
{
	return revocations_next(&a->revocations, after);
}

uint64_t auth_faults(const struct auth *a, enum token_fault fault)
{
	return a->faults[fault];
}

size_t auth_key_count(const struct auth *a)
{
	return token_keys_count(a->keys);
}

size_t auth_cached(const struct auth *a)
{
	return a->by_hash.count;
}

size_t auth_revocation_count(const struct auth *a)
{
	return a->revocations.by_id.count;
}

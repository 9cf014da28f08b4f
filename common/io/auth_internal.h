/* auth_internal.h - what the files of the auth module share. */
#ifndef STENTOR_IO_AUTH_INTERNAL_H
#define STENTOR_IO_AUTH_INTERNAL_H

#include "common/base/hash.h"
#include "common/ds/hmap.h"
#include "common/ds/list.h"
#include "common/io/auth.h"
#include "common/io/filestamp.h"

/* What is done every AUTH_WATCH_MS: forgets what has ended, takes other keys.
 */
void auth_look(struct auth *a);

/* --- key files (auth_keys.c) ------------------------------------------- */

/* Reads all keys. ERR_CONFIG with a text in `fault`; `stamps`, one for each key
 * of the configuration, are set all the same. */
int auth_keys_read(const struct auth_config *config, struct file_stamp *stamps,
		   struct token_keys **keys, char fault[AUTH_FAULT]) MUST_CHECK;
bool auth_keys_changed(const struct auth_config *config,
		       const struct file_stamp *stamps);

/* --- revocations (auth_revocations.c) ---------------------------------- */

struct revocations {
	struct hash_key key;
	struct hmap by_id;  /* of sub or jti */
	struct list by_age; /* the oldest first */
	struct list news;   /* not taken yet */
	uint64_t forgot_s;  /* when the old ones were looked for last */
};

void revocations_init(struct revocations *r);
void revocations_fini(struct revocations *r);
/* Returns what is in force now in *kept, or as auth_revoke(). */
int revocations_add(struct revocations *r, const struct auth_revocation *add,
		    uint64_t now_s,
		    const struct auth_revocation **kept) MUST_CHECK;
void revocations_forget(struct revocations *r, uint64_t now_s);
bool revocations_mean(const struct revocations *r,
		      const struct token_claims *claims);
const struct auth_revocation *
revocations_next(const struct revocations *r,
		 const struct auth_revocation *after);
const struct auth_revocation *revocations_news(struct revocations *r);

/* --- tokens by whom they name (auth_index.c) ---------------------------- */

struct named; /* a sub or a jti, and the tokens that say it */

struct token_index {
	struct hash_key key;
	struct hmap by_id;   /* struct named */
	struct list revoked; /* struct indexed.in_revoked: they have users */
};

/* A token's places in the index; all empty once it was revoked. */
struct indexed {
	struct named *sub, *jti;
	struct list in_sub, in_jti, in_revoked;
};

/* A good token. The cache holds one reference. */
struct checked {
	struct auth_token token;
	struct token_claims *claims;
	struct indexed indexed;
	uint64_t compare;
	struct hmap_node by_hash;
	struct list in_use;
};

void index_init(struct token_index *ix);
/* The tokens that are left are in no index any more. */
void index_fini(struct token_index *ix);
void index_add(struct token_index *ix, struct checked *c);
/* Also after index_fini(). */
void index_remove(struct checked *c);
/* Takes out all that it means; those with users are `revoked` then. */
void index_revoke(struct token_index *ix, const struct auth_revocation *r);

#endif

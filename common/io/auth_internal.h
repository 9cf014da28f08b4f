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

#endif

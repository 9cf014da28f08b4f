/* limits.h - how many streams one address may have, and how fast streams may
 * begin (pure).
 *
 * A worker counts its event streams by it, a dispatcher the connections of its
 * API port; "streams" are either. Both are a process's own. An IPv6 address
 * counts by its /64, which is what one subscriber line has. Memory: one entry
 * for each address with a stream.
 */
#ifndef STENTOR_DS_LIMITS_H
#define STENTOR_DS_LIMITS_H

#include "common/base/hash.h"
#include "common/ds/hmap.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct limits {
	uint64_t per_address_max; /* streams; 0: any */
	uint64_t rate_max;	  /* streams a second; 0: any */
	/* private */
	struct hmap by_address;
	struct hash_key key;
	uint64_t tokens, filled_ms; /* of the rate; thousandths of a stream */
};

struct limits_address; /* one that has streams */

void limits_init(struct limits *l, uint64_t per_address_max, uint64_t rate_max,
		 uint64_t now_ms);
/* Every stream must have left. */
void limits_fini(struct limits *l);

/* What counts as one address: an IPv4 address, or an IPv6 network. */
void limits_address_bytes(const struct sockaddr *address, uint8_t bytes[8]);

/* A stream of this address begins: false if it has as many as it may. *entry is
 * for limits_leave(); NULL where addresses are not counted. */
bool limits_enter(struct limits *l, const struct sockaddr *address,
		  struct limits_address **entry);
void limits_leave(struct limits *l, struct limits_address *entry);

/* Whether limits_take() would. */
bool limits_left(struct limits *l, uint64_t now_ms);
/* Takes one stream out of this second's; false: it is used up. A burst may
 * take a whole second's at once. */
bool limits_take(struct limits *l, uint64_t now_ms);

#endif

/* scrutiny.h - how many tokens a worker verifies in a second, and whose (pure).
 *
 * A signature costs 30 us and more, and whoever can connect can ask for one to
 * be looked at. So there is a budget of `rate_max` a second. Addresses whose
 * tokens were no good again and again are *suspects* for a few seconds: all of
 * them together get half of it, so that a flood of forged tokens leaves the
 * other half to the rest. (Behind a proxy all have one address: then a flood
 * takes half from all, but the tokens that were verified before, which need no
 * budget, still come in.)
 *
 * Who is over the budget comes back in a queue of its own (`later`): only those
 * whose token is good stretch the queue of those who wait for a stream.
 *
 * Memory: SCRUTINY_SLOTS bytes. Addresses that fall into the same slot share
 * their fate, by a keyed hash.
 */
#ifndef STENTOR_CONNNODE_STREAM_SCRUTINY_H
#define STENTOR_CONNNODE_STREAM_SCRUTINY_H

#include "common/ds/limits.h"
#include "connnode/stream/comeback.h"

#define SCRUTINY_SLOTS	 4096
#define SCRUTINY_SUSPECT 8 /* tokens that were no good, halved each second */

struct scrutiny {
	struct comeback later;
	/* private */
	struct limits all, suspects;
	struct hash_key key;
	uint64_t halved_ms;
	uint8_t bad[SCRUTINY_SLOTS]; /* tokens of late */
};

/* `rate_max` 0: any. */
void scrutiny_init(struct scrutiny *s, uint64_t rate_max,
		   uint64_t retry_window_ms, uint64_t now_ms);
void scrutiny_fini(struct scrutiny *s);

/* Whether a token that this address shows may be verified now; counts. */
bool scrutiny_take(struct scrutiny *s, const struct sockaddr *address,
		   uint64_t now_ms);
/* It was no good. */
void scrutiny_failed(struct scrutiny *s, const struct sockaddr *address);
/* When a client that was over the budget is to come back. */
uint32_t scrutiny_later_ms(struct scrutiny *s, uint64_t now_ms,
			   uint32_t least_ms);

#endif

/* handshakes.h - TLS handshakes of a port: how many begin in a turn of the
 * loop, and how many are under way.
 *
 *	first bytes --> waits --> under way --> over
 *	    '--------- while the turn lasts ---^
 *
 * A handshake costs about a millisecond, so a turn begins at most
 * HANDSHAKES_TURN; other peers that have said hello wait for theirs, so that a
 * crowd of newcomers does not hold up those who are in. Over `max` under way
 * the oldest is cut, which a peer that means well has long ended.
 *
 * Memory: for who waits, what it has said, at most HANDSHAKES_FIRST if its
 * socket is read so.
 */
#ifndef STENTOR_IO_HANDSHAKES_H
#define STENTOR_IO_HANDSHAKES_H

#include "common/ds/list.h"

#include <stddef.h>
#include <stdint.h>

#define HANDSHAKES_TURN	 8
#define HANDSHAKES_FIRST 2048u /* bytes of the first read */

/* Of one connection; its owner's memory, zero at first. */
struct handshake {
	enum { HANDSHAKE_NONE, HANDSHAKE_WAITS, HANDSHAKE_UNDER_WAY } state;
	struct list in_list; /* waiting or under_way; the oldest first */
	char *first;	     /* while it waits: what the peer has said */
	size_t first_len;
};

struct handshakes {
	struct list waiting, under_way;
	uint64_t count, max; /* under way */
	unsigned turn_left;
};

void handshakes_init(struct handshakes *h, uint64_t max);

/* The peer's first bytes. True: it is under way. False: it waits, `bytes` are
 * copied, and its socket is not to be read. */
bool handshakes_arrive(struct handshakes *h, struct handshake *s,
		       const void *bytes, size_t len);
/* A new turn. */
void handshakes_turn(struct handshakes *h);
/* The next that has waited and is under way now, and what it has said, the
 * caller's to free. NULL: there is none, or not in this turn. */
struct handshake *handshakes_next(struct handshakes *h, char **first,
				  size_t *len);
/* The oldest, to be cut, if there are more than `max`; or NULL. To be asked
 * after each that begins. */
struct handshake *handshakes_surplus(struct handshakes *h);
/* It has come to its end, or its connection has: true, once, if it was under
 * way. */
bool handshakes_end(struct handshakes *h, struct handshake *s);

#endif

/* interest.h - which workers have subscribers for a channel (pure: no I/O).
 *
 * A map from channel key (64-bit keyed hash of the name, made by the caller)
 * to a set of worker ids. Looked up once a published message, so a lookup
 * usually touches one cache line: the one or two workers that a private
 * channel has stand in the slot itself, larger sets in an array of their own.
 *
 * Sized for 5 million connections: at most 24 bytes per (channel, worker) pair
 * beyond 100,000 pairs. The table is split into INTEREST_SHARDS that grow and
 * shrink alone, so no single change ever moves more than one shard.
 *
 * A worker that is gone is dropped in O(1): lookups leave it out from then on,
 * and interest_sweep() removes its pairs in idle time. Only when it is clean
 * may its id be given to another worker.
 *
 * Full: interest_make_room() sweeps at once what it must. Where that does not
 * help, a worker may be made to want everything: its pairs are dropped, and
 * every lookup returns it, until it is dropped itself. At most
 * INTEREST_ALL_MAX do, because each costs every message a delivery.
 */
#ifndef STENTOR_DISPATCHER_ROUTE_INTEREST_H
#define STENTOR_DISPATCHER_ROUTE_INTEREST_H

#include "common/base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define INTEREST_WORKERS_MAX 4096
#define INTEREST_SHARDS	     256
#define INTEREST_ALL_MAX     64 /* workers that want everything */

struct interest_slot;
union interest_set_ref;

struct interest_shard {
	struct interest_slot *slots; /* NULL until the first key */
	union interest_set_ref *sets;
	uint32_t slot_cap, slot_count;
	uint32_t sets_cap, sets_len; /* of `sets`; len includes free ones */
	uint32_t sets_free;	     /* how many are free */
	uint32_t free_head;	     /* first free one, or SET_END */
};

struct interest {
	struct interest_shard shards[INTEREST_SHARDS];
	uint32_t worker_pairs[INTEREST_WORKERS_MAX];
	bool dropped[INTEREST_WORKERS_MAX]; /* and not clean yet */
	bool wants_all[INTEREST_WORKERS_MAX];
	uint16_t all[INTEREST_ALL_MAX]; /* these, ascending */
	uint16_t all_count;
	uint16_t *scratch; /* lookups that leave out dropped workers */
	uint64_t mixer;	   /* secret odd multiplier, see interest.c */
	uint64_t pairs;	   /* in the table */
	uint64_t garbage;  /* of these, pairs of dropped workers */
	uint64_t pairs_max;
	size_t bytes;
	unsigned sweep_at; /* next shard to sweep */
};

void interest_init(struct interest *t, uint64_t pairs_max);
void interest_fini(struct interest *t);

/* Adds a pair. ERR_EXISTS where it is there already, ERR_FULL at pairs_max
 * (pairs that wait to be swept count). The worker is not a dropped one. Of one
 * that wants everything nothing is kept, and that is no fault. */
int interest_add(struct interest *t, uint64_t key, uint16_t worker) MUST_CHECK;

/* Sweeps until a pair fits. False: there is nothing to sweep, and none does. */
bool interest_make_room(struct interest *t) MUST_CHECK;

/* From now on the worker wants everything, instead of its pairs. ERR_FULL: too
 * many do. The worker is not a dropped one. */
int interest_want_all(struct interest *t, uint16_t worker) MUST_CHECK;

/* False if there was no such pair. The worker is not a dropped one. */
bool interest_remove(struct interest *t, uint64_t key, uint16_t worker);

/* How many workers are interested; *workers is ascending, borrowed until the
 * next call of any function here but the counters, and unset where the answer
 * is 0. */
size_t interest_lookup(const struct interest *t, uint64_t key,
		       const uint16_t **workers);

/* Forgets all pairs of a worker, and that it wants everything. */
void interest_drop_worker(struct interest *t, uint16_t worker);

/* Removes what is left of dropped workers from the next `shards` shards (one
 * takes some 300 us at 5 million pairs). True while there is more to do. */
bool interest_sweep(struct interest *t, unsigned shards);

/* True if the worker has no pair, not even one that waits to be swept. */
bool interest_worker_clean(const struct interest *t, uint16_t worker);

/* Pairs that lookups can see: of all workers, of one. */
uint64_t interest_entries(const struct interest *t);
uint64_t interest_worker_entries(const struct interest *t, uint16_t worker);

/* Heap memory of the table, the allocator's own headers included. */
size_t interest_bytes(const struct interest *t);

#endif

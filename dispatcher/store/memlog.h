/* memlog.h - the logs of reliable channels in memory (pure): the reference of
 * what a store does, behind memory: and in simulated clusters.
 *
 * Synchronous, and told what time it is. Operations are those of store.h; their
 * `done` is not called here.
 *
 * Each message is given until it is `ttl_ms` old (0: for ever). The log's epoch
 * and its counting stay max(ttl_ms, MEMLOG_LINGER_MS) longer than the last one,
 * so that who comes back late is told exactly what it missed. Idempotency keys
 * are kept for their window.
 *
 * It never goes back by itself, but believes what is `known`.
 *
 * Bounded by bytes_max: an append that does not fit fails with ERR_FULL, until
 * something has expired.
 */
#ifndef STENTOR_DISPATCHER_STORE_MEMLOG_H
#define STENTOR_DISPATCHER_STORE_MEMLOG_H

#include "common/base/hash.h"
#include "common/ds/hmap.h"
#include "common/ds/list.h"
#include "dispatcher/store/store.h"

#define MEMLOG_LINGER_MS (24u * 3600 * 1000)

struct memlogs {
	struct hash_key hash_key;
	struct hmap logs;	 /* by channel */
	struct list logs_by_use; /* least recently looked after first */
	struct hmap keys;	 /* by channel and idempotency key */
	struct list keys_by_age; /* oldest first */
	uint64_t clock_ms;	 /* never goes back; greater than all epochs */
	uint64_t idempotency_ms;
	uint64_t bytes, bytes_max;
	uint64_t eras;		      /* that were begun */
	struct store_record *records; /* of the last read */
	size_t records_cap;
};

void memlogs_init(struct memlogs *m, uint64_t bytes_max,
		  uint64_t idempotency_ms);
void memlogs_fini(struct memlogs *m);

/* Fill the operation's results and its `rc`, which may be ERR_FULL for an
 * append. A read's records are valid until the next call. */
void memlogs_append(struct memlogs *m, struct store_append *a, uint64_t now_ms);
void memlogs_read(struct memlogs *m, struct store_read *r, uint64_t now_ms);
void memlogs_tops(struct memlogs *m, struct store_tops *t, uint64_t now_ms);

/* Forgets what has expired; looks at no more than `steps` logs and as many
 * keys. */
void memlogs_trim(struct memlogs *m, size_t steps, uint64_t now_ms);

#endif

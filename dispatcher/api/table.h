/* table.h - the method table of the API port, and the life cycle that calls of
 * all fronts share (private to dispatcher/api).
 *
 * Methods are found by path through a hash map keyed with a random key: paths
 * come from strangers. Each entry counts how its calls ended; what matches no
 * entry is counted in one of its own, so that labels stay bounded.
 */
#ifndef STENTOR_DISPATCHER_API_TABLE_H
#define STENTOR_DISPATCHER_API_TABLE_H

#include "common/base/hash.h"
#include "common/ds/hmap.h"
#include "dispatcher/api/rpc.h"

struct rpc_entry {
	struct hmap_node by_path;
	char *path; /* "/stentor.v1.PublisherService/Publish" */
	size_t path_len;
	const struct rpc_service *service; /* NULL: the unknown method */
	const struct rpc_method *method;
	uint64_t handled[GRPC_CODES];
};

struct rpc_table {
	struct hash_key key;
	struct hmap by_path;
	struct rpc_entry *entries;
	size_t count;
	struct rpc_entry unknown;
};

/* `services` ends with a NULL name and outlives the table. */
void rpc_table_init(struct rpc_table *t, const struct rpc_service *services);
void rpc_table_fini(struct rpc_table *t);
/* The method of a path without query, or NULL. */
struct rpc_entry *rpc_table_find(struct rpc_table *t, const char *path,
				 size_t len);

/* Fills in a call of the entry; the front then hands over messages, and keeps
 * its reference to the token (or NULL) until it frees the call. Holds the peer.
 */
void rpc_begin(struct rpc_call *call, struct rpc_entry *entry,
	       struct auth_token *token, struct rpc_peer *peer,
	       const struct rpc_front_ops *front);
/* The client has half-closed a client-streaming call. May free the call. */
void rpc_half_close(struct rpc_call *call);
/* Nobody waits for the call any more: tells the handler once, which may free
 * the call. `code` is what the call is counted as. */
void rpc_cancel(struct rpc_call *call, enum grpc_code code);
/* Counts a call that ended before any handler knew of it; `entry` may be NULL.
 */
void rpc_count(struct rpc_table *t, struct rpc_entry *entry,
	       enum grpc_code code);

#endif

/* options.h - what a dispatcher can be told, as one table. */
#ifndef STENTOR_DISPATCHER_OPTIONS_H
#define STENTOR_DISPATCHER_OPTIONS_H

#include "common/io/process.h"
#include "dispatcher/api/rpc.h"

struct dispatcher_options {
	struct process_options process;
	char *api_listen, *store;
	char *store_password, *store_tls_ca, *store_tls_cert, *store_tls_key;
	uint64_t store_queue_bytes, store_timeout_ms, store_map_bytes;
	uint64_t store_replicas, idempotency_seconds;
	uint64_t data_bytes_max;
	uint64_t link_queue_bytes, link_queues_bytes;
	uint64_t workers_max, interest_max;
	uint64_t settle_ms, settle_max_ms, drain_seconds;
	bool rebalance;
	uint64_t rebalance_margin, rebalance_rate, rebalance_calm_ms;
	uint64_t publish_rate_max, publish_burst_max; /* of one token */
	uint64_t publish_pending_max, batch_pending_max, batch_bytes_max;
	char *cors_origin;
	char *api_tls_cert, *api_tls_key, *api_tls_client_ca;
	struct api_limits api;
};

extern const struct program dispatcher_program;

/* Of the API port; borrows from the options. */
struct tls_files dispatcher_tls(const struct dispatcher_options *o);

/* How many API connections leave descriptors for two per worker's link, and for
 * the store, the admin port and the rest; half of all at least. */
uint64_t dispatcher_api_room(uint64_t nofile, uint64_t workers_max);

/* What the table can't say. On a fault there is a message on stderr. */
int dispatcher_options_check(const struct dispatcher_options *o,
			     const struct auth_config *auth) MUST_CHECK;

#endif

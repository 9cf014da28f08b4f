/* options.h - what a connection node can be told, as one table. */
#ifndef STENTOR_CONNNODE_OPTIONS_H
#define STENTOR_CONNNODE_OPTIONS_H

#include "common/io/process.h"
#include "common/io/tls.h"

struct connnode_options {
	struct process_options process;
	char *listen, *tls_cert, *tls_key;
	char *dispatchers, *link_advertise;
	uint64_t workers, connections_max, tls_handshakes_max;
	uint64_t per_address_max, rate_max, subscriptions_max, heads_max;
	uint64_t token_rate_max;
	uint64_t channels_max, head_bytes_max, url_bytes_max;
	uint64_t head_timeout_ms, heartbeat_ms, stall_timeout_ms, ready_ms;
	uint64_t queue_burst_bytes, queue_grace_ms, memory_max;
	uint64_t queue_bytes_max, replay_bytes_max, hold_bytes_max, sweep_ms;
	uint64_t retry_min_ms, retry_max_ms, retry_window_ms;
	uint64_t connection_age_ms, send_rate_full, queue_age_full_ms;
	uint64_t notsent_bytes, user_timeout_ms;
	uint64_t drain_seconds, watchdog_ms, resolve_ms;
	char *cors_origins;
};

extern const struct program connnode_program;

/* Of the port for event streams; borrows from the options. */
struct tls_files connnode_tls(const struct connnode_options *o);

/* What the table can't say. On a fault there is a message on stderr. */
int connnode_options_check(const struct connnode_options *o,
			   const struct auth_config *auth) MUST_CHECK;

#endif

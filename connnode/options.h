/* options.h - what a connection node can be told, as one table. */
#ifndef STENTOR_CONNNODE_OPTIONS_H
#define STENTOR_CONNNODE_OPTIONS_H

#include "common/base/config.h"
#include "common/io/nngio.h"

enum auth_mode { AUTH_JWT, AUTH_NONE };

struct connnode_options {
	char *listen, *admin_listen;
	char *dispatchers, *link_listen, *link_advertise;
	char *name;
	unsigned auth, log_level, log_format;
	char *link_token;
	char *link_tls_cert, *link_tls_key, *link_tls_ca, *link_tls_name;
	uint64_t workers, connections_max;
	uint64_t channels_max, head_bytes_max, url_bytes_max;
	uint64_t head_timeout_ms, heartbeat_ms, stall_timeout_ms, ready_ms;
	uint64_t queue_bytes_max;
	uint64_t retry_min_ms, retry_max_ms;
	uint64_t notsent_bytes, user_timeout_ms;
	uint64_t drain_seconds, watchdog_ms, resolve_ms;
	char *cors_origins;
};

extern const struct program connnode_program;

/* Borrows from the options. */
struct nng_tls_files connnode_link_tls(const struct connnode_options *o);
/* What the table can't say. On a fault there is a message on stderr. */
int connnode_options_check(const struct connnode_options *o) MUST_CHECK;

#endif

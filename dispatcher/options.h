/* options.h - what a dispatcher can be told, as one table. */
#ifndef STENTOR_DISPATCHER_OPTIONS_H
#define STENTOR_DISPATCHER_OPTIONS_H

#include "common/base/config.h"
#include "common/io/nngio.h"
#include "dispatcher/api/rpc.h"

enum auth_mode { AUTH_JWT, AUTH_NONE };

struct dispatcher_options {
	char *api_listen, *link_listen, *admin_listen;
	char *name, *store;
	unsigned auth, log_level, log_format;
	char *link_token;
	char *link_tls_cert, *link_tls_key, *link_tls_ca, *link_tls_name;
	uint64_t data_bytes_max;
	uint64_t link_queue_bytes, workers_max, interest_max;
	uint64_t settle_ms, drain_seconds;
	char *cors_origin;
	struct api_limits api;
};

extern const struct program dispatcher_program;

/* Borrows from the options. */
struct nng_tls_files dispatcher_link_tls(const struct dispatcher_options *o);
/* What the table can't say. On a fault there is a message on stderr. */
int dispatcher_options_check(const struct dispatcher_options *o) MUST_CHECK;

#endif

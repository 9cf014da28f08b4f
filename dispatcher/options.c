#include "dispatcher/options.h"

#include "dispatcher/interest.h"

static const char *const auth_modes[] = {"jwt", "none", NULL};
static const char *const log_levels[] = {"debug", "info", "warn", "error",
					 NULL};
static const char *const log_formats[] = {"json", "text", NULL};

#define AT(field) offsetof(struct dispatcher_options, field)
#define STRING(name, field, def, help)                                      \
	{                                                                   \
		name, OPTION_STRING, AT(field), def, 0, 0, NULL, NULL, help \
	}
#define CHOICE(name, field, def, choices, help)                                \
	{                                                                      \
		name, OPTION_CHOICE, AT(field), def, 0, 0, NULL, choices, help \
	}
#define UINT(name, field, def, min, max, unit, help)                          \
	{                                                                     \
		name, OPTION_UINT, AT(field), def, min, max, unit, NULL, help \
	}
#define SIZE(name, field, def, min, max, help)                              \
	{                                                                   \
		name, OPTION_SIZE, AT(field), def, min, max, "bytes", NULL, \
			help                                                \
	}

#define MIB (1024u * 1024u)

static const struct option options[] = {
	STRING("api-listen", api_listen, "0.0.0.0:7070",
	       "gRPC (HTTP/2 prior knowledge) and Connect (HTTP/1.1)"),
	STRING("link-listen", link_listen, "tcp://0.0.0.0:7071",
	       "workers' control requests (nng); tls+tcp:// with certificates"),
	STRING("admin-listen", admin_listen, "0.0.0.0:7072",
	       "/metrics /livez /readyz /version /debug/*"),
	STRING("name", name, "", "name of this dispatcher; empty: host name"),
	STRING("store", store, "memory:", "where history is kept: memory:"),
	CHOICE("auth", auth, "jwt", auth_modes,
	       "who may publish; this version needs none, said aloud"),
	STRING("link-token", link_token, "",
	       "secret that workers must know; empty: none"),
	STRING("link-tls-cert", link_tls_cert, "",
	       "certificate of this dispatcher for links, PEM file"),
	STRING("link-tls-key", link_tls_key, "", "its key, PEM file"),
	STRING("link-tls-ca", link_tls_ca, "",
	       "authority that workers' certificates must come from, PEM file"),
	STRING("link-tls-name", link_tls_name, "",
	       "name that workers' certificates must hold; empty: any"),
	SIZE("data-bytes-max", data_bytes_max, "1MiB", 1, 2 * MIB,
	     "data of one message"),
	SIZE("link-queue-bytes", link_queue_bytes, "16MiB", 64 * 1024,
	     1024 * MIB, "deliveries that wait for one worker"),
	UINT("workers-max", workers_max, "2048", 1, INTEREST_WORKERS_MAX, NULL,
	     "workers linked to this dispatcher"),
	UINT("interest-max", interest_max, "20000000", 1000, 1000000000, NULL,
	     "entries of the routing table (channel, worker)"),
	UINT("settle-ms", settle_ms, "2000", 0, 60000, "ms",
	     "after start, time for workers to report before publishes are "
	     "taken"),
	UINT("drain-seconds", drain_seconds, "10", 0, 3600, "s",
	     "after SIGTERM, time for calls under way"),
	STRING("cors-origin", cors_origin, "",
	       "origin of web pages that may call the API; empty: none"),
	UINT("api-connections-max", api.connections_max, "1024", 1, 1000000,
	     NULL, "connections to the API"),
	UINT("api-streams-max", api.streams_max, "1000", 1, 100000, NULL,
	     "concurrent calls of one HTTP/2 connection"),
	SIZE("api-message-bytes-max", api.message_bytes_max, "4MiB", 1024,
	     64 * MIB, "one request, uncompressed"),
	SIZE("api-head-bytes-max", api.head_bytes_max, "16KiB", 1024, MIB,
	     "headers of one request"),
	UINT("api-head-timeout-ms", api.head_timeout_ms, "10000", 10, 3600000,
	     "ms", "for a request's head to be complete"),
	UINT("api-body-timeout-ms", api.body_timeout_ms, "30000", 10, 3600000,
	     "ms", "for a request's body to be complete"),
	UINT("api-idle-timeout-ms", api.idle_timeout_ms, "300000", 100,
	     86400000, "ms", "of a connection without calls"),
	UINT("api-write-timeout-ms", api.write_timeout_ms, "30000", 10, 3600000,
	     "ms", "without a byte of an answer taken"),
	UINT("api-connection-age-ms", api.connection_age_ms, "0", 0,
	     86400000ull * 30, "ms",
	     "after which a connection is asked to go elsewhere, +-10 %; 0: "
	     "never"),
	UINT("api-reset-rate", api.reset_rate, "1000", 1, 1000000, "1/s",
	     "stream resets of one connection"),
	UINT("api-reset-burst", api.reset_burst, "10000", 1, 10000000, NULL,
	     "stream resets of one connection at once"),
	UINT("api-ping-min-interval-ms", api.ping_min_interval_ms, "10000", 0,
	     3600000, "ms", "between a client's keepalive pings"),
	CHOICE("log-level", log_level, "info", log_levels, "least level"),
	CHOICE("log-format", log_format, "json", log_formats,
	       "one JSON object a line, or text for people"),
	{.name = NULL},
};

const struct program dispatcher_program = {
	.name = "stentor-dispatcher",
	.summary = "takes publishes and routes them to connection nodes",
	.options = options,
	.env_prefix = "STENTOR_",
};

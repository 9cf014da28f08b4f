#include "dispatcher/options.h"

#include "common/base/err.h"
#include "common/io/linkurl.h"
#include "common/io/listener.h"
#include "dispatcher/interest.h"

#include <stdio.h>
#include <string.h>

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
	       "gRPC (HTTP/2 prior knowledge) and Connect/JSON (HTTP/1.1), one "
	       "port"),
	STRING("link-listen", link_listen, "tcp://0.0.0.0:7071",
	       "workers' control requests (nng); tls+tcp:// with certificates"),
	STRING("admin-listen", admin_listen, "0.0.0.0:7072",
	       "/metrics /livez /readyz /version"),
	STRING("name", name, "", "name of this dispatcher; empty: host name"),
	STRING("store", store, "memory:",
	       "where history is kept; this version keeps none and knows just "
	       "memory:"),
	CHOICE("auth", auth, "jwt", auth_modes,
	       "how producers prove who they are; this version knows just "
	       "none, "
	       "which must be said"),
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
	     "most data in one message"),
	SIZE("link-queue-bytes", link_queue_bytes, "16MiB", 64 * 1024,
	     1024 * MIB, "most that may wait for one worker"),
	UINT("workers-max", workers_max, "2048", 1, INTEREST_WORKERS_MAX, NULL,
	     "most workers linked to this dispatcher"),
	UINT("interest-max", interest_max, "20000000", 1000, 1000000000, NULL,
	     "most entries of the routing table, each a (channel, worker) "
	     "pair"),
	UINT("settle-ms", settle_ms, "2000", 0, 60000, "ms",
	     "after start, time for workers to report before publishes are "
	     "taken"),
	UINT("drain-seconds", drain_seconds, "10", 0, 3600, "s",
	     "after SIGTERM, time for calls under way"),
	STRING("cors-origin", cors_origin, "",
	       "origin of web pages that may call the API; empty: none"),
	UINT("api-connections-max", api.connections_max, "1024", 1, 1000000,
	     NULL, "most connections to the API"),
	UINT("api-streams-max", api.streams_max, "1000", 1, 100000, NULL,
	     "most concurrent calls of one HTTP/2 connection"),
	SIZE("api-message-bytes-max", api.message_bytes_max, "4MiB", 1024,
	     64 * MIB, "most in one request, uncompressed"),
	SIZE("api-head-bytes-max", api.head_bytes_max, "16KiB", 1024, MIB,
	     "most in the head of one request"),
	UINT("api-head-timeout-ms", api.head_timeout_ms, "10000", 10, 3600000,
	     "ms", "time for a request's head to arrive whole"),
	UINT("api-body-timeout-ms", api.body_timeout_ms, "30000", 10, 3600000,
	     "ms", "time for a request's body to arrive whole"),
	UINT("api-idle-timeout-ms", api.idle_timeout_ms, "300000", 100,
	     86400000, "ms",
	     "a connection without a call for so long is closed"),
	UINT("api-write-timeout-ms", api.write_timeout_ms, "30000", 10, 3600000,
	     "ms",
	     "a connection that takes no byte of its answers for so long is "
	     "closed"),
	UINT("api-connection-age-ms", api.connection_age_ms, "0", 0,
	     86400000ull * 30, "ms",
	     "after which a connection is asked to go elsewhere, +-10 %; 0: "
	     "never"),
	UINT("api-reset-rate", api.reset_rate, "1000", 1, 1000000, "1/s",
	     "stream resets that one connection may go on making; more ends "
	     "it"),
	UINT("api-reset-burst", api.reset_burst, "10000", 1, 10000000, NULL,
	     "stream resets that one connection may make at once"),
	UINT("api-ping-min-interval-ms", api.ping_min_interval_ms, "10000", 0,
	     3600000, "ms",
	     "least time between a client's keepalive pings; 0: any"),
	CHOICE("log-level", log_level, "info", log_levels,
	       "what is less important is not logged"),
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

static const char *or_null(const char *text)
{
	return text[0] != '\0' ? text : NULL;
}

struct nng_tls_files dispatcher_link_tls(const struct dispatcher_options *o)
{
	return (struct nng_tls_files){
		.cert = or_null(o->link_tls_cert),
		.key = or_null(o->link_tls_key),
		.ca = or_null(o->link_tls_ca),
		.server_name = or_null(o->link_tls_name),
	};
}

static const char *fault_of(const struct dispatcher_options *o,
			    char text[LINKURL_FAULT])
{
	struct nng_tls_files tls = dispatcher_link_tls(o);
	struct sockaddr_storage address;

	if (o->auth != AUTH_NONE)
		return "--auth jwt: tokens are not supported by this version; "
		       "say --auth none";
	if (strcmp(o->store, "memory:") != 0)
		return "--store: this version keeps no history and knows just "
		       "memory:";
	if (address_parse(o->api_listen, &address) != 0)
		return "--api-listen: not HOST:PORT";
	if (address_parse(o->admin_listen, &address) != 0)
		return "--admin-listen: not HOST:PORT";
	return linkurl_listen_fault(o->link_listen, &tls, text);
}

int dispatcher_options_check(const struct dispatcher_options *o)
{
	char text[LINKURL_FAULT];
	const char *fault = fault_of(o, text);

	if (fault == NULL)
		return 0;
	fprintf(stderr, "stentor-dispatcher: %s\n", fault);
	return ERR_CONFIG;
}

#include "connnode/options.h"

#include "common/base/err.h"
#include "common/io/linkurl.h"
#include "common/io/listener.h"
#include "connnode/uplink.h"

#include <stdio.h>
#include <string.h>

static const char *const auth_modes[] = {"jwt", "none", NULL};
static const char *const log_levels[] = {"debug", "info", "warn", "error",
					 NULL};
static const char *const log_formats[] = {"json", "text", NULL};

#define AT(field) offsetof(struct connnode_options, field)
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

#define HOUR_MS 3600000u

static const struct option options[] = {
	STRING("listen", listen, "0.0.0.0:8080",
	       "event streams (SSE) for browsers, and the demo page"),
	STRING("admin-listen", admin_listen, "0.0.0.0:8081",
	       "whole node: /metrics /livez /readyz /version /debug/workers"),
	STRING("dispatchers", dispatchers, "tcp://127.0.0.1:7071",
	       "their links: comma-separated list, or dns:NAME:PORT, looked up "
	       "again and again"),
	STRING("link-listen", link_listen, "tcp://0.0.0.0:7080",
	       "where worker i takes batches: port + i"),
	STRING("link-advertise", link_advertise, "",
	       "HOST that dispatchers reach this node by; empty: the address "
	       "it reaches dispatchers from"),
	STRING("name", name, "", "name of this node; empty: host name"),
	CHOICE("auth", auth, "jwt", auth_modes,
	       "how subscribers prove who they are; this version knows just "
	       "none, which must be said"),
	STRING("link-token", link_token, "",
	       "secret that dispatchers want; empty: none"),
	STRING("link-tls-cert", link_tls_cert, "",
	       "certificate of this node for links, PEM file"),
	STRING("link-tls-key", link_tls_key, "", "its key, PEM file"),
	STRING("link-tls-ca", link_tls_ca, "",
	       "authority that dispatchers' certificates must come from, PEM "
	       "file"),
	STRING("link-tls-name", link_tls_name, "",
	       "name that dispatchers' certificates must hold; empty: any"),
	UINT("workers", workers, "0", 0, 256, NULL,
	     "worker processes; 0: one per core it may use"),
	UINT("max-connections", connections_max, "50000", 1, 10000000, NULL,
	     "most event streams of the node, split over workers"),
	UINT("channels-max", channels_max, "64", 1, 1000, NULL,
	     "most channels of one event stream"),
	SIZE("head-bytes-max", head_bytes_max, "16KiB", 512, 1024 * 1024,
	     "most in a request's line and headers"),
	SIZE("url-bytes-max", url_bytes_max, "8KiB", 128, 1024 * 1024,
	     "most in a request's URL"),
	UINT("head-timeout-ms", head_timeout_ms, "10000", 10, HOUR_MS, "ms",
	     "time for a request's head to arrive whole"),
	UINT("heartbeat-ms", heartbeat_ms, "15000", 100, HOUR_MS, "ms",
	     "time between heartbeat comments on a silent stream, jittered by "
	     "20 %"),
	UINT("stall-timeout-ms", stall_timeout_ms, "30000", 100, HOUR_MS, "ms",
	     "a stream that takes no byte for so long is closed"),
	UINT("ready-ms", ready_ms, "1000", 0, 60000, "ms",
	     "most time that stentor.ready waits for dispatchers"),
	SIZE("queue-bytes-max", queue_bytes_max, "256KiB", 1024,
	     1024u * 1024 * 1024,
	     "most that may wait for one stream, not yet taken by the kernel"),
	UINT("retry-min-ms", retry_min_ms, "1000", 1, HOUR_MS, "ms",
	     "least delay before a client comes back; each is told its own"),
	UINT("retry-max-ms", retry_max_ms, "5000", 1, HOUR_MS, "ms",
	     "greatest such delay"),
	SIZE("notsent-bytes", notsent_bytes, "64KiB", 0, 1024u * 1024 * 1024,
	     "most unsent bytes the kernel holds of one stream; 0: its "
	     "default"),
	UINT("user-timeout-ms", user_timeout_ms, "30000", 0, HOUR_MS, "ms",
	     "a peer that acknowledges nothing for so long is gone; 0: the "
	     "kernel's default"),
	UINT("drain-seconds", drain_seconds, "60", 0, 86400, "s",
	     "after SIGTERM, time over which clients are sent away"),
	UINT("watchdog-ms", watchdog_ms, "30000", 1000, HOUR_MS, "ms",
	     "a worker whose loop stands still for so long is replaced"),
	UINT("resolve-ms", resolve_ms, "5000", 100, HOUR_MS, "ms",
	     "time between look-ups of dns:NAME:PORT"),
	STRING("cors-origins", cors_origins, "*",
	       "origins of web pages that may subscribe: * or a "
	       "comma-separated list; empty: none"),
	CHOICE("log-level", log_level, "info", log_levels,
	       "what is less important is not logged"),
	CHOICE("log-format", log_format, "json", log_formats,
	       "one JSON object a line, or text for people"),
	{.name = NULL},
};

const struct program connnode_program = {
	.name = "stentor-connnode",
	.summary = "holds browsers' event streams and delivers to them",
	.options = options,
	.env_prefix = "STENTOR_",
};

static const char *or_null(const char *text)
{
	return text[0] != '\0' ? text : NULL;
}

struct nng_tls_files connnode_link_tls(const struct connnode_options *o)
{
	return (struct nng_tls_files){
		.cert = or_null(o->link_tls_cert),
		.key = or_null(o->link_tls_key),
		.ca = or_null(o->link_tls_ca),
		.server_name = or_null(o->link_tls_name),
	};
}

static const char *fault_of(const struct connnode_options *o,
			    char text[LINKURL_FAULT])
{
	struct nng_tls_files tls = connnode_link_tls(o);
	struct sockaddr_storage address;

	if (o->auth != AUTH_NONE)
		return "--auth jwt: tokens are not supported by this version; "
		       "say --auth none";
	if (address_parse(o->listen, &address) != 0)
		return "--listen: not HOST:PORT";
	if (address_parse(o->admin_listen, &address) != 0)
		return "--admin-listen: not HOST:PORT";
	if (!uplink_list_valid(o->dispatchers))
		return "--dispatchers: not a list of tcp://HOST:PORT, nor "
		       "dns:NAME:PORT";
	if (o->retry_min_ms > o->retry_max_ms)
		return "--retry-min-ms is more than --retry-max-ms";
	return linkurl_listen_fault(o->link_listen, &tls, text);
}

int connnode_options_check(const struct connnode_options *o)
{
	char text[LINKURL_FAULT];
	const char *fault = fault_of(o, text);

	if (fault == NULL)
		return 0;
	fprintf(stderr, "stentor-connnode: %s\n", fault);
	return ERR_CONFIG;
}

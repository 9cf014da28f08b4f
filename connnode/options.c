#include "connnode/options.h"

#include "common/base/err.h"
#include "common/io/auth.h"
#include "common/io/listener.h"
#include "connnode/link/uplink.h"

#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(struct connnode_options, field)

#define HOUR_MS 3600000u

static const struct option options[] = {
	ROW_STRING("listen", AT(listen), "0.0.0.0:8080",
		   "event streams (SSE) for browsers, and the demo page"),
	ROW_STRING("tls-cert", AT(tls_cert), "",
		   "certificate of that port with its chain, PEM file; empty: "
		   "no TLS"),
	ROW_STRING("tls-key", AT(tls_key), "", "its key, PEM file"),
	ROW_UINT("tls-handshakes-max", AT(tls_handshakes_max), "2048", 1,
		 1000000, NULL,
		 "most TLS handshakes under way in each worker; over it the "
		 "oldest is cut"),
	ROW_STRING("admin-listen", AT(process.admin_listen), "0.0.0.0:8081",
		   "whole node: /metrics /livez /readyz /version /debug/*"),
	ROW_STRING("dispatchers", AT(dispatchers), "tcp://127.0.0.1:7071",
		   "their links: comma-separated list, or dns:NAME:PORT, "
		   "looked up "
		   "again and again"),
	ROW_STRING("link-listen", AT(process.link_listen), "tcp://0.0.0.0:7080",
		   "where worker i takes batches: port + i"),
	ROW_STRING(
		"link-advertise", AT(link_advertise), "",
		"HOST that dispatchers reach this node by; empty: the address "
		"it reaches dispatchers from"),
	ROW_UINT("workers", AT(workers), "0", 0, 256, NULL,
		 "worker processes; 0: one per core it may use"),
	ROW_UINT("max-connections", AT(connections_max), "50000", 1, 10000000,
		 NULL, "most event streams of the node, split over workers"),
	ROW_UINT("connections-per-address-max", AT(per_address_max), "0", 0,
		 1000000, NULL,
		 "most event streams of one address (IPv6: /64) in each "
		 "worker; 0: any, as behind a proxy all have its address"),
	ROW_UINT("connection-rate-max", AT(rate_max), "10000", 0, 1000000,
		 "1/s",
		 "event streams that may begin in each worker in a second; "
		 "others are told to come back; 0: any"),
	ROW_UINT("token-rate-max", AT(token_rate_max), "20000", 0, 1000000,
		 "1/s",
		 "tokens not seen lately that each worker verifies in a "
		 "second; others are told to come back; 0: any"),
	ROW_UINT("subscriptions-max", AT(subscriptions_max), "2000000", 1,
		 1000000000, NULL,
		 "most subscriptions in each worker, over all streams"),
	ROW_UINT("heads-max", AT(heads_max), "4096", 16, 1000000, NULL,
		 "most connections of each worker that have not sent their "
		 "request yet, and most that still take the end of their "
		 "answer; the oldest gives way"),
	ROW_UINT("channels-max", AT(channels_max), "64", 1, 1000, NULL,
		 "most channels of one event stream"),
	ROW_SIZE("head-bytes-max", AT(head_bytes_max), "16KiB", 512,
		 1024 * 1024, "most in a request's line and headers"),
	ROW_SIZE("url-bytes-max", AT(url_bytes_max), "8KiB", 128, 1024 * 1024,
		 "most in a request's URL"),
	ROW_UINT("head-timeout-ms", AT(head_timeout_ms), "10000", 10, HOUR_MS,
		 "ms", "time for a request's head to arrive whole"),
	ROW_UINT("heartbeat-ms", AT(heartbeat_ms), "15000", 100, HOUR_MS, "ms",
		 "time between heartbeat comments on a silent stream, jittered "
		 "by "
		 "20 %"),
	ROW_UINT("stall-timeout-ms", AT(stall_timeout_ms), "30000", 100,
		 HOUR_MS, "ms",
		 "a stream that takes no byte for so long is closed"),
	ROW_UINT("ready-ms", AT(ready_ms), "1000", 0, 60000, "ms",
		 "most time that stentor.ready waits for dispatchers"),
	ROW_SIZE("queue-bytes-max", AT(queue_bytes_max), "256KiB", 1024,
		 1024u * 1024 * 1024,
		 "most that may wait for one stream, not yet taken by the "
		 "kernel"),
	ROW_UINT("queue-grace-ms", AT(queue_grace_ms), "1000", 0, 60000, "ms",
		 "time for which more may wait for a stream that was level "
		 "before"),
	ROW_SIZE("queue-burst-bytes", AT(queue_burst_bytes), "16MiB", 1024,
		 1024u * 1024 * 1024, "most that may wait for it then"),
	ROW_SIZE("memory-max", AT(memory_max), "0", 0,
		 1024ull * 1024 * 1024 * 1024,
		 "memory of the node, split over workers: three fifths of it "
		 "are for messages that wait, and over that the longest queues "
		 "give way; 0: that of its cgroup, or of the machine"),
	ROW_SIZE("replay-bytes-max", AT(replay_bytes_max), "64MiB", 1024 * 1024,
		 64ull * 1024 * 1024 * 1024,
		 "most memory that replays hold in each worker; clients over "
		 "it wait their turn"),
	ROW_SIZE("hold-bytes-max", AT(hold_bytes_max), "8MiB", 64 * 1024,
		 1024u * 1024 * 1024,
		 "most that each worker holds of messages that came before "
		 "their predecessors; what is more is fetched"),
	ROW_UINT("sweep-ms", AT(sweep_ms), "600000", 1000, HOUR_MS, "ms",
		 "a log whose top nobody had reason to ask for in that time is "
		 "compared with the store: a safety net"),
	ROW_UINT(
		"retry-min-ms", AT(retry_min_ms), "1000", 1, HOUR_MS, "ms",
		"least delay before a client comes back; each is told its own"),
	ROW_UINT("retry-max-ms", AT(retry_max_ms), "5000", 1, HOUR_MS, "ms",
		 "greatest such delay"),
	ROW_UINT("retry-window-ms", AT(retry_window_ms), "120000", 1000,
		 HOUR_MS, "ms",
		 "most time over which clients who are not let in are told to "
		 "come back"),
	ROW_UINT("connection-age-ms", AT(connection_age_ms), "0", 0,
		 24 * HOUR_MS, "ms",
		 "a stream is sent to a new place after so long, less up to a "
		 "fifth; 0: never"),
	ROW_SIZE("send-rate-full", AT(send_rate_full), "0", 0,
		 1024ull * 1024 * 1024 * 1024,
		 "bytes a second to all streams at which the node counts as "
		 "full, to autoscalers; 0: no such limit"),
	ROW_UINT("queue-age-full-ms", AT(queue_age_full_ms), "500", 0, HOUR_MS,
		 "ms",
		 "wait of the oldest message at which it counts as full; 0: no "
		 "such limit"),
	ROW_SIZE("notsent-bytes", AT(notsent_bytes), "64KiB", 0,
		 1024u * 1024 * 1024,
		 "most unsent bytes the kernel holds of one stream; 0: its "
		 "default"),
	ROW_UINT("user-timeout-ms", AT(user_timeout_ms), "30000", 0, HOUR_MS,
		 "ms",
		 "a peer that acknowledges nothing for so long is gone; 0: the "
		 "kernel's default"),
	ROW_UINT("drain-seconds", AT(drain_seconds), "60", 0, 86400, "s",
		 "time over which a drain sends clients away"),
	ROW_UINT("watchdog-ms", AT(watchdog_ms), "30000", 1000, HOUR_MS, "ms",
		 "a worker whose loop stands still for so long is replaced"),
	ROW_UINT("resolve-ms", AT(resolve_ms), "5000", 100, HOUR_MS, "ms",
		 "time between look-ups of dns:NAME:PORT"),
	ROW_STRING("cors-origins", AT(cors_origins), "*",
		   "origins of web pages that may subscribe: * or a "
		   "comma-separated list; empty: none"),
	PROCESS_ROWS(AT(process)),
	{.name = NULL},
};

const struct program connnode_program = {
	.name = "stentor-connnode",
	.summary = "holds browsers' event streams and delivers to them",
	.options = options,
	.env_prefix = "STENTOR_",
};

struct tls_files connnode_tls(const struct connnode_options *o)
{
	/* Event streams are HTTP/1.1. */
	static const char *const alpn[] = {"http/1.1", NULL};

	return (struct tls_files){
		.cert = o->tls_cert[0] != '\0' ? o->tls_cert : NULL,
		.key = o->tls_key[0] != '\0' ? o->tls_key : NULL,
		.alpn = alpn,
	};
}

static const char *fault_of(const struct connnode_options *o,
			    char text[LINKURL_FAULT])
{
	struct sockaddr_storage address;

	if (address_parse(o->listen, &address) != 0)
		return "--listen: not HOST:PORT";
	if (!uplink_list_valid(o->dispatchers))
		return "--dispatchers: not a list of tcp://HOST:PORT, nor "
		       "dns:NAME:PORT";
	if (o->retry_min_ms > o->retry_max_ms)
		return "--retry-min-ms is more than --retry-max-ms";
	return process_options_fault(&o->process, text);
}

int connnode_options_check(const struct connnode_options *o,
			   const struct auth_config *auth)
{
	char text[LINKURL_FAULT], tls_fault[TLS_FAULT], auth_fault[AUTH_FAULT];
	const char *fault = fault_of(o, text);
	struct tls_files tls = connnode_tls(o);

	if (fault != NULL)
		fprintf(stderr, "stentor-connnode: %s\n", fault);
	else if (tls_files_check(&tls, tls_fault) != 0)
		fprintf(stderr, "stentor-connnode: --tls-cert: %s\n",
			tls_fault);
	else if (o->process.auth == AUTH_JWT &&
		 auth_config_check(auth, auth_fault) != 0)
		fprintf(stderr, "stentor-connnode: %s\n", auth_fault);
	else
		return 0;
	return ERR_CONFIG;
}

#include "dispatcher/options.h"

#include "common/base/err.h"
#include "common/io/auth.h"
#include "common/io/listener.h"
#include "dispatcher/route/interest.h"

#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(struct dispatcher_options, field)

#define MIB (1024u * 1024u)
#define GIB ((uint64_t)1024 * MIB)
#define TIB (1024 * GIB)

static const struct option options[] = {
	ROW_STRING("api-listen", AT(api_listen), "0.0.0.0:7070",
		   "gRPC (HTTP/2 prior knowledge) and Connect/JSON (HTTP/1.1), "
		   "one "
		   "port"),
	ROW_STRING("api-tls-cert", AT(api_tls_cert), "",
		   "certificate of that port with its chain, PEM file; empty: "
		   "no TLS"),
	ROW_STRING("api-tls-key", AT(api_tls_key), "", "its key, PEM file"),
	ROW_STRING("api-tls-client-ca", AT(api_tls_client_ca), "",
		   "authority of the certificates that its clients must show, "
		   "PEM file; empty: none are asked for"),
	ROW_STRING("link-listen", AT(process.link_listen), "tcp://0.0.0.0:7071",
		   "workers' control requests (nng); tls+tcp:// with "
		   "certificates"),
	ROW_STRING("admin-listen", AT(process.admin_listen), "0.0.0.0:7072",
		   "/metrics /livez /readyz /version /debug/*"),
	ROW_STRING("store", AT(store), "memory:",
		   "where history is kept: memory: or lmdb:PATH, which serve "
		   "one dispatcher, or redis://HOST:PORT[,HOST:PORT...], which "
		   "all share; rediss:// with TLS"),
	ROW_STRING("store-password", AT(store_password), "",
		   "password of the Redis user; empty: none"),
	ROW_STRING("store-tls-ca", AT(store_tls_ca), "",
		   "authorities of the certificates of a rediss:// store, PEM "
		   "file; empty: the system's"),
	ROW_STRING("store-tls-cert", AT(store_tls_cert), "",
		   "certificate that is shown to it with its chain, PEM file; "
		   "empty: none"),
	ROW_STRING("store-tls-key", AT(store_tls_key), "", "its key, PEM file"),
	ROW_SIZE("store-queue-bytes", AT(store_queue_bytes), "64MiB", MIB,
		 16 * GIB,
		 "most in messages that wait for the store; more are refused"),
	ROW_UINT("store-timeout-ms", AT(store_timeout_ms), "2000", 50, 60000,
		 "ms",
		 "after which a message that the store has not taken is "
		 "answered UNAVAILABLE"),
	ROW_SIZE("store-map-bytes", AT(store_map_bytes), "1GiB", MIB, TIB,
		 "most that memory: and lmdb: may hold"),
	ROW_UINT("store-replicas", AT(store_replicas), "0", 0, 16, NULL,
		 "Redis replicas that must have a message before it is "
		 "acknowledged"),
	ROW_UINT("idempotency-seconds", AT(idempotency_seconds), "300", 1,
		 86400, "s",
		 "for how long an idempotency_key gets the first answer again"),
	ROW_SIZE("data-bytes-max", AT(data_bytes_max), "1MiB", 1, 2 * MIB,
		 "most data in one message"),
	ROW_UINT("publish-rate-max", AT(publish_rate_max), "0", 0, 10000000,
		 "1/s", "messages that one token may go on publishing; 0: any"),
	ROW_UINT("publish-burst-max", AT(publish_burst_max), "1000", 1,
		 10000000, NULL, "messages that it may publish at once then"),
	ROW_UINT("publish-pending-max", AT(publish_pending_max), "65536", 16,
		 10000000, NULL,
		 "most messages that wait for the store; one connection may "
		 "have as many as are still free"),
	ROW_UINT("batch-pending-max", AT(batch_pending_max), "512", 1, 10000000,
		 NULL,
		 "most of those that belong to batches, all batches together; "
		 "the rest of a batch waits its turn"),
	ROW_SIZE("batch-bytes-max", AT(batch_bytes_max), "256MiB", MIB,
		 16 * GIB,
		 "most in batches under way; one connection may have as much "
		 "as is still free"),
	ROW_SIZE("link-queue-bytes", AT(link_queue_bytes), "16MiB", 64 * 1024,
		 1024 * MIB, "most that may wait for one worker"),
	ROW_SIZE("link-queues-bytes-max", AT(link_queues_bytes), "384MiB",
		 8 * MIB, TIB,
		 "most that all of that may cost together; the worker for whom "
		 "most waits gives way first"),
	ROW_UINT("workers-max", AT(workers_max), "2048", 1,
		 INTEREST_WORKERS_MAX, NULL,
		 "most workers linked to this dispatcher"),
	ROW_UINT("interest-max", AT(interest_max), "20000000", 1000, 1000000000,
		 NULL,
		 "most entries of the routing table, each a (channel, worker) "
		 "pair"),
	ROW_UINT("settle-ms", AT(settle_ms), "2000", 0, 60000, "ms",
		 "after start, time for workers to report before publishes are "
		 "taken"),
	ROW_UINT("settle-max-ms", AT(settle_max_ms), "10000", 0, 600000, "ms",
		 "after start, when publishes are taken even if some workers "
		 "are still reporting"),
	ROW_UINT("drain-seconds", AT(drain_seconds), "10", 0, 3600, "s",
		 "after SIGTERM, time for calls under way"),
	ROW_BOOL("rebalance", AT(rebalance), "true",
		 "nodes that hold more streams than their share send some away "
		 "to the others, as after a scale-out"),
	ROW_UINT("rebalance-margin", AT(rebalance_margin), "15", 1, 1000, "%",
		 "more than its share by so much, for a node to begin with it"),
	ROW_UINT("rebalance-rate", AT(rebalance_rate), "5", 1, 1000,
		 "per mille",
		 "of a node's streams that it sends away in a second then"),
	ROW_UINT("rebalance-calm-ms", AT(rebalance_calm_ms), "30000", 0,
		 3600000, "ms",
		 "after a node came, went or drained, time in which none does"),
	ROW_STRING("cors-origin", AT(cors_origin), "",
		   "origin of web pages that may call the API; empty: none"),
	ROW_UINT("api-connections-max", AT(api.connections_max), "1024", 1,
		 1000000, NULL, "most connections to the API"),
	ROW_UINT("api-connections-per-address-max",
		 AT(api.connections_per_address_max), "0", 0, 1000000, NULL,
		 "most connections to the API from one address (IPv6: /64); "
		 "0: any, as behind a proxy all have its address"),
	ROW_UINT("api-tls-handshakes-max", AT(api.tls_handshakes_max), "512", 1,
		 1000000, NULL,
		 "most TLS handshakes under way on the API port; over it the "
		 "oldest is cut"),
	ROW_UINT("api-streams-max", AT(api.streams_max), "1000", 1, 100000,
		 NULL, "most concurrent calls of one HTTP/2 connection"),
	ROW_SIZE("api-message-bytes-max", AT(api.message_bytes_max), "4MiB",
		 1024, 64 * MIB, "most in one request, uncompressed"),
	ROW_SIZE("api-head-bytes-max", AT(api.head_bytes_max), "16KiB", 1024,
		 MIB, "most in the head of one request"),
	ROW_UINT("api-head-timeout-ms", AT(api.head_timeout_ms), "10000", 10,
		 3600000, "ms", "time for a request's head to arrive whole"),
	ROW_UINT("api-body-timeout-ms", AT(api.body_timeout_ms), "30000", 10,
		 3600000, "ms", "time for a request's body to arrive whole"),
	ROW_UINT("api-idle-timeout-ms", AT(api.idle_timeout_ms), "300000", 100,
		 86400000, "ms",
		 "a connection without a call for so long is closed"),
	ROW_UINT(
		"api-write-timeout-ms", AT(api.write_timeout_ms), "30000", 10,
		3600000, "ms",
		"a connection that takes no byte of its answers for so long is "
		"closed"),
	ROW_UINT(
		"api-connection-age-ms", AT(api.connection_age_ms), "0", 0,
		86400000ull * 30, "ms",
		"after which a connection is asked to go elsewhere, +-10 %; 0: "
		"never"),
	ROW_UINT(
		"api-reset-rate", AT(api.reset_rate), "1000", 1, 1000000, "1/s",
		"stream resets that one connection may go on making; more ends "
		"it"),
	ROW_UINT("api-reset-burst", AT(api.reset_burst), "10000", 1, 10000000,
		 NULL, "stream resets that one connection may make at once"),
	ROW_UINT("api-ping-min-interval-ms", AT(api.ping_min_interval_ms),
		 "10000", 0, 3600000, "ms",
		 "least time between a client's keepalive pings; 0: any"),
	PROCESS_ROWS(AT(process)),
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

#define FILES_RESERVED 256 /* besides links */

uint64_t dispatcher_api_room(uint64_t nofile, uint64_t workers_max)
{
	uint64_t others = 2 * workers_max + FILES_RESERVED;

	return nofile - min_of(others, nofile / 2);
}

struct tls_files dispatcher_tls(const struct dispatcher_options *o)
{
	static const char *const alpn[] = {"h2", "http/1.1", NULL};

	return (struct tls_files){
		.cert = or_null(o->api_tls_cert),
		.key = or_null(o->api_tls_key),
		.client_ca = or_null(o->api_tls_client_ca),
		.alpn = alpn,
	};
}

static const char *fault_of(const struct dispatcher_options *o,
			    char text[LINKURL_FAULT])
{
	struct sockaddr_storage address;

	if (address_parse(o->api_listen, &address) != 0)
		return "--api-listen: not HOST:PORT";
	return process_options_fault(&o->process, text);
}

int dispatcher_options_check(const struct dispatcher_options *o,
			     const struct auth_config *auth)
{
	char text[LINKURL_FAULT], tls_fault[TLS_FAULT], auth_fault[AUTH_FAULT];
	const char *fault = fault_of(o, text);
	struct tls_files tls = dispatcher_tls(o);

	if (fault != NULL)
		fprintf(stderr, "stentor-dispatcher: %s\n", fault);
	else if (tls_files_check(&tls, tls_fault) != 0)
		fprintf(stderr, "stentor-dispatcher: --api-tls-cert: %s\n",
			tls_fault);
	else if (o->process.auth == AUTH_JWT &&
		 auth_config_check(auth, auth_fault) != 0)
		fprintf(stderr, "stentor-dispatcher: %s\n", auth_fault);
	else
		return 0;
	return ERR_CONFIG;
}

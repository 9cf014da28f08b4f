/* api_port.h - an API port for fuzz targets: bytes go in by a real connection,
 * into whichever front they choose, and what comes out is read and forgotten.
 *
 * Behind it are the real health and reflection services, and fuzz.Echo: Say
 * (also by GET) answers message_id = data, Stream answers each message, with
 * 64 KiB for "big". After "hold" both wait until the input's end.
 *
 * After each input the port must hold nothing of it any more, and while it runs
 * never more than it may.
 */
#ifndef STENTOR_TESTS_FUZZ_API_PORT_H
#define STENTOR_TESTS_FUZZ_API_PORT_H

#include "common/base/log.h"
#include "dispatcher/api/health.h"
#include "dispatcher/api/port.h"
#include "dispatcher/api/reflection.h"
#include "stentor/v1/publisher.pb-c.h"
#include "tests/fuzz/fuzz.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define FUZZ_TURNS_MAX 10000

typedef Stentor__V1__PublishRequest FuzzRequest;

/* Calls that wait; a peer can't have more than its streams. */
#define FUZZ_HELD_MAX 16
static struct rpc_call *fuzz_held[FUZZ_HELD_MAX];

static inline void fuzz_hold(struct rpc_call *call)
{
	unsigned i = 0;

	while (fuzz_held[i] != NULL) {
		i++;
		check(i < FUZZ_HELD_MAX);
	}
	fuzz_held[i] = call;
}

static inline void fuzz_on_cancel(struct rpc_call *call)
{
	for (unsigned i = 0; i < FUZZ_HELD_MAX; i++)
		if (fuzz_held[i] == call)
			fuzz_held[i] = NULL;
	rpc_finish(call, GRPC_CANCELLED, "%s", "");
}

static inline void fuzz_let_go(void)
{
	for (unsigned i = 0; i < FUZZ_HELD_MAX; i++) {
		struct rpc_call *call = fuzz_held[i];

		fuzz_held[i] = NULL;
		if (call != NULL && call->method->client_streaming)
			rpc_resume(call);
		else if (call != NULL)
			rpc_fail(call, GRPC_ABORTED, "%s", "let go");
	}
}

static inline void fuzz_on_say(struct rpc_call *call, const ProtobufCMessage *m)
{
	const FuzzRequest *r = (const FuzzRequest *)m;
	Stentor__V1__PublishResponse answer;

	if (strcmp(r->data, "hold") == 0) {
		fuzz_hold(call);
		return;
	}
	if (strcmp(r->data, "fail") == 0) {
		rpc_fail(call, GRPC_INVALID_ARGUMENT, "%s", r->channel);
		return;
	}
	stentor__v1__publish_response__init(&answer);
	answer.message_id = r->data;
	rpc_reply(call, &answer.base);
}

static inline void fuzz_on_stream(struct rpc_call *call,
				  const ProtobufCMessage *m)
{
	static char big[64 << 10];
	const FuzzRequest *r = (const FuzzRequest *)m;
	Stentor__V1__PublishResult answer;

	memset(big, 'x', sizeof(big) - 1);
	stentor__v1__publish_result__init(&answer);
	answer.error = strcmp(r->data, "big") == 0 ? big : r->data;
	rpc_send(call, &answer.base);
	if (strcmp(r->data, "hold") == 0) {
		fuzz_hold(call);
		rpc_pause(call);
	}
}

static const struct rpc_method fuzz_methods[] = {
	{
		.name = "Say",
		.input = &stentor__v1__publish_request__descriptor,
		.output = &stentor__v1__publish_response__descriptor,
		.no_side_effects = true,
		.on_message = fuzz_on_say,
		.on_cancel = fuzz_on_cancel,
	},
	{
		.name = "Stream",
		.input = &stentor__v1__publish_request__descriptor,
		.output = &stentor__v1__publish_result__descriptor,
		.client_streaming = true,
		.server_streaming = true,
		.on_message = fuzz_on_stream,
		.on_cancel = fuzz_on_cancel,
	},
};

static const struct api_limits fuzz_api_limits = {
	.connections_max = 10,
	.streams_max = 10,
	.message_bytes_max = 64 << 10,
	.head_bytes_max = 4 << 10,
	.head_timeout_ms = 10000,
	.body_timeout_ms = 10000,
	.idle_timeout_ms = 60000,
	.write_timeout_ms = 10000,
	.reset_burst = 20,
	.reset_rate = 10,
	.ping_min_interval_ms = 10000,
	.cors_origin = "https://a.example",
};

/* One for all inputs of a process. */
struct fuzz_api {
	uv_loop_t loop;
	struct api *api;
	struct health *health;
	struct rpc_service services[5];
};

static inline struct fuzz_api *fuzz_api(void)
{
	static struct fuzz_api f;
	int rc;

	if (f.api != NULL)
		return &f;
	log_init("fuzz", LOG_ERROR, false);
	signal(SIGPIPE, SIG_IGN);
	uv_loop_init(&f.loop);
	f.health = health_new();
	f.services[0] = (struct rpc_service){
		.name = "fuzz.Echo",
		.methods = fuzz_methods,
		.method_count = array_len(fuzz_methods),
	};
	f.services[1] = health_service(f.health);
	f.services[2] = reflection_service_v1(f.services);
	f.services[3] = reflection_service_v1alpha(f.services);
	rc = api_start(&f.loop, "127.0.0.1:0", &fuzz_api_limits, f.services,
		       &f.api);
	check(rc == 0);
	return &f;
}

/* Closed by reset, so that no port is kept for it afterwards. */
static inline int fuzz_connect(const struct fuzz_api *f)
{
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons(api_port(f->api)),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct linger reset = {.l_onoff = 1};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

	check(fd >= 0);
	rc = setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	check(rc == 0);
	rc = connect(fd, (struct sockaddr *)&a, sizeof(a));
	check(rc == 0);
	rc = fcntl(fd, F_SETFL, O_NONBLOCK);
	check(rc == 0);
	return fd;
}

static inline void fuzz_turn(const struct fuzz_api *f, int fd)
{
	static char sink[64 << 10];
	const struct api *api = f->api;

	uv_run((uv_loop_t *)&f->loop, UV_RUN_NOWAIT);
	check(api->body_bytes <=
	      api->limits.streams_max * (2 * api->limits.message_bytes_max));
	check(api->queued_bytes <= API_CONNECTION_QUEUE_MAX);
	while (fd >= 0 && recv(fd, sink, sizeof(sink), 0) > 0)
		;
}

/* Sends `len` bytes as one piece, as far as the port lets them in. */
static inline void fuzz_send(const struct fuzz_api *f, int fd,
			     const uint8_t *bytes, size_t len)
{
	for (unsigned turn = 0; len > 0 && turn < FUZZ_TURNS_MAX; turn++) {
		ssize_t n = send(fd, bytes, len, MSG_NOSIGNAL);

		if (n < 0 && errno != EAGAIN)
			return;
		bytes += max_of(n, 0);
		len -= (size_t)max_of(n, 0);
		fuzz_turn(f, fd);
	}
}

/* One connection's life. The first byte of the input is the size of the pieces
 * it goes out in (0: one), and whether the peer half-closes or breaks off. */
static inline void fuzz_connection(const char *preface, const uint8_t *data,
				   size_t size)
{
	struct fuzz_api *f = fuzz_api();
	struct fuzz_input in = {data, size};
	uint8_t how = fuzz_byte(&in);
	size_t piece = how & 0x7f ? (how & 0x7f) * 4u : SIZE_MAX;
	int fd = fuzz_connect(f);

	fuzz_send(f, fd, (const uint8_t *)preface, strlen(preface));
	while (in.left > 0) {
		size_t len = piece;
		uint8_t *bytes = fuzz_bytes(&in, &len);

		fuzz_send(f, fd, bytes, len);
		free(bytes);
	}
	if (how & 0x80)
		shutdown(fd, SHUT_WR);
	fuzz_turn(f, fd);
	fuzz_turn(f, fd);
	close(fd);
	for (unsigned turn = 0;
	     f->api->connection_count > 0 || f->api->calls > 0; turn++) {
		check(turn < FUZZ_TURNS_MAX);
		fuzz_let_go();
		fuzz_turn(f, -1);
	}
	check(f->api->body_bytes == 0);
	check(f->api->queued_bytes == 0);
}

#endif

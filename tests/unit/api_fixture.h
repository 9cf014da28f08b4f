/* api_fixture.h - an API port in the test's own loop, an echo service behind
 * it, and a plain socket in front of it.
 *
 * Echo.Say answers message_id = data, except: "fail" is refused, "hold" waits
 * until the test answers f->held. Echo.Stats is the same without side effects.
 * Echo.Stream answers each message with its number; "big" makes its answer
 * 64 KiB long; after "hold" it takes no more until the test resumes f->held.
 */
#ifndef STENTOR_TESTS_API_FIXTURE_H
#define STENTOR_TESTS_API_FIXTURE_H

#include "common/base/mem.h"
#include "common/base/metrics.h"
#include "dispatcher/api/health.h"
#include "dispatcher/api/reflection.h"
#include "dispatcher/api/rpc.h"
#include "stentor/v1/publisher.pb-c.h"
#include "tests/unit/loop_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BIG_ANSWER (64u << 10)

typedef Stentor__V1__PublishRequest echo_request;
typedef Stentor__V1__PublishResponse echo_answer;
typedef Stentor__V1__PublishResult echo_result;

struct api_fixture {
	struct loop_fixture *l;
	struct api *api;
	struct health *health;
	struct rpc_service services[5];
	struct rpc_call *held;
	unsigned messages, cancelled, half_closed;
	bool drained;
	char big[BIG_ANSWER + 1];
};

static inline void echo_reply(struct rpc_call *call, const char *text)
{
	echo_answer m;

	stentor__v1__publish_response__init(&m);
	m.message_id = (char *)text;
	rpc_reply(call, &m.base);
}

static inline void echo_on_say(struct rpc_call *call, const ProtobufCMessage *m)
{
	struct api_fixture *f = call->service->ctx;
	const echo_request *r = (const echo_request *)m;

	f->messages++;
	if (strcmp(r->data, "fail") == 0) {
		rpc_fail(call, GRPC_INVALID_ARGUMENT, "no \"\xc3\xbc\" 100%%");
	} else if (strcmp(r->data, "hold") == 0) {
		f->held = call;
	} else {
		echo_reply(call, r->data);
	}
}

/* The handler ends the call later, as one that waits for others would. */
static inline void echo_on_cancel(struct rpc_call *call)
{
	struct api_fixture *f = call->service->ctx;

	assert_ptr_equal(call, f->held);
	f->cancelled++;
}

static inline void echo_on_stream(struct rpc_call *call,
				  const ProtobufCMessage *m)
{
	struct api_fixture *f = call->service->ctx;
	const echo_request *r = (const echo_request *)m;
	echo_result answer;

	stentor__v1__publish_result__init(&answer);
	answer.code = ++f->messages;
	answer.error = strcmp(r->data, "big") == 0 ? f->big : r->data;
	rpc_send(call, &answer.base);
	if (strcmp(r->data, "hold") == 0) {
		f->held = call;
		rpc_pause(call);
	}
}

static inline void echo_on_half_close(struct rpc_call *call)
{
	struct api_fixture *f = call->service->ctx;

	f->half_closed++;
	rpc_finish(call, GRPC_OK, "%s", "");
}

static const struct rpc_method echo_methods[] = {
	{
		.name = "Say",
		.input = &stentor__v1__publish_request__descriptor,
		.output = &stentor__v1__publish_response__descriptor,
		.on_message = echo_on_say,
		.on_cancel = echo_on_cancel,
	},
	{
		.name = "Stats",
		.input = &stentor__v1__publish_request__descriptor,
		.output = &stentor__v1__publish_response__descriptor,
		.no_side_effects = true,
		.on_message = echo_on_say,
	},
	{
		.name = "Stream",
		.input = &stentor__v1__publish_request__descriptor,
		.output = &stentor__v1__publish_result__descriptor,
		.client_streaming = true,
		.server_streaming = true,
		.on_message = echo_on_stream,
		.on_half_close = echo_on_half_close,
	},
};

static const struct api_limits api_test_limits = {
	.connections_max = 100,
	.streams_max = 100,
	.message_bytes_max = 1 << 20,
	.head_bytes_max = 16 << 10,
	.head_timeout_ms = 10000,
	.body_timeout_ms = 10000,
	.idle_timeout_ms = 60000,
	.write_timeout_ms = 10000,
	.reset_burst = 1000,
	.reset_rate = 100,
	.ping_min_interval_ms = 10000,
};

static inline int api_setup(void **state)
{
	struct api_fixture *f = xcalloc(1, sizeof(*f));

	if (loop_setup((void **)&f->l) != 0)
		return -1;
	memset(f->big, 'x', BIG_ANSWER);
	f->health = health_new();
	f->services[0] = (struct rpc_service){
		.name = "test.Echo",
		.methods = echo_methods,
		.method_count = array_len(echo_methods),
		.ctx = f,
	};
	f->services[1] = health_service(f->health);
	f->services[2] = reflection_service_v1(f->services);
	f->services[3] = reflection_service_v1alpha(f->services);
	*state = f;
	return 0;
}

/* The test has had api_end() called. */
static inline int api_teardown(void **state)
{
	struct api_fixture *f = *state;
	int rv = loop_teardown((void **)&f->l);

	health_free(f->health);
	free(f);
	return rv;
}

static inline void api_begin(struct api_fixture *f,
			     const struct api_limits *limits)
{
	assert_int_equal(api_start(&f->l->loop, "127.0.0.1:0", limits,
				   f->services, &f->api),
			 0);
}

static inline void api_on_drained(void *ctx)
{
	struct api_fixture *f = ctx;

	f->drained = true;
}

static inline void api_end(struct api_fixture *f, uint64_t grace_ms)
{
	api_drain(f->api, grace_ms, api_on_drained, f);
	loop_until(f->l, f->drained);
	api_free(f->api);
}

/* A counter's value, from the exposition as an operator sees it; `line` is
 * what stands before the value. -1: there is none. */
static inline double api_counter(const struct api_fixture *f, const char *line)
{
	struct metrics_text t = {NULL, 0, 0};
	char *text, *at;
	double value = -1;

	api_metrics(f->api, &t);
	text = xmemdupz(t.bytes, t.len);
	at = strstr(text, line);
	while (at && at != text && at[-1] != '\n')
		at = strstr(at + 1, line);
	if (at)
		value = strtod(at + strlen(line), NULL);
	free(text);
	metrics_text_free(&t);
	return value;
}

/* A client's socket and all that came out of it. */
struct peer {
	int fd;
	bool ended; /* the server has closed */
	char bytes[4 << 20];
	size_t len;
};

static inline struct peer *peer_new(const struct api_fixture *f)
{
	struct peer *p = xcalloc(1, sizeof(*p));
	struct sockaddr_in a = {.sin_family = AF_INET,
				.sin_port = htons(api_port(f->api)),
				.sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	p->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(connect(p->fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(fcntl(p->fd, F_SETFL, O_NONBLOCK), 0);
	return p;
}

static inline void peer_free(struct peer *p)
{
	close(p->fd);
	free(p);
}

static inline void peer_send(struct peer *p, const void *bytes, size_t len)
{
	assert_int_equal(send(p->fd, bytes, len, MSG_NOSIGNAL), (ssize_t)len);
}

static inline void peer_say(struct peer *p, const char *text)
{
	peer_send(p, text, strlen(text));
}

/* Takes what has come; true if there was anything. */
static inline bool peer_read(struct peer *p)
{
	ssize_t n = recv(p->fd, p->bytes + p->len,
			 sizeof(p->bytes) - 1 - p->len, 0);

	if (n == 0 || (n < 0 && errno != EAGAIN))
		p->ended = true;
	if (n <= 0)
		return false;
	p->len += (size_t)n;
	p->bytes[p->len] = 0;
	return true;
}

static inline unsigned peer_count(struct peer *p, const char *text)
{
	unsigned n = 0;

	peer_read(p);
	for (const char *at = p->bytes; (at = strstr(at, text)) != NULL; at++)
		n++;
	return n;
}

#endif

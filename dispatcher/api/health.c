/* health.c - grpc.health.v1.Health. */
#include "dispatcher/api/health.h"

#include "common/base/mem.h"
#include "common/ds/list.h"
#include "grpc/health/v1/health.pb-c.h"

#include <stdlib.h>
#include <string.h>

typedef Grpc__Health__V1__HealthCheckRequest request_message;
typedef Grpc__Health__V1__HealthCheckResponse response_message;

/* grpc.health.v1.HealthCheckResponse.ServingStatus */
enum { SERVING = 1, NOT_SERVING = 2, SERVICE_UNKNOWN = 3 };

struct health {
	struct {
		char *name;
		bool serving;
	} services[HEALTH_SERVICES_MAX];
	size_t service_count;
	struct list watches;
	size_t watch_count;
};

struct watch {
	struct list in_health;
	struct rpc_call *call;
	char *service;
	int told; /* the status last sent */
};

struct health *health_new(void)
{
	struct health *h = xcalloc(1, sizeof(*h));

	list_init(&h->watches);
	return h;
}

void health_free(struct health *h)
{
	check(list_empty(&h->watches));
	for (size_t i = 0; i < h->service_count; i++)
		free(h->services[i].name);
	free(h);
}

/* SERVICE_UNKNOWN for a name nobody has set. */
static int status_of(const struct health *h, const char *service)
{
	for (size_t i = 0; i < h->service_count; i++) {
		if (strcmp(h->services[i].name, service) == 0)
			return h->services[i].serving ? SERVING : NOT_SERVING;
	}
	return SERVICE_UNKNOWN;
}

static void health_tell(struct rpc_call *call, int status)
{
	response_message m;

	grpc__health__v1__health_check_response__init(&m);
	m.status = status;
	rpc_send(call, &m.base);
}

static void watch_tell(const struct health *h, struct watch *w)
{
	int status = status_of(h, w->service);

	if (status == w->told)
		return;
	w->told = status;
	health_tell(w->call, status);
}

void health_set(struct health *h, const char *service, bool serving)
{
	size_t i = 0;

	while (i < h->service_count &&
	       strcmp(h->services[i].name, service) != 0)
		i++;
	if (i == h->service_count) {
		check(i < HEALTH_SERVICES_MAX);
		h->services[i].name = xstrdup(service);
		h->service_count++;
	}
	h->services[i].serving = serving;
	list_for_each (node, &h->watches) {
		watch_tell(h, container_of(node, struct watch, in_health));
	}
}

void health_set_all(struct health *h, const struct rpc_service *services,
		    bool serving)
{
	health_set(h, "", serving);
	for (; services->name; services++)
		health_set(h, services->name, serving);
}

static void on_check(struct rpc_call *call, const ProtobufCMessage *m)
{
	const request_message *r = (const request_message *)m;
	int status = status_of(call->service->ctx, r->service);

	if (status == SERVICE_UNKNOWN) {
		rpc_fail(call, GRPC_NOT_FOUND, "unknown service");
		return;
	}
	health_tell(call, status);
	rpc_finish(call, GRPC_OK, "%s", "");
}

static void health_on_watch(struct rpc_call *call, const ProtobufCMessage *m)
{
	const request_message *r = (const request_message *)m;
	struct health *h = call->service->ctx;
	struct watch *w;

	if (h->watch_count >= HEALTH_WATCHES_MAX) {
		rpc_fail(call, GRPC_RESOURCE_EXHAUSTED, "more than %d watches",
			 HEALTH_WATCHES_MAX);
		return;
	}
	w = xcalloc(1, sizeof(*w));
	w->call = call;
	w->service = xstrdup(r->service);
	w->told = -1;
	call->state = w;
	list_push_back(&h->watches, &w->in_health);
	h->watch_count++;
	watch_tell(h, w);
}

static void on_watch_cancel(struct rpc_call *call)
{
	struct health *h = call->service->ctx;
	struct watch *w = call->state;

	list_remove(&w->in_health);
	h->watch_count--;
	free(w->service);
	free(w);
	rpc_finish(call, GRPC_CANCELLED, "%s", "");
}

static const struct rpc_method methods[] = {
	{
		.name = "Check",
		.input = &grpc__health__v1__health_check_request__descriptor,
		.output = &grpc__health__v1__health_check_response__descriptor,
		.no_side_effects = true,
		.on_message = on_check,
	},
	{
		.name = "Watch",
		.input = &grpc__health__v1__health_check_request__descriptor,
		.output = &grpc__health__v1__health_check_response__descriptor,
		.server_streaming = true,
		.on_message = health_on_watch,
		.on_cancel = on_watch_cancel,
	},
};

struct rpc_service health_service(struct health *h)
{
	return (struct rpc_service){
		.name = "grpc.health.v1.Health",
		.methods = methods,
		.method_count = array_len(methods),
		.ctx = h,
	};
}

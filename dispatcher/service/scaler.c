/* externalscaler.ExternalScaler: KEDA asks how much the fleet has to carry and
 * how much one node is to.
 *
 * Every dispatcher has the same view of all nodes (fleet.h), so it does not
 * matter which one is asked. A value that is too low would shrink the fleet: a
 * dispatcher that has just started, or sees no node or less than half of those
 * it saw a minute ago, answers UNAVAILABLE instead, and KEDA's `fallback`
 * decides.
 *
 * The scaler's metadata say which metric (metricName) and how much of it a node
 * is to carry (target). Values are sums over the fleet, for metricType
 * AverageValue.
 */
#include "dispatcher/service/service.h"
#include "externalscaler/externalscaler.pb-c.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef Externalscaler__ScaledObjectRef Ref;

/* --- metrics ----------------------------------------------------------- */

static double connections(const struct fleet_sums *s)
{
	return (double)s->connections;
}

static double accepts(const struct fleet_sums *s)
{
	return (double)s->accepts;
}

static double fanout_bytes(const struct fleet_sums *s)
{
	return (double)s->sent_bytes;
}

static double queue_age_ms(const struct fleet_sums *s)
{
	return (double)s->queue_age_us / 1000;
}

/* Percent of a node. */
static double scaler_load(const struct fleet_sums *s)
{
	return (double)s->fullness / 10;
}

static const struct scaler_metric {
	const char *name;
	double target; /* for one node, unless metadata say otherwise */
	double (*value)(const struct fleet_sums *s);
} metrics[] = {
	{"connections", 35000, connections},
	{"accepts", 1000, accepts},
	{"fanout_bytes", 100 << 20, fanout_bytes},
	{"queue_age_ms", 100, queue_age_ms},
	{"load", 70, scaler_load},
};

/* "": the first. NULL: there is none of this name. */
static const struct scaler_metric *metric_find(const char *name)
{
	if (name[0] == '\0')
		return &metrics[0];
	for (size_t i = 0; i < array_len(metrics); i++) {
		if (strcmp(metrics[i].name, name) == 0)
			return &metrics[i];
	}
	return NULL;
}

static const char *metadata(const Ref *ref, const char *key)
{
	for (size_t i = 0; ref != NULL && i < ref->n_scalermetadata; i++) {
		if (strcmp(ref->scalermetadata[i]->key, key) == 0)
			return ref->scalermetadata[i]->value;
	}
	return "";
}

/* 0: not a number above 0. */
static double scaler_number(const char *text)
{
	char *end;
	double value = strtod(text, &end);

	return end != text && *end == '\0' && isfinite(value) && value > 0
		       ? value
		       : 0;
}

/* --- calls ------------------------------------------------------------- */

/* Ends the call if nothing is known of the fleet. */
static bool sighted(struct rpc_call *call)
{
	const struct scaler_service *s = call->service->ctx;

	if (*s->settled && fleet_sighted(s->fleet))
		return true;
	rpc_fail(call, GRPC_UNAVAILABLE,
		 *s->settled ? "most connection nodes are out of sight"
			     : "settling: waiting for workers to report");
	return false;
}

/* True if it was said. */
static bool say_active(struct rpc_call *call)
{
	Externalscaler__IsActiveResponse active =
		EXTERNALSCALER__IS_ACTIVE_RESPONSE__INIT;

	if (!sighted(call))
		return false;
	active.result = true;
	rpc_send(call, &active.base);
	return true;
}

static void on_is_active(struct rpc_call *call,
			 const ProtobufCMessage *m UNUSED)
{
	if (say_active(call))
		rpc_finish(call, GRPC_OK, "%s", "");
}

/* A fleet is never asked to sleep, so there is no change to tell later. */
static void on_stream_is_active(struct rpc_call *call,
				const ProtobufCMessage *m UNUSED)
{
	say_active(call);
}

static void on_get_metric_spec(struct rpc_call *call, const ProtobufCMessage *m)
{
	const Ref *ref = (const Ref *)m;
	const struct scaler_metric *metric =
		metric_find(metadata(ref, "metricName"));
	const char *target = metadata(ref, "target");
	Externalscaler__MetricSpec spec = EXTERNALSCALER__METRIC_SPEC__INIT;
	Externalscaler__MetricSpec *specs[1] = {&spec};
	Externalscaler__GetMetricSpecResponse response =
		EXTERNALSCALER__GET_METRIC_SPEC_RESPONSE__INIT;

	if (metric == NULL) {
		rpc_fail(call, GRPC_INVALID_ARGUMENT,
			 "metricName: connections, accepts, fanout_bytes, "
			 "queue_age_ms or load");
		return;
	}
	spec.targetsizefloat =
		target[0] != '\0' ? scaler_number(target) : metric->target;
	if (spec.targetsizefloat == 0 || spec.targetsizefloat > 1e15) {
		rpc_fail(call, GRPC_INVALID_ARGUMENT,
			 "target: a number above 0");
		return;
	}
	spec.metricname = (char *)metric->name;
	spec.targetsize = (int64_t)ceil(spec.targetsizefloat);
	response.n_metricspecs = 1;
	response.metricspecs = specs;
	rpc_reply(call, &response.base);
}

static void on_get_metrics(struct rpc_call *call, const ProtobufCMessage *m)
{
	const Externalscaler__GetMetricsRequest *request =
		(const Externalscaler__GetMetricsRequest *)m;
	const struct scaler_service *s = call->service->ctx;
	const struct scaler_metric *metric = metric_find(
		request->metricname[0] != '\0'
			? request->metricname
			: metadata(request->scaledobjectref, "metricName"));
	Externalscaler__MetricValue value = EXTERNALSCALER__METRIC_VALUE__INIT;
	Externalscaler__MetricValue *values[1] = {&value};
	Externalscaler__GetMetricsResponse response =
		EXTERNALSCALER__GET_METRICS_RESPONSE__INIT;

	if (metric == NULL) {
		rpc_fail(call, GRPC_INVALID_ARGUMENT,
			 "metricName: there is no such metric");
		return;
	}
	if (!sighted(call))
		return;
	value.metricname = (char *)metric->name;
	value.metricvaluefloat = metric->value(&s->fleet->sums);
	value.metricvalue = (int64_t)ceil(value.metricvaluefloat);
	response.n_metricvalues = 1;
	response.metricvalues = values;
	rpc_reply(call, &response.base);
}

static const struct rpc_method methods[] = {
	{
		.name = "IsActive",
		.input = &externalscaler__scaled_object_ref__descriptor,
		.output = &externalscaler__is_active_response__descriptor,
		.on_message = on_is_active,
	},
	{
		.name = "StreamIsActive",
		.input = &externalscaler__scaled_object_ref__descriptor,
		.output = &externalscaler__is_active_response__descriptor,
		.server_streaming = true,
		.on_message = on_stream_is_active,
	},
	{
		.name = "GetMetricSpec",
		.input = &externalscaler__scaled_object_ref__descriptor,
		.output = &externalscaler__get_metric_spec_response__descriptor,
		.on_message = on_get_metric_spec,
	},
	{
		.name = "GetMetrics",
		.input = &externalscaler__get_metrics_request__descriptor,
		.output = &externalscaler__get_metrics_response__descriptor,
		.on_message = on_get_metrics,
	},
};

/* KEDA has no token to show; the sums are no secret. */
struct rpc_service scaler_service(struct scaler_service *s)
{
	return (struct rpc_service){
		.name = "externalscaler.ExternalScaler",
		.methods = methods,
		.method_count = array_len(methods),
		.ctx = s,
	};
}

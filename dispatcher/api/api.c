/* api.c - the port: listener, turn of the loop, clocks, drain, counters. */
#include "dispatcher/api/port.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "dispatcher/api/h2.h"

#include <stdlib.h>
#include <string.h>

#define API_WHEEL_SLOTS 512

static const char *const close_reasons[] = {
	"peer",		"done",		 "head_timeout", "body_timeout",
	"idle_timeout", "write_timeout", "protocol",	 "abuse",
	"cut",		"made_way",	 NULL,
};
_Static_assert(array_len(close_reasons) == CLOSE_REASONS, "one name each");

static const char *const reject_reasons[] = {"full", "address", "failed",
					     "files", NULL};

static const struct metric_desc metric_table[API_METRICS] = {
	[API_CONNECTIONS] = {"api_connections", METRIC_GAUGE, NULL, NULL,
			     "Open connections of the API port."},
	[API_CONNECTIONS_ACCEPTED] = {"api_connections_accepted_total",
				      METRIC_COUNTER, NULL, NULL,
				      "Connections accepted on the API port."},
	[API_CONNECTIONS_REJECTED] = {"api_connections_rejected_total",
				      METRIC_COUNTER, "reason", reject_reasons,
				      "Connections not taken: too many in all, "
				      "too many of one address, lost at "
				      "once, or no file descriptor left."},
	[API_CONNECTIONS_CLOSED] = {"api_connections_closed_total",
				    METRIC_COUNTER, "reason", close_reasons,
				    "Connections of the API port that ended."},
	[API_CALLS] = {"api_calls", METRIC_GAUGE, NULL, NULL,
		       "Calls that are being worked on."},
	[API_CALLS_CANCELLED] = {"api_calls_cancelled_total", METRIC_COUNTER,
				 NULL, NULL,
				 "Calls given up by the client, a deadline or "
				 "a limit."},
	[API_STREAMS_REFUSED] = {"api_streams_refused_total", METRIC_COUNTER,
				 NULL, NULL,
				 "HTTP/2 streams refused at the limit."},
	[API_BODY_BYTES] = {"api_body_bytes", METRIC_GAUGE, NULL, NULL,
			    "Bytes of requests that have not arrived "
			    "completely."},
	[API_QUEUED_BYTES] = {"api_queued_bytes", METRIC_GAUGE, NULL, NULL,
			      "Bytes of answers that clients have not taken."},
	[API_QUEUE_OVERFLOWS] = {"api_queue_overflows_total", METRIC_COUNTER,
				 NULL, NULL,
				 "Calls ended because their answers were not "
				 "taken."},
	[API_BODY_OVERFLOWS] = {"api_body_overflows_total", METRIC_COUNTER,
				NULL, NULL,
				"Calls ended because too many incomplete "
				"requests were held."},
	[API_TLS_HANDSHAKES] = {"tls_handshakes_total", METRIC_COUNTER,
				"outcome", tls_outcome_names,
				"TLS handshakes of the API port; unfinished: "
				"the client left or was too slow."},
};

static void api_on_wheel(void *ctx UNUSED, struct wheel_timer *timer)
{
	struct api_timer *t = container_of(timer, struct api_timer, in_wheel);

	t->fire(t);
}

static void api_on_spin(uv_idle_t *idle UNUSED)
{
	/* While it is active the loop does not sleep. */
}

static void on_prepare(uv_prepare_t *p)
{
	struct api *api = p->data;
	struct list batch;

	if (conn_tls_turn(api))
		uv_idle_start(&api->spin, api_on_spin);
	else
		uv_idle_stop(&api->spin);
	/* A flush may make other connections dirty; they have their turn in
	 * this one too, so that nothing waits for the next event. */
	while (!list_empty(&api->dirty)) {
		list_init(&batch);
		list_splice_back(&batch, &api->dirty);
		while (!list_empty(&batch))
			conn_flush(container_of(batch.next, struct conn,
						in_dirty));
	}
}

static void api_on_handle_closed(uv_handle_t *h)
{
	struct api *api = h->data;

	check(api->handles > 0);
	if (--api->handles == 0)
		api->on_drained(api->on_drained_ctx);
}

static void api_maybe_drained(struct api *api)
{
	if (!api->draining || api->drained || api->listener.open ||
	    api->connection_count > 0 || api->calls > 0)
		return;
	api->drained = true;
	api->handles = 5;
	uv_close((uv_handle_t *)&api->spin, api_on_handle_closed);
	uv_close((uv_handle_t *)&api->prepare, api_on_handle_closed);
	uv_close((uv_handle_t *)&api->gather, api_on_handle_closed);
	uv_close((uv_handle_t *)&api->tick, api_on_handle_closed);
	uv_close((uv_handle_t *)&api->tls_refresh, api_on_handle_closed);
}

static void api_on_listener_closed(struct listener *l)
{
	api_maybe_drained(l->ctx);
}

/* Who has begun to connect is not refused. */
static void stop_listening(struct api *api, uint64_t now)
{
	if (!api->listening ||
	    (now - api->drain_ms < API_DRAIN_LISTEN_MS && now < api->cut_ms))
		return;
	api->listening = false;
	listener_finish(&api->listener, api_on_listener_closed);
}

static void api_on_tick(uv_timer_t *t)
{
	struct api *api = t->data;
	uint64_t now = api_now(api), every = api->sweep_every_ms;

	wheel_run(&api->wheel, now, UINT32_MAX, api_on_wheel, api);
	if (api->draining) {
		stop_listening(api, now);
		every = min_of(every, (uint64_t)API_DRAIN_SWEEP_MS);
	}
	api_maybe_drained(api);
	if (api->drained || now - api->swept_ms < every)
		return;
	api->swept_ms = now;
	list_for_each_safe (node, &api->connections) {
		conn_sweep(container_of(node, struct conn, in_api), now);
	}
	if (!api->draining && api->connection_count == 0 && api->calls == 0)
		uv_timer_stop(t);
}

static void tick_start(struct api *api)
{
	if (!uv_is_active((uv_handle_t *)&api->tick)) {
		uv_update_time(api->loop);
		uv_timer_start(&api->tick, api_on_tick, API_TICK_MS,
			       API_TICK_MS);
	}
}

void api_timer_arm(struct api *api, struct api_timer *t, uint64_t delay_ms)
{
	wheel_arm(&api->wheel, &t->in_wheel, api_now(api) + delay_ms);
	tick_start(api);
}

static void on_gathered(uv_timer_t *t)
{
	h2_calls_gathered(t->data);
}

void api_gather(struct api *api)
{
	if (!uv_is_active((uv_handle_t *)&api->gather))
		uv_timer_start(&api->gather, on_gathered, API_GATHER_MS, 0);
}

static void api_on_accept(struct listener *l)
{
	struct api *api = l->ctx;

	conn_accept(api);
	tick_start(api);
}

static void on_refused(struct listener *l)
{
	struct api *api = l->ctx;

	metric_add(&api->metrics, API_CONNECTIONS_REJECTED, API_REJECT_FILES,
		   1);
}

static uint64_t sweep_interval(const struct api_limits *l)
{
	uint64_t shortest = min_of(l->head_timeout_ms, l->body_timeout_ms);

	shortest = min_of(shortest, l->idle_timeout_ms);
	shortest = min_of(shortest, l->write_timeout_ms);
	if (l->connection_age_ms > 0)
		shortest = min_of(shortest, l->connection_age_ms);
	shortest = max_of(shortest / 4, (uint64_t)API_TICK_MS);
	return min_of(shortest, (uint64_t)API_SWEEP_MAX_MS);
}

void api_tls_refresh(struct api *api)
{
	if (api->tls)
		tls_context_refresh(api->tls);
}

static void on_tls_refresh(uv_timer_t *t)
{
	api_tls_refresh(t->data);
}

static int start_tls(const struct api_limits *limits, struct tls_context **out)
{
	char fault[TLS_FAULT];
	int rv;

	*out = NULL;
	if (!limits->tls.cert)
		return 0;
	rv = tls_context_new(&limits->tls, out, fault);
	if (rv != 0)
		log_error("API-TLS", "fault=\"%s\"", fault);
	return rv;
}

int api_start(uv_loop_t *loop, const char *address,
	      const struct api_limits *limits,
	      const struct rpc_service *services, struct api **out)
{
	struct api *api = xcalloc(1, sizeof(*api));
	struct listener_options options = {
		.user_timeout_ms = (uint32_t)limits->write_timeout_ms,
		.on_refused = on_refused,
	};
	int rv = start_tls(limits, &api->tls);

	if (rv == 0)
		rv = listener_start(&api->listener, loop, address, &options,
				    api_on_accept, api);
	if (rv != 0) {
		tls_context_free(api->tls);
		free(api);
		return rv;
	}
	api->loop = loop;
	api->limits = *limits;
	api->sweep_every_ms = sweep_interval(limits);
	rpc_table_init(&api->table, services);
	limits_init(&api->addresses, limits->connections_per_address_max, 0,
		    uv_now(loop));
	list_init(&api->connections);
	list_init(&api->silent);
	list_init(&api->dirty);
	list_init(&api->gathering);
	slab_init(&api->h2_calls, sizeof(struct h2_call));
	message_arena_init(&api->arena);
	buf_init(&api->scratch, API_SCRATCH_MAX);
	metrics_init(&api->metrics, metric_table, API_METRICS, NULL);
	wheel_init(&api->wheel, API_WHEEL_SLOTS, API_TICK_MS, uv_now(loop));
	api->swept_ms = uv_now(loop);
	api->listening = true;
	handshakes_init(&api->handshakes, limits->tls_handshakes_max);
	uv_idle_init(loop, &api->spin);
	api->spin.data = api;
	uv_prepare_init(loop, &api->prepare);
	api->prepare.data = api;
	uv_prepare_start(&api->prepare, on_prepare);
	uv_unref((uv_handle_t *)&api->prepare);
	uv_timer_init(loop, &api->tick);
	uv_timer_init(loop, &api->gather);
	uv_timer_init(loop, &api->tls_refresh);
	api->tick.data = api->gather.data = api->tls_refresh.data = api;
	if (api->tls)
		uv_timer_start(&api->tls_refresh, on_tls_refresh,
			       TLS_REFRESH_MS, TLS_REFRESH_MS);
	*out = api;
	return 0;
}

uint16_t api_port(const struct api *api)
{
	return api->listener.port;
}

void api_drain(struct api *api, uint64_t grace_ms,
	       void (*on_drained)(void *ctx), void *ctx)
{
	if (api->draining)
		return;
	api->draining = true;
	api->drain_ms = api_now(api);
	api->cut_ms = api->drain_ms + grace_ms;
	api->on_drained = on_drained;
	api->on_drained_ctx = ctx;
	list_for_each_safe (node, &api->connections) {
		conn_leave(container_of(node, struct conn, in_api), CLOSE_DONE);
	}
	tick_start(api);
}

void api_free(struct api *api)
{
	check(api->drained && api->handles == 0);
	check(api->body_bytes == 0);
	check(api->queued_bytes == 0);
	limits_fini(&api->addresses);
	wheel_fini(&api->wheel);
	metrics_fini(&api->metrics, NULL);
	buf_fini(&api->scratch);
	message_arena_fini(&api->arena);
	slab_fini(&api->h2_calls);
	rpc_table_fini(&api->table);
	tls_context_free(api->tls);
	free(api);
}

void api_connection_gone(struct api *api)
{
	check(api->connection_count > 0);
	api->connection_count--;
	api_maybe_drained(api);
}

void api_call_begun(struct api *api)
{
	api->calls++;
}

void api_call_ended(struct api *api)
{
	check(api->calls > 0);
	api->calls--;
	/* The tick looks whether that was the last of a drain: this may run
	 * deep inside a handler. */
}

bool api_body_take(struct api *api, size_t bytes)
{
	if (bytes > API_BODIES_MAX - api->body_bytes) {
		metric_add(&api->metrics, API_BODY_OVERFLOWS, 0, 1);
		return false;
	}
	api->body_bytes += bytes;
	return true;
}

void api_body_give(struct api *api, size_t bytes)
{
	check(bytes <= api->body_bytes);
	api->body_bytes -= bytes;
}

static void handled_sample(struct metrics_text *t, const struct rpc_entry *e)
{
	for (int code = 0; code < GRPC_CODES; code++) {
		char labels[256] = "";

		/* OK is always there, so that rates start at 0. */
		if (e->handled[code] == 0 && (code != 0 || !e->service))
			continue;
		metrics_label(labels, sizeof(labels), "grpc_service",
			      e->service ? e->service->name : "unknown");
		metrics_label(labels, sizeof(labels), "grpc_method",
			      e->method ? e->method->name : "unknown");
		metrics_label(labels, sizeof(labels), "grpc_code",
			      grpc_code_name((enum grpc_code)code));
		metrics_sample(t, "grpc_server_handled_total", labels,
			       (double)e->handled[code]);
	}
}

void api_metrics(const struct api *api, struct metrics_text *t)
{
	struct metrics m = api->metrics;
	const struct metrics *blocks[] = {&m};

	metric_set(&m, API_CONNECTIONS, 0, api->connection_count);
	metric_set(&m, API_CALLS, 0, api->calls);
	metric_set(&m, API_BODY_BYTES, 0, api->body_bytes);
	metric_set(&m, API_QUEUED_BYTES, 0, api->queued_bytes);
	metrics_render(t, blocks, 1);
	if (api->tls) {
		metrics_head(t, "tls_certificate_expires_seconds", METRIC_GAUGE,
			     TLS_EXPIRES_HELP);
		metrics_sample(t, "tls_certificate_expires_seconds", "",
			       (double)tls_context_expires(api->tls));
	}
	metrics_head(t, "grpc_server_handled_total", METRIC_COUNTER,
		     "Calls that ended, by gRPC status.");
	for (size_t i = 0; i < api->table.count; i++)
		handled_sample(t, &api->table.entries[i]);
	handled_sample(t, &api->table.unknown);
}

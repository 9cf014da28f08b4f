#include "dispatcher/dispatcher.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/version.h"

#include <stdio.h>

#define TICK_MS 100

static const struct metric_desc own_metrics[DM_COUNT] = {
	[DM_PUBLISH_DURATION] = {"publish_duration_seconds", METRIC_HISTOGRAM,
				 NULL, NULL,
				 "Time from a publish call's head to its "
				 "answer, unary and batch."},
	[DM_LOOP_LAG] = {"event_loop_lag_seconds", METRIC_HISTOGRAM, NULL, NULL,
			 "How late the loop's 100 ms timer fired."},
};

static uint64_t dispatcher_now_ms(const struct dispatcher *d)
{
	return uv_now(d->loop);
}

/* --- readiness --------------------------------------------------------- */

/* The workers had time to report, and those that began to are in the table; or
 * it takes too long. */
static bool dispatcher_had_time(const struct dispatcher *d)
{
	uint64_t passed_ms = dispatcher_now_ms(d) - d->started_ms;

	return passed_ms >= d->options.settle_ms &&
	       (nodes_settled(&d->nodes) ||
		passed_ms >= d->options.settle_max_ms);
}

static void dispatcher_settle(struct dispatcher *d)
{
	d->settled = d->publisher.open = true;
	d->settle_missed = nodes_awaited(&d->nodes);
	log_info("SETTLED", "workers=%u missed=%u dialling=%u ms=%llu",
		 d->nodes.in_phase[NODE_WORKER_READY], d->settle_missed,
		 d->nodes.dialling,
		 (unsigned long long)(dispatcher_now_ms(d) - d->started_ms));
}

const char *dispatcher_unready(struct dispatcher *d)
{
	const char *fault;

	if (d->draining)
		return "draining";
	if (!d->settled)
		return "settling: waiting for workers to report";
	if (d->storage.keeps_history && nodes_outvoted(&d->nodes))
		return "another store is in use by the cluster";
	if (d->publisher.blind) {
		snprintf(d->unready, sizeof(d->unready),
			 "cut off from most connection nodes: %u workers are "
			 "linked here, another dispatcher sees %llu",
			 d->nodes.in_phase[NODE_WORKER_READY],
			 (unsigned long long)d->storage.peers_see);
		return d->unready;
	}
	if (storage_lately_up(&d->storage, dispatcher_now_ms(d)))
		return NULL;
	fault = storage_fault(&d->storage);
	snprintf(d->unready, sizeof(d->unready),
		 "the store is not available: %s",
		 fault != NULL ? fault : "it has just come up");
	return d->unready;
}

static void check_ready(struct dispatcher *d)
{
	const char *unready;

	d->publisher.blind =
		fleet_cut_off(&d->fleet, d->nodes.in_phase[NODE_WORKER_READY],
			      d->storage.peers_see);
	if (d->draining)
		return;
	if (!d->settled && dispatcher_had_time(d))
		dispatcher_settle(d);
	unready = dispatcher_unready(d);
	if (d->ready == (unready == NULL))
		return;
	d->ready = unready == NULL;
	health_set_all(d->health, d->services, d->ready);
	if (d->ready)
		log_info("READY", "workers=%u", d->nodes.worker_count);
	else
		log_error("UNREADY", "reason=\"%s\"", unready);
}

/* --- the tick ---------------------------------------------------------- */

static void dispatcher_on_tick(uv_timer_t *timer)
{
	struct dispatcher *d = timer->data;
	uint64_t now = dispatcher_now_ms(d);
	uint64_t late = now > d->tick_due_ms ? now - d->tick_due_ms : 0;

	metric_observe_us(&d->metrics, DM_LOOP_LAG, 0, late * 1000, 1);
	d->tick_due_ms = now + TICK_MS;
	fleet_look(&d->fleet, &d->nodes, now);
	nodes_tick(&d->nodes, now);
	counts_tick(&d->counts, now);
	storage_tick(&d->storage, now);
	publisher_service_tick(&d->publishing);
	check_ready(d);
}

/* --- what it is made of ------------------------------------------------- */

static void dispatcher_on_revoked(void *ctx)
{
	struct dispatcher *d = ctx;

	publisher_service_look(&d->publishing);
}

static int start_access(struct dispatcher *d)
{
	const struct dispatcher_options *o = &d->options;
	const struct access_config config = {
		.rules = &d->rules,
		.nodes = &d->nodes,
		.rate_max = o->publish_rate_max,
		.burst_max = o->publish_burst_max,
		.on_revoked = dispatcher_on_revoked,
		.ctx = d,
	};

	return access_start(&d->access, d->loop, &config,
			    o->process.auth == AUTH_NONE ? NULL
							 : &d->auth_config);
}

static void init_services(struct dispatcher *d)
{
	const struct dispatcher_options *o = &d->options;
	const struct publish_calls calls = {
		.publisher = &d->publisher,
		.access = &d->access,
		.metrics = &d->metrics,
		.duration = DM_PUBLISH_DURATION,
	};
	const struct batches_limits limits = {
		.bytes_max = o->batch_bytes_max,
		.pending_max = o->batch_pending_max,
	};

	publisher_service_init(&d->publishing, d->loop, &calls, &limits);
	d->channels = (struct channel_service){
		.loop = d->loop,
		.rules = &d->rules,
		.access = &d->access,
		.counts = &d->counts,
		.store = storage_history(&d->storage),
	};
	d->cluster = (struct cluster_service){
		.name = o->process.name,
		.access = &d->access,
		.nodes = &d->nodes,
	};
	d->scaler = (struct scaler_service){
		.fleet = &d->fleet,
		.settled = &d->settled,
	};
}

/* The store comes first: its trouble is told before anybody can connect. */
int dispatcher_open_store(struct dispatcher *d)
{
	const struct dispatcher_options *o = &d->options;
	const struct storage_parts parts = {
		.rules = &d->rules,
		.nodes = &d->nodes,
		.publisher = &d->publisher,
		.history = &d->history,
		.moves = &d->moves,
	};
	const struct store_config config = {
		.url = o->store,
		.password = o->store_password,
		.tls_ca = o->store_tls_ca,
		.tls_cert = o->store_tls_cert,
		.tls_key = o->store_tls_key,
		.queue_bytes = o->store_queue_bytes,
		.timeout_ms = o->store_timeout_ms,
		.idempotency_ms = o->idempotency_seconds * 1000,
		.map_bytes = o->store_map_bytes,
		.replicas = o->store_replicas,
		.instance = d->instance,
	};

	return storage_open(&d->storage, d->loop, &parts, &config);
}

/* Who knows the workers, and what is told them of logs. */
static void init_route(struct dispatcher *d)
{
	const struct dispatcher_options *o = &d->options;
	const struct nodes_config config = {
		.name = o->process.name,
		.version = stentor_version,
		.token = o->process.link_token,
		.config_hash = d->rules.hash,
		.instance = d->instance,
		.store_embedded = store_embedded(d->storage.store),
		.workers_max = o->workers_max,
		.queue_bytes = o->link_queue_bytes,
		.queues_bytes = o->link_queues_bytes,
		.interest_max = o->interest_max,
	};
	const struct fleet_config fleet = {
		.rebalance = o->rebalance,
		.margin_percent = o->rebalance_margin,
		.rate_permille = o->rebalance_rate,
		.calm_ms = o->rebalance_calm_ms,
	};
	const struct history_store store = storage_history(&d->storage);

	nodes_init(&d->nodes, &config, &links_ops, &d->links);
	fleet_init(&d->fleet, &fleet, dispatcher_now_ms(d));
	counts_init(&d->counts, &d->nodes);
	history_init(&d->history, &d->nodes, &store);
	moves_init(&d->moves, &d->nodes, &d->rules, &store);
	storage_rules(&d->storage);
}

static int start_links(struct dispatcher *d)
{
	const struct process_options *o = &d->options.process;
	const struct links_parts parts = {
		.nodes = &d->nodes,
		.history = &d->history,
		.counts = &d->counts,
		.access = &d->access,
		.fleet = &d->fleet,
		.settled = &d->settled,
	};
	const struct nng_tls_files tls = process_link_tls(o);
	int rc = links_start(&d->links, d->loop, &parts, o->link_listen, &tls);

	if (rc != 0) {
		nodes_fini(&d->nodes);
		return rc;
	}
	d->started_ms = dispatcher_now_ms(d);
	d->tick_due_ms = d->started_ms + TICK_MS;
	uv_timer_init(d->loop, &d->tick);
	d->tick.data = d;
	uv_timer_start(&d->tick, dispatcher_on_tick, TICK_MS, TICK_MS);
	return 0;
}

static void init_publisher(struct dispatcher *d)
{
	const struct dispatcher_options *o = &d->options;
	const struct publish_store store = storage_publish(&d->storage);

	publisher_init(&d->publisher, &d->nodes, &d->rules, o->data_bytes_max,
		       &store);
	d->publisher.pending_max = o->publish_pending_max;
	d->publisher.idempotency_s = o->idempotency_seconds;
}

static int start_api(struct dispatcher *d)
{
	const struct dispatcher_options *o = &d->options;
	int rc;

	d->services[0] = publisher_service(&d->publishing);
	d->services[1] = channel_service(&d->channels);
	d->services[2] = cluster_service(&d->cluster);
	d->services[3] = scaler_service(&d->scaler);
	d->services[4] = health_service(d->health);
	d->services[5] = reflection_service_v1(d->services);
	d->services[6] = reflection_service_v1alpha(d->services);
	rc = api_start(d->loop, o->api_listen, &o->api, d->services, &d->api);
	if (rc != 0)
		log_error("API-LISTEN", "address=%s err=%s", o->api_listen,
			  err_name(rc));
	return rc;
}

int dispatcher_start(struct dispatcher *d)
{
	int rc = start_access(d);

	if (rc != 0)
		return rc;
	metrics_init(&d->metrics, own_metrics, DM_COUNT, NULL);
	init_services(d);
	d->health = health_new();
	health_set(d->health, "", false);
	init_route(d);
	rc = start_links(d);
	if (rc != 0)
		return rc;
	init_publisher(d);
	return start_api(d);
}

/* --- the end ----------------------------------------------------------- */

static void on_store_closed(void *ctx)
{
	struct dispatcher *d = ctx;

	log_info("DRAINED", "published=%llu",
		 (unsigned long long)d->publisher.accepted);
	uv_stop(d->loop);
}

/* Every call has ended, so no publish is pending. */
static void on_drained(void *ctx)
{
	struct dispatcher *d = ctx;

	check(d->channels.reads == 0);
	storage_close(&d->storage, on_store_closed, d);
}

void dispatcher_drain(struct dispatcher *d)
{
	d->draining = true;
	health_set_all(d->health, d->services, false);
	api_drain(d->api, d->options.drain_seconds * 1000, on_drained, d);
}

void dispatcher_close(struct dispatcher *d)
{
	admin_close(d->admin);
	api_free(d->api);
	uv_close((uv_handle_t *)&d->tick, NULL);
	links_stop(&d->links);
	moves_fini(&d->moves);
	history_fini(&d->history);
	nodes_fini(&d->nodes);
	access_stop(&d->access);
	publisher_service_close(&d->publishing);
}

void dispatcher_fini(struct dispatcher *d)
{
	publisher_fini(&d->publisher);
	publisher_service_fini(&d->publishing);
	health_free(d->health);
	metrics_fini(&d->metrics, NULL);
}

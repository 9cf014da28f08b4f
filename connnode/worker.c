#include "connnode/worker.h"

#include "common/base/cgroup.h"
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/codec/sse.h"
#include "common/io/children.h"
#include "common/io/nngio.h"
#include "connnode/intake.h"
#include "connnode/link/uplink.h"
#include "connnode/stream/admission.h"
#include "connnode/stream/drain.h"
#include "connnode/stream/lagging.h"
#include "connnode/stream/request.h"
#include "connnode/stream/session.h"
#include "connnode/stream/session_tls.h"
#include "connnode/stream/stream.h"
#include "connnode/turn.h"

#include <limits.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The port opens when a dispatcher's link stands, or after this time: a client
 * that came sooner would only wait. */
#define LISTEN_AT_LATEST_MS 1000
#define MEMORY_TRIM_BYTES   (32u << 20)
#define MEMORY_TRIM_MS	    5000

uint64_t worker_room_per_second(const struct worker *w)
{
	const struct connnode_options *o = w->options;
	struct fleet_heard fleet = announcer_fleet(&w->announcer);

	return comeback_room(w->sessions.stream_count,
			     w->sessions.limits.connections_max, o->rate_max,
			     o->retry_window_ms, fleet.known && !fleet.full);
}

/* --- a turn of the loop ------------------------------------------------ */

static void on_spin(uv_idle_t *idle UNUSED)
{
	/* While it is active the loop does not sleep. */
}

static void on_timer(uv_timer_t *timer UNUSED)
{
	/* The turn that it starts looks at what waits. */
}

static void on_accept(struct listener *l)
{
	struct worker *w = l->ctx;

	session_accept(&w->sessions, l);
}

static void on_refused(struct listener *l)
{
	struct worker *w = l->ctx;

	metric_add(&w->metrics, NM_REJECTED, REJECT_FILES, 1);
}

/* --- its stages */

static unsigned run_handshakes(void *ctx, unsigned budget)
{
	struct worker *w = ctx;

	return session_tls_turn(&w->sessions, budget);
}

static bool handshakes_pending(void *ctx)
{
	struct worker *w = ctx;

	return w->sessions.tls.context != NULL &&
	       !list_empty(&w->sessions.tls.handshakes.waiting);
}

static unsigned run_admission(void *ctx, unsigned budget)
{
	struct worker *w = ctx;

	return admission_run(&w->admission, budget);
}

static bool pending_admission(void *ctx)
{
	struct worker *w = ctx;

	return admission_pending(&w->admission);
}

static unsigned run_readies(void *ctx, unsigned budget)
{
	struct worker *w = ctx;

	return streams_ready(&w->streams, budget);
}

static bool readies_pending(void *ctx)
{
	struct worker *w = ctx;

	return !list_empty(&w->streams.placed);
}

static unsigned run_replays(void *ctx, unsigned budget)
{
	struct worker *w = ctx;

	return replays_run(&w->streams.replays, budget, worker_now(w));
}

static bool pending_replays(void *ctx)
{
	struct worker *w = ctx;

	return replays_pending(&w->streams.replays);
}

static unsigned run_logs(void *ctx, unsigned budget UNUSED)
{
	struct worker *w = ctx;

	logs_run(&w->logs, worker_now(w));
	return 0;
}

static unsigned run_fanout(void *ctx, unsigned budget)
{
	struct worker *w = ctx;

	return fanout_run(&w->fanout, budget);
}

static bool pending_fanout(void *ctx)
{
	struct worker *w = ctx;

	return fanout_pending(&w->fanout);
}

static unsigned run_lagging(void *ctx, unsigned budget)
{
	struct worker *w = ctx;

	return lagging_run(&w->sessions, budget);
}

static bool pending_lagging(void *ctx)
{
	struct worker *w = ctx;

	return lagging_pending(&w->sessions);
}

static unsigned run_writes(void *ctx, unsigned budget)
{
	struct worker *w = ctx;

	return sessions_flush(&w->sessions, budget);
}

static bool writes_pending(void *ctx)
{
	struct worker *w = ctx;

	return sessions_pending(&w->sessions);
}

/* What the turn has changed, and asks. */
static unsigned run_links(void *ctx, unsigned budget UNUSED)
{
	struct worker *w = ctx;

	questions_run(&w->questions, worker_now(w));
	w->announcer.hold_acks = w->fanout.backlog_bytes > FANOUT_BACKLOG_MAX;
	announcer_flush(&w->announcer, worker_now(w));
	return 0;
}

static const struct stage stages[] = {
	{"handshakes", run_handshakes, handshakes_pending},
	{"admission", run_admission, pending_admission},
	{"readies", run_readies, readies_pending},
	{"replays", run_replays, pending_replays},
	{"logs", run_logs, NULL},
	{"fanout", run_fanout, pending_fanout},
	{"lagging", run_lagging, pending_lagging},
	{"writes", run_writes, writes_pending},
	{"links", run_links, NULL},
};

/* Before the loop sleeps; see worker.h. */
static void worker_turn(uv_prepare_t *prepare)
{
	struct worker *w = container_of(prepare, struct worker, turn);
	uint64_t now = worker_now(w), due_ms;

	turn_run(stages, array_len(stages), w);
	due_ms = announcer_due_ms(&w->announcer);
	if (logs_waiting(&w->logs) && !uv_is_active((uv_handle_t *)&w->hole))
		uv_timer_start(&w->hole, on_timer, LOGS_HOLE_MS / 2, 0);
	if (due_ms != UINT64_MAX && due_ms > now &&
	    !uv_is_active((uv_handle_t *)&w->gather))
		uv_timer_start(&w->gather, on_timer, due_ms - now, 0);
	if (turn_pending(stages, array_len(stages), w) != NULL)
		uv_idle_start(&w->spin, on_spin);
	else
		uv_idle_stop(&w->spin);
}

static void open_port(struct worker *w)
{
	struct listener_options options = {
		.reuse_port = true,
		.user_timeout_ms = (uint32_t)w->options->user_timeout_ms,
		.notsent_lowat = (uint32_t)w->options->notsent_bytes,
		/* Those of the last turn have not been read yet, and must not
		 * give way to those of this one. */
		.slice = (unsigned)min_of(
			(uint64_t)LISTENER_SLICE,
			max_of(w->sessions.limits.heads_max / 2, 1u)),
		.on_refused = on_refused,
	};
	int rc = listener_start(&w->listener, w->loop, w->options->listen,
				&options, on_accept, w);

	if (rc != 0) {
		log_error("LISTEN", "address=%s err=%s", w->options->listen,
			  err_name(rc));
		uv_stop(w->loop);
		return;
	}
	log_info("LISTENING", "address=%s dispatchers=%u", w->options->listen,
		 announcer_up(&w->announcer));
}

/* Balancers understand a refused connection. An answer, though it says that
 * the client is to go elsewhere, would make them send him here again: by least
 * connections always, for a node that drains has the fewest. So the port is
 * closed as soon as the others can take who is sent away, and opened again if
 * they can't after all: then clients are at least told when to come back. */
static void tend_port(struct worker *w, uint64_t now)
{
	struct fleet_heard fleet = announcer_fleet(&w->announcer);

	if (w->drain.pace.draining && !fleet.known)
		return; /* as it is */
	if (w->drain.pace.draining && fleet_heard_takes(&fleet)) {
		if (w->listener.open)
			log_info("PORT-CLOSED", "address=%s takers=%u",
				 w->options->listen, fleet.takers);
		listener_finish(&w->listener, NULL);
	} else if (listener_idle(&w->listener) &&
		   (announcer_up(&w->announcer) > 0 ||
		    now - w->started_ms >= LISTEN_AT_LATEST_MS)) {
		open_port(w);
	}
}

/* --- time -------------------------------------------------------------- */

static void show_logs(struct worker *w)
{
	struct metrics *m = &w->metrics;
	const struct logs *l = &w->logs;
	const struct replays *r = &w->streams.replays;
	const struct questions *q = &w->questions;

	metric_set(m, NM_LOGS, 0, l->count);
	metric_set(m, NM_LOG_DOUBLES, 0, l->counters.doubles);
	metric_set(m, NM_LOG_HOLES, 0, l->counters.holes);
	metric_set(m, NM_LOG_BEHIND, 0, l->counters.behind);
	metric_set(m, NM_LOG_SWEPT, 0, l->counters.swept);
	metric_set(m, NM_LOG_MOVED, 0, l->counters.moved);
	metric_set(m, NM_LOG_FETCHED, 0, l->counters.fetched);
	metric_set(m, NM_LOG_HELD_BYTES, 0, l->held_bytes);
	metric_set(m, NM_LOG_HELD_DROPPED, 0, l->counters.held_dropped);
	metric_set(m, NM_REPLAYS, 0, r->count);
	metric_set(m, NM_REPLAY_BYTES, 0, r->pages.bytes + r->queued_bytes);
	metric_set(m, NM_REPLAY_PAGES, 0, r->pages.asked);
	metric_set(m, NM_REPLAY_WAITING, 0, r->pages.waiting_count);
	metric_set(m, NM_QUESTIONS, 0, q->counters.asked);
	metric_set(m, NM_QUESTION_FAILURES, 0,
		   q->counters.failed + q->counters.timeouts);
}

static void show_auth(struct worker *w)
{
	for (unsigned fault = TOKEN_OK + 1; fault < TOKEN_FAULTS; fault++)
		metric_set(&w->metrics, NM_AUTH_FAILURES, fault - TOKEN_OK - 1,
			   auth_faults(w->admission.auth,
				       (enum token_fault)fault));
	metric_set(&w->metrics, NM_AUTH_KEYS, 0,
		   auth_key_count(w->admission.auth));
}

static void show_gauges(struct worker *w)
{
	struct metrics *m = &w->metrics;
	const struct announcer *a = &w->announcer;

	metric_set(m, NM_CONNECTIONS, 0, w->sessions.stream_count);
	metric_set(m, NM_SUBSCRIPTIONS, 0, w->channels.subscriptions);
	metric_set(m, NM_CHANNELS, 0, w->channels.by_name.count);
	metric_set(m, NM_SEND_QUEUE_BYTES, 0, w->sessions.queued_bytes);
	metric_set(m, NM_QUEUE_MEMORY, 0, frames_bytes());
	metric_set(m, NM_FANOUT_BACKLOG_BYTES, 0, w->fanout.backlog_bytes);
	metric_set(m, NM_BLOCKED, 0, w->sessions.blocked);
	metric_set(m, NM_DISPATCHERS_UP, 0, announcer_up(a));
	metric_set(m, NM_CONFIG_DIFFERS, 0, announcer_different(a));
	metric_set(m, NM_LINK_INBOX_BYTES, 0,
		   w->uplink ? uplink_pending(w->uplink) : 0);
	metric_set(m, NM_NNG_STUCK, 0, nngio_stuck());
	metric_set(m, NM_LINKS_LOST, 0, a->counters.links_lost);
	metric_set(m, NM_LINK_GAPS, 0, a->counters.gaps);
	metric_set(m, NM_LINK_FRAMES_STALE, 0, a->counters.frames_stale);
	metric_set(m, NM_LINK_FRAMES_MALFORMED, 0,
		   a->counters.frames_malformed);
	metric_set(m, NM_STORE_DIFFERS, 0, a->counters.store_refused);
	if (w->admission.auth != NULL)
		show_auth(w);
	show_logs(w);
	metric_set(m, NM_LEAVING, 0, (w->drain.pace.per_ks + 999) / 1000);
}

static void show_state(struct worker *w)
{
	struct worker_shared *shared = w->shared;

	shared->streams = w->sessions.stream_count;
	shared->accepts = w->load.accepts;
	shared->accepts_max = w->load.limits.accepts;
	shared->queue_age_us = w->load.queue_age_us;
	shared->fullness = w->load.fullness;
	shared->clock_skew_us = announcer_skew_us(&w->announcer);
	shared->retry_window_ms = comeback_window_ms(
		&w->comeback, worker_now(w), worker_room_per_second(w));
	shared->ready = w->listener.open && !w->drain.pace.draining &&
			announcer_up(&w->announcer) > 0;
	shared->tls_expires_s = w->sessions.tls.expires_s;
	shared->beat_ms = clock_monotonic_ms();
}

/* How long what came from the dispatchers waits, about. */
static uint64_t backlog_age_ms(const struct worker *w, uint64_t now)
{
	uint64_t age = fanout_age_ms(&w->fanout, now);

	if (w->uplink != NULL)
		age = max_of(age, uplink_age_ms(w->uplink));
	if (w->sessions.dirty_since_ms != 0)
		age = max_of(age, now - w->sessions.dirty_since_ms);
	return age;
}

/* What the next heartbeats tell. */
static void tell_load(struct worker *w, uint64_t now)
{
	Stentor__Link__V1__Load *told = &w->announcer.load;
	struct load *l = &w->load;

	load_look(l, now, w->sessions.stream_count,
		  metric_get(&w->metrics, NM_ACCEPTED, 0),
		  metric_get(&w->metrics, NM_BYTES_SENT, 0),
		  backlog_age_ms(w, now) * 1000);
	told->accepts = l->accepts;
	told->accepts_max = l->limits.accepts;
	told->sent_bytes = l->sent_bytes;
	told->queue_age_us = l->queue_age_us;
	told->fullness = l->fullness;
	told->leave_per_ks = w->drain.pace.per_ks;
	told->drain_left_ms = pace_left_ms(&w->drain.pace, now);
	w->announcer.connections = w->sessions.stream_count;
	w->announcer.logs = w->logs.count;
}

/* After a backlog has gone, the system gets its memory back. */
static void give_back(struct worker *w, uint64_t now)
{
	size_t used = frames_bytes();

	w->memory_peak = max_of(w->memory_peak, used);
	if (used > w->memory_peak / 2 ||
	    w->memory_peak - used < MEMORY_TRIM_BYTES ||
	    now - w->memory_trim_ms < MEMORY_TRIM_MS)
		return;
	malloc_trim(0);
	w->memory_peak = used;
	w->memory_trim_ms = now;
}

static void on_tick(uv_timer_t *timer)
{
	struct worker *w = container_of(timer, struct worker, tick);
	uint64_t now = worker_now(w);
	uint64_t late = now > w->tick_due_ms ? now - w->tick_due_ms : 0;

	metric_observe_us(&w->metrics, NM_LOOP_LAG, 0, late * 1000, 1);
	w->tick_due_ms = now + WORKER_TICK_MS;
	sessions_tick(&w->sessions);
	session_tls_tick(&w->sessions);
	intake_tick(w);
	uplink_tick(w->uplink);
	tell_load(w, now);
	announcer_tick(&w->announcer, now);
	replays_tick(&w->streams.replays, now);
	drain_tick(&w->drain);
	give_back(w, now);
	tend_port(w, now);
	show_gauges(w);
	show_state(w);
}

/* --- signals ----------------------------------------------------------- */

static void on_term(uv_signal_t *handle, int number UNUSED)
{
	struct worker *w = handle->data;

	drain_end(&w->drain);
}

/* Reads everything again, as at the start; rules and log level take effect. */
static void on_hangup(uv_signal_t *handle, int number UNUSED)
{
	struct worker *w = handle->data;
	struct connnode_options options = {0};
	struct rules fresh = {0}, old = *w->rules;
	struct auth_config auth = {0};

	if (config_load(&connnode_program, &options, &fresh, &auth, w->argc,
			w->argv) != 0) {
		log_warn("RELOAD-FAILED", "what=\"the old configuration "
					  "stays\"");
		config_free(&connnode_program, &options);
		return;
	}
	*w->rules = fresh;
	intake_apply_rules(w);
	rules_free(&old);
	auth_config_free(w->auth_config);
	*w->auth_config = auth;
	if (w->admission.auth != NULL)
		auth_reload(w->admission.auth, w->auth_config);
	w->announcer.identity.config_hash = fresh.hash;
	session_tls_refresh(&w->sessions);
	log_set_level((enum log_level)options.process.log_level);
	log_info("RELOADED", "rules=%zu", fresh.count);
	config_free(&connnode_program, &options);
}

/* Without its supervisor a worker has nobody who watches over it. */
static void on_orphaned(struct parent_watch *watch UNUSED)
{
	log_error("ORPHANED", "what=\"the supervisor is gone\"");
	_exit(1);
}

static void watch_signal(struct worker *w, uv_signal_t *handle, uv_signal_cb cb,
			 int number)
{
	check(uv_signal_init(w->loop, handle) == 0);
	handle->data = w;
	check(uv_signal_start(handle, cb, number) == 0);
}

/* --- life cycle -------------------------------------------------------- */

static void init_load(struct worker *w)
{
	const struct connnode_options *o = w->options;
	struct load_limits limits = {
		.streams = w->sessions.limits.connections_max,
		.accepts = o->rate_max,
		.sent_bytes = o->send_rate_full / o->workers,
		.queue_age_us = o->queue_age_full_ms * 1000,
	};

	load_init(&w->load, &limits, worker_now(w));
	/* What an earlier process of this worker counted stays. */
	w->load.begun = metric_get(&w->metrics, NM_ACCEPTED, 0);
	w->load.sent = metric_get(&w->metrics, NM_BYTES_SENT, 0);
}

static void init_memory(struct worker *w)
{
	const struct connnode_options *o = w->options;
	uint64_t node =
		o->memory_max != 0 ? o->memory_max : cgroup_memory_max();

	w->sessions.limits.memory_max = node / o->workers / 5 * 3;
	metric_set(&w->metrics, NM_QUEUE_MEMORY_MAX, 0,
		   w->sessions.limits.memory_max);
}

static void init_sessions(struct worker *w)
{
	const struct connnode_options *o = w->options;
	struct sessions_limits *limits = &w->sessions.limits;

	sessions_init(&w->sessions, w->loop);
	w->sessions.metrics = &w->metrics;
	w->sessions.ops = &request_ops;
	w->sessions.worker = w;
	limits->heartbeat_ms = o->heartbeat_ms;
	limits->head_timeout_ms = o->head_timeout_ms;
	limits->stall_timeout_ms = o->stall_timeout_ms;
	limits->connection_age_ms = o->connection_age_ms;
	limits->queue_bytes_max = o->queue_bytes_max;
	limits->queue_burst_bytes = o->queue_burst_bytes;
	limits->queue_grace_ms = o->queue_grace_ms;
}

static void init_drain(struct worker *w)
{
	struct drain_use use = {
		.sessions = &w->sessions,
		.announcer = &w->announcer,
		.shared = w->shared,
		.metrics = &w->metrics,
		.seconds = w->options->drain_seconds,
	};

	drain_init(&w->drain, &use);
}

static void init_tables(struct worker *w)
{
	init_sessions(w);
	init_memory(w);
	limits_init(&w->limits, w->options->per_address_max,
		    w->options->rate_max, worker_now(w));
	comeback_init(&w->comeback, w->options->retry_window_ms, worker_now(w));
	scrutiny_init(&w->admission.scrutiny, w->options->token_rate_max,
		      w->options->retry_window_ms, worker_now(w));
	init_drain(w);
	init_load(w);
	channels_init(&w->channels, w->rules);
	intake_init(w);
	w->wanted.channel =
		xcalloc(w->options->channels_max, sizeof(*w->wanted.channel));
	w->wanted.query_value = xmalloc(2 * (w->options->url_bytes_max + 1));
}

static int start_admission(struct worker *w)
{
	bool none = w->options->process.auth == AUTH_NONE;

	w->admission.use = (struct admission_use){
		.rules = w->rules,
		.announcer = &w->announcer,
		.shared = w->shared,
	};
	return admission_start(&w->admission, w->loop,
			       none ? NULL : w->auth_config);
}

static int start_links(struct worker *w, const char *link_url)
{
	const struct connnode_options *o = w->options;
	struct uplink_start start = {
		.loop = w->loop,
		.announcer = &w->announcer,
		.link_url = link_url,
		.advertise = o->link_advertise,
		.dispatchers = o->dispatchers,
		.resolve_ms = o->resolve_ms,
		.tls = process_link_tls(&o->process),
	};

	intake_announce(w);
	return uplink_start(&start, &w->uplink);
}

static int start(struct worker *w, const char *link_url)
{
	struct tls_files files = connnode_tls(w->options);
	int rc = start_admission(w);

	if (rc == 0)
		rc = session_tls_start(&w->sessions, &files,
				       w->options->tls_handshakes_max);
	if (rc == 0)
		rc = start_links(w, link_url);
	if (rc != 0)
		return rc;
	check(uv_prepare_init(w->loop, &w->turn) == 0);
	check(uv_idle_init(w->loop, &w->spin) == 0);
	check(uv_timer_init(w->loop, &w->tick) == 0);
	check(uv_timer_init(w->loop, &w->hole) == 0);
	check(uv_timer_init(w->loop, &w->gather) == 0);
	uv_prepare_start(&w->turn, worker_turn);
	uv_timer_start(&w->tick, on_tick, 0, WORKER_TICK_MS);
	w->tick_due_ms = w->started_ms = worker_now(w);
	watch_signal(w, &w->term, on_term, SIGTERM);
	watch_signal(w, &w->interrupt, on_term, SIGINT);
	watch_signal(w, &w->hangup, on_hangup, SIGHUP);
	rc = child_watch_parent(w->loop, &w->parent, on_orphaned, w);
	if (rc != 0)
		log_warn("NO-PARENT", "err=%s", err_name(rc));
	return 0;
}

static void doom_all(struct list *sessions)
{
	list_for_each (node, sessions)
		session_doom(container_of(node, struct session, in_phase),
			     CLOSED_SHUTDOWN);
}

/* Ours, and no others: nng's threads may be closing sockets still and will ring
 * a mailbox when they have. That one keeps the loop alive until then, and goes
 * by itself; closed from here it would be rung when it is no more, and libuv
 * aborts. */
static void close_handles(struct worker *w)
{
	uv_handle_t *const ours[] = {
		(uv_handle_t *)&w->turn,      (uv_handle_t *)&w->spin,
		(uv_handle_t *)&w->tick,      (uv_handle_t *)&w->hole,
		(uv_handle_t *)&w->gather,    (uv_handle_t *)&w->term,
		(uv_handle_t *)&w->interrupt, (uv_handle_t *)&w->hangup,
	};

	for (size_t i = 0; i < array_len(ours); i++)
		uv_close(ours[i], NULL);
	if (w->parent.on_orphaned != NULL)
		uv_close((uv_handle_t *)&w->parent.pipe, NULL);
}

/* Ends everything in order, so that a leak checker finds what was forgotten. */
static void stop(struct worker *w)
{
	doom_all(&w->sessions.streams);
	doom_all(&w->sessions.heads);
	doom_all(&w->sessions.leaving);
	while (!list_empty(&w->sessions.doomed))
		sessions_flush(&w->sessions, UINT_MAX);
	intake_fini(w);
	admission_stop(&w->admission);
	if (w->listener.open)
		listener_close(&w->listener, NULL);
	uplink_stop(w->uplink);
	close_handles(w);
	uv_run(w->loop, UV_RUN_DEFAULT);
	check(uv_loop_close(w->loop) == 0);
	uplink_free(w->uplink);
	w->uplink = NULL; /* the last gauges ask */
	announcer_fini(&w->announcer);
	channels_fini(&w->channels);
	limits_fini(&w->limits);
	scrutiny_fini(&w->admission.scrutiny);
	sessions_fini(&w->sessions);
	while (w->parsers.count > 0)
		http1_free(w->parsers.free[--w->parsers.count]);
	free(w->wanted.channel);
	free(w->wanted.query_value);
}

int worker_run(const struct worker_start *s)
{
	struct worker *w = xcalloc(1, sizeof(*w));
	/* Not in this frame: a start that fails leaves nng's threads behind. */
	uv_loop_t *loop = xmalloc(sizeof(*loop));
	int rc;

	nngio_process_init();
	check(uv_loop_init(loop) == 0);
	w->loop = loop;
	w->options = s->options;
	w->rules = s->rules;
	w->auth_config = s->auth_config;
	w->index = s->index;
	w->argc = s->argc;
	w->argv = s->argv;
	w->sessions.limits.connections_max = s->connections_max;
	w->sessions.limits.heads_max = s->heads_max;
	w->shared = shared_attach(s->shared_fd);
	metrics_init(&w->metrics, node_metrics, NM_COUNT, w->shared->cells);
	metric_set(&w->metrics, NM_CONNECTIONS_MAX, 0,
		   w->sessions.limits.connections_max);
	metric_set(&w->metrics, NM_DRAINING, 0, 0);
	init_tables(w);
	rc = start(w, s->link_url);
	if (rc != 0)
		return 1;
	uv_run(loop, UV_RUN_DEFAULT);
	rc = w->drain.ending ? 0 : 1;
	log_info("END", "streams=%llu",
		 (unsigned long long)w->sessions.stream_count);
	stop(w);
	show_gauges(w);
	metrics_fini(&w->metrics, w->shared->cells);
	free(w);
	free(loop);
	return rc;
}

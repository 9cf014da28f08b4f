#include "connnode/supervisor.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/version.h"
#include "common/io/admin.h"
#include "common/io/children.h"
#include "common/io/configwatch.h"
#include "common/io/linkurl.h"
#include "common/io/listener.h"
#include "common/io/tls.h"
#include "connnode/node/metrics.h"
#include "connnode/node/shared.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WATCH_MS       500
#define NUMBER_MAX     24
#define LINK_PORTS_MAX 65535

struct slot {
	struct worker_shared *shared;
	struct metrics metrics; /* in `shared` */
	int shared_fd;
	bool was_ready;
	uint64_t revocations_taken;
	char index[NUMBER_MAX], share[NUMBER_MAX], link_url[LINKURL_MAX];
	char **argv;
};

struct supervisor {
	uv_loop_t loop;
	struct connnode_options *options;
	int argc;
	char **argv;
	char listen[ADDRESS_TEXT]; /* with the real port */
	int listen_fd;		   /* holds the port, listens to nothing */
	unsigned workers;
	struct slot *slots;
	struct children *children;
	struct auth *auth; /* of the admin port; NULL: --auth none */
	struct admin *admin;
	uv_timer_t watch;
	uv_signal_t term, interrupt, hangup;
	struct config_watch config;
	bool draining;
};

/* --- workers ----------------------------------------------------------- */

/* argv of worker i: role, index, address, link, share, then the node's own. */
static int prepare(void *ctx, unsigned index, char ***argv, int fds[4])
{
	struct supervisor *s = ctx;
	struct slot *slot = &s->slots[index];
	int n = 0;

	slot->argv[n++] = s->argv[0];
	slot->argv[n++] = (char *)WORKER_ROLE;
	slot->argv[n++] = slot->index;
	slot->argv[n++] = s->listen;
	slot->argv[n++] = slot->link_url;
	slot->argv[n++] = slot->share;
	check(n == WORKER_ARGS);
	for (int i = 1; i < s->argc; i++)
		slot->argv[n++] = s->argv[i];
	slot->argv[n] = NULL;
	slot->shared->beat_ms = clock_monotonic_ms();
	*argv = slot->argv;
	fds[0] = slot->shared_fd;
	return 1;
}

/* A dead worker holds no connections any more; what it counted stays. */
static void clear_gauges(struct slot *slot)
{
	struct metrics *m = &slot->metrics;

	slot->shared->ready = slot->shared->streams = 0;
	slot->shared->tls_expires_s = 0;
	slot->shared->accepts = slot->shared->queue_age_us = 0;
	slot->shared->fullness = slot->shared->retry_window_ms = 0;
	slot->shared->clock_skew_us = 0;
	for (unsigned i = 0; i < NM_COUNT; i++) {
		if (node_metrics[i].type == METRIC_GAUGE &&
		    i != NM_CONNECTIONS_MAX)
			metric_set(m, i, 0, 0);
	}
}

static void on_exit_of(void *ctx, unsigned index, int64_t status, int signal)
{
	struct supervisor *s = ctx;

	clear_gauges(&s->slots[index]);
	if (!s->draining || status != 0 || signal != 0)
		log_warn("WORKER-EXIT", "worker=%u status=%lld signal=%d",
			 index, (long long)status, signal);
}

static void on_stopped(void *ctx)
{
	struct supervisor *s = ctx;

	log_info("DRAINED", "what=\"all workers have ended\"");
	uv_stop(&s->loop);
}

static const struct children_ops children_ops = {
	.prepare = prepare,
	.on_exit = on_exit_of,
	.on_stopped = on_stopped,
};

/* The order that was given last goes to all workers, also those that are
 * started later. */
static struct drain_order share_order(struct supervisor *s)
{
	for (unsigned i = 1; i < s->workers; i++) {
		struct drain_order o = shared_order(s->slots[i].shared);

		shared_give_order(s->slots[0].shared, &o);
	}
	for (unsigned i = 1; i < s->workers; i++) {
		struct drain_order o = shared_order(s->slots[0].shared);

		shared_give_order(s->slots[i].shared, &o);
	}
	return shared_order(s->slots[0].shared);
}

/* What the worker heard of over its links counts on the admin port too. */
static void take_revocations(struct supervisor *s, struct slot *slot)
{
	struct auth_revocation r;
	uint64_t lost = 0;

	while (shared_revoked(slot->shared, &slot->revocations_taken, &lost,
			      &r))
		lost += auth_revoke(s->auth, &r) == ERR_FULL;
	if (lost > 0)
		log_warn("ADMIN-REVOCATIONS-LOST", "count=%llu max=%d",
			 (unsigned long long)lost, AUTH_REVOCATIONS_MAX);
}

/* A worker whose loop stands still holds its clients hostage. */
static void on_watch(uv_timer_t *timer)
{
	struct supervisor *s = container_of(timer, struct supervisor, watch);
	uint64_t now = clock_monotonic_ms();

	share_order(s);
	for (unsigned i = 0; i < s->workers; i++) {
		struct worker_shared *w = s->slots[i].shared;
		int pid = children_pid(s->children, i);
		uint64_t beat = w->beat_ms;

		s->slots[i].was_ready |= w->ready != 0;
		if (s->auth != NULL)
			take_revocations(s, &s->slots[i]);
		if (pid == 0 || now < beat ||
		    now - beat < s->options->watchdog_ms)
			continue;
		log_error("WORKER-STALLED", "worker=%u pid=%d ms=%llu", i, pid,
			  (unsigned long long)(now - beat));
		kill(pid, SIGKILL);
	}
}

/* --- admin port -------------------------------------------------------- */

static void on_version(void *ctx UNUSED, const struct http1_request *q UNUSED,
		       struct admin_reply *r)
{
	admin_version(r, "stentor-connnode");
}

static void on_config(void *ctx, const struct http1_request *q UNUSED,
		      struct admin_reply *r)
{
	struct supervisor *s = ctx;

	admin_config(r, &connnode_program, s->options);
}

/* Ready: every worker was ready once, and one is now: a worker that is being
 * started again leaves its share of new clients to the others. */
static void on_readyz(void *ctx, const struct http1_request *q UNUSED,
		      struct admin_reply *r)
{
	struct supervisor *s = ctx;
	unsigned ready = 0, once = 0;

	for (unsigned i = 0; i < s->workers; i++) {
		ready += s->slots[i].shared->ready != 0;
		once += s->slots[i].was_ready || s->slots[i].shared->ready;
	}
	if (s->draining || share_order(s).drains)
		admin_say(r, 503, "draining\n");
	else if (ready == 0)
		admin_say(r, 503, "no worker is linked to a dispatcher\n");
	else if (once < s->workers)
		admin_say(r, 503, "workers are starting\n");
	else
		admin_say(r, 200, "ok\n");
}

static void show(struct metrics_text *t, const char *name, const char *help,
		 double value)
{
	metrics_head(t, name, METRIC_GAUGE, help);
	metrics_sample(t, name, "", value);
}

/* Of the certificates that are in force, the end that comes first. */
static void show_certificate(const struct supervisor *s, struct metrics_text *t)
{
	uint64_t first = UINT64_MAX;

	for (unsigned i = 0; i < s->workers; i++) {
		uint64_t end = s->slots[i].shared->tls_expires_s;

		if (end != 0)
			first = min_of(first, end);
	}
	if (first == UINT64_MAX)
		return;
	show(t, "tls_certificate_expires_seconds", TLS_EXPIRES_HELP,
	     (double)first);
}

/* What the node could still do, and how it lives with what it can't: for
 * autoscalers that read Prometheus. */
static void show_headroom(const struct supervisor *s, struct metrics_text *t)
{
	uint64_t streams = 0, accepts = 0, age_us = 0, fullness = 0;
	uint64_t window_ms = 0, max = s->options->connections_max;
	uint64_t skew_us = 0;

	for (unsigned i = 0; i < s->workers; i++) {
		const struct worker_shared *w = s->slots[i].shared;

		streams += w->streams;
		accepts += w->accepts_max - min_of(w->accepts_max, w->accepts);
		age_us = max_of(age_us, w->queue_age_us);
		fullness = max_of(fullness, w->fullness);
		window_ms = max_of(window_ms, w->retry_window_ms);
		skew_us = max_of(skew_us, w->clock_skew_us);
	}
	show(t, "connections_headroom",
	     "Event streams for which there is room.",
	     (double)(max - min_of(max, streams)));
	show(t, "accept_headroom",
	     "Event streams a second that could begin beyond those that do.",
	     (double)accepts);
	show(t, "queue_age_seconds",
	     "How long the oldest message of the slowest worker waited for its "
	     "turn to be written.",
	     (double)age_us / 1e6);
	show(t, "load",
	     "How full the fullest worker is, by its fullest limit: "
	     "connections, connections a second, bytes a second, age of the "
	     "queue; 1 is full.",
	     (double)fullness / 1000);
	show(t, "retry_window_seconds",
	     "After how long clients who are not let in are told to come back, "
	     "at most; 0: all are let in.",
	     (double)window_ms / 1000);
	show(t, "clock_skew_seconds",
	     "By how much a dispatcher's clock differs from this node's, at "
	     "most; it is taken into account.",
	     (double)skew_us / 1e6);
}

static void on_metrics(void *ctx, const struct http1_request *q UNUSED,
		       struct admin_reply *r)
{
	struct supervisor *s = ctx;
	const struct metrics **blocks = xcalloc(s->workers, sizeof(*blocks));
	int *pids = xcalloc(s->workers, sizeof(*pids));
	struct metrics_text t = {0};
	size_t running = 0;

	for (unsigned i = 0; i < s->workers; i++) {
		blocks[i] = &s->slots[i].metrics;
		pids[running] = children_pid(s->children, i);
		running += pids[running] != 0;
	}
	metrics_process(&t, stentor_version, pids, running);
	metrics_render(&t, blocks, s->workers);
	metrics_head(&t, "worker_restarts_total", METRIC_COUNTER,
		     "Workers that ended and were started again.");
	metrics_sample(&t, "worker_restarts_total", "",
		       (double)children_restarts(s->children));
	show(&t, "workers_running", "Worker processes.", (double)running);
	show_certificate(s, &t);
	show_headroom(s, &t);
	admin_metrics(r, &t);
	free(blocks);
	free(pids);
}

static void on_workers(void *ctx, const struct http1_request *q UNUSED,
		       struct admin_reply *r)
{
	struct supervisor *s = ctx;
	uint64_t now = clock_monotonic_ms();
	int rc = buf_printf(&r->body, "[");

	for (unsigned i = 0; i < s->workers && rc == 0; i++) {
		const struct worker_shared *w = s->slots[i].shared;

		rc = buf_printf(
			&r->body,
			"%s\n{\"worker\":%u,\"pid\":%d,\"ready\":%s,"
			"\"draining\":%s,\"connections\":%llu,"
			"\"beat_age_ms\":%llu,\"link\":\"%s\"}",
			i ? "," : "", i, children_pid(s->children, i),
			w->ready ? "true" : "false",
			w->draining ? "true" : "false",
			(unsigned long long)w->streams,
			(unsigned long long)(now - min_of(now, w->beat_ms)),
			s->slots[i].link_url);
	}
	if (rc != 0 || buf_printf(&r->body, "\n]\n") != 0)
		r->status = 500;
	r->content_type = "application/json";
}

static const struct admin_route routes[] = {
	{"GET", "/metrics", on_metrics, ADMIN_METRICS},
	{"GET", "/livez", admin_livez, ADMIN_OPEN},
	{"GET", "/healthz", admin_livez, ADMIN_OPEN},
	{"GET", "/readyz", on_readyz, ADMIN_OPEN},
	{"GET", "/version", on_version, ADMIN_ONLY},
	{"GET", "/debug/workers", on_workers, ADMIN_ONLY},
	{"GET", "/debug/config", on_config, ADMIN_ONLY},
	{.path = NULL},
};

/* --- signals ----------------------------------------------------------- */

static void end(struct supervisor *s, int number)
{
	if (s->draining) {
		children_signal(s->children, SIGKILL);
		_exit(0);
	}
	s->draining = true;
	log_info("DRAIN", "signal=%d seconds=%llu", number,
		 (unsigned long long)s->options->drain_seconds);
	children_signal(s->children, SIGTERM);
	children_stop(s->children);
}

static void on_term(uv_signal_t *handle, int number)
{
	end(container_of(handle, struct supervisor, term), number);
}

static void on_interrupt(uv_signal_t *handle, int number)
{
	end(container_of(handle, struct supervisor, interrupt), number);
}

/* Of the configuration only its keys concern the supervisor. */
static void reload_keys(struct supervisor *s)
{
	struct connnode_options options = {0};
	struct rules rules = {0};
	struct auth_config auth = {0};

	if (config_load(&connnode_program, &options, &rules, &auth, s->argc,
			s->argv) == 0)
		auth_reload(s->auth, &auth);
	config_free(&connnode_program, &options);
	rules_free(&rules);
	auth_config_free(&auth);
}

static void reload(void *ctx)
{
	struct supervisor *s = ctx;

	if (s->auth != NULL)
		reload_keys(s);
	children_signal(s->children, SIGHUP);
}

static void on_hangup(uv_signal_t *handle, int number UNUSED)
{
	reload(container_of(handle, struct supervisor, hangup));
}

/* --- start ------------------------------------------------------------- */

/* "tcp://HOST:PORT" of worker i is PORT + i. Also sees that it is free. */
static int choose_link_url(struct supervisor *s, unsigned i)
{
	const char *url = s->options->process.link_listen;
	const char *colon = strrchr(url, ':');
	struct slot *slot = &s->slots[i];
	unsigned long port = strtoul(colon + 1, NULL, 10) + i;
	uint16_t real;
	int fd;

	if (port == 0 || port > LINK_PORTS_MAX)
		return ERR_ADDRESS;
	snprintf(slot->link_url, sizeof(slot->link_url), "%.*s:%lu",
		 (int)(colon - url), url, port);
	fd = address_reserve(linkurl_address(slot->link_url), &real);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

static int init_slot(struct supervisor *s, unsigned i)
{
	struct slot *slot = &s->slots[i];
	uint64_t max = s->options->connections_max;
	uint64_t share = max / s->workers + (i < max % s->workers);
	int rc = choose_link_url(s, i);

	if (rc != 0) {
		log_error("LINK-ADDRESS", "worker=%u address=%s err=%s", i,
			  slot->link_url, err_name(rc));
		return rc;
	}
	slot->shared_fd = shared_create(&slot->shared);
	metrics_init(&slot->metrics, node_metrics, NM_COUNT,
		     slot->shared->cells);
	metric_set(&slot->metrics, NM_CONNECTIONS_MAX, 0, share);
	snprintf(slot->index, sizeof(slot->index), "%u", i);
	snprintf(slot->share, sizeof(slot->share), "%llu",
		 (unsigned long long)share);
	slot->argv = xcalloc((size_t)s->argc + WORKER_ARGS + 1, sizeof(char *));
	return 0;
}

/* Holds the port for the workers, who share it by SO_REUSEPORT. */
static int reserve_port(struct supervisor *s)
{
	struct sockaddr_storage address;
	uint16_t port;

	s->listen_fd = address_reserve(s->options->listen, &port);
	if (s->listen_fd < 0) {
		log_error("LISTEN", "address=%s err=%s", s->options->listen,
			  err_name(s->listen_fd));
		return s->listen_fd;
	}
	check(address_parse(s->options->listen, &address) == 0);
	if (address.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&address)->sin6_port = htons(port);
	else
		((struct sockaddr_in *)&address)->sin_port = htons(port);
	address_format((struct sockaddr *)&address, s->listen);
	return 0;
}

/* Keys that can't be used are found here, once, and not by each worker. */
static int start(struct supervisor *s, const struct auth_config *auth)
{
	const struct connnode_options *o = s->options;
	int rc = 0;

	if (o->process.auth == AUTH_JWT)
		rc = auth_start(&s->loop, auth, NULL, NULL, &s->auth);
	if (rc == 0)
		rc = reserve_port(s);
	for (unsigned i = 0; i < s->workers && rc == 0; i++)
		rc = init_slot(s, i);
	if (rc != 0)
		return rc;
	rc = admin_start(&s->loop, o->process.admin_listen, routes, s, s->auth,
			 &s->admin);
	if (rc != 0) {
		log_error("ADMIN-LISTEN", "address=%s err=%s",
			  o->process.admin_listen, err_name(rc));
		return rc;
	}
	rc = children_start(&s->loop, s->workers, &children_ops, s,
			    &s->children);
	if (rc != 0)
		return rc;
	if (o->process.metrics_open)
		admin_open_metrics(s->admin);
	log_info("START",
		 "name=%s version=%s listen=%s admin=%s workers=%u "
		 "connections_max=%llu",
		 o->process.name, stentor_version, s->listen,
		 o->process.admin_listen, s->workers,
		 (unsigned long long)o->connections_max);
	return 0;
}

static void watch_signal(struct supervisor *s, uv_signal_t *handle,
			 uv_signal_cb cb, int number)
{
	check(uv_signal_init(&s->loop, handle) == 0);
	check(uv_signal_start(handle, cb, number) == 0);
}

/* The workers have ended: ends the rest in order, for leak checkers. */
static void stop(struct supervisor *s)
{
	children_free(s->children);
	admin_close(s->admin);
	auth_close(s->auth);
	uv_close((uv_handle_t *)&s->watch, NULL);
	uv_close((uv_handle_t *)&s->term, NULL);
	uv_close((uv_handle_t *)&s->interrupt, NULL);
	uv_close((uv_handle_t *)&s->hangup, NULL);
	config_watch_close(&s->config);
	uv_run(&s->loop, UV_RUN_DEFAULT);
	check(uv_loop_close(&s->loop) == 0);
	for (unsigned i = 0; i < s->workers; i++) {
		metrics_fini(&s->slots[i].metrics, s->slots[i].shared->cells);
		free(s->slots[i].argv);
	}
	free(s->slots);
	free(s);
}

int supervisor_run(struct connnode_options *options,
		   const struct auth_config *auth, int argc, char *argv[])
{
	struct supervisor *s = xcalloc(1, sizeof(*s));
	int rc;

	s->options = options;
	s->argc = argc;
	s->argv = argv;
	s->workers = (unsigned)options->workers;
	s->slots = xcalloc(s->workers, sizeof(*s->slots));
	check(uv_loop_init(&s->loop) == 0);
	rc = start(s, auth);
	if (rc != 0)
		return rc == ERR_CONFIG ? CONFIG_EXIT : 1;
	watch_signal(s, &s->term, on_term, SIGTERM);
	watch_signal(s, &s->interrupt, on_interrupt, SIGINT);
	watch_signal(s, &s->hangup, on_hangup, SIGHUP);
	config_watch_start(&s->config, &s->loop,
			   config_path(&connnode_program, argc, argv), reload,
			   s);
	check(uv_timer_init(&s->loop, &s->watch) == 0);
	uv_timer_start(&s->watch, on_watch, WATCH_MS, WATCH_MS);
	uv_run(&s->loop, UV_RUN_DEFAULT);
	stop(s);
	return 0;
}

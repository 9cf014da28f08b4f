/* main.c - starts and ends a dispatcher. */
#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/base/version.h"
#include "common/io/configwatch.h"
#include "dispatcher/admin.h"
#include "dispatcher/dispatcher.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct signals {
	uv_signal_t term, interrupt, hangup;
	struct config_watch config;
	struct dispatcher *dispatcher;
	int argc;
	char **argv; /* to read the configuration again */
};

static int load_options(struct dispatcher *d, int argc, char *argv[])
{
	struct dispatcher_options *o = &d->options;
	int rc = config_load(&dispatcher_program, o, &d->rules, &d->auth_config,
			     argc, argv);

	if (rc == 0)
		rc = dispatcher_options_check(o, &d->auth_config);
	if (rc != 0)
		return rc;
	o->api.cors_origin = o->cors_origin[0] ? o->cors_origin : NULL;
	o->api.tls = dispatcher_tls(o);
	return 0;
}

/* --- the end ----------------------------------------------------------- */

/* First signal: finish in order. Second: at once. Nobody should come to us any
 * more, but who has is served: the publisher stays open. */
static void on_term(uv_signal_t *handle, int number)
{
	struct dispatcher *d = handle->data;

	if (d->draining)
		_exit(0);
	log_info("DRAIN", "signal=%d", number);
	dispatcher_drain(d);
}

/* Reads everything again, as at the start; rules and log level take effect. */
static void reload(void *ctx)
{
	struct signals *s = ctx;
	struct dispatcher *d = s->dispatcher;
	struct dispatcher_options options = {0};
	struct rules fresh = {0};
	struct auth_config auth = {0};

	if (config_load(&dispatcher_program, &options, &fresh, &auth, s->argc,
			s->argv) != 0) {
		log_warn("RELOAD-FAILED", "what=\"the old configuration "
					  "stays\"");
		config_free(&dispatcher_program, &options);
		return;
	}
	rules_free(&d->rules);
	d->rules = fresh;
	auth_config_free(&d->auth_config);
	d->auth_config = auth;
	if (d->access.auth != NULL)
		auth_reload(d->access.auth, &d->auth_config);
	d->nodes.config.config_hash = fresh.hash;
	storage_rules(&d->storage);
	api_tls_refresh(d->api);
	log_set_level((enum log_level)options.process.log_level);
	log_info("RELOADED", "rules=%zu", fresh.count);
	config_free(&dispatcher_program, &options);
}

static void on_hangup(uv_signal_t *handle, int number UNUSED)
{
	reload(container_of(handle, struct signals, hangup));
}

static void watch(struct signals *s, uv_signal_t *handle, uv_signal_cb cb,
		  int number)
{
	uv_signal_init(s->dispatcher->loop, handle);
	handle->data = s->dispatcher;
	uv_signal_start(handle, cb, number);
	uv_unref((uv_handle_t *)handle);
}

/* After the drain: ends the rest in order, so that a leak checker finds what
 * was forgotten. Only the inbox stays: nng 1.5 can't close a socket that
 * receives without danger, so it goes with the process. */
static void stop(struct dispatcher *d, struct signals *s)
{
	dispatcher_close(d);
	uv_close((uv_handle_t *)&s->term, NULL);
	uv_close((uv_handle_t *)&s->interrupt, NULL);
	uv_close((uv_handle_t *)&s->hangup, NULL);
	config_watch_close(&s->config);
	uv_run(d->loop, UV_RUN_DEFAULT);
	dispatcher_fini(d);
}

/* Links, stores and the admin port must always find a descriptor. */
static void fit_connections(struct dispatcher_options *o, uint64_t files)
{
	uint64_t room = dispatcher_api_room(files, o->workers_max);

	log_info("FILES", "nofile=%llu", (unsigned long long)files);
	if (o->api.connections_max <= room)
		return;
	log_warn("CONNECTIONS-LOWERED", "from=%llu to=%llu nofile=%llu",
		 (unsigned long long)o->api.connections_max,
		 (unsigned long long)room, (unsigned long long)files);
	o->api.connections_max = room;
}

static int run(struct dispatcher *d, struct signals *s)
{
	int rc;

	process_options_apply(&d->options.process, "dispatcher",
			      store_directory(d->options.store));
	signal(SIGPIPE, SIG_IGN);
	nngio_process_init();
	fit_connections(&d->options, config_raise_nofile());
	d->loop = uv_default_loop();
	uv_update_time(d->loop);
	d->instance = random_nonzero();
	rc = dispatcher_open_store(d);
	if (rc == 0)
		rc = dispatcher_start(d);
	if (rc == 0)
		rc = dispatcher_admin_start(d);
	if (rc != 0)
		return rc == ERR_CONFIG ? CONFIG_EXIT : 1;
	log_info("START", "name=%s version=%s api=%s link=%s admin=%s",
		 d->options.process.name, stentor_version,
		 d->options.api_listen, d->options.process.link_listen,
		 d->options.process.admin_listen);
	watch(s, &s->term, on_term, SIGTERM);
	watch(s, &s->interrupt, on_term, SIGINT);
	watch(s, &s->hangup, on_hangup, SIGHUP);
	config_watch_start(&s->config, d->loop,
			   config_path(&dispatcher_program, s->argc, s->argv),
			   reload, s);
	uv_run(d->loop, UV_RUN_DEFAULT);
	stop(d, s);
	return 0;
}

int main(int argc, char *argv[])
{
	struct dispatcher *d = xcalloc(1, sizeof(*d));
	struct signals signals = {.dispatcher = d, .argc = argc, .argv = argv};
	int rc = load_options(d, argc, argv);

	if (rc == 0)
		rc = run(d, &signals);
	else
		rc = rc > 0 ? 0 : CONFIG_EXIT;
	config_free(&dispatcher_program, &d->options);
	rules_free(&d->rules);
	auth_config_free(&d->auth_config);
	free(d);
	return rc;
}

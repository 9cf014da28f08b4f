#include "dispatcher/admin.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/codec/json.h"
#include "dispatcher/dispatcher.h"
#include "dispatcher/metrics.h"
#include "stentor/v1/cluster.pb-c.h"

#include <stdio.h>
#include <stdlib.h>

#define PROGRAM "stentor-dispatcher"

static void on_metrics(void *ctx, const struct http1_request *q UNUSED,
		       struct admin_reply *r)
{
	struct metrics_text t = {0};

	dispatcher_metrics_render(ctx, &t);
	admin_metrics(r, &t);
}

static void on_readyz(void *ctx, const struct http1_request *q UNUSED,
		      struct admin_reply *r)
{
	const char *unready = dispatcher_unready(ctx);
	char text[600];

	if (unready == NULL) {
		admin_say(r, 200, "ok\n");
		return;
	}
	snprintf(text, sizeof(text), "%s\n", unready);
	admin_say(r, 503, text);
}

static void on_version(void *ctx UNUSED, const struct http1_request *q UNUSED,
		       struct admin_reply *r)
{
	admin_version(r, PROGRAM);
}

static void on_config(void *ctx, const struct http1_request *q UNUSED,
		      struct admin_reply *r)
{
	struct dispatcher *d = ctx;

	admin_config(r, &dispatcher_program, &d->options);
}

/* What ClusterService.ListNodes answers. */
static void on_nodes(void *ctx, const struct http1_request *q UNUSED,
		     struct admin_reply *r)
{
	const struct dispatcher *d = ctx;
	Stentor__V1__ListNodesResponse *list = cluster_list_new(&d->cluster);
	size_t len;
	char *json = json_from_message(&list->base, &len);

	cluster_list_free(list);
	admin_say(r, 200, json);
	free(json);
	r->content_type = "application/json";
}

/* ctx is the dispatcher. */
static const struct admin_route routes[] = {
	{"GET", "/metrics", on_metrics, ADMIN_METRICS},
	{"GET", "/livez", admin_livez, ADMIN_OPEN},
	{"GET", "/healthz", admin_livez, ADMIN_OPEN},
	{"GET", "/readyz", on_readyz, ADMIN_OPEN},
	{"GET", "/version", on_version, ADMIN_ONLY},
	{"GET", "/debug/nodes", on_nodes, ADMIN_ONLY},
	{"GET", "/debug/config", on_config, ADMIN_ONLY},
	{.path = NULL},
};

int dispatcher_admin_start(struct dispatcher *d)
{
	const struct process_options *o = &d->options.process;
	int rc = admin_start(d->loop, o->admin_listen, routes, d,
			     d->access.auth, &d->admin);

	if (rc != 0) {
		log_error("ADMIN-LISTEN", "address=%s err=%s", o->admin_listen,
			  err_name(rc));
		return rc;
	}
	if (o->metrics_open)
		admin_open_metrics(d->admin);
	return 0;
}

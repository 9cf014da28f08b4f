/* The dispatcher's admin port. */
#include "common/base/err.h"
#include "common/base/version.h"
#include "dispatcher/dispatcher.h"

#include <stdlib.h>
#include <string.h>

static void say(struct admin_reply *r, int status, const char *text)
{
	r->status = status;
	if (buf_append(&r->body, text, strlen(text)) != 0)
		r->status = 500;
}

static void on_metrics(void *ctx, const struct http1_request *q UNUSED,
		       struct admin_reply *r)
{
	struct metrics_text t = {0};

	dispatcher_metrics_render(ctx, &t);
	r->content_type = "text/plain; version=0.0.4; charset=utf-8";
	if (buf_append(&r->body, t.bytes, t.len) != 0)
		r->status = 500;
	metrics_text_free(&t);
}

/* Answering at all is being alive. */
static void on_livez(void *ctx UNUSED, const struct http1_request *q UNUSED,
		     struct admin_reply *r)
{
	say(r, 200, "ok\n");
}

static void on_readyz(void *ctx, const struct http1_request *q UNUSED,
		      struct admin_reply *r)
{
	struct dispatcher *d = ctx;

	if (d->draining)
		say(r, 503, "draining\n");
	else if (!d->ready)
		say(r, 503, "settling: waiting for workers to report\n");
	else
		say(r, 200, "ok\n");
}

static void on_version(void *ctx UNUSED, const struct http1_request *q UNUSED,
		       struct admin_reply *r)
{
	r->status = buf_printf(&r->body, "stentor-dispatcher %s\n",
			       stentor_version) == 0
			    ? 200
			    : 500;
}

const struct admin_route dispatcher_routes[] = {
	{"GET", "/metrics", on_metrics}, {"GET", "/livez", on_livez},
	{"GET", "/healthz", on_livez},	 {"GET", "/readyz", on_readyz},
	{"GET", "/version", on_version}, {.path = NULL},
};

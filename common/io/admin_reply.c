/* admin_reply.c - answers that the admin ports of all programs give. */
#include "common/base/version.h"
#include "common/io/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void admin_say(struct admin_reply *r, int status, const char *text)
{
	r->status =
		buf_append(&r->body, text, strlen(text)) == 0 ? status : 500;
}

void admin_metrics(struct admin_reply *r, struct metrics_text *t)
{
	r->content_type = "text/plain; version=0.0.4; charset=utf-8";
	r->status = buf_append(&r->body, t->bytes, t->len) == 0 ? 200 : 500;
	metrics_text_free(t);
}

void admin_version(struct admin_reply *r, const char *program)
{
	r->status =
		buf_printf(&r->body, "%s %s\n", program, stentor_version) == 0
			? 200
			: 500;
}

void admin_config(struct admin_reply *r, const struct program *program,
		  const void *values)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	check(f != NULL);
	config_print(program, values, f);
	check(fclose(f) == 0);
	admin_say(r, 200, text);
	free(text);
}

void admin_livez(void *ctx UNUSED, const struct http1_request *q UNUSED,
		 struct admin_reply *r)
{
	admin_say(r, 200, "ok\n");
}

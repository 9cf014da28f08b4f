/* stentorctl publish: put one message on a channel. */
#include "common/ds/buf.h"
#include "dispatcher/ctl/client.h"
#include "dispatcher/ctl/commands.h"
#include "dispatcher/ctl/print.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DATA_MAX (16u << 20)

enum { OPTION_EVENT, OPTION_PRIORITY };

const struct ctl_option ctl_publish_options[] = {
	[OPTION_EVENT] = {"event", "TYPE", "SSE event type (default message)"},
	[OPTION_PRIORITY] = {"priority", "CLASS",
			     "critical, normal or droppable (default: what "
			     "the channel's rule says)"},
	{NULL, NULL, NULL},
};

/* All of stdin, without the line end that echo or an editor put last. */
static int read_stdin(struct buf *data)
{
	size_t n;

	do {
		uint8_t bytes[65536];

		n = fread(bytes, 1, sizeof(bytes), stdin);
		if (buf_append(data, bytes, n) != 0) {
			ctl_complain("stdin has more than %u bytes", DATA_MAX);
			return CTL_FAILED;
		}
	} while (n > 0);
	if (ferror(stdin)) {
		ctl_complain("stdin can't be read");
		return CTL_FAILED;
	}
	if (data->len > 0 && data->bytes[data->len - 1] == '\n')
		data->len--;
	if (data->len > 0 && data->bytes[data->len - 1] == '\r')
		data->len--;
	return CTL_OK;
}

/* False for a class that there is none of. */
static bool set_priority(json_t *request, const char *class)
{
	static const char *const classes[] = {"critical", "normal",
					      "droppable"};
	char name[32];

	for (size_t i = 0; i < array_len(classes); i++) {
		if (strcmp(class, classes[i]) != 0)
			continue;
		snprintf(name, sizeof(name), "PRIORITY_%s", class);
		for (char *c = name; *c; c++)
			*c = (char)toupper((unsigned char)*c);
		return json_object_set_new(request, "priority",
					   json_string(name)) == 0;
	}
	return false;
}

/* Returns the exit code; *request is the caller's in any case. */
static int make_request(const struct ctl_args *args, json_t *request)
{
	const char *word = args->count > 1 ? args->argument[1] : "-";
	const char *event = args->option[OPTION_EVENT];
	const char *class = args->option[OPTION_PRIORITY];
	json_t *text;
	struct buf data;
	int rc;

	if (class && !set_priority(request, class)) {
		ctl_complain("--priority is critical, normal or droppable, "
			     "not '%s'",
			     class);
		return CTL_USAGE;
	}
	buf_init(&data, DATA_MAX);
	if (strcmp(word, "-") == 0) {
		rc = read_stdin(&data);
		text = json_stringn(data.len ? (const char *)data.bytes : "",
				    data.len);
	} else {
		rc = CTL_OK;
		text = json_string(word);
	}
	buf_fini(&data);
	if (json_object_set_new(request, "data", text) != 0 && rc == CTL_OK) {
		ctl_complain("the data is not UTF-8");
		rc = CTL_FAILED;
	}
	if (rc == CTL_OK &&
	    (json_object_set_new(request, "channel",
				 json_string(args->argument[0])) != 0 ||
	     (event && json_object_set_new(request, "event",
					   json_string(event)) != 0))) {
		ctl_complain("channel and event must be UTF-8");
		rc = CTL_USAGE;
	}
	return rc;
}

static void print_answer(const json_t *response)
{
	const char *id = ctl_json_text(response, "messageId");
	const json_t *position = json_object_get(response, "position");
	uint64_t nodes = ctl_json_number(response, "nodes");

	fputs("published ", stdout);
	ctl_print_text(stdout, id, strlen(id), -1);
	printf(" to %" PRIu64 " node%s", nodes, nodes == 1 ? "" : "s");
	if (position)
		printf(" at %" PRIu64 ":%" PRIu64,
		       ctl_json_number(position, "epoch"),
		       ctl_json_number(position, "offset"));
	putchar('\n');
}

int ctl_publish(const struct ctl_args *args)
{
	json_t *request = json_object();
	int rc = make_request(args, request);

	if (rc != CTL_OK) {
		json_decref(request);
		return rc;
	}
	return ctl_call_and_print(args, "stentor.v1.PublisherService/Publish",
				  request, print_answer);
}

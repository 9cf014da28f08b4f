/* stentorctl publish: put one message on a channel. */
#include "common/base/config.h"
#include "common/ds/buf.h"
#include "dispatcher/ctl/client.h"
#include "dispatcher/ctl/commands.h"
#include "dispatcher/ctl/print.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define DATA_MAX (16u << 20)

enum {
	OPTION_EVENT,
	OPTION_PRIORITY,
	OPTION_IDEMPOTENCY_KEY,
	OPTION_CONFLATION_KEY,
	OPTION_TTL
};

const struct ctl_option ctl_publish_options[] = {
	[OPTION_EVENT] = {"event", "TYPE", "SSE event type (default message)"},
	[OPTION_PRIORITY] = {"priority", "CLASS",
			     "critical, normal or droppable (default: what "
			     "the channel's rule says)"},
	[OPTION_IDEMPOTENCY_KEY] = {"idempotency-key", "KEY",
				    "the same key again adds nothing and "
				    "gives the first answer"},
	[OPTION_CONFLATION_KEY] = {"conflation-key", "KEY",
				   "a reader that lags gets only the newest "
				   "message of a key"},
	[OPTION_TTL] = {"ttl", "TIME",
			"deliver no later than this: 500ms, 10s, 5m, 2h, 1d"},
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

static int set_options(const struct ctl_args *args, json_t *request)
{
	const char *class = args->option[OPTION_PRIORITY];
	const char *ttl = args->option[OPTION_TTL];
	uint64_t ms;

	if (class && !set_priority(request, class)) {
		ctl_complain("--priority is critical, normal or droppable, "
			     "not '%s'",
			     class);
		return CTL_USAGE;
	}
	if (ttl &&
	    (config_duration(ttl, &ms) != 0 || ms == 0 || ms > UINT32_MAX)) {
		ctl_complain("--ttl is a time from 1ms to 49d (digits with "
			     "ms, s, m, h or d), not '%s'",
			     ttl);
		return CTL_USAGE;
	}
	if (ttl)
		json_object_set_new(request, "ttlMs",
				    json_integer((json_int_t)ms));
	return CTL_OK;
}

/* Sets what is given; false if it is not UTF-8. */
static bool set_text(json_t *request, const char *key, const char *text)
{
	return !text ||
	       json_object_set_new(request, key, json_string(text)) == 0;
}

static int set_data(const struct ctl_args *args, json_t *request)
{
	const char *word = args->count > 1 ? args->argument[1] : "-";
	json_t *text;
	struct buf data;
	int rc;

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
	return rc;
}

/* Returns the exit code; `request` is the caller's in any case. */
static int make_request(const struct ctl_args *args, json_t *request)
{
	int rc = set_options(args, request);

	if (rc != CTL_OK)
		return rc;
	if (!set_text(request, "channel", args->argument[0]) ||
	    !set_text(request, "event", args->option[OPTION_EVENT]) ||
	    !set_text(request, "idempotencyKey",
		      args->option[OPTION_IDEMPOTENCY_KEY]) ||
	    !set_text(request, "conflationKey",
		      args->option[OPTION_CONFLATION_KEY])) {
		ctl_complain("channel, event and keys must be UTF-8");
		return CTL_USAGE;
	}
	return set_data(args, request);
}

static void publish_print_answer(const json_t *response)
{
	const char *id = ctl_json_text(response, "messageId");
	char position[CTL_POSITION_SIZE];
	uint64_t nodes = ctl_json_number(response, "nodes");

	fputs("published ", stdout);
	ctl_print_text(stdout, id, strlen(id), -1);
	printf(" to %" PRIu64 " node%s", nodes, nodes == 1 ? "" : "s");
	if (json_object_get(response, "position"))
		printf(" at %s",
		       ctl_json_position(response, "position", position));
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
				  request, publish_print_answer);
}

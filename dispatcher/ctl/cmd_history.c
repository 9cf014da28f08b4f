/* stentorctl history: what the store keeps of a channel. */
#include "dispatcher/ctl/client.h"
#include "dispatcher/ctl/commands.h"
#include "dispatcher/ctl/print.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define LIMIT_MAX  1000
#define DATA_SHOWN 200 /* bytes; --json shows all */

enum { OPTION_LIMIT, OPTION_LATEST, OPTION_AFTER };

const struct ctl_option ctl_history_options[] = {
	[OPTION_LIMIT] = {"limit", "N", "most messages to list (default 100)"},
	[OPTION_LATEST] = {"latest", NULL, "the newest, not the oldest"},
	[OPTION_AFTER] = {"after", "EPOCH:OFFSET",
			  "only what follows this position"},
	{NULL, NULL, NULL},
};

/* --- the table --------------------------------------------------------- */

enum { COLUMN_TIME, COLUMN_POSITION, COLUMN_EVENT, COLUMN_KEY, COLUMN_DATA };

static void add_time(struct ctl_table *t, uint64_t ms)
{
	time_t seconds = (time_t)(ms / 1000);
	struct tm tm;
	char text[32];

	localtime_r(&seconds, &tm);
	strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &tm);
	ctl_table_add(t, "%s.%03u", text, (unsigned)(ms % 1000));
}

/* Cut between two characters. */
static void add_data(struct ctl_table *t, const char *data)
{
	size_t len = strlen(data), shown = min_of(len, (size_t)DATA_SHOWN);

	while (shown < len && shown > 0 &&
	       ((unsigned char)data[shown] & 0xc0) == 0x80)
		shown--;
	ctl_table_add(t, "%.*s%s", (int)shown, data, shown < len ? "…" : "");
}

static void print_table(const json_t *messages)
{
	static const char *const titles[] = {
		[COLUMN_TIME] = "PUBLISHED", [COLUMN_POSITION] = "POSITION",
		[COLUMN_EVENT] = "EVENT",    [COLUMN_KEY] = "KEY",
		[COLUMN_DATA] = "DATA",	     NULL};
	char position[CTL_POSITION_SIZE];
	const json_t *message;
	struct ctl_table t;
	size_t i;

	ctl_table_init(&t, titles);
	t.words = 1u << COLUMN_TIME | 1u << COLUMN_EVENT | 1u << COLUMN_KEY |
		  1u << COLUMN_DATA;
	json_array_foreach(messages, i, message)
	{
		add_time(&t, ctl_json_number(message, "publishedMs"));
		ctl_table_add(&t, "%s",
			      ctl_json_position(message, "position", position));
		ctl_table_add(&t, "%s", ctl_json_text(message, "event"));
		ctl_table_add(&t, "%s",
			      ctl_json_text(message, "conflationKey"));
		add_data(&t, ctl_json_text(message, "data"));
	}
	ctl_table_print(&t, stdout);
	ctl_table_fini(&t);
}

static void print_history(const json_t *response)
{
	const json_t *messages = json_object_get(response, "messages");
	size_t count = json_array_size(messages);
	char first[CTL_POSITION_SIZE], top[CTL_POSITION_SIZE];

	if (json_is_true(json_object_get(response, "gap")))
		puts("messages before these are not kept any more");
	if (count > 0)
		print_table(messages);
	printf("%zu message%s", count, count == 1 ? "" : "s");
	if (json_object_get(response, "first"))
		printf("; kept are %s to %s",
		       ctl_json_position(response, "first", first),
		       ctl_json_position(response, "top", top));
	else
		printf("; nothing is kept");
	if (json_is_true(json_object_get(response, "more")))
		printf("; more with --after %s",
		       ctl_json_position(json_array_get(messages, count - 1),
					 "position", top));
	putchar('\n');
}

/* --- the question ------------------------------------------------------ */

int ctl_history(const struct ctl_args *args)
{
	const char *limit = args->option[OPTION_LIMIT];
	const char *after = args->option[OPTION_AFTER];
	unsigned long most = 0;
	uint64_t epoch = 0, offset = 0;
	json_t *request;

	if (limit && !ctl_number(limit, 1, LIMIT_MAX, &most)) {
		ctl_complain("--limit is a number from 1 to %d", LIMIT_MAX);
		return CTL_USAGE;
	}
	if (after && !ctl_position(after, &epoch, &offset)) {
		ctl_complain("--after is EPOCH:OFFSET, not '%s'", after);
		return CTL_USAGE;
	}
	if (after && args->option[OPTION_LATEST]) {
		ctl_complain("--after and --latest exclude each other");
		return CTL_USAGE;
	}
	request = json_pack("{s:s?, s:I, s:b}", "channel", args->argument[0],
			    "limit", (json_int_t)most, "latest",
			    args->option[OPTION_LATEST] != NULL);
	if (!request) {
		ctl_complain("the channel's name is not UTF-8");
		return CTL_USAGE;
	}
	if (after) {
		char numbers[2][24];

		snprintf(numbers[0], sizeof(numbers[0]), "%" PRIu64, epoch);
		snprintf(numbers[1], sizeof(numbers[1]), "%" PRIu64, offset);
		json_object_set_new(request, "after",
				    json_pack("{s:s, s:s}", "epoch", numbers[0],
					      "offset", numbers[1]));
	}
	return ctl_call_and_print(args, "stentor.v1.ChannelService/GetHistory",
				  request, print_history);
}

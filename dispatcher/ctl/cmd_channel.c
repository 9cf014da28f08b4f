/* stentorctl channel: who listens to a channel, and what rule it follows. */
#include "dispatcher/ctl/client.h"
#include "dispatcher/ctl/commands.h"
#include "dispatcher/ctl/print.h"

#include <inttypes.h>
#include <string.h>

static void print_field(const char *name, const char *text)
{
	printf("%-13s", name);
	ctl_print_text(stdout, text, strlen(text), -1);
	putchar('\n');
}

static void print_channel(const json_t *response)
{
	const json_t *rule = json_object_get(response, "rule");
	bool complete = json_is_true(json_object_get(response, "complete"));
	char priority[32];

	print_field("channel", ctl_json_text(response, "channel"));
	printf("%-13s%" PRIu64 "%s\n", "subscribers",
	       ctl_json_number(response, "subscribers"),
	       complete ? "" : " or more: some worker did not answer in time");
	printf("%-13s%" PRIu64 " (%" PRIu64 " workers)\n", "nodes",
	       ctl_json_number(response, "nodes"),
	       ctl_json_number(response, "workers"));
	ctl_json_enum(rule, "priority", "PRIORITY_", priority,
		      sizeof(priority));
	print_field("rule", ctl_json_text(rule, "pattern"));
	print_field("  priority", priority);
	print_field("  lagging", ctl_json_text(rule, "lagging"));
}

int ctl_channel(const struct ctl_args *args)
{
	json_t *request = json_pack("{s:s?}", "channel", args->argument[0]);

	if (!request) {
		ctl_complain("the channel's name is not UTF-8");
		return CTL_USAGE;
	}
	return ctl_call_and_print(args, "stentor.v1.ChannelService/GetChannel",
				  request, print_channel);
}

/* stentorctl channel: who listens to a channel, where its log stands, and what
 * rule it follows. */
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

static void print_history_rule(const json_t *rule)
{
	uint64_t size = ctl_json_number(rule, "historySize");
	uint64_t latest = ctl_json_number(rule, "historyLatest");
	char ttl[32];

	if (size == 0) {
		print_field("  history", "none");
		return;
	}
	ctl_format_duration(ttl, sizeof(ttl),
			    ctl_json_number(rule, "historyTtlMs"));
	printf("%-13s%" PRIu64 " message%s, for %s", "  history", size,
	       size == 1 ? "" : "s", ttl);
	if (latest > 0)
		printf("; the newest %" PRIu64 " for a new subscriber", latest);
	putchar('\n');
}

static void print_channel(const json_t *response)
{
	const json_t *rule = json_object_get(response, "rule");
	bool complete = json_is_true(json_object_get(response, "complete"));
	char priority[32], top[CTL_POSITION_SIZE];

	print_field("channel", ctl_json_text(response, "channel"));
	printf("%-13s%" PRIu64 "%s\n", "subscribers",
	       ctl_json_number(response, "subscribers"),
	       complete ? "" : " or more: some worker did not answer in time");
	printf("%-13s%" PRIu64 " (%" PRIu64 " workers)\n", "nodes",
	       ctl_json_number(response, "nodes"),
	       ctl_json_number(response, "workers"));
	print_field("top", ctl_json_position(response, "top", top));
	ctl_json_enum(rule, "priority", "PRIORITY_", priority,
		      sizeof(priority));
	print_field("rule", ctl_json_text(rule, "pattern"));
	print_field("  priority", priority);
	print_field("  lagging", ctl_json_text(rule, "lagging"));
	print_history_rule(rule);
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

/* stentorctl - the command line for people: a client of the dispatcher's API.
 *
 * Holds no state. Exit codes: 0 ok, 1 failed, 2 wrong usage, 69 no dispatcher
 * or node could be reached.
 */
#include "common/base/version.h"
#include "dispatcher/ctl/args.h"
#include "dispatcher/ctl/client.h"
#include "dispatcher/ctl/commands.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#define TIMEOUT_MAX_SECONDS 3600

static int show_help(const struct ctl_args *args);

static const struct ctl_command commands[] = {
	{
		.name = "nodes",
		.arguments = "",
		.summary = "list connection nodes and their workers",
		.details = "One line for each worker, as the dispatcher sees "
			   "it. QUEUE waits in the\ndispatcher for the worker, "
			   "UNACKED is under way to it.",
		.examples = "stentorctl nodes\n"
			    "stentorctl --json nodes | jq '.nodes[].name'",
		.run = ctl_nodes,
	},
	{
		.name = "channel",
		.arguments = "NAME",
		.summary = "show a channel's subscribers, top and rule",
		.examples = "stentorctl channel score:42",
		.least = 1,
		.most = 1,
		.run = ctl_channel,
	},
	{
		.name = "history",
		.arguments = "CHANNEL",
		.summary = "list what is kept of a channel",
		.details = "The oldest first. A position, EPOCH:OFFSET, says "
			   "where a message stands;\n--after takes one, and so "
			   "does 'stentorctl tail --since'.",
		.examples = "stentorctl history score:42\n"
			    "stentorctl history score:42 --latest --limit 5\n"
			    "stentorctl history score:42 --after "
			    "1760000000000:17",
		.options = ctl_history_options,
		.least = 1,
		.most = 1,
		.run = ctl_history,
	},
	{
		.name = "publish",
		.arguments = "CHANNEL [DATA|-]",
		.summary = "put a message on a channel",
		.details = "Without DATA, or with -, the message is read from "
			   "stdin; one line end at its\nend is left out. "
			   "Data that begins with -- goes behind a -- of its "
			   "own.",
		.examples = "stentorctl publish score:42 'IND 245/3'\n"
			    "stentorctl publish score:42 --event wicket Kohli\n"
			    "jq -c . score.json | stentorctl publish score:42 "
			    "--priority critical\n"
			    "stentorctl publish score:42 'IND 245/3' "
			    "--idempotency-key ball-243",
		.options = ctl_publish_options,
		.least = 1,
		.most = 2,
		.run = ctl_publish,
	},
	{
		.name = "tail",
		.arguments = "CHANNEL...",
		.summary = "follow channels live",
		.details =
			"Prints each message with the time it came, until "
			"it is interrupted. A lost\nconnection is made "
			"again, at any node, where the stream left off. "
			"What is not\na message goes to stderr: a gap, if "
			"messages were missed. With --json, one JSON\nobject "
			"a line. Without --node\nthe dispatcher is asked for "
			"one, which takes an administrator's token.",
		.examples =
			"stentorctl tail score:42\n"
			"stentorctl tail score:42 chat:42 --count 10\n"
			"stentorctl tail score:42 --since 1760000000000:17\n"
			"stentorctl tail score:42 --raw "
			"--node http://127.0.0.1:8080",
		.options = ctl_tail_options,
		.least = 1,
		.most = CTL_ARGUMENTS_MAX,
		.run = ctl_tail,
	},
	{
		.name = "drain",
		.arguments = "NODE",
		.summary = "send a node's clients to the others, gently",
		.details =
			"The node reports that it is not ready and its clients "
			"leave at a pace that the\nother nodes can take. "
			"Prints how far it is, until it is empty. It then "
			"stays\nempty and not ready, until it is ended or told "
			"with --stop to take streams again.",
		.examples = "stentorctl drain node-7\n"
			    "stentorctl drain node-7 --time 5m\n"
			    "stentorctl drain node-7 --stop",
		.options = ctl_drain_options,
		.least = 1,
		.most = 1,
		.run = ctl_drain,
	},
	{
		.name = "revoke",
		.arguments = "",
		.summary =
			"refuse a token, or all tokens of a subject, from now "
			"on",
		.details =
			"Everywhere in the cluster; streams that live by such "
			"a token end. With --sub,\ntokens that were issued "
			"up to now; later ones are good again. Needs a "
			"token\nwith \"admin\": true.",
		.examples = "stentorctl --token-file admin.jwt revoke --sub "
			    "user:42\n"
			    "stentorctl --token-file admin.jwt revoke --jti "
			    "9f86d081 --ttl 2h",
		.options = ctl_revoke_options,
		.run = ctl_revoke,
	},
	{
		.name = "help",
		.arguments = "[COMMAND]",
		.summary = "explain all commands, or one",
		.most = 1,
		.run = show_help,
	},
	{.name = NULL},
};

/* --- help -------------------------------------------------------------- */

static void print_options(FILE *out, const char *title,
			  const struct ctl_option *options)
{
	fprintf(out, "\n%s:\n", title);
	for (; options->name; options++) {
		char left[64];

		snprintf(left, sizeof(left), "--%s%s%s", options->name,
			 options->metavar ? " " : "",
			 options->metavar ? options->metavar : "");
		fprintf(out, "  %-21s  %s\n", left, options->help);
	}
}

static void print_examples(FILE *out, const char *lines)
{
	fputs("\nExamples:\n", out);
	while (*lines) {
		size_t len = strcspn(lines, "\n");

		fprintf(out, "  %.*s\n", (int)len, lines);
		lines += len + (lines[len] == '\n');
	}
}

static void print_overview(FILE *out)
{
	fputs("Usage: stentorctl [OPTIONS] COMMAND ...\n"
	      "\nLook into a running Stentor cluster, publish, and follow "
	      "channels.\n\nCommands:\n",
	      out);
	for (const struct ctl_command *c = commands; c->name; c++) {
		char left[64];

		snprintf(left, sizeof(left), "%s %s", c->name, c->arguments);
		fprintf(out, "  %-24s  %s\n", left, c->summary);
	}
	print_options(out, "Options of all commands", ctl_globals);
	print_examples(out, "stentorctl tail score:42 &\n"
			    "stentorctl publish score:42 'IND 245/3'\n"
			    "stentorctl help publish");
	fputs("\nExit codes: 0 ok, 1 failed, 2 wrong usage, 69 not reachable "
	      "or not available.\n",
	      out);
}

static void print_command(FILE *out, const struct ctl_command *c)
{
	bool has_options = c->options != NULL;

	fprintf(out, "Usage: stentorctl %s%s%s%s\n\n%c%s.\n", c->name,
		has_options ? " [OPTIONS]" : "", *c->arguments ? " " : "",
		c->arguments, c->summary[0] - 'a' + 'A', c->summary + 1);
	if (c->details)
		fprintf(out, "%s\n", c->details);
	if (has_options)
		print_options(out, "Options", c->options);
	print_options(out, "Options of all commands", ctl_globals);
	if (c->examples)
		print_examples(out, c->examples);
}

static int show_help(const struct ctl_args *args)
{
	const struct ctl_command *c;

	if (args->count == 0) {
		print_overview(stdout);
		return CTL_OK;
	}
	c = ctl_command_find(commands, args->argument[0]);
	if (!c) {
		ctl_complain("there is no command '%s'; 'stentorctl help' "
			     "lists them",
			     args->argument[0]);
		return CTL_USAGE;
	}
	print_command(stdout, c);
	return CTL_OK;
}

/* --- main -------------------------------------------------------------- */

static int complain_usage(const struct ctl_args *args, const char *problem)
{
	ctl_complain("%s", problem);
	if (args->command)
		fprintf(stderr,
			"Usage: stentorctl %s %s\n"
			"'stentorctl help %s' says more.\n",
			args->command->name, args->command->arguments,
			args->command->name);
	else
		fputs("'stentorctl help' lists the commands.\n", stderr);
	return CTL_USAGE;
}

static int check_globals(const struct ctl_args *args)
{
	const char *timeout = args->global[CTL_TIMEOUT];
	unsigned long seconds;

	if (timeout && !ctl_number(timeout, 1, TIMEOUT_MAX_SECONDS, &seconds)) {
		ctl_complain("--timeout is a number of seconds from 1 to %d",
			     TIMEOUT_MAX_SECONDS);
		return CTL_USAGE;
	}
	if (!ctl_url_valid(ctl_dispatcher(args))) {
		ctl_complain("the dispatcher's address is host:port or "
			     "http://host:port, not '%s'",
			     ctl_dispatcher(args));
		return CTL_USAGE;
	}
	return CTL_OK;
}

int main(int argc, char *argv[])
{
	struct ctl_args args;
	char problem[256];
	int rc;

	if (ctl_args_parse(&args, commands, argc, argv, problem,
			   sizeof(problem)) != 0)
		return complain_usage(&args, problem);
	if (args.global[CTL_VERSION]) {
		printf("stentorctl %s\n", stentor_version);
		return CTL_OK;
	}
	if (args.global[CTL_HELP] && args.command) {
		print_command(stdout, args.command);
		return CTL_OK;
	}
	if (args.global[CTL_HELP]) {
		print_overview(stdout);
		return CTL_OK;
	}
	if (!args.command) {
		print_overview(stderr);
		return CTL_USAGE;
	}
	rc = check_globals(&args);
	if (rc != CTL_OK)
		return rc;
	check(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
	rc = args.command->run(&args);
	curl_global_cleanup();
	if (fflush(stdout) != 0 && rc == CTL_OK) {
		ctl_complain("stdout can't be written");
		rc = CTL_FAILED;
	}
	return rc;
}

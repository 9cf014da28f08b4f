/* stentorctl drain: empties a node, and follows it until it is empty. */
#include "common/base/config.h"
#include "dispatcher/ctl/client.h"
#include "dispatcher/ctl/commands.h"
#include "dispatcher/ctl/print.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define TIME_MIN_MS 1000u
#define TIME_MAX_MS (24u * 3600 * 1000)

enum { OPTION_TIME, OPTION_STOP, OPTION_NO_WAIT };

const struct ctl_option ctl_drain_options[] = {
	[OPTION_TIME] = {"time", "TIME",
			 "the longest it may take, 1s to 24h; then those that "
			 "are left go at once (default: the node's "
			 "--drain-seconds)"},
	[OPTION_STOP] = {"stop", NULL,
			 "ends a drain: the node takes new streams again"},
	[OPTION_NO_WAIT] = {"no-wait", NULL,
			    "only give the order, do not follow it"},
	{NULL, NULL, NULL},
};

/* The node's entry in the list; NULL: it is not there. */
static const json_t *drain_find_node(const json_t *list, const char *name)
{
	const json_t *nodes = json_object_get(list, "nodes"), *node;
	size_t i;

	json_array_foreach(nodes, i, node)
	{
		if (strcmp(ctl_json_text(node, "name"), name) == 0)
			return node;
	}
	return NULL;
}

static void print_progress(const struct ctl_args *args, const char *name,
			   const json_t *node)
{
	char eta[32];

	if (args->global[CTL_JSON]) {
		json_dumpf(node, stdout, JSON_COMPACT);
		putchar('\n');
	} else {
		ctl_format_duration(eta, sizeof(eta),
				    ctl_json_number(node, "drainEtaMs"));
		ctl_print_text(stdout, name, strlen(name), -1);
		printf(": %" PRIu64 " left, %" PRIu64 " a second, about %s\n",
		       ctl_json_number(node, "connections"),
		       ctl_json_number(node, "leavingPerSecond"), eta);
	}
	fflush(stdout);
}

/* A look a second, until it is empty or gone. */
static int drain_follow(const struct ctl_args *args, const char *name)
{
	bool drained = false;

	while (!drained) {
		json_t *list;
		const json_t *node;
		int rc;

		sleep(1);
		rc = ctl_call(args, "stentor.v1.ClusterService/ListNodes",
			      json_object(), &list);
		if (rc != CTL_OK)
			return rc;
		node = drain_find_node(list, name);
		if (node == NULL) {
			if (!args->global[CTL_JSON])
				puts("the node is gone");
			json_decref(list);
			return CTL_OK;
		}
		print_progress(args, name, node);
		drained = ctl_json_number(node, "connections") == 0;
		if (!drained &&
		    json_is_false(json_object_get(node, "draining"))) {
			ctl_complain("the drain was stopped");
			json_decref(list);
			return CTL_FAILED;
		}
		json_decref(list);
	}
	return CTL_OK;
}

int ctl_drain(const struct ctl_args *args)
{
	const char *name = args->argument[0];
	const char *time = args->option[OPTION_TIME];
	bool stop = args->option[OPTION_STOP] != NULL;
	uint64_t ms = 0;
	json_t *request, *response;
	int rc;

	if (time && (config_duration(time, &ms) != 0 || ms < TIME_MIN_MS ||
		     ms > TIME_MAX_MS)) {
		ctl_complain("--time is a time from 1s to 24h (digits with s, "
			     "m or h), not '%s'",
			     time);
		return CTL_USAGE;
	}
	request = json_pack("{s:s, s:I, s:b}", "node", name, "seconds",
			    (json_int_t)(ms / 1000), "stop", stop);
	if (!request) {
		ctl_complain("a node's name is UTF-8");
		return CTL_USAGE;
	}
	rc = ctl_call(args, "stentor.v1.ClusterService/DrainNode", request,
		      &response);
	if (rc != CTL_OK)
		return rc;
	if (!args->global[CTL_JSON])
		printf(stop ? "told to take streams again: %" PRIu64
			      " workers, %" PRIu64 " streams\n"
			    : "told to drain: %" PRIu64 " workers, %" PRIu64
			      " streams\n",
		       ctl_json_number(response, "workers"),
		       ctl_json_number(response, "connections"));
	else if (stop || args->option[OPTION_NO_WAIT])
		ctl_print_json(response);
	json_decref(response);
	return stop || args->option[OPTION_NO_WAIT] ? CTL_OK
						    : drain_follow(args, name);
}

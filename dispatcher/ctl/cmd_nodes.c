/* stentorctl nodes: the cluster as one dispatcher sees it. */
#include "common/base/clock.h"
#include "dispatcher/ctl/client.h"
#include "dispatcher/ctl/commands.h"
#include "dispatcher/ctl/print.h"

#include <inttypes.h>
#include <string.h>

static void add_of_max(struct ctl_table *t, const json_t *object)
{
	ctl_table_add(t, "%" PRIu64 "/%" PRIu64,
		      ctl_json_number(object, "connections"),
		      ctl_json_number(object, "connectionsMax"));
}

static void add_bytes(struct ctl_table *t, uint64_t bytes)
{
	char text[32];

	ctl_format_bytes(text, sizeof(text), bytes);
	ctl_table_add(t, "%s", text);
}

static void add_worker(struct ctl_table *t, const char *node,
		       const json_t *worker, uint64_t now_ms)
{
	uint64_t since = ctl_json_number(worker, "sinceMs");
	char text[32];

	ctl_table_add(t, "%s", node);
	ctl_table_add(t, "%" PRIu64, ctl_json_number(worker, "index"));
	ctl_json_enum(worker, "state", "WORKER_STATE_", text, sizeof(text));
	ctl_table_add(t, "%s", text);
	add_of_max(t, worker);
	ctl_table_add(t, "%" PRIu64, ctl_json_number(worker, "channels"));
	ctl_table_add(t, "%" PRIu64, ctl_json_number(worker, "messagesSent"));
	ctl_table_add(t, "%" PRIu64,
		      ctl_json_number(worker, "messagesDropped"));
	add_bytes(t, ctl_json_number(worker, "linkQueueBytes"));
	add_bytes(t, ctl_json_number(worker, "linkUnackedBytes"));
	ctl_format_duration(text, sizeof(text),
			    now_ms > since ? now_ms - since : 0);
	ctl_table_add(t, "%s", text);
}

static void print_nodes(const json_t *response)
{
	static const char *const titles[] = {
		"NODE",	    "WORKER", "STATE",	 "CONNECTIONS",
		"CHANNELS", "SENT",   "DROPPED", "QUEUE",
		"UNACKED",  "UP",     NULL};
	const json_t *nodes = json_object_get(response, "nodes");
	uint64_t now_ms = clock_wall_ms(), connections = 0, max = 0;
	size_t i, j, workers = 0;
	const json_t *node, *worker;
	struct ctl_table t;

	ctl_table_init(&t, titles);
	json_array_foreach(nodes, i, node)
	{
		const json_t *list = json_object_get(node, "workers");

		connections += ctl_json_number(node, "connections");
		max += ctl_json_number(node, "connectionsMax");
		workers += json_array_size(list);
		json_array_foreach(list, j, worker) add_worker(
			&t, ctl_json_text(node, "name"), worker, now_ms);
	}
	if (workers > 0)
		ctl_table_print(&t, stdout);
	ctl_table_fini(&t);
	printf("%zu node%s, %zu worker%s, %" PRIu64 " of %" PRIu64
	       " connections, as ",
	       json_array_size(nodes), json_array_size(nodes) == 1 ? "" : "s",
	       workers, workers == 1 ? "" : "s", connections, max);
	ctl_print_text(stdout, ctl_json_text(response, "dispatcher"),
		       strlen(ctl_json_text(response, "dispatcher")), -1);
	puts(" sees them");
}

int ctl_nodes(const struct ctl_args *args)
{
	return ctl_call_and_print(args, "stentor.v1.ClusterService/ListNodes",
				  json_object(), print_nodes);
}

/* main.c - a connection node: the supervisor, or (argv[1] is WORKER_ROLE) one
 * of its workers.
 */
#include "common/base/cgroup.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/listener.h"
#include "connnode/link/uplink.h"
#include "connnode/node/files.h"
#include "connnode/supervisor.h"
#include "connnode/worker.h"

#include <math.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROGRAM "stentor-connnode: "

/* Cores this process may use: affinity, and the quota of its cgroups. */
static uint64_t usable_cores(void)
{
	double quota = ceil(cgroup_cores());
	cpu_set_t set;
	uint64_t cores = 1;

	if (sched_getaffinity(0, sizeof(set), &set) == 0)
		cores = (uint64_t)CPU_COUNT(&set);
	if (quota < (double)cores)
		cores = (uint64_t)quota;
	return max_of(cores, 1u);
}

static int config_fault(const char *format, ...) PRINTF(1, 2);
static int config_fault(const char *format, ...)
{
	va_list args;

	fputs(PROGRAM, stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	return ERR_CONFIG;
}

/* Every worker must be able to hold its share: a default is lowered to what
 * the limit of open files allows, a wish that can't be had is an error. */
static int fit_connections(struct connnode_options *o, bool asked_for)
{
	uint64_t files = config_raise_nofile();
	uint64_t share = (o->connections_max + o->workers - 1) / o->workers;
	struct files_plan plan =
		files_plan(files, share, o->heads_max, asked_for);
	uint64_t possible = plan.streams * o->workers;

	if (possible == 0)
		return config_fault("the limit of open files, %llu, is too low",
				    (unsigned long long)files);
	if (plan.heads < o->heads_max)
		log_warn("HEADS-LOWERED", "from=%llu to=%llu nofile=%llu",
			 (unsigned long long)o->heads_max,
			 (unsigned long long)plan.heads,
			 (unsigned long long)files);
	if (plan.streams >= share)
		return 0;
	if (asked_for)
		return config_fault(
			"--max-connections %llu: %llu workers with %llu open "
			"files each can hold %llu",
			(unsigned long long)o->connections_max,
			(unsigned long long)o->workers,
			(unsigned long long)files,
			(unsigned long long)possible);
	log_warn("CONNECTIONS-LOWERED", "from=%llu to=%llu nofile=%llu",
		 (unsigned long long)o->connections_max,
		 (unsigned long long)possible, (unsigned long long)files);
	o->connections_max = possible;
	return 0;
}

static int load_options(struct connnode_options *o, struct rules *rules,
			struct auth_config *auth, int argc, char *argv[])
{
	int rc = config_load(&connnode_program, o, rules, auth, argc, argv);

	if (rc == 0)
		rc = connnode_options_check(o, auth);
	if (rc != 0)
		return rc;
	if (o->workers == 0)
		o->workers = usable_cores();
	return 0;
}

static int run_worker(struct connnode_options *o, struct rules *rules,
		      struct auth_config *auth, const struct worker_args *role,
		      int argc, char *argv[])
{
	struct worker_start start = {
		.options = o,
		.rules = rules,
		.auth_config = auth,
		.argc = argc,
		.argv = argv,
		.index = role->index,
		.link_url = role->link_url,
		.connections_max = role->connections_max,
		.shared_fd = WORKER_SHARED_FD,
	};
	char component[32];

	snprintf(component, sizeof(component), "connnode/%u", start.index);
	process_options_apply(&o->process, component, NULL);
	start.heads_max = files_plan(config_raise_nofile(),
				     start.connections_max, o->heads_max, true)
				  .heads;
	free(o->listen);
	o->listen = xstrdup(role->listen);
	return worker_run(&start);
}

/* A worker's arguments: program, role, index, address, link, share, and then
 * the node's own. What is left in argv is as if the node had been started. */
static bool take_role(int *argc, char ***argv, struct worker_args *role)
{
	char **arg = *argv;

	if (*argc < WORKER_ARGS || strcmp(arg[1], WORKER_ROLE) != 0)
		return false;
	role->index = (unsigned)strtoul(arg[2], NULL, 10);
	role->listen = arg[3];
	role->link_url = arg[4];
	role->connections_max = strtoull(arg[5], NULL, 10);
	arg[WORKER_ARGS - 1] = arg[0];
	*argv += WORKER_ARGS - 1;
	*argc -= WORKER_ARGS - 1;
	return true;
}

static int run(struct connnode_options *o, struct rules *rules,
	       struct auth_config *auth, const struct worker_args *role,
	       int argc, char *argv[])
{
	int rc = load_options(o, rules, auth, argc, argv);

	if (rc != 0)
		return rc > 0 ? 0 : CONFIG_EXIT;
	signal(SIGPIPE, SIG_IGN);
	if (role != NULL)
		return run_worker(o, rules, auth, role, argc, argv);
	process_options_apply(&o->process, "connnode", NULL);
	rc = fit_connections(o, config_given(&connnode_program,
					     "max-connections", argc, argv));
	if (rc != 0)
		return CONFIG_EXIT;
	return supervisor_run(o, auth, argc, argv);
}

int main(int argc, char *argv[])
{
	struct connnode_options o = {0};
	struct rules rules = {0};
	struct auth_config auth = {0};
	struct worker_args role;
	bool is_worker = take_role(&argc, &argv, &role);
	int rc = run(&o, &rules, &auth, is_worker ? &role : NULL, argc, argv);

	config_free(&connnode_program, &o);
	rules_free(&rules);
	auth_config_free(&auth);
	return rc;
}

#include "common/base/metrics.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* What every Prometheus client library tells of its process, from proc(5). */
struct process {
	double cpu_seconds;   /* with that of children waited for */
	double start_seconds; /* since the machine booted */
	double resident_bytes;
	double open_fds, max_fds;
};

/* A small file of /proc as text; false where the process is gone. */
static bool read_proc(int pid, const char *name, char *text, size_t size)
{
	char path[64];
	size_t len;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
	file = fopen(path, "re");
	if (!file)
		return false;
	len = fread(text, 1, size - 1, file);
	text[len] = '\0';
	fclose(file);
	return len > 0;
}

static double count_fds(int pid)
{
	char path[64];
	struct stat status;
	double count = 0;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	/* Since Linux 6.2 its size tells, of any process; another's directory
	 * can't be read where that is in a sandbox and we are not root. */
	if (stat(path, &status) == 0 && status.st_size > 0)
		return (double)status.st_size;
	dir = opendir(path);
	if (!dir)
		return 0;
	for (struct dirent *e; (e = readdir(dir));)
		count += e->d_name[0] != '.';
	closedir(dir);
	if (pid == getpid())
		count--; /* the directory itself */
	return count;
}

/* Adds what there is: a child may end in between. */
static void process_add(struct process *p, int pid)
{
	double ticks = (double)sysconf(_SC_CLK_TCK);
	unsigned long long user, system, start, limit;
	long long child_user, child_system;
	unsigned long long resident;
	char text[4096];
	const char *at;

	/* proc(5): fields 14 to 17 and 22, after a name in brackets that may
	 * itself hold brackets. */
	if (read_proc(pid, "stat", text, sizeof(text)) &&
	    (at = strrchr(text, ')')) &&
	    sscanf(at,
		   ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu "
		   "%lld %lld %*d %*d %*d %*d %llu",
		   &user, &system, &child_user, &child_system, &start) == 5) {
		p->cpu_seconds += (double)(user + system) / ticks;
		p->cpu_seconds += (double)(child_user + child_system) / ticks;
		p->start_seconds = (double)start / ticks;
	}
	if (read_proc(pid, "statm", text, sizeof(text)) &&
	    sscanf(text, "%*u %llu", &resident) == 1)
		p->resident_bytes +=
			(double)resident * (double)sysconf(_SC_PAGESIZE);
	if (read_proc(pid, "limits", text, sizeof(text)) &&
	    (at = strstr(text, "Max open files")) &&
	    sscanf(at, "Max open files %llu", &limit) == 1)
		p->max_fds += (double)limit;
	p->open_fds += count_fds(pid);
}

/* When the machine booted, in seconds since 1970. */
static double boot_seconds(void)
{
	unsigned long long seconds = 0;
	FILE *file = fopen("/proc/stat", "re");
	char line[256];

	if (!file)
		return 0;
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "btime %llu", &seconds) == 1)
			break;
	fclose(file);
	return (double)seconds;
}

void metrics_process(struct metrics_text *t, const char *version,
		     const int *children, size_t count)
{
	struct process all = {0}, self;
	char label[128] = "";

	process_add(&all, getpid());
	self = all;
	for (size_t i = 0; i < count; i++)
		process_add(&all, children[i]);
	metrics_label(label, sizeof(label), "version", version);
	metrics_head(t, "build_info", METRIC_GAUGE, "What runs here.");
	metrics_sample(t, "build_info", label, 1);

	metrics_printf(t,
		       "# HELP process_cpu_seconds_total CPU time used.\n"
		       "# TYPE process_cpu_seconds_total counter\n"
		       "process_cpu_seconds_total %.2f\n",
		       all.cpu_seconds);
	metrics_printf(t,
		       "# HELP process_resident_memory_bytes Memory in use.\n"
		       "# TYPE process_resident_memory_bytes gauge\n"
		       "process_resident_memory_bytes %.0f\n",
		       all.resident_bytes);
	metrics_printf(t,
		       "# HELP process_open_fds Open file descriptors.\n"
		       "# TYPE process_open_fds gauge\n"
		       "process_open_fds %.0f\n",
		       all.open_fds);
	metrics_printf(t,
		       "# HELP process_max_fds Limit of open descriptors.\n"
		       "# TYPE process_max_fds gauge\n"
		       "process_max_fds %.0f\n",
		       all.max_fds);
	metrics_printf(t,
		       "# HELP process_start_time_seconds Start, since 1970.\n"
		       "# TYPE process_start_time_seconds gauge\n"
		       "process_start_time_seconds %.2f\n",
		       boot_seconds() + self.start_seconds);
}

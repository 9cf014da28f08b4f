#include "common/base/cgroup.h"

#include "common/base/check.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROOT	     "/sys/fs/cgroup"
#define PATH_MAX_LEN 4096

/* The first line of a file of one cgroup; "" if there is none. */
static void read_line(const char *root, const char *dir, const char *file,
		      char text[64])
{
	char path[PATH_MAX_LEN + 64];
	FILE *f;

	text[0] = '\0';
	snprintf(path, sizeof(path), "%s%s/%s", root, dir, file);
	f = fopen(path, "re");
	if (f == NULL)
		return;
	if (fgets(text, 64, f) == NULL)
		text[0] = '\0';
	fclose(f);
}

/* "max", or bytes. */
static double parse_memory(const char *text)
{
	return text[0] == '\0' || strncmp(text, "max", 3) == 0
		       ? INFINITY
		       : (double)strtoull(text, NULL, 10);
}

/* "max 100000", or of how many microseconds how many. */
static double parse_cores(const char *text)
{
	double quota, period;

	return sscanf(text, "%lf %lf", &quota, &period) == 2 && quota > 0 &&
			       period > 0
		       ? quota / period
		       : INFINITY;
}

/* A limit may stand at any level: systemd and Kubernetes put theirs above a
 * process's own group. */
static double least(const char *root, const char *path, const char *file,
		    double (*parse)(const char *text))
{
	char dir[PATH_MAX_LEN], text[64], *slash;
	double limit = INFINITY;

	if (strlen(path) >= sizeof(dir))
		return limit;
	strcpy(dir, path);
	for (;;) {
		read_line(root, dir, file, text);
		limit = fmin(limit, parse(text));
		slash = strrchr(dir, '/');
		if (slash == NULL)
			return limit;
		*slash = '\0';
	}
}

uint64_t cgroup_memory_max_at(const char *root, const char *path)
{
	double limit = least(root, path, "memory.max", parse_memory);

	return limit < (double)UINT64_MAX ? (uint64_t)limit : UINT64_MAX;
}

double cgroup_cores_at(const char *root, const char *path)
{
	return least(root, path, "cpu.max", parse_cores);
}

/* The line of v2 in /proc/self/cgroup: "0::/path". */
static void own_path(char *path, size_t size)
{
	FILE *f = fopen("/proc/self/cgroup", "re");
	char line[PATH_MAX_LEN];

	path[0] = '\0';
	if (f == NULL)
		return;
	while (fgets(line, sizeof(line), f) != NULL) {
		if (strncmp(line, "0::", 3) != 0)
			continue;
		line[strcspn(line, "\n")] = '\0';
		snprintf(path, size, "%s", line + 3);
	}
	fclose(f);
}

uint64_t cgroup_memory_max(void)
{
	uint64_t machine = (uint64_t)sysconf(_SC_PHYS_PAGES) *
			   (uint64_t)sysconf(_SC_PAGESIZE);
	char path[PATH_MAX_LEN];

	own_path(path, sizeof(path));
	return min_of(machine, cgroup_memory_max_at(ROOT, path));
}

double cgroup_cores(void)
{
	char path[PATH_MAX_LEN];

	own_path(path, sizeof(path));
	return cgroup_cores_at(ROOT, path);
}

#include "common/base/cgroup.h"

#include "common/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ROOT	     "/sys/fs/cgroup"
#define PATH_MAX_LEN 4096

/* "max", or bytes. */
static uint64_t read_limit(const char *root, const char *dir)
{
	char path[PATH_MAX_LEN + 64], text[32] = "max";
	uint64_t limit = UINT64_MAX;
	FILE *f;

	snprintf(path, sizeof(path), "%s%s/memory.max", root, dir);
	f = fopen(path, "re");
	if (f == NULL)
		return limit;
	if (fgets(text, sizeof(text), f) != NULL &&
	    strncmp(text, "max", 3) != 0)
		limit = strtoull(text, NULL, 10);
	fclose(f);
	return limit;
}

uint64_t cgroup_memory_max_at(const char *root, const char *path)
{
	char dir[PATH_MAX_LEN];
	uint64_t least = UINT64_MAX;
	char *slash;

	if (strlen(path) >= sizeof(dir))
		return least;
	strcpy(dir, path);
	for (;;) {
		least = min_of(least, read_limit(root, dir));
		slash = strrchr(dir, '/');
		if (slash == NULL)
			return least;
		*slash = '\0';
	}
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

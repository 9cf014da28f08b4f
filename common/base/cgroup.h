/* cgroup.h - what the kernel lets this process use (cgroup v2). */
#ifndef STENTOR_BASE_CGROUP_H
#define STENTOR_BASE_CGROUP_H

#include <stdint.h>

/* The least `memory.max` of the process's cgroup and those above it, or the
 * machine's memory, if that is less. Bytes. */
uint64_t cgroup_memory_max(void);

/* The same below `root` (/sys/fs/cgroup) for the cgroup `path` ("/a/b");
 * UINT64_MAX: no limit. For tests. */
uint64_t cgroup_memory_max_at(const char *root, const char *path);

/* Likewise by `cpu.max`: how many cores; INFINITY: no limit. */
double cgroup_cores(void);
double cgroup_cores_at(const char *root, const char *path);

#endif

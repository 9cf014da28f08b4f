#include "connnode/shared.h"

#include "common/base/check.h"
#include "connnode/metrics.h"

#include <sys/mman.h>
#include <unistd.h>

size_t shared_size(void)
{
	return sizeof(struct worker_shared) +
	       metrics_size(node_metrics, NM_COUNT);
}

struct worker_shared *shared_attach(int fd)
{
	void *memory = mmap(NULL, shared_size(), PROT_READ | PROT_WRITE,
			    MAP_SHARED, fd, 0);

	check(memory != MAP_FAILED);
	return memory;
}

int shared_create(struct worker_shared **out)
{
	int fd = memfd_create("stentor-worker", MFD_CLOEXEC);

	check(fd >= 0);
	check(ftruncate(fd, (off_t)shared_size()) == 0);
	*out = shared_attach(fd);
	return fd;
}

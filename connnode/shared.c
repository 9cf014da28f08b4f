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

/* --- revocations: a ring that one process writes and another reads ------- */

void shared_revoke(struct worker_shared *shared,
		   const struct auth_revocation *r)
{
	struct shared_revocations *all = &shared->revocations;
	uint64_t n = all->told;

	/* Before the ring: who sees a part of this one there sees it begun. */
	__atomic_exchange_n(&all->begun, n + 1, __ATOMIC_ACQ_REL);
	all->ring[n % AUTH_REVOCATIONS_MAX] = *r;
	__atomic_store_n(&all->told, n + 1, __ATOMIC_RELEASE);
}

/* Number of the oldest that is neither overwritten nor about to be. That 0 is
 * added, not only read, keeps it behind what was read of the ring before. */
static uint64_t oldest(struct shared_revocations *all)
{
	uint64_t end = __atomic_fetch_add(&all->begun, 0, __ATOMIC_ACQ_REL);

	return end < AUTH_REVOCATIONS_MAX ? 0 : end - AUTH_REVOCATIONS_MAX;
}

bool shared_revoked(struct worker_shared *shared, uint64_t *taken,
		    uint64_t *lost, struct auth_revocation *r)
{
	struct shared_revocations *all = &shared->revocations;

	while (*taken != __atomic_load_n(&all->told, __ATOMIC_ACQUIRE)) {
		uint64_t n = *taken, first;

		*r = all->ring[n % AUTH_REVOCATIONS_MAX];
		first = oldest(all);
		*taken = max_of(n + 1, first);
		if (n >= first)
			return true;
		*lost += first - n;
	}
	return false;
}

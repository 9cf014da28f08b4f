#include "connnode/node/shared.h"

#include "common/base/check.h"
#include "connnode/node/metrics.h"

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

/* --- orders: 46 bits of number, 17 of seconds, one of drains -------------- */

/* Of two orders of one moment one is the greater for all, so that all workers
 * follow the same. */
void shared_give_order(struct worker_shared *shared,
		       const struct drain_order *order)
{
	uint64_t word = order->number << 18 |
			min_of(order->seconds, ORDER_SECONDS_MAX) << 1 |
			order->drains;
	uint64_t there = __atomic_load_n(&shared->order, __ATOMIC_RELAXED);

	if (order->number > ORDER_NUMBER_MAX)
		return;
	while (word > there &&
	       !__atomic_compare_exchange_n(&shared->order, &there, word, false,
					    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

struct drain_order shared_order(const struct worker_shared *shared)
{
	uint64_t word = __atomic_load_n(&shared->order, __ATOMIC_RELAXED);

	return (struct drain_order){
		.number = word >> 18,
		.seconds = word >> 1 & ORDER_SECONDS_MAX,
		.drains = (word & 1) != 0,
	};
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

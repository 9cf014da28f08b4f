/* Each shard is an open-addressing table with linear probing and deletion by
 * shifting back, so there are no tombstones. A slot is 12 bytes:
 *
 *	key (64 bits) | worker[0] | worker[1]
 *	                NONE        NONE             empty
 *	                id          NONE             one worker
 *	                id          larger id        two workers
 *	                low 16 bits SET | high 14    set: index into shard->sets
 *
 * Worker ids have 12 bits, so that these can't be confused, and a key of 0
 * needs no special care. Load stays between LOAD_MIN and LOAD_MAX: 12 bytes a
 * slot / 0.52 = 23.1 bytes a pair at worst.
 *
 * Shard and place come from key * mixer with a secret odd multiplier
 * (multiply-shift hashing), so that even a peer that chooses its keys can't
 * make them pile up.
 */
#include "dispatcher/route/interest.h"

#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define NONE	  0xffffu
#define SET_TAG	  0x8000u
#define SET_MASK  0xc000u
#define SET_END	  UINT32_MAX
#define SET_FIRST 10 /* with its head, what the smallest heap block holds */

#define SLOTS_MIN	 16u
#define LOAD_MAX(cap)	 ((uint32_t)((uint64_t)(cap)*80 / 100))
#define LOAD_MIN(cap)	 ((uint32_t)((uint64_t)(cap)*52 / 100))
#define CAP_GROWN(cap)	 ((uint32_t)((uint64_t)(cap)*4 / 3))
#define CAP_FOR(count)	 ((uint32_t)((uint64_t)(count)*10 / 7))
#define SETS_FREE_MAX(n) ((n) / 4 + 16)

struct interest_slot {
	uint32_t key_low, key_high; /* halves, so that a slot has 12 bytes */
	uint16_t worker[2];
};

struct set {
	uint16_t count, cap;
	uint16_t workers[]; /* ascending */
};

union interest_set_ref {
	struct set *set;
	uintptr_t next_free;
};

/* What glibc takes for a block: 8 bytes of header, 16-aligned, 32 or more. */
static size_t heap_cost(size_t size)
{
	size_t cost = (size + 8 + 15) & ~(size_t)15;

	return size == 0 ? 0 : max_of(cost, (size_t)32);
}

static size_t set_cost(uint16_t cap)
{
	return heap_cost(sizeof(struct set) + cap * sizeof(uint16_t));
}

void interest_init(struct interest *t, uint64_t pairs_max)
{
	memset(t, 0, sizeof(*t));
	for (unsigned i = 0; i < INTEREST_SHARDS; i++)
		t->shards[i].free_head = SET_END;
	t->scratch = xcalloc(INTEREST_WORKERS_MAX, sizeof(*t->scratch));
	t->mixer = random_nonzero() | 1;
	t->pairs_max = pairs_max;
	t->bytes = sizeof(*t) +
		   heap_cost(INTEREST_WORKERS_MAX * sizeof(*t->scratch));
}

/* --- slots ------------------------------------------------------------- */

static bool slot_is_empty(const struct interest_slot *slot)
{
	return slot->worker[0] == NONE && slot->worker[1] == NONE;
}

static bool slot_is_set(const struct interest_slot *slot)
{
	return (slot->worker[1] & SET_MASK) == SET_TAG;
}

static uint64_t slot_key(const struct interest_slot *slot)
{
	return (uint64_t)slot->key_high << 32 | slot->key_low;
}

static uint32_t slot_set_index(const struct interest_slot *slot)
{
	return (uint32_t)(slot->worker[1] & ~SET_MASK) << 16 | slot->worker[0];
}

static void slot_refer(struct interest_slot *slot, uint32_t index)
{
	check(index < 1u << 30);
	slot->worker[0] = (uint16_t)(index & 0xffff);
	slot->worker[1] = (uint16_t)(SET_TAG | index >> 16);
}

static unsigned shard_of(const struct interest *t, uint64_t key)
{
	return (unsigned)(key * t->mixer >> 56);
}

/* The 32 bits after the shard's, scaled to the capacity without a division. */
static uint32_t home_of(const struct interest *t,
			const struct interest_shard *s, uint64_t key)
{
	uint64_t bits = key * t->mixer << 8 >> 32;

	return (uint32_t)(bits * s->slot_cap >> 32);
}

static uint32_t next_of(const struct interest_shard *s, uint32_t i)
{
	return i + 1 == s->slot_cap ? 0 : i + 1;
}

static struct interest_slot *interest_find(const struct interest *t,
					   const struct interest_shard *s,
					   uint64_t key)
{
	uint32_t low = (uint32_t)key, high = (uint32_t)(key >> 32);

	if (s->slot_cap == 0)
		return NULL;
	for (uint32_t i = home_of(t, s, key);; i = next_of(s, i)) {
		struct interest_slot *slot = &s->slots[i];

		if (slot_is_empty(slot))
			return NULL;
		if (slot->key_low == low && slot->key_high == high)
			return slot;
	}
}

/* The empty slot where an absent key belongs. */
static struct interest_slot *place(const struct interest *t,
				   const struct interest_shard *s, uint64_t key)
{
	uint32_t i = home_of(t, s, key);

	while (!slot_is_empty(&s->slots[i]))
		i = next_of(s, i);
	return &s->slots[i];
}

/* Moves the shard to a table of another capacity, and its sets to the front of
 * a list without holes. */
static void rebuild(struct interest *t, struct interest_shard *s, uint32_t cap)
{
	struct interest_shard old = *s;
	uint32_t sets = old.sets_len - old.sets_free;

	s->slot_cap = cap;
	s->slots = xmalloc(cap * sizeof(*s->slots));
	memset(s->slots, 0xff, cap * sizeof(*s->slots)); /* all NONE */
	s->sets_cap = sets;
	s->sets = sets ? xmalloc(sets * sizeof(*s->sets)) : NULL;
	s->sets_len = s->sets_free = 0;
	s->free_head = SET_END;
	for (uint32_t i = 0; i < old.slot_cap; i++) {
		const struct interest_slot *from = &old.slots[i];
		struct interest_slot *to;

		if (slot_is_empty(from))
			continue;
		to = place(t, s, slot_key(from));
		*to = *from;
		if (slot_is_set(from)) {
			check(s->sets_len < sets);
			s->sets[s->sets_len] = old.sets[slot_set_index(from)];
			slot_refer(to, s->sets_len++);
		}
	}
	check(s->sets_len == sets);
	t->bytes += heap_cost(cap * sizeof(*s->slots)) +
		    heap_cost(sets * sizeof(*s->sets));
	t->bytes -= heap_cost(old.slot_cap * sizeof(*s->slots)) +
		    heap_cost(old.sets_cap * sizeof(*s->sets));
	free(old.slots);
	free(old.sets);
}

/* After removals: gives back memory that 24 bytes a pair do not allow. */
static void interest_shrink(struct interest *t, struct interest_shard *s)
{
	uint32_t sets = s->sets_len - s->sets_free;
	bool loose = s->slot_cap > SLOTS_MIN &&
		     s->slot_count < LOAD_MIN(s->slot_cap);

	if (loose)
		rebuild(t, s, max_of(CAP_FOR(s->slot_count), SLOTS_MIN));
	else if (s->sets_free > SETS_FREE_MAX(sets))
		rebuild(t, s, s->slot_cap);
}

static struct interest_slot *slot_insert(struct interest *t,
					 struct interest_shard *s, uint64_t key)
{
	struct interest_slot *slot;

	if (s->slot_cap == 0)
		rebuild(t, s, SLOTS_MIN);
	else if (s->slot_count >= LOAD_MAX(s->slot_cap))
		rebuild(t, s, CAP_GROWN(s->slot_cap));
	slot = place(t, s, key);
	slot->key_low = (uint32_t)key;
	slot->key_high = (uint32_t)(key >> 32);
	s->slot_count++;
	return slot;
}

/* Empties a slot and closes the hole: whatever comes after it in the run and
 * may stand at the hole (its home is not between hole and itself) moves. */
static void slot_delete(const struct interest *t, struct interest_shard *s,
			struct interest_slot *slot)
{
	uint32_t hole = (uint32_t)(slot - s->slots);

	for (uint32_t i = next_of(s, hole); !slot_is_empty(&s->slots[i]);
	     i = next_of(s, i)) {
		uint32_t home = home_of(t, s, slot_key(&s->slots[i]));
		bool between = hole < i ? home > hole && home <= i
					: home > hole || home <= i;

		if (between)
			continue;
		s->slots[hole] = s->slots[i];
		hole = i;
	}
	memset(&s->slots[hole], 0xff, sizeof(s->slots[hole]));
	s->slot_count--;
}

/* --- sets of three and more -------------------------------------------- */

static struct set *set_new(struct interest *t, struct interest_shard *s,
			   uint32_t *index)
{
	struct set *set;

	if (s->free_head != SET_END) {
		*index = s->free_head;
		s->free_head = (uint32_t)s->sets[*index].next_free;
		s->sets_free--;
	} else {
		if (s->sets_len == s->sets_cap) {
			size_t cap = s->sets_cap + s->sets_cap / 4 + 4;

			t->bytes += heap_cost(cap * sizeof(*s->sets)) -
				    heap_cost(s->sets_cap * sizeof(*s->sets));
			s->sets = xrealloc(s->sets, cap * sizeof(*s->sets));
			s->sets_cap = (uint32_t)cap;
		}
		*index = s->sets_len++;
	}
	set = xmalloc(sizeof(*set) + SET_FIRST * sizeof(uint16_t));
	set->count = 0;
	set->cap = SET_FIRST;
	t->bytes += set_cost(set->cap);
	s->sets[*index].set = set;
	return set;
}

static void set_free(struct interest *t, struct interest_shard *s,
		     uint32_t index)
{
	t->bytes -= set_cost(s->sets[index].set->cap);
	free(s->sets[index].set);
	s->sets[index].next_free = s->free_head;
	s->free_head = index;
	s->sets_free++;
}

static struct set *set_resize(struct interest *t, union interest_set_ref *ref,
			      size_t cap)
{
	struct set *set = ref->set;

	t->bytes -= set_cost(set->cap);
	set = xrealloc(set, sizeof(*set) + cap * sizeof(uint16_t));
	set->cap = (uint16_t)cap;
	t->bytes += set_cost(set->cap);
	ref->set = set;
	return set;
}

/* Where the worker is in an ascending array, or would be. */
static size_t interest_position(const uint16_t *workers, size_t count,
				uint16_t worker)
{
	size_t low = 0;

	while (count > 0) {
		size_t half = count / 2;

		if (workers[low + half] < worker) {
			low += half + 1;
			count -= half + 1;
		} else {
			count = half;
		}
	}
	return low;
}

static int set_add(struct interest *t, union interest_set_ref *ref,
		   uint16_t worker)
{
	struct set *set = ref->set;
	size_t at = interest_position(set->workers, set->count, worker);

	if (at < set->count && set->workers[at] == worker)
		return ERR_EXISTS;
	if (set->count == set->cap)
		set = set_resize(t, ref, set->cap + set->cap / 2);
	memmove(&set->workers[at + 1], &set->workers[at],
		(set->count - at) * sizeof(uint16_t));
	set->workers[at] = worker;
	set->count++;
	return 0;
}

/* A set that has come down to two workers goes back into the slot. */
static void set_settle(struct interest *t, struct interest_shard *s,
		       struct interest_slot *slot)
{
	uint32_t index = slot_set_index(slot);
	struct set *set = s->sets[index].set;

	if (set->count <= 2) {
		slot->worker[0] = set->count > 0 ? set->workers[0] : NONE;
		slot->worker[1] = set->count > 1 ? set->workers[1] : NONE;
		set_free(t, s, index);
	} else if (set->cap > SET_FIRST && set->count < set->cap / 2) {
		set_resize(t, &s->sets[index],
			   max_of(set->count + set->count / 4, SET_FIRST));
	}
}

/* --- the workers of a slot --------------------------------------------- */

static size_t slot_workers(const struct interest_shard *s,
			   const struct interest_slot *slot,
			   const uint16_t **workers)
{
	if (slot_is_set(slot)) {
		const struct set *set = s->sets[slot_set_index(slot)].set;

		*workers = set->workers;
		return set->count;
	}
	*workers = slot->worker;
	return slot->worker[1] == NONE ? 1 : 2;
}

static int slot_add(struct interest *t, struct interest_shard *s,
		    struct interest_slot *slot, uint16_t worker)
{
	uint16_t first = slot->worker[0], second = slot->worker[1];
	uint32_t index;
	struct set *set;

	if (slot_is_set(slot))
		return set_add(t, &s->sets[slot_set_index(slot)], worker);
	if (first == worker || second == worker)
		return ERR_EXISTS;
	if (second == NONE) {
		slot->worker[0] = min_of(first, worker);
		slot->worker[1] = max_of(first, worker);
		return 0;
	}
	set = set_new(t, s, &index);
	set->workers[0] = first;
	set->workers[1] = second;
	set->count = 2;
	slot_refer(slot, index);
	return set_add(t, &s->sets[index], worker);
}

/* False where the worker is not there. May leave the slot empty, in a run that
 * still needs closing. */
static bool slot_remove(struct interest *t, struct interest_shard *s,
			struct interest_slot *slot, uint16_t worker)
{
	struct set *set;
	size_t at;

	if (!slot_is_set(slot)) {
		if (slot->worker[0] == worker)
			slot->worker[0] = slot->worker[1];
		else if (slot->worker[1] != worker)
			return false;
		slot->worker[1] = NONE;
		return true;
	}
	set = s->sets[slot_set_index(slot)].set;
	at = interest_position(set->workers, set->count, worker);
	if (at == set->count || set->workers[at] != worker)
		return false;
	set->count--;
	memmove(&set->workers[at], &set->workers[at + 1],
		(set->count - at) * sizeof(uint16_t));
	set_settle(t, s, slot);
	return true;
}

/* --- public ------------------------------------------------------------ */

void interest_fini(struct interest *t)
{
	for (unsigned i = 0; i < INTEREST_SHARDS; i++) {
		struct interest_shard *s = &t->shards[i];

		for (uint32_t j = 0; j < s->slot_cap; j++) {
			if (slot_is_set(&s->slots[j]))
				set_free(t, s, slot_set_index(&s->slots[j]));
		}
		free(s->sets);
		free(s->slots);
	}
	free(t->scratch);
}

int interest_add(struct interest *t, uint64_t key, uint16_t worker)
{
	struct interest_shard *s = &t->shards[shard_of(t, key)];
	struct interest_slot *slot = interest_find(t, s, key);
	int err = 0;

	check(worker < INTEREST_WORKERS_MAX);
	if (t->wants_all[worker])
		return 0;
	check(!t->dropped[worker]);
	if (t->pairs >= t->pairs_max)
		return ERR_FULL;
	if (slot) {
		err = slot_add(t, s, slot, worker);
		if (err)
			return err;
	} else {
		slot = slot_insert(t, s, key);
		slot->worker[0] = worker;
	}
	t->worker_pairs[worker]++;
	t->pairs++;
	return 0;
}

bool interest_remove(struct interest *t, uint64_t key, uint16_t worker)
{
	struct interest_shard *s = &t->shards[shard_of(t, key)];
	struct interest_slot *slot = interest_find(t, s, key);

	check(worker < INTEREST_WORKERS_MAX);
	if (t->wants_all[worker])
		return false;
	check(!t->dropped[worker]);
	if (!slot || !slot_remove(t, s, slot, worker))
		return false;
	if (slot_is_empty(slot))
		slot_delete(t, s, slot);
	t->worker_pairs[worker]--;
	t->pairs--;
	interest_shrink(t, s);
	return true;
}

/* Leaves out dropped workers of a slot's, and merges those that want
 * everything in; both are ascending, and a worker is never in both. */
static size_t merge(const struct interest *t, const uint16_t *all, size_t count)
{
	const uint16_t *extra = t->all, *extra_end = t->all + t->all_count;
	size_t found = 0;

	for (size_t i = 0; i < count; i++) {
		if (t->dropped[all[i]])
			continue;
		while (extra < extra_end && *extra < all[i])
			t->scratch[found++] = *extra++;
		t->scratch[found++] = all[i];
	}
	while (extra < extra_end)
		t->scratch[found++] = *extra++;
	return found;
}

size_t interest_lookup(const struct interest *t, uint64_t key,
		       const uint16_t **workers)
{
	const struct interest_shard *s = &t->shards[shard_of(t, key)];
	const struct interest_slot *slot = interest_find(t, s, key);
	const uint16_t *all = NULL;
	size_t count = 0;

	if (slot)
		count = slot_workers(s, slot, &all);
	else if (likely(t->all_count == 0))
		return 0;
	*workers = all;
	if (likely(t->garbage == 0 && t->all_count == 0))
		return count;
	*workers = t->scratch;
	return merge(t, all, count);
}

static void drop_pairs(struct interest *t, uint16_t worker)
{
	if (t->dropped[worker] || t->worker_pairs[worker] == 0)
		return;
	t->dropped[worker] = true;
	t->garbage += t->worker_pairs[worker];
}

int interest_want_all(struct interest *t, uint16_t worker)
{
	size_t at = interest_position(t->all, t->all_count, worker);

	check(worker < INTEREST_WORKERS_MAX);
	if (t->wants_all[worker])
		return 0;
	check(!t->dropped[worker]);
	if (t->all_count == INTEREST_ALL_MAX)
		return ERR_FULL;
	memmove(&t->all[at + 1], &t->all[at],
		(t->all_count - at) * sizeof(t->all[0]));
	t->all[at] = worker;
	t->all_count++;
	t->wants_all[worker] = true;
	drop_pairs(t, worker);
	return 0;
}

void interest_drop_worker(struct interest *t, uint16_t worker)
{
	check(worker < INTEREST_WORKERS_MAX);
	drop_pairs(t, worker);
	if (t->wants_all[worker]) {
		size_t at = interest_position(t->all, t->all_count, worker);

		t->all_count--;
		memmove(&t->all[at], &t->all[at + 1],
			(t->all_count - at) * sizeof(t->all[0]));
		t->wants_all[worker] = false;
	}
}

/* Removes dropped workers from a slot; true if it is empty now. */
static bool sweep_slot(struct interest *t, struct interest_shard *s,
		       struct interest_slot *slot)
{
	const uint16_t *workers;
	size_t i = slot_workers(s, slot, &workers);

	/* From the back: a removal shifts only what has been looked at; a set
	 * that settles into the slot moves, so the array is asked for anew. */
	while (i-- > 0) {
		uint16_t worker = workers[i];

		if (!t->dropped[worker])
			continue;
		check(slot_remove(t, s, slot, worker));
		t->pairs--;
		t->garbage--;
		if (--t->worker_pairs[worker] == 0)
			t->dropped[worker] = false;
		if (slot_is_empty(slot))
			return true;
		slot_workers(s, slot, &workers);
	}
	return false;
}

bool interest_sweep(struct interest *t, unsigned shards)
{
	for (; shards > 0 && t->garbage > 0; shards--) {
		struct interest_shard *s = &t->shards[t->sweep_at];
		uint32_t i = 0;

		/* Closing the hole may bring a slot here that has not been
		 * looked at, so `i` stays then. What closing moves across the
		 * end of the table has been looked at before. */
		while (i < s->slot_cap && t->garbage > 0) {
			struct interest_slot *slot = &s->slots[i];

			if (!slot_is_empty(slot) && sweep_slot(t, s, slot))
				slot_delete(t, s, slot);
			else
				i++;
		}
		interest_shrink(t, s);
		t->sweep_at = (t->sweep_at + 1) % INTEREST_SHARDS;
	}
	return t->garbage > 0;
}

bool interest_make_room(struct interest *t)
{
	while (t->pairs >= t->pairs_max) {
		if (t->garbage == 0)
			return false;
		interest_sweep(t, 1);
	}
	return true;
}

bool interest_worker_clean(const struct interest *t, uint16_t worker)
{
	check(worker < INTEREST_WORKERS_MAX);
	return t->worker_pairs[worker] == 0;
}

uint64_t interest_entries(const struct interest *t)
{
	return t->pairs - t->garbage;
}

uint64_t interest_worker_entries(const struct interest *t, uint16_t worker)
{
	check(worker < INTEREST_WORKERS_MAX);
	return t->dropped[worker] ? 0 : t->worker_pairs[worker];
}

size_t interest_bytes(const struct interest *t)
{
	return t->bytes;
}

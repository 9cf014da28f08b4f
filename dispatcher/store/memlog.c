#include "dispatcher/store/memlog.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "dispatcher/store/eras.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RING_MIN 8u

struct record {
	uint64_t ms; /* when it was appended; in order */
	size_t len;
	uint8_t bytes[];
};

/* Records first..top lie in the ring at their offset modulo its size, which is
 * a power of two. */
struct log {
	struct hmap_node by_channel;
	struct list by_use;
	uint64_t epoch, first, top;
	uint64_t last_ms, ttl_ms;
	struct store_eras *eras; /* NULL: none */
	struct record **ring;
	size_t ring_size;
	char channel[];
};

/* `name` is the channel, a space and the key; neither holds a space. */
struct key {
	struct hmap_node by_name;
	struct list by_age;
	uint64_t expires_ms, digest;
	struct store_place place;
	char message_id[STORE_MESSAGE_ID_SIZE];
	char name[];
};

void memlogs_init(struct memlogs *m, uint64_t bytes_max,
		  uint64_t idempotency_ms)
{
	*m = (struct memlogs){
		.hash_key = hash_key_random(),
		.bytes_max = bytes_max,
		.idempotency_ms = idempotency_ms,
	};
	hmap_init(&m->logs);
	hmap_init(&m->keys);
	list_init(&m->logs_by_use);
	list_init(&m->keys_by_age);
}

static void set_clock(struct memlogs *m, uint64_t now_ms)
{
	m->clock_ms = max_of(m->clock_ms, now_ms);
}

/* --- logs -------------------------------------------------------------- */

static size_t log_cost(const char *channel)
{
	return sizeof(struct log) + strlen(channel) + 1;
}

static size_t record_cost(size_t len)
{
	return sizeof(struct record *) + sizeof(struct record) + len;
}

static struct record **slot(struct log *log, uint64_t offset)
{
	return &log->ring[offset & (log->ring_size - 1)];
}

static void drop_until(struct memlogs *m, struct log *log, uint64_t first)
{
	for (; log->first < first; log->first++) {
		struct record **r = slot(log, log->first);

		m->bytes -= record_cost((*r)->len);
		free(*r);
		*r = NULL;
	}
}

static void drop_expired(struct memlogs *m, struct log *log, uint64_t now_ms)
{
	if (log->ttl_ms == 0)
		return;
	while (log->first <= log->top &&
	       now_ms >= (*slot(log, log->first))->ms + log->ttl_ms)
		drop_until(m, log, log->first + 1);
}

static bool counting_expired(const struct log *log, uint64_t now_ms)
{
	uint64_t linger = max_of(log->ttl_ms, (uint64_t)MEMLOG_LINGER_MS);

	return log->ttl_ms > 0 && now_ms >= log->last_ms + log->ttl_ms + linger;
}

static void log_free(struct memlogs *m, struct log *log)
{
	drop_until(m, log, log->top + 1);
	hmap_remove(&m->logs, &log->by_channel);
	list_remove(&log->by_use);
	m->bytes -= log_cost(log->channel);
	if (log->eras)
		m->bytes -= sizeof(*log->eras);
	free(log->eras);
	free(log->ring);
	free(log);
}

/* Forgets of the log what has expired; true if that was all of it. */
static bool log_expire(struct memlogs *m, struct log *log, uint64_t now_ms)
{
	drop_expired(m, log, now_ms);
	if (!counting_expired(log, now_ms))
		return false;
	log_free(m, log);
	m->clock_ms++; /* that of no log is greater than of any that was */
	return true;
}

static struct log *log_find(struct memlogs *m, const char *channel,
			    uint64_t now_ms)
{
	uint64_t hash = hash_bytes(&m->hash_key, channel, strlen(channel));

	hmap_for_each_hash (node, &m->logs, hash) {
		struct log *log = container_of(node, struct log, by_channel);

		if (strcmp(log->channel, channel) == 0)
			return log_expire(m, log, now_ms) ? NULL : log;
	}
	return NULL;
}

static struct log *log_new(struct memlogs *m, const char *channel)
{
	size_t len = strlen(channel);
	struct log *log = xcalloc(1, sizeof(*log) + len + 1);

	memcpy(log->channel, channel, len + 1);
	log->epoch = ++m->clock_ms;
	log->first = 1;
	hmap_insert(&m->logs, &log->by_channel,
		    hash_bytes(&m->hash_key, channel, len));
	list_push_back(&m->logs_by_use, &log->by_use);
	m->bytes += log_cost(channel);
	return log;
}

/* Most logs have none. */
static struct store_eras *own_eras(struct memlogs *m, struct log *log)
{
	if (log->eras == NULL) {
		log->eras = xcalloc(1, sizeof(*log->eras));
		m->bytes += sizeof(*log->eras);
	}
	return log->eras;
}

/* The log has gone back, as `known` says. */
static void log_begin_era(struct memlogs *m, struct log *log,
			  struct store_place known)
{
	eras_begin(own_eras(m, log),
		   (struct store_place){log->epoch, log->top});
	m->clock_ms = max_of(m->clock_ms, known.epoch);
	log->epoch = ++m->clock_ms;
	m->eras++;
}

static struct store_eras eras_of(const struct log *log)
{
	return log && log->eras ? *log->eras : (struct store_eras){0};
}

static void ring_grow(struct log *log)
{
	struct log old = *log;

	log->ring_size = max_of(2 * log->ring_size, (size_t)RING_MIN);
	log->ring = xcalloc(log->ring_size, sizeof(*log->ring));
	for (uint64_t o = log->first; o <= log->top; o++)
		*slot(log, o) = *slot(&old, o);
	free(old.ring);
}

static void log_push(struct memlogs *m, struct log *log,
		     const struct store_append *a)
{
	struct record *r = xmalloc(sizeof(*r) + a->len);

	r->ms = log->last_ms;
	r->len = a->len;
	memcpy(r->bytes, a->record, a->len);
	if (log->top + 1 - log->first == log->ring_size)
		ring_grow(log);
	*slot(log, ++log->top) = r;
	m->bytes += record_cost(a->len);
	if (log->top > a->size)
		drop_until(m, log, log->top - a->size + 1);
}

/* --- idempotency keys -------------------------------------------------- */

static size_t key_cost(const char *name)
{
	return sizeof(struct key) + strlen(name) + 1;
}

static void key_free(struct memlogs *m, struct key *key)
{
	m->bytes -= key_cost(key->name);
	hmap_remove(&m->keys, &key->by_name);
	list_remove(&key->by_age);
	free(key);
}

static void keys_expire(struct memlogs *m, size_t steps, uint64_t now_ms)
{
	for (; steps > 0 && !list_empty(&m->keys_by_age); steps--) {
		struct key *oldest =
			container_of(m->keys_by_age.next, struct key, by_age);

		if (now_ms < oldest->expires_ms)
			return;
		key_free(m, oldest);
	}
}

static struct key *key_find(struct memlogs *m, const char *name,
			    uint64_t now_ms)
{
	uint64_t hash = hash_bytes(&m->hash_key, name, strlen(name));

	hmap_for_each_hash (node, &m->keys, hash) {
		struct key *key = container_of(node, struct key, by_name);

		if (strcmp(key->name, name) != 0)
			continue;
		if (now_ms < key->expires_ms)
			return key;
		key_free(m, key);
		return NULL;
	}
	return NULL;
}

static void key_new(struct memlogs *m, const char *name,
		    const struct store_append *a, uint64_t now_ms)
{
	size_t len = strlen(name);
	struct key *key = xmalloc(sizeof(*key) + len + 1);

	memcpy(key->name, name, len + 1);
	memcpy(key->message_id, a->message_id, sizeof(key->message_id));
	key->place = a->place;
	key->digest = a->digest;
	key->expires_ms = now_ms + m->idempotency_ms;
	hmap_insert(&m->keys, &key->by_name,
		    hash_bytes(&m->hash_key, name, len));
	list_push_back(&m->keys_by_age, &key->by_age);
	m->bytes += key_cost(name);
}

/* --- operations -------------------------------------------------------- */

static bool append_fits(const struct memlogs *m, const struct store_append *a,
			const struct log *log, const char *key)
{
	uint64_t cost = record_cost(a->len);

	if (log == NULL)
		cost += log_cost(a->channel);
	if (*key)
		cost += key_cost(key);
	return m->bytes + cost <= m->bytes_max;
}

static struct store_place top_of(const struct memlogs *m, const struct log *log)
{
	if (log == NULL)
		return (struct store_place){m->clock_ms, 0};
	return (struct store_place){log->epoch, log->top};
}

/* True if the append was answered by its key. */
static bool answered(struct memlogs *m, struct store_append *a,
		     const struct log *log, const char *name, uint64_t now_ms)
{
	const struct store_eras eras = eras_of(log);
	struct key *first = key_find(m, name, now_ms);

	if (first == NULL)
		return false;
	if (log == NULL || !eras_have(&eras, top_of(m, log), first->place)) {
		key_free(m, first); /* the message is in nobody's log */
		return false;
	}
	if (first->digest != a->digest) {
		a->rc = ERR_EXISTS;
		return true;
	}
	a->duplicate = true;
	a->place = (struct store_place){log->epoch, first->place.offset};
	memcpy(a->message_id, first->message_id, sizeof(a->message_id));
	return true;
}

void memlogs_append(struct memlogs *m, struct store_append *a, uint64_t now_ms)
{
	char name[256 + STORE_IDEMPOTENCY_KEY_MAX + 2] = "";
	struct log *log = log_find(m, a->channel, now_ms);

	set_clock(m, now_ms);
	if (*a->idempotency_key) {
		int n = snprintf(name, sizeof(name), "%s %s", a->channel,
				 a->idempotency_key);

		check(n > 0 && (size_t)n < sizeof(name));
		if (answered(m, a, log, name, now_ms))
			return;
	}
	if (!append_fits(m, a, log, name)) {
		a->rc = ERR_FULL;
		return;
	}
	if (log == NULL)
		log = log_new(m, a->channel);
	log->last_ms = max_of(log->last_ms, now_ms);
	log->ttl_ms = a->ttl_ms;
	log_push(m, log, a);
	a->place = (struct store_place){log->epoch, log->top};
	if (*name)
		key_new(m, name, a, now_ms);
}

static void records_reserve(struct memlogs *m, uint64_t count)
{
	if (count <= m->records_cap)
		return;
	m->records_cap = count;
	m->records = xrealloc(m->records, count * sizeof(*m->records));
}

void memlogs_read(struct memlogs *m, struct store_read *r, uint64_t now_ms)
{
	struct log *log = log_find(m, r->channel, now_ms);
	uint64_t from, left;
	size_t bytes = 0;

	set_clock(m, now_ms);
	r->top = top_of(m, log);
	r->eras = eras_of(log);
	r->first = log ? log->first : 1;
	r->records = m->records;
	if (log == NULL || (r->epoch != 0 && r->epoch != log->epoch))
		return;
	from = log->first;
	if (!r->latest && r->after >= log->top)
		return;
	if (!r->latest)
		from = max_of(from, r->after + 1);
	else if (log->top - log->first + 1 > r->records_max)
		from = log->top + 1 - r->records_max;
	left = min_of(log->top + 1 - from, (uint64_t)r->records_max);
	records_reserve(m, left);
	r->records = m->records;
	for (; left > 0; left--, from++) {
		const struct record *record = *slot(log, from);

		bytes += record->len;
		if (r->count > 0 && bytes > r->bytes_max)
			return;
		m->records[r->count++] =
			(struct store_record){from, record->bytes, record->len};
	}
}

/* Where there is no log, the next one's epoch is greater than the clock. */
static void believe(struct memlogs *m, struct log *log,
		    struct store_place known)
{
	if (known.epoch == 0 || !eras_behind(top_of(m, log), known))
		return;
	if (log)
		log_begin_era(m, log, known);
	else
		m->clock_ms = max_of(m->clock_ms, known.epoch) + 1;
}

static void learn(struct memlogs *m, struct log *log, struct store_place known,
		  const struct store_eras *eras)
{
	struct store_eras all = eras_of(log);

	if (log != NULL && eras_learn_all(&all, top_of(m, log), known, eras))
		*own_eras(m, log) = all;
}

void memlogs_tops(struct memlogs *m, struct store_tops *t, uint64_t now_ms)
{
	set_clock(m, now_ms);
	for (size_t i = 0; i < t->count; i++) {
		struct log *log = log_find(m, t->channels[i], now_ms);

		if (t->known)
			believe(m, log, t->known[i]);
		if (t->known && t->known_eras)
			learn(m, log, t->known[i], &t->known_eras[i]);
		t->places[i] = top_of(m, log);
		if (t->eras)
			t->eras[i] = eras_of(log);
	}
}

void memlogs_trim(struct memlogs *m, size_t steps, uint64_t now_ms)
{
	set_clock(m, now_ms);
	keys_expire(m, steps, now_ms);
	for (size_t left = min_of(steps, m->logs.count); left > 0; left--) {
		struct list *node =
			list_shift(&m->logs_by_use, &m->logs_by_use);

		log_expire(m, container_of(node, struct log, by_use), now_ms);
	}
}

void memlogs_fini(struct memlogs *m)
{
	while (!list_empty(&m->logs_by_use))
		log_free(m,
			 container_of(m->logs_by_use.next, struct log, by_use));
	while (!list_empty(&m->keys_by_age))
		key_free(m,
			 container_of(m->keys_by_age.next, struct key, by_age));
	check(m->bytes == 0);
	hmap_fini(&m->logs);
	hmap_fini(&m->keys);
	free(m->records);
}

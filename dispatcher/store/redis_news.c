#include "dispatcher/store/redis_news.h"

#include "common/base/err.h"

#include <endian.h>
#include <string.h>

#define MAGIC_SIZE 4u
#define HEAD_SIZE  (MAGIC_SIZE + 2 + 8 + 8)

static const uint8_t magic[MAGIC_SIZE] = {'s', 't', 'n', '1'};

/* --- reading ------------------------------------------------------------- */

static uint64_t number_at(const uint8_t *at)
{
	uint64_t n;

	memcpy(&n, at, sizeof(n));
	return be64toh(n);
}

/* The names are whole, and nothing follows. */
static bool names_fit(const uint8_t *at, const uint8_t *end, unsigned count)
{
	for (; count > 0; count--) {
		size_t len;

		if (at == end)
			return false;
		len = *at++;
		if ((size_t)(end - at) < len + 16 ||
		    !channel_name_valid((const char *)at, len))
			return false;
		at += len + 16;
	}
	return at == end;
}

bool redis_news_read(const void *bytes, size_t len, struct redis_news *out)
{
	const uint8_t *at = bytes, *end = at + len;

	if (len < HEAD_SIZE || len > REDIS_NEWS_BYTES ||
	    memcmp(at, magic, MAGIC_SIZE) != 0)
		return false;
	*out = (struct redis_news){
		.kind = at[4],
		.flags = at[5],
		.instance = number_at(at + 6),
		.number = number_at(at + 14),
	};
	at += HEAD_SIZE;
	if (out->instance == 0)
		return false;
	switch (out->kind) {
	case NEWS_PRESENT:
		if (end - at != 8)
			return false;
		out->workers = number_at(at);
		return true;
	case NEWS_MOVED:
		if (end - at < 2)
			return false;
		out->count = (unsigned)at[0] << 8 | at[1];
		out->at = at + 2;
		return out->count > 0 && out->count <= REDIS_NEWS_NAMES &&
		       names_fit(out->at, end, out->count);
	case NEWS_GONE:
		return at == end;
	}
	return false;
}

void redis_news_next(struct redis_news *n, char channel[CHANNEL_NAME_MAX + 1],
		     struct store_place *top)
{
	size_t len;

	check(n->count > 0);
	n->count--;
	len = *n->at++;
	check(len <= CHANNEL_NAME_MAX);
	memcpy(channel, n->at, len);
	channel[len] = 0;
	n->at += len;
	*top = (struct store_place){number_at(n->at), number_at(n->at + 8)};
	n->at += 16;
}

/* --- writing ------------------------------------------------------------- */

static uint8_t *put_number(uint8_t *at, uint64_t n)
{
	n = htobe64(n);
	memcpy(at, &n, sizeof(n));
	return at + sizeof(n);
}

static uint8_t *put_head(struct buf *out, const struct redis_news *n,
			 size_t more)
{
	uint8_t *at = buf_extend(out, HEAD_SIZE + more);

	if (at == NULL)
		return NULL;
	memcpy(at, magic, MAGIC_SIZE);
	at[4] = (uint8_t)n->kind;
	at[5] = n->flags;
	return put_number(put_number(at + 6, n->instance), n->number);
}

int redis_news_write(struct buf *out, const struct redis_news *n)
{
	bool present = n->kind == NEWS_PRESENT;
	uint8_t *at = put_head(out, n, present ? 8 : 0);

	if (at == NULL)
		return ERR_FULL;
	if (present)
		put_number(at, n->workers);
	return 0;
}

/* --- gathering ----------------------------------------------------------- */

void redis_gathered_init(struct redis_gathered *g)
{
	memset(g, 0, sizeof(*g));
	g->key = hash_key_random();
}

/* Where the channel stands in the table, or is to stand. */
static uint16_t *find(struct redis_gathered *g, const char *channel,
		      uint64_t hash)
{
	size_t mask = array_len(g->table) - 1, at = hash & mask;

	while (g->table[at] != 0) {
		const struct redis_moved *m = &g->moved[g->table[at] - 1];

		if (m->hash == hash && strcmp(m->channel, channel) == 0)
			break;
		at = (at + 1) & mask;
	}
	return &g->table[at];
}

static bool is_newer(struct store_place a, struct store_place b)
{
	return a.epoch != b.epoch ? a.epoch > b.epoch : a.offset > b.offset;
}

void redis_gathered_add(struct redis_gathered *g, const char *channel,
			struct store_place top)
{
	size_t len = strlen(channel);
	uint64_t hash = hash_bytes(&g->key, channel, len);
	uint16_t *entry = find(g, channel, hash);
	struct redis_moved *m;

	if (*entry != 0) {
		m = &g->moved[*entry - 1];
		if (top.epoch == 0 || is_newer(top, m->top))
			m->top = top;
		return;
	}
	if (g->count == REDIS_NEWS_MAX || len > CHANNEL_NAME_MAX) {
		g->overflow = true;
		return;
	}
	m = &g->moved[g->count++];
	*entry = (uint16_t)g->count;
	m->top = top;
	m->hash = hash;
	memcpy(m->channel, channel, len + 1);
}

/* Those that go stand at the end, and nothing is added between: the table's
 * chains stay whole if they go in turn from the last on. */
static void forget_last(struct redis_gathered *g)
{
	struct redis_moved *m = &g->moved[g->count - 1];
	size_t mask = array_len(g->table) - 1;
	size_t at = (size_t)(find(g, m->channel, m->hash) - g->table);

	g->table[at] = 0;
	g->count--;
	/* Whoever stands behind in the chain moves up. */
	for (size_t next = (at + 1) & mask; g->table[next] != 0;
	     next = (next + 1) & mask) {
		uint16_t index = g->table[next];
		size_t home = g->moved[index - 1].hash & mask;

		if (((next - home) & mask) < ((next - at) & mask))
			continue;
		g->table[at] = index;
		g->table[next] = 0;
		at = next;
	}
}

int redis_gathered_write(struct redis_gathered *g, struct buf *out,
			 const struct redis_news *n)
{
	unsigned count = min_of(g->count, (unsigned)REDIS_NEWS_NAMES);
	size_t bytes = 2;
	uint8_t *at;

	for (unsigned i = g->count - count; i < g->count; i++)
		bytes += 1 + strlen(g->moved[i].channel) + 16;
	at = put_head(out, n, bytes);
	if (at == NULL)
		return ERR_FULL;
	*at++ = (uint8_t)(count >> 8);
	*at++ = (uint8_t)count;
	for (; count > 0; count--) {
		const struct redis_moved *m = &g->moved[g->count - 1];
		size_t len = strlen(m->channel);

		*at++ = (uint8_t)len;
		memcpy(at, m->channel, len);
		at = put_number(at + len, m->top.epoch);
		at = put_number(at, m->top.offset);
		forget_last(g);
	}
	return 0;
}

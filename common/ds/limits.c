#include "common/ds/limits.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define WHOLE 1000u /* tokens of one stream */

struct limits_address {
	struct hmap_node node;
	uint8_t bytes[8]; /* an IPv4 address, or an IPv6 network */
	uint64_t streams;
};

void limits_init(struct limits *l, uint64_t per_address_max, uint64_t rate_max,
		 uint64_t now_ms)
{
	*l = (struct limits){
		.per_address_max = per_address_max,
		.rate_max = rate_max,
		.key = hash_key_random(),
		.tokens = rate_max * WHOLE,
		.filled_ms = now_ms,
	};
	hmap_init(&l->by_address);
}

void limits_fini(struct limits *l)
{
	check(l->by_address.count == 0);
	hmap_fini(&l->by_address);
}

void limits_address_bytes(const struct sockaddr *address, uint8_t bytes[8])
{
	const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
	const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;

	memset(bytes, 0, 8);
	if (address->sa_family == AF_INET)
		memcpy(bytes, &v4->sin_addr, 4);
	else if (IN6_IS_ADDR_V4MAPPED(&v6->sin6_addr))
		memcpy(bytes, &v6->sin6_addr.s6_addr[12], 4);
	else
		memcpy(bytes, &v6->sin6_addr, 8);
}

static struct limits_address *find(const struct limits *l,
				   const uint8_t bytes[8], uint64_t hash)
{
	hmap_for_each_hash (node, &l->by_address, hash) {
		struct limits_address *a =
			container_of(node, struct limits_address, node);

		if (memcmp(a->bytes, bytes, 8) == 0)
			return a;
	}
	return NULL;
}

bool limits_enter(struct limits *l, const struct sockaddr *address,
		  struct limits_address **entry)
{
	struct limits_address *a;
	uint8_t bytes[8];
	uint64_t hash;

	*entry = NULL;
	if (l->per_address_max == 0)
		return true;
	limits_address_bytes(address, bytes);
	hash = hash_bytes(&l->key, bytes, sizeof(bytes));
	a = find(l, bytes, hash);
	if (a == NULL) {
		a = xcalloc(1, sizeof(*a));
		memcpy(a->bytes, bytes, sizeof(bytes));
		hmap_insert(&l->by_address, &a->node, hash);
	}
	if (a->streams >= l->per_address_max)
		return false;
	a->streams++;
	*entry = a;
	return true;
}

void limits_leave(struct limits *l, struct limits_address *entry)
{
	if (entry == NULL || --entry->streams > 0)
		return;
	hmap_remove(&l->by_address, &entry->node);
	free(entry);
}

bool limits_left(struct limits *l, uint64_t now_ms)
{
	uint64_t full = l->rate_max * WHOLE;
	uint64_t ms = now_ms - l->filled_ms;

	if (l->rate_max == 0)
		return true;
	/* A second fills it, so more is not multiplied. */
	l->tokens = min_of(full, l->tokens + min_of(ms, (uint64_t)1000) *
						     l->rate_max);
	l->filled_ms = now_ms;
	return l->tokens >= WHOLE;
}

bool limits_take(struct limits *l, uint64_t now_ms)
{
	if (!limits_left(l, now_ms))
		return false;
	if (l->rate_max != 0)
		l->tokens -= WHOLE;
	return true;
}

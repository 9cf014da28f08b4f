#include "connnode/stream/scrutiny.h"

#include "common/base/check.h"

#include <string.h>

void scrutiny_init(struct scrutiny *s, uint64_t rate_max,
		   uint64_t retry_window_ms, uint64_t now_ms)
{
	/* Half of a budget of one is still one: 0 would be any. */
	uint64_t half = rate_max > 1 ? rate_max / 2 : rate_max;

	memset(s->bad, 0, sizeof(s->bad));
	limits_init(&s->all, 0, rate_max, now_ms);
	limits_init(&s->suspects, 0, half, now_ms);
	comeback_init(&s->later, retry_window_ms, now_ms);
	s->key = hash_key_random();
	s->halved_ms = now_ms;
}

void scrutiny_fini(struct scrutiny *s)
{
	limits_fini(&s->all);
	limits_fini(&s->suspects);
}

static uint8_t *slot_of(struct scrutiny *s, const struct sockaddr *address)
{
	uint8_t bytes[8];

	limits_address_bytes(address, bytes);
	return &s->bad[hash_bytes(&s->key, bytes, sizeof(bytes)) %
		       SCRUTINY_SLOTS];
}

/* A byte is zero after eight halvings, however long ago the last one was. */
static void halve(struct scrutiny *s, uint64_t now_ms)
{
	unsigned times =
		(unsigned)min_of((now_ms - s->halved_ms) / 1000, (uint64_t)8);

	if (times == 0)
		return;
	for (size_t i = 0; i < SCRUTINY_SLOTS; i++)
		s->bad[i] = (uint8_t)(s->bad[i] >> times);
	s->halved_ms = now_ms;
}

bool scrutiny_take(struct scrutiny *s, const struct sockaddr *address,
		   uint64_t now_ms)
{
	halve(s, now_ms);
	if (*slot_of(s, address) >= SCRUTINY_SUSPECT &&
	    !limits_take(&s->suspects, now_ms))
		return false;
	return limits_take(&s->all, now_ms);
}

void scrutiny_failed(struct scrutiny *s, const struct sockaddr *address)
{
	uint8_t *bad = slot_of(s, address);

	*bad = (uint8_t)(*bad + (*bad < UINT8_MAX));
}

uint32_t scrutiny_later_ms(struct scrutiny *s, uint64_t now_ms,
			   uint32_t least_ms)
{
	return comeback_ms(&s->later, now_ms, s->all.rate_max, least_ms);
}

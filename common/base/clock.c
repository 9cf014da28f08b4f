#include "common/base/clock.h"

#include <time.h>

static uint64_t now_ns(clockid_t clock)
{
	struct timespec t;

	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t clock_monotonic_ms(void)
{
	return now_ns(CLOCK_MONOTONIC) / 1000000u;
}

uint64_t clock_monotonic_ns(void)
{
	return now_ns(CLOCK_MONOTONIC);
}

uint64_t clock_wall_us(void)
{
	return now_ns(CLOCK_REALTIME) / 1000u;
}

uint64_t clock_wall_ms(void)
{
	return now_ns(CLOCK_REALTIME) / 1000000u;
}

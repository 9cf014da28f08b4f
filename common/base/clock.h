/* clock.h - what time it is. Pure modules never call this: they are told. */
#ifndef STENTOR_BASE_CLOCK_H
#define STENTOR_BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_monotonic_ms(void);
uint64_t clock_monotonic_ns(void);
/* Since 1970. May jump when the machine's clock is set. */
uint64_t clock_wall_us(void);
uint64_t clock_wall_ms(void);

#endif

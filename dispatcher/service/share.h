/* share.h - who may have how much of what all use (pure).
 *
 * One may hold as much as it leaves free. So one alone gets half; n who take
 * all they can get have a part in n + 1 each; and who comes next finds as much
 * again. Nothing is counted but what each holds (Choudhury and Hahne, "Dynamic
 * queue length thresholds", 1998).
 */
#ifndef STENTOR_DISPATCHER_SERVICE_SHARE_H
#define STENTOR_DISPATCHER_SERVICE_SHARE_H

#include <stdbool.h>
#include <stddef.h>

/* May one who holds `own` of the `used` of at most `max` have `more`? */
static inline bool share_allows(size_t own, size_t used, size_t max,
				size_t more)
{
	size_t left = max > used ? max - used : 0;

	return more <= left && own + more <= left - more + 1;
}

#endif

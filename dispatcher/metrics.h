/* metrics.h - what a dispatcher counts, as a scrape is told. */
#ifndef STENTOR_DISPATCHER_METRICS_H
#define STENTOR_DISPATCHER_METRICS_H

#include "common/base/metrics.h"

struct dispatcher;

/* Its own table, what its modules count for themselves, and the families whose
 * labels are known at run time only. */
void dispatcher_metrics_render(const struct dispatcher *d,
			       struct metrics_text *t);

#endif

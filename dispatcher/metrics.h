/* metrics.h - what a dispatcher counts, as one table. */
#ifndef STENTOR_DISPATCHER_METRICS_H
#define STENTOR_DISPATCHER_METRICS_H

#include "common/base/metrics.h"

enum dispatcher_metric {
	DM_PUBLISH_DURATION,
	DM_LOOP_LAG,
	DM_COUNT,
};

extern const struct metric_desc dispatcher_metrics[DM_COUNT];

struct dispatcher;

/* The table, and the families whose labels are known at run time only. */
void dispatcher_metrics_render(struct dispatcher *d, struct metrics_text *t);

#endif

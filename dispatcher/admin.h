/* admin.h - the dispatcher's admin port: metrics, readiness, what it sees. */
#ifndef STENTOR_DISPATCHER_ADMIN_H
#define STENTOR_DISPATCHER_ADMIN_H

#include "common/base/check.h"

struct dispatcher;

/* On error a message is logged. dispatcher_close() ends it. */
int dispatcher_admin_start(struct dispatcher *d) MUST_CHECK;

#endif

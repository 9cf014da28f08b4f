/* children.h - a supervisor's worker processes.
 *
 * Starts `count` copies of this program's own executable (uv_spawn: fork and
 * exec, never fork alone: nng forbids it) and keeps them running. A child that
 * ends is started again after a back-off (200 ms doubling to 10 s, back to
 * 200 ms once it has lived 30 s). Child i gets the file descriptors given for
 * it from number 3 on; descriptor 0 is a pipe that closes when the supervisor
 * dies, so that children never outlive it.
 */
#ifndef STENTOR_IO_CHILDREN_H
#define STENTOR_IO_CHILDREN_H

#include "common/base/check.h"

#include <stdbool.h>
#include <uv.h>

#define CHILDREN_BACKOFF_MIN_MS 200
#define CHILDREN_BACKOFF_MAX_MS 10000
#define CHILDREN_STABLE_MS	30000

struct children;

struct children_ops {
	/* argv (NULL-terminated, borrowed during the start) and inherited
	 * descriptors (borrowed too, for good) of child i; returns how many of
	 * `fds` (at most 4) it filled. Called at each start of the child. */
	int (*prepare)(void *ctx, unsigned index, char ***argv, int fds[4]);
	/* A child ended: its exit status, or the signal that killed it. Called
	 * before its restart is planned; may call children_stop(). */
	void (*on_exit)(void *ctx, unsigned index, int64_t exit_status,
			int signal);
	/* All children have ended after children_stop(). */
	void (*on_stopped)(void *ctx);
};

/* A child that cannot be started now is tried again like one that ended.
 * `ops` is borrowed for ever. */
int children_start(uv_loop_t *loop, unsigned count,
		   const struct children_ops *ops, void *ctx,
		   struct children **out) MUST_CHECK;
/* Pid of a running child, 0 while it is down. */
int children_pid(const struct children *c, unsigned index);
uint64_t children_restarts(const struct children *c);
/* Sends a signal to every running child. */
void children_signal(struct children *c, int signal);
/* No more restarts; on_stopped once the last has ended (maybe at once, from
 * the loop). The caller has sent the signal that ends them. */
void children_stop(struct children *c);
/* After on_stopped. */
void children_free(struct children *c);

/* In a child: calls `on_orphaned` once when the supervisor is gone (descriptor
 * 0 at its end). `w` is the caller's; on success its pipe is open and is to be
 * closed with uv_close(). ERR_UNSUPPORTED where descriptor 0 is no pipe: the
 * process was not started by a supervisor. */
struct parent_watch {
	uv_pipe_t pipe;
	void (*on_orphaned)(struct parent_watch *w);
	void *ctx;
};
int child_watch_parent(uv_loop_t *loop, struct parent_watch *w,
		       void (*on_orphaned)(struct parent_watch *w),
		       void *ctx) MUST_CHECK;

#endif

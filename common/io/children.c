/* One child is a timer and a process, of which one is at work at a time:
 *
 *              start                      on_exit, on_process_closed
 *   WAITING ----------> RUNNING ------------------------------------.
 *      ^   <----------- (cannot be started)                         |
 *      |                                                            |
 *      '------------------- restart after the back-off <------------'
 *      |                                                            |
 *      '--> GONE <-------------------- stopping <-------------------'
 *
 * All children read the same pipe as descriptor 0, whose writing end only the
 * supervisor holds, and never writes to: its end is the supervisor's end.
 */
#include "common/io/children.h"

#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/io/listener.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

#define FDS_MAX	      4
#define FIRST_FREE_FD 3

enum child_state { CHILD_WAITING, CHILD_RUNNING, CHILD_GONE };

struct child {
	struct children *owner;
	unsigned index;
	enum child_state state;
	uv_process_t process; /* open while RUNNING */
	uv_timer_t timer;     /* open until GONE */
	uint64_t started_ms;
	uint64_t backoff_ms; /* before the next restart */
};

struct children {
	uv_loop_t *loop;
	const struct children_ops *ops;
	void *ctx;
	char executable[PATH_MAX];
	int lifeline[2]; /* read end: the children's descriptor 0 */
	bool stopping;
	uint64_t restarts;
	unsigned count, gone;
	struct child child[];
};

static void child_start(struct child *c);

static void on_restart(uv_timer_t *timer)
{
	struct child *c = timer->data;

	c->owner->restarts++;
	child_start(c);
}

static void on_timer_closed(uv_handle_t *handle)
{
	struct child *c = handle->data;
	struct children *owner = c->owner;

	check(c->state == CHILD_GONE);
	owner->gone++;
	if (owner->gone == owner->count)
		owner->ops->on_stopped(owner->ctx);
}

/* What becomes of a child that is not running. */
static void child_down(struct child *c)
{
	if (c->owner->stopping) {
		c->state = CHILD_GONE;
		uv_close((uv_handle_t *)&c->timer, on_timer_closed);
		return;
	}
	c->state = CHILD_WAITING;
	check(uv_timer_start(&c->timer, on_restart, c->backoff_ms, 0) == 0);
	c->backoff_ms = min_of(2 * c->backoff_ms, CHILDREN_BACKOFF_MAX_MS);
}

static void on_process_closed(uv_handle_t *handle)
{
	child_down(handle->data);
}

static void on_exit_of_child(uv_process_t *process, int64_t exit_status,
			     int signal)
{
	struct child *c = process->data;
	struct children *owner = c->owner;

	uv_update_time(owner->loop);
	if (uv_now(owner->loop) - c->started_ms >= CHILDREN_STABLE_MS)
		c->backoff_ms = CHILDREN_BACKOFF_MIN_MS;
	uv_close((uv_handle_t *)process, on_process_closed);
	owner->ops->on_exit(owner->ctx, c->index, exit_status, signal);
}

static int child_spawn(struct child *c)
{
	struct children *owner = c->owner;
	uv_stdio_container_t stdio[FIRST_FREE_FD + FDS_MAX];
	uv_process_options_t options = {0};
	char **argv = NULL;
	int fds[FDS_MAX];
	int count = owner->ops->prepare(owner->ctx, c->index, &argv, fds);

	check(argv != NULL);
	check(count >= 0 && count <= FDS_MAX);
	for (int i = 0; i < FIRST_FREE_FD + count; i++) {
		stdio[i].flags = UV_INHERIT_FD;
		stdio[i].data.fd =
			i < FIRST_FREE_FD ? i : fds[i - FIRST_FREE_FD];
	}
	stdio[0].data.fd = owner->lifeline[0];
	options.file = owner->executable;
	options.args = argv;
	options.stdio = stdio;
	options.stdio_count = FIRST_FREE_FD + count;
	options.exit_cb = on_exit_of_child;
	c->process.data = c;
	return uv_spawn(owner->loop, &c->process, &options);
}

static void child_start(struct child *c)
{
	int status = child_spawn(c);

	c->state = CHILD_RUNNING;
	c->started_ms = uv_now(c->owner->loop);
	if (status == 0)
		return;
	log_error("CHILD-SPAWN", "child=%u err=%s", c->index,
		  uv_err_name(status));
	/* libuv has initialised the handle even so. */
	uv_close((uv_handle_t *)&c->process, on_process_closed);
}

int children_start(uv_loop_t *loop, unsigned count,
		   const struct children_ops *ops, void *ctx,
		   struct children **out)
{
	struct children *c;
	size_t len = sizeof(c->executable);
	int err;

	check(count > 0);
	c = xcalloc(1, sizeof(*c) + count * sizeof(c->child[0]));
	c->loop = loop;
	c->count = count;
	c->ops = ops;
	c->ctx = ctx;
	err = err_from_uv(uv_exepath(c->executable, &len));
	if (err < 0)
		goto err_after_alloc;
	if (pipe2(c->lifeline, O_CLOEXEC) < 0) {
		err = err_from_errno(errno);
		goto err_after_alloc;
	}
	*out = c;
	for (unsigned i = 0; i < count; i++) {
		struct child *child = &c->child[i];

		child->owner = c;
		child->index = i;
		child->backoff_ms = CHILDREN_BACKOFF_MIN_MS;
		check(uv_timer_init(loop, &child->timer) == 0);
		child->timer.data = child;
		child_start(child);
	}
	return 0;

err_after_alloc:
	free(c);
	return err;
}

/* False once it has ended, though its handle is still being closed. */
static bool child_alive(const struct child *c)
{
	return c->state == CHILD_RUNNING &&
	       uv_is_active((const uv_handle_t *)&c->process);
}

int children_pid(const struct children *c, unsigned index)
{
	check(index < c->count);
	return child_alive(&c->child[index]) ? c->child[index].process.pid : 0;
}

uint64_t children_restarts(const struct children *c)
{
	return c->restarts;
}

void children_signal(struct children *c, int signal)
{
	for (unsigned i = 0; i < c->count; i++) {
		if (child_alive(&c->child[i]))
			/* It may just have ended: on_exit will tell. */
			(void)uv_process_kill(&c->child[i].process, signal);
	}
}

void children_stop(struct children *c)
{
	if (c->stopping)
		return;
	c->stopping = true;
	for (unsigned i = 0; i < c->count; i++) {
		if (c->child[i].state == CHILD_WAITING)
			child_down(&c->child[i]);
	}
}

void children_free(struct children *c)
{
	check(c->gone == c->count);
	close(c->lifeline[0]);
	close(c->lifeline[1]);
	free(c);
}

/* --- in a child -------------------------------------------------------- */

static void on_lifeline_alloc(uv_handle_t *handle UNUSED, size_t size UNUSED,
			      uv_buf_t *buf)
{
	/* Nothing is ever written; the end needs no room, but libuv wants
	 * some. */
	static char unused[1];

	*buf = uv_buf_init(unused, sizeof(unused));
}

static void on_lifeline_read(uv_stream_t *stream, ssize_t n,
			     const uv_buf_t *buf UNUSED)
{
	struct parent_watch *w = stream->data;

	if (n >= 0)
		return;
	uv_read_stop(stream);
	w->on_orphaned(w);
}

int child_watch_parent(uv_loop_t *loop, struct parent_watch *w,
		       void (*on_orphaned)(struct parent_watch *w), void *ctx)
{
	if (uv_guess_handle(STDIN_FILENO) != UV_NAMED_PIPE)
		return ERR_UNSUPPORTED;
	w->on_orphaned = on_orphaned;
	w->ctx = ctx;
	check(uv_pipe_init(loop, &w->pipe, 0) == 0);
	w->pipe.data = w;
	check(uv_pipe_open(&w->pipe, STDIN_FILENO) == 0);
	check(uv_read_start((uv_stream_t *)&w->pipe, on_lifeline_alloc,
			    on_lifeline_read) == 0);
	return 0;
}

#include "connnode/stream/session.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/base/mem.h"
#include "common/codec/sse.h"
#include "common/io/listener.h"
#include "connnode/stream/session_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define WHEEL_SLOTS    1024
#define WHEEL_MS       100
#define TIMERS_PER_RUN 4096

/* A fifth around the mean, so that heartbeats of many never fall together. */
static uint64_t jittered(uint64_t ms)
{
	return ms - ms / 5 + random_below(2 * ms / 5 + 1);
}

static void session_move(struct session *s, enum session_phase phase)
{
	struct sessions *all = s->all;
	struct list *lists[] = {
		[SESSION_HEAD] = &all->heads,
		[SESSION_STREAM] = &all->streams,
		[SESSION_LEAVING] = &all->leaving,
	};

	check(phase > s->phase || phase == SESSION_HEAD);
	if (s->phase == SESSION_STREAM)
		all->stream_count--;
	all->leaving_count -= s->phase == SESSION_LEAVING;
	all->leaving_count += phase == SESSION_LEAVING;
	if (phase == SESSION_HEAD)
		all->head_count++;
	else if (s->phase == SESSION_HEAD)
		all->head_count--;
	list_remove(&s->in_phase);
	s->phase = (uint8_t)phase;
	if (phase != SESSION_CLOSING)
		list_push_back(lists[phase], &s->in_phase);
	if (phase == SESSION_STREAM)
		all->stream_count++;
}

/* --- reading ----------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t suggested UNUSED,
		     uv_buf_t *buf)
{
	struct session *s = container_of(handle, struct session, tcp);

	*buf = uv_buf_init(s->all->read_buffer, sizeof(s->all->read_buffer));
	if (unlikely(s->all->tls.context != NULL) && s->tls == NULL)
		buf->len = HANDSHAKES_FIRST;
}

void session_stray(struct session *s, size_t len)
{
	if (s->phase == SESSION_STREAM && s->stray + len > SESSION_STRAY_MAX)
		session_doom(s, CLOSED_CLIENT);
	else if (s->phase == SESSION_STREAM)
		s->stray = (uint16_t)(s->stray + len);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct session *s = container_of(stream, struct session, tcp);

	if (n == 0 || s->doomed)
		return;
	if (n < 0)
		session_doom(s, CLOSED_CLIENT);
	else if (unlikely(s->all->tls.context != NULL))
		session_tls_input(s, buf->base, (size_t)n);
	else if (s->phase == SESSION_HEAD)
		s->all->ops->feed(s, buf->base, (size_t)n);
	else
		session_stray(s, (size_t)n);
}

void session_read(struct session *s)
{
	if (uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read) != 0)
		session_doom(s, CLOSED_CLIENT);
}

static void session_arm(struct session *s, uint64_t in_ms)
{
	wheel_arm(&s->all->wheel, &s->timer, sessions_now(s->all) + in_ms);
}

/* Until the stream is old enough to go elsewhere. */
static uint64_t age_left_ms(const struct session *s)
{
	uint64_t now = sessions_now(s->all);

	if (s->leave_at_ms == 0)
		return UINT64_MAX;
	return s->leave_at_ms > now ? s->leave_at_ms - now : 0;
}

/* For the next heartbeat, or the end of the token, or of its time. */
static void arm_stream(struct session *s)
{
	uint64_t end_ms = min_of(s->all->ops->token_left_ms(s), age_left_ms(s));

	session_arm(s, min_of(jittered(s->all->limits.heartbeat_ms), end_ms));
}

static void on_unaccepted_closed(uv_handle_t *handle)
{
	struct session *s = container_of(handle, struct session, tcp);

	slab_free(&s->all->slab, s);
}

/* There are descriptors for heads_max connections besides all streams: the
 * heads, and those who leave. Who sends nothing must not keep others out, nor
 * who has his answer and stays. */
static void make_way(struct sessions *all)
{
	uint64_t guests = all->head_count + all->leaving_count;
	bool crowded = all->head_count >= all->limits.heads_max;
	struct list *from = &all->heads;

	if (!crowded) {
		crowded = all->stream_count + guests >=
			  all->limits.connections_max + all->limits.heads_max;
		from = &all->leaving;
	}
	if (!crowded)
		return;
	list_for_each (node, from) {
		struct session *oldest =
			container_of(node, struct session, in_phase);

		if (oldest->doomed)
			continue; /* in this turn, by another newcomer */
		if (from == &all->heads)
			metric_add(all->metrics, NM_REJECTED, REJECT_HEADS, 1);
		session_doom(oldest, CLOSED_CLIENT);
		return;
	}
}

void session_accept(struct sessions *all, struct listener *listener)
{
	struct session *s = slab_alloc(&all->slab);

	*s = (struct session){.all = all, .fd = -1};
	list_init(&s->in_phase);
	list_init(&s->in_dirty);
	list_init(&s->in_waiting);
	list_init(&s->in_token);
	wheel_timer_init(&s->timer);
	outq_init(&s->out);
	list_init(&s->in_backlog);
	check(uv_tcp_init(all->loop, &s->tcp) == 0);
	if (listener_take(listener, &s->tcp) != 0 ||
	    uv_fileno((uv_handle_t *)&s->tcp, &s->fd) != 0 ||
	    uv_read_start((uv_stream_t *)&s->tcp, on_alloc, on_read) != 0) {
		uv_close((uv_handle_t *)&s->tcp, on_unaccepted_closed);
		return;
	}
	make_way(all);
	session_move(s, SESSION_HEAD);
	session_arm(s, all->limits.head_timeout_ms);
}

/* --- phases ------------------------------------------------------------ */

bool session_blocked(const struct session *s)
{
	return s->phase != SESSION_HEAD && s->blocked != NULL;
}

uint32_t session_kept(const struct session *s)
{
	if (!session_blocked(s))
		return 0;
	return s->tls != NULL ? s->tls->frames : 1;
}

static void mark_dirty(struct session *s)
{
	if (!s->doomed && list_empty(&s->in_dirty))
		list_push_back(&s->all->dirty, &s->in_dirty);
}

void session_doom(struct session *s, enum close_cause cause)
{
	if (s->doomed)
		return;
	s->doomed = true;
	if (s->phase != SESSION_LEAVING)
		s->cause = (uint8_t)cause;
	list_remove(&s->in_dirty);
	list_push_back(&s->all->doomed, &s->in_dirty);
	backlog_set(&s->all->backlog, &s->in_backlog, &s->backlog_class, 0);
}

/* The parser's place in the struct is `blocked` from now on. */
static void end_head(struct session *s)
{
	if (s->phase != SESSION_HEAD)
		return;
	if (s->parser != NULL)
		s->all->ops->head_over(s);
	s->blocked = NULL;
}

/* Up to a fifth sooner, so that those who came together leave one by one. */
static void set_age(struct session *s)
{
	uint64_t age_ms = s->all->limits.connection_age_ms;

	if (age_ms != 0)
		s->leave_at_ms = sessions_now(s->all) + age_ms -
				 random_below(age_ms / 5 + 1);
}

void session_begin_stream(struct session *s)
{
	struct sessions *all = s->all;

	end_head(s);
	session_move(s, SESSION_STREAM);
	metric_add(all->metrics, NM_ACCEPTED, 0, 1);
	set_age(s);
	arm_stream(s);
}

void session_leave(struct session *s, enum close_cause cause)
{
	if (s->doomed || s->phase == SESSION_LEAVING)
		return;
	if (s->phase == SESSION_STREAM) {
		s->all->ops->unsubscribe(s);
		s->last_words = true;
	}
	end_head(s);
	s->cause = (uint8_t)cause;
	session_move(s, SESSION_LEAVING);
	session_arm(s, SESSION_LEAVE_MS);
	mark_dirty(s);
}

static void on_closed(uv_handle_t *handle)
{
	struct session *s = container_of(handle, struct session, tcp);

	outq_fini(&s->out);
	slab_free(&s->all->slab, s);
}

static void session_close(struct session *s)
{
	struct sessions *all = s->all;

	list_remove(&s->in_dirty);
	list_remove(&s->in_waiting);
	wheel_cancel(&s->timer);
	all->blocked -= session_blocked(s);
	end_head(s);
	if (s->phase == SESSION_STREAM)
		all->ops->unsubscribe(s);
	if (s->phase == SESSION_STREAM || s->last_words)
		metric_add(all->metrics, NM_CLOSED, s->cause, 1);
	session_move(s, SESSION_CLOSING);
	all->ops->gone(s);
	all->queued_bytes -= s->out.bytes;
	session_tls_free(s);
	uv_close((uv_handle_t *)&s->tcp, on_closed);
}

/* --- writing ----------------------------------------------------------- */

void session_requeued(struct session *s, size_t before)
{
	s->all->queued_bytes += s->out.bytes - before;
	/* The doomed give way by themselves. */
	backlog_set(&s->all->backlog, &s->in_backlog, &s->backlog_class,
		    s->doomed ? 0 : s->out.bytes);
}

static void on_expired(void *ctx, struct frame *f)
{
	struct session *s = ctx;

	metric_add(s->all->metrics, NM_DROPPED,
		   f->class * DROP_REASONS + DROP_EXPIRED, 1);
	frame_release(f);
}

void session_drop_expired(struct session *s, uint64_t now_us)
{
	size_t before = s->out.bytes;

	if (outq_drop_expired(&s->out, now_us, session_kept(s), on_expired, s) >
	    0)
		session_requeued(s, before);
}

struct frame *session_on_wire(const struct session *s, struct frame *f)
{
	return unlikely(s->unchunked) ? sse_plain(f) : f;
}

void session_push(struct session *s, struct frame *f)
{
	s->spoke |= f != s->all->heartbeat;
	f = session_on_wire(s, f);
	outq_push(&s->out, f);
	session_requeued(s, s->out.bytes - f->len);
	mark_dirty(s);
}

static void push_id(struct session *s)
{
	struct frame *id = s->all->ops->id(s);

	if (id == NULL)
		return; /* none of its channels has a log here */
	session_push(s, id);
	frame_release(id);
}

void session_push_message(struct session *s, struct frame *f)
{
	if (f->offset != 0 && s->subscriptions > 1)
		push_id(s);
	session_push(s, f);
}

/* Runs of the same frame are accounted for at once: a fan-out writes the same
 * frame to hundreds of connections in a turn. */
struct tally {
	struct sessions *all;
	struct frame *frame; /* a reference of our own; NULL: none */
	uint64_t count, bytes, now_us;
};

static void tally_settle(struct tally *t)
{
	struct frame *f = t->frame;
	uint64_t us;

	if (f == NULL)
		return;
	us = t->now_us > f->accepted_us ? t->now_us - f->accepted_us : 0;
	metric_add(t->all->metrics, NM_DELIVERED, f->class, t->count);
	metric_observe_us(t->all->metrics, NM_DELIVERY_LATENCY, 0, us,
			  t->count);
	frame_release(f);
	t->frame = NULL;
	t->count = 0;
}

static void tally_frame(struct tally *t, struct frame *f)
{
	if (f->accepted_us == 0)
		return;
	if (f != t->frame) {
		tally_settle(t);
		t->frame = frame_hold(f);
	}
	t->count++;
}

static void took(struct session *s, size_t bytes, struct tally *t)
{
	struct frame *f;

	outq_sent(&s->out, bytes);
	session_requeued(s, s->out.bytes + bytes);
	t->bytes += bytes;
	while ((f = outq_pop_sent(&s->out)) != NULL) {
		tally_frame(t, f);
		frame_release(f);
	}
}

static void tally_end(struct tally *t)
{
	tally_settle(t);
	metric_add(t->all->metrics, NM_BYTES_SENT, 0, t->bytes);
}

static void on_unblocked(uv_write_t *req, int status)
{
	struct session *s = container_of(req->handle, struct session, tcp);
	struct sessions *all = s->all;
	struct tally t = {.all = all, .now_us = clock_wall_us()};

	free(req);
	if (s->phase == SESSION_CLOSING)
		return;
	s->blocked = NULL;
	all->blocked--;
	if (s->phase == SESSION_STREAM)
		arm_stream(s);
	if (status != 0) {
		session_doom(s, CLOSED_CLIENT);
		return;
	}
	/* All of the first frame's rest was taken. */
	took(s, s->tls ? session_tls_taken(s) : outq_first_left(&s->out), &t);
	tally_end(&t);
	mark_dirty(s);
}

/* Blocked, the timer is for the stall: what libuv still has to write must get
 * less until it fires. */
static void watch_stall(struct session *s)
{
	s->stuck_bytes = (uint32_t)uv_stream_get_write_queue_size(
		(uv_stream_t *)&s->tcp);
	session_arm(s, s->all->limits.stall_timeout_ms);
}

static void check_stall(struct session *s)
{
	if (uv_stream_get_write_queue_size((uv_stream_t *)&s->tcp) <
	    s->stuck_bytes)
		watch_stall(s);
	else
		session_doom(s, CLOSED_STALLED);
}

/* The socket is full: libuv writes the rest of the first frame when it can,
 * and tells. */
static void block(struct session *s)
{
	struct iovec first;
	uv_buf_t buf;
	uv_write_t *req;

	if (s->doomed)
		return;
	if (unlikely(s->tls != NULL)) {
		req = session_tls_rest(s, &buf);
	} else {
		check(outq_iov(&s->out, &first, 1, 1) == 1);
		buf = uv_buf_init(first.iov_base, (unsigned)first.iov_len);
		req = xmalloc(sizeof(*req));
	}
	if (uv_write(req, (uv_stream_t *)&s->tcp, &buf, 1, on_unblocked) != 0) {
		free(req);
		session_doom(s, CLOSED_CLIENT);
		return;
	}
	s->blocked = req;
	s->all->blocked++;
	if (s->phase == SESSION_STREAM)
		watch_stall(s);
}

static ssize_t write_some(struct session *s, size_t *offered)
{
	struct iovec iov[SESSION_IOV];
	struct msghdr message = {.msg_iov = iov};

	if (unlikely(s->tls != NULL))
		return session_tls_write(s, offered);
	message.msg_iovlen =
		outq_iov(&s->out, iov, SESSION_IOV, SESSION_TURN_BYTES);
	*offered = 0;
	for (size_t i = 0; i < message.msg_iovlen; i++)
		*offered += iov[i].iov_len;
	if (message.msg_iovlen == 1)
		return send(s->fd, iov[0].iov_base, iov[0].iov_len,
			    MSG_DONTWAIT | MSG_NOSIGNAL);
	return sendmsg(s->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* One write. What does not fit in a turn waits for the next, so that one
 * connection with much to send does not hold up the others. */
static void session_flush(struct session *s, struct tally *t)
{
	size_t offered;
	ssize_t n;

	if (s->out.expiring > 0)
		session_drop_expired(s, t->now_us);
	if (outq_empty(&s->out)) {
		/* All is said: the client sees the end, and then ends. Closing
		 * now, with bytes of it unread, would reset the connection and
		 * take the answer away. */
		if (s->phase == SESSION_LEAVING) {
			session_tls_goodbye(s);
			shutdown(s->fd, SHUT_WR);
		} else if (s->replay_bytes > 0)
			s->all->ops->drained(s);
		return;
	}
	n = write_some(s, &offered);
	if (n < 0 && errno != EAGAIN && errno != EINTR) {
		session_doom(s, CLOSED_CLIENT);
		return;
	}
	if (n > 0)
		took(s, (size_t)n, t);
	if (outq_empty(&s->out))
		s->lags = s->bursts = false;
	if (n < 0 || (size_t)n < offered)
		block(s);
	else if (!outq_empty(&s->out) || s->phase == SESSION_LEAVING)
		mark_dirty(s);
	if (s->replay_bytes > 0 && outq_empty(&s->out))
		s->all->ops->drained(s);
}

/* Who takes its time over the last bytes must not keep others out. All have
 * been written to once: what is cut off is the wait for those that the kernel
 * did not take, and for the client to close. */
static void trim_leaving(struct sessions *all)
{
	uint64_t doomed = 0;

	if (all->leaving_count <= all->limits.heads_max)
		return;
	list_for_each (node, &all->leaving) {
		if (all->leaving_count - doomed <= all->limits.heads_max)
			return;
		session_doom(container_of(node, struct session, in_phase),
			     CLOSED_CLIENT);
		doomed++;
	}
}

void session_write(struct session *s, size_t bytes_max)
{
	struct tally t = {.all = s->all, .now_us = clock_wall_us()};

	while (s->out.bytes > bytes_max && !session_blocked(s) && !s->doomed)
		session_flush(s, &t);
	tally_end(&t);
}

static unsigned flush_dirty(struct sessions *all, unsigned budget)
{
	struct tally t = {.all = all, .now_us = clock_wall_us()};
	struct list now, *node;
	unsigned written = 0;

	list_init(&now);
	list_splice_back(&now, &all->dirty);
	while (written < budget && (node = list_pop_front(&now)) != NULL) {
		struct session *s =
			container_of(node, struct session, in_dirty);

		if (session_blocked(s))
			continue;
		session_flush(s, &t);
		written++;
	}
	tally_end(&t);
	/* Those that had no turn are the first of the next. */
	list_splice_back(&now, &all->dirty);
	list_splice_back(&all->dirty, &now);
	return written;
}

bool sessions_pending(const struct sessions *all)
{
	return !list_empty(&all->dirty) || !list_empty(&all->doomed);
}

unsigned sessions_flush(struct sessions *all, unsigned budget)
{
	unsigned written = 0;
	struct list *node;

	if (!list_empty(&all->dirty))
		written = flush_dirty(all, budget);
	if (written < budget)
		all->dirty_since_ms = 0;
	else if (all->dirty_since_ms == 0)
		all->dirty_since_ms = sessions_now(all);
	if (written < budget) /* all have been written to */
		trim_leaving(all);
	while ((node = list_pop_front(&all->doomed)) != NULL)
		session_close(container_of(node, struct session, in_dirty));
	return written;
}

/* --- time -------------------------------------------------------------- */

static void session_on_timer(struct session *s)
{
	struct sessions *all = s->all;

	switch ((enum session_phase)s->phase) {
	case SESSION_HEAD:
		metric_add(all->metrics, NM_REJECTED, REJECT_TIMEOUT, 1);
		all->ops->timed_out(s);
		return;
	case SESSION_LEAVING:
		session_doom(s, (enum close_cause)s->cause);
		return;
	case SESSION_STREAM:
		break;
	case SESSION_CLOSING:
		return;
	}
	if (all->ops->token_left_ms(s) == 0) {
		all->ops->send_away(s, "token_expired", CLOSED_TOKEN);
		return;
	}
	if (age_left_ms(s) == 0) {
		all->ops->send_away(s, "age", CLOSED_AGE);
		return;
	}
	if (session_blocked(s)) {
		check_stall(s);
		return;
	}
	/* A stream that was spoken to since the last time needs no proof of
	 * life. */
	if (!s->spoke) {
		session_push(s, all->heartbeat);
		metric_add(all->metrics, NM_HEARTBEATS, 0, 1);
	}
	s->spoke = false;
	arm_stream(s);
}

static void on_timer(void *ctx UNUSED, struct wheel_timer *timer)
{
	session_on_timer(container_of(timer, struct session, timer));
}

void sessions_tick(struct sessions *all)
{
	wheel_run(&all->wheel, sessions_now(all), TIMERS_PER_RUN, on_timer,
		  NULL);
}

/* --- life cycle -------------------------------------------------------- */

void sessions_init(struct sessions *all, uv_loop_t *loop)
{
	all->loop = loop;
	list_init(&all->streams);
	list_init(&all->heads);
	list_init(&all->leaving);
	list_init(&all->dirty);
	list_init(&all->doomed);
	backlog_init(&all->backlog);
	slab_init(&all->slab, sizeof(struct session));
	wheel_init(&all->wheel, WHEEL_SLOTS, WHEEL_MS, uv_now(loop));
	all->heartbeat = sse_render_heartbeat(NULL);
}

void sessions_fini(struct sessions *all)
{
	slab_fini(&all->slab);
	tls_context_free(all->tls.context);
	wheel_fini(&all->wheel);
	frame_release(all->heartbeat);
}

/*
 * barecast - the bare reference: what sending server-sent events costs on this
 * machine when nothing else is done.
 *
 * Each of W workers (SO_REUSEPORT, one epoll loop, as in the node) accepts,
 * reads the request, answers with a ready-made head and `stentor.ready`, and
 * then at the given pace makes exactly one send() of a ready-made frame per
 * delivery; only the stamp in the frame is written anew. No queues: a
 * connection that cannot take a whole frame is closed and counted.
 *
 * broadcast: a frame to every connection each 1/rate seconds. private: rate
 * messages a second in all, one connection after the other; each worker takes
 * its connections' share.
 *
 *	stdout: "listening"
 *	stdin:  "start RATE SIZE" and "stop" the pace (sequence numbers go on,
 *	        SIZE is of a message's data), "stats", "quit" (or end of input)
 */
#include "bench.h"

#include <fcntl.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define WORKERS_MAX	64u
#define FRAME_MAX	(DATA_BYTES_MAX + 64)
#define HEAD_MAX	4096u
#define EVENTS_MAX	1024
#define PRIVATE_TICK_NS 1000000ull /* messages due go out once a tick */

struct options {
	struct sockaddr_in listen;
	uint32_t workers;
	bool private;
	uint32_t max_seconds;
};

/* What one worker counts; only uint64_t in it (shared_snapshot). */
struct counters {
	uint64_t connections, accepted, broadcasts, sends, overflows;
};

struct shared {
	uint32_t rate;	   /* broadcasts or private messages a second, or 0 */
	uint32_t size;	   /* bytes of data in a message */
	uint64_t start_ns; /* since when */
	struct counters counters[WORKERS_MAX];
};

struct conn {
	int fd;
	bool open;	  /* the request has been answered */
	uint32_t slot;	  /* place among the open ones */
	uint32_t number;  /* the client's, as its channel says */
	uint64_t seq;	  /* of its private stream */
	uint32_t matched; /* bytes of the request's end seen so far */
};

struct worker {
	const struct options *options;
	const struct shared *shared;
	struct counters *counters;
	struct conn *conns; /* by descriptor */
	struct conn **open; /* those that get messages */
	uint32_t open_count;
	uint32_t turn;		       /* private: whose turn it is */
	uint64_t seq;		       /* of the broadcast */
	uint64_t paced_from_ns, paced; /* messages due count from here */
	uint32_t rate;		       /* 0: the pace is off */
	int epoll, listener, timer, wake;
	uint32_t frame_bytes;
	char *stamp; /* in the frame */
	char frame[FRAME_MAX];
};

static const char answer[] = "HTTP/1.1 200 OK\r\n"
			     "Content-Type: text/event-stream\r\n"
			     "Cache-Control: no-store\r\n"
			     "X-Accel-Buffering: no\r\n"
			     "Transfer-Encoding: chunked\r\n"
			     "\r\n"
			     "38\r\nretry: 3000\n\nevent: stentor.ready\ndata: "
			     "{\"bench\":null}\n\n\r\n";

static void frame_init(struct worker *w)
{
	struct stamp none = {0};
	size_t size = w->shared->size;
	int n = snprintf(w->frame, sizeof(w->frame), "%zx\r\ndata: ", size + 8);

	w->stamp = w->frame + n;
	data_write(w->stamp, size, &none);
	memcpy(w->stamp + size, "\n\n\r\n", 4);
	w->frame_bytes = (uint32_t)n + (uint32_t)size + 4;
}

/* --- connections ------------------------------------------------------- */

static void watch(struct worker *w, int fd)
{
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};

	if (epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
		die("epoll_ctl: %s", strerror(errno));
}

static void conn_close(struct worker *w, struct conn *c)
{
	if (c->open) {
		struct conn *last = w->open[--w->open_count];

		w->open[c->slot] = last;
		last->slot = c->slot;
		w->counters->connections--;
	}
	close(c->fd);
	memset(c, 0, sizeof(*c));
}

static void accept_all(struct worker *w)
{
	int fd;

	while ((fd = accept4(w->listener, NULL, NULL,
			     SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
		w->counters->accepted++;
		w->conns[fd].fd = fd;
		watch(w, fd);
	}
}

/* The number behind "priv:" in the request, 0 if there is none. */
static uint32_t request_number(const char *text)
{
	const char *at = strstr(text, "priv:");

	return at == NULL ? 0 : (uint32_t)strtoul(at + 5, NULL, 10);
}

/* A request comes in one piece from our client; one that does not is read to
 * its end all the same, but its number may be lost. */
static void conn_read(struct worker *w, struct conn *c)
{
	static const char end[] = "\r\n\r\n";
	char text[HEAD_MAX + 1];
	ssize_t got = recv(c->fd, text, HEAD_MAX, 0);

	if (got <= 0) {
		if (got == 0 || (errno != EAGAIN && errno != EINTR))
			conn_close(w, c);
		return;
	}
	text[got] = '\0';
	if (c->open)
		return;
	for (ssize_t i = 0; i < got && c->matched < 4; i++) {
		if (text[i] == end[c->matched])
			c->matched++;
		else
			c->matched = text[i] == '\r';
	}
	if (c->matched < 4)
		return;
	c->number = request_number(text);
	if (send(c->fd, answer, sizeof(answer) - 1, MSG_NOSIGNAL) !=
	    (ssize_t)sizeof(answer) - 1) {
		conn_close(w, c);
		return;
	}
	c->open = true;
	c->slot = w->open_count;
	w->open[w->open_count++] = c;
	w->counters->connections++;
}

/* --- sending ----------------------------------------------------------- */

/* One delivery: one system call. False: the connection is gone. */
static bool deliver(struct worker *w, struct conn *c)
{
	ssize_t n = send(c->fd, w->frame, w->frame_bytes, MSG_NOSIGNAL);

	if (n == (ssize_t)w->frame_bytes) {
		w->counters->sends++;
		return true;
	}
	w->counters->overflows++;
	conn_close(w, c);
	return false;
}

static void broadcast(struct worker *w)
{
	struct stamp stamp = {.seq = ++w->seq, .sent_ns = now_ns()};

	stamp_write(w->stamp, &stamp);
	for (uint32_t i = 0; i < w->open_count;)
		i += deliver(w, w->open[i]);
	w->counters->broadcasts++;
}

static void send_private(struct worker *w)
{
	struct stamp stamp = {.sent_ns = now_ns()};
	struct conn *c;

	if (w->turn >= w->open_count)
		w->turn = 0;
	c = w->open[w->turn];
	stamp.stream = c->number + 1;
	stamp.seq = ++c->seq;
	stamp_write(w->stamp, &stamp);
	w->turn += deliver(w, c);
}

/* Messages a second that this worker is to send. */
static double worker_rate(const struct worker *w)
{
	uint64_t all = 0;

	if (!w->options->private)
		return w->rate;
	for (uint32_t i = 0; i < w->options->workers; i++)
		all += __atomic_load_n(&w->shared->counters[i].connections,
				       __ATOMIC_RELAXED);
	if (all == 0)
		return 0;
	return (double)w->rate * w->open_count / (double)all;
}

static void on_tick(struct worker *w)
{
	uint64_t now = now_ns();
	uint64_t ticks;
	uint64_t due;

	if (read(w->timer, &ticks, sizeof(ticks)) < 0 || w->rate == 0 ||
	    now < w->paced_from_ns)
		return;
	due = (uint64_t)(worker_rate(w) * (double)(now - w->paced_from_ns) /
			 (double)NS_PER_S);
	for (; w->paced < due && w->open_count > 0; w->paced++) {
		if (w->options->private)
			send_private(w);
		else
			broadcast(w);
	}
}

/* The pace was switched on or off. */
static void on_wake(struct worker *w)
{
	struct itimerspec spec = {0};
	uint64_t period;
	uint64_t value;

	if (read(w->wake, &value, sizeof(value)) < 0)
		return;
	w->rate = __atomic_load_n(&w->shared->rate, __ATOMIC_ACQUIRE);
	if (w->rate > 0) {
		frame_init(w);
		period = NS_PER_S / w->rate;
		if (w->options->private && period < PRIVATE_TICK_NS)
			period = PRIVATE_TICK_NS;
		spec.it_interval.tv_sec = (time_t)(period / NS_PER_S);
		spec.it_interval.tv_nsec = (long)(period % NS_PER_S);
		spec.it_value.tv_nsec = 1;
	}
	w->paced_from_ns = w->shared->start_ns;
	w->paced = 0;
	timerfd_settime(w->timer, 0, &spec, NULL);
}

/* --- workers ----------------------------------------------------------- */

static int listener_new(const struct sockaddr_in *addr)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int on = 1;

	if (fd < 0)
		die("socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
	/* Accepted sockets inherit it: one system call less for each. */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	if (bind(fd, (const struct sockaddr *)addr, sizeof(*addr)) != 0 ||
	    listen(fd, 4096) != 0)
		die("listen on port %u: %s", ntohs(addr->sin_port),
		    strerror(errno));
	return fd;
}

static void __attribute__((noreturn)) worker_run(struct worker *w)
{
	static struct epoll_event events[EVENTS_MAX];

	for (;;) {
		int n = epoll_wait(w->epoll, events, EVENTS_MAX, -1);

		for (int i = 0; i < n; i++) {
			int fd = events[i].data.fd;

			if (fd == w->listener)
				accept_all(w);
			else if (fd == w->timer)
				on_tick(w);
			else if (fd == w->wake)
				on_wake(w);
			else if (w->conns[fd].fd == fd)
				conn_read(w, &w->conns[fd]);
		}
	}
}

static void __attribute__((noreturn))
worker_main(const struct options *options, struct shared *shared,
	    uint32_t index, int listener, int wake)
{
	static struct worker w;
	uint64_t files = raise_nofile();

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(options->max_seconds + 5);
	w.options = options;
	w.shared = shared;
	w.counters = &shared->counters[index];
	w.listener = listener;
	w.wake = wake;
	w.timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	w.epoll = epoll_create1(EPOLL_CLOEXEC);
	w.conns = calloc(files, sizeof(*w.conns));
	w.open = calloc(files, sizeof(struct conn *));
	if (w.timer < 0 || w.epoll < 0 || w.conns == NULL || w.open == NULL)
		die("cannot start: %s", strerror(errno));
	watch(&w, w.listener);
	watch(&w, w.timer);
	watch(&w, w.wake);
	worker_run(&w);
}

/* --- the parent -------------------------------------------------------- */

struct parent {
	const struct options *options;
	struct shared *shared;
	pid_t pids[WORKERS_MAX];
	int listeners[WORKERS_MAX];
	int wakes[WORKERS_MAX];
};

/* Every listener stands before the first worker runs, so that no connection
 * is spread to fewer workers than there will be. */
static void start_workers(struct parent *p)
{
	uint32_t workers = p->options->workers;

	for (uint32_t i = 0; i < workers; i++) {
		p->listeners[i] = listener_new(&p->options->listen);
		p->wakes[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (p->wakes[i] < 0)
			die("eventfd: %s", strerror(errno));
	}
	for (uint32_t i = 0; i < workers; i++) {
		p->pids[i] = fork();
		if (p->pids[i] < 0)
			die("fork: %s", strerror(errno));
		if (p->pids[i] > 0)
			continue;
		for (uint32_t j = 0; j < workers; j++)
			if (j != i)
				close(p->listeners[j]);
		worker_main(p->options, p->shared, i, p->listeners[i],
			    p->wakes[i]);
	}
	for (uint32_t i = 0; i < workers; i++)
		close(p->listeners[i]);
}

static void set_pace(struct parent *p, uint32_t rate)
{
	uint64_t one = 1;

	p->shared->start_ns = now_ns();
	__atomic_store_n(&p->shared->rate, rate, __ATOMIC_RELEASE);
	for (uint32_t i = 0; i < p->options->workers; i++)
		if (write(p->wakes[i], &one, sizeof(one)) < 0)
			die("eventfd: %s", strerror(errno));
}

static void print_stats(const struct parent *p)
{
	struct counters sum = {0};
	struct counters one;

	for (uint32_t i = 0; i < p->options->workers; i++) {
		shared_snapshot(&one, &p->shared->counters[i], sizeof(one));
		sum.connections += one.connections;
		sum.accepted += one.accepted;
		sum.sends += one.sends;
		sum.overflows += one.overflows;
		if (one.broadcasts > sum.broadcasts)
			sum.broadcasts = one.broadcasts;
	}
	printf("{\"connections\":%llu,\"accepted\":%llu,\"broadcasts\":%llu,"
	       "\"sends\":%llu,\"overflows\":%llu}\n",
	       (unsigned long long)sum.connections,
	       (unsigned long long)sum.accepted,
	       (unsigned long long)sum.broadcasts,
	       (unsigned long long)sum.sends,
	       (unsigned long long)sum.overflows);
}

static bool obey(struct parent *p, const char *line)
{
	unsigned int rate;
	unsigned int size;

	if (strcmp(line, "quit\n") == 0)
		return false;
	if (strcmp(line, "stats\n") == 0) {
		print_stats(p);
	} else if (strcmp(line, "stop\n") == 0) {
		set_pace(p, 0);
	} else if (sscanf(line, "start %u %u", &rate, &size) == 2 && rate > 0 &&
		   size >= STAMP_BYTES && size <= DATA_BYTES_MAX) {
		p->shared->size = size;
		set_pace(p, rate);
	} else {
		puts("{\"error\":\"start RATE SIZE, stop, stats or quit\"}");
	}
	return true;
}

static void parent_run(struct parent *p)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	uint64_t end_ns = now_ns() + p->options->max_seconds * NS_PER_S;
	char line[64];

	setvbuf(stdin, NULL, _IONBF, 0); /* poll() must see what is unread */
	setvbuf(stdout, NULL, _IOLBF, 0);
	puts("listening");
	while (now_ns() < end_ns) {
		if (waitpid(-1, NULL, WNOHANG) > 0)
			die("a worker ended by itself");
		if (poll(&in, 1, 200) <= 0)
			continue;
		if (fgets(line, sizeof(line), stdin) == NULL || !obey(p, line))
			return;
	}
}

static const char usage[] =
	"barecast --listen ADDR:PORT [options]\n"
	"  --workers N       default 1\n"
	"  --mode M          broadcast (default) or private\n"
	"  --max-seconds N   then it ends by itself, default 120\n";

static void parse_options(struct options *o, int argc, char **argv)
{
	static const struct option long_options[] = {
		{"listen", required_argument, NULL, 'l'},
		{"workers", required_argument, NULL, 'w'},
		{"mode", required_argument, NULL, 'm'},
		{"max-seconds", required_argument, NULL, 'x'},
		{0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		if (c == 'l')
			o->listen = arg_addr("listen", optarg);
		else if (c == 'w')
			o->workers = (uint32_t)arg_u64("workers", optarg,
						       WORKERS_MAX);
		else if (c == 'm')
			o->private = strcmp(optarg, "private") == 0;
		else if (c == 'x')
			o->max_seconds =
				(uint32_t)arg_u64("max-seconds", optarg, 7200);
		else
			die("%s", usage);
	}
	if (o->listen.sin_port == 0 || o->workers == 0 || optind != argc)
		die("%s", usage);
}

int main(int argc, char **argv)
{
	static struct options options = {
		.workers = 1,
		.max_seconds = 120,
	};
	static struct parent parent = {.options = &options};

	parse_options(&options, argc, argv);
	parent.shared = shared_new(sizeof(*parent.shared));
	start_workers(&parent);
	parent_run(&parent);
	for (uint32_t i = 0; i < options.workers; i++)
		kill(parent.pids[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	return 0;
}

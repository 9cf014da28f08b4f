/*
 * ssebench - opens many SSE connections and watches what arrives on them.
 *
 * Forks as many processes as the limit of open files asks for; each is one
 * epoll loop over its share of the connections and counts into memory shared
 * with the parent, which talks to whoever started it in lines:
 *
 *	stdout: "ready"   every connection stands (or "failed": not in time)
 *	stdin:  "stats"   one JSON object: counters since the start, latencies
 *	                  since the last "reset"
 *	        "reset"   begins a new latency window
 *	        "quit"    (or end of input) closes all and ends
 *
 * Checked per connection and stream: each message once, in order, none missing
 * from the first on. Connections are not made again: a closed one is counted.
 * Bounded by --max-seconds whatever happens.
 */
#include "bench.h"
#include "hist.h"
#include "sseinput.h"
#include "track.h"

#include <getopt.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PROCS_MAX	       64u
#define CONNECTIONS_MAX	       1000000u
#define CONNECTIONS_PER_SOURCE 4000u /* of one address's 28,000 ports */
#define FILES_SPARE	       64u   /* descriptors that are no connections */
#define EVENTS_MAX	       1024
#define REQUEST_MAX	       1024u

struct options {
	struct sockaddr_in to;
	const char *path;  /* with %d: the connection's number */
	const char *ready; /* event that says so; "head": the head does */
	uint32_t connections;
	uint32_t concurrency; /* handshakes at a time, over all processes */
	uint32_t rate;	      /* connects a second, over all; 0: no limit */
	uint32_t procs;	      /* 0: as many as the file limit asks for */
	uint32_t sources;     /* addresses to connect from; 0: as many as due */
	uint32_t ready_seconds;
	uint32_t max_seconds;
};

/* What one process counts; only uint64_t in it (shared_snapshot). */
struct counters {
	uint64_t opened, connected, ready, failed, closed;
	uint64_t messages, bytes, notices;
	struct track_counts order;
	uint64_t strays, malformed;
	struct hist shared, private;
};

enum conn_state { CONN_CLOSED, CONN_CONNECTING, CONN_OPEN };

struct conn {
	int fd;
	uint32_t number;
	uint8_t state;
	bool ready;
	struct sse_input input;
	struct track shared, private;
};

struct client {
	const struct options *options;
	struct counters *counters;
	struct conn *conns;
	uint32_t count;	      /* of connections, all in all */
	uint32_t opened;      /* of these, begun */
	uint32_t waiting;     /* begun, neither ready nor given up */
	uint32_t concurrency; /* most of those */
	double rate;	      /* connects a second */
	uint64_t start_ns;
	int epoll;
	char buffer[SSE_BUFFER_MAX];
};

/* --- what arrives ------------------------------------------------------ */

static void conn_is_ready(struct client *cl, struct conn *c)
{
	if (c->ready)
		return;
	c->ready = true;
	cl->counters->ready++;
	cl->waiting--;
}

/* One read's worth of events. */
struct arrival {
	struct client *client;
	struct conn *conn;
};

static void on_event(void *ctx, const struct sse_event *event)
{
	struct arrival *arrival = ctx;
	struct client *cl = arrival->client;
	struct conn *c = arrival->conn;
	struct counters *counters = cl->counters;
	const char *ready = cl->options->ready;
	struct stamp stamp;

	if (event->type != NULL && event->type_len == strlen(ready) &&
	    memcmp(event->type, ready, event->type_len) == 0) {
		conn_is_ready(cl, c);
		return;
	}
	if (event->data == NULL)
		return; /* a comment, a retry */
	if (event->type_len > 8 && memcmp(event->type, "stentor.", 8) == 0) {
		counters->notices++;
		return;
	}
	if (!stamp_read(event->data, event->data_len, &stamp)) {
		counters->malformed++;
		return;
	}
	counters->messages++;
	if (stamp.stream == 0) {
		track_message(&counters->order, &c->shared, stamp.seq);
		hist_add(&counters->shared, now_ns() - stamp.sent_ns);
	} else if (stamp.stream == c->number + 1) {
		track_message(&counters->order, &c->private, stamp.seq);
		hist_add(&counters->private, now_ns() - stamp.sent_ns);
	} else {
		counters->strays++;
	}
}

/* --- connections ------------------------------------------------------- */

static void conn_close(struct client *cl, struct conn *c)
{
	if (c->ready) {
		cl->counters->closed++;
	} else {
		cl->counters->failed++;
		cl->waiting--;
	}
	close(c->fd);
	sse_input_fini(&c->input);
	c->state = CONN_CLOSED;
}

static void conn_watch(struct client *cl, struct conn *c, int op, uint32_t what)
{
	struct epoll_event event = {.events = what, .data.ptr = c};

	if (epoll_ctl(cl->epoll, op, c->fd, &event) != 0)
		die("epoll_ctl: %s", strerror(errno));
}

/* Sends the request; false: not connected yet, or never. */
static bool conn_request(struct client *cl, struct conn *c)
{
	char path[REQUEST_MAX / 2];
	char text[REQUEST_MAX];
	int n;

	expand_number(path, sizeof(path), cl->options->path, c->number);
	n = snprintf(text, sizeof(text),
		     "GET %s HTTP/1.1\r\nHost: bench\r\n"
		     "Accept: text/event-stream\r\n\r\n",
		     path);
	if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
		return false;
	cl->counters->connected++;
	c->state = CONN_OPEN;
	return true;
}

/* Many source addresses: one has only some 28,000 ports towards a server. */
static void bind_source(const struct client *cl, int fd, uint32_t number)
{
	struct sockaddr_in from = {.sin_family = AF_INET};
	uint32_t host = 0x7f000001u + number % cl->options->sources;
	int on = 1;

	from.sin_addr.s_addr = htonl(host);
	setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
	if (bind(fd, (struct sockaddr *)&from, sizeof(from)) != 0)
		die("bind to source %u: %s", number, strerror(errno));
}

static void conn_open(struct client *cl, struct conn *c)
{
	struct linger reset = {.l_onoff = 1}; /* no TIME_WAIT: ports last */

	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		die("socket: %s", strerror(errno));
	bind_source(cl, c->fd, c->number);
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
	c->state = CONN_CONNECTING;
	c->shared.next = 1;
	c->private.next = 1;
	cl->opened++;
	cl->waiting++;
	cl->counters->opened++;
	if (connect(c->fd, (const struct sockaddr *)&cl->options->to,
		    sizeof(cl->options->to)) != 0 &&
	    errno != EINPROGRESS) {
		conn_close(cl, c);
		return;
	}
	/* On loopback the connection mostly stands already. */
	if (conn_request(cl, c))
		conn_watch(cl, c, EPOLL_CTL_ADD, EPOLLIN);
	else
		conn_watch(cl, c, EPOLL_CTL_ADD, EPOLLOUT);
}

static void conn_read(struct client *cl, struct conn *c)
{
	struct arrival arrival = {.client = cl, .conn = c};
	ssize_t got = sse_input_read(&c->input, c->fd, cl->buffer, on_event,
				     &arrival);

	if (got < 0) {
		cl->counters->malformed += got != SSE_INPUT_CLOSED;
		conn_close(cl, c);
		return;
	}
	cl->counters->bytes += (uint64_t)got;
	if (c->input.open && strcmp(cl->options->ready, "head") == 0)
		conn_is_ready(cl, c);
}

static void conn_event(struct client *cl, struct conn *c, uint32_t what)
{
	if (c->state == CONN_CLOSED)
		return;
	if (c->state != CONN_CONNECTING) {
		conn_read(cl, c);
		return;
	}
	if ((what & (EPOLLERR | EPOLLHUP)) != 0 || !conn_request(cl, c))
		conn_close(cl, c);
	else
		conn_watch(cl, c, EPOLL_CTL_MOD, EPOLLIN);
}

/* --- one process ------------------------------------------------------- */

static void open_more(struct client *cl)
{
	uint64_t due = cl->count;

	if (cl->rate > 0)
		due = (uint64_t)(cl->rate * (double)(now_ns() - cl->start_ns) /
				 (double)NS_PER_S);
	while (cl->opened < cl->count && cl->opened < due &&
	       cl->waiting < cl->concurrency)
		conn_open(cl, &cl->conns[cl->opened]);
}

static void __attribute__((noreturn)) client_run(struct client *cl)
{
	static struct epoll_event events[EVENTS_MAX];

	for (;;) {
		int wait_ms = -1;
		int n;

		open_more(cl);
		if (cl->opened < cl->count)
			wait_ms = cl->rate > 0 ? 1 : 100;
		n = epoll_wait(cl->epoll, events, EVENTS_MAX, wait_ms);
		for (int i = 0; i < n; i++)
			conn_event(cl, events[i].data.ptr, events[i].events);
	}
}

/* Process `index` of `procs` takes the connections index, index + procs ... */
static void __attribute__((noreturn))
client_main(const struct options *options, struct counters *counters,
	    uint32_t index)
{
	static struct client cl;
	uint32_t procs = options->procs;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(options->max_seconds + 5);
	cl.options = options;
	cl.counters = counters;
	cl.count = (options->connections + procs - 1 - index) / procs;
	cl.concurrency = (options->concurrency + procs - 1) / procs;
	cl.rate = (double)options->rate / procs;
	cl.start_ns = now_ns();
	cl.epoll = epoll_create1(EPOLL_CLOEXEC);
	cl.conns = calloc(cl.count + 1, sizeof(*cl.conns));
	if (cl.epoll < 0 || cl.conns == NULL)
		die("cannot start: %s", strerror(errno));
	for (uint32_t i = 0; i < cl.count; i++)
		cl.conns[i].number = index + i * procs;
	client_run(&cl);
}

/* --- the parent -------------------------------------------------------- */

struct parent {
	const struct options *options;
	struct counters *shared; /* one for each process */
	pid_t pids[PROCS_MAX];
	struct counters sum;
	struct hist base_shared, base_private; /* at the last reset */
	bool told;			       /* "ready" or "failed" is out */
};

static void sum_up(struct parent *p)
{
	static struct counters one;
	uint64_t *sum = (uint64_t *)&p->sum;
	const uint64_t *add = (const uint64_t *)&one;

	memset(&p->sum, 0, sizeof(p->sum));
	for (uint32_t i = 0; i < p->options->procs; i++) {
		shared_snapshot(&one, &p->shared[i], sizeof(one));
		for (size_t j = 0; j < sizeof(one) / sizeof(*sum); j++)
			sum[j] += add[j];
	}
}

static void print_count(const char *name, uint64_t value)
{
	printf("\"%s\":%llu,", name, (unsigned long long)value);
}

static void print_stats(struct parent *p)
{
	struct counters *c = &p->sum;

	sum_up(p);
	putchar('{');
	print_count("opened", c->opened);
	print_count("connected", c->connected);
	print_count("ready", c->ready);
	print_count("failed", c->failed);
	print_count("closed", c->closed);
	print_count("messages", c->messages);
	print_count("bytes", c->bytes);
	print_count("notices", c->notices);
	print_count("gaps", c->order.gaps);
	print_count("doubles", c->order.doubles);
	print_count("reorders", c->order.reorders);
	print_count("strays", c->strays);
	print_count("malformed", c->malformed);
	hist_subtract(&c->shared, &p->base_shared);
	hist_subtract(&c->private, &p->base_private);
	printf("\"shared\":");
	hist_print(stdout, &c->shared);
	printf(",\"private\":");
	hist_print(stdout, &c->private);
	puts("}");
}

/* Says once whether all connections stand. */
static void tell_when_ready(struct parent *p, uint64_t since_ns)
{
	uint64_t limit_ns = p->options->ready_seconds * NS_PER_S;

	if (p->told)
		return;
	sum_up(p);
	if (p->sum.ready == p->options->connections)
		puts("ready");
	else if (p->sum.ready + p->sum.failed == p->options->connections ||
		 now_ns() - since_ns > limit_ns)
		puts("failed");
	else
		return;
	p->told = true;
}

/* Obeys one line; false: the end. */
static bool obey(struct parent *p, const char *line)
{
	if (strcmp(line, "quit\n") == 0)
		return false;
	if (strcmp(line, "stats\n") == 0) {
		print_stats(p);
	} else if (strcmp(line, "reset\n") == 0) {
		sum_up(p);
		p->base_shared = p->sum.shared;
		p->base_private = p->sum.private;
	} else {
		puts("{\"error\":\"stats, reset or quit\"}");
	}
	return true;
}

static void parent_run(struct parent *p)
{
	struct pollfd in = {.fd = STDIN_FILENO, .events = POLLIN};
	uint64_t start_ns = now_ns();
	uint64_t end_ns = start_ns + p->options->max_seconds * NS_PER_S;
	char line[64];

	setvbuf(stdin, NULL, _IONBF, 0); /* poll() must see what is unread */
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (now_ns() < end_ns) {
		tell_when_ready(p, start_ns);
		if (waitpid(-1, NULL, WNOHANG) > 0)
			die("a load process ended by itself");
		if (poll(&in, 1, p->told ? 200 : 5) <= 0)
			continue;
		if (fgets(line, sizeof(line), stdin) == NULL || !obey(p, line))
			return;
	}
}

static void start_children(struct parent *p)
{
	for (uint32_t i = 0; i < p->options->procs; i++) {
		p->pids[i] = fork();
		if (p->pids[i] < 0)
			die("fork: %s", strerror(errno));
		if (p->pids[i] == 0)
			client_main(p->options, &p->shared[i], i);
	}
}

static void end_children(struct parent *p)
{
	for (uint32_t i = 0; i < p->options->procs; i++)
		kill(p->pids[i], SIGKILL);
	while (wait(NULL) > 0)
		;
}

static const char usage[] =
	"ssebench --to ADDR:PORT --path PATH [options]\n"
	"  --connections N     default 1000\n"
	"  --path PATH         request target; %d is the connection's number\n"
	"  --ready EVENT       event that ends a handshake, or `head`\n"
	"  --concurrency N     handshakes at a time, default 256\n"
	"  --rate N            connects a second, default no limit\n"
	"  --procs N           default: as the limit of open files asks\n"
	"  --sources N         addresses 127.0.0.1.. to connect from\n"
	"  --ready-seconds N   time for all to be ready, default 60\n"
	"  --max-seconds N     then it ends by itself, default 120\n";

static const struct option long_options[] = {
	{"to", required_argument, NULL, 't'},
	{"path", required_argument, NULL, 'p'},
	{"ready", required_argument, NULL, 'r'},
	{"connections", required_argument, NULL, 'n'},
	{"concurrency", required_argument, NULL, 'c'},
	{"rate", required_argument, NULL, 'R'},
	{"procs", required_argument, NULL, 'P'},
	{"sources", required_argument, NULL, 's'},
	{"ready-seconds", required_argument, NULL, 'w'},
	{"max-seconds", required_argument, NULL, 'm'},
	{0},
};

static void number_option(struct options *o, int c, const char *name)
{
	const struct {
		int c;
		uint32_t max;
		uint32_t *value;
	} rows[] = {
		{'n', CONNECTIONS_MAX, &o->connections},
		{'c', CONNECTIONS_MAX, &o->concurrency},
		{'R', CONNECTIONS_MAX, &o->rate},
		{'P', PROCS_MAX, &o->procs},
		{'s', 250, &o->sources},
		{'w', 3600, &o->ready_seconds},
		{'m', 7200, &o->max_seconds},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].c == c) {
			*rows[i].value =
				(uint32_t)arg_u64(name, optarg, rows[i].max);
			return;
		}
	}
	die("%s", usage);
}

static void parse_options(struct options *o, int argc, char **argv)
{
	uint64_t files = raise_nofile() - FILES_SPARE;
	int index = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, &index)) != -1) {
		if (c == 't')
			o->to = arg_addr("to", optarg);
		else if (c == 'p')
			o->path = optarg;
		else if (c == 'r')
			o->ready = optarg;
		else
			number_option(o, c, long_options[index].name);
	}
	if (o->path == NULL || o->to.sin_port == 0 || optind != argc)
		die("%s", usage);
	if (o->procs == 0)
		o->procs = (uint32_t)(o->connections / files + 1);
	if (o->procs > PROCS_MAX || o->connections / o->procs >= files)
		die("%u connections do not fit %u processes of %llu files",
		    o->connections, o->procs, (unsigned long long)files);
	if (o->sources == 0)
		o->sources = o->connections / CONNECTIONS_PER_SOURCE + 1;
}

int main(int argc, char **argv)
{
	static struct options options = {
		.ready = "stentor.ready",
		.connections = 1000,
		.concurrency = 256,
		.ready_seconds = 60,
		.max_seconds = 120,
	};
	static struct parent parent = {.options = &options};

	parse_options(&options, argc, argv);
	parent.shared = shared_new(options.procs * sizeof(*parent.shared));
	start_children(&parent);
	parent_run(&parent);
	end_children(&parent);
	return 0;
}

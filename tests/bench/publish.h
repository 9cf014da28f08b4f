/*
 * publish.h - what our producers share: options, pace, numbering of messages
 * and the report.
 *
 * Message k goes to channel k mod M with the sequence number k / M + 1, so that
 * a later run goes on where this one ended (--first). A producer stops after
 * --count messages, after --seconds or on a signal, waits
 * PUBLISH_ANSWER_WAIT_NS at most for the answers still due, and prints one JSON
 * object.
 */
#ifndef TESTS_BENCH_PUBLISH_H
#define TESTS_BENCH_PUBLISH_H

#include "bench.h"
#include "hist.h"

#include <getopt.h>
#include <signal.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define PUBLISH_CALLS_MAX      4096u
#define PUBLISH_WINDOW_MAX     65536u
#define PUBLISH_CODES	       17u /* gRPC status codes 0..16 */
#define PUBLISH_UNKNOWN	       2u
#define PUBLISH_TICK_NS_MIN    500000ull
#define PUBLISH_ANSWER_WAIT_NS (5 * NS_PER_S)

struct publish {
	/* options */
	struct sockaddr_in to;
	const char *channel; /* with %d: its number, of `channels` */
	bool stream, batch;  /* pubbench only; neither: unary */
	uint32_t calls;
	uint32_t window; /* unanswered requests in a stream call, or messages
			  * of a batch */
	uint32_t channels;
	uint32_t rate; /* messages a second; 0: as fast as answers come */
	uint32_t size;
	uint32_t seconds;
	uint64_t count; /* 0: no limit but time */
	uint64_t first;

	/* progress */
	uint64_t sent, answered;
	uint64_t codes[PUBLISH_CODES];
	uint64_t start_ns;
	uint64_t stop_ns; /* 0: still sending */
	bool broken;	  /* a connection was lost */
	struct hist latency;
};

static volatile sig_atomic_t publish_interrupted;

static inline void publish_on_signal(int number)
{
	(void)number;
	publish_interrupted = 1;
}

static inline void publish_usage(void)
{
	die("options: --to ADDR:PORT --channel NAME and\n"
	    "  --channel NAME   with %%d: number of the channel\n"
	    "  --channels M     how many, in turn; default 1\n"
	    "  --mode M         unary (default), stream or batch (gRPC only)\n"
	    "  --calls N        calls at a time, or streams; default 1\n"
	    "  --window N       unanswered requests in a stream, or messages "
	    "in\n"
	    "                   a batch, default 256\n"
	    "  --rate N         messages a second, default as many as it can\n"
	    "  --size N         bytes of data in a message, default 200\n"
	    "  --count N        messages, default no limit\n"
	    "  --first N        number of the first message, default 0\n"
	    "  --seconds N      most seconds to send, default 10");
}

static inline void publish_number_option(struct publish *p, int c,
					 const char *name)
{
	const struct {
		int c;
		uint32_t max;
		uint32_t *value;
	} rows[] = {
		{'M', 10000000, &p->channels},
		{'c', PUBLISH_CALLS_MAX, &p->calls},
		{'w', PUBLISH_WINDOW_MAX, &p->window},
		{'r', 10000000, &p->rate},
		{'s', DATA_BYTES_MAX, &p->size},
		{'x', 7200, &p->seconds},
	};

	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		if (rows[i].c == c) {
			*rows[i].value =
				(uint32_t)arg_u64(name, optarg, rows[i].max);
			return;
		}
	}
	publish_usage();
}

static inline void publish_parse(struct publish *p, int argc, char **argv)
{
	static const struct option options[] = {
		{"to", required_argument, NULL, 't'},
		{"channel", required_argument, NULL, 'C'},
		{"channels", required_argument, NULL, 'M'},
		{"mode", required_argument, NULL, 'm'},
		{"calls", required_argument, NULL, 'c'},
		{"window", required_argument, NULL, 'w'},
		{"rate", required_argument, NULL, 'r'},
		{"size", required_argument, NULL, 's'},
		{"count", required_argument, NULL, 'n'},
		{"first", required_argument, NULL, 'f'},
		{"seconds", required_argument, NULL, 'x'},
		{0},
	};
	int index = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", options, &index)) != -1) {
		if (c == 't')
			p->to = arg_addr("to", optarg);
		else if (c == 'C')
			p->channel = optarg;
		else if (c == 'm') {
			p->stream = strcmp(optarg, "stream") == 0;
			p->batch = strcmp(optarg, "batch") == 0;
		} else if (c == 'n')
			p->count = arg_u64("count", optarg, 1ull << 40);
		else if (c == 'f')
			p->first = arg_u64("first", optarg, 1ull << 40);
		else
			publish_number_option(p, c, options[index].name);
	}
	if (p->to.sin_port == 0 || p->channel == NULL || p->channels == 0 ||
	    p->calls == 0 || p->window == 0 || p->size < STAMP_BYTES ||
	    optind != argc)
		publish_usage();
}

/* Defaults, then the arguments; from here the time counts. */
static inline void publish_init(struct publish *p, int argc, char **argv)
{
	p->calls = 1;
	p->window = 256;
	p->channels = 1;
	p->size = 200;
	p->seconds = 10;
	publish_parse(p, argc, argv);
	signal(SIGTERM, publish_on_signal);
	signal(SIGINT, publish_on_signal);
	p->start_ns = now_ns();
}

/* Will nothing more be sent? */
static inline bool publish_is_done(const struct publish *p)
{
	return p->stop_ns > 0 || (p->count > 0 && p->sent >= p->count);
}

/* May one more message go out now, by pace, count and time? */
static inline bool publish_may_send(const struct publish *p)
{
	uint64_t elapsed_ns = now_ns() - p->start_ns;

	if (publish_is_done(p))
		return false;
	return p->rate == 0 || (double)p->sent < (double)p->rate *
							 (double)elapsed_ns /
							 (double)NS_PER_S;
}

/* Looks at clock, count and signals. True: the answers had their time too. */
static inline bool publish_is_over(struct publish *p)
{
	uint64_t now = now_ns();

	if (p->stop_ns == 0 && (publish_interrupted || publish_is_done(p) ||
				now >= p->start_ns + p->seconds * NS_PER_S))
		p->stop_ns = now;
	return p->stop_ns > 0 && now - p->stop_ns > PUBLISH_ANSWER_WAIT_NS;
}

/* Begins the next message: its channel's number and its stamp. */
static inline uint64_t publish_next(struct publish *p, struct stamp *stamp)
{
	uint64_t k = p->first + p->sent++;
	uint64_t number = k % p->channels;
	bool private = strstr(p->channel, "%d") != NULL;

	stamp->stream = private ? (uint32_t)number + 1 : 0;
	stamp->seq = k / p->channels + 1;
	stamp->sent_ns = now_ns();
	return number;
}

static inline void publish_answered(struct publish *p, uint32_t code,
				    uint64_t sent_ns)
{
	p->codes[code < PUBLISH_CODES ? code : PUBLISH_UNKNOWN]++;
	p->answered++;
	if (code == 0)
		hist_add(&p->latency, now_ns() - sent_ns);
}

/* A timer that ticks with the pace. */
static inline int publish_timer_new(const struct publish *p)
{
	uint64_t period = NS_PER_S / 100;
	struct itimerspec spec = {0};
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);

	if (fd < 0)
		die("timer: %s", strerror(errno));
	if (p->rate > 100)
		period = NS_PER_S / p->rate;
	if (period < PUBLISH_TICK_NS_MIN)
		period = PUBLISH_TICK_NS_MIN;
	spec.it_interval.tv_nsec = (long)period;
	spec.it_value.tv_nsec = (long)period;
	timerfd_settime(fd, 0, &spec, NULL);
	return fd;
}

/* Prints the report; returns the exit status: 0 when all was answered. */
static inline int publish_report(const struct publish *p)
{
	uint64_t end_ns = p->stop_ns > 0 ? p->stop_ns : now_ns();

	printf("{\"sent\":%llu,\"answered\":%llu,\"broken\":%s,"
	       "\"seconds\":%.3f,\"codes\":{",
	       (unsigned long long)p->sent, (unsigned long long)p->answered,
	       p->broken ? "true" : "false",
	       (double)(end_ns - p->start_ns) / (double)NS_PER_S);
	for (uint32_t i = 0, n = 0; i < PUBLISH_CODES; i++)
		if (p->codes[i] > 0)
			printf("%s\"%u\":%llu", n++ > 0 ? "," : "", i,
			       (unsigned long long)p->codes[i]);
	printf("},\"answers\":");
	hist_print(stdout, &p->latency);
	puts("}");
	return p->sent > 0 && p->answered == p->sent ? 0 : 1;
}

#endif

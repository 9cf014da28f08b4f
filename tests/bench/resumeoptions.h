/*
 * resumeoptions.h - the command line of resumebench.
 */
#ifndef TESTS_BENCH_RESUMEOPTIONS_H
#define TESTS_BENCH_RESUMEOPTIONS_H

#include "bench.h"

#include <getopt.h>

#define SUBSCRIBERS_MAX 100000u
#define CHANNELS_MAX	100000u
#define CHANNELS_EACH	16u
#define NODES_MAX	64u
#define NAME_MAX_BYTES	160u

enum format { FORMAT_RAW, FORMAT_JSON, FORMAT_MIXED };

struct options {
	struct sockaddr_in to[NODES_MAX];
	uint32_t nodes;
	const char *channel; /* with %d: its number, of `channels` */
	const char *also;    /* one more channel of each; NULL: none */
	const char *log;     /* a file; NULL: check here */
	enum format format;
	uint32_t subscribers;
	uint32_t channels;
	uint32_t each;	     /* channels of one subscriber */
	uint32_t base;	     /* of channels' numbers in stamps and log */
	uint32_t also_base;  /* likewise; greater than `base` */
	uint32_t retry_ms;   /* most; 0: as the server says */
	uint32_t silence_ms; /* 0: all are patient */
	uint32_t join_ms;    /* 0: all stay */
	uint32_t slow_ms;    /* 0: nobody stands still */
	uint32_t seed;
	uint32_t max_seconds;
};

static const char usage[] =
	"resumebench --to ADDR:PORT [--to ...] --channel NAME [options]\n"
	"  --channel NAME      with %d: number of the channel\n"
	"  --channels N        default 1\n"
	"  --each N            channels of a subscriber, default 1\n"
	"  --also NAME         one more channel of each subscriber\n"
	"  --subscribers N     default 1000\n"
	"  --format F          raw (default), json, or mixed: half and half\n"
	"  --retry-ms N        come back sooner than the server asks\n"
	"  --silence-ms N      after this every other one gives up\n"
	"  --join-ms N         after about this every fourth one begins anew\n"
	"  --slow-ms N         every eighth one stands still for so long at "
	"times\n"
	"  --log FILE          check nothing, write down what comes\n"
	"  --base N            number of the first channel there, and in "
	"stamps\n"
	"  --also-base N       likewise of --also\n"
	"  --seed N            default 1\n"
	"  --max-seconds N     then it ends by itself, default 120\n";

static const struct option long_options[] = {
	{"to", required_argument, NULL, 't'},
	{"channel", required_argument, NULL, 'C'},
	{"channels", required_argument, NULL, 'M'},
	{"each", required_argument, NULL, 'k'},
	{"also", required_argument, NULL, 'A'},
	{"subscribers", required_argument, NULL, 'n'},
	{"format", required_argument, NULL, 'f'},
	{"retry-ms", required_argument, NULL, 'r'},
	{"silence-ms", required_argument, NULL, 's'},
	{"join-ms", required_argument, NULL, 'j'},
	{"slow-ms", required_argument, NULL, 'w'},
	{"log", required_argument, NULL, 'l'},
	{"base", required_argument, NULL, 'b'},
	{"also-base", required_argument, NULL, 'B'},
	{"seed", required_argument, NULL, 'S'},
	{"max-seconds", required_argument, NULL, 'm'},
	{0},
};

static inline void number_option(struct options *o, int c, const char *name)
{
	const struct {
		int c;
		uint32_t max;
		uint32_t *value;
	} rows[] = {
		{'n', SUBSCRIBERS_MAX, &o->subscribers},
		{'M', CHANNELS_MAX, &o->channels},
		{'k', CHANNELS_EACH, &o->each},
		{'b', 90000000, &o->base},
		{'B', 90000000, &o->also_base},
		{'r', 600000, &o->retry_ms},
		{'s', 600000, &o->silence_ms},
		{'j', 600000, &o->join_ms},
		{'w', 600000, &o->slow_ms},
		{'S', UINT32_MAX, &o->seed},
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

static inline enum format arg_format(const char *text)
{
	if (strcmp(text, "json") == 0)
		return FORMAT_JSON;
	if (strcmp(text, "mixed") == 0)
		return FORMAT_MIXED;
	if (strcmp(text, "raw") != 0)
		die("--format: raw, json or mixed");
	return FORMAT_RAW;
}

static inline void resume_options(struct options *o, int argc, char **argv)
{
	int index = 0;
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, &index)) != -1) {
		if (c == 't' && o->nodes < NODES_MAX)
			o->to[o->nodes++] = arg_addr("to", optarg);
		else if (c == 'C')
			o->channel = optarg;
		else if (c == 'A')
			o->also = optarg;
		else if (c == 'l')
			o->log = optarg;
		else if (c == 'f')
			o->format = arg_format(optarg);
		else
			number_option(o, c, long_options[index].name);
	}
	if (o->channel == NULL || o->nodes == 0 || o->channels == 0 ||
	    o->subscribers == 0 || o->each == 0 || o->each > o->channels ||
	    (o->also != NULL && o->also_base < o->base + o->channels) ||
	    optind != argc)
		die("%s", usage);
	if (o->subscribers + 64 > raise_nofile())
		die("the limit of open files is below %u", o->subscribers + 64);
}

#endif

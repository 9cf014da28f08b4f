/*
 * storebench - what a store costs: appends a second and a processor-second,
 * and the time of a single append against a bare write and fsync on the same
 * file system.
 *
 * Batches: DEPTH appends are always under way, over CHANNELS channels in turn;
 * each is submitted again from its own `done`, as the answers of many producers
 * would. Singles: the next begins when the last is done. The processor time is
 * that of the whole process, the store's threads included.
 *
 * With --instance it is one of the dispatchers of a Redis, which tells others
 * what moved if any are there: another storebench with --count 0 --stay
 * SECONDS.
 *
 *	stdout: one "name value" line a result
 */
#include "bench.h"

#include "common/base/err.h"
#include "dispatcher/store/store.h"

#include <fcntl.h>
#include <getopt.h>
#include <unistd.h>
#include <uv.h>

#define DEPTH_MAX 65536u
#define TRIM_MS	  1000

struct options {
	const char *url, *beside;
	uint64_t count, depth, channels, size, history, singles;
	uint64_t instance, stay;
	bool keys;
};

struct bench;

struct slot {
	struct store_append a;
	struct bench *bench;
	char channel[32], key[32];
};

struct bench {
	struct options options;
	uv_loop_t loop;
	uv_timer_t trim;
	struct store *store;
	struct slot *slots;
	uint8_t *record;
	uint64_t submitted, done, failed;
};

static uint64_t cpu_ns(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return ((uint64_t)usage.ru_utime.tv_sec +
		(uint64_t)usage.ru_stime.tv_sec) *
		       NS_PER_S +
	       ((uint64_t)usage.ru_utime.tv_usec +
		(uint64_t)usage.ru_stime.tv_usec) *
		       1000;
}

static void on_done(struct store_append *a);

static void submit(struct bench *b, struct slot *s)
{
	uint64_t n = b->submitted++;

	snprintf(s->channel, sizeof(s->channel), "bench-%llu",
		 (unsigned long long)(n % b->options.channels));
	s->key[0] = '\0';
	if (b->options.keys)
		snprintf(s->key, sizeof(s->key), "%016llx%llu",
			 (unsigned long long)(n * 0x9e3779b97f4a7c15u),
			 (unsigned long long)n);
	s->bench = b;
	s->a = (struct store_append){
		.channel = s->channel,
		.record = b->record,
		.len = b->options.size,
		.size = (uint32_t)b->options.history,
		.ttl_ms = 600000,
		.idempotency_key = s->key,
		.message_id = "0123456789abcdef",
		.done = on_done,
	};
	store_append(b->store, &s->a);
}

static void on_done(struct store_append *a)
{
	struct slot *s = (struct slot *)((char *)a - offsetof(struct slot, a));
	struct bench *b = s->bench;

	b->done++;
	if (a->rc != 0 && b->failed++ == 0)
		fprintf(stderr, "append: %s\n", err_text(a->rc));
	if (b->submitted < b->options.count)
		submit(b, s);
}

static void on_trim(uv_timer_t *timer)
{
	store_trim(((struct bench *)timer->data)->store);
}

static void report(const char *name, double value)
{
	printf("%s %.3f\n", name, value);
	fflush(stdout);
}

static void run_batches(struct bench *b)
{
	uint64_t wall = now_ns(), cpu = cpu_ns();
	uint64_t depth = b->options.depth;
	double seconds;

	if (depth > b->options.count)
		depth = b->options.count;
	for (uint64_t i = 0; i < depth; i++)
		submit(b, &b->slots[i]);
	while (b->done < b->submitted)
		uv_run(&b->loop, UV_RUN_ONCE);
	wall = now_ns() - wall;
	cpu = cpu_ns() - cpu;
	seconds = (double)wall / NS_PER_S;
	report("appends_per_second", (double)b->done / seconds);
	report("appends_per_cpu_second",
	       (double)b->done * NS_PER_S / (double)cpu);
	report("cpu_us_per_append", (double)cpu / 1e3 / (double)b->done);
	report("batch_mean",
	       (double)b->done / (double)metric_get(store_counters(b->store),
						    SM_BATCHES, 0));
	report("failed", (double)b->failed);
}

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void report_times(const char *name, uint64_t *ns, size_t count)
{
	char line[64];

	qsort(ns, count, sizeof(*ns), by_value);
	snprintf(line, sizeof(line), "%s_p50_ms", name);
	report(line, (double)ns[count / 2] / 1e6);
	snprintf(line, sizeof(line), "%s_p99_ms", name);
	report(line, (double)ns[count * 99 / 100] / 1e6);
}

/* One append, then one bare write and fsync, in turns: the disk is the same
 * and as busy for both. */
static void run_singles(struct bench *b)
{
	size_t count = (size_t)b->options.singles;
	uint64_t *appends = calloc(count, sizeof(*appends));
	uint64_t *bare = calloc(count, sizeof(*bare));
	int fd = open(b->options.beside, O_RDWR | O_CREAT | O_TRUNC, 0600);

	if (appends == NULL || bare == NULL || fd < 0)
		die("%s: %s", b->options.beside, strerror(errno));
	for (size_t i = 0; i < count; i++) {
		uint64_t start = now_ns();

		b->submitted = i;
		b->options.count = i + 1;
		b->done = 0;
		submit(b, &b->slots[0]);
		while (b->done == 0)
			uv_run(&b->loop, UV_RUN_ONCE);
		appends[i] = now_ns() - start;
		start = now_ns();
		if (pwrite(fd, b->record, b->options.size,
			   (off_t)(i * b->options.size)) < 0 ||
		    fsync(fd) != 0)
			die("%s: %s", b->options.beside, strerror(errno));
		bare[i] = now_ns() - start;
	}
	report_times("append", appends, count);
	report_times("write_fsync", bare, count);
	close(fd);
	unlink(b->options.beside);
	free(appends);
	free(bare);
}

static void parse(struct options *o, int argc, char *argv[])
{
	static const struct option long_options[] = {
		{"url", required_argument, NULL, 'u'},
		{"beside", required_argument, NULL, 'b'},
		{"count", required_argument, NULL, 'n'},
		{"depth", required_argument, NULL, 'd'},
		{"channels", required_argument, NULL, 'c'},
		{"size", required_argument, NULL, 's'},
		{"history", required_argument, NULL, 'h'},
		{"singles", required_argument, NULL, '1'},
		{"instance", required_argument, NULL, 'i'},
		{"stay", required_argument, NULL, 't'},
		{"keys", no_argument, NULL, 'k'},
		{NULL, 0, NULL, 0},
	};
	int c;

	while ((c = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
		switch (c) {
		case 'u':
			o->url = optarg;
			break;
		case 'b':
			o->beside = optarg;
			break;
		case 'n':
			o->count = arg_u64("count", optarg, 1ull << 32);
			break;
		case 'd':
			o->depth = arg_u64("depth", optarg, DEPTH_MAX);
			break;
		case 'c':
			o->channels = arg_u64("channels", optarg, 1u << 20);
			break;
		case 's':
			o->size = arg_u64("size", optarg, 1u << 20);
			break;
		case 'h':
			o->history = arg_u64("history", optarg, 1u << 30);
			break;
		case '1':
			o->singles = arg_u64("singles", optarg, 1u << 20);
			break;
		case 'i':
			o->instance = arg_u64("instance", optarg, UINT64_MAX);
			break;
		case 't':
			o->stay = arg_u64("stay", optarg, 3600);
			break;
		case 'k':
			o->keys = true;
			break;
		default:
			die("usage: storebench --url URL [--count N] [--depth "
			    "N]"
			    " [--channels N] [--size BYTES] [--history N]"
			    " [--keys] [--singles N --beside FILE]"
			    " [--instance N] [--stay SECONDS]");
		}
	}
	if (o->url == NULL || o->depth == 0 || o->channels == 0)
		die("storebench: --url is missing, or a number is 0");
	if (o->singles > 0 && o->beside == NULL)
		die("storebench: --singles needs --beside FILE");
}

static void open_store(struct bench *b)
{
	const struct store_config config = {
		.url = b->options.url,
		.password = "",
		.queue_bytes = 256u << 20,
		.timeout_ms = 10000,
		.idempotency_ms = 300000,
		.map_bytes = 4ull << 30,
		.instance = b->options.instance,
	};
	char fault[STORE_FAULT_SIZE];

	uv_loop_init(&b->loop);
	if (store_open(&b->loop, &config, &b->store, fault) != 0)
		die("%s", fault);
	while (!store_state(b->store)->up)
		uv_run(&b->loop, UV_RUN_ONCE);
	uv_timer_init(&b->loop, &b->trim);
	b->trim.data = b;
	uv_timer_start(&b->trim, on_trim, TRIM_MS, TRIM_MS);
}

/* Long enough to have heard who else is there, before and after. */
static void stay(struct bench *b)
{
	uint64_t until = now_ns() + b->options.stay * NS_PER_S;

	while (now_ns() < until)
		uv_run(&b->loop, UV_RUN_ONCE);
	if (b->options.instance != 0) {
		report("peers", store_state(b->store)->peer_count);
		report("told", (double)metric_get(store_counters(b->store),
						  SM_MOVED, STORE_MOVED_SENT));
		report("heard",
		       (double)metric_get(store_counters(b->store), SM_MOVED,
					  STORE_MOVED_HEARD));
	}
}

int main(int argc, char *argv[])
{
	struct bench b = {
		.options = {.count = 200000,
			    .depth = 1000,
			    .channels = 200,
			    .size = 200,
			    .history = 1000},
	};

	parse(&b.options, argc, argv);
	b.slots = calloc(b.options.depth, sizeof(*b.slots));
	b.record = malloc(b.options.size + 1);
	if (b.slots == NULL || b.record == NULL)
		die("no memory");
	memset(b.record, 'x', b.options.size + 1);
	open_store(&b);
	if (b.options.instance != 0 && b.options.stay == 0) {
		b.options.stay = 1; /* until others are known */
		stay(&b);
		b.options.stay = 0;
	}
	if (b.options.count > 0)
		run_batches(&b);
	if (b.options.singles > 0)
		run_singles(&b);
	stay(&b);
	uv_close((uv_handle_t *)&b.trim, NULL);
	store_close(b.store, NULL, NULL);
	uv_run(&b.loop, UV_RUN_DEFAULT);
	uv_loop_close(&b.loop);
	free(b.slots);
	free(b.record);
	return b.failed > 0;
}

/*
 * bench.h - what the bench programs share: clock, number and address
 * arguments, the stamp that every message carries, shared counters.
 *
 * A message's data starts with a stamp of fixed width and is padded to size:
 *
 *	<stream:8> <seq:10> <send time, ns:19> xxxxxx...
 *
 * Stream 0 is the channel that all connections share; stream i + 1 is the
 * private channel of connection i. `seq` counts 1, 2, 3 ... in each stream.
 * Times are CLOCK_MONOTONIC: sender and receiver run on one machine.
 */
#ifndef TESTS_BENCH_BENCH_H
#define TESTS_BENCH_BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <time.h>

#define NS_PER_S       1000000000ull
#define STAMP_BYTES    40u /* both spaces and the one behind included */
#define DATA_BYTES_MAX 16384u

struct stamp {
	uint32_t stream;
	uint64_t seq;
	uint64_t sent_ns;
};

static inline uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

/* Says why on stderr and ends the process: a bench that cannot run stops. */
static inline void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}

/* A decimal argument of the option `name`, at most `max`. */
static inline uint64_t arg_u64(const char *name, const char *text, uint64_t max)
{
	char *end = NULL;
	unsigned long long value;

	errno = 0;
	value = strtoull(text, &end, 10);
	if (errno != 0 || end == text || *end != '\0' || value > max)
		die("--%s: %s is not a number up to %llu", name, text,
		    (unsigned long long)max);
	return value;
}

/* An IPv4 address and port, as 127.0.0.1:8080. */
static inline struct sockaddr_in arg_addr(const char *name, const char *text)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	const char *colon = strrchr(text, ':');
	char host[64];

	if (colon == NULL || (size_t)(colon - text) >= sizeof(host))
		die("--%s: %s is not address:port", name, text);
	memcpy(host, text, (size_t)(colon - text));
	host[colon - text] = '\0';
	if (inet_pton(AF_INET, host, &addr.sin_addr) != 1)
		die("--%s: %s is not an IPv4 address", name, host);
	addr.sin_port = htons((uint16_t)arg_u64(name, colon + 1, 65535));
	return addr;
}

/* Raises the soft limit of open files to the hard one and returns it. */
static inline uint64_t raise_nofile(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		die("getrlimit: %s", strerror(errno));
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		die("setrlimit: %s", strerror(errno));
	return limit.rlim_cur;
}

/* Zeroed memory that forked children share with their parent. */
static inline void *shared_new(size_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		die("mmap of %zu bytes: %s", bytes, strerror(errno));
	return memory;
}

/* Copies counters that one other process writes, word by word: each word is
 * whole, the set may be torn by a few events. */
static inline void shared_snapshot(void *to, const void *from, size_t bytes)
{
	const uint64_t *source = from;
	uint64_t *copy = to;

	for (size_t i = 0; i < bytes / sizeof(uint64_t); i++)
		copy[i] = __atomic_load_n(&source[i], __ATOMIC_RELAXED);
}

static inline void put_digits(char *out, unsigned int width, uint64_t value)
{
	while (width > 0) {
		out[--width] = (char)('0' + value % 10);
		value /= 10;
	}
}

/* Writes the STAMP_BYTES of a stamp at `out`. */
static inline void stamp_write(char *out, const struct stamp *stamp)
{
	put_digits(out, 8, stamp->stream);
	put_digits(out + 9, 10, stamp->seq);
	put_digits(out + 20, 19, stamp->sent_ns);
	out[8] = out[19] = out[39] = ' ';
}

/* Fills `size` bytes (at least STAMP_BYTES): the stamp, then padding. */
static inline void data_write(char *out, size_t size, const struct stamp *stamp)
{
	stamp_write(out, stamp);
	memset(out + STAMP_BYTES, 'x', size - STAMP_BYTES);
}

static inline bool get_digits(const char *text, unsigned int width,
			      uint64_t *value)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < width; i++) {
		unsigned int digit = (unsigned int)(text[i] - '0');

		if (digit > 9)
			return false;
		sum = sum * 10 + digit;
	}
	*value = sum;
	return text[width] == ' ';
}

/* Reads a stamp from the start of a message's data. */
static inline bool stamp_read(const char *text, size_t bytes,
			      struct stamp *stamp)
{
	uint64_t stream;

	if (bytes < STAMP_BYTES || !get_digits(text, 8, &stream) ||
	    !get_digits(text + 9, 10, &stamp->seq) ||
	    !get_digits(text + 20, 19, &stamp->sent_ns))
		return false;
	stamp->stream = (uint32_t)stream;
	return true;
}

/* Writes `template` with its first %d replaced by `number`; returns the
 * length. A template without %d is copied. */
static inline size_t expand_number(char *out, size_t size, const char *template,
				   uint64_t number)
{
	const char *hole = strstr(template, "%d");
	int n;

	if (hole == NULL)
		n = snprintf(out, size, "%s", template);
	else
		n = snprintf(out, size, "%.*s%llu%s", (int)(hole - template),
			     template, (unsigned long long)number, hole + 2);
	if (n < 0 || (size_t)n >= size)
		die("%s is too long", template);
	return (size_t)n;
}

#endif

#include "common/base/log.h"

#include "common/base/clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A pipe takes lines up to PIPE_BUF whole, however many threads write. */
#define LINE_MAX_BYTES 4096u
/* Identifiers are literals of the program, so the table never fills; if it
 * did, some would share a slot and its limit. */
#define LIMITER_SLOTS 256u
/* Longer runs of digits stay text: a double holds 15 exactly. */
#define NUMBER_DIGITS_MAX 15u

struct limiter_slot {
	uint32_t id; /* hash; 0: free */
	uint32_t lines;
	uint64_t suppressed;
	uint64_t second;
};

static struct {
	pthread_mutex_t lock;
	const char *component;
	enum log_level level;
	bool json;
	struct limiter_slot limiter[LIMITER_SLOTS];
} sink = {
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.component = "-",
	.level = LOG_INFO,
	.json = true,
};

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static const char *const level_words[] = {"DEBUG", "INFO ", "WARN ", "ERROR"};

void log_init(const char *component, enum log_level level, bool json)
{
	pthread_mutex_lock(&sink.lock);
	sink.component = component;
	sink.json = json;
	memset(sink.limiter, 0, sizeof(sink.limiter));
	pthread_mutex_unlock(&sink.lock);
	log_set_level(level);
}

void log_set_level(enum log_level level)
{
	__atomic_store_n(&sink.level, level, __ATOMIC_RELAXED);
}

enum log_level log_get_level(void)
{
	return __atomic_load_n(&sink.level, __ATOMIC_RELAXED);
}

/* --- rate limit -------------------------------------------------------- */

static uint32_t hash_id(const char *id)
{
	uint32_t hash = 2166136261u; /* FNV-1a */

	for (; *id; id++)
		hash = (hash ^ (uint8_t)*id) * 16777619u;
	return hash ? hash : 1;
}

static struct limiter_slot *limiter_slot(uint32_t id)
{
	for (unsigned i = 0; i < LIMITER_SLOTS; i++) {
		struct limiter_slot *slot =
			&sink.limiter[(id + i) % LIMITER_SLOTS];

		if (slot->id == id)
			return slot;
		if (slot->id == 0) {
			slot->id = id;
			return slot;
		}
	}
	return &sink.limiter[id % LIMITER_SLOTS];
}

/* Whether a line of this id may be written now; if so, how many were not since
 * the last. Under the lock. */
static bool limiter_allows(const char *id, uint64_t now_second,
			   uint64_t *suppressed)
{
	struct limiter_slot *slot = limiter_slot(hash_id(id));

	if (slot->second != now_second) {
		slot->second = now_second;
		slot->lines = 0;
	}
	if (slot->lines == LOG_BURST_PER_SECOND) {
		slot->suppressed++;
		return false;
	}
	slot->lines++;
	*suppressed = slot->suppressed;
	slot->suppressed = 0;
	return true;
}

/* --- a line of bounded length ------------------------------------------ */

struct line {
	size_t len;
	char bytes[LINE_MAX_BYTES];
};

/* What is put last (closing quote and brace) always has room. */
#define LINE_TAIL 8u

/* All or nothing. */
static bool line_add(struct line *l, const char *bytes, size_t len)
{
	if (l->len + len > sizeof(l->bytes) - LINE_TAIL)
		return false;
	memcpy(l->bytes + l->len, bytes, len);
	l->len += len;
	return true;
}

static void line_text(struct line *l, const char *text)
{
	line_add(l, text, strlen(text));
}

static void PRINTF(2, 3) line_printf(struct line *l, const char *format, ...)
{
	char text[256];
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	check(n >= 0);
	line_add(l, text, min_of((size_t)n, sizeof(text) - 1));
}

static void line_end(struct line *l, const char *tail)
{
	size_t len = strlen(tail);

	check(len <= LINE_TAIL);
	memcpy(l->bytes + l->len, tail, len);
	l->len += len;
}

/* Length of the valid UTF-8 sequence at `p`, 0 if there is none. */
static size_t utf8_len(const uint8_t *p, size_t left)
{
	size_t len = 1 + (p[0] >= 0xc2) + (p[0] >= 0xe0) + (p[0] >= 0xf0);

	if ((p[0] >= 0x80 && p[0] < 0xc2) || p[0] > 0xf4 || len > left)
		return 0;
	for (size_t i = 1; i < len; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	if ((p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xed && p[1] > 0x9f) ||
	    (p[0] == 0xf0 && p[1] < 0x90) || (p[0] == 0xf4 && p[1] > 0x8f))
		return 0;
	return len;
}

/* Text from anywhere, so that it can neither end the line nor break the JSON.
 * Stops whole characters before the line is full. */
static void line_escaped(struct line *l, const char *text, size_t len,
			 bool json)
{
	const uint8_t *p = (const uint8_t *)text;
	char code[8];

	for (size_t i = 0, n; i < len; i += n) {
		const char *add = code;
		size_t add_len;

		n = utf8_len(p + i, len - i);
		if (n == 0) {
			n = 1;
			add = "\xef\xbf\xbd"; /* U+FFFD */
			add_len = 3;
		} else if (p[i] < 0x20 || p[i] == 0x7f) {
			add_len = (size_t)snprintf(code, sizeof(code),
						   json ? "\\u%04x" : "\\x%02x",
						   p[i]);
		} else if (json && (p[i] == '"' || p[i] == '\\')) {
			code[0] = '\\';
			code[1] = (char)p[i];
			add_len = 2;
		} else {
			add = text + i;
			add_len = n;
		}
		if (!line_add(l, add, add_len))
			return;
	}
}

/* --- text to JSON ------------------------------------------------------ */

/* One piece of the formatted text: key=value, key="value", or, with no key,
 * free text. */
struct pair {
	const char *key, *value;
	size_t key_len, value_len;
	bool quoted;
};

static size_t key_length(const char *text)
{
	size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz"
				  "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-");

	return text[len] == '=' ? len : 0;
}

/* Where a quoted value ends: at a quote that the end or another pair follows,
 * since what is printed between the quotes may hold quotes too. */
static const char *closing_quote(const char *text)
{
	const char *quote = text;

	while ((quote = strchr(quote, '"'))) {
		if (quote[1] == '\0' ||
		    (quote[1] == ' ' && key_length(quote + 2) > 0))
			return quote;
		quote++;
	}
	return text + strlen(text);
}

/* Takes one piece off the text; returns what follows. */
static const char *pair_next(const char *text, struct pair *pair)
{
	const char *end;

	pair->key = text;
	pair->key_len = key_length(text);
	pair->value = pair->key_len ? text + pair->key_len + 1 : text;
	pair->quoted = pair->key_len && *pair->value == '"';
	if (pair->quoted) {
		pair->value++;
		end = closing_quote(pair->value);
	} else {
		end = pair->value + strcspn(pair->value, " ");
	}
	/* Free text goes on until a pair begins. */
	while (pair->key_len == 0 && *end && key_length(end + 1) == 0)
		end += 1 + strcspn(end + 1, " ");
	pair->value_len = (size_t)(end - pair->value);
	if (pair->quoted && *end == '"')
		end++;
	return end + strspn(end, " ");
}

/* Digits with no leading zero, perhaps a minus before and a fraction behind. */
static bool is_number(const struct pair *pair)
{
	const char *p = pair->value, *end = p + pair->value_len;
	size_t digits;

	if (p < end && *p == '-')
		p++;
	digits = min_of(strspn(p, "0123456789"), (size_t)(end - p));
	if (digits == 0 || pair->value_len > NUMBER_DIGITS_MAX ||
	    (digits > 1 && *p == '0'))
		return false;
	p += digits;
	if (p < end && *p == '.') {
		digits = min_of(strspn(p + 1, "0123456789"),
				(size_t)(end - p - 1));
		p += digits > 0 ? digits + 1 : 0;
	}
	return p == end;
}

static bool is_reserved(const struct pair *pair)
{
	static const char *const names[] = {"ts",  "level", "component",
					    "pid", "id",    "suppressed"};

	for (size_t i = 0; i < array_len(names); i++)
		if (strlen(names[i]) == pair->key_len &&
		    memcmp(names[i], pair->key, pair->key_len) == 0)
			return true;
	return false;
}

/* A member that does not fit is left out whole, so the line stays JSON; the
 * text of the last may be cut. */
static void json_member(struct line *l, const struct pair *pair)
{
	size_t start = l->len;
	bool fits = line_add(l, ",\"", 2);

	if (pair->key_len)
		fits = fits && line_add(l, pair->key, pair->key_len);
	else
		fits = fits && line_add(l, "msg", 3);
	if (is_reserved(pair)) /* our own member stands */
		fits = fits && line_add(l, "_", 1);
	if (!pair->quoted && pair->key_len && is_number(pair)) {
		fits = fits && line_add(l, "\":", 2) &&
		       line_add(l, pair->value, pair->value_len);
	} else {
		fits = fits && line_add(l, "\":\"", 3);
		if (fits) {
			line_escaped(l, pair->value, pair->value_len, true);
			line_end(l, "\"");
		}
	}
	if (!fits)
		l->len = start;
}

/* --- one line ---------------------------------------------------------- */

static void json_line(struct line *l, enum log_level level, const char *id,
		      const char *text, uint64_t suppressed)
{
	uint64_t now_us = clock_wall_us();
	time_t second = (time_t)(now_us / 1000000);
	struct tm utc;
	char ts[32];

	gmtime_r(&second, &utc);
	strftime(ts, sizeof(ts), "%Y-%m-%dT%H:%M:%S", &utc);
	line_printf(l, "{\"ts\":\"%s.%06uZ\",\"level\":\"%s\",\"component\":\"",
		    ts, (unsigned)(now_us % 1000000), level_names[level]);
	line_escaped(l, sink.component, strlen(sink.component), true);
	line_printf(l, "\",\"pid\":%d,\"id\":\"%s\"", (int)getpid(), id);
	if (suppressed > 0)
		line_printf(l, ",\"suppressed\":%llu",
			    (unsigned long long)suppressed);
	while (*text) {
		struct pair pair;

		text = pair_next(text, &pair);
		json_member(l, &pair);
	}
	line_end(l, "}\n");
}

static void text_line(struct line *l, enum log_level level, const char *id,
		      const char *text, uint64_t suppressed)
{
	uint64_t now_ms = clock_wall_ms();
	time_t second = (time_t)(now_ms / 1000);
	struct tm local;
	char ts[32];

	localtime_r(&second, &local);
	strftime(ts, sizeof(ts), "%H:%M:%S", &local);
	line_printf(l, "%s.%03u %s ", ts, (unsigned)(now_ms % 1000),
		    level_words[level]);
	line_escaped(l, sink.component, strlen(sink.component), false);
	line_printf(l, " %s", id);
	if (suppressed > 0)
		line_printf(l, " suppressed=%llu",
			    (unsigned long long)suppressed);
	line_text(l, " ");
	line_escaped(l, text, strlen(text), false);
	line_end(l, "\n");
}

void log_write(enum log_level level, const char *id, const char *format, ...)
{
	int saved_errno = errno;
	uint64_t suppressed = 0;
	struct line line;
	char text[2048];
	va_list args;
	bool allowed;

	if (level < log_get_level())
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	line.len = 0;
	pthread_mutex_lock(&sink.lock);
	allowed = limiter_allows(id, clock_monotonic_ms() / 1000, &suppressed);
	if (allowed && sink.json)
		json_line(&line, level, id, text, suppressed);
	else if (allowed)
		text_line(&line, level, id, text, suppressed);
	pthread_mutex_unlock(&sink.lock);
	if (allowed) {
		/* Where stderr is gone or full there is nobody to tell. */
		ssize_t ignored = write(STDERR_FILENO, line.bytes, line.len);
		(void)ignored;
	}
	errno = saved_errno;
}

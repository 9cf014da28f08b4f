/* The ordered list of channel rules: building, matching, agreeing on them.
 *
 * A rule with `history: {size, ttl, latest}` makes its channels reliable; one
 * without, or with size 0, leaves them ephemeral. */
#include "common/base/config_internal.h"
#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define PATTERN_MAX 128

const char *const priority_names[PRIORITY_CLASSES + 1] = {"critical", "normal",
							  "droppable", NULL};
const char *const lagging_names[] = {"close", "conflate", "drop_oldest", NULL};
const char *const access_names[] = {"token", "public", NULL};

static const struct rule_row default_row = {.match = "*"};

/* The rule that is being built, for messages. Rows are counted from 1, as
 * libcyaml does. */
struct place {
	const struct program *program;
	const char *source;
	size_t number;
};

/* What channel names are made of, and perhaps a star at the end. */
static bool pattern_valid(const char *pattern)
{
	size_t len = strspn(pattern, "abcdefghijklmnopqrstuvwxyz"
				     "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				     "0123456789_.:~@/-");

	if (pattern[len] == '*')
		len++;
	return len > 0 && len <= PATTERN_MAX && pattern[len] == '\0';
}

static int refuse(const struct place *p, const char *field, const char *format,
		  ...) PRINTF(3, 4);

/* "FILE: rules[2].history.ttl: ..." */
static int refuse(const struct place *p, const char *field, const char *format,
		  ...)
{
	char text[512];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	return config_error(p->program, "%s: rules[%zu].%s: %s", p->source,
			    p->number, field, text);
}

static int choose(const struct place *p, const char *field,
		  const char *const choices[], const char *text,
		  unsigned *value)
{
	int index = config_choice(choices, text);
	char list[128];

	if (index >= 0) {
		*value = (unsigned)index;
		return 0;
	}
	config_choices(choices, ", ", list, sizeof(list));
	return refuse(p, field, "\"%s\" is not one of %s", text, list);
}

/* --- history ----------------------------------------------------------- */

static int read_count(const struct place *p, const char *field,
		      const char *text, uint64_t max, uint32_t *count)
{
	uint64_t value = 0;
	const char *end = "";
	int err = config_number(text, &value, &end);

	if (err == ERR_MALFORMED || *end)
		return refuse(p, field, "\"%s\" is not a number", text);
	if (err < 0 || value > max)
		return refuse(p, field, "%s is out of range (0 to %" PRIu64 ")",
			      text, max);
	*count = (uint32_t)value;
	return 0;
}

static int read_ttl(const struct place *p, const char *text, uint64_t *ms)
{
	char fault[CONFIG_FAULT];

	if (config_duration_within(text, HISTORY_TTL_MIN_MS, HISTORY_TTL_MAX_MS,
				   "1s to 30d", ms, fault) < 0)
		return refuse(p, "history.ttl", "%s", fault);
	return 0;
}

static int build_history(const struct place *p, const struct history_row *row,
			 struct rule *rule)
{
	if (!row->size)
		return refuse(p, "history.size", "missing");
	if (read_count(p, "history.size", row->size, HISTORY_SIZE_MAX,
		       &rule->history_size) < 0)
		return ERR_CONFIG;
	if (!row->ttl && rule->history_size > 0)
		return refuse(p, "history.ttl", "missing");
	if (row->ttl && read_ttl(p, row->ttl, &rule->history_ttl_ms) < 0)
		return ERR_CONFIG;
	if (row->latest &&
	    read_count(p, "history.latest", row->latest, HISTORY_LATEST_MAX,
		       &rule->history_latest) < 0)
		return ERR_CONFIG;
	if (rule->history_latest > rule->history_size)
		return refuse(p, "history.latest", "%u is more than size (%u)",
			      rule->history_latest, rule->history_size);
	if (rule->history_size == 0)
		rule->history_ttl_ms = 0;
	return 0;
}

/* --- rules ------------------------------------------------------------- */

static int build(const struct place *p, const struct rule_row *row,
		 struct rule *rule)
{
	unsigned priority = PRIORITY_NORMAL, access = ACCESS_TOKEN, lagging;

	if (!row->match)
		return refuse(p, "match", "missing");
	if (!pattern_valid(row->match))
		return refuse(p, "match",
			      "\"%s\" is not a channel name or a prefix with "
			      "'*' behind",
			      row->match);
	if (row->priority &&
	    choose(p, "priority", priority_names, row->priority, &priority) < 0)
		return ERR_CONFIG;
	if (row->access &&
	    choose(p, "access", access_names, row->access, &access) < 0)
		return ERR_CONFIG;
	if (row->history && build_history(p, row->history, rule) < 0)
		return ERR_CONFIG;
	/* A reader that can come back to what it missed is better closed than
	 * robbed of it. */
	lagging = rule_reliable(rule) ? LAGGING_CLOSE : LAGGING_DROP_OLDEST;
	if (row->lagging &&
	    choose(p, "lagging", lagging_names, row->lagging, &lagging) < 0)
		return ERR_CONFIG;
	rule->pattern = xstrdup(row->match);
	rule->priority = (enum priority)priority;
	rule->lagging = (enum lagging)lagging;
	rule->access = (enum access)access;
	return 0;
}

/* Order counts: the hash of each rule goes into the next. */
static uint64_t hash_rules(const struct rules *rules)
{
	/* Fixed: all processes must come to the same number. */
	struct hash_key key = {0x7374656e746f7221u, 0x72756c65732e7631u};

	for (size_t i = 0; i < rules->count; i++) {
		const struct rule *rule = &rules->rule[i];
		char text[PATTERN_MAX + 96];
		int n = snprintf(text, sizeof(text),
				 "%s %u %u %u %u %" PRIu64 " %u", rule->pattern,
				 rule->priority, rule->lagging, rule->access,
				 rule->history_size, rule->history_ttl_ms,
				 rule->history_latest);

		check(n > 0 && (size_t)n < sizeof(text));
		key.k0 = hash_bytes(&key, text, (size_t)n);
	}
	return key.k0;
}

int rules_build(const struct program *program, const char *source,
		const struct rule_row *rows, size_t count, struct rules *rules)
{
	struct rules built = {0};

	check(count < RULES_MAX);
	built.rule = xcalloc(count + 1, sizeof(*built.rule));
	for (; built.count <= count; built.count++) {
		size_t i = built.count;

		struct place place = {program, source, i + 1};

		if (build(&place, i < count ? &rows[i] : &default_row,
			  &built.rule[i]) < 0) {
			rules_free(&built);
			return ERR_CONFIG;
		}
	}
	built.hash = hash_rules(&built);
	*rules = built;
	return 0;
}

void rules_free(struct rules *rules)
{
	for (size_t i = 0; i < rules->count; i++)
		free(rules->rule[i].pattern);
	free(rules->rule);
	*rules = (struct rules){0};
}

const struct rule *rules_match(const struct rules *rules, const char *channel)
{
	const struct rule *rule = rules->rule;

	for (;; rule++) { /* the last one matches all */
		size_t len = strlen(rule->pattern);

		if (rule->pattern[len - 1] == '*'
			    ? strncmp(rule->pattern, channel, len - 1) == 0
			    : strcmp(rule->pattern, channel) == 0)
			return rule;
	}
}

/* The ordered list of channel rules: building, matching, agreeing on them.
 *
 * A rule that keeps history will have more fields; until then a file that
 * has them is refused by the schema, as unknown keys. */
#include "common/base/config_internal.h"
#include "common/base/err.h"
#include "common/base/hash.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define PATTERN_MAX 128

const char *const priority_names[PRIORITY_CLASSES + 1] = {"critical", "normal",
							  "droppable", NULL};
const char *const lagging_names[] = {"close", "conflate", "drop_oldest", NULL};

static const struct rule_row default_row = {.match = "*"};

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

static int choose(const struct program *program, const char *source,
		  size_t number, const char *field, const char *const choices[],
		  const char *text, unsigned *value)
{
	int index = config_choice(choices, text);
	char list[128];

	if (index >= 0) {
		*value = (unsigned)index;
		return 0;
	}
	config_choices(choices, ", ", list, sizeof(list));
	return config_error(program,
			    "%s: rules[%zu].%s: \"%s\" is not one of %s",
			    source, number, field, text, list);
}

/* Rows are counted from 1 in messages, as libcyaml does. */
static int build(const struct program *program, const char *source,
		 size_t number, const struct rule_row *row, struct rule *rule)
{
	unsigned priority = PRIORITY_NORMAL, lagging = LAGGING_DROP_OLDEST;

	if (!row->match)
		return config_error(program, "%s: rules[%zu].match: missing",
				    source, number);
	if (!pattern_valid(row->match))
		return config_error(program,
				    "%s: rules[%zu].match: \"%s\" is not a "
				    "channel name or a prefix with '*' behind",
				    source, number, row->match);
	if (row->priority &&
	    choose(program, source, number, "priority", priority_names,
		   row->priority, &priority) < 0)
		return ERR_CONFIG;
	if (row->lagging && choose(program, source, number, "lagging",
				   lagging_names, row->lagging, &lagging) < 0)
		return ERR_CONFIG;
	*rule = (struct rule){
		.pattern = xstrdup(row->match),
		.priority = (enum priority)priority,
		.lagging = (enum lagging)lagging,
	};
	return 0;
}

/* Order counts: the hash of each rule goes into the next. */
static uint64_t hash_rules(const struct rules *rules)
{
	/* Fixed: all processes must come to the same number. */
	struct hash_key key = {0x7374656e746f7221u, 0x72756c65732e7631u};

	for (size_t i = 0; i < rules->count; i++) {
		const struct rule *rule = &rules->rule[i];
		char text[PATTERN_MAX + 32];
		int n = snprintf(text, sizeof(text), "%s %u %u", rule->pattern,
				 rule->priority, rule->lagging);

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

		if (build(program, source, i + 1,
			  i < count ? &rows[i] : &default_row,
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

/* config.h - one table row per option, and everything that follows from it.
 *
 * From a row come the flag (--api-listen X), the environment variable
 * (STENTOR_API_LISTEN), the YAML key of --config FILE (api_listen), --help and
 * the README's table. Flag beats environment beats file beats default. The
 * result is a plain struct of the program's own; modules get what they need
 * from it at init and never read the environment.
 *
 * Anything wrong (unknown key or flag, bad value, out of range, unreadable
 * file) is one clear message on stderr, naming the source, and ERR_CONFIG: the
 * program then exits with CONFIG_EXIT before any socket opens.
 */
#ifndef STENTOR_BASE_CONFIG_H
#define STENTOR_BASE_CONFIG_H

#include "common/base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define CONFIG_EXIT 78 /* EX_CONFIG of sysexits.h */

enum option_type {
	OPTION_STRING, /* char *, owned by the config, never NULL */
	OPTION_UINT,   /* uint64_t, decimal, within [min, max]; max 0: any */
	OPTION_SIZE,   /* uint64_t bytes: digits with optional KiB, MiB, GiB */
	OPTION_BOOL,   /* bool: true, false */
	OPTION_CHOICE, /* unsigned: index into choices[] */
};

struct option {
	const char *name; /* "api-listen" */
	enum option_type type;
	size_t offset; /* of the field in the program's struct */
	const char *def;
	uint64_t min, max;
	const char *unit;	    /* "ms", "bytes"; NULL: none */
	const char *const *choices; /* NULL-terminated */
	const char *help;
};

/* Rows of a table; `at` is the offset of the field. */
#define ROW_STRING(name, at, def, help)                              \
	{                                                            \
		name, OPTION_STRING, at, def, 0, 0, NULL, NULL, help \
	}
#define ROW_BOOL(name, at, def, help)                              \
	{                                                          \
		name, OPTION_BOOL, at, def, 0, 0, NULL, NULL, help \
	}
#define ROW_CHOICE(name, at, def, choices, help)                        \
	{                                                               \
		name, OPTION_CHOICE, at, def, 0, 0, NULL, choices, help \
	}
#define ROW_UINT(name, at, def, min, max, unit, help)                  \
	{                                                              \
		name, OPTION_UINT, at, def, min, max, unit, NULL, help \
	}
#define ROW_SIZE(name, at, def, min, max, help)                           \
	{                                                                 \
		name, OPTION_SIZE, at, def, min, max, "bytes", NULL, help \
	}

/* Which shared rule a channel follows: the first whose pattern matches. */
enum priority { PRIORITY_CRITICAL, PRIORITY_NORMAL, PRIORITY_DROPPABLE };
#define PRIORITY_CLASSES 3
extern const char *const priority_names[PRIORITY_CLASSES + 1];

enum lagging { LAGGING_CLOSE, LAGGING_CONFLATE, LAGGING_DROP_OLDEST };
extern const char *const lagging_names[];

/* Who may read: whoever has a token for it, or anybody. Under --auth none
 * everybody may read everything. */
enum access { ACCESS_TOKEN, ACCESS_PUBLIC };
extern const char *const access_names[];

struct rule {
	char *pattern; /* exact, or a prefix that ends in '*' */
	enum priority priority;
	enum lagging lagging;
	enum access access;
	uint32_t history_size;	 /* messages; 0: ephemeral */
	uint64_t history_ttl_ms; /* after the last publish; 0: ephemeral */
	uint32_t history_latest; /* what a new subscriber gets at once */
};

/* A channel that keeps history: its messages have positions. */
static inline bool rule_reliable(const struct rule *rule)
{
	return rule->history_size > 0;
}

/* What a rule may ask for. */
#define HISTORY_SIZE_MAX   100000u
#define HISTORY_TTL_MIN_MS 1000u
#define HISTORY_TTL_MAX_MS (30u * 24 * 3600 * 1000)
#define HISTORY_LATEST_MAX 1000u

/* The YAML file's `rules:` list. Always ends with a match-all default. */
struct rules {
	struct rule *rule;
	size_t count;
	uint64_t hash; /* of all that processes must agree on */
};

#define RULES_MAX 1024

/* The rule for a channel; never NULL. Borrowed until the rules are freed. */
const struct rule *rules_match(const struct rules *rules, const char *channel);

/* What a key's tokens are signed with (RFC 7518 3.1). */
enum token_alg { TOKEN_HS256, TOKEN_RS256, TOKEN_PS256, TOKEN_ES256 };
extern const char *const token_alg_names[]; /* "HS256" ...; ends with NULL */

/* One entry of `auth.keys`: a key with its name and its one algorithm, or a
 * JWKS document, whose keys say theirs. */
struct auth_key {
	char *kid; /* NULL: `file` is a JWKS document */
	enum token_alg alg;
	char *file; /* beside the YAML file, if it was not absolute */
};

/* The YAML file's `auth:` section; without one all is empty. What the files
 * hold is common/io/auth.h's business. */
struct auth_config {
	char *issuer, *audience; /* that tokens must say; "" for any */
	uint64_t leeway_s;	 /* by which clocks may differ */
	struct auth_key *key;
	size_t key_count;
};

#define AUTH_KEYS_MAX	   64 /* entries, and keys in them */
#define AUTH_KID_MAX	   128
#define AUTH_LEEWAY_S	   30
#define AUTH_LEEWAY_MAX_MS (5u * 60 * 1000)

struct program {
	const char *name;	      /* "stentor-dispatcher" */
	const char *summary;	      /* one line for --help */
	const struct option *options; /* ends with a NULL name */
	const char *env_prefix;	      /* "STENTOR_" */
};

/* Fills `out` (the program's struct, zeroed by the caller), `rules` and `auth`
 * (NULL: the program takes none and `rules:` or `auth:` is an unknown key).
 * Returns 0, ERR_CONFIG after a message on stderr, or 1 when --help or
 * --version was answered on stdout and the program should exit 0. Options
 * common to all programs (--config, --help, --version, --options-markdown,
 * which prints the README table) are built in.  argv is only read. */
int config_load(const struct program *program, void *out, struct rules *rules,
		struct auth_config *auth, int argc,
		char *const argv[]) MUST_CHECK;

/* Path of the file that --config or the environment names (owned by them), or
 * NULL. */
const char *config_path(const struct program *program, int argc,
			char *const argv[]);

/* Whether a flag, the environment or the file sets the option `name`; else it
 * holds its default. After a config_load() that went well. */
bool config_given(const struct program *program, const char *name, int argc,
		  char *const argv[]);

/* A duration as people write it: digits with ms, s, m, h or d. ERR_MALFORMED
 * (a number alone could be seconds or milliseconds) or ERR_TOO_LARGE. */
int config_duration(const char *text, uint64_t *ms) MUST_CHECK;

void rules_free(struct rules *rules);
void auth_config_free(struct auth_config *auth);

/* Writes what is in force, one "key: value" line an option, for people; secrets
 * (options whose name ends in "token" or "password", and what stands before the
 * '@' of a URL) are not told. */
void config_print(const struct program *program, const void *values, FILE *to);

/* Frees the strings in `out`. */
void config_free(const struct program *program, void *out);

/* Raises the soft limit of open files to the hard one; returns what it got. */
uint64_t config_raise_nofile(void);

#endif

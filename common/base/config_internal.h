/* config_internal.h - what the files of the config module share. */
#ifndef STENTOR_BASE_CONFIG_INTERNAL_H
#define STENTOR_BASE_CONFIG_INTERNAL_H

#include "common/base/config.h"

/* One row of the file's `rules:`, as text; NULL where a key is not there. */
struct history_row {
	char *size, *ttl, *latest;
};
struct rule_row {
	char *match, *priority, *lagging, *access;
	struct history_row *history;
};

/* The file's `auth:`. */
struct key_row {
	char *kid, *alg, *file, *jwks;
};
struct auth_row {
	char *issuer, *audience, *leeway;
	struct key_row *keys;
	unsigned key_count;
};

/* The file as read: all text, so that flag, environment and file share one
 * parser of values. */
struct config_file {
	struct rule_row *rows;
	unsigned row_count;
	struct auth_row *auth;
	char *values[]; /* of each option of the program; NULL: not there */
};

/* --config, --help and so on, which every program has. */
extern const struct option config_builtins[];

/* "stentor-x: ..." on stderr; returns ERR_CONFIG. */
int config_error(const struct program *program, const char *format, ...)
	PRINTF(2, 3);

/* STENTOR_API_LISTEN or api_listen from api-listen. */
#define CONFIG_NAME_MAX 64
void config_env_name(const struct program *program, const struct option *option,
		     char name[CONFIG_NAME_MAX]);
void config_yaml_key(const struct option *option, char key[CONFIG_NAME_MAX]);

/* Digits; `end` is what stands behind them. */
int config_number(const char *text, uint64_t *value,
		  const char **end) MUST_CHECK;

/* Index of `text` in a NULL-terminated list, -1 if it is not there. */
int config_choice(const char *const choices[], const char *text);
/* "critical, normal, droppable" */
void config_choices(const char *const choices[], const char *separator,
		    char *text, size_t size);
/* What a value may be: "1 to 256", "0 to 60000 ms", "1 KiB to 1 GiB", "jwt,
 * none"; empty where any text may be. */
void config_range(const struct option *option, char *text, size_t size);

/* config_duration() within bounds, which `range` words for people ("1s to
 * 30d"). ERR_CONFIG with a text. */
#define CONFIG_FAULT 256
int config_duration_within(const char *text, uint64_t min_ms, uint64_t max_ms,
			   const char *range, uint64_t *ms,
			   char fault[CONFIG_FAULT]) MUST_CHECK;

/* Reads a file; `sections` says which are known keys besides the options. */
#define CONFIG_RULES	1u
#define CONFIG_AUTH	2u
#define CONFIG_SECTIONS (CONFIG_RULES | CONFIG_AUTH)
int config_file_read(const struct program *program, const char *path,
		     unsigned sections, struct config_file **file) MUST_CHECK;
void config_file_free(const struct program *program, struct config_file *file);

/* Rules from rows, with the match-all default behind them. `source` names
 * where the rows come from. */
int rules_build(const struct program *program, const char *source,
		const struct rule_row *rows, size_t count,
		struct rules *rules) MUST_CHECK;

/* `source` is the file's path (NULL: there is no file), beside which the key
 * files are; `row` NULL: it has no such section. */
int auth_build(const struct program *program, const char *source,
	       const struct auth_row *row, struct auth_config *auth) MUST_CHECK;

void config_print_help(const struct program *program);
void config_print_markdown(const struct program *program);

#endif

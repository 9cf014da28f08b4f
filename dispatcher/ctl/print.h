/* print.h - stentorctl's output, and what it reads out of answers.
 *
 * What comes from the network may hold control characters that a terminal
 * would obey; everything printed for people goes through ctl_print_text().
 */
#ifndef STENTOR_CTL_PRINT_H
#define STENTOR_CTL_PRINT_H

#include "common/base/check.h"

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* A member of a protobuf JSON object: 64-bit numbers come as strings, members
 * with the default value not at all. */
uint64_t ctl_json_number(const json_t *object, const char *key);
const char *ctl_json_text(const json_t *object, const char *key);
/* "WORKER_STATE_READY" without the prefix, in lower case. */
void ctl_json_enum(const json_t *object, const char *key, const char *prefix,
		   char *name, size_t size);

/* The member's position as EPOCH:OFFSET; "-" where there is none. */
#define CTL_POSITION_SIZE 48
const char *ctl_json_position(const json_t *object, const char *key,
			      char text[CTL_POSITION_SIZE]);

void ctl_print_json(const json_t *value);

/* Control characters as \x1b; LF too, or, if `indent` is not negative, as a
 * new line that begins with so many spaces. */
void ctl_print_text(FILE *out, const char *text, size_t len, int indent);

#define CTL_COLUMNS_MAX 16

/* Rows of text, printed when all widths are known. */
struct ctl_table {
	size_t columns, count, cap;
	char **cells;	/* count, row by row */
	unsigned words; /* a bit for each column that never holds numbers */
};

/* The first row is `titles`, NULL-terminated. */
void ctl_table_init(struct ctl_table *t, const char *const *titles);
void ctl_table_fini(struct ctl_table *t);
/* The next cell of the row under way. */
void ctl_table_add(struct ctl_table *t, const char *format, ...) PRINTF(2, 3);
/* Numbers, that is cells that begin with a digit, stand at the right, except in
 * columns of words. */
void ctl_table_print(const struct ctl_table *t, FILE *out);

/* "1.5 MiB"; "3h 12m". */
void ctl_format_bytes(char *text, size_t size, uint64_t bytes);
void ctl_format_duration(char *text, size_t size, uint64_t ms);

#endif

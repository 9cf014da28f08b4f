#include "dispatcher/ctl/print.h"

#include "common/base/mem.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* --- answers ----------------------------------------------------------- */

uint64_t ctl_json_number(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	if (json_is_string(value))
		return strtoull(json_string_value(value), NULL, 10);
	return json_is_integer(value) ? (uint64_t)json_integer_value(value) : 0;
}

const char *ctl_json_text(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

void ctl_json_enum(const json_t *object, const char *key, const char *prefix,
		   char *name, size_t size)
{
	const char *text = ctl_json_text(object, key);
	size_t skip = strlen(prefix);

	if (strncmp(text, prefix, skip) == 0)
		text += skip;
	snprintf(name, size, "%s", *text ? text : "-");
	for (char *c = name; *c; c++)
		*c = (char)tolower((unsigned char)*c);
}

const char *ctl_json_position(const json_t *object, const char *key,
			      char text[CTL_POSITION_SIZE])
{
	const json_t *position = json_object_get(object, key);

	if (json_is_object(position))
		snprintf(text, CTL_POSITION_SIZE, "%" PRIu64 ":%" PRIu64,
			 ctl_json_number(position, "epoch"),
			 ctl_json_number(position, "offset"));
	else
		snprintf(text, CTL_POSITION_SIZE, "-");
	return text;
}

void ctl_print_json(const json_t *value)
{
	json_dumpf(value, stdout, JSON_INDENT(2));
	putchar('\n');
}

/* --- text -------------------------------------------------------------- */

void ctl_print_text(FILE *out, const char *text, size_t len, int indent)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];
		/* U+0080 to U+009F, in UTF-8 C2 80 to C2 9F, are control
		 * characters as well. */
		bool c1 = c == 0xc2 && i + 1 < len &&
			  (unsigned char)text[i + 1] < 0xa0;

		if (c == '\n' && indent >= 0)
			fprintf(out, "\n%*s", indent, "");
		else if (c == '\t')
			fputc(c, out);
		else if (c < 0x20 || c == 0x7f)
			fprintf(out, "\\x%02x", c);
		else if (c1)
			fprintf(out, "\\x%02x", (unsigned char)text[++i]);
		else
			fputc(c, out);
	}
}

void ctl_format_bytes(char *text, size_t size, uint64_t bytes)
{
	static const char *const units[] = {"KiB", "MiB", "GiB", "TiB"};
	double value = (double)bytes / 1024;
	size_t unit = 0;

	if (bytes < 1024) {
		snprintf(text, size, "%" PRIu64 " B", bytes);
		return;
	}
	for (; value >= 1024 && unit + 1 < array_len(units); unit++)
		value /= 1024;
	snprintf(text, size, "%.1f %s", value, units[unit]);
}

void ctl_format_duration(char *text, size_t size, uint64_t ms)
{
	uint64_t seconds = ms / 1000, minutes = seconds / 60,
		 hours = minutes / 60;

	if (hours >= 24)
		snprintf(text, size, "%" PRIu64 "d %" PRIu64 "h", hours / 24,
			 hours % 24);
	else if (hours > 0)
		snprintf(text, size, "%" PRIu64 "h %" PRIu64 "m", hours,
			 minutes % 60);
	else if (minutes > 0)
		snprintf(text, size, "%" PRIu64 "m %" PRIu64 "s", minutes,
			 seconds % 60);
	else
		snprintf(text, size, "%" PRIu64 "s", seconds);
}

/* --- tables ------------------------------------------------------------ */

void ctl_table_init(struct ctl_table *t, const char *const *titles)
{
	memset(t, 0, sizeof(*t));
	for (; titles[t->columns]; t->columns++)
		ctl_table_add(t, "%s", titles[t->columns]);
	check(t->columns > 0);
	check(t->columns <= CTL_COLUMNS_MAX);
}

void ctl_table_fini(struct ctl_table *t)
{
	for (size_t i = 0; i < t->count; i++)
		free(t->cells[i]);
	free(t->cells);
}

void ctl_table_add(struct ctl_table *t, const char *format, ...)
{
	va_list args;
	char text[256]; /* longer cells are cut */
	char *safe = NULL;
	size_t safe_len = 0;
	FILE *out = open_memstream(&safe, &safe_len);

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	check(out);
	ctl_print_text(out, text, strlen(text), -1);
	check(fclose(out) == 0);
	if (t->count == t->cap) {
		t->cap = t->cap * 2 + 64;
		t->cells = xrealloc(t->cells, t->cap * sizeof(*t->cells));
	}
	t->cells[t->count++] = safe;
}

static bool is_number(const char *cell)
{
	return isdigit((unsigned char)*cell);
}

/* Columns a text takes: UTF-8 continuation bytes take none. */
static int width_of(const char *text)
{
	int width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

void ctl_table_print(const struct ctl_table *t, FILE *out)
{
	int width[CTL_COLUMNS_MAX] = {0};
	bool numbers[CTL_COLUMNS_MAX] = {false};

	check(t->count % t->columns == 0);
	for (size_t i = 0; i < t->count; i++) {
		size_t column = i % t->columns;

		width[column] = max_of(width[column], width_of(t->cells[i]));
		numbers[column] |=
			is_number(t->cells[i]) && !(t->words & 1u << column);
	}
	for (size_t i = 0; i < t->count; i++) {
		size_t column = i % t->columns;
		const char *cell = t->cells[i];
		int pad = width[column] - width_of(cell);
		bool right =
			numbers[column] && (is_number(cell) || i < t->columns);
		bool last = column + 1 == t->columns;

		fprintf(out, "%*s", right ? pad : 0, "");
		fputs(cell, out);
		if (last)
			fputc('\n', out);
		else
			fprintf(out, "%*s", (right ? 0 : pad) + 2, "");
	}
}

/* The option table for people: --help and --options-markdown. */
#include "common/base/config_internal.h"

#include <inttypes.h>
#include <string.h>

#define WIDTH  80
#define COLUMN 27 /* where the help text begins */

int config_choice(const char *const choices[], const char *text)
{
	for (int i = 0; choices[i]; i++)
		if (strcmp(choices[i], text) == 0)
			return i;
	return -1;
}

void config_choices(const char *const choices[], const char *separator,
		    char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (int i = 0; choices[i] && used < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%s",
					 i > 0 ? separator : "", choices[i]);
}

/* 1048576 as "1 MiB". */
static void size_text(uint64_t value, char *text, size_t size)
{
	static const char *const units[] = {"bytes", "KiB", "MiB", "GiB"};
	unsigned i = 0;

	while (i < 3 && value > 0 && value % 1024 == 0) {
		value /= 1024;
		i++;
	}
	snprintf(text, size, "%" PRIu64 " %s", value, units[i]);
}

static void number_range(const struct option *o, char *text, size_t size)
{
	char low[64], high[64];

	if (o->type == OPTION_SIZE) {
		size_text(o->min, low, sizeof(low));
		size_text(o->max, high, sizeof(high));
	} else {
		snprintf(low, sizeof(low), "%" PRIu64, o->min);
		snprintf(high, sizeof(high), "%" PRIu64, o->max);
	}
	if (o->max > 0)
		snprintf(text, size, "%s to %s", low, high);
	else
		snprintf(text, size, "at least %s", low);
	if (o->type == OPTION_UINT && o->unit) {
		size_t used = strlen(text);

		snprintf(text + used, size - used, " %s", o->unit);
	}
}

void config_range(const struct option *option, char *text, size_t size)
{
	text[0] = '\0';
	switch (option->type) {
	case OPTION_STRING:
		break;
	case OPTION_BOOL:
		snprintf(text, size, "true, false");
		break;
	case OPTION_CHOICE:
		config_choices(option->choices, ", ", text, size);
		break;
	case OPTION_UINT:
	case OPTION_SIZE:
		number_range(option, text, size);
		break;
	}
}

static const char *placeholder(const struct option *o)
{
	switch (o->type) {
	case OPTION_STRING:
		return "TEXT";
	case OPTION_UINT:
		return "N";
	case OPTION_SIZE:
		return "SIZE";
	case OPTION_BOOL:
		return "BOOL";
	case OPTION_CHOICE:
		return "WORD";
	}
	return "";
}

/* Prints words from the column on, which the cursor has reached. */
static void print_wrapped(const char *text)
{
	size_t at = COLUMN;

	while (*text) {
		size_t len = strcspn(text, " ");

		if (at > COLUMN && at + 1 + len > WIDTH) {
			printf("\n%*s", COLUMN, "");
			at = COLUMN;
		}
		at += (size_t)printf("%s%.*s", at > COLUMN ? " " : "", (int)len,
				     text);
		text += len;
		text += strspn(text, " ");
	}
	printf("\n");
}

static void print_option(const struct option *o, const char *env)
{
	char range[256], facts[640];
	int n = printf("  --%s", o->name);

	if (!env) { /* a built-in one */
		printf("%*s", COLUMN - n, "");
		print_wrapped(o->help);
		return;
	}
	n += printf(" %s", placeholder(o));
	if (n >= COLUMN) {
		printf("\n");
		n = 0;
	}
	printf("%*s", COLUMN - n, "");
	print_wrapped(o->help);
	config_range(o, range, sizeof(range));
	snprintf(facts, sizeof(facts), "[default %s%s%s; %s]",
		 *o->def ? o->def : "empty", *range ? "; " : "", range, env);
	printf("%*s", COLUMN, "");
	print_wrapped(facts);
}

void config_print_help(const struct program *program)
{
	printf("%s: %s\n\nUsage: %s [--option VALUE | --option=VALUE]...\n\n",
	       program->name, program->summary, program->name);
	for (const struct option *o = program->options; o->name; o++) {
		char env[CONFIG_NAME_MAX];

		config_env_name(program, o, env);
		print_option(o, env);
	}
	printf("\n");
	for (const struct option *o = config_builtins; o->name; o++)
		print_option(o, NULL);
	printf("\nA flag beats the environment, that beats the file, that "
	       "beats the default.\n");
}

void config_print_markdown(const struct program *program)
{
	printf("| option | default | values | meaning |\n|---|---|---|---|\n");
	for (const struct option *o = program->options; o->name; o++) {
		char range[256];

		config_range(o, range, sizeof(range));
		printf("| `--%s` | %s%s%s | %s | %s |\n", o->name,
		       *o->def ? "`" : "", o->def, *o->def ? "`" : "", range,
		       o->help);
	}
}

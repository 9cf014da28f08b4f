#include "common/base/config.h"

#include "common/base/config_internal.h"
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/base/version.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct builtins {
	char *config;
	bool help, version, options_markdown;
};

const struct option config_builtins[] = {
	{.name = "config",
	 .type = OPTION_STRING,
	 .offset = offsetof(struct builtins, config),
	 .def = "",
	 .help = "YAML file that sets options by name, with _ for -."},
	{.name = "help",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct builtins, help),
	 .def = "false",
	 .help = "Print this and exit."},
	{.name = "version",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct builtins, version),
	 .def = "false",
	 .help = "Print the version and exit."},
	{.name = "options-markdown",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct builtins, options_markdown),
	 .def = "false",
	 .help = "Print the options as a Markdown table and exit."},
	{0},
};

int config_error(const struct program *program, const char *format, ...)
{
	char text[1024];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	fprintf(stderr, "%s: %s\n", program->name, text);
	return ERR_CONFIG;
}

/* --- names ------------------------------------------------------------- */

void config_env_name(const struct program *program, const struct option *option,
		     char name[CONFIG_NAME_MAX])
{
	int n = snprintf(name, CONFIG_NAME_MAX, "%s%s", program->env_prefix,
			 option->name);

	check(n > 0 && n < CONFIG_NAME_MAX);
	for (; *name; name++)
		*name = *name == '-' ? '_' : (char)toupper(*name);
}

void config_yaml_key(const struct option *option, char key[CONFIG_NAME_MAX])
{
	check(strlen(option->name) < CONFIG_NAME_MAX);
	strcpy(key, option->name);
	for (; *key; key++)
		if (*key == '-')
			*key = '_';
}

static const struct option *find(const struct option *options, const char *name,
				 size_t len)
{
	for (; options->name; options++)
		if (strlen(options->name) == len &&
		    memcmp(options->name, name, len) == 0)
			return options;
	return NULL;
}

/* --- values ------------------------------------------------------------ */

int config_number(const char *text, uint64_t *value, const char **end)
{
	char *stop;

	if (!isdigit((unsigned char)*text))
		return ERR_MALFORMED;
	errno = 0;
	*value = strtoull(text, &stop, 10);
	*end = stop;
	return errno ? ERR_TOO_LARGE : 0;
}

static int parse_size(const char *text, uint64_t *value)
{
	static const char *const suffixes[] = {"", "KiB", "MiB", "GiB", NULL};
	const char *end;
	int err = config_number(text, value, &end);
	int suffix;

	if (err < 0)
		return err;
	suffix = config_choice(suffixes, *end == ' ' ? end + 1 : end);
	if (suffix < 0)
		return ERR_MALFORMED;
	if (*value > UINT64_MAX >> (10 * suffix))
		return ERR_TOO_LARGE;
	*value <<= 10 * suffix;
	return 0;
}

int config_duration(const char *text, uint64_t *ms)
{
	static const char *const units[] = {"ms", "s", "m", "h", "d", NULL};
	static const uint64_t unit_ms[] = {1, 1000, 60000, 3600000, 86400000};
	const char *end = text;
	uint64_t value;
	int err = config_number(text, &value, &end);
	int unit = config_choice(units, end);

	if (err == ERR_MALFORMED || unit < 0)
		return ERR_MALFORMED;
	if (err < 0 || value > UINT64_MAX / unit_ms[unit])
		return ERR_TOO_LARGE;
	*ms = value * unit_ms[unit];
	return 0;
}

int config_duration_within(const char *text, uint64_t min_ms, uint64_t max_ms,
			   const char *range, uint64_t *ms,
			   char fault[CONFIG_FAULT])
{
	int err = config_duration(text, ms);

	if (err == 0 && *ms >= min_ms && *ms <= max_ms)
		return 0;
	if (err == ERR_MALFORMED && *text && !text[strspn(text, "0123456789")])
		snprintf(fault, CONFIG_FAULT,
			 "\"%.200s\" has no unit (ms, s, m, h or d)", text);
	else if (err == ERR_MALFORMED)
		snprintf(fault, CONFIG_FAULT,
			 "\"%.200s\" is not a duration (digits with ms, s, m, "
			 "h or d)",
			 text);
	else
		snprintf(fault, CONFIG_FAULT, "%.200s is out of range (%s)",
			 text, range);
	return ERR_CONFIG;
}

static int parse_uint(const char *text, uint64_t *value)
{
	const char *end;
	int err = config_number(text, value, &end);

	return err < 0 ? err : *end ? ERR_MALFORMED : 0;
}

static int set_number(const struct program *program,
		      const struct option *option, const char *source,
		      const char *text, uint64_t *out)
{
	bool size = option->type == OPTION_SIZE;
	uint64_t max = option->max ? option->max : UINT64_MAX;
	uint64_t value = 0;
	char range[256];
	int err = size ? parse_size(text, &value) : parse_uint(text, &value);

	if (err == ERR_MALFORMED)
		return config_error(program, "%s: \"%s\" is not a %s", source,
				    text,
				    size ? "size (digits, with KiB, MiB or GiB)"
					 : "number");
	if (err < 0 || value < option->min || value > max) {
		config_range(option, range, sizeof(range));
		return config_error(program, "%s: %s is out of range (%s)",
				    source, text, range);
	}
	*out = value;
	return 0;
}

static int set_choice(const struct program *program,
		      const struct option *option, const char *source,
		      const char *text, unsigned *out)
{
	int index = config_choice(option->choices, text);
	char choices[256];

	if (index < 0) {
		config_choices(option->choices, ", ", choices, sizeof(choices));
		return config_error(program, "%s: \"%s\" is not one of %s",
				    source, text, choices);
	}
	*out = (unsigned)index;
	return 0;
}

/* The one parser of values. `source` is where the text comes from. */
static int set_value(const struct program *program, const struct option *option,
		     const char *source, const char *text, void *out)
{
	void *field = (char *)out + option->offset;
	char **string = field;

	switch (option->type) {
	case OPTION_STRING:
		free(*string);
		*string = xstrdup(text);
		return 0;
	case OPTION_UINT:
	case OPTION_SIZE:
		return set_number(program, option, source, text, field);
	case OPTION_CHOICE:
		return set_choice(program, option, source, text, field);
	case OPTION_BOOL:
		if (strcmp(text, "true") != 0 && strcmp(text, "false") != 0)
			return config_error(program,
					    "%s: \"%s\" is not true or false",
					    source, text);
		*(bool *)field = text[0] == 't';
		return 0;
	}
	return ERR_CONFIG;
}

/* --- flags ------------------------------------------------------------- */

struct flag {
	const struct option *option;
	const char *value;
};

/* Reads the flag at argv[*at] and moves on; a bool may stand without value. */
static int next_flag(const struct program *program, int argc,
		     char *const argv[], int *at, struct flag *flag)
{
	const char *arg = argv[(*at)++], *name = arg + 2;
	size_t len;

	if (strncmp(arg, "--", 2) != 0 || name[0] == '\0')
		return config_error(program, "%s: unexpected argument", arg);
	len = strcspn(name, "=");
	flag->option = find(program->options, name, len);
	if (!flag->option)
		flag->option = find(config_builtins, name, len);
	if (!flag->option)
		return config_error(program, "%.*s: unknown option, see --help",
				    (int)len + 2, arg);
	if (name[len] == '=')
		flag->value = name + len + 1;
	else if (*at < argc && strncmp(argv[*at], "--", 2) != 0)
		flag->value = argv[(*at)++];
	else if (flag->option->type == OPTION_BOOL)
		flag->value = "true";
	else
		return config_error(program, "%s: needs a value", arg);
	return 0;
}

/* Sets those of `options` in `out` that are among the flags. */
static int apply_flags(const struct program *program,
		       const struct option *options, void *out, int argc,
		       char *const argv[])
{
	int at = 1;

	while (at < argc) {
		char source[CONFIG_NAME_MAX + 2];
		struct flag flag = {NULL, NULL};

		if (next_flag(program, argc, argv, &at, &flag) < 0)
			return ERR_CONFIG;
		check(flag.option != NULL);
		if (find(options, flag.option->name,
			 strlen(flag.option->name)) != flag.option)
			continue;
		snprintf(source, sizeof(source), "--%s", flag.option->name);
		if (set_value(program, flag.option, source, flag.value, out) <
		    0)
			return ERR_CONFIG;
	}
	return 0;
}

/* Value of the last such flag, NULL if there is none. */
static const char *find_flag(const struct program *program, const char *name,
			     int argc, char *const argv[])
{
	const char *value = NULL;
	struct flag flag = {NULL, NULL};
	int at = 1;

	while (at < argc && next_flag(program, argc, argv, &at, &flag) == 0) {
		check(flag.option != NULL);
		if (strcmp(flag.option->name, name) == 0)
			value = flag.value;
	}
	return value;
}

/* --- the other sources ------------------------------------------------- */

static void apply_defaults(const struct program *program,
			   const struct option *options, void *out)
{
	for (const struct option *o = options; o->name; o++) {
		int err = set_value(program, o, o->name, o->def, out);

		check(err == 0); /* the table's own default must be legal */
	}
}

/* Other variables with the prefix are let be: Kubernetes sets some for each
 * Service whose name begins like the program's. */
static int apply_env(const struct program *program, void *out)
{
	for (const struct option *o = program->options; o->name; o++) {
		char name[CONFIG_NAME_MAX];
		const char *text;

		config_env_name(program, o, name);
		text = getenv(name);
		if (text && set_value(program, o, name, text, out) < 0)
			return ERR_CONFIG;
	}
	return 0;
}

static int apply_file(const struct program *program, const char *path,
		      const struct config_file *file, void *out)
{
	for (size_t i = 0; program->options[i].name; i++) {
		char key[CONFIG_NAME_MAX], source[512];

		if (!file->values[i])
			continue;
		config_yaml_key(&program->options[i], key);
		snprintf(source, sizeof(source), "%s: %s", path, key);
		if (set_value(program, &program->options[i], source,
			      file->values[i], out) < 0)
			return ERR_CONFIG;
	}
	return 0;
}

/* --- public ------------------------------------------------------------ */

const char *config_path(const struct program *program, int argc,
			char *const argv[])
{
	const char *path = find_flag(program, "config", argc, argv);
	char name[CONFIG_NAME_MAX];

	config_env_name(program, &config_builtins[0], name);
	if (!path)
		path = getenv(name);
	return path && *path ? path : NULL;
}

bool config_given(const struct program *program, const char *name, int argc,
		  char *const argv[])
{
	const struct option *o = find(program->options, name, strlen(name));
	const char *path = config_path(program, argc, argv);
	char env[CONFIG_NAME_MAX];
	struct config_file *file;
	bool given;

	check(o != NULL);
	config_env_name(program, o, env);
	if (find_flag(program, name, argc, argv) || getenv(env))
		return true;
	if (!path ||
	    config_file_read(program, path, CONFIG_SECTIONS, &file) < 0)
		return false;
	given = file->values[o - program->options] != NULL;
	config_file_free(program, file);
	return given;
}

/* File, then environment, then flags, each over what was before. */
static int load(const struct program *program, void *out, struct rules *rules,
		struct auth_config *auth, int argc, char *const argv[])
{
	unsigned sections =
		(rules ? CONFIG_RULES : 0u) | (auth ? CONFIG_AUTH : 0u);
	const char *path = config_path(program, argc, argv);
	struct config_file *file = NULL;
	int err = 0;

	apply_defaults(program, program->options, out);
	if (path)
		err = config_file_read(program, path, sections, &file);
	if (err == 0 && file)
		err = apply_file(program, path, file, out);
	if (err == 0)
		err = apply_env(program, out);
	if (err == 0)
		err = apply_flags(program, program->options, out, argc, argv);
	if (err == 0 && auth)
		err = auth_build(program, path, file ? file->auth : NULL, auth);
	if (err == 0 && rules) {
		err = rules_build(program, path, file ? file->rows : NULL,
				  file ? file->row_count : 0, rules);
		if (err < 0 && auth)
			auth_config_free(auth);
	}
	if (file)
		config_file_free(program, file);
	return err;
}

int config_load(const struct program *program, void *out, struct rules *rules,
		struct auth_config *auth, int argc, char *const argv[])
{
	struct builtins builtins = {0};
	int err;

	apply_defaults(program, config_builtins, &builtins);
	err = apply_flags(program, config_builtins, &builtins, argc, argv);
	free(builtins.config); /* config_path() finds it */
	if (err < 0)
		return err;
	if (builtins.help)
		config_print_help(program);
	else if (builtins.version)
		printf("%s %s\n", program->name, stentor_version);
	else if (builtins.options_markdown)
		config_print_markdown(program);
	if (builtins.help || builtins.version || builtins.options_markdown)
		return 1;
	err = load(program, out, rules, auth, argc, argv);
	if (err < 0)
		config_free(program, out);
	return err;
}

static bool ends_with(const char *text, const char *end)
{
	size_t len = strlen(text), end_len = strlen(end);

	return len >= end_len && strcmp(text + len - end_len, end) == 0;
}

/* A URL may hold a password: what stands before its '@' is not told. */
static void print_text(const struct option *o, const char *text, FILE *to)
{
	const char *url = strstr(text, "://");
	const char *at = url != NULL ? strrchr(url, '@') : NULL;

	if ((ends_with(o->name, "token") || ends_with(o->name, "password")) &&
	    *text != '\0')
		fputs("(not told)\n", to);
	else if (at != NULL)
		fprintf(to, "\"%.*s(not told)%s\"\n", (int)(url + 3 - text),
			text, at);
	else
		fprintf(to, "\"%s\"\n", text);
}

void config_print(const struct program *program, const void *values, FILE *to)
{
	for (const struct option *o = program->options; o->name; o++) {
		const char *at = (const char *)values + o->offset;
		char key[CONFIG_NAME_MAX];

		config_yaml_key(o, key);
		fprintf(to, "%s: ", key);
		switch (o->type) {
		case OPTION_STRING:
			print_text(o, *(char *const *)at, to);
			break;
		case OPTION_UINT:
		case OPTION_SIZE:
			fprintf(to, "%" PRIu64 "\n", *(const uint64_t *)at);
			break;
		case OPTION_BOOL:
			fputs(*(const bool *)at ? "true\n" : "false\n", to);
			break;
		case OPTION_CHOICE:
			fprintf(to, "%s\n", o->choices[*(const unsigned *)at]);
			break;
		}
	}
}

void config_free(const struct program *program, void *out)
{
	for (const struct option *o = program->options; o->name; o++) {
		char **string = (void *)((char *)out + o->offset);

		if (o->type != OPTION_STRING)
			continue;
		free(*string);
		*string = NULL;
	}
}

uint64_t config_raise_nofile(void)
{
	struct rlimit limit;
	int failed = getrlimit(RLIMIT_NOFILE, &limit);

	check(!failed);
	if (limit.rlim_cur < limit.rlim_max) {
		rlim_t before = limit.rlim_cur;

		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
			limit.rlim_cur = before;
	}
	return limit.rlim_cur;
}

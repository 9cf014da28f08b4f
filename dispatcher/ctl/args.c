#include "dispatcher/ctl/args.h"

#include "common/base/err.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_LEN 32

const struct ctl_option ctl_globals[CTL_GLOBALS + 1] = {
	[CTL_DISPATCHER] = {"dispatcher", "URL",
			    "API of a dispatcher (default $STENTOR_DISPATCHER "
			    "or http://127.0.0.1:7070)"},
	[CTL_TOKEN_FILE] = {"token-file", "FILE",
			    "file with our token (default $STENTOR_TOKEN, the "
			    "token itself)"},
	[CTL_CA_FILE] = {"ca-file", "FILE",
			 "authority of https servers, PEM (default the "
			 "system's)"},
	[CTL_CERT_FILE] = {"cert-file", "FILE",
			   "our certificate, PEM, where a server asks for one"},
	[CTL_KEY_FILE] = {"key-file", "FILE", "its key, PEM"},
	[CTL_TIMEOUT] = {"timeout", "SECONDS",
			 "how long an answer may take (default 5)"},
	[CTL_JSON] = {"json", NULL, "print JSON for programs"},
	[CTL_HELP] = {"help", NULL, "print this help"},
	[CTL_VERSION] = {"version", NULL, "print the version"},
	[CTL_GLOBALS] = {NULL, NULL, NULL},
};

const struct ctl_command *ctl_command_find(const struct ctl_command *commands,
					   const char *name)
{
	for (; commands->name; commands++) {
		if (strcmp(commands->name, name) == 0)
			return commands;
	}
	return NULL;
}

/* How many letters must be put in, left out or exchanged (Levenshtein). */
static unsigned distance(const char *a, const char *b)
{
	unsigned row[NAME_MAX_LEN + 1];
	size_t width = strlen(b);

	check(width <= NAME_MAX_LEN);
	for (unsigned i = 0; i <= width; i++)
		row[i] = i;
	for (unsigned i = 1; *a; i++, a++) {
		unsigned corner = row[0];

		row[0] = i;
		for (size_t j = 1; j <= width; j++) {
			unsigned swap = corner + (*a != b[j - 1]);
			unsigned other = min_of(row[j], row[j - 1]) + 1;

			corner = row[j];
			row[j] = min_of(swap, other);
		}
	}
	return row[width];
}

const struct ctl_command *ctl_command_guess(const struct ctl_command *commands,
					    const char *name)
{
	const struct ctl_command *best = NULL;
	unsigned least = 3; /* farther is no slip of the finger */

	for (; commands->name; commands++) {
		unsigned far = distance(name, commands->name);

		if (far < least && far < strlen(commands->name)) {
			least = far;
			best = commands;
		}
	}
	return best;
}

static const struct ctl_option *option_find(const struct ctl_option *options,
					    const char *name, size_t len)
{
	for (; options && options->name; options++) {
		if (strlen(options->name) == len &&
		    strncmp(options->name, name, len) == 0)
			return options;
	}
	return NULL;
}

/* True if the option `--name` has a value, which follows as a word of its own.
 */
static bool has_value(const struct ctl_command *commands, const char *name)
{
	const struct ctl_option *option =
		option_find(ctl_globals, name, strlen(name));

	for (; !option && commands->name; commands++)
		option = option_find(commands->options, name, strlen(name));
	return option && option->metavar;
}

/* Place of the command's name: the first word that belongs to no option. */
static int find_command(const struct ctl_command *commands, int argc,
			char *const argv[])
{
	for (int i = 1; i < argc; i++) {
		if (argv[i][0] != '-')
			return i;
		if (strncmp(argv[i], "--", 2) == 0 &&
		    has_value(commands, argv[i] + 2))
			i++;
	}
	return argc;
}

/* Reads the option at argv[*at] and moves *at to its value if that stands
 * alone. */
static int take_option(struct ctl_args *args, int argc, char *const argv[],
		       int *at, char *problem, size_t size)
{
	const struct ctl_option *own =
		args->command ? args->command->options : NULL;
	const char *name = argv[*at] + 2;
	size_t len = strcspn(name, "=");
	const struct ctl_option *option = option_find(ctl_globals, name, len);
	const char **value =
		option ? &args->global[option - ctl_globals] : NULL;

	if (!option) {
		option = option_find(own, name, len);
		value = option ? &args->option[option - own] : NULL;
	}
	if (!option && len == 5 && strncmp(name, "token", 5) == 0) {
		snprintf(problem, size,
			 "--token would show in ps: use --token-file FILE or "
			 "$STENTOR_TOKEN");
		return ERR_MALFORMED;
	}
	if (!option) {
		snprintf(problem, size, "unknown option --%.*s%s%s",
			 (int)min_of(len, (size_t)64), name,
			 args->command ? " for " : "",
			 args->command ? args->command->name : "");
		return ERR_MALFORMED;
	}
	if (!option->metavar && name[len] != '\0') {
		snprintf(problem, size, "--%s takes no value", option->name);
		return ERR_MALFORMED;
	}
	if (!option->metavar) {
		*value = "";
	} else if (name[len] == '=') {
		*value = name + len + 1;
	} else if (*at + 1 < argc) {
		*value = argv[++*at];
	} else {
		snprintf(problem, size, "--%s needs a value: --%s %s",
			 option->name, option->name, option->metavar);
		return ERR_MALFORMED;
	}
	return 0;
}

static int take_word(struct ctl_args *args, const char *word, char *problem,
		     size_t size)
{
	if (!args->command) {
		const struct ctl_command *guess =
			ctl_command_guess(args->commands, word);

		snprintf(problem, size, "unknown command '%.64s'%s%s%s", word,
			 guess ? "; did you mean '" : "",
			 guess ? guess->name : "", guess ? "'?" : "");
		return ERR_MALFORMED;
	}
	if (args->count >=
	    min_of(args->command->most, (size_t)CTL_ARGUMENTS_MAX)) {
		snprintf(problem, size, "too many arguments for %s: '%.64s'",
			 args->command->name, word);
		return ERR_MALFORMED;
	}
	args->argument[args->count++] = word;
	return 0;
}

int ctl_args_parse(struct ctl_args *args, const struct ctl_command *commands,
		   int argc, char *const argv[], char *problem,
		   size_t problem_size)
{
	bool words_only = false;
	int command = find_command(commands, argc, argv);
	int err = 0;

	memset(args, 0, sizeof(*args));
	args->commands = commands;
	if (command < argc)
		args->command = ctl_command_find(commands, argv[command]);
	for (int i = 1; i < argc && !err; i++) {
		if (args->command && i == command)
			continue;
		if (words_only)
			err = take_word(args, argv[i], problem, problem_size);
		else if (strcmp(argv[i], "--") == 0)
			words_only = true;
		else if (strcmp(argv[i], "-h") == 0)
			args->global[CTL_HELP] = "";
		else if (strncmp(argv[i], "--", 2) == 0)
			err = take_option(args, argc, argv, &i, problem,
					  problem_size);
		else if (argv[i][0] == '-' && argv[i][1] != '\0' &&
			 args->count == 0) {
			snprintf(problem, problem_size, "unknown option %.64s",
				 argv[i]);
			err = ERR_MALFORMED;
		} else
			err = take_word(args, argv[i], problem, problem_size);
	}
	if (err || !args->command || args->global[CTL_HELP])
		return err;
	if (args->count < args->command->least) {
		snprintf(problem, problem_size, "%s needs %s",
			 args->command->name, args->command->arguments);
		return ERR_MALFORMED;
	}
	return 0;
}

/* The digits at *text, which moves behind them. */
static bool take_number(const char **text, uint64_t *number)
{
	char *end;

	if (**text < '0' || **text > '9')
		return false;
	errno = 0;
	*number = strtoull(*text, &end, 10);
	*text = end;
	return errno == 0;
}

bool ctl_number(const char *text, unsigned long min, unsigned long max,
		unsigned long *number)
{
	uint64_t value;

	if (!take_number(&text, &value) || *text)
		return false;
	*number = value;
	return value >= min && value <= max;
}

bool ctl_position(const char *text, uint64_t *epoch, uint64_t *offset)
{
	if (!take_number(&text, epoch) || *text != ':')
		return false;
	text++;
	return take_number(&text, offset) && *text == '\0';
}

/* args.h - stentorctl's command line (pure).
 *
 * A command is a table row: its options, how many arguments it takes, what its
 * help says and what it does. Options that all commands share stand in
 * ctl_globals. Options may come before and after the command's name.
 * Everything in struct ctl_args is borrowed from argv and the tables.
 */
#ifndef STENTOR_CTL_ARGS_H
#define STENTOR_CTL_ARGS_H

#include "common/base/check.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CTL_OPTIONS_MAX	  8
#define CTL_ARGUMENTS_MAX 64

enum ctl_global {
	CTL_DISPATCHER,
	CTL_TOKEN_FILE,
	CTL_CA_FILE,
	CTL_CERT_FILE,
	CTL_KEY_FILE,
	CTL_TIMEOUT,
	CTL_JSON,
	CTL_HELP,
	CTL_VERSION
};
#define CTL_GLOBALS 9

struct ctl_option {
	const char *name;    /* "event" for --event; NULL ends a table */
	const char *metavar; /* of its value; NULL: a switch */
	const char *help;
};

extern const struct ctl_option ctl_globals[CTL_GLOBALS + 1];

struct ctl_args;

struct ctl_command {
	const char *name;
	const char *arguments; /* "CHANNEL [DATA]" */
	const char *summary;   /* one line */
	const char *details; /* what else a reader of its help wants, or NULL */
	const char *examples;		  /* lines of the same, or NULL */
	const struct ctl_option *options; /* ends with a NULL name, or NULL */
	size_t least, most;		  /* number of arguments */
	int (*run)(const struct ctl_args *args); /* returns the exit code */
};

struct ctl_args {
	const struct ctl_command *commands; /* all, for help */
	const struct ctl_command *command;  /* NULL: none was given */
	const char *global[CTL_GLOBALS];    /* a value, "" for a switch, NULL */
	const char *option[CTL_OPTIONS_MAX]; /* by place in command->options */
	const char *argument[CTL_ARGUMENTS_MAX];
	size_t count;
};

/* Reads argv. An option that several commands have takes a value in all of them
 * or in none. `commands` ends with a NULL name. 0, or ERR_MALFORMED with a
 * message for people in `problem`; args->command is set then too if it was
 * understood. */
int ctl_args_parse(struct ctl_args *args, const struct ctl_command *commands,
		   int argc, char *const argv[], char *problem,
		   size_t problem_size) MUST_CHECK;

/* NULL where there is none of that name. */
const struct ctl_command *ctl_command_find(const struct ctl_command *commands,
					   const char *name);

/* The command that `name` is probably meant to be, or NULL. */
const struct ctl_command *ctl_command_guess(const struct ctl_command *commands,
					    const char *name);

/* A whole decimal number in [min, max]; false for anything else. */
bool ctl_number(const char *text, unsigned long min, unsigned long max,
		unsigned long *number);

/* EPOCH:OFFSET, a message's place in its channel; false for anything else. */
bool ctl_position(const char *text, uint64_t *epoch, uint64_t *offset);

#endif

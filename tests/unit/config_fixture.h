/* config_fixture.h - a program of a few options, and what loading its
 * configuration says. */
#ifndef STENTOR_TESTS_CONFIG_FIXTURE_H
#define STENTOR_TESTS_CONFIG_FIXTURE_H

#include "common/base/config.h"

#include "common/base/err.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct settings {
	char *listen;
	char *name;
	uint64_t workers;
	uint64_t buffer;
	uint64_t settle_ms;
	bool drain;
	unsigned auth;
};

static const char *const auth_choices[] = {"jwt", "none", NULL};

static const struct option options[] = {
	{.name = "api-listen",
	 .type = OPTION_STRING,
	 .offset = offsetof(struct settings, listen),
	 .def = "0.0.0.0:7070",
	 .help = "Where producers connect, with a text that is long enough "
		 "for a second line."},
	{.name = "name",
	 .type = OPTION_STRING,
	 .offset = offsetof(struct settings, name),
	 .def = "",
	 .help = "Name."},
	{.name = "workers",
	 .type = OPTION_UINT,
	 .offset = offsetof(struct settings, workers),
	 .def = "4",
	 .min = 1,
	 .max = 256,
	 .help = "Workers."},
	{.name = "link-buffer",
	 .type = OPTION_SIZE,
	 .offset = offsetof(struct settings, buffer),
	 .def = "256KiB",
	 .min = 1024,
	 .max = 1u << 30,
	 .unit = "bytes",
	 .help = "Buffer."},
	{.name = "settle-ms",
	 .type = OPTION_UINT,
	 .offset = offsetof(struct settings, settle_ms),
	 .def = "0",
	 .max = 60000,
	 .unit = "ms",
	 .help = "Settle."},
	{.name = "drain",
	 .type = OPTION_BOOL,
	 .offset = offsetof(struct settings, drain),
	 .def = "false",
	 .help = "Drain."},
	{.name = "auth",
	 .type = OPTION_CHOICE,
	 .offset = offsetof(struct settings, auth),
	 .def = "jwt",
	 .choices = auth_choices,
	 .help = "Who may."},
	{0},
};

static const struct program program = {
	.name = "stentor-test",
	.summary = "For tests.",
	.options = options,
	.env_prefix = "STENTOR_",
};

/* --- fixture: stdout and stderr of each load, one YAML file ------------ */

struct fixture {
	struct settings s;
	struct rules rules;
	struct auth_config auth;
	bool takes_rules; /* and auth */
	char path[64];
	char out[8192];
	char err[2048];
};

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	int fd;

	strcpy(f->path, "/tmp/stentor-test-XXXXXX");
	fd = mkstemp(f->path);
	assert_true(fd >= 0);
	close(fd);
	f->takes_rules = true;
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	config_free(&program, &f->s);
	rules_free(&f->rules);
	auth_config_free(&f->auth);
	unlink(f->path);
	unsetenv("STENTOR_WORKERS");
	unsetenv("STENTOR_CONFIG");
	unsetenv("STENTOR_API_LISTEN");
	unsetenv("STENTOR_API_PORT");
	free(f);
	return 0;
}

static void write_bytes(struct fixture *f, const char *bytes, size_t len)
{
	FILE *file = fopen(f->path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, len, file), len);
	fclose(file);
}

static void write_file(struct fixture *f, const char *text)
{
	write_bytes(f, text, strlen(text));
}

/* Runs what is between two redirections of descriptor `fd`. */
static FILE *redirect(int fd, int *saved)
{
	FILE *file = tmpfile();

	assert_non_null(file);
	fflush(stdout);
	*saved = dup(fd);
	dup2(fileno(file), fd);
	return file;
}

static void restore(FILE *file, int fd, int saved, char *text, size_t size)
{
	fflush(stdout);
	dup2(saved, fd);
	close(saved);
	rewind(file);
	text[fread(text, 1, size - 1, file)] = '\0';
	fclose(file);
}

#define ARGS_MAX 8

/* config_load() with these arguments, NULL-terminated. "FILE" stands for the
 * fixture's file. */
static int load(struct fixture *f, ...)
{
	char *argv[ARGS_MAX] = {"test"};
	int argc = 1, rc, saved_out, saved_err;
	FILE *out, *err;
	va_list args;

	va_start(args, f);
	for (char *arg; (arg = va_arg(args, char *)); argc++)
		argv[argc] = strcmp(arg, "FILE") == 0 ? f->path : arg;
	va_end(args);
	config_free(&program, &f->s);
	rules_free(&f->rules);
	auth_config_free(&f->auth);
	out = redirect(STDOUT_FILENO, &saved_out);
	err = redirect(STDERR_FILENO, &saved_err);
	rc = config_load(&program, &f->s, f->takes_rules ? &f->rules : NULL,
			 f->takes_rules ? &f->auth : NULL, argc, argv);
	restore(err, STDERR_FILENO, saved_err, f->err, sizeof(f->err));
	restore(out, STDOUT_FILENO, saved_out, f->out, sizeof(f->out));
	return rc;
}

/* The load fails with this message, behind the program's and file's names. */
static void assert_refused(struct fixture *f, int rc, const char *message)
{
	char expected[2048];

	assert_int_equal(rc, ERR_CONFIG);
	snprintf(expected, sizeof(expected), "stentor-test: %s\n", message);
	assert_string_equal(f->err, expected);
}

static void assert_file_refused(struct fixture *f, const char *yaml,
				const char *message)
{
	char expected[1024];
	int rc;

	write_file(f, yaml);
	rc = load(f, "--config", "FILE", NULL);
	snprintf(expected, sizeof(expected), "%s: %s", f->path, message);
	assert_refused(f, rc, expected);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif

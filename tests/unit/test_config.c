#include "common/base/config.h"

#include "common/base/err.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
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

/* --- options ----------------------------------------------------------- */

static void test_config_defaults(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, NULL), 0);
	assert_string_equal(f->s.listen, "0.0.0.0:7070");
	assert_string_equal(f->s.name, "");
	assert_int_equal(f->s.workers, 4);
	assert_int_equal(f->s.buffer, 256 * 1024);
	assert_false(f->s.drain);
	assert_int_equal(f->s.auth, 0);
	assert_int_equal(f->rules.count, 1);
	assert_string_equal(f->err, "");
}

static void test_config_flags_in_both_forms(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, "--workers", "7", "--auth=none", "--name=a=b",
			      "--drain", "--link-buffer=2MiB", NULL),
			 0);
	assert_int_equal(f->s.workers, 7);
	assert_int_equal(f->s.auth, 1);
	assert_string_equal(f->s.name, "a=b");
	assert_true(f->s.drain);
	assert_int_equal(f->s.buffer, 2 << 20);
	assert_int_equal(load(f, "--drain", "false", "--name", "-x", NULL), 0);
	assert_false(f->s.drain);
	assert_string_equal(f->s.name, "-x");
	assert_int_equal(load(f, "--workers=1", "--workers=2", NULL), 0);
	assert_int_equal(f->s.workers, 2);
}

static void test_config_flag_beats_environment_beats_file(void **state)
{
	struct fixture *f = *state;

	write_file(f, "workers: 2\napi_listen: file:1\nname: file\n");
	setenv("STENTOR_WORKERS", "3", 1);
	setenv("STENTOR_API_LISTEN", "env:1", 1);
	setenv("STENTOR_API_PORT", "tcp://10.0.0.1:80", 1); /* Kubernetes' */
	assert_int_equal(load(f, "--workers=9", "--config=FILE-", NULL),
			 ERR_CONFIG);
	setenv("STENTOR_CONFIG", f->path, 1);
	assert_int_equal(load(f, "--workers=9", NULL), 0);
	assert_int_equal(f->s.workers, 9);
	assert_string_equal(f->s.listen, "env:1");
	assert_string_equal(f->s.name, "file");
	assert_int_equal(load(f, NULL), 0);
	assert_int_equal(f->s.workers, 3);
}

static void test_config_given_tells_set_from_default(void **state)
{
	struct fixture *f = *state;
	char *argv[] = {"test", "--config", f->path, "--name", "x"};

	write_file(f, "auth: none\n");
	setenv("STENTOR_WORKERS", "4", 1);
	assert_true(config_given(&program, "name", 5, argv));
	assert_true(config_given(&program, "auth", 5, argv));
	assert_true(config_given(&program, "workers", 5, argv));
	assert_false(config_given(&program, "drain", 5, argv));
	assert_false(config_given(&program, "auth", 1, argv));
}

static void test_config_refuses_bad_flags(void **state)
{
	struct fixture *f = *state;

	assert_refused(f, load(f, "--workers", "0", NULL),
		       "--workers: 0 is out of range (1 to 256)");
	assert_refused(f, load(f, "--workers=257", NULL),
		       "--workers: 257 is out of range (1 to 256)");
	assert_refused(f, load(f, "--workers=99999999999999999999", NULL),
		       "--workers: 99999999999999999999 is out of range "
		       "(1 to 256)");
	assert_refused(f, load(f, "--workers=", NULL),
		       "--workers: \"\" is not a number");
	assert_refused(f, load(f, "--workers=-1", NULL),
		       "--workers: \"-1\" is not a number");
	assert_refused(f, load(f, "--workers=4x", NULL),
		       "--workers: \"4x\" is not a number");
	assert_refused(f, load(f, "--workers", NULL),
		       "--workers: needs a value");
	assert_refused(f, load(f, "--workers", "--drain", NULL),
		       "--workers: needs a value");
	assert_refused(f, load(f, "--wrokers=3", NULL),
		       "--wrokers: unknown option, see --help");
	assert_refused(f, load(f, "hello", NULL), "hello: unexpected argument");
	assert_refused(f, load(f, "-w", NULL), "-w: unexpected argument");
	assert_refused(f, load(f, "--", NULL), "--: unexpected argument");
	assert_refused(f, load(f, "--auth=some", NULL),
		       "--auth: \"some\" is not one of jwt, none");
	assert_refused(f, load(f, "--drain=yes", NULL),
		       "--drain: \"yes\" is not true or false");
	assert_refused(f, load(f, "--link-buffer=1kb", NULL),
		       "--link-buffer: \"1kb\" is not a size (digits, with "
		       "KiB, MiB or GiB)");
	assert_refused(f, load(f, "--link-buffer=2GiB", NULL),
		       "--link-buffer: 2GiB is out of range (1 KiB to 1 GiB)");
	assert_refused(f, load(f, "--link-buffer=99999999999999GiB", NULL),
		       "--link-buffer: 99999999999999GiB is out of range "
		       "(1 KiB to 1 GiB)");
	assert_refused(f, load(f, "--settle-ms=60001", NULL),
		       "--settle-ms: 60001 is out of range (0 to 60000 ms)");
	assert_null(f->s.listen);
}

static void test_config_refuses_bad_environment(void **state)
{
	struct fixture *f = *state;

	setenv("STENTOR_WORKERS", "many", 1);
	/* Also where a flag would win. */
	assert_refused(f, load(f, "--workers=3", NULL),
		       "STENTOR_WORKERS: \"many\" is not a number");
}

static void test_config_help_tells_all(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(load(f, "--workers=3", "--help", NULL), 1);
	assert_non_null(strstr(f->out, "stentor-test: For tests."));
	assert_non_null(strstr(f->out, "\n  --workers N              Workers.\n"
				       "                           [default 4; "
				       "1 to 256; STENTOR_WORKERS]\n"));
	assert_non_null(strstr(f->out, "1 KiB to 1 GiB"));
	assert_non_null(strstr(f->out, "jwt, none"));
	assert_non_null(strstr(f->out, "--options-markdown"));
	for (char *line = strtok(f->out, "\n"); line; line = strtok(NULL, "\n"))
		assert_true(strlen(line) <= 80);
	assert_int_equal(load(f, "--version", NULL), 1);
	assert_int_equal(strncmp(f->out, "stentor-test ", 13), 0);
	assert_int_equal(load(f, "--options-markdown", NULL), 1);
	assert_non_null(strstr(
		f->out, "\n| `--workers` | `4` | 1 to 256 | Workers. |\n"));
	assert_refused(f, load(f, "--help", "--nonsense", NULL),
		       "--nonsense: unknown option, see --help");
}

static void test_config_raises_open_files(void **state)
{
	struct rlimit limit;

	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = min_of(limit.rlim_max, 64);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(config_raise_nofile(), limit.rlim_max);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	assert_int_equal(limit.rlim_cur, limit.rlim_max);
}

/* --- the file ---------------------------------------------------------- */

static void test_config_file_may_be_empty(void **state)
{
	static const char *const texts[] = {"", "# nothing\n", "{}",
					    "rules: []\n"};
	struct fixture *f = *state;

	for (size_t i = 0; i < array_len(texts); i++) {
		write_file(f, texts[i]);
		assert_int_equal(load(f, "--config", "FILE", NULL), 0);
		assert_int_equal(f->s.workers, 4);
		assert_int_equal(f->rules.count, 1);
	}
}

static void test_config_file_refuses_what_it_does_not_know(void **state)
{
	struct fixture *f = *state;

	assert_file_refused(f, "wrokers: 3\n", "wrokers: unknown key");
	assert_file_refused(f, "api-listen: x\n", "api-listen: unknown key");
	assert_file_refused(f, "config: x\n", "config: unknown key");
	assert_file_refused(f, "workers: 0\n",
			    "workers: 0 is out of range (1 to 256)");
	assert_file_refused(f, "workers:\n", "workers: \"\" is not a number");
	assert_file_refused(f, "name: x\nworkers: [1, 2]\n",
			    "workers: Expecting STRING, got event: "
			    "SEQUENCE_START (line 2)");
	assert_file_refused(f, "workers: 1\nworkers: 2\n",
			    "workers: set twice");
	assert_file_refused(f, "hello\n",
			    "Expecting MAPPING, got event: SCALAR");
	assert_file_refused(f, "workers: 1\n---\nworkers: 2\n",
			    "Ignoring documents after first in stream");
	assert_file_refused(f, "name: &a x\napi_listen: *a\n",
			    "api_listen: YAML alias unsupported (line 2)");
}

static void test_config_file_refuses_garbage(void **state)
{
	struct fixture *f = *state;
	char *large = calloc(1, (1 << 20) + 2);

	write_bytes(f, "\xff\xfe\x00\x01\x02", 5);
	assert_int_equal(load(f, "--config", "FILE", NULL), ERR_CONFIG);
	write_file(f, "name: \"open\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), ERR_CONFIG);
	write_file(f, "? [a]\n: b\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), ERR_CONFIG);
	memset(large, '#', (1 << 20) + 1);
	assert_file_refused(f, large, "larger than 1048576 bytes");
	assert_refused(f, load(f, "--config", "/nowhere/x.yaml", NULL),
		       "/nowhere/x.yaml: No such file or directory");
	assert_refused(f, load(f, "--config", "/tmp", NULL),
		       "/tmp: Is a directory");
	free(large);
}

/* --- rules ------------------------------------------------------------- */

static void test_config_rules_first_match_decides(void **state)
{
	struct fixture *f = *state;
	const struct rule *rule;

	write_file(f, "rules:\n"
		      "- match: score:final\n"
		      "  priority: critical\n"
		      "  lagging: close\n"
		      "- match: score:*\n"
		      "- {match: 'emoji:*', priority: droppable}\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->rules.count, 4);
	rule = rules_match(&f->rules, "score:final");
	assert_int_equal(rule->priority, PRIORITY_CRITICAL);
	assert_int_equal(rule->lagging, LAGGING_CLOSE);
	rule = rules_match(&f->rules, "score:final2");
	assert_ptr_equal(rule, &f->rules.rule[1]);
	assert_int_equal(rule->priority, PRIORITY_NORMAL);
	assert_int_equal(rule->lagging, LAGGING_DROP_OLDEST);
	assert_ptr_equal(rules_match(&f->rules, "score:"), &f->rules.rule[1]);
	assert_int_equal(rules_match(&f->rules, "emoji:1")->priority,
			 PRIORITY_DROPPABLE);
	rule = rules_match(&f->rules, "score");
	assert_string_equal(rule->pattern, "*");
}

static void test_config_rules_hash_tells_differences(void **state)
{
	static const char *const texts[] = {
		"",
		"rules: [{match: a}]",
		"rules: [{match: b}]",
		"rules: [{match: a}, {match: b}]",
		"rules: [{match: b}, {match: a}]",
		"rules: [{match: a, priority: critical}]",
		"rules: [{match: a, lagging: close}]",
		"rules: [{match: a, lagging: conflate}]",
		"rules: [{match: a, access: public}]",
		"rules: [{match: a, history: {size: 5, ttl: 1m}}]",
		"rules: [{match: a, history: {size: 6, ttl: 1m}}]",
		"rules: [{match: a, history: {size: 5, ttl: 2m}}]",
		"rules: [{match: a, history: {size: 5, ttl: 1m, latest: 1}}]",
	};
	struct fixture *f = *state;
	uint64_t hashes[array_len(texts)];

	for (size_t i = 0; i < array_len(texts); i++) {
		write_file(f, texts[i]);
		assert_int_equal(load(f, "--config", "FILE", NULL), 0);
		hashes[i] = f->rules.hash;
		for (size_t k = 0; k < i; k++)
			assert_true(hashes[i] != hashes[k]);
	}
	/* Defaults spelt out are the same rules. */
	write_file(f, "name: x\nrules: [{match: a, priority: normal, "
		      "lagging: drop_oldest, access: token}]");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_true(f->rules.hash == hashes[1]);
	write_file(f, "rules: [{match: a, lagging: close, "
		      "history: {size: 5, ttl: 60s, latest: 0}}]");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_true(f->rules.hash == hashes[9]);
}

static void test_config_rules_refuse_nonsense(void **state)
{
	struct fixture *f = *state;

	assert_file_refused(f, "rules:\n- match: a\n- priority: normal\n",
			    "rules[2].match: missing");
	assert_file_refused(f, "rules:\n- match: a*b\n",
			    "rules[1].match: \"a*b\" is not a channel name or "
			    "a prefix with '*' behind");
	assert_file_refused(f, "rules:\n- match: a b\n",
			    "rules[1].match: \"a b\" is not a channel name or "
			    "a prefix with '*' behind");
	assert_file_refused(f, "rules:\n- match: a\n  priority: urgent\n",
			    "rules[1].priority: \"urgent\" is not one of "
			    "critical, normal, droppable");
	assert_file_refused(f, "rules:\n- match: a\n  lagging: wait\n",
			    "rules[1].lagging: \"wait\" is not one of "
			    "close, conflate, drop_oldest");
	assert_file_refused(f, "rules:\n- match: a\n  access: all\n",
			    "rules[1].access: \"all\" is not one of "
			    "token, public");
	assert_file_refused(f,
			    "rules:\n- match: a\n- match: b\n"
			    "  history: {bytes: 5}\n",
			    "rules[2].history.bytes: unknown key");
	assert_file_refused(f, "rules:\n- match: a\n  history: 5\n",
			    "rules[1].history: Expecting MAPPING, got event: "
			    "SCALAR (line 3)");
	assert_file_refused(f, "rules:\n- a\n",
			    "rules[1]: Expecting MAPPING, got event: SCALAR "
			    "(line 2)");
	assert_file_refused(f, "rules: 5\n",
			    "rules: Expecting SEQUENCE, got event: SCALAR "
			    "(line 1)");
	f->takes_rules = false;
	assert_file_refused(f, "rules:\n- match: a\n", "rules: unknown key");
	assert_file_refused(f, "auth: {leeway: 1s}\n",
			    "auth: Expecting STRING, got event: MAPPING_START "
			    "(line 1)");
}

/* One rule "a" whose history is `history`. */
static const struct rule *load_history(struct fixture *f, const char *history)
{
	char text[128];

	snprintf(text, sizeof(text), "rules: [{match: a, history: {%s}}]",
		 history);
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	return &f->rules.rule[0];
}

static void test_config_rules_history(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} durations[] = {
		{"1000ms", 1000},	   {"1s", 1000},
		{"90m", 90 * 60000},	   {"36h", 36 * 3600000ull},
		{"30d", 30 * 86400000ull}, {"2592000000ms", 30 * 86400000ull},
	};
	struct fixture *f = *state;
	const struct rule *rule;

	rule = load_history(f, "size: 200, ttl: 10m, latest: 3");
	assert_true(rule_reliable(rule));
	assert_int_equal(rule->history_size, 200);
	assert_int_equal(rule->history_ttl_ms, 600000);
	assert_int_equal(rule->history_latest, 3);
	assert_int_equal(rule->lagging, LAGGING_CLOSE);
	/* Not its neighbours. */
	assert_false(rule_reliable(rules_match(&f->rules, "b")));

	rule = load_history(f, "size: 100000, ttl: 1s, latest: 1000");
	assert_int_equal(rule->history_size, HISTORY_SIZE_MAX);
	assert_int_equal(rule->history_latest, HISTORY_LATEST_MAX);
	rule = load_history(f, "size: 1, ttl: 1s");
	assert_int_equal(rule->history_latest, 0);
	for (size_t i = 0; i < array_len(durations); i++) {
		char history[64];

		snprintf(history, sizeof(history), "size: 1, ttl: %s",
			 durations[i].text);
		rule = load_history(f, history);
		assert_true(rule->history_ttl_ms == durations[i].ms);
	}
	rule = load_history(f, "size: 0");
	assert_false(rule_reliable(rule));
	assert_int_equal(rule->lagging, LAGGING_DROP_OLDEST);
	rule = load_history(f, "size: 0, ttl: 10m, latest: 0");
	assert_int_equal(rule->history_ttl_ms, 0);
	write_file(f, "rules:\n- match: a\n  lagging: conflate\n"
		      "  history:\n    size: 5\n    ttl: 1h\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->rules.rule[0].lagging, LAGGING_CONFLATE);
	assert_int_equal(f->rules.rule[0].history_size, 5);
}

static void test_config_rules_refuse_nonsense_of_history(void **state)
{
	static const struct {
		const char *history, *message;
	} cases[] = {
		{"", "size: missing"},
		{"ttl: 1m", "size: missing"},
		{"size: 5", "ttl: missing"},
		{"size: x, ttl: 1m", "size: \"x\" is not a number"},
		{"size: -1, ttl: 1m", "size: \"-1\" is not a number"},
		{"size: 5k, ttl: 1m", "size: \"5k\" is not a number"},
		{"size: 100001, ttl: 1m",
		 "size: 100001 is out of range (0 to 100000)"},
		{"size: 99999999999999999999, ttl: 1m",
		 "size: 99999999999999999999 is out of range (0 to 100000)"},
		{"size: 5, ttl: 10", "ttl: \"10\" has no unit (ms, s, m, h or "
				     "d)"},
		{"size: 5, ttl: m", "ttl: \"m\" is not a duration (digits "
				    "with ms, s, m, h or d)"},
		{"size: 5, ttl: 1m30s", "ttl: \"1m30s\" is not a duration "
					"(digits with ms, s, m, h or d)"},
		{"size: 5, ttl: 1w", "ttl: \"1w\" is not a duration (digits "
				     "with ms, s, m, h or d)"},
		{"size: 5, ttl: 999ms",
		 "ttl: 999ms is out of range (1s to 30d)"},
		{"size: 5, ttl: 0s", "ttl: 0s is out of range (1s to 30d)"},
		{"size: 5, ttl: 31d", "ttl: 31d is out of range (1s to 30d)"},
		{"size: 5, ttl: 99999999999999999999d",
		 "ttl: 99999999999999999999d is out of range (1s to 30d)"},
		{"size: 5, ttl: 1m, latest: 6",
		 "latest: 6 is more than size (5)"},
		{"size: 0, latest: 1", "latest: 1 is more than size (0)"},
		{"size: 5000, ttl: 1m, latest: 1001",
		 "latest: 1001 is out of range (0 to 1000)"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < array_len(cases); i++) {
		char yaml[128], message[128];

		snprintf(yaml, sizeof(yaml),
			 "rules: [{match: b}, {match: a, history: {%s}}]",
			 cases[i].history);
		snprintf(message, sizeof(message), "rules[2].history.%s",
			 cases[i].message);
		assert_file_refused(f, yaml, message);
	}
}

static void test_config_rules_are_bounded(void **state)
{
	struct fixture *f = *state;
	char *text = calloc(RULES_MAX, 16), *at = text;

	at += sprintf(at, "rules:\n");
	for (unsigned i = 0; i < RULES_MAX - 1; i++)
		at += sprintf(at, "- match: c%u\n", i);
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->rules.count, RULES_MAX);
	sprintf(at, "- match: x\n");
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), ERR_CONFIG);
	assert_non_null(strstr(f->err, "Excessive entries (1023 max)"));
	free(text);
}

static void test_config_rules_access(void **state)
{
	struct fixture *f = *state;

	write_file(f, "rules:\n"
		      "- {match: 'news:*', access: public}\n"
		      "- {match: 'user:*', access: token}\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(rules_match(&f->rules, "news:1")->access,
			 ACCESS_PUBLIC);
	assert_int_equal(rules_match(&f->rules, "user:1")->access,
			 ACCESS_TOKEN);
	assert_int_equal(rules_match(&f->rules, "score")->access, ACCESS_TOKEN);
}

/* --- auth -------------------------------------------------------------- */

static void test_config_auth(void **state)
{
	struct fixture *f = *state;

	write_file(f, "auth:\n"
		      "  issuer: https://login.example\n"
		      "  audience: stentor\n"
		      "  leeway: 5m\n"
		      "  keys:\n"
		      "    - {kid: a, alg: HS256, file: /run/secrets/a}\n"
		      "    - {kid: b, alg: ES256, file: keys/pub.pem}\n"
		      "    - {jwks: jwks.json}\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_string_equal(f->auth.issuer, "https://login.example");
	assert_string_equal(f->auth.audience, "stentor");
	assert_int_equal(f->auth.leeway_s, 300);
	assert_int_equal(f->auth.key_count, 3);
	assert_string_equal(f->auth.key[0].kid, "a");
	assert_int_equal(f->auth.key[0].alg, TOKEN_HS256);
	assert_string_equal(f->auth.key[0].file, "/run/secrets/a");
	assert_int_equal(f->auth.key[1].alg, TOKEN_ES256);
	assert_string_equal(f->auth.key[1].file, "/tmp/keys/pub.pem");
	assert_null(f->auth.key[2].kid);
	assert_string_equal(f->auth.key[2].file, "/tmp/jwks.json");

	write_file(f, "auth: {keys: [{kid: a, alg: PS256, file: x}]}\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_string_equal(f->auth.issuer, "");
	assert_string_equal(f->auth.audience, "");
	assert_int_equal(f->auth.leeway_s, AUTH_LEEWAY_S);
	write_file(f, "auth: {leeway: 0s}\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->auth.leeway_s, 0);
	assert_int_equal(f->auth.key_count, 0);
	assert_int_equal(load(f, NULL), 0);
	assert_string_equal(f->auth.issuer, "");
	assert_int_equal(f->auth.key_count, 0);
	/* A text is the option of the same name. */
	assert_int_equal(f->s.auth, 0);
	write_file(f, "auth: none\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->s.auth, 1);
	assert_string_equal(f->auth.issuer, "");
	write_file(f, "auth: {issuer: x}\n");
	assert_int_equal(load(f, "--config", "FILE", "--auth", "none", NULL),
			 0);
	assert_int_equal(f->s.auth, 1);
	assert_string_equal(f->auth.issuer, "x");
}

static void test_config_auth_refuses_nonsense(void **state)
{
	static const struct {
		const char *auth, *message;
	} cases[] = {
		{"isuer: x", "auth.isuer: unknown key"},
		{"issuer: ", "auth.issuer: empty"},
		{"audience: ''", "auth.audience: empty"},
		{"leeway: 30",
		 "auth.leeway: \"30\" has no unit (ms, s, m, h or "
		 "d)"},
		{"leeway: soon", "auth.leeway: \"soon\" is not a duration "
				 "(digits with ms, s, m, h or d)"},
		{"leeway: 301s",
		 "auth.leeway: 301s is out of range (0s to 5m)"},
		{"keys: [{alg: HS256, file: x}]", "auth.keys[1].kid: missing"},
		{"keys: [{kid: '', alg: HS256, file: x}]",
		 "auth.keys[1].kid: missing"},
		{"keys: [{kid: a, file: x}]", "auth.keys[1].alg: missing"},
		{"keys: [{kid: a, alg: RS256}]", "auth.keys[1].file: missing"},
		{"keys: [{kid: a, alg: none, file: x}]",
		 "auth.keys[1].alg: \"none\" is not one of HS256, RS256, "
		 "PS256, "
		 "ES256"},
		{"keys: [{kid: a, alg: hs256, file: x}]",
		 "auth.keys[1].alg: \"hs256\" is not one of HS256, RS256, "
		 "PS256, ES256"},
		{"keys: [{kid: a, alg: HS256, file: x}, {jwks: y}, "
		 "{kid: a, alg: RS256, file: z}]",
		 "auth.keys[3].kid: \"a\" is there already"},
		{"keys: [{jwks: y, kid: a}]",
		 "auth.keys[1].jwks: stands alone: its keys have kid and alg "
		 "of their own"},
		{"keys: [{jwks: ''}]", "auth.keys[1].jwks: missing"},
		{"keys: [{secret: y}]", "auth.keys[1].secret: unknown key"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < array_len(cases); i++) {
		char yaml[256];

		snprintf(yaml, sizeof(yaml), "auth: {%s}", cases[i].auth);
		assert_file_refused(f, yaml, cases[i].message);
		assert_int_equal(f->auth.key_count, 0);
	}
	assert_file_refused(f, "auth: some\n",
			    "auth: \"some\" is not one of jwt, none");
	assert_file_refused(f, "auth: {issuer: x}\nauth: none\n",
			    "auth: set twice");
	assert_file_refused(f, "auth: none\nauth: {issuer: x}\n",
			    "auth: set twice");
	assert_file_refused(f, "auth: [a]\n",
			    "auth: Expecting MAPPING, got event: "
			    "SEQUENCE_START (line 1)");
	/* What was well is freed when the rest is not. */
	assert_file_refused(f, "auth: {issuer: x}\nrules: [{match: ' '}]\n",
			    "rules[1].match: \" \" is not a channel name or a "
			    "prefix with '*' behind");
	assert_null(f->auth.issuer);
}

static void test_config_auth_is_bounded(void **state)
{
	struct fixture *f = *state;
	char text[AUTH_KEYS_MAX * 16 + 64], *at = text;
	char kid[AUTH_KID_MAX + 2];

	at += sprintf(at, "auth:\n  keys:\n");
	for (unsigned i = 0; i < AUTH_KEYS_MAX; i++)
		at += sprintf(at, "  - jwks: f%u\n", i);
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->auth.key_count, AUTH_KEYS_MAX);
	sprintf(at, "  - jwks: x\n");
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), ERR_CONFIG);
	assert_non_null(strstr(f->err, "Excessive entries (64 max)"));

	memset(kid, 'k', sizeof(kid));
	kid[AUTH_KID_MAX + 1] = '\0';
	sprintf(text, "auth: {keys: [{kid: %s, alg: HS256, file: x}]}", kid);
	assert_file_refused(f, text, "auth.keys[1].kid: longer than 128 bytes");
	sprintf(text, "auth: {keys: [{kid: %s, alg: HS256, file: x}]}",
		kid + 1);
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_config_defaults),
		CASE(test_config_flags_in_both_forms),
		CASE(test_config_flag_beats_environment_beats_file),
		CASE(test_config_given_tells_set_from_default),
		CASE(test_config_refuses_bad_flags),
		CASE(test_config_refuses_bad_environment),
		CASE(test_config_help_tells_all),
		CASE(test_config_raises_open_files),
		CASE(test_config_file_may_be_empty),
		CASE(test_config_file_refuses_what_it_does_not_know),
		CASE(test_config_file_refuses_garbage),
		CASE(test_config_rules_first_match_decides),
		CASE(test_config_rules_hash_tells_differences),
		CASE(test_config_rules_refuse_nonsense),
		CASE(test_config_rules_history),
		CASE(test_config_rules_refuse_nonsense_of_history),
		CASE(test_config_rules_are_bounded),
		CASE(test_config_rules_access),
		CASE(test_config_auth),
		CASE(test_config_auth_refuses_nonsense),
		CASE(test_config_auth_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "tests/unit/config_fixture.h"

#include <sys/resource.h>

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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "dispatcher/ctl/args.h"

#include "common/base/err.h"
#include "tests/unit/unit.h"

#include <string.h>

static const struct ctl_option options[] = {
	{"event", "TYPE", "the type"},
	{"raw", NULL, "as it comes"},
	{NULL, NULL, NULL},
};

static const struct ctl_command commands[] = {
	{.name = "nodes", .arguments = "", .most = 0},
	{.name = "publish",
	 .arguments = "CHANNEL [DATA]",
	 .options = options,
	 .least = 1,
	 .most = 2},
	{.name = "tail", .arguments = "CHANNEL...", .least = 1, .most = 99},
	{.name = NULL},
};

#define WORDS 80

struct line {
	struct ctl_args args;
	char problem[160];
	int err;
};

static void parse(struct line *l, int argc, const char *const *argv)
{
	l->problem[0] = '\0';
	l->err = ctl_args_parse(&l->args, commands, argc, (char *const *)argv,
				l->problem, sizeof(l->problem));
	assert_true((l->err != 0) == (l->problem[0] != '\0'));
}

#define PARSE(l, ...)                                                    \
	parse(l, (int)array_len(((const char *[]){"ctl", __VA_ARGS__})), \
	      (const char *[]){"ctl", __VA_ARGS__})

#define REFUSED(message, ...)                                  \
	do {                                                   \
		struct line refused;                           \
                                                               \
		PARSE(&refused, __VA_ARGS__);                  \
		assert_int_equal(refused.err, ERR_MALFORMED);  \
		assert_string_equal(refused.problem, message); \
	} while (0)

static void test_args_options_anywhere(void **state)
{
	struct line l;

	(void)state;
	PARSE(&l, "--json", "publish", "--event", "goal", "c", "--timeout=3",
	      "d", "--dispatcher", "http://x", "--raw");
	assert_int_equal(l.err, 0);
	assert_string_equal(l.args.command->name, "publish");
	assert_int_equal(l.args.count, 2);
	assert_string_equal(l.args.argument[0], "c");
	assert_string_equal(l.args.argument[1], "d");
	assert_string_equal(l.args.option[0], "goal");
	assert_non_null(l.args.option[1]);
	assert_non_null(l.args.global[CTL_JSON]);
	assert_null(l.args.global[CTL_HELP]);
	assert_string_equal(l.args.global[CTL_TIMEOUT], "3");
	assert_string_equal(l.args.global[CTL_DISPATCHER], "http://x");
}

static void test_args_options_before_the_command(void **state)
{
	struct line l;

	(void)state;
	PARSE(&l, "--event", "publish", "--raw", "publish", "nodes");
	assert_int_equal(l.err, 0);
	assert_string_equal(l.args.command->name, "publish");
	assert_string_equal(l.args.option[0], "publish");
	assert_non_null(l.args.option[1]);
	assert_string_equal(l.args.argument[0], "nodes");
}

static void test_args_that_look_like_options(void **state)
{
	struct line l;

	(void)state;
	PARSE(&l, "publish", "c", "-");
	assert_string_equal(l.args.argument[1], "-");
	PARSE(&l, "publish", "c", "-12 degrees");
	assert_string_equal(l.args.argument[1], "-12 degrees");
	PARSE(&l, "publish", "c", "--", "--raw");
	assert_string_equal(l.args.argument[1], "--raw");
	assert_null(l.args.option[1]);
	PARSE(&l, "publish", "c", "--event=");
	assert_string_equal(l.args.option[0], "");
}

static void test_args_help(void **state)
{
	struct line l;

	(void)state;
	PARSE(&l, "publish", "-h");
	assert_int_equal(l.err, 0);
	assert_non_null(l.args.global[CTL_HELP]);
	assert_string_equal(l.args.command->name, "publish");
	PARSE(&l, "--help");
	assert_int_equal(l.err, 0);
	assert_null(l.args.command);
}

static void test_args_refused(void **state)
{
	struct line l;
	const char *many[WORDS];

	(void)state;
	REFUSED("unknown command 'xyzzy'", "xyzzy");
	REFUSED("unknown command 'node'; did you mean 'nodes'?", "node");
	REFUSED("unknown command 'pubish'; did you mean 'publish'?", "pubish");
	REFUSED("unknown command ''", "");
	REFUSED("unknown option --raw for nodes", "nodes", "--raw");
	REFUSED("unknown option --evnt", "--evnt", "x", "publish", "c");
	REFUSED("unknown option --event for nodes", "--event", "x", "nodes");
	REFUSED("unknown option --event", "--event", "x");
	REFUSED("unknown option -x", "-x");
	REFUSED("unknown option --even for publish", "publish", "--even");
	REFUSED("--event needs a value: --event TYPE", "publish", "--event");
	REFUSED("--json takes no value", "--json=1", "nodes");
	REFUSED("publish needs CHANNEL [DATA]", "publish");
	REFUSED("too many arguments for nodes: 'x'", "nodes", "x");
	for (unsigned i = 0; i < WORDS; i++)
		many[i] = "tail";
	parse(&l, WORDS, many);
	assert_int_equal(l.err, ERR_MALFORMED);
	assert_int_equal(l.args.count, CTL_ARGUMENTS_MAX);
}

static void test_args_number(void **state)
{
	unsigned long n;

	(void)state;
	assert_true(ctl_number("5", 1, 10, &n));
	assert_int_equal(n, 5);
	assert_false(ctl_number("0", 1, 10, &n));
	assert_false(ctl_number("11", 1, 10, &n));
	assert_false(ctl_number("", 0, 10, &n));
	assert_false(ctl_number("-1", 0, 10, &n));
	assert_false(ctl_number("5s", 0, 10, &n));
	assert_false(ctl_number("99999999999999999999", 0, 10, &n));
}

static void test_args_position(void **state)
{
	static const char *const wrong[] = {
		"",
		"5",
		":",
		"5:",
		":5",
		"5:6:7",
		"5:6 ",
		"a:6",
		"5:-1",
		" 5:6",
		"5 :6",
		"5: 6",
		"99999999999999999999:1",
	};
	uint64_t epoch, offset;

	(void)state;
	assert_true(ctl_position("1760000000000:17", &epoch, &offset));
	assert_true(epoch == 1760000000000u && offset == 17);
	assert_true(ctl_position("0:18446744073709551615", &epoch, &offset));
	assert_true(epoch == 0 && offset == UINT64_MAX);
	for (size_t i = 0; i < array_len(wrong); i++)
		assert_false(ctl_position(wrong[i], &epoch, &offset));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_args_options_anywhere),
		cmocka_unit_test(test_args_options_before_the_command),
		cmocka_unit_test(test_args_that_look_like_options),
		cmocka_unit_test(test_args_help),
		cmocka_unit_test(test_args_refused),
		cmocka_unit_test(test_args_number),
		cmocka_unit_test(test_args_position),
	};

	return cmocka_run_group_tests_name("ctl_args", tests, NULL, NULL);
}

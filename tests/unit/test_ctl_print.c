#include "dispatcher/ctl/print.h"

#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

/* What `write` printed; the caller's to free. */
static char *printed(void (*write)(FILE *out, const void *ctx), const void *ctx)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	write(out, ctx);
	fclose(out);
	return text;
}

static void write_text(FILE *out, const void *ctx)
{
	ctl_print_text(out, ctx, strlen(ctx), -1);
}

static void write_indented(FILE *out, const void *ctx)
{
	ctl_print_text(out, ctx, strlen(ctx), 2);
}

static void write_table(FILE *out, const void *ctx)
{
	ctl_table_print(ctx, out);
}

#define PRINTS(write, ctx, expected)                       \
	do {                                               \
		char *text_of_it = printed(write, ctx);    \
                                                           \
		assert_string_equal(text_of_it, expected); \
		free(text_of_it);                          \
	} while (0)

static void test_print_text_is_harmless(void **state)
{
	(void)state;
	PRINTS(write_text, "plain\tä € 🏏", "plain\tä € 🏏");
	PRINTS(write_text, "\x1b[2J\r\n\x7f", "\\x1b[2J\\x0d\\x0a\\x7f");
	PRINTS(write_text,
	       "\xc2\x9b"
	       "2J\xc2\xa3",
	       "\\x9b2J\xc2\xa3"); /* CSI in one character; pound sign */
	PRINTS(write_indented, "a\nb\x1b", "a\n  b\\x1b");
}

static void test_print_table(void **state)
{
	static const char *const titles[] = {"NAME", "COUNT", "NOTE", NULL};
	struct ctl_table t;

	(void)state;
	ctl_table_init(&t, titles);
	PRINTS(write_table, &t, "NAME  COUNT  NOTE\n");
	ctl_table_add(&t, "é\x1b");
	ctl_table_add(&t, "%d", 1234567);
	ctl_table_add(&t, "x");
	ctl_table_add(&t, "longer");
	ctl_table_add(&t, "%d", 8);
	ctl_table_add(&t, "%s", "");
	PRINTS(write_table, &t,
	       "NAME      COUNT  NOTE\n"
	       "é\\x1b   1234567  x\n"
	       "longer        8  \n");
	ctl_table_fini(&t);
}

static void test_print_table_of_words(void **state)
{
	static const char *const titles[] = {"AT", "DATA", NULL};
	struct ctl_table t;

	(void)state;
	ctl_table_init(&t, titles);
	t.words = 1u << 1;
	ctl_table_add(&t, "%d", 17);
	ctl_table_add(&t, "IND 245/3");
	ctl_table_add(&t, "%d", 8);
	ctl_table_add(&t, "245/3");
	PRINTS(write_table, &t, "AT  DATA\n17  IND 245/3\n 8  245/3\n");
	ctl_table_fini(&t);
}

#define FORMATS(format, number, expected)                     \
	do {                                                  \
		char formatted[32];                           \
                                                              \
		format(formatted, sizeof(formatted), number); \
		assert_string_equal(formatted, expected);     \
	} while (0)

static void test_print_units(void **state)
{
	(void)state;
	FORMATS(ctl_format_bytes, 0, "0 B");
	FORMATS(ctl_format_bytes, 1023, "1023 B");
	FORMATS(ctl_format_bytes, 1536, "1.5 KiB");
	FORMATS(ctl_format_bytes, UINT64_MAX, "16777216.0 TiB");
	FORMATS(ctl_format_duration, 999, "0s");
	FORMATS(ctl_format_duration, 61000, "1m 1s");
	FORMATS(ctl_format_duration, 3600000 * 3 + 720000, "3h 12m");
	FORMATS(ctl_format_duration, 3600000ull * 49, "2d 1h");
}

static void test_print_json_members(void **state)
{
	json_t *object = json_loads("{\"a\":\"18446744073709551615\",\"b\":7,"
				    "\"c\":\"WORKER_STATE_READY\",\"d\":[]}",
				    0, NULL);
	char name[16];

	(void)state;
	assert_true(ctl_json_number(object, "a") == UINT64_MAX);
	assert_int_equal(ctl_json_number(object, "b"), 7);
	assert_int_equal(ctl_json_number(object, "d"), 0);
	assert_int_equal(ctl_json_number(NULL, "d"), 0);
	assert_string_equal(ctl_json_text(object, "b"), "");
	ctl_json_enum(object, "c", "WORKER_STATE_", name, sizeof(name));
	assert_string_equal(name, "ready");
	ctl_json_enum(object, "d", "WORKER_STATE_", name, sizeof(name));
	assert_string_equal(name, "-");
	json_decref(object);
}

static void test_print_json_position(void **state)
{
	json_t *object =
		json_loads("{\"a\":{\"epoch\":\"18446744073709551615\","
			   "\"offset\":\"17\"},\"b\":{},\"c\":\"1:2\"}",
			   0, NULL);
	char text[CTL_POSITION_SIZE];

	(void)state;
	assert_string_equal(ctl_json_position(object, "a", text),
			    "18446744073709551615:17");
	assert_string_equal(ctl_json_position(object, "b", text), "0:0");
	assert_string_equal(ctl_json_position(object, "c", text), "-");
	assert_string_equal(ctl_json_position(NULL, "a", text), "-");
	json_decref(object);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_print_text_is_harmless),
		cmocka_unit_test(test_print_table),
		cmocka_unit_test(test_print_table_of_words),
		cmocka_unit_test(test_print_units),
		cmocka_unit_test(test_print_json_members),
		cmocka_unit_test(test_print_json_position),
	};

	return cmocka_run_group_tests_name("ctl_print", tests, NULL, NULL);
}

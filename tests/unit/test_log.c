#include "common/base/log.h"

#include "common/base/clock.h"
#include "tests/unit/unit.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* stderr goes to a file while lines are written; then they are read back. */
static FILE *captured;
static int saved_stderr;

static void capture_start(void)
{
	captured = tmpfile();
	assert_non_null(captured);
	saved_stderr = dup(STDERR_FILENO);
	dup2(fileno(captured), STDERR_FILENO);
}

static void capture_stop(void)
{
	dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	rewind(captured);
}

static json_t *next_json(void)
{
	char line[8192];
	json_error_t error;
	json_t *json;

	if (!fgets(line, sizeof(line), captured))
		return NULL;
	assert_int_equal(line[strlen(line) - 1], '\n');
	json = json_loads(line, JSON_REJECT_DUPLICATES, &error);
	if (!json)
		fail_msg("%s: %s", error.text, line);
	return json;
}

static void assert_member(const json_t *json, const char *key,
			  const char *value)
{
	assert_string_equal(json_string_value(json_object_get(json, key)),
			    value);
}

static void test_log_json_has_the_pairs(void **state)
{
	json_t *json;

	(void)state;
	log_init("dispatcher", LOG_INFO, true);
	capture_start();
	log_warn("LINK-DOWN", "node=%s worker=%u lag=%.1f reason=\"%s\" e=%s",
		 "a", 7u, -1.5, "no heart beat", "");
	capture_stop();
	json = next_json();
	assert_member(json, "level", "warn");
	assert_member(json, "component", "dispatcher");
	assert_member(json, "id", "LINK-DOWN");
	assert_member(json, "node", "a");
	assert_int_equal(json_integer_value(json_object_get(json, "worker")),
			 7);
	assert_true(json_real_value(json_object_get(json, "lag")) == -1.5);
	assert_member(json, "reason", "no heart beat");
	assert_member(json, "e", "");
	assert_int_equal(json_integer_value(json_object_get(json, "pid")),
			 getpid());
	/* 2024-01-02T03:04:05.678901Z */
	assert_int_equal(json_string_length(json_object_get(json, "ts")), 27);
	json_decref(json);
	fclose(captured);
}

static void test_log_json_values_keep_their_type(void **state)
{
	static const char *const text[] = {"007",
					   "1e5",
					   "0x1",
					   "1.",
					   "-",
					   ".5",
					   "+1",
					   "1234567890"
					   "123456",
					   "nan",
					   "1.2.3"};

	(void)state;
	log_init("x", LOG_INFO, true);
	capture_start();
	for (size_t i = 0; i < array_len(text); i++)
		log_info("T", "v=%s", text[i]);
	log_info("T", "v=\"42\"");
	log_info("T", "v=0");
	capture_stop();
	for (size_t i = 0; i < array_len(text); i++) {
		json_t *json = next_json();

		assert_member(json, "v", text[i]);
		json_decref(json);
	}
	for (unsigned i = 0; i < 2; i++) {
		json_t *json = next_json();

		assert_int_equal(json_typeof(json_object_get(json, "v")),
				 i ? JSON_INTEGER : JSON_STRING);
		json_decref(json);
	}
	fclose(captured);
}

static void test_log_json_survives_hostile_text(void **state)
{
	json_t *json;

	(void)state;
	log_init("x", LOG_INFO, true);
	capture_start();
	log_info("T", "reason=\"%s\" pid=1 level=low",
		 "say \"hi\" \\ \n\t\x01 \xff\xc0\x80\xed\xa0\x80 caf\xc3\xa9");
	log_info("T", "plain words k=v");
	log_info("T", "open=\"never closed");
	capture_stop();
	json = next_json();
	assert_member(json, "reason",
		      "say \"hi\" \\ \n\t\x01 \xef\xbf\xbd\xef\xbf\xbd"
		      "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd "
		      "caf\xc3\xa9");
	assert_member(json, "level", "info");
	assert_member(json, "level_", "low");
	assert_int_equal(json_integer_value(json_object_get(json, "pid_")), 1);
	json_decref(json);
	json = next_json();
	assert_member(json, "msg", "plain words");
	assert_member(json, "k", "v");
	json_decref(json);
	json = next_json();
	assert_member(json, "open", "never closed");
	json_decref(json);
	fclose(captured);
}

static void test_log_long_lines_are_cut_and_whole(void **state)
{
	char long_text[3001];

	(void)state;
	memset(long_text, '\x01', sizeof(long_text) - 1);
	long_text[sizeof(long_text) - 1] = '\0';
	log_init("x", LOG_INFO, true);
	capture_start();
	for (int len = 600; len < 700; len += 7) {
		char id[16];

		snprintf(id, sizeof(id), "ID-%d", len);
		log_info(id, "a=%.*s b=%s", len, long_text, long_text);
	}
	log_init("x", LOG_INFO, false);
	log_info("T", "%s", long_text);
	capture_stop();
	for (int len = 600; len < 700; len += 7) {
		json_t *json = next_json();

		assert_true(json_string_length(json_object_get(json, "a")) >
			    590);
		json_decref(json);
	}
	fseek(captured, 0, SEEK_END);
	assert_true(ftell(captured) < 16 * 4096);
	fclose(captured);
}

static void test_log_text_is_for_people(void **state)
{
	char line[256];
	unsigned h, m, s, ms;
	int at = 0;

	(void)state;
	log_init("dispatcher", LOG_INFO, false);
	capture_start();
	log_warn("LINK-DOWN", "node=a reason=\"%s\"", "x\ny");
	capture_stop();
	assert_non_null(fgets(line, sizeof(line), captured));
	assert_int_equal(
		sscanf(line, "%2u:%2u:%2u.%3u%n", &h, &m, &s, &ms, &at), 4);
	assert_string_equal(line + at, " WARN  dispatcher LINK-DOWN node=a "
				       "reason=\"x\\x0ay\"\n");
	fclose(captured);
}

static void test_log_level_filters(void **state)
{
	json_t *json;

	(void)state;
	log_init("x", LOG_WARN, true);
	capture_start();
	log_info("A", "n=1");
	log_set_level(LOG_DEBUG);
	assert_int_equal(log_get_level(), LOG_DEBUG);
	log_debug("B", "n=2");
	capture_stop();
	json = next_json();
	assert_member(json, "id", "B");
	assert_member(json, "level", "debug");
	assert_null(next_json());
	json_decref(json);
	fclose(captured);
}

/* Begins right after a second has turned, so that all lines fall into one. */
static void wait_for_new_second(void)
{
	uint64_t second = clock_monotonic_ms() / 1000;

	while (clock_monotonic_ms() / 1000 == second)
		usleep(1000);
}

static void test_log_repeats_are_limited_by_id(void **state)
{
	unsigned lines = 0;
	json_t *json;

	(void)state;
	log_init("x", LOG_INFO, true);
	capture_start();
	wait_for_new_second();
	for (unsigned i = 0; i < 100; i++)
		log_info("FLOOD", "i=%u", i);
	log_info("OTHER", "i=0");
	wait_for_new_second();
	log_info("FLOOD", "i=100");
	log_info("FLOOD", "i=101");
	capture_stop();
	for (; lines < LOG_BURST_PER_SECOND; lines++) {
		json = next_json();
		assert_member(json, "id", "FLOOD");
		json_decref(json);
	}
	json = next_json();
	assert_member(json, "id", "OTHER");
	json_decref(json);
	json = next_json();
	assert_int_equal(
		json_integer_value(json_object_get(json, "suppressed")), 80);
	json_decref(json);
	json = next_json();
	assert_null(json_object_get(json, "suppressed"));
	json_decref(json);
	assert_null(next_json());
	fclose(captured);
}

static void *writer(void *arg)
{
	for (unsigned i = 0; i < LOG_BURST_PER_SECOND; i++)
		log_info(arg, "padding=%0200u", i);
	errno = EDOM;
	log_info(arg, "errno must survive");
	assert_int_equal(errno, EDOM);
	return NULL;
}

static void test_log_lines_of_many_threads_stay_whole(void **state)
{
	static char ids[4][4] = {"T1", "T2", "T3", "T4"};
	pthread_t threads[4];
	unsigned lines = 0;
	json_t *json;

	(void)state;
	log_init("x", LOG_INFO, true);
	capture_start();
	/* As a pipe does, O_APPEND keeps writes apart. */
	fcntl(fileno(captured), F_SETFL, O_APPEND);
	for (unsigned i = 0; i < 4; i++)
		pthread_create(&threads[i], NULL, writer, ids[i]);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	capture_stop();
	while ((json = next_json())) {
		lines++;
		json_decref(json);
	}
	assert_true(lines >= 4 * LOG_BURST_PER_SECOND);
	fclose(captured);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_log_json_has_the_pairs),
		cmocka_unit_test(test_log_json_values_keep_their_type),
		cmocka_unit_test(test_log_json_survives_hostile_text),
		cmocka_unit_test(test_log_long_lines_are_cut_and_whole),
		cmocka_unit_test(test_log_text_is_for_people),
		cmocka_unit_test(test_log_level_filters),
		cmocka_unit_test(test_log_repeats_are_limited_by_id),
		cmocka_unit_test(test_log_lines_of_many_threads_stay_whole),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "common/base/metrics.h"

#include "common/base/clock.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { M_OPENED, M_CLOSED, M_OPEN, M_LATENCY, M_CALLS, M_STORE, M_COUNT };

static const char *const reasons[] = {"client", "a\"b\\c\nd", NULL};

static const char *const codes[] = {"ok", "full", "late", NULL};

static const struct metric_desc table[] = {
	[M_OPENED] = {.name = "opened_total",
		      .type = METRIC_COUNTER,
		      .help = "Opened\\ever\nsince."},
	[M_CLOSED] = {.name = "closed_total",
		      .type = METRIC_COUNTER,
		      .label = "reason",
		      .values = reasons,
		      .help = "Closed."},
	[M_OPEN] = {.name = "open", .type = METRIC_GAUGE, .help = "Open now."},
	[M_LATENCY] = {.name = "latency_seconds",
		       .type = METRIC_HISTOGRAM,
		       .help = "How long."},
	[M_CALLS] = {.name = "calls_total",
		     .type = METRIC_COUNTER,
		     .label = "reason",
		     .values = reasons,
		     .help = "Calls.",
		     .label2 = "code",
		     .values2 = codes},
	[M_STORE] = {.name = "store_seconds",
		     .type = METRIC_HISTOGRAM,
		     .label = "op",
		     .values = codes,
		     .help = "Each operation."},
};

static struct metrics_text render(const struct metrics *a,
				  const struct metrics *b)
{
	const struct metrics *blocks[] = {a, b};
	struct metrics_text t = {0};

	metrics_render(&t, blocks, b ? 2 : 1);
	return t;
}

static void assert_has(const struct metrics_text *t, const char *text)
{
	if (!strstr(t->bytes, text))
		fail_msg("no %s in\n%s", text, t->bytes);
}

static void test_metrics_exposition_is_exact(void **state)
{
	static const char expected[] =
		"# HELP stentor_opened_total Opened\\\\ever\\nsince.\n"
		"# TYPE stentor_opened_total counter\n"
		"stentor_opened_total 3\n"
		"# HELP stentor_closed_total Closed.\n"
		"# TYPE stentor_closed_total counter\n"
		"stentor_closed_total{reason=\"client\"} 0\n"
		"stentor_closed_total{reason=\"a\\\"b\\\\c\\nd\"} 2\n"
		"# HELP stentor_open Open now.\n"
		"# TYPE stentor_open gauge\n"
		"stentor_open 18446744073709551615\n";
	struct metrics_text t;
	struct metrics m;

	(void)state;
	metrics_init(&m, table, M_LATENCY, NULL);
	metric_add(&m, M_OPENED, 0, 1);
	metric_add(&m, M_OPENED, 0, 2);
	metric_add(&m, M_CLOSED, 1, 2);
	metric_set(&m, M_OPEN, 0, UINT64_MAX);
	assert_int_equal(metric_get(&m, M_OPENED, 0), 3);
	t = render(&m, NULL);
	assert_string_equal(t.bytes, expected);
	metrics_text_free(&t);
	metrics_fini(&m, NULL);
}

static void test_metrics_two_labels_span_a_grid(void **state)
{
	struct metrics_text t = {0};
	struct metrics m;

	(void)state;
	metrics_init(&m, table, M_COUNT, NULL);
	metric_add(&m, M_CALLS, 1 * 3 + 2, 7);
	t = render(&m, NULL);
	assert_has(&t, "{reason=\"client\",code=\"ok\"} 0\n");
	assert_has(&t, "{reason=\"client\",code=\"late\"} 0\n");
	assert_has(&t, "{reason=\"a\\\"b\\\\c\\nd\",code=\"late\"} 7\n");
	metrics_text_free(&t);
	metrics_fini(&m, NULL);
}

static void test_metrics_histogram_buckets_are_cumulative(void **state)
{
	struct metrics_text t;
	struct metrics m;

	(void)state;
	metrics_init(&m, table, M_COUNT, NULL);
	metric_observe_us(&m, M_LATENCY, 0, 0, 1);
	metric_observe_us(&m, M_LATENCY, 0, 100, 1); /* le includes the bound */
	metric_observe_us(&m, M_LATENCY, 0, 101, 10);
	metric_observe_us(&m, M_LATENCY, 0, 60000000, 1);
	metric_observe_us(&m, M_LATENCY, 0, 60000001, 1);
	t = render(&m, NULL);
	assert_has(&t, "# TYPE stentor_latency_seconds histogram\n"
		       "stentor_latency_seconds_bucket{le=\"0.0001\"} 2\n"
		       "stentor_latency_seconds_bucket{le=\"0.00025\"} 12\n"
		       "stentor_latency_seconds_bucket{le=\"0.0005\"} 12\n");
	assert_has(&t, "{le=\"30\"} 12\n"
		       "stentor_latency_seconds_bucket{le=\"60\"} 13\n"
		       "stentor_latency_seconds_bucket{le=\"+Inf\"} 14\n"
		       "stentor_latency_seconds_sum 120.001111\n"
		       "stentor_latency_seconds_count 14\n");
	metrics_text_free(&t);
	metrics_fini(&m, NULL);
}

static void test_metrics_histogram_with_label(void **state)
{
	struct metrics_text t;
	struct metrics m;

	(void)state;
	metrics_init(&m, table, M_COUNT, NULL);
	metric_observe_us(&m, M_LATENCY, 0, 100, 5);
	metric_observe_us(&m, M_STORE, 0, 100, 1);
	metric_observe_us(&m, M_STORE, 2, 200, 3);
	metric_observe_us(&m, M_STORE, 2, 90000000, 1);
	t = render(&m, NULL);
	assert_has(&t, "stentor_latency_seconds_count 5\n");
	assert_has(&t,
		   "# TYPE stentor_store_seconds histogram\n"
		   "stentor_store_seconds_bucket{op=\"ok\",le=\"0.0001\"} 1\n"
		   "stentor_store_seconds_bucket{op=\"ok\",le=\"0.00025\"} "
		   "1\n");
	assert_has(&t, "stentor_store_seconds_sum{op=\"ok\"} 0.000100\n"
		       "stentor_store_seconds_count{op=\"ok\"} 1\n"
		       "stentor_store_seconds_bucket{op=\"full\",le=\"0.0001\"}"
		       " 0\n");
	assert_has(&t, "stentor_store_seconds_count{op=\"full\"} 0\n");
	assert_has(&t,
		   "{op=\"late\",le=\"0.0001\"} 0\n"
		   "stentor_store_seconds_bucket{op=\"late\",le=\"0.00025\"} "
		   "3\n");
	assert_has(&t, "{op=\"late\",le=\"60\"} 3\n"
		       "stentor_store_seconds_bucket{op=\"late\",le=\"+Inf\"} "
		       "4\n"
		       "stentor_store_seconds_sum{op=\"late\"} 90.000600\n"
		       "stentor_store_seconds_count{op=\"late\"} 4\n");
	metrics_text_free(&t);
	metrics_fini(&m, NULL);
}

static void test_metrics_blocks_are_added(void **state)
{
	void *memory = calloc(1, metrics_size(table, M_COUNT));
	struct metrics mine, theirs, reader;
	struct metrics_text t;

	(void)state;
	metrics_init(&mine, table, M_COUNT, NULL);
	metrics_init(&theirs, table, M_COUNT, memory);
	/* As a supervisor sees its worker's block. */
	metrics_init(&reader, table, M_COUNT, memory);
	metric_set(&mine, M_OPEN, 0, 5);
	metric_set(&theirs, M_OPEN, 0, 7);
	metric_observe_us(&mine, M_LATENCY, 0, 3000, 1);
	metric_observe_us(&theirs, M_LATENCY, 0, 3000, 1);
	t = render(&mine, &reader);
	assert_has(&t, "stentor_open 12\n");
	assert_has(&t, "stentor_latency_seconds_count 2\n");
	metrics_text_free(&t);
	metrics_fini(&mine, NULL);
	metrics_fini(&theirs, memory);
	metrics_fini(&reader, memory);
	free(memory);
}

static void test_metrics_run_time_labels(void **state)
{
	struct metrics_text t = {0};
	char labels[64] = "", small[12] = "";

	(void)state;
	metrics_label(labels, sizeof(labels), "node", "a\"\\\n");
	metrics_label(labels, sizeof(labels), "worker", "0");
	assert_string_equal(labels, "node=\"a\\\"\\\\\\n\",worker=\"0\"");
	metrics_label(small, sizeof(small), "k", "\"\"\"\"\"\"\"\"\"\"");
	assert_string_equal(small, "k=\"\\\"\\\"\\\"\"");
	metrics_head(&t, "link_up", METRIC_GAUGE, "Up.");
	metrics_sample(&t, "link_up", labels, 1);
	metrics_sample(&t, "link_up", NULL, 0.25);
	assert_string_equal(t.bytes,
			    "# HELP stentor_link_up Up.\n"
			    "# TYPE stentor_link_up gauge\n"
			    "stentor_link_up{node=\"a\\\"\\\\\\n\",worker="
			    "\"0\"} 1\nstentor_link_up 0.25\n");
	metrics_text_free(&t);
}

static double value_of(const struct metrics_text *t, const char *name)
{
	char line[128];
	char *at;

	snprintf(line, sizeof(line), "\n%s ", name);
	at = strstr(t->bytes, line);
	assert_non_null(at);
	return strtod(at + strlen(line), NULL);
}

static void test_metrics_process_tells_of_all_processes(void **state)
{
	struct metrics_text t = {0}, both = {0};
	double now = (double)clock_wall_ms() / 1000, start;
	int gate[2], child;

	(void)state;
	metrics_process(&t, "1.2-\"x\"", NULL, 0);
	assert_has(&t, "stentor_build_info{version=\"1.2-\\\"x\\\"\"} 1\n");
	assert_true(value_of(&t, "process_resident_memory_bytes") > 1e5);
	assert_true(value_of(&t, "process_open_fds") >= 3);
	assert_true(value_of(&t, "process_max_fds") >= 64);
	start = value_of(&t, "process_start_time_seconds");
	assert_true(start <= now + 2 && start > now - 600);

	assert_int_equal(pipe(gate), 0);
	child = fork();
	if (child == 0) {
		char byte;

		close(gate[1]);
		_exit(read(gate[0], &byte, 1) == 0 ? 0 : 1);
	}
	/* One that is gone adds nothing. */
	metrics_process(&both, "1", (int[]){child, 0x3fffffff}, 2);
	close(gate[0]);
	close(gate[1]);
	assert_int_equal(waitpid(child, NULL, 0), child);
	assert_true(value_of(&both, "process_max_fds") ==
		    2 * value_of(&t, "process_max_fds"));
	assert_true(value_of(&both, "process_open_fds") >=
		    2 * value_of(&t, "process_open_fds"));
	metrics_text_free(&t);
	metrics_text_free(&both);
}

static void test_metrics_process_keeps_cpu_of_ended_children(void **state)
{
	struct metrics_text before = {0}, after = {0};
	int child;

	(void)state;
	metrics_process(&before, "1", NULL, 0);
	child = fork();
	if (child == 0) {
		while (clock() < CLOCKS_PER_SEC / 10)
			;
		_exit(0);
	}
	assert_int_equal(waitpid(child, NULL, 0), child);
	metrics_process(&after, "1", NULL, 0);
	assert_true(value_of(&after, "process_cpu_seconds_total") >=
		    value_of(&before, "process_cpu_seconds_total") + 0.05);
	metrics_text_free(&before);
	metrics_text_free(&after);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_metrics_exposition_is_exact),
		cmocka_unit_test(test_metrics_two_labels_span_a_grid),
		cmocka_unit_test(test_metrics_histogram_buckets_are_cumulative),
		cmocka_unit_test(test_metrics_histogram_with_label),
		cmocka_unit_test(test_metrics_blocks_are_added),
		cmocka_unit_test(test_metrics_run_time_labels),
		cmocka_unit_test(test_metrics_process_tells_of_all_processes),
		cmocka_unit_test(
			test_metrics_process_keeps_cpu_of_ended_children),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The bench's own parts: a load client that cannot see a fault proves none. */
#include "tests/bench/bench.h"
#include "tests/bench/eventjson.h"
#include "tests/bench/eventlog.h"
#include "tests/bench/hist.h"
#include "tests/bench/resumecheck.h"
#include "tests/bench/ssestream.h"
#include "tests/bench/track.h"
#include "tests/unit/unit.h"

static void test_bench_stamp_round_trip(void **state)
{
	struct stamp in = {
		.stream = 49999, .seq = 1234567890, .sent_ns = 1472481878333};
	struct stamp out;
	char data[64];

	(void)state;
	data_write(data, sizeof(data), &in);
	assert_true(stamp_read(data, sizeof(data), &out));
	assert_int_equal(out.stream, in.stream);
	assert_int_equal(out.seq, in.seq);
	assert_int_equal(out.sent_ns, in.sent_ns);
	assert_false(stamp_read(data, STAMP_BYTES - 1, &out));
	data[3] = 'x';
	assert_false(stamp_read(data, sizeof(data), &out));
}

static void test_bench_track_counts_what_is_wrong(void **state)
{
	static const uint64_t came[] = {1, 2, 4, 3, 5, 5, 9, 10, 200, 9};
	struct track_counts counts = {0};
	struct track t = {.next = 1};

	(void)state;
	for (size_t i = 0; i < sizeof(came) / sizeof(came[0]); i++)
		track_message(&counts, &t, came[i]);
	assert_int_equal(counts.gaps, 3 + 189);
	assert_int_equal(counts.doubles, 2);
	assert_int_equal(counts.reorders, 1);
}

static void test_bench_track_sees_the_first_missing(void **state)
{
	struct track_counts counts = {0};
	struct track t = {.next = 1};

	(void)state;
	track_message(&counts, &t, 3);
	assert_int_equal(counts.gaps, 2);
	track_message(&counts, &t, 1);
	assert_int_equal(counts.gaps, 1);
	assert_int_equal(counts.reorders, 1);
}

static const char body[] = "5\r\ndata:\r\n3;ext=1\r\n a\r\r\n7\r\n\n\r\nid: "
			   "\r\n8\r\n4\n\n: hi\n\r\n0\r\n\r\n";

static void test_bench_dechunk_at_every_cut(void **state)
{
	static const char payload[] = "data: a\r\n\r\nid: 4\n\n: hi\n";
	size_t len = sizeof(body) - 1;

	(void)state;
	for (size_t cut = 0; cut <= len; cut++) {
		struct dechunk d = {.phase = DECHUNK_SIZE};
		char out[sizeof(body)];
		ptrdiff_t a = dechunk(&d, out, body, cut);
		ptrdiff_t b;

		assert_true(a >= 0);
		b = dechunk(&d, out + a, body + cut, len - cut);
		assert_int_equal(a + b, sizeof(payload) - 1);
		assert_memory_equal(out, payload, sizeof(payload) - 1);
		assert_int_equal(d.phase, DECHUNK_TRAILER);
	}
}

static void test_bench_dechunk_refuses_bad_framing(void **state)
{
	static const char *const bad[] = {"zz\r\n", "fffffffff\r\n",
					  "1\r\naXX\r\n"};
	char out[64];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct dechunk d = {.phase = DECHUNK_SIZE};

		assert_int_equal(dechunk(&d, out, bad[i], strlen(bad[i])), -1);
	}
}

static void test_bench_sse_event_whole_or_nothing(void **state)
{
	static const char text[] = "id: 1\nevent: score\r\ndata: first\n"
				   "data: second\n\n";
	struct sse_event event;

	(void)state;
	for (size_t len = 0; len < sizeof(text) - 1; len++)
		assert_int_equal(sse_next(text, len, &event), 0);
	assert_int_equal(sse_next(text, sizeof(text) - 1, &event),
			 sizeof(text) - 1);
	assert_int_equal(event.type_len, 5);
	assert_memory_equal(event.type, "score", 5);
	assert_int_equal(event.data_len, 5);
	assert_memory_equal(event.data, "first", 5);
	assert_int_equal(event.id_len, 1);
	assert_memory_equal(event.id, "1", 1);
	assert_null(event.retry);
	assert_int_equal(sse_next("retry: 250\r\nid:\r\n\r\n", 19, &event), 19);
	assert_int_equal(event.retry_len, 3);
	assert_memory_equal(event.retry, "250", 3);
	assert_int_equal(event.id_len, 0);
	assert_non_null(event.id);
	assert_int_equal(sse_next(": hi\n\nx", 7, &event), 6);
	assert_null(event.data);
}

static void test_bench_resume_check_counts_what_is_wrong(void **state)
{
	struct resume_counts counts = {0};
	struct resume_check c = {0};

	(void)state;
	resume_check_ready(&c, 10);
	resume_check_ready(&c, 3); /* only the first one anchors */
	assert_true(resume_check_message(&counts, &c, 11));
	assert_true(resume_check_message(&counts, &c, 12));
	assert_false(resume_check_message(&counts, &c, 12));
	assert_false(resume_check_message(&counts, &c, 9));
	assert_int_equal(counts.doubles, 2);
	assert_false(resume_check_message(&counts, &c, 15));
	assert_int_equal(counts.holes, 2);
	assert_false(resume_check_message(&counts, &c, 13));
	assert_int_equal(counts.holes, 1);
	assert_int_equal(counts.reorders, 1);
	assert_false(resume_check_message(&counts, &c, 1000));
	assert_int_equal(counts.holes, 985);
	assert_int_equal(counts.unanchored, 0);
	resume_check_forget(&c);
	assert_true(resume_check_message(&counts, &c, 500));
	assert_int_equal(counts.unanchored, 1);
	assert_int_equal(counts.doubles, 2);
}

static void test_bench_resume_check_believes_true_gaps_only(void **state)
{
	struct resume_counts counts = {0};
	struct resume_check c = {0};

	(void)state;
	resume_check_ready(&c, 0);
	assert_true(resume_check_gap(&counts, &c, 1, 5));
	assert_true(resume_check_message(&counts, &c, 6));
	assert_int_equal(counts.holes, 0);
	assert_int_equal(counts.gap_messages, 5);
	assert_false(resume_check_message(&counts, &c, 5));
	assert_int_equal(counts.doubles, 1);
	assert_int_equal(counts.gaps_false, 0);
	assert_false(resume_check_gap(&counts, &c, 6, 8));   /* 6 came */
	assert_false(resume_check_gap(&counts, &c, 10, 12)); /* 9 is left out */
	assert_int_equal(counts.gaps_false, 2);
	assert_int_equal(counts.gaps_told, 3);
}

static void test_bench_reads_positions(void **state)
{
	static const char gap[] =
		"{\"channel\":\"a\",\"reason\":\"expired\",\"from\":"
		"{\"epoch\":\"17\",\"offset\":\"3\"},\"to\":"
		"{\"epoch\":\"17\",\"offset\":\"9\"}}";
	static const char none[] = "{\"from\":null,\"to\":{\"epoch\":\"1\"}}";
	uint64_t value;

	(void)state;
	assert_true(json_offset(gap, sizeof(gap) - 1, "from", &value));
	assert_int_equal(value, 3);
	assert_true(json_offset(gap, sizeof(gap) - 1, "to", &value));
	assert_int_equal(value, 9);
	assert_true(json_number(gap, sizeof(gap) - 1, "epoch", &value));
	assert_int_equal(value, 17);
	assert_false(json_number(gap, 5, "epoch", &value));
	assert_false(json_number(gap, sizeof(gap) - 1, "reason", &value));
	assert_false(json_offset(none, sizeof(none) - 1, "from", &value));
	assert_false(json_offset(none, sizeof(none) - 1, "to", &value));
}

/* What counts on is one record; all else ends it. */
static void test_bench_eventlog_writes_runs(void **state)
{
	static const uint64_t came[][3] = {
		{1, 1, 1}, {1, 2, 2},  {1, 3, 3}, /* a run */
		{1, 4, 5},			  /* another number */
		{1, 6, 6},			  /* a hole */
		{2, 7, 7}, {2, 8, 8},		  /* another epoch */
		{0, 0, 9}, {0, 0, 10},		  /* no place */
	};
	static const uint32_t counts[] = {3, 1, 1, 2, 2};
	struct eventlog log = {.file = tmpfile()};
	struct eventlog_run run = {0};
	struct eventlog_record r;

	(void)state;
	assert_non_null(log.file);
	for (size_t i = 0; i < sizeof(came) / sizeof(came[0]); i++)
		eventlog_message(&log, &run, 4, 5, 6, came[i][0], came[i][1],
				 came[i][2], 100 + i);
	eventlog_cut(&log, &run, 4, 5, 6);
	eventlog_cut(&log, &run, 4, 5, 6); /* there is none any more */
	rewind(log.file);
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		assert_int_equal(fread(&r, sizeof(r), 1, log.file), 1);
		assert_int_equal(r.type, EVENTLOG_RUN);
		assert_int_equal(r.count, counts[i]);
	}
	assert_int_equal(r.reader, 4);
	assert_int_equal(r.life, 5);
	assert_int_equal(r.channel, 6);
	assert_int_equal(r.c, 9);
	assert_int_equal(r.t, 107);
	assert_int_equal(r.d, 108);
	assert_int_equal(fread(&r, sizeof(r), 1, log.file), 0);
	fclose(log.file);
}

static void test_bench_eventlog_keeps_what_is_late(void **state)
{
	struct eventlog log = {.file = tmpfile()};
	struct stamp stamp = {.seq = 7, .sent_ns = 5 * NS_PER_S};
	struct eventlog_record r;

	(void)state;
	assert_non_null(log.file);
	for (int i = 0; i < 3; i++)
		eventlog_live(&log, 1, 0, 2, &stamp, 1, stamp.sent_ns + 1000);
	eventlog_live(&log, 1, 0, 2, &stamp, 1, 6 * NS_PER_S);
	eventlog_prompt_cut(&log);
	rewind(log.file);
	assert_int_equal(fread(&r, sizeof(r), 1, log.file), 1);
	assert_int_equal(r.type, EVENTLOG_LATE);
	assert_int_equal(r.c, 7);
	assert_int_equal(fread(&r, sizeof(r), 1, log.file), 1);
	assert_int_equal(r.type, EVENTLOG_PROMPT);
	assert_int_equal(r.a, 5);
	assert_int_equal(r.b, 3);
	fclose(log.file);
}

static void test_bench_json_finds_places(void **state)
{
	static const char text[] = "{\"channel\":\"a\",\"from\":{\"epoch\":"
				   "\"12\",\"offset\":\"3\"},"
				   "\"to\":null}";
	uint64_t epoch, offset;
	size_t len;

	(void)state;
	json_place(text, strlen(text), "from", &epoch, &offset);
	assert_int_equal(epoch, 12);
	assert_int_equal(offset, 3);
	json_place(text, strlen(text), "to", &epoch, &offset);
	assert_int_equal(epoch, 0);
	assert_int_equal(offset, 0);
	assert_memory_equal(json_text(text, strlen(text), "channel", &len), "a",
			    1);
	assert_int_equal(len, 1);
	assert_null(json_text(text, strlen(text), "reason", &len));
}

static void test_bench_hist_quantiles(void **state)
{
	static struct hist h;
	static struct hist earlier;

	(void)state;
	for (uint64_t i = 1; i <= 1000; i++)
		hist_add(&h, i * 1000);
	assert_in_range(hist_quantile(&h, 0.5), 500000, 509000);
	assert_in_range(hist_quantile(&h, 0.99), 990000, 1007000);
	assert_in_range(hist_quantile(&h, 1.0), 1000000, 1016000);
	earlier = h;
	hist_add(&h, 5);
	hist_subtract(&h, &earlier);
	assert_int_equal(hist_count(&h), 1);
	assert_int_equal(hist_quantile(&h, 0.5), 5);
	hist_add(&h, UINT64_MAX);
	assert_int_equal(hist_count(&h), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bench_stamp_round_trip),
		cmocka_unit_test(test_bench_track_counts_what_is_wrong),
		cmocka_unit_test(test_bench_track_sees_the_first_missing),
		cmocka_unit_test(test_bench_dechunk_at_every_cut),
		cmocka_unit_test(test_bench_dechunk_refuses_bad_framing),
		cmocka_unit_test(test_bench_sse_event_whole_or_nothing),
		cmocka_unit_test(test_bench_resume_check_counts_what_is_wrong),
		cmocka_unit_test(
			test_bench_resume_check_believes_true_gaps_only),
		cmocka_unit_test(test_bench_reads_positions),
		cmocka_unit_test(test_bench_eventlog_writes_runs),
		cmocka_unit_test(test_bench_eventlog_keeps_what_is_late),
		cmocka_unit_test(test_bench_json_finds_places),
		cmocka_unit_test(test_bench_hist_quantiles),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

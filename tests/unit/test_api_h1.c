/* Connect over HTTP/1.1, and what the port does for any connection. */
#include "common/codec/grpc.h"
#include "dispatcher/api/port.h"
#include "tests/unit/api_fixture.h"

#define SAY   "POST /test.Echo/Say HTTP/1.1\r\nHost: x\r\n"
#define JSON  "Content-Type: application/json\r\n"
#define HELLO JSON "Content-Length: 14\r\n\r\n{\"data\":\"hey\"}"
#define HOLD  JSON "Content-Length: 15\r\n\r\n{\"data\":\"hold\"}"

static void expect(struct api_fixture *f, const char *request,
		   const char *answer)
{
	struct peer *p = peer_new(f);

	peer_say(p, request);
	loop_until(f->l, peer_count(p, answer) == 1);
	peer_free(p);
}

static void test_h1_answers(void **state)
{
	static const char *const cases[][2] = {
		{SAY HELLO, "{\"messageId\":\"hey\"}"},
		{SAY JSON "Content-Length: 15\r\n\r\n{\"data\":\"fail\"}",
		 "{\"code\":\"invalid_argument\",\"message\":\"no \\\"\xc3\xbc"
		 "\\\" 100%\"}"},
		{SAY "Content-Type: application/proto\r\n"
		     "Content-Length: 5\r\n\r\n\x12\x03hey",
		 "\r\n\r\n\n\x03hey"},
		{SAY JSON "Content-Length: 1\r\n\r\n{", "400 Bad Request"},
		{SAY JSON "Content-Length: 19\r\n\r\n{\"data\":\"a\\u0000b\"}",
		 "{\"code\":\"invalid_argument\",\"message\":\"data: must not "
		 "contain NUL characters\"}"},
		{SAY JSON "Content-Encoding: br\r\nContent-Length: 2\r\n\r\n{}",
		 "501 Not Implemented"},
		{SAY JSON "Transfer-Encoding: chunked\r\n\r\n"
			  "5\r\n{\"dat\r\n9\r\na\":\"hey\"}\r\n0\r\n\r\n",
		 "{\"messageId\":\"hey\"}"},
		{SAY JSON
		 "Connect-Timeout-Ms: x\r\nContent-Length: 2\r\n\r\n{}",
		 "400 Bad Request"},
		{SAY JSON
		 "Connect-Timeout-Ms: 0\r\nContent-Length: 2\r\n\r\n{}",
		 "504 Gateway Timeout"},
		{SAY "Content-Type: text/plain\r\nContent-Length: 0\r\n\r\n",
		 "Accept-Post: application/json, application/proto"},
		{SAY "Content-Type: application/grpc\r\n"
		     "Content-Length: 0\r\n\r\n",
		 "415 Unsupported Media Type"},
		{"POST /test.Echo/Stream HTTP/1.1\r\nHost: x\r\n" HELLO,
		 "415 Unsupported Media Type"},
		{"POST /test.Echo/Nope HTTP/1.1\r\nHost: x\r\n" HELLO,
		 "404 Not Found"},
		{"GET /test.Echo/Say HTTP/1.1\r\nHost: x\r\n\r\n",
		 "Allow: POST, OPTIONS"},
		{"DELETE /test.Echo/Stats HTTP/1.1\r\nHost: x\r\n\r\n",
		 "Allow: GET, POST, OPTIONS"},
		{"OPTIONS /test.Echo/Say HTTP/1.1\r\nHost: x\r\n\r\n",
		 "204 No Content"},
		{"GET /test.Echo/Stats?connect=v1&encoding=json&message="
		 "%7B%22data%22:%22hey%22%7D HTTP/1.1\r\nHost: x\r\n\r\n",
		 "{\"messageId\":\"hey\"}"},
		{"GET /test.Echo/Stats?encoding=proto&base64=1&message="
		 "EgNoZXk HTTP/1.1\r\nHost: x\r\n\r\n",
		 "\r\n\r\n\n\x03hey"},
		{"GET /test.Echo/Stats?encoding=json HTTP/1.1\r\nHost: x\r\n"
		 "\r\n",
		 "400 Bad Request"},
		{"nonsense\r\n\r\n", "400 Bad Request"},
	};
	struct api_fixture *f = *state;

	api_begin(f, &api_test_limits);
	for (size_t i = 0; i < array_len(cases); i++)
		expect(f, cases[i][0], cases[i][1]);
	api_end(f, 1000);
}

static void test_h1_gzip(void **state)
{
	struct api_fixture *f = *state;
	struct peer *p;
	struct buf body;
	char head[256];

	api_begin(f, &api_test_limits);
	p = peer_new(f);
	buf_init(&body, 4096);
	assert_int_equal(gzip_deflate(&body, "{\"data\":\"hey\"}", 14), 0);
	snprintf(head, sizeof(head),
		 SAY JSON "Content-Encoding: gzip\r\n"
			  "Content-Length: %zu\r\n\r\n",
		 body.len);
	peer_say(p, head);
	peer_send(p, body.bytes, body.len);
	loop_until(f->l, peer_count(p, "{\"messageId\":\"hey\"}") == 1);
	buf_fini(&body);
	peer_free(p);
	api_end(f, 1000);
}

static void test_h1_body_too_large(void **state)
{
	struct api_fixture *f = *state;
	struct peer *p;

	api_begin(f, &api_test_limits);
	p = peer_new(f);
	peer_say(p, SAY JSON "Content-Length: 1048577\r\n\r\n{");
	loop_until(f->l, peer_count(p, "413 ") == 1 &&
				 peer_count(p, "resource_exhausted") == 1);
	loop_until(f->l, (peer_read(p), p->ended));
	peer_free(p);
	api_end(f, 1000);
}

static void test_h1_pipelines_in_order(void **state)
{
	struct api_fixture *f = *state;
	struct peer *p;

	api_begin(f, &api_test_limits);
	p = peer_new(f);
	peer_say(p, SAY HOLD SAY HELLO SAY HELLO);
	loop_until(f->l, f->held != NULL);
	assert_int_equal(f->messages, 1);
	echo_reply(f->held, "first");
	loop_until(f->l, peer_count(p, "HTTP/1.1 200 OK") == 3);
	assert_true(strstr(p->bytes, "first") < strstr(p->bytes, "hey"));
	peer_free(p);
	api_end(f, 1000);
}

static void test_h1_half_closed_client_gets_its_answer(void **state)
{
	struct api_fixture *f = *state;
	struct peer *p;

	api_begin(f, &api_test_limits);
	p = peer_new(f);
	peer_say(p, SAY HOLD);
	shutdown(p->fd, SHUT_WR);
	loop_until(f->l, f->held != NULL);
	echo_reply(f->held, "late");
	loop_until(f->l, peer_count(p, "late") == 1);
	loop_until(f->l, (peer_read(p), p->ended));
	peer_free(p);
	api_end(f, 1000);
}

static void test_h1_deadline_cancels(void **state)
{
	struct api_fixture *f = *state;
	struct peer *p;

	api_begin(f, &api_test_limits);
	p = peer_new(f);
	peer_say(p, SAY "Connect-Timeout-Ms: 30\r\n" HOLD);
	loop_until(f->l, peer_count(p, "deadline_exceeded") == 1);
	assert_int_equal(f->cancelled, 1);
	assert_true(f->held->cancelled);
	echo_reply(f->held, "goes nowhere");
	/* The connection is good for another. */
	peer_say(p, SAY HELLO);
	loop_until(f->l, peer_count(p, "hey") == 1);
	assert_int_equal(peer_count(p, "nowhere"), 0);
	assert_int_equal(
		(int)api_counter(f,
				 "stentor_grpc_server_handled_total{"
				 "grpc_service=\"test.Echo\",grpc_method="
				 "\"Say\",grpc_code=\"DEADLINE_EXCEEDED\"} "),
		1);
	peer_free(p);
	api_end(f, 1000);
}

static void test_h1_peer_gone_cancels(void **state)
{
	struct linger abort_it = {.l_onoff = 1};
	struct api_fixture *f = *state;
	struct peer *p;

	api_begin(f, &api_test_limits);
	p = peer_new(f);
	peer_say(p, SAY HOLD);
	loop_until(f->l, f->held != NULL);
	setsockopt(p->fd, SOL_SOCKET, SO_LINGER, &abort_it, sizeof(abort_it));
	peer_free(p);
	loop_until(f->l, f->cancelled == 1);
	rpc_fail(f->held, GRPC_INTERNAL, "goes nowhere");
	api_end(f, 1000);
}

/* What times out, with which limit and reason. */
static void times_out(struct api_fixture *f, struct api_limits limits,
		      const char *said, const char *reason)
{
	char counter[128];
	struct peer *p;

	snprintf(counter, sizeof(counter),
		 "stentor_api_connections_closed_total{reason=\"%s\"} ",
		 reason);
	api_begin(f, &limits);
	p = peer_new(f);
	peer_say(p, said);
	loop_until(f->l, (peer_read(p), p->ended));
	assert_int_equal((int)api_counter(f, counter), 1);
	peer_free(p);
	api_end(f, 1000);
}

static void test_h1_head_timeout(void **state)
{
	struct api_limits limits = api_test_limits;

	limits.head_timeout_ms = 60;
	times_out(*state, limits, "POST /test", "head_timeout");
}

static void test_port_preface_timeout(void **state)
{
	struct api_limits limits = api_test_limits;

	limits.head_timeout_ms = 60;
	times_out(*state, limits, "PRI * HTTP/2.0\r\n", "head_timeout");
}

static void test_h1_body_timeout(void **state)
{
	struct api_limits limits = api_test_limits;

	limits.body_timeout_ms = 60;
	times_out(*state, limits, SAY JSON "Content-Length: 10\r\n\r\n{",
		  "body_timeout");
}

static void test_h1_idle_timeout(void **state)
{
	struct api_limits limits = api_test_limits;

	limits.idle_timeout_ms = 60;
	times_out(*state, limits, SAY HELLO, "idle_timeout");
}

static void test_port_connection_limit(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct peer *p[3];

	limits.connections_max = 2;
	api_begin(f, &limits);
	for (int i = 0; i < 2; i++) {
		p[i] = peer_new(f);
		peer_say(p[i], SAY HELLO);
		loop_until(f->l, peer_count(p[i], "hey") == 1);
	}
	p[2] = peer_new(f);
	loop_until(f->l, (peer_read(p[2]), p[2]->ended));
	assert_int_equal(
		(int)api_counter(f, "stentor_api_connections_rejected_total{"
				    "reason=\"full\"} "),
		1);
	for (int i = 0; i < 3; i++)
		peer_free(p[i]);
	api_end(f, 1000);
}

static void test_port_silent_connections_make_way(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct peer *silent[2], *speaks;
	uint64_t came_ms;

	limits.connections_max = 2;
	api_begin(f, &limits);
	for (int i = 0; i < 2; i++) {
		silent[i] = peer_new(f);
		loop_until(f->l,
			   api_counter(f, "stentor_api_connections ") == i + 1);
	}
	/* At once it would have been too early for them. */
	speaks = peer_new(f);
	loop_until(f->l, (peer_read(speaks), speaks->ended));
	peer_free(speaks);
	came_ms = uv_now(&f->l->loop);
	loop_until(f->l, uv_now(&f->l->loop) - came_ms >= API_SILENT_MS);
	speaks = peer_new(f);
	peer_say(speaks, SAY HELLO);
	loop_until(f->l, peer_count(speaks, "hey") == 1);
	loop_until(f->l, (peer_read(silent[0]), silent[0]->ended));
	peer_read(silent[1]);
	assert_false(silent[1]->ended); /* the oldest went */
	assert_int_equal(
		(int)api_counter(f, "stentor_api_connections_closed_total{"
				    "reason=\"made_way\"} "),
		1);
	for (int i = 0; i < 2; i++)
		peer_free(silent[i]);
	peer_free(speaks);
	api_end(f, 1000);
}

/* Nobody makes way for one that its address keeps out. */
static void test_port_address_before_room(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct peer *silent[2], *third;
	uint64_t came_ms;

	limits.connections_max = limits.connections_per_address_max = 2;
	api_begin(f, &limits);
	for (int i = 0; i < 2; i++) {
		silent[i] = peer_new(f);
		loop_until(f->l,
			   api_counter(f, "stentor_api_connections ") == i + 1);
	}
	came_ms = uv_now(&f->l->loop);
	loop_until(f->l, uv_now(&f->l->loop) - came_ms >= API_SILENT_MS);
	third = peer_new(f);
	loop_until(f->l, (peer_read(third), third->ended));
	assert_int_equal(
		(int)api_counter(f, "stentor_api_connections_rejected_total{"
				    "reason=\"address\"} "),
		1);
	assert_int_equal((int)api_counter(f, "stentor_api_connections "), 2);
	peer_free(third);
	for (int i = 0; i < 2; i++)
		peer_free(silent[i]);
	api_end(f, 1000);
}

static void test_port_connections_of_an_address(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct peer *first, *second;

	limits.connections_per_address_max = 1;
	api_begin(f, &limits);
	first = peer_new(f);
	peer_say(first, SAY HELLO);
	loop_until(f->l, peer_count(first, "hey") == 1);
	second = peer_new(f);
	loop_until(f->l, (peer_read(second), second->ended));
	peer_free(second);
	assert_int_equal(
		(int)api_counter(f, "stentor_api_connections_rejected_total{"
				    "reason=\"address\"} "),
		1);
	/* When it leaves there is room for another. */
	peer_free(first);
	loop_until(f->l, api_counter(f, "stentor_api_connections ") == 0);
	second = peer_new(f);
	peer_say(second, SAY HELLO);
	loop_until(f->l, peer_count(second, "hey") == 1);
	peer_free(second);
	api_end(f, 1000);
}

static void test_port_drain_finishes_calls(void **state)
{
	struct api_fixture *f = *state;
	struct peer *idle, *busy;

	api_begin(f, &api_test_limits);
	idle = peer_new(f);
	busy = peer_new(f);
	peer_say(idle, SAY HELLO);
	loop_until(f->l, peer_count(idle, "hey") == 1);
	peer_say(busy, SAY HOLD);
	loop_until(f->l, f->held != NULL);
	api_drain(f->api, 60000, api_on_drained, f);
	loop_until(f->l, (peer_read(idle), idle->ended));
	assert_false(f->drained);
	echo_reply(f->held, "finished");
	loop_until(f->l, peer_count(busy, "finished") == 1);
	loop_until(f->l, f->drained);
	assert_int_equal(peer_count(busy, "Connection: close"), 1);
	api_free(f->api);
	peer_free(idle);
	peer_free(busy);
}

/* Its client may have sent a request before it could know. */
static void test_port_drain_serves_what_is_on_the_wire(void **state)
{
	struct api_fixture *f = *state;
	struct peer *idle, *mute, *late;

	api_begin(f, &api_test_limits);
	idle = peer_new(f);
	mute = peer_new(f);
	peer_say(idle, SAY HELLO);
	loop_until(f->l, peer_count(idle, "hey") == 1);
	loop_until(f->l, api_counter(f, "stentor_api_connections ") == 2);
	api_drain(f->api, 60000, api_on_drained, f);
	late = peer_new(f);
	loop_until(f->l, api_counter(f, "stentor_api_connections ") == 3);
	peer_say(idle, SAY HELLO);
	peer_say(mute, SAY HELLO);
	peer_say(late, SAY HELLO);
	loop_until(f->l, peer_count(idle, "hey") == 2);
	loop_until(f->l, peer_count(mute, "hey") == 1);
	loop_until(f->l, peer_count(late, "hey") == 1);
	assert_int_equal(peer_count(idle, "Connection: close"), 1);
	assert_int_equal(peer_count(mute, "Connection: close"), 1);
	assert_int_equal(peer_count(late, "Connection: close"), 1);
	/* An end, and no reset, though more was sent. */
	peer_say(idle, SAY HELLO);
	loop_until(f->l, (peer_read(idle), idle->ended));
	peer_free(idle);
	peer_free(mute);
	peer_free(late);
	loop_until(f->l, f->drained);
	api_free(f->api);
}

/* What was sent behind a call is answered too; the last says close. */
static void test_port_drain_serves_pipelined(void **state)
{
	struct api_fixture *f = *state;
	struct peer *p;
	char *close_at;

	api_begin(f, &api_test_limits);
	p = peer_new(f);
	peer_say(p, SAY HOLD SAY HELLO SAY HELLO);
	loop_until(f->l, f->held != NULL);
	api_drain(f->api, 60000, api_on_drained, f);
	echo_reply(f->held, "first");
	loop_until(f->l, peer_count(p, "HTTP/1.1 200 OK") == 3);
	assert_int_equal(peer_count(p, "Connection: close"), 1);
	close_at = strstr(p->bytes, "Connection: close");
	assert_null(strstr(close_at, "HTTP/1.1 200 OK"));
	peer_free(p);
	loop_until(f->l, f->drained);
	api_free(f->api);
}

/* A connection that has come of age is not closed under a client that may be
 * about to use it: the next answer says that it ends. */
static void test_port_age_waits_for_an_answer(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct peer *p, *other;

	limits.connection_age_ms = 40;
	api_begin(f, &limits);
	p = peer_new(f);
	peer_say(p, SAY HELLO);
	loop_until(f->l, peer_count(p, "hey") == 1);
	other = peer_new(f);
	peer_say(other, SAY "Connect-Timeout-Ms: 200\r\n" HOLD);
	loop_until(f->l, peer_count(other, "deadline_exceeded") == 1);
	echo_reply(f->held, "goes nowhere");
	assert_false(p->ended);
	peer_say(p, SAY HELLO);
	loop_until(f->l, peer_count(p, "hey") == 2);
	assert_int_equal(peer_count(p, "Connection: close"), 1);
	loop_until(f->l, (peer_read(p), p->ended));
	peer_free(p);
	peer_free(other);
	api_end(f, 1000);
}

static void test_port_drain_cuts_after_grace(void **state)
{
	struct api_fixture *f = *state;
	struct peer *p;

	api_begin(f, &api_test_limits);
	p = peer_new(f);
	peer_say(p, SAY HOLD);
	loop_until(f->l, f->held != NULL);
	api_drain(f->api, 50, api_on_drained, f);
	loop_until(f->l, f->cancelled == 1);
	assert_false(f->drained);
	echo_reply(f->held, "goes nowhere");
	loop_until(f->l, f->drained);
	api_free(f->api);
	peer_free(p);
}

static void test_port_cors(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;

	limits.cors_origin = "https://app.example";
	api_begin(f, &limits);
	expect(f, "OPTIONS /test.Echo/Say HTTP/1.1\r\nHost: x\r\n\r\n",
	       "Access-Control-Allow-Headers: content-type");
	expect(f, SAY HELLO,
	       "Access-Control-Allow-Origin: https://app.example");
	api_end(f, 1000);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, api_setup, api_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_h1_answers),
		TEST(test_h1_gzip),
		TEST(test_h1_body_too_large),
		TEST(test_h1_pipelines_in_order),
		TEST(test_h1_half_closed_client_gets_its_answer),
		TEST(test_h1_deadline_cancels),
		TEST(test_h1_peer_gone_cancels),
		TEST(test_h1_head_timeout),
		TEST(test_h1_body_timeout),
		TEST(test_h1_idle_timeout),
		TEST(test_port_preface_timeout),
		TEST(test_port_connection_limit),
		TEST(test_port_silent_connections_make_way),
		TEST(test_port_address_before_room),
		TEST(test_port_connections_of_an_address),
		TEST(test_port_drain_finishes_calls),
		TEST(test_port_drain_serves_what_is_on_the_wire),
		TEST(test_port_drain_serves_pipelined),
		TEST(test_port_age_waits_for_an_answer),
		TEST(test_port_drain_cuts_after_grace),
		TEST(test_port_cors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

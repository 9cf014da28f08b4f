/* How HTTP/2 connections end: drained, of age, or idle. */
#include "tests/unit/h2_client.h"

static void test_h2_drain(void **state)
{
	struct api_fixture *f = *state;
	struct answer *unary, *stream;
	struct h2_client *c;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	unary = grpc(c, SAY, BODY(HOLD));
	stream = request(c, STREAM, "application/grpc", BODY(HELLO), true, NULL,
			 NULL);
	until(f, c, f->messages == 2);
	api_drain(f->api, 60000, api_on_drained, f);
	until(f, c, stream->closed);
	assert_string_equal(stream->grpc_status, "14");
	assert_int_equal(stream->len, 12); /* what it had answered came first */
	until(f, c, c->goaways == 2);
	assert_false(unary->closed);
	echo_reply(f->held, "finished");
	until(f, c, unary->closed);
	assert_string_equal(unary->grpc_status, "0");
	until(f, c, f->drained);
	assert_int_equal(c->goaway_error, NGHTTP2_NO_ERROR);
	api_free(f->api);
	client_free(c);
}

/* Bytes that wait for the client. */
static bool something_came(const struct h2_client *c, size_t least)
{
	uint8_t bytes[256];

	return recv(c->peer->fd, bytes, sizeof(bytes), MSG_PEEK) >=
	       (ssize_t)least;
}

/* A client whose only call was answered before the drain that has begun. */
static struct h2_client *draining(struct api_fixture *f)
{
	struct h2_client *c;
	struct answer *a;

	api_begin(f, &api_test_limits);
	c = client_new(f, 65535);
	a = grpc(c, SAY, BODY(HELLO));
	until(f, c, a->closed);
	api_drain(f->api, 60000, api_on_drained, f);
	return c;
}

/* A call that its client made before it saw the GOAWAY, on a connection that
 * has no other. */
static void test_h2_drain_serves_what_is_on_the_wire(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c = draining(f);
	struct answer *a;

	/* GOAWAY and PING are there, and it makes two more. */
	loop_until(f->l, something_came(c, 17 + 17));
	a = grpc(c, SAY, BODY(HELLO));
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "0");
	until(f, c, c->goaways == 2);
	until(f, c, c->peer->ended);
	client_free(c);
	loop_until(f->l, f->drained);
	api_free(f->api);
}

/* A client that does not answer the PING holds nothing up for long. */
static void test_h2_drain_without_a_round_trip(void **state)
{
	struct api_fixture *f = *state;
	struct h2_client *c = draining(f);

	loop_until(f->l, f->drained);
	api_free(f->api);
	client_free(c);
}

/* Streams would live for ever: they end in order and are begun elsewhere. */
static void test_h2_connection_age_moves_streams(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	limits.connection_age_ms = 100;
	api_begin(f, &limits);
	c = client_new(f, 65535);
	a = request(c, STREAM, "application/grpc", BODY(HELLO), true, NULL,
		    NULL);
	until(f, c, f->messages == 1);
	until(f, c, a->closed);
	assert_string_equal(a->grpc_status, "14");
	assert_non_null(strstr(a->message, "come of age"));
	assert_int_equal(a->len, 12); /* what it had answered came first */
	until(f, c, c->peer->ended);
	client_free(c);
	api_end(f, 1000);
}

/* Requests that have come are answered before the stream ends. */
static void test_h2_drain_answers_what_waits(void **state)
{
	static const uint8_t body[] = HOLD HELLO HELLO;
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	api_begin(f, &api_test_limits);
	c = client_new(f, 1 << 20);
	a = request(c, STREAM, "application/grpc", body, sizeof(body) - 1, true,
		    NULL, NULL);
	until(f, c, f->held != NULL);
	api_drain(f->api, 60000, api_on_drained, f);
	until(f, c, c->goaways == 2);
	assert_false(a->closed);
	assert_int_equal(f->messages, 1);
	rpc_resume(f->held);
	until(f, c, a->closed);
	assert_int_equal(f->messages, 3);
	assert_string_equal(a->grpc_status, "14");
	client_free(c);
	loop_until(f->l, f->drained);
	api_free(f->api);
}

static void test_h2_connection_age(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct h2_client *c;
	struct answer *a;

	limits.connection_age_ms = 100;
	api_begin(f, &limits);
	c = client_new(f, 65535);
	a = grpc(c, SAY, BODY(HOLD));
	until(f, c, c->goaways == 2);
	assert_false(a->closed);
	echo_reply(f->held, "still served");
	until(f, c, c->peer->ended);
	assert_string_equal(a->grpc_status, "0");
	client_free(c);
	api_end(f, 1000);
}

/* Said with GOAWAY, so that a client does not lose a call to the race. */
static void test_h2_idle_connection_leaves(void **state)
{
	struct api_limits limits = api_test_limits;
	struct api_fixture *f = *state;
	struct h2_client *c;

	limits.idle_timeout_ms = 60;
	api_begin(f, &limits);
	c = client_new(f, 65535);
	until(f, c, c->peer->ended);
	assert_true(c->goaways > 0);
	assert_int_equal(
		(int)api_counter(f, "stentor_api_connections_closed_total{"
				    "reason=\"idle_timeout\"} "),
		1);
	client_free(c);
	api_end(f, 1000);
}

#define TEST(name) \
	cmocka_unit_test_setup_teardown(name, api_setup, api_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_h2_drain),
		TEST(test_h2_drain_serves_what_is_on_the_wire),
		TEST(test_h2_drain_without_a_round_trip),
		TEST(test_h2_drain_answers_what_waits),
		TEST(test_h2_connection_age),
		TEST(test_h2_connection_age_moves_streams),
		TEST(test_h2_idle_connection_leaves),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

#include "common/io/admin.h"

#include "common/ds/buf.h"
#include "tests/unit/loop_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BIG (4u << 20)

/* --- the server -------------------------------------------------------- */

static void handle_text(void *ctx, const struct http1_request *request,
			struct admin_reply *reply)
{
	unsigned *handled = ctx;

	++*handled;
	assert_int_equal(buf_printf(&reply->body, "%s?%s#%u", request->path,
				    request->query, *handled),
			 0);
}

static void handle_echo(void *ctx, const struct http1_request *request,
			struct admin_reply *reply)
{
	(void)ctx;
	reply->status = 202;
	reply->content_type = "application/json";
	reply->headers = "x-tail: yes\r\n";
	assert_int_equal(
		buf_append(&reply->body, request->body, request->body_len), 0);
}

static void handle_big(void *ctx, const struct http1_request *request,
		       struct admin_reply *reply)
{
	uint8_t *bytes = buf_extend(&reply->body, BIG);

	(void)ctx;
	(void)request;
	assert_non_null(bytes);
	memset(bytes, 'x', BIG);
}

static const struct admin_route routes[] = {
	{"GET", "/text", handle_text, ADMIN_ONLY},
	{"GET", "/big", handle_big, ADMIN_ONLY},
	{"POST", "/echo", handle_echo, ADMIN_ONLY},
	{"GET", "/both", handle_text, ADMIN_ONLY},
	{"PUT", "/both", handle_echo, ADMIN_ONLY},
	{.path = NULL},
};

struct server {
	struct admin *admin;
	unsigned handled;
};

static void server_start(struct loop_fixture *f, struct server *s)
{
	memset(s, 0, sizeof(*s));
	assert_int_equal(admin_start(&f->loop, "127.0.0.1:0", routes,
				     &s->handled, NULL, &s->admin),
			 0);
}

/* --- a client ---------------------------------------------------------- */

struct client {
	int fd;
	bool ended; /* the server closed */
	size_t len;
	char *text;
};

static void client_start(struct client *c, const struct server *s)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(admin_port(s->admin)),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	memset(c, 0, sizeof(*c));
	c->text = calloc(1, BIG + 4096);
	c->fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_true(c->fd >= 0);
	assert_int_equal(connect(c->fd, (struct sockaddr *)&to, sizeof(to)), 0);
}

static void client_send(struct client *c, const char *text)
{
	assert_int_equal(send(c->fd, text, strlen(text), MSG_NOSIGNAL),
			 strlen(text));
}

/* Takes what has come; true when that ends with, or holds, `what`. */
static bool client_got(struct client *c, const char *what)
{
	ssize_t n;

	while ((n = recv(c->fd, c->text + c->len, BIG + 4095 - c->len,
			 MSG_DONTWAIT)) > 0)
		c->len += (size_t)n;
	c->text[c->len] = '\0';
	if (n == 0 || (n < 0 && errno != EAGAIN))
		c->ended = true;
	return what != NULL && strstr(c->text, what) != NULL;
}

static bool client_ended(struct client *c)
{
	client_got(c, NULL);
	return c->ended;
}

static void client_forget(struct client *c)
{
	c->len = 0;
	c->text[0] = '\0';
}

static void client_stop(struct client *c)
{
	close(c->fd);
	free(c->text);
}

#define GET(path) "GET " path " HTTP/1.1\r\nhost: a\r\n\r\n"

/* --- tests ------------------------------------------------------------- */

static void test_admin_keeps_a_connection_alive(void **state)
{
	struct loop_fixture *f = *state;
	struct server s;
	struct client c;

	server_start(f, &s);
	client_start(&c, &s);
	client_send(&c, GET("/text?a=1"));
	loop_until(f, client_got(&c, "/text?a=1#1"));
	assert_non_null(strstr(c.text, "HTTP/1.1 200 OK\r\n"));
	assert_non_null(strstr(c.text, "text/plain; charset=utf-8\r\n"));
	client_forget(&c);
	client_send(&c, "POST /echo HTTP/1.1\r\nhost: a\r\n"
			"content-length: 7\r\n\r\n{\"a\":1}");
	loop_until(f, client_got(&c, "{\"a\":1}"));
	assert_non_null(strstr(c.text, "HTTP/1.1 202 "));
	assert_non_null(strstr(c.text, "x-tail: yes\r\n"));
	assert_false(c.ended);
	client_forget(&c);
	client_send(&c, "GET /text HTTP/1.1\r\nhost: a\r\n"
			"connection: close\r\n\r\n");
	loop_until(f, client_ended(&c));
	assert_non_null(strstr(c.text, "/text?#2"));
	client_stop(&c);
	admin_close(s.admin);
}

static void test_admin_answers_a_pipeline_in_order(void **state)
{
	struct loop_fixture *f = *state;
	struct server s;
	struct client c;
	char text[32], *at, *previous;

	server_start(f, &s);
	client_start(&c, &s);
	for (unsigned i = 0; i < 100; i++)
		client_send(&c, GET("/text"));
	client_send(&c, "GET /te");
	loop_until(f, client_got(&c, "/text?#100"));
	previous = c.text;
	for (unsigned i = 1; i <= 100; i++) {
		snprintf(text, sizeof(text), "/text?#%u", i);
		at = strstr(c.text, text);
		assert_non_null(at);
		assert_true(at > previous);
		previous = at;
	}
	client_send(&c, "xt HTTP/1.1\r\nhost: a\r\n\r\n");
	loop_until(f, client_got(&c, "/text?#101"));
	client_stop(&c);
	admin_close(s.admin);
}

/* Sends, and requires the status line; `closes`: the connection ends too. */
static void expect(struct loop_fixture *f, const char *request,
		   const char *first, const char *second, bool closes)
{
	struct server s;
	struct client c;

	server_start(f, &s);
	client_start(&c, &s);
	client_send(&c, request);
	loop_until(f, client_got(&c, first));
	if (second != NULL)
		assert_non_null(strstr(c.text, second));
	if (closes) {
		loop_until(f, client_ended(&c));
	} else {
		client_forget(&c);
		client_send(&c, GET("/text"));
		loop_until(f, client_got(&c, "/text?#"));
	}
	client_stop(&c);
	admin_close(s.admin);
	assert_true(loop_drain(f));
}

static void test_admin_refuses_what_is_wrong(void **state)
{
	struct loop_fixture *f = *state;
	static char head[10000] = "GET /text HTTP/1.1\r\nx: ";

	memset(head + strlen(head), 'a', sizeof(head) - strlen(head) - 1);
	expect(f, GET("/none"), "HTTP/1.1 404 ", NULL, false);
	expect(f, "DELETE /both HTTP/1.1\r\nhost: a\r\n\r\n", "HTTP/1.1 405 ",
	       "Allow: GET, HEAD, PUT\r\n", false);
	expect(f, GET("/echo"), "HTTP/1.1 405 ", "Allow: POST\r\n", false);
	expect(f, head, "HTTP/1.1 431 ", NULL, true);
	expect(f, "\x16\x03\x01 nonsense\r\n\r\n", "HTTP/1.1 400 ", NULL, true);
	expect(f,
	       "POST /echo HTTP/1.1\r\nhost: a\r\n"
	       "content-length: 70000\r\n\r\n",
	       "HTTP/1.1 413 ", NULL, true);
}

static void test_admin_head_has_no_body(void **state)
{
	expect(*state, "HEAD /text HTTP/1.1\r\nhost: a\r\n\r\n",
	       "HTTP/1.1 200 OK", NULL, false);
	expect(*state, "HEAD /big HTTP/1.1\r\nhost: a\r\n\r\n" GET("/none"),
	       "no such path\n", "4194304\r\n", false);
}

static void test_admin_times_out_a_slow_request(void **state)
{
	struct loop_fixture *f = *state;
	struct server s;
	struct client slow, body, idle;

	server_start(f, &s);
	admin_set_timeout(s.admin, 200);
	client_start(&slow, &s);
	client_start(&body, &s);
	client_start(&idle, &s);
	client_send(&slow, "GET /text HTTP/1.1\r\nhost");
	client_send(&body, "POST /echo HTTP/1.1\r\nhost: a\r\n"
			   "content-length: 9\r\n\r\nabc");
	loop_until(f, client_got(&slow, "HTTP/1.1 408 "));
	loop_until(f, client_got(&body, "HTTP/1.1 408 "));
	assert_false(client_ended(&idle));
	loop_until(f, client_ended(&slow) && client_ended(&body));
	loop_until(f, client_ended(&idle));
	assert_int_equal(idle.len, 0);
	assert_int_equal(s.handled, 0);
	client_stop(&slow);
	client_stop(&body);
	client_stop(&idle);
	admin_close(s.admin);
}

static void test_admin_cuts_off_one_who_does_not_read(void **state)
{
	struct loop_fixture *f = *state;
	struct server s;
	struct client c, reader;

	server_start(f, &s);
	admin_set_timeout(s.admin, 300);
	client_start(&c, &s);
	client_start(&reader, &s);
	for (unsigned i = 0; i < 4; i++)
		client_send(&c, GET("/big"));
	client_send(&reader, GET("/big"));
	loop_until(f, (client_got(&reader, NULL), reader.len > BIG));
	assert_false(reader.ended);
	/* Only a look: what it did not take stays untaken. */
	loop_until(f, send(c.fd, "G", 1, MSG_NOSIGNAL) < 0);
	client_stop(&c);
	client_stop(&reader);
	admin_close(s.admin);
}

static void test_admin_full_lets_the_oldest_idle_go(void **state)
{
	struct loop_fixture *f = *state;
	struct client c[ADMIN_CONNECTIONS_MAX + 1];
	struct server s;

	server_start(f, &s);
	for (unsigned i = 0; i < array_len(c); i++) {
		client_start(&c[i], &s);
		client_send(&c[i], GET("/text"));
		loop_until(f, client_got(&c[i], "/text?#"));
	}
	loop_until(f, client_ended(&c[0]));
	for (unsigned i = 1; i < array_len(c); i++)
		assert_false(client_ended(&c[i]));
	client_stop(&c[0]);

	/* All of them busy: the newcomer is let go. */
	for (unsigned i = 1; i < array_len(c); i++)
		client_send(&c[i], "GET /te");
	client_start(&c[0], &s);
	loop_until(f, client_ended(&c[0]));
	for (unsigned i = 1; i < array_len(c); i++)
		assert_false(client_ended(&c[i]));
	for (unsigned i = 0; i < array_len(c); i++)
		client_stop(&c[i]);
	admin_close(s.admin);
}

static void test_admin_closes_with_connections_open(void **state)
{
	struct loop_fixture *f = *state;
	struct client c[3];
	struct server s;

	server_start(f, &s);
	for (unsigned i = 0; i < array_len(c); i++)
		client_start(&c[i], &s);
	client_send(&c[0], GET("/text"));
	loop_until(f, client_got(&c[0], "/text?#"));
	client_send(&c[1], GET("/big")); /* more than the socket takes */
	loop_until(f, client_got(&c[1], "200 OK"));
	admin_close(s.admin);
	admin_close(s.admin);
	assert_true(loop_drain(f));
	for (unsigned i = 0; i < array_len(c); i++)
		client_stop(&c[i]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, loop_setup, loop_teardown)
	const struct CMUnitTest tests[] = {
		T(test_admin_keeps_a_connection_alive),
		T(test_admin_answers_a_pipeline_in_order),
		T(test_admin_refuses_what_is_wrong),
		T(test_admin_head_has_no_body),
		T(test_admin_times_out_a_slow_request),
		T(test_admin_cuts_off_one_who_does_not_read),
		T(test_admin_full_lets_the_oldest_idle_go),
		T(test_admin_closes_with_connections_open),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

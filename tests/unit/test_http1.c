/* The HTTP/1.1 parser: whatever the pieces, the same request; and everything
 * that is refused, with its status. */
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/http1.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD_MAX 1024
#define URL_MAX	 256
#define BODY_MAX 64

static const struct http1_limits limits = {HEAD_MAX, URL_MAX, BODY_MAX};

/* Feeds a text in one piece; returns what http1_feed() says last. */
static int feed(struct http1 *p, const char *text, size_t *used,
		const struct http1_request **r)
{
	return http1_feed(p, text, strlen(text), used, r);
}

/* The status a request is refused with, the same whole and byte by byte;
 * 0: more is needed, 1: it is complete. */
static int status_of_bytes(const char *text, size_t len)
{
	const struct http1_request *r;
	struct http1 *p = http1_new(&limits);
	size_t used;
	int rv = http1_feed(p, text, len, &used, &r);
	int status = rv < 0 ? http1_status(p) : rv;

	if (rv < 0) {
		assert_int_not_equal(http1_why(p)[0], '\0');
		assert_null(r);
		assert_int_equal(http1_feed(p, "x", 1, &used, &r), rv);
	}
	http1_reset(p);
	rv = 0;
	for (size_t i = 0; i < len && rv == 0; i++)
		rv = http1_feed(p, text + i, 1, &used, &r);
	assert_int_equal(rv < 0 ? http1_status(p) : rv, status);
	http1_free(p);
	return status;
}

static int status_of(const char *text)
{
	return status_of_bytes(text, strlen(text));
}

static const char get[] = "GET /v1/sub%73cribe?channel=a%20b&x HTTP/1.1\r\n"
			  "HOST: example.org\r\n"
			  "Accept:text/event-stream\r\n"
			  "X-Empty:\r\n"
			  "X-Spaces: \t a b \t \r\n"
			  "\r\n";

static void assert_get(const struct http1_request *r)
{
	assert_string_equal(r->method, "GET");
	assert_string_equal(r->path, "/v1/subscribe");
	assert_string_equal(r->query, "channel=a%20b&x");
	assert_true(r->keep_alive);
	assert_int_equal(r->header_count, 4);
	assert_string_equal(r->headers[0].name, "host");
	assert_string_equal(r->headers[0].value, "example.org");
	assert_string_equal(http1_get(r, "accept"), "text/event-stream");
	assert_string_equal(http1_get(r, "x-empty"), "");
	assert_string_equal(http1_get(r, "x-spaces"), "a b");
	assert_null(http1_get(r, "cookie"));
	assert_int_equal(r->body_len, 0);
}

static void test_http1_get_in_any_two_pieces(void **state)
{
	struct http1 *p = http1_new(&limits);
	const struct http1_request *r;
	size_t used, len = sizeof(get) - 1;

	(void)state;
	for (size_t cut = 0; cut < len; cut++) {
		assert_false(http1_started(p));
		assert_int_equal(http1_feed(p, get, cut, &used, &r), 0);
		assert_int_equal(used, cut);
		assert_null(r);
		assert_int_equal(http1_started(p), cut > 0);
		assert_int_equal(http1_feed(p, get + cut, len - cut, &used, &r),
				 1);
		assert_int_equal(used, len - cut);
		assert_ptr_equal(http1_head(p), r);
		assert_get(r);
	}
	http1_free(p);
}

static void test_http1_pipelined_requests(void **state)
{
	struct http1 *p = http1_new(&limits);
	const struct http1_request *r;
	char *text = xmalloc(3 * sizeof(get));
	size_t used, at = 0;

	(void)state;
	snprintf(text, 3 * sizeof(get), "%s%s%s", get, get, get);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(feed(p, text + at, &used, &r), 1);
		assert_int_equal(used, sizeof(get) - 1);
		assert_get(r);
		at += used;
	}
	assert_false(http1_started(p));
	free(text);
	http1_free(p);
}

static const char post[] = "POST /a.B/C HTTP/1.1\r\nHost: x\r\n"
			   "Content-Length: 11\r\n\r\nhello world";
static const char chunked[] =
	"POST /a.B/C HTTP/1.1\r\nHost: x\r\n"
	"Transfer-Encoding: Chunked\r\n\r\n"
	"5;ext=1\r\nhello\r\n06\r\n world\r\n0\r\nTrailer: t\r\n\r\n";

static void test_http1_bodies_in_any_two_pieces(void **state)
{
	static const char *const texts[] = {post, chunked};
	struct http1 *p = http1_new(&limits);
	const struct http1_request *r;
	size_t used;

	(void)state;
	for (size_t i = 0; i < array_len(texts); i++) {
		size_t len = strlen(texts[i]);
		size_t head =
			(size_t)(strstr(texts[i], "\r\n\r\n") - texts[i] + 4);

		for (size_t cut = 0; cut < len; cut++) {
			assert_int_equal(
				http1_feed(p, texts[i], cut, &used, &r), 0);
			assert_int_equal(r != NULL, cut >= head);
			assert_int_equal(http1_head(p) != NULL, cut >= head);
			assert_int_equal(http1_feed(p, texts[i] + cut,
						    len - cut, &used, &r),
					 1);
			assert_int_equal(used, len - cut);
			assert_string_equal(r->path, "/a.B/C");
			assert_int_equal(r->body_len, 11);
			assert_memory_equal(r->body, "hello world", 11);
		}
	}
	http1_free(p);
}

static void test_http1_next_request_is_left_alone(void **state)
{
	struct http1 *p = http1_new(&limits);
	const struct http1_request *r;
	char text[sizeof(chunked) + 16];
	size_t used;

	(void)state;
	snprintf(text, sizeof(text), "%sGET / HT", chunked);
	assert_int_equal(feed(p, text, &used, &r), 1);
	assert_int_equal(used, sizeof(chunked) - 1);
	snprintf(text, sizeof(text), "%sGET / HT", post);
	assert_int_equal(feed(p, text, &used, &r), 1);
	assert_int_equal(used, sizeof(post) - 1);
	http1_free(p);
}

static void test_http1_keep_alive(void **state)
{
	static const struct {
		const char *text;
		bool keep_alive;
	} cases[] = {
		{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", true},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		 false},
		{"GET / HTTP/1.0\r\n\r\n", false},
		{"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true},
		{"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
		 "Upgrade: h2c\r\n\r\n",
		 true},
	};
	struct http1 *p = http1_new(&limits);
	const struct http1_request *r;
	size_t used;

	(void)state;
	for (size_t i = 0; i < array_len(cases); i++) {
		assert_int_equal(feed(p, cases[i].text, &used, &r), 1);
		assert_int_equal(used, strlen(cases[i].text));
		assert_int_equal(r->keep_alive, cases[i].keep_alive);
	}
	http1_free(p);
}

#define HOST " HTTP/1.1\r\nHost: x\r\n"

static void test_http1_targets(void **state)
{
	(void)state;
	assert_int_equal(status_of("OPTIONS *" HOST "\r\n"), 1);
	assert_int_equal(status_of("GET /%41%2f" HOST "\r\n"), 1);
	assert_int_equal(status_of("GET /?%00" HOST "\r\n"), 1);
	assert_int_equal(status_of("GET *" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET http://x/" HOST "\r\n"), 1);
	assert_int_equal(status_of("GET http:///a" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET http://a@x/" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET ftp://x/" HOST "\r\n"), 400);
	assert_int_equal(status_of("CONNECT x:1" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET a" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET " HOST "\r\n"), 400);
	assert_int_equal(status_of("GET ?a" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET /%00" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET /%" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET /%4" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET /%4?1" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET /%zz" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET /a#b" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET /a\tb" HOST "\r\n"), 400);
	assert_int_equal(status_of_bytes("GET /\0" HOST "\r\n", 28), 400);
}

static void test_http1_versions(void **state)
{
	(void)state;
	assert_int_equal(status_of("GET / HTTP/1.0\r\n\r\n"), 1);
	assert_int_equal(status_of("GET / HTTP/1.2\r\nHost: x\r\n\r\n"), 505);
	assert_int_equal(status_of("GET / HTTP/2.0\r\nHost: x\r\n\r\n"), 505);
	assert_int_equal(status_of("GET / HTTP/0.9\r\nHost: x\r\n\r\n"), 505);
	assert_int_equal(status_of("GET /\r\n\r\n"), 505);
	assert_int_equal(status_of("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 505);
}

static void test_http1_line_ends(void **state)
{
	(void)state;
	assert_int_equal(status_of("\r\nGET /" HOST "\r\n"), 1);
	assert_int_equal(status_of("GET /" HOST "\r\rX"), 400);
	assert_int_equal(status_of("GET /" HOST "\rX"), 400);
	assert_int_equal(status_of("GET /" HOST "\n"), 400);
	assert_int_equal(status_of("GET / HTTP/1.1\nHost: x\n\n"), 400);
	assert_int_equal(status_of("\nGET /" HOST "\r\n"), 400);
	assert_int_equal(status_of("GET /" HOST "A: b\rC: d\r\n\r\n"), 400);
	assert_int_equal(status_of("GET /" HOST "A: b\nC: d\r\n\r\n"), 400);
	assert_int_equal(status_of("GET /" HOST "A: b\r\n c\r\n\r\n"), 400);
	assert_int_equal(status_of("GET /" HOST "A:\r\n\tc\r\n\r\n"), 400);
	assert_int_equal(status_of("GET /" HOST " A: b\r\n\r\n"), 400);
}

static void test_http1_headers(void **state)
{
	(void)state;
	assert_int_equal(status_of("GET / HTTP/1.1\r\n\r\n"), 400);
	assert_int_equal(status_of("GET /" HOST "Host: x\r\n\r\n"), 400);
	assert_int_equal(status_of("GET /" HOST "A : b\r\n\r\n"), 400);
	assert_int_equal(status_of("GET /" HOST "A\x01: b\r\n\r\n"), 400);
	assert_int_equal(status_of("GET /" HOST "A: \x01\r\n\r\n"), 400);
	assert_int_equal(status_of("GET /" HOST ": b\r\n\r\n"), 400);
	assert_int_equal(status_of("GET /" HOST "novalue\r\n\r\n"), 400);
	assert_int_equal(status_of("\x16\x03\x01\x02"), 400);
	assert_int_equal(status_of("BREW /" HOST "\r\n"), 400);
}

static void test_http1_body_framing(void **state)
{
	(void)state;
	assert_int_equal(
		status_of("POST /" HOST "Content-Length: 1\r\n"
			  "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
		400);
	assert_int_equal(status_of("POST /" HOST
				   "Transfer-Encoding: chunked\r\n"
				   "Content-Length: 1\r\n\r\n0\r\n\r\n"),
			 400);
	assert_int_equal(status_of("POST /" HOST "Content-Length: 1\r\n"
				   "Content-Length: 1\r\n\r\nx"),
			 400);
	assert_int_equal(
		status_of("POST /" HOST "Content-Length: 1, 1\r\n\r\nx"), 400);
	assert_int_equal(status_of("POST /" HOST "Content-Length: -1\r\n\r\n"),
			 400);
	assert_int_equal(status_of("POST /" HOST "Content-Length: +1\r\n\r\n"),
			 400);
	assert_int_equal(status_of("POST /" HOST "Content-Length: "
				   "99999999999999999999\r\n\r\n"),
			 400);
	assert_int_equal(status_of("POST /" HOST "Transfer-Encoding: gzip, "
				   "chunked\r\n\r\n"),
			 501);
	assert_int_equal(
		status_of("POST /" HOST "Transfer-Encoding: gzip\r\n\r\n"),
		501);
	assert_int_equal(status_of("POST /" HOST
				   "Transfer-Encoding: chunked\r\n"
				   "Transfer-Encoding: chunked\r\n\r\n"),
			 400);
	assert_int_equal(status_of("POST / HTTP/1.0\r\nTransfer-Encoding: "
				   "chunked\r\n\r\n0\r\n\r\n"),
			 400);
}

#define CHUNKED HOST "Transfer-Encoding: chunked\r\n\r\n"

static void test_http1_chunks(void **state)
{
	(void)state;
	assert_int_equal(status_of("POST /" CHUNKED "0\r\n\r\n"), 1);
	assert_int_equal(status_of("POST /" CHUNKED "1\r\nx\r\n0\r\n\r\n"), 1);
	assert_int_equal(status_of("POST /" CHUNKED "1\nx\r\n0\r\n\r\n"), 400);
	assert_int_equal(status_of("POST /" CHUNKED "x\r\n"), 400);
	assert_int_equal(status_of("POST /" CHUNKED "1\r\nxy\r\n"), 400);
	assert_int_equal(status_of("POST /" CHUNKED "-1\r\n"), 400);
	assert_int_equal(status_of("POST /" CHUNKED "41\r\n"), 413);
	assert_int_equal(status_of("POST /" CHUNKED "ffffffffffffffff\r\n"),
			 413);
	assert_int_equal(status_of("POST /" CHUNKED "fffffffffffffffff\r\n"),
			 400);
}

/* A chunk of two, then extension or trailer bytes without end. */
static void test_http1_chunked_overhead_is_bounded(void **state)
{
	static const char *const starts[] = {
		"POST /" CHUNKED "2\r\nab\r\n1;",
		"POST /" CHUNKED "2\r\nab\r\n0\r\nT: ",
		"POST /" CHUNKED "2\r\nab\r\n0",
	};
	size_t max = HEAD_MAX + 8 * BODY_MAX;
	char *flood = xmalloc(max);

	(void)state;
	for (size_t i = 0; i < array_len(starts); i++) {
		struct http1 *p = http1_new(&limits);
		const struct http1_request *r;
		size_t used;

		memset(flood, '0', max);
		assert_int_equal(feed(p, starts[i], &used, &r), 0);
		assert_int_equal(http1_feed(p, flood, max, &used, &r),
				 ERR_TOO_LARGE);
		assert_int_equal(http1_status(p), 413);
		http1_free(p);
	}
	free(flood);
}

static void test_http1_limits(void **state)
{
	char text[4 * HEAD_MAX];
	int n;

	(void)state;
	/* A head of exactly the limit, and one byte more. */
	for (int over = 0; over < 2; over++) {
		n = snprintf(text, sizeof(text), "GET /" HOST "A: ");
		memset(text + n, 'a', HEAD_MAX);
		strcpy(text + HEAD_MAX + over - 4, "\r\n\r\n");
		assert_int_equal(status_of(text), over ? 431 : 1);
	}
	for (int over = 0; over < 2; over++) {
		n = snprintf(text, sizeof(text), "GET /");
		memset(text + n, 'u', URL_MAX);
		strcpy(text + 4 + URL_MAX + over, HOST "\r\n");
		assert_int_equal(status_of(text), over ? 414 : 1);
	}
	for (int count = HTTP1_HEADERS_MAX; count <= HTTP1_HEADERS_MAX + 1;
	     count++) {
		n = snprintf(text, sizeof(text), "GET /" HOST);
		for (int i = 1; i < count; i++)
			n += snprintf(text + n, 16, "h: %d\r\n", i);
		strcpy(text + n, "\r\n");
		assert_int_equal(status_of(text),
				 count > HTTP1_HEADERS_MAX ? 431 : 1);
	}
	assert_int_equal(status_of("POST /" HOST "Content-Length: 64\r\n\r\n"),
			 0);
	assert_int_equal(status_of("POST /" HOST "Content-Length: 65\r\n\r\n"),
			 413);
	memset(text, '\r', 2);
	for (int i = 0; i < HEAD_MAX; i += 2)
		memcpy(text + i, "\r\n", 2);
	assert_int_equal(status_of_bytes(text, HEAD_MAX), 431);
}

static void test_http1_no_body_allowed(void **state)
{
	struct http1_limits none = {HEAD_MAX, URL_MAX, 0};
	struct http1 *p = http1_new(&none);
	const struct http1_request *r;
	size_t used;

	(void)state;
	assert_int_equal(
		feed(p, "GET /" HOST "Content-Length: 0\r\n\r\n", &used, &r),
		1);
	assert_int_equal(
		feed(p, "GET /" HOST "Content-Length: 1\r\n\r\n", &used, &r),
		ERR_TOO_LARGE);
	assert_int_equal(http1_status(p), 413);
	http1_reset(p);
	assert_int_equal(feed(p, "GET /" CHUNKED, &used, &r), ERR_TOO_LARGE);
	assert_int_equal(http1_status(p), 413);
	http1_free(p);
}

static void test_http1_query_walk(void **state)
{
	const char *cursor = "&a=1&&b=x+y%2Bz%C3%A9&c&=d&e==&";
	static const char *const pairs[][2] = {
		{"a", "1"}, {"b", "x y+z\xc3\xa9"}, {"c", ""}, {"", "d"},
		{"e", "="},
	};
	char name[8], value[16];

	(void)state;
	for (size_t i = 0; i < array_len(pairs); i++) {
		assert_int_equal(http1_query(&cursor, name, sizeof(name), value,
					     sizeof(value)),
				 1);
		assert_string_equal(name, pairs[i][0]);
		assert_string_equal(value, pairs[i][1]);
	}
	assert_int_equal(
		http1_query(&cursor, name, sizeof(name), value, sizeof(value)),
		0);
}

static void test_http1_query_refuses(void **state)
{
	static const struct {
		const char *query;
		int expected;
	} cases[] = {
		{"", 0},
		{"&&", 0},
		{"a=%", ERR_MALFORMED},
		{"a=%4", ERR_MALFORMED},
		{"a=%4&1", ERR_MALFORMED},
		{"a=%g0", ERR_MALFORMED},
		{"a=%0g", ERR_MALFORMED},
		{"a=%00", ERR_MALFORMED},
		{"%00=a", ERR_MALFORMED},
		{"abc=1", 1},
		{"abcd=1", ERR_TOO_LARGE},
		{"a=%41bc", 1},
		{"a=%41bcd", ERR_TOO_LARGE},
	};

	(void)state;
	for (size_t i = 0; i < array_len(cases); i++) {
		const char *cursor = cases[i].query;
		char name[4], value[4];

		assert_int_equal(http1_query(&cursor, name, sizeof(name), value,
					     sizeof(value)),
				 cases[i].expected);
	}
}

static void test_http1_accept(void **state)
{
	static const struct {
		const char *accept;
		bool admitted;
	} cases[] = {
		{NULL, true},
		{"", true},
		{" ", true},
		{"text/event-stream", true},
		{"Text/Event-Stream", true},
		{"text/html, text/event-stream;q=0.5", true},
		{"text/event-stream;charset=utf-8", true},
		{"text/*", true},
		{"*/*", true},
		{"text/html,*/*;q=0.1", true},
		{"text/html", false},
		{"text/event-streams", false},
		{"application/*", false},
		{"text/event-stream;q=0", false},
		{"text/event-stream; q=0.000", false},
		{"text/event-stream;q=0.001", true},
		{"text/event-stream;Q=0, */*", false},
		{"*/*, text/event-stream;q=0", false},
		{"text/*;q=0, text/event-stream", true},
		{"text/event-stream;a=b;q=0", false},
		{",,,", false},
		{"*", false},
	};

	struct http1_request r = {.headers = {{"accept", NULL}}};

	(void)state;
	for (size_t i = 0; i < array_len(cases); i++) {
		r.headers[0].value = cases[i].accept;
		r.header_count = cases[i].accept != NULL;
		assert_int_equal(http1_accepts(&r, "text/event-stream"),
				 cases[i].admitted);
	}
}

/* Known of a head that is refused, if it had come. */
static void test_http1_origin(void **state)
{
	static const struct {
		const char *text, *origin;
	} cases[] = {
		{"GET / HTTP/1.1\r\nHost: x\r\nOrigin: http://a\r\nX:",
		 "http://a"},
		{"GET / HTTP/1.1\r\nOrigin: http://a\r\n\r\n", "http://a"},
		{"GET / HTTP/1.1\r\nOrigin: http://a\r\na@b: c\r\n",
		 "http://a"},
		{"GET / HTTP/1.1\r\nOrigin: http", NULL},
		{"GET /", NULL},
	};
	const struct http1_request *r;
	size_t used;

	(void)state;
	for (size_t i = 0; i < array_len(cases); i++) {
		struct http1 *p = http1_new(&limits);

		(void)!feed(p, cases[i].text, &used, &r);
		if (cases[i].origin == NULL)
			assert_null(http1_origin(p));
		else
			assert_string_equal(http1_origin(p), cases[i].origin);
		http1_free(p);
	}
}

/* As a proxy sends it (RFC 9112 3.2.2). */
static void test_http1_absolute_form(void **state)
{
	static const struct {
		const char *target, *path, *query;
	} cases[] = {
		{"http://x:80/v1/a%20b?q=1", "/v1/a b", "q=1"},
		{"HTTPS://x/v1?q=http://y/", "/v1", "q=http://y/"},
		{"http://[::1]:8080/a@b", "/a@b", ""},
		{"http://x", "/", ""},
		{"http://x?q=1", "/", "q=1"},
	};
	const struct http1_request *r;
	struct http1 *p = http1_new(&limits);
	char text[200];
	size_t used;

	(void)state;
	for (size_t i = 0; i < array_len(cases); i++) {
		snprintf(text, sizeof(text),
			 "GET %s HTTP/1.%u\r\nHost: y\r\n\r\n", cases[i].target,
			 (unsigned)i % 2);
		assert_int_equal(feed(p, text, &used, &r), 1);
		assert_string_equal(r->path, cases[i].path);
		assert_string_equal(r->query, cases[i].query);
		assert_int_equal(r->http10, i % 2 == 0);
	}
	http1_free(p);
}

/* Several lines are one list. */
static void test_http1_accept_lines(void **state)
{
	struct http1_request r = {
		.header_count = 4,
		.headers = {{"accept", "text/html"},
			    {"host", "x"},
			    {"accept", "image/*;q=0.5"},
			    {"accept", "text/event-stream"}},
	};
	size_t at = 0;

	(void)state;
	assert_true(http1_accepts(&r, "text/event-stream"));
	assert_true(http1_accepts(&r, "image/png"));
	assert_false(http1_accepts(&r, "application/json"));
	r.headers[2].value = "*/*";
	r.headers[3].value = "text/event-stream;q=0";
	assert_false(http1_accepts(&r, "text/event-stream"));
	r.headers[0].value = r.headers[2].value = r.headers[3].value = "";
	assert_true(http1_accepts(&r, "text/event-stream"));
	assert_string_equal(http1_next(&r, "host", &at), "x");
	assert_null(http1_next(&r, "host", &at));
}

static void test_http1_answers(void **state)
{
	struct buf b;

	(void)state;
	buf_init(&b, 200);
	assert_int_equal(http1_respond(&b, 404, "text/plain", "X-A: b\r\n",
				       "no\n", 3, true, false),
			 0);
	assert_int_equal(
		http1_respond(&b, 204, NULL, "", NULL, 0, false, false), 0);
	assert_int_equal(buf_append(&b, "", 1), 0);
	assert_string_equal((char *)b.bytes,
			    "HTTP/1.1 404 Not Found\r\n"
			    "Content-Type: text/plain\r\n"
			    "Content-Length: 3\r\nX-A: b\r\n"
			    "Connection: keep-alive\r\n\r\nno\n"
			    "HTTP/1.1 204 No Content\r\n"
			    "Connection: close\r\n\r\n");
	buf_clear(&b, 200);
	assert_int_equal(
		http1_respond(&b, 200, "a/b", "", "hello", 5, false, true), 0);
	assert_int_equal(buf_append(&b, "", 1), 0);
	assert_non_null(strstr((char *)b.bytes, "Content-Length: 5\r\n"));
	assert_null(strstr((char *)b.bytes, "hello"));
	buf_clear(&b, 200);
	assert_int_equal(
		http1_respond(&b, 200, "a/b", "", get, 150, false, false),
		ERR_FULL);
	assert_int_equal(b.len, 0);
	buf_fini(&b);
	assert_string_equal(http1_reason(431),
			    "Request Header Fields Too Large");
	assert_string_equal(http1_reason(299), "Unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_http1_get_in_any_two_pieces),
		cmocka_unit_test(test_http1_pipelined_requests),
		cmocka_unit_test(test_http1_bodies_in_any_two_pieces),
		cmocka_unit_test(test_http1_next_request_is_left_alone),
		cmocka_unit_test(test_http1_keep_alive),
		cmocka_unit_test(test_http1_targets),
		cmocka_unit_test(test_http1_versions),
		cmocka_unit_test(test_http1_line_ends),
		cmocka_unit_test(test_http1_headers),
		cmocka_unit_test(test_http1_body_framing),
		cmocka_unit_test(test_http1_chunks),
		cmocka_unit_test(test_http1_chunked_overhead_is_bounded),
		cmocka_unit_test(test_http1_limits),
		cmocka_unit_test(test_http1_no_body_allowed),
		cmocka_unit_test(test_http1_query_walk),
		cmocka_unit_test(test_http1_query_refuses),
		cmocka_unit_test(test_http1_accept),
		cmocka_unit_test(test_http1_accept_lines),
		cmocka_unit_test(test_http1_absolute_form),
		cmocka_unit_test(test_http1_origin),
		cmocka_unit_test(test_http1_answers),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

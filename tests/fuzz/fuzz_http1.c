/* Fuzz target: HTTP/1.1 requests. The first byte is the size of the pieces
 * that the rest is fed in; the outcome must be what it is in one piece. What
 * is found in a request goes through the query and Accept parsers. */
#include "common/base/check.h"
#include "common/codec/http1.h"

#include <stdint.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct http1_limits limits = {2048, 512, 1024};

/* Feeds pieces until the first request is complete or refused. Returns the
 * last answer; *taken is how much a complete request took. */
static int feed(struct http1 *p, const uint8_t *data, size_t size, size_t piece,
		size_t *taken, const struct http1_request **r)
{
	int rv = 0;

	*taken = 0;
	*r = NULL;
	while (rv == 0 && *taken < size) {
		size_t n = min_of(piece, size - *taken), used;

		rv = http1_feed(p, data + *taken, n, &used, r);
		check(used <= n && (rv != 0 || used == n));
		check((rv < 0) == (http1_status(p) != 0));
		check((*r != NULL) == (http1_head(p) != NULL));
		*taken += used;
	}
	return rv;
}

static void check_same(const struct http1_request *a,
		       const struct http1_request *b)
{
	check(strcmp(a->method, b->method) == 0);
	check(strcmp(a->path, b->path) == 0);
	check(strcmp(a->query, b->query) == 0);
	check(a->keep_alive == b->keep_alive);
	check(a->header_count == b->header_count);
	for (size_t i = 0; i < a->header_count; i++) {
		check(strcmp(a->headers[i].name, b->headers[i].name) == 0);
		check(strcmp(a->headers[i].value, b->headers[i].value) == 0);
	}
}

static void look_into(const struct http1_request *r)
{
	const char *cursor = r->query;
	char name[16], value[32];

	check(r->path[0] == '/' || strcmp(r->path, "*") == 0);
	check(r->header_count <= HTTP1_HEADERS_MAX);
	check(r->body_len <= limits.body_max);
	while (http1_query(&cursor, name, sizeof(name), value, sizeof(value)) ==
	       1)
		check(strlen(name) < sizeof(name) &&
		      strlen(value) < sizeof(value));
	(void)http1_accepts(r, "text/event-stream");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct http1_request *whole, *pieces;
	struct http1 *a, *b;
	size_t a_taken, b_taken, piece;
	int rv;

	if (size < 1)
		return 0;
	piece = 1 + data[0] % 32;
	data++;
	size--;
	a = http1_new(&limits);
	b = http1_new(&limits);
	rv = feed(a, data, size, size, &a_taken, &whole);
	/* Of several faults, pieces may show another one first. */
	if (rv < 0)
		check(feed(b, data, size, piece, &b_taken, &pieces) < 0);
	else
		check(feed(b, data, size, piece, &b_taken, &pieces) == rv);
	check(rv < 0 || (whole != NULL) == (pieces != NULL));
	if (rv >= 0 && whole)
		check_same(whole, pieces);
	if (rv == 1) {
		check(a_taken == b_taken);
		check(whole->body_len == pieces->body_len);
		check(whole->body_len == 0 ||
		      memcmp(whole->body, pieces->body, whole->body_len) == 0);
		look_into(whole);
	}
	http1_free(b);
	http1_free(a);
	return 0;
}

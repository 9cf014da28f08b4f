/* The parser's way through a request:
 *
 *	HEAD --empty line--> BODY --last byte--> DONE --next byte--> HEAD
 *	  |                    |
 *	  +------ refused -----+--> REFUSED (until http1_reset)
 *
 * llhttp is paused at the end of the head, for three reasons: its position
 * there lets us see that the head really ended in CR LF CR LF; a request
 * without a body is complete at once, whatever it says about upgrades; and a
 * body with a length needs no parser. Only chunked bodies go through it.
 *
 * Strings of the head go into one buffer, each with its zero, in the order
 * they come: target, then name and value of each header. The buffer moves as
 * it grows, so offsets are kept and made pointers when the head is complete.
 */
#include "common/codec/http1.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/hex.h"

#include <llhttp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* What a reset parser keeps of each buffer. */
#define BUFFER_KEEP 4096
/* A chunked body may cost this many raw bytes for each byte allowed (one-byte
 * chunks take six), and a head's worth of extensions and trailers. */
#define CHUNKED_OVERHEAD 8

#define CRLFCRLF 0x0d0a0d0au

enum http1_state { STATE_HEAD, STATE_BODY, STATE_DONE, STATE_REFUSED };

struct http1 {
	llhttp_t parser;
	struct http1_limits limits;
	enum http1_state state;
	int err, status; /* why it was refused */
	const char *why;
	size_t head_bytes; /* taken so far */
	uint32_t tail;	   /* the last four of them */
	bool chunked;
	size_t body_left; /* with a length: to come; chunked: raw, at most */
	struct buf head, body;
	uint32_t name_at[HTTP1_HEADERS_MAX + 1]; /* [count]: the next one */
	uint32_t value_at[HTTP1_HEADERS_MAX];
	struct http1_request request;
};

static int refuse(struct http1 *p, int status, const char *why)
{
	p->state = STATE_REFUSED;
	p->status = status;
	p->why = why;
	if (status == 413 || status == 414 || status == 431)
		p->err = ERR_TOO_LARGE;
	else if (status == 501 || status == 505)
		p->err = ERR_UNSUPPORTED;
	else
		p->err = ERR_MALFORMED;
	return p->err;
}

/* --- llhttp's callbacks ------------------------------------------------ */

static struct http1 *parser_of(llhttp_t *parser)
{
	return container_of(parser, struct http1, parser);
}

/* Any refusal inside a callback: http1_feed() sees the state. */
static int refuse_inside(struct http1 *p, int status, const char *why)
{
	refuse(p, status, why);
	return HPE_USER;
}

static int keep(struct http1 *p, const char *bytes, size_t len)
{
	if (buf_append(&p->head, bytes, len) < 0)
		return refuse_inside(p, 431, "the request's head is too large");
	return 0;
}

static int on_url(llhttp_t *parser, const char *at, size_t len)
{
	struct http1 *p = parser_of(parser);

	if (p->head.len + len > p->limits.url_max)
		return refuse_inside(p, 414, "the URL is too long");
	return keep(p, at, len);
}

static int on_url_complete(llhttp_t *parser)
{
	struct http1 *p = parser_of(parser);

	if (keep(p, "", 1) != 0)
		return HPE_USER;
	p->name_at[0] = (uint32_t)p->head.len;
	return 0;
}

/* RFC 9110 5.6.2: llhttp lets other bytes into names unless built strict. */
static const bool is_token[256] = {
	['!'] = true,	      ['#' ... '\''] = true, ['*'] = true,
	['+'] = true,	      ['-'] = true,	     ['.'] = true,
	['0' ... '9'] = true, ['A' ... 'Z'] = true,  ['^' ... 'z'] = true,
	['|'] = true,	      ['~'] = true,
};

/* Headers that come after the head are trailers: not kept. */
static int on_header_field(llhttp_t *parser, const char *at, size_t len)
{
	struct http1 *p = parser_of(parser);
	char *name;

	if (p->state != STATE_HEAD)
		return 0;
	if (keep(p, at, len) != 0)
		return HPE_USER;
	name = (char *)p->head.bytes + p->head.len - len;
	for (size_t i = 0; i < len; i++) {
		if (!is_token[(uint8_t)at[i]])
			return refuse_inside(p, 400, "bad header name");
		if (at[i] >= 'A' && at[i] <= 'Z')
			name[i] = (char)(at[i] + 'a' - 'A');
	}
	return 0;
}

static int on_header_field_complete(llhttp_t *parser)
{
	struct http1 *p = parser_of(parser);

	if (p->state != STATE_HEAD)
		return 0;
	if (p->request.header_count == HTTP1_HEADERS_MAX)
		return refuse_inside(p, 431, "too many headers");
	if (p->head.len == p->name_at[p->request.header_count])
		return refuse_inside(p, 400, "a header without a name");
	if (keep(p, "", 1) != 0)
		return HPE_USER;
	p->value_at[p->request.header_count] = (uint32_t)p->head.len;
	return 0;
}

static int on_header_value(llhttp_t *parser, const char *at, size_t len)
{
	struct http1 *p = parser_of(parser);

	return p->state == STATE_HEAD ? keep(p, at, len) : 0;
}

static int on_header_value_complete(llhttp_t *parser)
{
	struct http1 *p = parser_of(parser);
	size_t start;

	if (p->state != STATE_HEAD)
		return 0;
	start = p->value_at[p->request.header_count];
	while (p->head.len > start && (p->head.bytes[p->head.len - 1] == ' ' ||
				       p->head.bytes[p->head.len - 1] == '\t'))
		p->head.len--;
	if (keep(p, "", 1) != 0)
		return HPE_USER;
	p->name_at[++p->request.header_count] = (uint32_t)p->head.len;
	return 0;
}

static int on_chunk_header(llhttp_t *parser)
{
	struct http1 *p = parser_of(parser);

	if (parser->content_length > p->limits.body_max - p->body.len)
		return refuse_inside(p, 413, "the body is too large");
	return 0;
}

static int on_body(llhttp_t *parser, const char *at, size_t len)
{
	struct http1 *p = parser_of(parser);

	if (buf_append(&p->body, at, len) < 0)
		return refuse_inside(p, 413, "the body is too large");
	return 0;
}

static int on_pause(llhttp_t *parser UNUSED)
{
	return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
	.on_url = on_url,
	.on_url_complete = on_url_complete,
	.on_header_field = on_header_field,
	.on_header_field_complete = on_header_field_complete,
	.on_header_value = on_header_value,
	.on_header_value_complete = on_header_value_complete,
	.on_headers_complete = on_pause,
	.on_chunk_header = on_chunk_header,
	.on_body = on_body,
	.on_message_complete = on_pause,
};

static int refuse_llhttp(struct http1 *p, llhttp_errno_t error)
{
	switch (error) {
	case HPE_INVALID_VERSION:
	case HPE_PAUSED_H2_UPGRADE:
		return refuse(p, 505, "only HTTP 1.0 and 1.1 here");
	case HPE_INVALID_METHOD:
		return refuse(p, 400, "not an HTTP request");
	default:
		return refuse(p, 400, llhttp_get_error_reason(&p->parser));
	}
}

/* --- the head ---------------------------------------------------------- */

/* Follows the head's bytes: each CR with its LF, each LF with its CR, no line
 * that continues the one before (obsolete folding). */
static bool lines_strict(struct http1 *p, const uint8_t *bytes, size_t len)
{
	uint32_t tail = p->tail;

	for (size_t i = 0; i < len; i++) {
		uint8_t c = bytes[i], before = (uint8_t)tail;

		if ((before == '\r') != (c == '\n'))
			return false;
		if (before == '\n' && (c == ' ' || c == '\t'))
			return false;
		tail = tail << 8 | c;
	}
	p->tail = tail;
	return true;
}

/* Decodes %XX in place; false for a bad escape or an encoded NUL. */
static bool percent_decode(char *text)
{
	char *out = text;

	while (*text) {
		int high, low;

		if (*text != '%') {
			*out++ = *text++;
			continue;
		}
		high = hex_digit(text[1]);
		low = high < 0 ? -1 : hex_digit(text[2]);
		if (low < 0 || (high == 0 && low == 0))
			return false;
		*out++ = (char)(high << 4 | low);
		text += 3;
	}
	*out = '\0';
	return true;
}

/* Of "http://host/path?query" what is left of "/path?query", in place, as whose
 * request it is read (a path may be left out). NULL: no host, or a user. */
static char *skip_authority(char *target)
{
	char *host, *path;

	if (strncasecmp(target, "http://", 7) == 0)
		host = target + 7;
	else if (strncasecmp(target, "https://", 8) == 0)
		host = target + 8;
	else
		return target;
	path = host + strcspn(host, "/?");
	if (path == host || memchr(host, '@', (size_t)(path - host)) != NULL)
		return NULL;
	if (*path != '/')
		*--path = '/';
	return path;
}

static int read_target(struct http1 *p)
{
	struct http1_request *r = &p->request;
	char *target = (char *)p->head.bytes;
	char *query;

	for (const char *c = target; *c; c++) {
		if ((uint8_t)*c <= ' ' || *c == 0x7f || *c == '#')
			return refuse(p, 400, "bad character in the URL");
	}
	target = skip_authority(target);
	if (target == NULL)
		return refuse(p, 400, "bad host in the URL");
	query = strchr(target, '?');
	if (query)
		*query++ = '\0';
	r->path = target;
	r->query = query ? query : "";
	if (strcmp(target, "*") == 0 && p->parser.method == HTTP_OPTIONS)
		return 0;
	if (target[0] != '/')
		return refuse(p, 400, "the URL must start with /");
	if (!percent_decode(target))
		return refuse(p, 400, "bad escape in the path");
	return 0;
}

/* Host and Transfer-Encoding: how often and what. llhttp has seen to
 * Content-Length: once, digits only, not with Transfer-Encoding. */
static int read_headers(struct http1 *p)
{
	struct http1_request *r = &p->request;
	size_t hosts = 0;

	for (size_t i = 0; i < r->header_count; i++) {
		struct http1_header *h = &r->headers[i];

		h->name = (char *)p->head.bytes + p->name_at[i];
		h->value = (char *)p->head.bytes + p->value_at[i];
		if (strcmp(h->name, "host") == 0) {
			hosts++;
		} else if (strcmp(h->name, "transfer-encoding") == 0) {
			if (p->parser.http_minor == 0 || p->chunked)
				return refuse(p, 400, "bad Transfer-Encoding");
			if (strcasecmp(h->value, "chunked") != 0)
				return refuse(p, 501,
					      "only the chunked transfer "
					      "coding is supported");
			p->chunked = true;
		}
	}
	if (hosts > 1 || (hosts == 0 && p->parser.http_minor == 1))
		return refuse(p, 400, "exactly one Host header is needed");
	return 0;
}

/* A request without a body is complete now. */
static int begin_body(struct http1 *p)
{
	bool has_length = (p->parser.flags & F_CONTENT_LENGTH) != 0;
	size_t max = p->limits.body_max;

	if (!p->chunked && (!has_length || p->parser.content_length == 0)) {
		p->state = STATE_DONE;
		return 1;
	}
	if (max == 0)
		return refuse(p, 413, "no body is allowed here");
	if (!p->chunked && p->parser.content_length > max)
		return refuse(p, 413, "the body is too large");
	p->body_left = p->chunked ? p->limits.head_max + CHUNKED_OVERHEAD * max
				  : (size_t)p->parser.content_length;
	llhttp_resume(&p->parser);
	p->state = STATE_BODY;
	return 0;
}

static int end_head(struct http1 *p)
{
	int err;

	if (p->parser.http_major != 1 || p->parser.http_minor > 1)
		return refuse(p, 505, "only HTTP 1.0 and 1.1 here");
	if (p->tail != CRLFCRLF)
		return refuse(p, 400, "bad end of the head");
	p->request.method = llhttp_method_name(p->parser.method);
	p->request.http10 = p->parser.http_minor == 0;
	p->request.keep_alive = llhttp_should_keep_alive(&p->parser);
	err = read_target(p);
	if (err)
		return err;
	err = read_headers(p);
	if (err)
		return err;
	return begin_body(p);
}

static int feed_head(struct http1 *p, const uint8_t *bytes, size_t len,
		     size_t *used)
{
	size_t n = min_of(len, p->limits.head_max - p->head_bytes);
	llhttp_errno_t error =
		llhttp_execute(&p->parser, (const char *)bytes, n);

	if (p->state == STATE_REFUSED)
		return p->err;
	if (error == HPE_PAUSED)
		n = (size_t)(llhttp_get_error_pos(&p->parser) -
			     (const char *)bytes);
	else if (error != HPE_OK)
		return refuse_llhttp(p, error);
	if (!lines_strict(p, bytes, n))
		return refuse(p, 400, "bad line end in the head");
	p->head_bytes += n;
	*used += n;
	if (error == HPE_PAUSED)
		return end_head(p);
	if (p->head_bytes == p->limits.head_max)
		return refuse(p, 431, "the request's head is too large");
	return 0;
}

/* --- the body ---------------------------------------------------------- */

static int feed_body(struct http1 *p, const uint8_t *bytes, size_t len,
		     size_t *used)
{
	size_t n = min_of(len, p->body_left);
	llhttp_errno_t error = HPE_OK;

	if (p->chunked) {
		error = llhttp_execute(&p->parser, (const char *)bytes, n);
		if (p->state == STATE_REFUSED)
			return p->err;
		if (error == HPE_PAUSED)
			n = (size_t)(llhttp_get_error_pos(&p->parser) -
				     (const char *)bytes);
		else if (error != HPE_OK)
			return refuse_llhttp(p, error);
	} else if (buf_append(&p->body, bytes, n) < 0) {
		return refuse(p, 413, "the body is too large");
	}
	*used += n;
	p->body_left -= n;
	if (p->chunked ? error == HPE_PAUSED : p->body_left == 0) {
		p->state = STATE_DONE;
		return 1;
	}
	if (p->body_left == 0)
		return refuse(p, 413, "the chunked body is too large");
	return 0;
}

/* --- public ------------------------------------------------------------ */

struct http1 *http1_new(const struct http1_limits *limits)
{
	struct http1 *p = xcalloc(1, sizeof(*p));

	check(limits->head_max > 0 && limits->head_max < UINT32_MAX);
	check(limits->body_max < SIZE_MAX / 2 / CHUNKED_OVERHEAD);
	p->limits = *limits;
	buf_init(&p->head, limits->head_max);
	buf_init(&p->body, limits->body_max);
	llhttp_init(&p->parser, HTTP_REQUEST, &settings);
	return p;
}

void http1_free(struct http1 *p)
{
	if (!p)
		return;
	buf_fini(&p->body);
	buf_fini(&p->head);
	free(p);
}

void http1_reset(struct http1 *p)
{
	llhttp_reset(&p->parser);
	p->state = STATE_HEAD;
	p->err = 0;
	p->status = 0;
	p->why = NULL;
	p->head_bytes = 0;
	p->tail = 0;
	p->chunked = false;
	p->body_left = 0;
	buf_clear(&p->head, BUFFER_KEEP);
	buf_clear(&p->body, BUFFER_KEEP);
	p->request = (struct http1_request){0};
}

int http1_feed(struct http1 *p, const void *bytes, size_t len, size_t *used,
	       const struct http1_request **request)
{
	const uint8_t *at = bytes;
	int rv = 0;

	*used = 0;
	*request = NULL;
	if (p->state == STATE_REFUSED)
		return p->err;
	if (p->state == STATE_DONE)
		http1_reset(p);
	while (rv == 0 && *used < len) {
		if (p->state == STATE_HEAD)
			rv = feed_head(p, at + *used, len - *used, used);
		else
			rv = feed_body(p, at + *used, len - *used, used);
	}
	if (rv == 1) {
		p->request.body = p->body.bytes;
		p->request.body_len = p->body.len;
	}
	*request = http1_head(p);
	return rv;
}

const struct http1_request *http1_head(const struct http1 *p)
{
	return p->state == STATE_BODY || p->state == STATE_DONE ? &p->request
								: NULL;
}

const char *http1_origin(const struct http1 *p)
{
	for (size_t i = 0; i < p->request.header_count; i++) {
		if (strcmp((char *)p->head.bytes + p->name_at[i], "origin") ==
		    0)
			return (char *)p->head.bytes + p->value_at[i];
	}
	return NULL;
}

int http1_status(const struct http1 *p)
{
	return p->status;
}

const char *http1_why(const struct http1 *p)
{
	return p->why ? p->why : "";
}

bool http1_started(const struct http1 *p)
{
	return p->state == STATE_HEAD ? p->head_bytes > 0
				      : p->state != STATE_DONE;
}

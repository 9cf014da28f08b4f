/* request.c - heads and bodies of API requests. */
#include "dispatcher/api/request.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/base64.h"
#include "common/codec/http1.h"
#include "common/codec/json.h"
#include "common/io/auth.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define CONNECT_TIMEOUT_DIGITS 10
#define SCRATCH_KEEP	       (64u << 10)

void request_init(struct request *r)
{
	memset(r, 0, sizeof(*r));
}

static void drop_token(struct request *r)
{
	if (r->token != NULL)
		auth_token_release(r->entry->service->auth, r->token);
	r->token = NULL;
}

void request_fini(struct request *r)
{
	drop_token(r);
	free(r->query);
}

static enum request_verb verb_of(const char *text)
{
	if (strcmp(text, "POST") == 0)
		return VERB_POST;
	if (strcmp(text, "GET") == 0)
		return VERB_GET;
	return strcmp(text, "OPTIONS") == 0 ? VERB_OPTIONS : VERB_OTHER;
}

static enum request_encoding encoding_of(const char *text)
{
	if (strcasecmp(text, "identity") == 0 || text[0] == 0)
		return ENCODING_IDENTITY;
	return strcasecmp(text, "gzip") == 0 ? ENCODING_GZIP : ENCODING_UNKNOWN;
}

/* A media type, parameters (";charset=utf-8") cut off. */
static bool type_is(const char *value, const char *type)
{
	size_t len = strlen(type);

	return strncasecmp(value, type, len) == 0 &&
	       (value[len] == 0 || value[len] == ';' || value[len] == ' ');
}

static void set_content(struct request *r, const char *value)
{
	r->content = CONTENT_GRPC;
	r->codec = CODEC_PROTO;
	if (type_is(value, "application/grpc"))
		return;
	if (type_is(value, "application/grpc+proto")) {
		r->subtype = true;
		return;
	}
	if (type_is(value, "application/grpc+json")) {
		r->subtype = true;
		r->codec = CODEC_JSON;
		return;
	}
	r->content = CONTENT_CONNECT_STREAM;
	if (type_is(value, "application/connect+proto"))
		return;
	if (type_is(value, "application/connect+json")) {
		r->codec = CODEC_JSON;
		return;
	}
	r->content = CONTENT_CONNECT;
	if (type_is(value, "application/proto"))
		return;
	r->codec = CODEC_JSON;
	if (!type_is(value, "application/json"))
		r->content = CONTENT_NONE;
}

static void set_path(struct request *r, struct rpc_table *table,
		     const char *path, size_t len)
{
	const char *query = memchr(path, '?', len);

	if (query) {
		free(r->query);
		r->query =
			xmemdupz(query + 1, len - (size_t)(query + 1 - path));
		len = (size_t)(query - path);
	}
	r->entry = rpc_table_find(table, path, len);
}

/* The path comes first, so the service is known. One that asks for no token
 * does not look at it. Of two neither counts: which was meant? */
static void set_token(struct request *r, const char *value, size_t len)
{
	static const char scheme[] = "Bearer ";
	const size_t scheme_len = sizeof(scheme) - 1;
	bool first = !r->authorization_given;

	r->authorization_given = true;
	drop_token(r);
	if (!first || !r->entry || !r->entry->service->auth ||
	    strncasecmp(value, scheme, scheme_len) != 0)
		return;
	value += scheme_len;
	len -= scheme_len;
	while (len > 0 && *value == ' ') {
		value++;
		len--;
	}
	/* On any fault, which auth.c counts, there just is none. */
	if (auth_check(r->entry->service->auth, value, len, &r->token) !=
	    TOKEN_OK)
		r->token = NULL;
}

static int connect_timeout_ms(const char *text, uint64_t *ms)
{
	size_t len = strlen(text);

	if (len < 1 || len > CONNECT_TIMEOUT_DIGITS ||
	    strspn(text, "0123456789") != len)
		return ERR_MALFORMED;
	*ms = strtoull(text, NULL, 10);
	return 0;
}

static void set_timeout(struct request *r, int rv)
{
	r->timeout_given = true;
	r->timeout_bad = rv != 0;
}

#define FIELD(text) (name_len == sizeof(text) - 1 && !strcmp(name, text))

void request_field(struct request *r, struct rpc_table *table, const char *name,
		   size_t name_len, const char *value, size_t value_len)
{
	if (FIELD(":method"))
		r->verb = verb_of(value);
	else if (FIELD(":path"))
		set_path(r, table, value, value_len);
	else if (FIELD("content-type"))
		set_content(r, value);
	else if (FIELD("grpc-encoding") || FIELD("content-encoding") ||
		 FIELD("connect-content-encoding"))
		r->encoding = encoding_of(value);
	else if (FIELD("authorization"))
		set_token(r, value, value_len);
	else if (FIELD("grpc-timeout"))
		set_timeout(r, grpc_timeout_ms(value, &r->timeout_ms));
	else if (FIELD("connect-timeout-ms"))
		set_timeout(r, connect_timeout_ms(value, &r->timeout_ms));
}

const char *request_allow(const struct request *r)
{
	return r->entry && r->entry->method->no_side_effects
		       ? "GET, POST, OPTIONS"
		       : "POST, OPTIONS";
}

int request_check(struct request *r)
{
	bool streams;

	if (r->content == CONTENT_GRPC)
		return r->verb == VERB_POST ? 0 : 405;
	if (!r->entry)
		return 404;
	if (r->verb == VERB_OPTIONS)
		return 204;
	if (r->verb == VERB_GET && r->entry->method->no_side_effects) {
		r->content = CONTENT_CONNECT;
		r->codec = CODEC_JSON;
		return 0;
	}
	if (r->verb != VERB_POST)
		return 405;
	streams = r->entry->method->client_streaming ||
		  r->entry->method->server_streaming;
	return r->content == (streams ? CONTENT_CONNECT_STREAM
				      : CONTENT_CONNECT)
		       ? 0
		       : 415;
}

bool request_authenticated(const struct request *r)
{
	return r->token != NULL || !r->entry || !r->entry->service->auth;
}

static bool encoding_said(const struct request *r, char *why)
{
	if (r->encoding == ENCODING_GZIP)
		return true;
	snprintf(why, MESSAGE_WHY_MAX,
		 "compressed message without an encoding");
	return false;
}

enum grpc_code request_items(const struct request *r, const uint8_t *bytes,
			     size_t len, bool compressed, size_t max,
			     struct items **out, char *why)
{
	const struct rpc_method *method = r->entry->method;
	struct items_request request = {
		.input = method->input,
		.output = method->output,
		.codec = r->codec,
		.gzip = compressed,
		.max = max,
		.malformed = r->content == CONTENT_GRPC ? GRPC_INTERNAL
							: GRPC_INVALID_ARGUMENT,
	};

	if (compressed && !encoding_said(r, why))
		return GRPC_INTERNAL;
	*out = items_new(&request, bytes, len);
	return GRPC_OK;
}

enum grpc_code request_message(const struct request *r, struct message_arena *a,
			       struct buf *scratch, const uint8_t *bytes,
			       size_t len, bool compressed, size_t max,
			       ProtobufCMessage **out, char *why)
{
	int rv;

	if (compressed) {
		if (!encoding_said(r, why))
			return GRPC_INTERNAL;
		buf_clear(scratch, SCRATCH_KEEP);
		rv = gzip_inflate(scratch, bytes, len, max);
		if (rv == ERR_TOO_LARGE) {
			snprintf(why, MESSAGE_WHY_MAX,
				 "message larger than %zu bytes", max);
			return GRPC_RESOURCE_EXHAUSTED;
		}
		if (rv != 0) {
			snprintf(why, MESSAGE_WHY_MAX, "bad gzip data");
			return r->content == CONTENT_GRPC
				       ? GRPC_INTERNAL
				       : GRPC_INVALID_ARGUMENT;
		}
		bytes = scratch->bytes;
		len = scratch->len;
	}
	rv = message_decode(a, r->entry->method->input, r->codec, bytes, len,
			    out, why);
	if (rv == 0)
		return GRPC_OK;
	if (rv == ERR_MALFORMED && r->codec == CODEC_PROTO &&
	    r->content == CONTENT_GRPC)
		return GRPC_INTERNAL;
	return GRPC_INVALID_ARGUMENT;
}

/* What a Connect GET says in its query. */
struct get_query {
	char *message; /* decoded; the caller frees */
	size_t len;
	bool has_encoding, base64, bad;
	enum message_codec codec;
	enum request_encoding compression;
};

static void get_query_pair(struct get_query *q, const char *name, char *value)
{
	if (strcmp(name, "message") == 0) {
		free(q->message);
		q->message = xstrdup(value);
	} else if (strcmp(name, "base64") == 0) {
		q->base64 = strcmp(value, "1") == 0;
	} else if (strcmp(name, "compression") == 0) {
		q->compression = encoding_of(value);
	} else if (strcmp(name, "encoding") == 0) {
		q->has_encoding = true;
		q->codec =
			strcmp(value, "proto") == 0 ? CODEC_PROTO : CODEC_JSON;
		q->bad |= q->codec == CODEC_JSON && strcmp(value, "json") != 0;
	}
}

static bool get_query_parse(struct get_query *q, const char *query)
{
	size_t size = strlen(query) + 1;
	char *value = xmalloc(size);
	char name[32];
	int rv;

	memset(q, 0, sizeof(*q));
	while ((rv = http1_query(&query, name, sizeof(name), value, size)) == 1)
		get_query_pair(q, name, value);
	free(value);
	if (rv < 0 || q->bad || !q->has_encoding || !q->message)
		return false;
	q->len = strlen(q->message);
	return !q->base64 || base64_decode(q->message, q->len,
					   (uint8_t *)q->message, &q->len) == 0;
}

static enum grpc_code get_message(struct request *r, struct message_arena *a,
				  struct buf *scratch, size_t max,
				  ProtobufCMessage **out, char *why)
{
	struct get_query q;
	enum grpc_code code = GRPC_INVALID_ARGUMENT;

	if (!get_query_parse(&q, r->query ? r->query : "")) {
		snprintf(why, MESSAGE_WHY_MAX,
			 "query needs encoding=json or proto and message, "
			 "base64=1 if that is url-safe base64");
	} else if (q.compression == ENCODING_UNKNOWN) {
		snprintf(why, MESSAGE_WHY_MAX,
			 "unknown compression; gzip is "
			 "supported");
		code = GRPC_UNIMPLEMENTED;
	} else {
		r->codec = q.codec;
		r->encoding = q.compression;
		code = request_message(
			r, a, scratch, (const uint8_t *)q.message, q.len,
			r->encoding == ENCODING_GZIP, max, out, why);
	}
	free(q.message);
	return code;
}

/* What a Connect request's head says of its body. */
static enum grpc_code check_connect(const struct request *r, char *why)
{
	if (r->timeout_bad) {
		snprintf(why, MESSAGE_WHY_MAX,
			 "connect-timeout-ms is not 1 to 10 digits");
		return GRPC_INVALID_ARGUMENT;
	}
	if (r->verb != VERB_GET && r->encoding == ENCODING_UNKNOWN) {
		snprintf(why, MESSAGE_WHY_MAX,
			 "unknown content-encoding; gzip is supported");
		return GRPC_UNIMPLEMENTED;
	}
	return GRPC_OK;
}

enum grpc_code request_connect_items(const struct request *r,
				     const uint8_t *body, size_t len,
				     size_t max, struct items **out, char *why)
{
	enum grpc_code code = check_connect(r, why);

	return code != GRPC_OK
		       ? code
		       : request_items(r, body, len,
				       r->encoding == ENCODING_GZIP && len > 0,
				       max, out, why);
}

enum grpc_code request_connect_message(struct request *r,
				       struct message_arena *a,
				       struct buf *scratch, const uint8_t *body,
				       size_t len, size_t max,
				       ProtobufCMessage **out, char *why)
{
	enum grpc_code code = check_connect(r, why);

	if (code != GRPC_OK)
		return code;
	if (r->verb == VERB_GET)
		return get_message(r, a, scratch, max, out, why);
	return request_message(r, a, scratch, body, len,
			       r->encoding == ENCODING_GZIP && len > 0, max,
			       out, why);
}

int connect_error(struct buf *out, enum grpc_code code, const char *text)
{
	size_t len = strlen(text);
	char *quoted = xmalloc(6 * len + 2);
	int rv;

	/* Texts may quote what a client sent, cut anywhere. */
	while (!utf8_valid(text, len))
		len--;
	len = json_quote(quoted, text, len);
	rv = buf_printf(out, "{\"code\":\"%s\",\"message\":%.*s}",
			grpc_code_connect(code), (int)len, quoted);
	free(quoted);
	return rv;
}

const char *connect_content_type(enum message_codec codec)
{
	return codec == CODEC_JSON ? "application/json" : "application/proto";
}

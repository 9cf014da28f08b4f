/* request.h - what a request's head asks for, and its body as a message
 * (private to dispatcher/api).
 *
 * Both fronts feed it the same fields: HTTP/2's pseudo headers and headers as
 * they come, HTTP/1.1's method, path and headers likewise. A token is checked
 * right when its field comes, so that nothing of it is kept.
 */
#ifndef STENTOR_DISPATCHER_API_REQUEST_H
#define STENTOR_DISPATCHER_API_REQUEST_H

#include "dispatcher/api/items.h"
#include "dispatcher/api/message.h"
#include "dispatcher/api/table.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum request_verb { VERB_OTHER, VERB_POST, VERB_GET, VERB_OPTIONS };
enum request_encoding { ENCODING_IDENTITY, ENCODING_GZIP, ENCODING_UNKNOWN };
enum request_content {
	CONTENT_NONE, /* no content-type, or not one of ours */
	CONTENT_GRPC,
	CONTENT_CONNECT,
	CONTENT_CONNECT_STREAM, /* framed like gRPC; HTTP/2 only */
};

struct request {
	enum request_verb verb;
	struct rpc_entry *entry; /* NULL: no such method */
	enum request_content content;
	enum message_codec codec;
	bool subtype; /* gRPC: said "+proto", so the answer says it */
	enum request_encoding encoding;
	bool timeout_given, timeout_bad;
	uint64_t timeout_ms;
	char *query; /* a Connect GET's message; NULL: none */
	bool authorization_given;
	struct auth_token *token; /* a reference; NULL: none that is good */
};

void request_init(struct request *r);
void request_fini(struct request *r);

/* One field of the head; `name` in lower case, both zero-terminated. */
void request_field(struct request *r, struct rpc_table *table, const char *name,
		   size_t name_len, const char *value, size_t value_len);

/* 0 when it may be called, else the HTTP status that says why not: 404, 405,
 * 415, or 204 for a browser's preflight. A gRPC request of an unknown method
 * passes: its answer is a gRPC status. Call it when the head is complete. */
int request_check(struct request *r);
/* False: the service needs a token, and there is none that is good. The answer
 * is UNAUTHENTICATED with this text; more would help a guesser. */
bool request_authenticated(const struct request *r);
#define REQUEST_UNAUTHENTICATED "a token is needed"
/* The headers that go with 401, 405 and 415. */
#define REQUEST_AUTHENTICATE "Bearer"
const char *request_allow(const struct request *r);
#define REQUEST_ACCEPT_POST                                       \
	"application/json, application/proto, application/grpc, " \
	"application/grpc+proto, application/grpc+json, "         \
	"application/connect+proto, application/connect+json"
/* What a browser's page may send. */
#define REQUEST_CORS_HEADERS                                           \
	"content-type, connect-protocol-version, connect-timeout-ms, " \
	"authorization"

/* Decodes one message of the request: `compressed` bytes are inflated first,
 * at most `max` bytes. `scratch` is a buffer of the caller's. Returns GRPC_OK
 * and *out (message_release() it), or the status and its text. */
enum grpc_code request_message(const struct request *r, struct message_arena *a,
			       struct buf *scratch, const uint8_t *bytes,
			       size_t len, bool compressed, size_t max,
			       ProtobufCMessage **out, char *why);
/* The same for a whole Connect request: body, or query of a GET (which says
 * what codec the answer has). */
enum grpc_code request_connect_message(struct request *r,
				       struct message_arena *a,
				       struct buf *scratch, const uint8_t *body,
				       size_t len, size_t max,
				       ProtobufCMessage **out, char *why);

/* The same where the method takes a list: *out is the handler's. */
enum grpc_code request_items(const struct request *r, const uint8_t *bytes,
			     size_t len, bool compressed, size_t max,
			     struct items **out, char *why);
enum grpc_code request_connect_items(const struct request *r,
				     const uint8_t *body, size_t len,
				     size_t max, struct items **out, char *why);

/* Messages have gRPC's framing. */
static inline bool request_framed(const struct request *r)
{
	return r->content == CONTENT_GRPC ||
	       r->content == CONTENT_CONNECT_STREAM;
}

/* Appends Connect's error object. ERR_FULL: there is no room for it. */
int connect_error(struct buf *out, enum grpc_code code, const char *text);
const char *connect_content_type(enum message_codec codec);

#endif

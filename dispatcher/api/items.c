#include "dispatcher/api/items.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/json.h"
#include "common/codec/pbwire.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 64 /* a bit each in `squares`; json.h refuses less */
#define PATH_SIZE 64
#define SPACE	  " \t\n\r"

enum stage { STAGE_INFLATE, STAGE_READ, STAGE_READY };

/* Where the reader of JSON is. It finds the elements of the first array in the
 * outermost object, and is right about brackets and strings only: each element,
 * and the rest with an empty array in their place, is then read as JSON. */
struct splitter {
	size_t at;
	unsigned depth;
	uint64_t squares; /* by depth: opened by '[' and not by '{' */
	bool in_string, escaped;
	bool opened, closed;
	size_t array_at, array_end; /* its '[' and ']' */
	size_t element_at;
};

struct items {
	struct items_request request;
	const ProtobufCFieldDescriptor *in, *out;
	enum stage stage;
	struct buf bytes; /* as they came */
	struct buf text;  /* inflated; empty if they were not deflated */
	struct buf made;  /* from JSON: elements as protobuf */
	struct gzip_reader *gzip;
	struct splitter split;
	struct pbwire wire; /* what is left to be read, then handed out */
	size_t count;
	struct message_arena arena;
	struct buf answer;
	size_t answered;
};

static const ProtobufCFieldDescriptor *
list_field(const ProtobufCMessageDescriptor *type)
{
	const ProtobufCFieldDescriptor *f = &type->fields[0];

	check(type->n_fields == 1 && f->label == PROTOBUF_C_LABEL_REPEATED);
	check(f->type == PROTOBUF_C_TYPE_MESSAGE);
	check(!strchr(f->name, '_')); /* the same in JSON */
	return f;
}

struct items *items_new(const struct items_request *r, const uint8_t *bytes,
			size_t len)
{
	struct items *it = xcalloc(1, sizeof(*it));
	int rv;

	it->request = *r;
	it->in = list_field(r->input);
	it->out = list_field(r->output);
	buf_init(&it->bytes, len);
	buf_init(&it->text, r->max);
	buf_init(&it->made, SIZE_MAX / 4);
	buf_init(&it->answer, ITEMS_ANSWER_MAX);
	message_arena_init(&it->arena);
	rv = buf_append(&it->bytes, bytes, len);
	check(rv == 0);
	if (r->gzip)
		it->gzip = gzip_reader_new(it->bytes.bytes, len, r->max);
	it->stage = r->gzip ? STAGE_INFLATE : STAGE_READ;
	it->wire = (struct pbwire){it->bytes.bytes, it->bytes.bytes + len};
	return it;
}

void items_free(struct items *it)
{
	gzip_reader_free(it->gzip);
	if (it->arena.lent)
		message_release(&it->arena);
	message_arena_fini(&it->arena);
	buf_fini(&it->bytes);
	buf_fini(&it->text);
	buf_fini(&it->made);
	buf_fini(&it->answer);
	free(it);
}

size_t items_cost(const struct items *it)
{
	size_t text = it->request.gzip ? it->request.max : it->bytes.len;

	return (it->request.gzip ? it->bytes.len : 0) +
	       text * (it->request.codec == CODEC_JSON ? 2 : 1);
}

size_t items_count(const struct items *it)
{
	return it->count;
}

/* --- from bytes to elements -------------------------------------------- */

static int inflate_step(struct items *it, enum grpc_code *code, char *why)
{
	int rv = gzip_reader_step(it->gzip, &it->text);

	if (rv == ERR_AGAIN)
		return rv;
	gzip_reader_free(it->gzip);
	it->gzip = NULL;
	if (rv == ERR_TOO_LARGE) {
		*code = GRPC_RESOURCE_EXHAUSTED;
		snprintf(why, MESSAGE_WHY_MAX, "message larger than %zu bytes",
			 it->request.max);
		return rv;
	}
	if (rv != 0) {
		*code = it->request.malformed;
		snprintf(why, MESSAGE_WHY_MAX, "bad gzip data");
		return rv;
	}
	buf_fini(&it->bytes);
	it->bytes = it->text;
	buf_init(&it->text, 0);
	it->wire = (struct pbwire){it->bytes.bytes,
				   it->bytes.bytes + it->bytes.len};
	it->stage = STAGE_READ;
	return ERR_AGAIN;
}

/* One more element; false: too many. */
static bool count_element(struct items *it, size_t count_max, char *why)
{
	if (it->count < count_max) {
		it->count++;
		return true;
	}
	snprintf(why, MESSAGE_WHY_MAX, "%s: more than %zu, the limit",
		 it->in->name, count_max);
	return false;
}

static void element_path(const struct items *it, char path[PATH_SIZE])
{
	snprintf(path, PATH_SIZE, "%s[%zu]", it->in->name, it->count);
}

static bool is_element(const struct items *it, const struct pbwire_field *f)
{
	return f->id == it->in->id &&
	       f->wire == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
}

static int not_valid(const struct items *it, enum grpc_code *code, char *why)
{
	*code = it->request.malformed;
	snprintf(why, MESSAGE_WHY_MAX, "not a valid %s message",
		 it->request.input->name);
	return ERR_MALFORMED;
}

static int proto_step(struct items *it, size_t count_max, enum grpc_code *code,
		      char *why)
{
	const uint8_t *begun = it->wire.at;
	struct pbwire_field f;
	char path[PATH_SIZE];
	int rv;

	do {
		rv = pbwire_next(&it->wire, &f);
		if (rv == 0)
			return 0;
		if (rv < 0 || (f.id == it->in->id && !is_element(it, &f)))
			return not_valid(it, code, why);
		if (!is_element(it, &f))
			continue;
		element_path(it, path);
		rv = pbwire_check_strings(it->in->descriptor, f.bytes, f.len,
					  path, why, MESSAGE_WHY_MAX);
		if (rv == ERR_MALFORMED)
			return not_valid(it, code, why);
		if (rv != 0)
			return rv;
		if (!count_element(it, count_max, why))
			return ERR_TOO_LARGE;
	} while (it->wire.at - begun < (ptrdiff_t)ITEMS_STEP_BYTES);
	return ERR_AGAIN;
}

/* --- JSON -------------------------------------------------------------- */

static int element_made(struct items *it, const char *text, size_t len,
			size_t count_max, char *why)
{
	char path[PATH_SIZE];
	ProtobufCMessage *m;
	size_t packed, n;
	uint8_t *place;
	int rv;

	element_path(it, path);
	rv = json_to_element(it->in->descriptor, path, text, len, &m, why,
			     MESSAGE_WHY_MAX);
	if (rv != 0)
		return rv;
	packed = protobuf_c_message_get_packed_size(m);
	place = buf_extend(&it->made, PBWIRE_HEAD_MAX + packed);
	check(place != NULL);
	n = pbwire_put_head(place, it->in->id, packed);
	protobuf_c_message_pack(m, place + n);
	it->made.len -= PBWIRE_HEAD_MAX - n;
	protobuf_c_message_free_unpacked(m, NULL);
	return count_element(it, count_max, why) ? 0 : ERR_TOO_LARGE;
}

/* Text up to the splitter's place is an element. */
static int element_ends(struct items *it, bool last, size_t count_max,
			char *why)
{
	struct splitter *s = &it->split;
	const char *text = (const char *)it->bytes.bytes + s->element_at;
	size_t len = s->at - s->element_at, blank = 0;

	s->element_at = s->at + 1;
	while (blank < len && memchr(SPACE, text[blank], sizeof(SPACE) - 1))
		blank++;
	if (last && it->count == 0 && blank == len)
		return 0; /* [] */
	return element_made(it, text, len, count_max, why);
}

static int bad_json(char *why, const char *what, size_t at)
{
	snprintf(why, MESSAGE_WHY_MAX, "invalid JSON: %s (byte %zu)", what, at);
	return ERR_MALFORMED;
}

static int open_bracket(struct items *it, char c, char *why)
{
	struct splitter *s = &it->split;

	if (s->depth == DEPTH_MAX)
		return bad_json(why, "nested too deep", s->at);
	if (s->depth == 1 && c == '[' && !s->opened) {
		s->opened = true;
		s->array_at = s->at;
		s->element_at = s->at + 1;
	}
	s->squares &= ~((uint64_t)1 << s->depth);
	s->squares |= (uint64_t)(c == '[') << s->depth;
	s->depth++;
	return 0;
}

static bool in_array(const struct splitter *s)
{
	return s->opened && !s->closed;
}

static int close_bracket(struct items *it, char c, size_t count_max, char *why)
{
	struct splitter *s = &it->split;

	if (s->depth == 0 || (s->squares >> (s->depth - 1) & 1) != (c == ']'))
		return bad_json(why, "a bracket that closes nothing", s->at);
	s->depth--;
	if (!in_array(s) || s->depth != 1)
		return 0;
	s->closed = true;
	s->array_end = s->at;
	return element_ends(it, true, count_max, why);
}

/* Looks at the byte where the splitter is. */
static int split_byte(struct items *it, char c, size_t count_max, char *why)
{
	struct splitter *s = &it->split;

	if (s->in_string) {
		s->in_string = c != '"' || s->escaped;
		s->escaped = c == '\\' && !s->escaped;
		return 0;
	}
	switch (c) {
	case '"':
		s->in_string = true;
		return 0;
	case '[':
	case '{':
		return open_bracket(it, c, why);
	case ']':
	case '}':
		return close_bracket(it, c, count_max, why);
	case ',':
		return in_array(s) && s->depth == 2
			       ? element_ends(it, false, count_max, why)
			       : 0;
	default:
		return 0;
	}
}

/* The request with an empty list in it is one? */
static int check_rest(const struct items *it, char *why)
{
	const struct splitter *s = &it->split;
	const char *text = (const char *)it->bytes.bytes;
	size_t len = it->bytes.len, behind = s->array_end;
	ProtobufCMessage *m;
	char *rest;
	int rv;

	if (!s->closed) {
		rv = json_to_message(it->request.input, text, len, false, &m,
				     why, MESSAGE_WHY_MAX);
	} else {
		rest = xmalloc(s->array_at + 1 + len - behind);
		memcpy(rest, text, s->array_at + 1);
		memcpy(rest + s->array_at + 1, text + behind, len - behind);
		rv = json_to_message(it->request.input, rest,
				     s->array_at + 1 + len - behind, false, &m,
				     why, MESSAGE_WHY_MAX);
		free(rest);
	}
	if (rv == 0)
		protobuf_c_message_free_unpacked(m, NULL);
	return rv;
}

static int json_step(struct items *it, size_t count_max, char *why)
{
	struct splitter *s = &it->split;
	size_t end = min_of(it->bytes.len, s->at + ITEMS_STEP_BYTES);
	size_t before = it->count;
	int rv;

	for (; s->at < end; s->at++) {
		rv = split_byte(it, (char)it->bytes.bytes[s->at], count_max,
				why);
		if (rv != 0)
			return rv;
		if (it->count - before == ITEMS_STEP_ELEMENTS)
			end = s->at + 1;
	}
	if (s->at < it->bytes.len)
		return ERR_AGAIN;
	if (s->depth > 0)
		return bad_json(why, "ends too early", s->at);
	rv = check_rest(it, why);
	if (rv != 0)
		return rv;
	buf_fini(&it->bytes);
	it->bytes = it->made;
	buf_init(&it->made, 0);
	return 0;
}

int items_prepare(struct items *it, size_t count_max, enum grpc_code *code,
		  char *why)
{
	int rv;

	*code = GRPC_INVALID_ARGUMENT;
	if (it->stage == STAGE_INFLATE)
		return inflate_step(it, code, why);
	check(it->stage == STAGE_READ);
	rv = it->request.codec == CODEC_JSON
		     ? json_step(it, count_max, why)
		     : proto_step(it, count_max, code, why);
	if (rv != 0)
		return rv;
	it->wire = (struct pbwire){it->bytes.bytes,
				   it->bytes.bytes + it->bytes.len};
	it->stage = STAGE_READY;
	return 0;
}

const ProtobufCMessage *items_next(struct items *it)
{
	ProtobufCMessage *m;
	struct pbwire_field f;

	check(it->stage == STAGE_READY);
	if (it->arena.lent)
		message_release(&it->arena);
	do {
		int rv = pbwire_next(&it->wire, &f);

		check(rv == 1);
	} while (!is_element(it, &f));
	return message_unpack(&it->arena, it->in->descriptor, f.bytes, f.len,
			      &m) == 0
		       ? m
		       : NULL;
}

/* --- the answer -------------------------------------------------------- */

static int answer_json(struct items *it, const ProtobufCMessage *m)
{
	size_t len;
	char *text = json_from_message(m, &len);
	int rv = it->answered == 0
			 ? buf_printf(&it->answer, "{\"%s\":[", it->out->name)
			 : buf_append(&it->answer, ",", 1);

	if (rv == 0)
		rv = buf_append(&it->answer, text, len);
	free(text);
	return rv;
}

static int answer_proto(struct items *it, const ProtobufCMessage *m)
{
	size_t len = protobuf_c_message_get_packed_size(m), n;
	uint8_t *place = buf_extend(&it->answer, PBWIRE_HEAD_MAX + len);

	if (!place)
		return ERR_FULL;
	n = pbwire_put_head(place, it->out->id, len);
	protobuf_c_message_pack(m, place + n);
	it->answer.len -= PBWIRE_HEAD_MAX - n;
	return 0;
}

int items_answer(struct items *it, const ProtobufCMessage *m)
{
	int rv = it->request.codec == CODEC_JSON ? answer_json(it, m)
						 : answer_proto(it, m);

	it->answered++;
	return rv;
}

const struct buf *items_answer_end(struct items *it)
{
	if (it->request.codec == CODEC_JSON &&
	    buf_printf(&it->answer, "%s", it->answered > 0 ? "]}" : "{}") != 0)
		return NULL;
	return &it->answer;
}

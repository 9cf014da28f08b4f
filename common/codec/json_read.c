/* json_read.c - JSON text as a message.
 *
 * jansson makes a tree of the text and refuses what is no JSON; this walks the
 * tree beside the descriptors. The message is at every moment one that
 * protobuf_c_message_free_unpacked() can free: it is linked to its parent, and
 * an array gets its zeroed elements and its count, before anything is read.
 */
#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/base64.h"
#include "common/codec/json.h"
#include "common/codec/json_field.h"

#include <errno.h>
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_SIZE 128
/* Integers above this are not exact in a double. */
#define REAL_EXACT_MAX 9007199254740992.0

/* One bit each in `seen`: no message of ours has more fields. */
#define FIELDS_MAX 64

#define NUL_REFUSED "must not contain NUL characters"

/* NULs are let through to be refused with the name of their field. */
#define LOAD_FLAGS (JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL)

struct reader {
	size_t flags; /* jansson's */
	bool lenient;
	char *why;
	size_t why_size;
	char path[PATH_SIZE]; /* "messages[3].data", cut where too long */
	size_t path_len;
};

/* Writes why, after the place; always whole characters. */
static int PRINTF(2, 3) fail(struct reader *r, const char *format, ...)
{
	char text[192];
	va_list args;
	size_t len;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (r->why_size == 0)
		return ERR_MALFORMED;
	snprintf(r->why, r->why_size, "%s%s%s", r->path,
		 r->path_len > 0 ? ": " : "", text);
	len = strlen(r->why);
	while (!utf8_valid(r->why, len))
		r->why[--len] = '\0';
	return ERR_MALFORMED;
}

static void PRINTF(2, 3) path_push(struct reader *r, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(r->path + r->path_len, PATH_SIZE - r->path_len, format,
		      args);
	va_end(args);
	check(n >= 0);
	r->path_len = min_of(r->path_len + (size_t)n, (size_t)PATH_SIZE - 1);
}

static void path_pop(struct reader *r, size_t len)
{
	r->path_len = len;
	r->path[len] = '\0';
}

/* --- scalars ----------------------------------------------------------- */

struct integer {
	bool negative;
	uint64_t magnitude;
};

static bool integer_from_text(const char *text, struct integer *out)
{
	char *end;

	out->negative = *text == '-';
	text += out->negative;
	if (*text < '0' || *text > '9')
		return false;
	errno = 0;
	out->magnitude = strtoull(text, &end, 10);
	return errno == 0 && *end == '\0';
}

static bool integer_from(const json_t *json, struct integer *out)
{
	double real = json_real_value(json);
	json_int_t whole = json_integer_value(json);

	if (json_is_string(json))
		return integer_from_text(json_string_value(json), out);
	if (json_is_real(json)) {
		if (real != trunc(real) || fabs(real) > REAL_EXACT_MAX)
			return false;
		whole = (json_int_t)real;
	} else if (!json_is_integer(json)) {
		return false;
	}
	out->negative = whole < 0;
	out->magnitude = whole < 0 ? -(uint64_t)whole : (uint64_t)whole;
	return true;
}

static int read_integer(struct reader *r, const ProtobufCFieldDescriptor *f,
			const json_t *json, void *at)
{
	struct integer n;
	uint64_t value, max;
	uint32_t low;
	bool is_signed = true;

	if (!integer_from(json, &n))
		return fail(r, "expected an integer");
	switch (f->type) {
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
		is_signed = false;
		max = UINT32_MAX;
		break;
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
		is_signed = false;
		max = UINT64_MAX;
		break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		max = INT64_MAX;
		break;
	default:
		max = INT32_MAX;
	}
	if (n.negative)
		max = is_signed ? max + 1 : 0;
	if (n.magnitude > max)
		return fail(r, "out of range");
	value = n.negative ? -n.magnitude : n.magnitude;
	low = (uint32_t)value;
	if (json_value_size(f) == 8)
		memcpy(at, &value, 8);
	else
		memcpy(at, &low, 4);
	return 0;
}

static int read_real(struct reader *r, const ProtobufCFieldDescriptor *f,
		     const json_t *json, void *at)
{
	double value = json_number_value(json);
	float narrow;

	if (json_is_string(json)) {
		const char *text = json_string_value(json);
		size_t len = strlen(text);
		char *end;

		/* No spaces, no "inf", no hexadecimal. */
		value = strtod(text, &end);
		if (len == 0 || strspn(text, "+-.eE0123456789") != len ||
		    *end != '\0')
			return fail(r, "expected a number");
	} else if (!json_is_number(json)) {
		return fail(r, "expected a number");
	}
	if (!isfinite(value) ||
	    (f->type == PROTOBUF_C_TYPE_FLOAT && fabs(value) > (double)FLT_MAX))
		return fail(r, "out of range");
	narrow = (float)value;
	if (f->type == PROTOBUF_C_TYPE_FLOAT)
		memcpy(at, &narrow, sizeof(narrow));
	else
		memcpy(at, &value, sizeof(value));
	return 0;
}

static int read_enum(struct reader *r, const ProtobufCFieldDescriptor *f,
		     const json_t *json, void *at)
{
	const ProtobufCEnumValue *v;

	if (json_is_integer(json))
		return read_integer(r, f, json, at);
	if (!json_is_string(json))
		return fail(r, "expected a name");
	v = protobuf_c_enum_descriptor_get_value_by_name(
		f->descriptor, json_string_value(json));
	if (!v)
		return fail(r, "unknown value \"%.64s\"",
			    json_string_value(json));
	memcpy(at, &v->value, sizeof(v->value));
	return 0;
}

static int read_bytes(struct reader *r, const json_t *json, void *at)
{
	ProtobufCBinaryData out = {0};
	const char *text = json_string_value(json);
	size_t len;

	if (!text)
		return fail(r, "expected a base64 string");
	len = json_string_length(json);
	out.data = len > 0 ? xmalloc(len / 4 * 3 + 3) : NULL;
	if (base64_decode(text, len, out.data, &out.len) != 0) {
		free(out.data);
		return fail(r, "bad base64");
	}
	memcpy(at, &out, sizeof(out));
	return 0;
}

/* --- messages ---------------------------------------------------------- */

static ProtobufCMessage *message_new(const ProtobufCMessageDescriptor *type)
{
	ProtobufCMessage *m = xcalloc(1, type->sizeof_message);

	protobuf_c_message_init(type, m);
	return m;
}

static int read_message(struct reader *r, ProtobufCMessage *m,
			const json_t *json, int depth);

static int read_value(struct reader *r, const ProtobufCFieldDescriptor *f,
		      const json_t *json, void *at, int depth)
{
	protobuf_c_boolean boolean;
	ProtobufCMessage *m;
	char *text;

	/* Whatever it is to become: C strings are cut there. */
	if (json_is_string(json) &&
	    strlen(json_string_value(json)) != json_string_length(json))
		return fail(r, NUL_REFUSED);
	switch (f->type) {
	case PROTOBUF_C_TYPE_BOOL:
		if (!json_is_boolean(json))
			return fail(r, "expected true or false");
		boolean = json_is_true(json);
		memcpy(at, &boolean, sizeof(boolean));
		return 0;
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_DOUBLE:
		return read_real(r, f, json, at);
	case PROTOBUF_C_TYPE_ENUM:
		return read_enum(r, f, json, at);
	case PROTOBUF_C_TYPE_STRING:
		if (!json_is_string(json))
			return fail(r, "expected a string");
		text = xmemdupz(json_string_value(json),
				json_string_length(json));
		memcpy(at, &text, sizeof(text));
		return 0;
	case PROTOBUF_C_TYPE_BYTES:
		return read_bytes(r, json, at);
	case PROTOBUF_C_TYPE_MESSAGE:
		m = message_new(f->descriptor);
		memcpy(at, &m, sizeof(m));
		return read_message(r, m, json, depth + 1);
	default:
		return read_integer(r, f, json, at);
	}
}

/* A key is a string that spells a value of the key's type. */
static int read_key(struct reader *r, const ProtobufCFieldDescriptor *f,
		    const char *key, void *at)
{
	bool is_bool = f->type == PROTOBUF_C_TYPE_BOOL;
	json_t *json;
	int err;

	if (is_bool && strcmp(key, "true") != 0 && strcmp(key, "false") != 0)
		return fail(r, "expected \"true\" or \"false\"");
	json = is_bool ? json_boolean(key[0] == 't') : json_string(key);
	check(json != NULL);
	err = read_value(r, f, json, at, 0);
	json_decref(json);
	return err;
}

/* Gives a repeated field its array of `count` zeroed values. */
static char *array_new(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
		       size_t count)
{
	char *array = NULL;

	if (count > 0)
		array = xcalloc(count, json_value_size(f));
	memcpy((char *)m + f->offset, &array, sizeof(array));
	memcpy((char *)m + f->quantifier_offset, &count, sizeof(count));
	return array;
}

static int read_map(struct reader *r, ProtobufCMessage *m,
		    const ProtobufCFieldDescriptor *f, json_t *json, int depth)
{
	const ProtobufCMessageDescriptor *type = f->descriptor;
	size_t path_len = r->path_len;
	ProtobufCMessage **entry;
	const char *key;
	json_t *value;

	if (!json_is_object(json))
		return fail(r, "expected an object");
	entry = (ProtobufCMessage **)array_new(m, f, json_object_size(json));
	json_object_foreach(json, key, value)
	{
		const ProtobufCFieldDescriptor *kf = &type->fields[0];
		const ProtobufCFieldDescriptor *vf = &type->fields[1];
		int err;

		check(entry != NULL);
		*entry = message_new(type);
		path_push(r, "[\"%.32s\"]", key);
		err = read_key(r, kf, key, (char *)*entry + kf->offset);
		if (!err)
			err = read_value(r, vf, value,
					 (char *)*entry + vf->offset, depth);
		if (err)
			return err;
		path_pop(r, path_len);
		entry++;
	}
	return 0;
}

static int read_array(struct reader *r, ProtobufCMessage *m,
		      const ProtobufCFieldDescriptor *f, const json_t *json,
		      int depth)
{
	size_t path_len = r->path_len;
	char *array;

	if (!json_is_array(json))
		return fail(r, "expected an array");
	array = array_new(m, f, json_array_size(json));
	for (size_t i = 0; i < json_array_size(json); i++) {
		int err;

		path_push(r, "[%zu]", i);
		err = read_value(r, f, json_array_get(json, i),
				 array + i * json_value_size(f), depth);
		if (err)
			return err;
		path_pop(r, path_len);
	}
	return 0;
}

static int read_field(struct reader *r, ProtobufCMessage *m,
		      const ProtobufCFieldDescriptor *f, json_t *json,
		      int depth)
{
	uint32_t *which = (uint32_t *)((char *)m + f->quantifier_offset);

	if (json_is_null(json)) /* the same as absent */
		return 0;
	if (json_field_is_map(f))
		return read_map(r, m, f, json, depth);
	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return read_array(r, m, f, json, depth);
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) {
		if (*which != 0)
			return fail(r, "another member of its oneof is set");
		*which = f->id;
	}
	return read_value(r, f, json, (char *)m + f->offset, depth);
}

static int find_field(const ProtobufCMessageDescriptor *type, const char *name)
{
	for (unsigned i = 0; i < type->n_fields; i++) {
		if (json_name_matches(type->fields[i].name, name))
			return (int)i;
	}
	return ERR_NOT_FOUND;
}

static int read_message(struct reader *r, ProtobufCMessage *m,
			const json_t *json, int depth)
{
	size_t path_len = r->path_len;
	uint64_t seen = 0;
	const char *name;
	json_t *value;

	check(m->descriptor->n_fields <= FIELDS_MAX);
	if (depth >= JSON_DEPTH_MAX)
		return fail(r, "nested too deep");
	if (!json_is_object(json))
		return fail(r, "expected an object");
	json_object_foreach((json_t *)json, name, value)
	{
		int i = find_field(m->descriptor, name);
		int err;

		if (i < 0 && r->lenient)
			continue;
		if (i < 0)
			return fail(r, "unknown field \"%.64s\"", name);
		path_push(r, "%s%s", path_len > 0 ? "." : "", name);
		/* Both spellings of a name are one field. */
		if (seen & (uint64_t)1 << i)
			return fail(r, "given twice");
		seen |= (uint64_t)1 << i;
		err = read_field(r, m, &m->descriptor->fields[i], value, depth);
		if (err)
			return err;
		path_pop(r, path_len);
	}
	return 0;
}

/* A raw NUL is no JSON anywhere. To name the field that it is in, the text is
 * read once more with the first of them escaped. */
static json_t *load_escaped(const char *text, size_t len, const char *nul,
			    size_t flags, json_error_t *error)
{
	static const char escape[] = "\\u0000";
	size_t before = (size_t)(nul - text), rest = len - before - 1;
	char *copy = xmalloc(len + sizeof(escape));
	json_t *json;

	memcpy(copy, text, before);
	memcpy(copy + before, escape, sizeof(escape) - 1);
	memcpy(copy + before + sizeof(escape) - 1, nul + 1, rest);
	len = before + sizeof(escape) - 1 + rest;
	for (size_t i = before; i < len; i++)
		copy[i] = copy[i] == '\0' ? ' ' : copy[i];
	json = json_loadb(copy, len, flags, error);
	free(copy);
	return json;
}

static int read_text(struct reader *r, const ProtobufCMessageDescriptor *type,
		     const char *text, size_t len, ProtobufCMessage **out)
{
	const char *nul = len > 0 ? memchr(text, '\0', len) : NULL;
	ProtobufCMessage *m;
	json_error_t error;
	json_t *json = nul ? load_escaped(text, len, nul, r->flags, &error)
			   : json_loadb(text, len, r->flags, &error);
	int err;

	*out = NULL;
	if (!json)
		return fail(r, "invalid JSON: %s (line %d, column %d)",
			    error.text, error.line, error.column);
	m = message_new(type);
	err = read_message(r, m, json, 0);
	json_decref(json);
	if (!err && nul)
		err = fail(r, NUL_REFUSED);
	if (err) {
		protobuf_c_message_free_unpacked(m, NULL);
		return err;
	}
	*out = m;
	return 0;
}

int json_to_message(const ProtobufCMessageDescriptor *type, const char *text,
		    size_t len, bool lenient, ProtobufCMessage **out, char *why,
		    size_t why_size)
{
	struct reader r = {.flags = LOAD_FLAGS,
			   .lenient = lenient,
			   .why = why,
			   .why_size = why_size};

	if (len == 0) {
		*out = message_new(type);
		return 0;
	}
	return read_text(&r, type, text, len, out);
}

int json_to_element(const ProtobufCMessageDescriptor *type, const char *path,
		    const char *text, size_t len, ProtobufCMessage **out,
		    char *why, size_t why_size)
{
	struct reader r = {.flags = LOAD_FLAGS | JSON_DECODE_ANY,
			   .why = why,
			   .why_size = why_size};

	path_push(&r, "%s", path);
	return read_text(&r, type, text, len, out);
}

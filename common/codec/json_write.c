/* json_write.c - a message as JSON text. Written straight into one growing
 * buffer; plain fields with their default value are left out, because proto3
 * does not keep whether they were set. */
#include "common/base/err.h"
#include "common/codec/json.h"
#include "common/codec/json_field.h"
#include "common/ds/buf.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A message of ours that made more text than this would be a bug of ours. */
#define JSON_TEXT_MAX (1u << 30)

static void put(struct buf *out, const char *bytes, size_t len)
{
	int err = buf_append(out, bytes, len);

	check(err == 0);
}

static void put_text(struct buf *out, const char *text)
{
	put(out, text, strlen(text));
}

static void put_quoted(struct buf *out, const char *text)
{
	size_t len = strlen(text);
	char *place = buf_extend(out, json_quoted_len(text, len));

	check(place != NULL);
	json_quote(place, text, len);
}

static void put_name(struct buf *out, const char *name)
{
	put(out, "\"", 1);
	while (*name) {
		char c = json_camel_next(&name);

		put(out, &c, c != '\0');
	}
	put(out, "\":", 2);
}

static void put_base64(struct buf *out, const ProtobufCBinaryData *b)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				     "abcdefghijklmnopqrstuvwxyz0123456789+/";

	put(out, "\"", 1);
	for (size_t i = 0; i < b->len; i += 3) {
		size_t n = min_of(b->len - i, (size_t)3);
		uint32_t v = (uint32_t)b->data[i] << 16;
		char four[4];

		v |= n > 1 ? (uint32_t)b->data[i + 1] << 8 : 0;
		v |= n > 2 ? b->data[i + 2] : 0;
		four[0] = digits[v >> 18];
		four[1] = digits[v >> 12 & 63];
		four[2] = '=';
		four[3] = '=';
		if (n > 1)
			four[2] = digits[v >> 6 & 63];
		if (n > 2)
			four[3] = digits[v & 63];
		put(out, four, 4);
	}
	put(out, "\"", 1);
}

/* The fewest digits that read back as the same number. */
static void put_real(struct buf *out, double value, bool is_float)
{
	char text[40];

	if (isnan(value) || isinf(value)) {
		put_text(out, isnan(value) ? "\"NaN\""
			      : value > 0  ? "\"Infinity\""
					   : "\"-Infinity\"");
		return;
	}
	for (int digits = is_float ? 6 : 15; digits <= 17; digits++) {
		double back;

		snprintf(text, sizeof(text), "%.*g", digits, value);
		back = strtod(text, NULL);
		if (is_float ? (float)back == (float)value : back == value)
			break;
	}
	put_text(out, text);
}

static void put_enum(struct buf *out, const ProtobufCFieldDescriptor *f,
		     int32_t value)
{
	const ProtobufCEnumValue *v =
		protobuf_c_enum_descriptor_get_value(f->descriptor, value);
	char text[16];

	if (v) {
		put_quoted(out, v->name);
		return;
	}
	snprintf(text, sizeof(text), "%d", value);
	put_text(out, text);
}

/* A number of any integer type, without quotes. */
static void format_integer(char text[24], const ProtobufCFieldDescriptor *f,
			   const void *value)
{
	size_t size = json_value_size(f);
	uint64_t u64 = 0;
	uint32_t u32 = 0;

	memcpy(size == 8 ? (void *)&u64 : (void *)&u32, value, size);
	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
		snprintf(text, 24, "%d", (int32_t)u32);
		break;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
		snprintf(text, 24, "%lld", (long long)u64);
		break;
	default:
		snprintf(text, 24, "%llu",
			 (unsigned long long)(size == 8 ? u64 : u32));
	}
}

static void put_message(struct buf *out, const ProtobufCMessage *m, int depth);

static void put_value(struct buf *out, const ProtobufCFieldDescriptor *f,
		      const void *value, int depth)
{
	char text[24];

	switch (f->type) {
	case PROTOBUF_C_TYPE_BOOL:
		put_text(out,
			 *(const protobuf_c_boolean *)value ? "true" : "false");
		return;
	case PROTOBUF_C_TYPE_FLOAT:
		put_real(out, (double)*(const float *)value, true);
		return;
	case PROTOBUF_C_TYPE_DOUBLE:
		put_real(out, *(const double *)value, false);
		return;
	case PROTOBUF_C_TYPE_ENUM:
		put_enum(out, f, *(const int32_t *)value);
		return;
	case PROTOBUF_C_TYPE_STRING:
		put_quoted(out,
			   *(char *const *)value ? *(char *const *)value : "");
		return;
	case PROTOBUF_C_TYPE_BYTES:
		put_base64(out, value);
		return;
	case PROTOBUF_C_TYPE_MESSAGE:
		/* A map's entry may come without a value. */
		if (*(ProtobufCMessage *const *)value)
			put_message(out, *(ProtobufCMessage *const *)value,
				    depth + 1);
		else
			put_text(out, "{}");
		return;
	default:
		format_integer(text, f, value);
		if (json_value_size(f) == 8) /* JavaScript has 53 bits */
			put_quoted(out, text);
		else
			put_text(out, text);
	}
}

/* A map's key: always a string, whatever its type. */
static void put_key(struct buf *out, const ProtobufCFieldDescriptor *f,
		    const void *value)
{
	char text[24];

	if (f->type == PROTOBUF_C_TYPE_STRING) {
		put_value(out, f, value, 0);
		return;
	}
	if (f->type == PROTOBUF_C_TYPE_BOOL)
		strcpy(text,
		       *(const protobuf_c_boolean *)value ? "true" : "false");
	else
		format_integer(text, f, value);
	put_quoted(out, text);
}

static void put_repeated(struct buf *out, const ProtobufCFieldDescriptor *f,
			 const char *array, size_t count, int depth)
{
	bool map = json_field_is_map(f);

	put(out, map ? "{" : "[", 1);
	for (size_t i = 0; i < count; i++) {
		const char *value = array + i * json_value_size(f);

		if (i > 0)
			put(out, ",", 1);
		if (map) {
			const char *entry = *(const char *const *)value;
			const ProtobufCMessageDescriptor *m = f->descriptor;

			put_key(out, &m->fields[0],
				entry + m->fields[0].offset);
			put(out, ":", 1);
			put_value(out, &m->fields[1],
				  entry + m->fields[1].offset, depth);
		} else {
			put_value(out, f, value, depth);
		}
	}
	put(out, map ? "}" : "]", 1);
}

/* A plain field that holds what an absent one would hold. */
static bool is_default(const ProtobufCFieldDescriptor *f, const void *value)
{
	static const char zeros[8];

	switch (f->type) {
	case PROTOBUF_C_TYPE_STRING:
		return !*(char *const *)value || **(char *const *)value == '\0';
	case PROTOBUF_C_TYPE_BYTES:
		return ((const ProtobufCBinaryData *)value)->len == 0;
	default:
		return memcmp(value, zeros, json_value_size(f)) == 0;
	}
}

static bool is_absent(const ProtobufCMessage *m,
		      const ProtobufCFieldDescriptor *f)
{
	const void *member = (const char *)m + f->offset;
	const void *quantifier = (const char *)m + f->quantifier_offset;

	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		return *(const size_t *)quantifier == 0;
	if (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF)
		return *(const uint32_t *)quantifier != f->id;
	return is_default(f, member);
}

static void put_message(struct buf *out, const ProtobufCMessage *m, int depth)
{
	bool first = true;

	check(depth < JSON_DEPTH_MAX);
	put(out, "{", 1);
	for (unsigned i = 0; i < m->descriptor->n_fields; i++) {
		const ProtobufCFieldDescriptor *f = &m->descriptor->fields[i];
		const char *member = (const char *)m + f->offset;

		if (is_absent(m, f))
			continue;
		if (!first)
			put(out, ",", 1);
		first = false;
		put_name(out, f->name);
		if (f->label == PROTOBUF_C_LABEL_REPEATED)
			put_repeated(out, f, *(const char *const *)member,
				     *(const size_t *)((const char *)m +
						       f->quantifier_offset),
				     depth);
		else
			put_value(out, f, member, depth);
	}
	put(out, "}", 1);
}

char *json_from_message(const ProtobufCMessage *message, size_t *len)
{
	struct buf out;

	buf_init(&out, JSON_TEXT_MAX);
	put_message(&out, message, 0);
	*len = out.len;
	put(&out, "", 1);
	return (char *)out.bytes;
}

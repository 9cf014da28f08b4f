#include "common/codec/pbwire.h"

#include "common/base/err.h"
#include "common/codec/json.h"
#include "common/codec/json_field.h"

#include <stdio.h>
#include <string.h>

#define VARINT_MAX 10
#define HEAD_MAX   5 /* bytes of a tag, and of a length */
#define PATH_SIZE  128

/* Reads one of at most `max` bytes. */
static bool get_varint(struct pbwire *w, unsigned max, uint64_t *value)
{
	*value = 0;
	for (unsigned i = 0; i < max && w->at < w->end; i++) {
		uint8_t byte = *w->at++;

		*value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (byte < 0x80)
			return true;
	}
	return false;
}

/* Length and start of the value; its length only where it has a fixed one. */
static bool get_value(struct pbwire *w, struct pbwire_field *f)
{
	uint64_t len = 0;

	f->bytes = w->at;
	switch (f->wire) {
	case PROTOBUF_C_WIRE_TYPE_VARINT:
		if (!get_varint(w, VARINT_MAX, &len))
			return false;
		f->len = (size_t)(w->at - f->bytes);
		return true;
	case PROTOBUF_C_WIRE_TYPE_64BIT:
		len = 8;
		break;
	case PROTOBUF_C_WIRE_TYPE_32BIT:
		len = 4;
		break;
	case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
		if (!get_varint(w, HEAD_MAX, &len))
			return false;
		f->bytes = w->at;
		break;
	default:
		return false; /* groups, which protobuf-c does not know */
	}
	if (len > (uint64_t)(w->end - w->at))
		return false;
	f->len = (size_t)len;
	w->at += len;
	return true;
}

int pbwire_next(struct pbwire *w, struct pbwire_field *f)
{
	uint64_t tag;

	if (w->at == w->end)
		return 0;
	if (!get_varint(w, HEAD_MAX, &tag) || tag > UINT32_MAX || tag < 8)
		return ERR_MALFORMED;
	f->id = (uint32_t)tag >> 3;
	f->wire = tag & 7;
	return get_value(w, f) ? 1 : ERR_MALFORMED;
}

size_t pbwire_put_head(uint8_t *out, uint32_t id, size_t len)
{
	uint64_t values[] = {
		(uint64_t)id << 3 | PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED, len};
	size_t n = 0;

	for (size_t i = 0; i < array_len(values); i++) {
		while (values[i] >= 0x80) {
			out[n++] = (uint8_t)(values[i] | 0x80);
			values[i] >>= 7;
		}
		out[n++] = (uint8_t)values[i];
	}
	return n;
}

/* --- strings ----------------------------------------------------------- */

/* Where a string is not what it should be; made from the inside out, once one
 * was found. */
struct fault {
	const char *what;
	char path[PATH_SIZE];
};

/* Puts the field before what stands there; `index` of a repeated one. */
static void prepend(struct fault *fault, const ProtobufCFieldDescriptor *f,
		    size_t index)
{
	char inner[PATH_SIZE], position[24] = "";

	memcpy(inner, fault->path, sizeof(inner));
	if (f->label == PROTOBUF_C_LABEL_REPEATED)
		snprintf(position, sizeof(position), "[%zu]", index);
	if (snprintf(fault->path, PATH_SIZE, "%s%s%s%s", f->name, position,
		     inner[0] != '\0' ? "." : "", inner) < 0)
		fault->path[0] = '\0';
}

/* How many of the field come before the one that ends at `end`. */
static size_t index_of(const uint8_t *bytes, const uint8_t *end, uint32_t id)
{
	struct pbwire w = {bytes, end};
	struct pbwire_field f;
	size_t count = 0;

	while (pbwire_next(&w, &f) == 1)
		count += f.id == id &&
			 f.wire == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
	return count - 1;
}

static const char *string_fault(const uint8_t *bytes, size_t len)
{
	if (len > 0 && memchr(bytes, '\0', len) != NULL)
		return "must not contain NUL characters";
	return utf8_valid(bytes, len) ? NULL : "must be valid UTF-8";
}

static int check_message(const ProtobufCMessageDescriptor *type,
			 const uint8_t *bytes, size_t len, int depth,
			 struct fault *fault)
{
	struct pbwire w = {bytes, bytes + len};
	struct pbwire_field at;
	int rv;

	if (depth >= JSON_DEPTH_MAX)
		return ERR_MALFORMED;
	while ((rv = pbwire_next(&w, &at)) == 1) {
		const ProtobufCFieldDescriptor *f;

		if (at.wire != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
			continue;
		f = protobuf_c_message_descriptor_get_field(type, at.id);
		if (!f)
			continue;
		if (f->type == PROTOBUF_C_TYPE_STRING) {
			fault->what = string_fault(at.bytes, at.len);
			rv = fault->what ? ERR_REFUSED : 0;
		} else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
			rv = check_message(f->descriptor, at.bytes, at.len,
					   depth + 1, fault);
		} else {
			continue;
		}
		if (rv == ERR_REFUSED)
			prepend(fault, f, index_of(bytes, w.at, at.id));
		if (rv != 0)
			return rv;
	}
	return rv;
}

int pbwire_check_strings(const ProtobufCMessageDescriptor *type,
			 const void *bytes, size_t len, const char *path,
			 char *why, size_t why_size)
{
	struct fault fault = {NULL, ""};
	int rv;

	if (len == 0) /* `bytes` may be NULL */
		return 0;
	rv = check_message(type, bytes, len, 0, &fault);
	if (rv == ERR_REFUSED)
		snprintf(why, why_size, "%s%s%s: %s", path,
			 path[0] != '\0' ? "." : "", fault.path, fault.what);
	else if (rv != 0)
		snprintf(why, why_size, "not a valid %s message", type->name);
	return rv;
}

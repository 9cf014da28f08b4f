/* descriptor_set.c - a wire scanner over google.protobuf.FileDescriptorSet. */
#include "dispatcher/api/descriptor_set.h"

#include "common/base/check.h"

#include <stdbool.h>
#include <string.h>

/* Field numbers of google/protobuf/descriptor.proto. */
enum {
	SET_FILE = 1,
	FILE_PACKAGE = 2,
	FILE_DEPENDENCY = 3,
	FILE_MESSAGE = 4,
	FILE_ENUM = 5,
	FILE_SERVICE = 6,
	ANY_NAME = 1,
	MESSAGE_FIELD = 2,
	MESSAGE_NESTED = 3,
	MESSAGE_ENUM = 4,
	ENUM_VALUE = 2,
	SERVICE_METHOD = 2,
};

static bool varint(struct slice *in, uint64_t *out)
{
	*out = 0;
	for (unsigned shift = 0; shift < 64 && in->len > 0; shift += 7) {
		uint8_t byte = *in->bytes++;

		in->len--;
		*out |= (uint64_t)(byte & 0x7f) << shift;
		if (!(byte & 0x80))
			return true;
	}
	return false;
}

static bool descriptor_set_take(struct slice *in, uint64_t len,
				struct slice *out)
{
	if (len > in->len)
		return false;
	*out = (struct slice){in->bytes, (size_t)len};
	in->bytes += len;
	in->len -= (size_t)len;
	return true;
}

/* The next field; `value` of all but length-delimited ones is empty. False at
 * the end and on malformed bytes. */
static bool next(struct slice *in, unsigned *field, struct slice *value)
{
	struct slice skipped;
	uint64_t tag, n;

	*value = (struct slice){NULL, 0};
	if (!varint(in, &tag))
		return false;
	*field = (unsigned)(tag >> 3);
	switch (tag & 7) {
	case 0:
		return varint(in, &n);
	case 1:
		return descriptor_set_take(in, 8, &skipped);
	case 2:
		return varint(in, &n) && descriptor_set_take(in, n, value);
	case 5:
		return descriptor_set_take(in, 4, &skipped);
	default:
		return false;
	}
}

/* The first length-delimited field of that number, or an empty slice. */
static struct slice get(struct slice in, unsigned wanted)
{
	struct slice value;
	unsigned field;

	while (next(&in, &field, &value)) {
		if (field == wanted && value.bytes)
			return value;
	}
	return (struct slice){NULL, 0};
}

static bool slice_is(struct slice s, const char *text)
{
	return s.bytes && s.len == strlen(text) &&
	       memcmp(s.bytes, text, s.len) == 0;
}

/* The part of `symbol` after "name."; "" if it is just the name; NULL if it
 * is another. */
static const char *after(const char *symbol, struct slice name)
{
	if (name.len == 0 ||
	    strncmp(symbol, (const char *)name.bytes, name.len) != 0)
		return NULL;
	if (symbol[name.len] == 0)
		return symbol + name.len;
	if (symbol[name.len] != '.' || symbol[name.len + 1] == 0)
		return NULL;
	return symbol + name.len + 1;
}

static bool has_named(struct slice in, unsigned wanted, const char *name)
{
	struct slice value;
	unsigned field;

	while (next(&in, &field, &value)) {
		if (field == wanted && slice_is(get(value, ANY_NAME), name))
			return true;
	}
	return false;
}

/* Is `symbol` this enum or service, or a direct child of it? */
static bool leaf_defines(struct slice in, unsigned child, const char *symbol)
{
	const char *rest = after(symbol, get(in, ANY_NAME));

	return rest && (rest[0] == 0 || has_named(in, child, rest));
}

/* Recursion is as deep as our own messages nest. */
static bool message_defines(struct slice in, const char *symbol)
{
	const char *rest = after(symbol, get(in, ANY_NAME));
	struct slice value;
	unsigned field;

	if (!rest)
		return false;
	if (rest[0] == 0 || has_named(in, MESSAGE_FIELD, rest))
		return true;
	while (next(&in, &field, &value)) {
		if (field == MESSAGE_NESTED && message_defines(value, rest))
			return true;
		if (field == MESSAGE_ENUM &&
		    leaf_defines(value, ENUM_VALUE, rest))
			return true;
	}
	return false;
}

static bool file_defines(struct slice in, const char *symbol)
{
	struct slice package = get(in, FILE_PACKAGE), value;
	const char *rest = package.len > 0 ? after(symbol, package) : symbol;
	unsigned field;

	if (!rest)
		return false;
	while (next(&in, &field, &value)) {
		if (field == FILE_MESSAGE && message_defines(value, rest))
			return true;
		if (field == FILE_ENUM && leaf_defines(value, ENUM_VALUE, rest))
			return true;
		if (field == FILE_SERVICE &&
		    leaf_defines(value, SERVICE_METHOD, rest))
			return true;
	}
	return false;
}

void descriptor_set_init(struct descriptor_set *d, const uint8_t *bytes,
			 size_t len)
{
	struct slice in = {bytes, len}, value;
	unsigned field;

	d->count = 0;
	while (d->count < DESCRIPTOR_SET_MAX && next(&in, &field, &value)) {
		if (field == SET_FILE)
			d->files[d->count++] = value;
	}
}

int descriptor_set_find_file(const struct descriptor_set *d, const char *name)
{
	for (size_t i = 0; i < d->count; i++) {
		if (slice_is(get(d->files[i], ANY_NAME), name))
			return (int)i;
	}
	return -1;
}

int descriptor_set_find_symbol(const struct descriptor_set *d,
			       const char *symbol)
{
	for (size_t i = 0; i < d->count; i++) {
		if (file_defines(d->files[i], symbol))
			return (int)i;
	}
	return -1;
}

static uint64_t imports(const struct descriptor_set *d, struct slice in)
{
	uint64_t set = 0;
	struct slice value;
	unsigned field;

	while (next(&in, &field, &value)) {
		if (field != FILE_DEPENDENCY)
			continue;
		for (size_t i = 0; i < d->count; i++) {
			struct slice name = get(d->files[i], ANY_NAME);

			if (name.len > 0 && name.len == value.len &&
			    memcmp(name.bytes, value.bytes, name.len) == 0)
				set |= (uint64_t)1 << i;
		}
	}
	return set;
}

uint64_t descriptor_set_closure(const struct descriptor_set *d, int file)
{
	uint64_t set = (uint64_t)1 << file, before;

	check(file >= 0 && (size_t)file < d->count);
	do {
		before = set;
		for (size_t i = 0; i < d->count; i++) {
			if (set >> i & 1)
				set |= imports(d, d->files[i]);
		}
	} while (set != before);
	return set;
}

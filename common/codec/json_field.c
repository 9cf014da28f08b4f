#include "common/codec/json_field.h"

#include "common/base/check.h"

#include <string.h>

size_t json_value_size(const ProtobufCFieldDescriptor *f)
{
	switch (f->type) {
	case PROTOBUF_C_TYPE_INT32:
	case PROTOBUF_C_TYPE_SINT32:
	case PROTOBUF_C_TYPE_SFIXED32:
	case PROTOBUF_C_TYPE_UINT32:
	case PROTOBUF_C_TYPE_FIXED32:
	case PROTOBUF_C_TYPE_FLOAT:
	case PROTOBUF_C_TYPE_ENUM:
		return 4;
	case PROTOBUF_C_TYPE_INT64:
	case PROTOBUF_C_TYPE_SINT64:
	case PROTOBUF_C_TYPE_SFIXED64:
	case PROTOBUF_C_TYPE_UINT64:
	case PROTOBUF_C_TYPE_FIXED64:
	case PROTOBUF_C_TYPE_DOUBLE:
		return 8;
	case PROTOBUF_C_TYPE_BOOL:
		return sizeof(protobuf_c_boolean);
	case PROTOBUF_C_TYPE_STRING:
	case PROTOBUF_C_TYPE_MESSAGE:
		return sizeof(void *);
	case PROTOBUF_C_TYPE_BYTES:
		return sizeof(ProtobufCBinaryData);
	}
	check(false); /* protobuf-c has no other type */
	return 0;
}

bool json_name_matches(const char *name, const char *json)
{
	if (strcmp(name, json) == 0)
		return true;
	while (*json) {
		if (json_camel_next(&name) != *json++)
			return false;
	}
	return *name == '\0';
}

bool json_field_is_map(const ProtobufCFieldDescriptor *f)
{
	const ProtobufCMessageDescriptor *m = f->descriptor;
	const char *name = f->name, *entry;

	if (f->label != PROTOBUF_C_LABEL_REPEATED ||
	    f->type != PROTOBUF_C_TYPE_MESSAGE || m->n_fields != 2 ||
	    strcmp(m->fields[0].name, "key") != 0 ||
	    strcmp(m->fields[1].name, "value") != 0)
		return false;
	/* The entry's name begins with a capital where the field's does not. */
	entry = m->short_name;
	if ((*entry++ | 0x20) != (json_camel_next(&name) | 0x20))
		return false;
	while (*name) {
		if (*entry++ != json_camel_next(&name))
			return false;
	}
	return strcmp(entry, "Entry") == 0;
}

/* json_field.h - what the JSON reader and writer both ask of a protobuf-c
 * field (pure; private to json_*.c). */
#ifndef STENTOR_CODEC_JSON_FIELD_H
#define STENTOR_CODEC_JSON_FIELD_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stddef.h>

/* Messages in messages, in JSON or in C: our own are at most five deep. */
#define JSON_DEPTH_MAX 32

/* Bytes of one value of the field's type in a C structure or array. */
size_t json_value_size(const ProtobufCFieldDescriptor *f);

/* A map is a repeated message that the compiler made up: FooEntry {key,
 * value} for a field foo. Nothing else in protobuf-c tells. */
bool json_field_is_map(const ProtobufCFieldDescriptor *f);

/* Is `json` the field's name, as it stands or in lowerCamelCase? */
bool json_name_matches(const char *name, const char *json);

/* The next character of a field's name in lowerCamelCase; 0 at the end. */
static inline char json_camel_next(const char **name)
{
	bool upper = false;
	char c;

	while (**name == '_') {
		upper = true;
		(*name)++;
	}
	c = **name;
	if (c != '\0')
		(*name)++;
	return upper && c >= 'a' && c <= 'z' ? (char)(c - 'a' + 'A') : c;
}

#endif

/* descriptors.h - the embedded FileDescriptorSet, read where it lies (pure).
 *
 * protoc writes the descriptors of all public protos into one set, which the
 * Makefile puts into the program. A small wire scanner finds files, symbols and
 * dependencies in it: nothing is copied and no protobuf reflection is needed.
 */
#ifndef STENTOR_DISPATCHER_API_DESCRIPTORS_H
#define STENTOR_DISPATCHER_API_DESCRIPTORS_H

#include <stddef.h>
#include <stdint.h>

#define DESCRIPTORS_MAX 64 /* files in the set */

struct slice {
	const uint8_t *bytes;
	size_t len;
};

/* A serialized FileDescriptorSet; borrowed by what the functions return. */
struct descriptors {
	struct slice files[DESCRIPTORS_MAX]; /* each a FileDescriptorProto */
	size_t count;
};

/* Splits a set. Malformed bytes end it early. */
void descriptors_init(struct descriptors *d, const uint8_t *bytes, size_t len);
/* Index of the file of that name, or of the one that defines the fully
 * qualified message, enum, service, method, field or enum value; -1 if none. */
int descriptors_find_file(const struct descriptors *d, const char *name);
int descriptors_find_symbol(const struct descriptors *d, const char *symbol);
/* Bit set of the file and all that it imports, at any depth. */
uint64_t descriptors_closure(const struct descriptors *d, int file);

#endif

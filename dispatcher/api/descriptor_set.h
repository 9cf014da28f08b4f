/* descriptor_set.h - the embedded FileDescriptorSet, read where it lies (pure).
 *
 * protoc writes the descriptors of all public protos into one set, which the
 * Makefile puts into the program. A small wire scanner finds files, symbols and
 * dependencies in it: nothing is copied and no protobuf reflection is needed.
 */
#ifndef STENTOR_DISPATCHER_API_DESCRIPTOR_SET_H
#define STENTOR_DISPATCHER_API_DESCRIPTOR_SET_H

#include <stddef.h>
#include <stdint.h>

#define DESCRIPTOR_SET_MAX 64 /* files in the set */

struct slice {
	const uint8_t *bytes;
	size_t len;
};

/* A serialized FileDescriptorSet; borrowed by what the functions return. */
struct descriptor_set {
	struct slice files[DESCRIPTOR_SET_MAX]; /* each a FileDescriptorProto */
	size_t count;
};

/* Splits a set. Malformed bytes end it early. */
void descriptor_set_init(struct descriptor_set *d, const uint8_t *bytes,
			 size_t len);
/* Index of the file of that name, or of the one that defines the fully
 * qualified message, enum, service, method, field or enum value; -1 if none. */
int descriptor_set_find_file(const struct descriptor_set *d, const char *name);
int descriptor_set_find_symbol(const struct descriptor_set *d,
			       const char *symbol);
/* Bit set of the file and all that it imports, at any depth. */
uint64_t descriptor_set_closure(const struct descriptor_set *d, int file);

#endif

/* pbarena.h - an arena as the allocator of protobuf-c (pure). */
#ifndef STENTOR_CODEC_PBARENA_H
#define STENTOR_CODEC_PBARENA_H

#include "common/ds/arena.h"

#include <protobuf-c/protobuf-c.h>

/* Allocates from `arena` (borrowed); freeing does nothing. */
ProtobufCAllocator pbarena_allocator(struct arena *arena);

#endif

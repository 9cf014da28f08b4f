#include "common/codec/pbarena.h"

#include "common/base/check.h"

static void *allocate(void *arena, size_t size)
{
	return arena_alloc(arena, size);
}

static void release(void *arena UNUSED, void *memory UNUSED)
{
}

ProtobufCAllocator pbarena_allocator(struct arena *arena)
{
	return (ProtobufCAllocator){
		.alloc = allocate,
		.free = release,
		.allocator_data = arena,
	};
}

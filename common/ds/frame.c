#include "common/ds/frame.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define MALLOC_OVERHEAD 16

/* Frames are released wherever their last holder is, so that only here all of
 * them can be counted; and they never cross threads. */
static size_t live_bytes;

static size_t memory_of(size_t len)
{
	return sizeof(struct frame) + len + MALLOC_OVERHEAD;
}

size_t frames_bytes(void)
{
	return live_bytes;
}

struct frame *frame_new(size_t len)
{
	struct frame *f;

	check(len <= FRAME_MAX);
	live_bytes += memory_of(len);
	f = xmalloc(sizeof(*f) + len);
	*f = (struct frame){.refs = 1, .len = (uint32_t)len};
	return f;
}

struct frame *frame_from(const void *bytes, size_t len)
{
	struct frame *f = frame_new(len);

	memcpy(f->bytes, bytes, len);
	return f;
}

void frame_release(struct frame *f)
{
	check(f->refs > 0);
	if (--f->refs > 0)
		return;
	if (f->plain != NULL)
		frame_release(f->plain);
	live_bytes -= memory_of(f->len);
	free(f);
}

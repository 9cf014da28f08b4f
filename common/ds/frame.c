#include "common/ds/frame.h"

#include "common/base/check.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

struct frame *frame_new(size_t len)
{
	struct frame *f;

	check(len <= FRAME_MAX);
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
	if (--f->refs == 0)
		free(f);
}

/* frame.h - immutable bytes with a reference count (pure).
 *
 * What is encoded once and shared by many: a rendered SSE event by all
 * connections of a channel, an encoded delivery by all links. Never crosses
 * threads. The last release frees.
 */
#ifndef STENTOR_DS_FRAME_H
#define STENTOR_DS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct frame {
	uint32_t refs;
	uint32_t len;
	uint32_t queued; /* link queues that hold it (linkq.c) */
	/* Of a message, for whoever accounts for its delivery or has to leave
	 * it out: when it was accepted (microseconds since 1970; 0: not a
	 * message) and until when it is of use (0: for ever), its class, the
	 * channel it came by and its position there (offset 0: ephemeral), and
	 * what it may be conflated with (0: nothing). */
	uint64_t accepted_us, expires_us;
	uint64_t epoch, offset, conflation;
	struct frame *plain; /* without its chunk, once wanted: sse.h */
	const void *channel; /* to be compared, never followed */
	uint8_t class;
	bool droppable; /* a slow reader may miss it */
	bool glued;	/* is nothing without the frame behind it */
	uint8_t bytes[];
};

#define FRAME_MAX (64u << 20)

/* `len` bytes to be filled by the caller before it is shared; one reference. */
struct frame *frame_new(size_t len);
struct frame *frame_from(const void *bytes, size_t len);

static inline struct frame *frame_hold(struct frame *f)
{
	f->refs++;
	return f;
}

void frame_release(struct frame *f);

/* Memory of all frames that this process has now, the allocator's included. */
size_t frames_bytes(void);

#endif

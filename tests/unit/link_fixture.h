/* link_fixture.h - the other end of a link, for tests of one end: keeps what
 * was sent, and makes what a peer would send. */
#ifndef STENTOR_TESTS_LINK_FIXTURE_H
#define STENTOR_TESTS_LINK_FIXTURE_H

#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/linkstate.h"
#include "common/codec/linkwire.h"
#include "tests/unit/unit.h"

#include <string.h>
#include <sys/uio.h>

#define SENT_MAX 600

/* What one end sent, oldest first. */
struct sent {
	struct frame *frames[SENT_MAX];
	unsigned count;
	int answer; /* of the next sends: 0 or ERR_AGAIN */
	struct arena arena;
};

static inline void sent_init(struct sent *s)
{
	memset(s, 0, sizeof(*s));
	arena_init(&s->arena, LINK_DECODED_MAX);
}

static inline void sent_clear(struct sent *s)
{
	while (s->count > 0)
		frame_release(s->frames[--s->count]);
	arena_reset(&s->arena);
}

static inline void sent_fini(struct sent *s)
{
	sent_clear(s);
	arena_fini(&s->arena);
}

static inline struct frame *join(const struct iovec *pieces, size_t count)
{
	size_t len = 0, at = 0;
	struct frame *f;

	for (size_t i = 0; i < count; i++)
		len += pieces[i].iov_len;
	f = frame_new(len);
	for (size_t i = 0; i < count; i++) {
		if (pieces[i].iov_len > 0)
			memcpy(f->bytes + at, pieces[i].iov_base,
			       pieces[i].iov_len);
		at += pieces[i].iov_len;
	}
	return f;
}

static inline int sent_take(struct sent *s, const struct iovec *pieces,
			    size_t count)
{
	if (s->answer != 0)
		return s->answer;
	assert_true(s->count < SENT_MAX);
	s->frames[s->count++] = join(pieces, count);
	return 0;
}

/* Valid until sent_clear(). */
static inline LinkFrame *sent_decode(struct sent *s, unsigned i)
{
	LinkFrame *f;

	assert_true(i < s->count);
	f = link_frame_decode(&s->arena, s->frames[i]->bytes,
			      s->frames[i]->len);
	assert_non_null(f);
	return f;
}

/* A frame as a peer sends it; one reference. */
static inline struct frame *peer_frame(struct link_header h, LinkFrame *content)
{
	uint8_t head[LINK_HEADER_MAX];
	struct frame *control = link_control_encode(content);
	struct iovec pieces[2] = {{head, link_header_encode(head, &h)},
				  {control->bytes, control->len}};
	struct frame *f = join(pieces, 2);

	frame_release(control);
	return f;
}

#endif

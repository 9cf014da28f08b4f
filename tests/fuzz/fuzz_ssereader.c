/* Fuzz target: stentorctl's reader of event streams. The first byte is the size
 * of the pieces that the rest is fed in: the same events must come out as of
 * one piece, and the id must survive a connection that breaks anywhere. */
#include "dispatcher/ctl/ssereader.h"
#include "tests/fuzz/fuzz.h"

#define RETRY_MS 3000

/* Everything that was handed on, each part with its length before it. */
static void note(struct buf *log, const char *bytes, size_t len)
{
	check(buf_append(log, &len, sizeof(len)) == 0);
	check(buf_append(log, bytes, len) == 0);
}

static void on_event(void *ctx, const struct ctl_sse_event *e)
{
	check(e->data[e->data_len] == '\0');
	note(ctx, e->event, strlen(e->event));
	note(ctx, e->data, e->data_len);
}

static void read_stream(struct ctl_sse_reader *r, const uint8_t *data,
			size_t size, size_t piece, struct buf *log)
{
	struct fuzz_input in = {data, size};

	ctl_sse_init(r, RETRY_MS, on_event, log);
	while (in.left > 0) {
		size_t len = piece;
		uint8_t *bytes = fuzz_bytes(&in, &len);

		check(ctl_sse_feed(r, (char *)bytes, len) == 0);
		free(bytes);
	}
	check(r->bytes == size);
}

static void check_pieces(const uint8_t *data, size_t size, size_t piece)
{
	struct ctl_sse_reader whole, pieces;
	struct buf a, b;

	buf_init(&a, CTL_SSE_EVENT_MAX);
	buf_init(&b, CTL_SSE_EVENT_MAX);
	read_stream(&whole, data, size, max_of(size, 1u), &a);
	read_stream(&pieces, data, size, piece, &b);
	check(a.len == b.len);
	check(a.len == 0 || memcmp(a.bytes, b.bytes, a.len) == 0);
	check(strcmp(ctl_sse_last_id(&whole), ctl_sse_last_id(&pieces)) == 0);
	check(whole.retry_ms == pieces.retry_ms);
	check(whole.retry_ms < 1000000000);
	ctl_sse_fini(&pieces);
	ctl_sse_fini(&whole);
	buf_fini(&b);
	buf_fini(&a);
}

/* A connection that breaks in the middle: the id survives. */
static void check_restart(const uint8_t *data, size_t size)
{
	struct ctl_sse_reader r;
	struct buf log;
	char *id;

	buf_init(&log, CTL_SSE_EVENT_MAX);
	read_stream(&r, data, size, max_of(size, 1u), &log);
	id = xstrdup(ctl_sse_last_id(&r));
	ctl_sse_restart(&r);
	check(strcmp(ctl_sse_last_id(&r), id) == 0);
	buf_clear(&log, 0);
	check(ctl_sse_feed(&r, "data: x\n\n", 9) == 0);
	check(log.len == 2 * sizeof(size_t) + strlen("message") + 1);
	check(strcmp(ctl_sse_last_id(&r), id) == 0);
	check(ctl_sse_resume(&r, id) == 0);
	ctl_sse_fini(&r);
	buf_fini(&log);
	free(id);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (size < 1)
		return 0;
	check_pieces(data + 1, size - 1, 1 + data[0] % 32);
	check_restart(data + 1, size - 1);
	return 0;
}

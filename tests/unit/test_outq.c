#include "connnode/stream/outq.h"

#include "common/base/check.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

/* A message unless `number` is 0; the queue holds the only reference. */
static void push(struct outq *q, unsigned number, size_t len)
{
	struct frame *f = frame_new(len);

	memset(f->bytes, (int)number, len);
	f->accepted_us = number;
	f->droppable = number != 0;
	outq_push(q, f);
	frame_release(f);
}

static unsigned pop(struct outq *q)
{
	struct frame *f = outq_pop_sent(q);
	unsigned number;

	if (f == NULL)
		return UINT32_MAX;
	number = f->bytes[0];
	assert_int_equal(f->refs, 1);
	frame_release(f);
	return number;
}

static unsigned drop(struct outq *q, uint32_t keep)
{
	struct frame *f = outq_drop_oldest(q, keep);
	unsigned number = f ? f->bytes[0] : UINT32_MAX;

	if (f != NULL)
		frame_release(f);
	return number;
}

#define NONE UINT32_MAX

static void test_outq_partial_writes(void **state UNUSED)
{
	struct outq q;
	struct iovec iov[4];

	outq_init(&q);
	assert_int_equal(outq_iov(&q, iov, 4, 1000), 0);
	assert_int_equal(pop(&q), NONE);
	push(&q, 1, 10);
	push(&q, 2, 20);
	push(&q, 3, 30);
	assert_int_equal(q.bytes, 60);
	assert_int_equal(outq_iov(&q, iov, 4, 1000), 3);
	outq_sent(&q, 4);
	assert_int_equal(pop(&q), NONE);
	assert_int_equal(outq_first_left(&q), 6);
	assert_int_equal(outq_iov(&q, iov, 4, 1000), 3);
	assert_int_equal(iov[0].iov_len, 6);
	assert_int_equal(((uint8_t *)iov[0].iov_base)[0], 1);
	assert_int_equal(iov[1].iov_len, 20);
	/* The rest of the first, all of the second, a part of the third. */
	outq_sent(&q, 6 + 20 + 5);
	assert_int_equal(pop(&q), 1);
	assert_int_equal(pop(&q), 2);
	assert_int_equal(pop(&q), NONE);
	assert_int_equal(q.bytes, 25);
	assert_int_equal(outq_first_left(&q), 25);
	outq_sent(&q, 25);
	assert_int_equal(pop(&q), 3);
	assert_true(outq_empty(&q));
	assert_int_equal(q.bytes, 0);
	outq_fini(&q);
}

static void test_outq_vector_limits(void **state UNUSED)
{
	struct outq q;
	struct iovec iov[8];

	outq_init(&q);
	for (unsigned i = 1; i <= 8; i++)
		push(&q, i, 100);
	assert_int_equal(outq_iov(&q, iov, 3, 10000), 3);
	assert_int_equal(outq_iov(&q, iov, 8, 1), 1);
	assert_int_equal(outq_iov(&q, iov, 8, 250), 3);
	assert_int_equal(outq_iov(&q, iov, 8, 800), 8);
	outq_fini(&q);
	assert_true(outq_empty(&q));
}

/* Grows with a backlog, wherever its head stands, and shrinks after it. */
static void test_outq_ring(void **state UNUSED)
{
	struct outq q;
	unsigned in = 0, out = 0;

	outq_init(&q);
	for (unsigned peak = 1; peak <= 200; peak += 7) {
		while (in - out < peak)
			push(&q, 1 + in++ % 200, 3);
		assert_true(q.cap >= q.count);
		while (in - out > peak / 2) {
			outq_sent(&q, 3);
			assert_int_equal(pop(&q), 1 + out++ % 200);
		}
	}
	assert_true(q.ring != q.slots);
	outq_sent(&q, q.bytes);
	while (!outq_empty(&q))
		assert_int_equal(pop(&q), 1 + out++ % 200);
	assert_int_equal(in, out);
	assert_ptr_equal(q.ring, q.slots);
	assert_int_equal(q.cap, OUTQ_INLINE);
	outq_fini(&q);
}

static void test_outq_drop_oldest(void **state UNUSED)
{
	struct outq q;

	outq_init(&q);
	assert_int_equal(drop(&q, false), NONE);
	push(&q, 1, 10);
	push(&q, 0, 10); /* not a message */
	push(&q, 2, 10);
	push(&q, 3, 10);
	push(&q, 4, 10);
	assert_int_equal(drop(&q, false), 1);
	assert_int_equal(drop(&q, false), 2);
	assert_int_equal(q.bytes, 30);
	outq_sent(&q, 10);
	assert_int_equal(pop(&q), 0);
	/* Its bytes are with the kernel, or with libuv: it stays. */
	assert_int_equal(drop(&q, true), 4);
	outq_sent(&q, 1);
	assert_int_equal(drop(&q, false), NONE);
	assert_int_equal(outq_first_left(&q), 9);
	outq_sent(&q, 9);
	assert_int_equal(pop(&q), 3);
	assert_int_equal(q.bytes, 0);
	outq_fini(&q);
}

/* A hole in the middle of a ring that wraps around. */
static void test_outq_drop_keeps_order(void **state UNUSED)
{
	struct outq q;

	for (unsigned turn = 0; turn < 8; turn++) {
		outq_init(&q);
		for (unsigned i = 0; i < 5; i++)
			push(&q, 0, 2);
		for (unsigned i = 0; i < turn && i < 4; i++) {
			outq_sent(&q, 2);
			assert_int_equal(pop(&q), 0);
		}
		push(&q, 7, 2);
		push(&q, 0, 2);
		push(&q, 8, 2);
		outq_sent(&q, 1);
		assert_int_equal(drop(&q, false), 7);
		assert_int_equal(outq_first_left(&q), 1);
		outq_sent(&q, q.bytes);
		for (unsigned left = q.live; left > 1; left--)
			assert_int_equal(pop(&q), 0);
		assert_int_equal(pop(&q), 8);
		assert_true(outq_empty(&q));
		outq_fini(&q);
	}
}

static struct frame *special(struct outq *q, unsigned number,
			     uint64_t conflation, uint64_t expires_us)
{
	struct frame *f = frame_new(2);

	f->bytes[0] = (uint8_t)number;
	f->accepted_us = 1;
	f->conflation = conflation;
	f->expires_us = expires_us;
	if (q != NULL) {
		outq_push(q, f);
		frame_release(f);
	}
	return f;
}

static void glue(struct outq *q, unsigned number)
{
	struct frame *f = special(NULL, number, 0, 0);

	f->glued = true;
	outq_push(q, f);
	frame_release(f);
}

static void front(struct outq *q, unsigned number, uint32_t keep)
{
	struct frame *f = special(NULL, number, 0, 0);

	outq_push_front(q, f, keep);
	frame_release(f);
}

static unsigned number_of(struct frame *f)
{
	unsigned number = f ? f->bytes[0] : NONE;

	if (f != NULL)
		frame_release(f);
	return number;
}

/* Takes two bytes at a time and compares all that is queued. */
static void assert_queue(struct outq *q, const char *numbers)
{
	char got[32] = "";
	unsigned number;

	while (!outq_empty(q)) {
		outq_sent(q, 2 - q->sent);
		number = pop(q);
		sprintf(got + strlen(got), "%u", number);
	}
	assert_string_equal(got, numbers);
	assert_int_equal(q->bytes, 0);
	assert_int_equal(q->expiring, 0);
}

static void test_outq_conflates(void **state UNUSED)
{
	struct outq q;

	outq_init(&q);
	special(&q, 1, 7, 0);
	special(&q, 2, 8, 0);
	special(&q, 3, 7, 0);
	assert_int_equal(number_of(outq_drop_equal(&q, 9, false)), NONE);
	/* The first is with the kernel. */
	assert_int_equal(number_of(outq_drop_equal(&q, 7, true)), 3);
	assert_int_equal(number_of(outq_drop_equal(&q, 7, false)), 1);
	/* Nobody may miss these. */
	assert_int_equal(number_of(outq_drop_oldest(&q, false)), NONE);
	assert_queue(&q, "2");
}

static void on_expired(void *ctx, struct frame *f)
{
	char *text = ctx;

	sprintf(text + strlen(text), "%u", f->bytes[0]);
	frame_release(f);
}

static const char *expired(struct outq *q, uint64_t now_us, uint32_t keep)
{
	static char text[32];
	size_t count;

	text[0] = '\0';
	count = outq_drop_expired(q, now_us, keep, on_expired, text);
	assert_int_equal(count, strlen(text));
	return text;
}

static void test_outq_expires(void **state UNUSED)
{
	struct outq q;

	outq_init(&q);
	special(&q, 1, 0, 50);
	special(&q, 2, 0, 0);
	special(&q, 3, 0, 60);
	special(&q, 4, 0, 40);
	assert_int_equal(q.expiring, 3);
	assert_string_equal(expired(&q, 39, 0), "");
	assert_string_equal(expired(&q, 50, 1), "4"); /* 1 is begun */
	assert_string_equal(expired(&q, 59, 1), "");
	special(&q, 5, 0, 45);
	assert_string_equal(expired(&q, 59, 1), "5");
	assert_string_equal(expired(&q, 60, 1), "3");
	assert_queue(&q, "12");

	outq_init(&q);
	glue(&q, 1);
	special(&q, 2, 0, 50);
	special(&q, 3, 0, 0);
	glue(&q, 4);
	special(&q, 5, 0, 50);
	assert_string_equal(expired(&q, 50, 0), "52");
	assert_queue(&q, "3");
}

/* What is replaced while the head stands still takes no room, and is found. */
static void test_outq_conflates_for_long(void **state UNUSED)
{
	struct outq q;
	unsigned number;

	outq_init(&q);
	special(&q, 0, 0, 0);
	for (unsigned i = 0; i < 100; i++)
		special(&q, i % 4, 10 + i % 4, 0);
	outq_sent(&q, 1);
	for (unsigned i = 0; i < 96; i++) /* but the last of each */
		assert_int_equal(number_of(outq_drop_equal(&q, 10 + i % 4, 0)),
				 i % 4);
	for (unsigned i = 0; i < 10000; i++) {
		unsigned key = 10 + i * 7 % 4;

		number = number_of(outq_drop_equal(&q, key, 0));
		assert_int_equal(number, key - 10);
		special(&q, number, key, 0);
	}
	assert_int_equal(q.live, 5);
	assert_true(q.cap <= 256);
	assert_int_equal(number_of(outq_drop_equal(&q, 99, 0)), NONE);
	while (!outq_empty(&q)) {
		outq_sent(&q, outq_first_left(&q));
		pop(&q);
	}
	assert_int_equal(q.cap, OUTQ_INLINE);
	assert_null(q.lag);
	outq_fini(&q);
}

#define NOTE 251 /* number of what is put in front; messages have less */

/* What a plain list would hold. */
struct model {
	unsigned number[4096], count;
};

static unsigned model_take(struct model *m, unsigned i)
{
	unsigned number;

	if (i == m->count)
		return NONE;
	number = m->number[i];
	memmove(&m->number[i], &m->number[i + 1],
		(--m->count - i) * sizeof(m->number[0]));
	return number;
}

static unsigned model_drop_oldest(struct model *m)
{
	unsigned i = 0;

	while (i < m->count && (m->number[i] == NOTE || m->number[i] % 5 != 0))
		i++;
	return model_take(m, i);
}

static unsigned model_drop_equal(struct model *m, unsigned key)
{
	unsigned i = 0;

	while (i < m->count &&
	       (m->number[i] == NOTE || 1 + m->number[i] % 50 != key))
		i++;
	return model_take(m, i);
}

static void step(struct outq *q, struct model *m, unsigned what, unsigned any)
{
	switch (what) {
	default:
		if (m->count == 2000)
			break;
		m->number[m->count++] = any % 250;
		special(q, any % 250, 1 + any % 250 % 50, 0)->droppable =
			any % 250 % 5 == 0;
		break;
	case 3:
		assert_int_equal(drop(q, 0), model_drop_oldest(m));
		break;
	case 4:
		if (m->count == 2000)
			break;
		memmove(m->number + 1, m->number,
			m->count++ * sizeof(m->number[0]));
		m->number[0] = NOTE;
		front(q, NOTE, 0);
		break;
	case 5:
		outq_sent(q, outq_first_left(q));
		assert_int_equal(pop(q), model_take(m, 0));
		break;
	case 6:
	case 7:
		assert_int_equal(number_of(outq_drop_equal(q, 1 + any % 50, 0)),
				 model_drop_equal(m, 1 + any % 50));
		break;
	}
}

static void test_outq_any_order(void **state UNUSED)
{
	static struct model m;
	unsigned seed = 12345;
	struct outq q;

	outq_init(&q);
	for (unsigned i = 0; i < 200000; i++) {
		seed = seed * 1103515245 + 12345;
		step(&q, &m, seed >> 16 & (i / 1000 % 2 ? 7 : 3), seed >> 19);
		assert_int_equal(q.live, m.count);
	}
	outq_fini(&q);
}

/* An id line and its message: both or none, and nothing between. */
static void test_outq_glue(void **state UNUSED)
{
	struct outq q;

	outq_init(&q);
	glue(&q, 1);
	special(&q, 2, 5, 0);
	glue(&q, 3);
	special(&q, 4, 6, 0);
	assert_int_equal(number_of(outq_drop_equal(&q, 6, false)), 4);
	assert_int_equal(q.count, 2);
	/* The id is begun, or was sent: its message stays, right behind it. */
	outq_sent(&q, 1);
	assert_int_equal(number_of(outq_drop_equal(&q, 5, false)), NONE);
	front(&q, 9, false);
	outq_sent(&q, 1);
	assert_int_equal(pop(&q), 1);
	assert_int_equal(number_of(outq_drop_equal(&q, 5, false)), NONE);
	front(&q, 9, false);
	assert_queue(&q, "299");
	special(&q, 1, 0, 0);
	special(&q, 2, 0, 0);
	front(&q, 9, true);
	assert_queue(&q, "192");
	front(&q, 9, true);
	assert_queue(&q, "9");
}

/* Several frames are encrypted as one: they stay, with what is glued to the
 * last, and nothing comes between. */
static void test_outq_keeps_many(void **state UNUSED)
{
	struct frame *glue;
	struct outq q;

	outq_init(&q);
	push(&q, 1, 2);
	push(&q, 2, 2);
	glue = special(&q, 3, 0, 0);
	glue->glued = true;
	push(&q, 4, 2);
	push(&q, 5, 2);
	front(&q, 6, 3);
	assert_int_equal(drop(&q, 9), NONE);
	assert_int_equal(drop(&q, 3), 5);
	assert_int_equal(drop(&q, 3), NONE);
	assert_int_equal(q.count, 5);
	/* One less: the glue may go, with its message. */
	outq_sent(&q, 1);
	assert_int_equal(drop(&q, 2), 4);
	assert_int_equal(drop(&q, 2), NONE);
	assert_queue(&q, "126");
	outq_fini(&q);
}

/* What a client has when it has read what is begun. */
static void test_outq_first_of(void **state UNUSED)
{
	static const char one, two;
	struct outq q;
	struct frame *f;

	outq_init(&q);
	assert_null(outq_first_of(&q, &one, 0));
	assert_true(outq_only_begun(&q, 0));
	for (unsigned i = 1; i <= 4; i++) {
		f = frame_new(10);
		f->accepted_us = i;
		f->channel = i % 2 ? &one : &two;
		f->offset = i == 2 ? 0 : i;
		outq_push(&q, f);
		frame_release(f);
	}
	assert_int_equal(outq_first_of(&q, &one, 0)->offset, 1);
	assert_int_equal(outq_first_of(&q, &two, 0)->offset, 4);
	assert_int_equal(outq_first_of(&q, &one, 1)->offset, 3);
	assert_null(outq_first_of(&q, &one, 3));
	assert_false(outq_only_begun(&q, 3));
	assert_true(outq_only_begun(&q, 4));
	outq_sent(&q, 5);
	assert_int_equal(outq_first_of(&q, &one, 0)->offset, 3);
	outq_fini(&q);
	push(&q, 1, 10);
	outq_sent(&q, 3);
	push(&q, 0, 10); /* no message */
	assert_true(outq_only_begun(&q, 0));
	push(&q, 2, 10);
	assert_false(outq_only_begun(&q, 0));
	outq_fini(&q);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_outq_first_of),
		cmocka_unit_test(test_outq_partial_writes),
		cmocka_unit_test(test_outq_vector_limits),
		cmocka_unit_test(test_outq_ring),
		cmocka_unit_test(test_outq_drop_oldest),
		cmocka_unit_test(test_outq_drop_keeps_order),
		cmocka_unit_test(test_outq_conflates),
		cmocka_unit_test(test_outq_expires),
		cmocka_unit_test(test_outq_conflates_for_long),
		cmocka_unit_test(test_outq_any_order),
		cmocka_unit_test(test_outq_glue),
		cmocka_unit_test(test_outq_keeps_many),
	};

	return cmocka_run_group_tests_name("outq", tests, NULL, NULL);
}

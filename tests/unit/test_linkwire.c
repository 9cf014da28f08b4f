#include "tests/unit/link_fixture.h"

#include <stdlib.h>

#define FRAME_INIT    STENTOR__LINK__V1__FRAME__INIT
#define DELIVERY_INIT STENTOR__LINK__V1__DELIVERY__INIT

static LinkDelivery delivery(const char *channel, const char *data, size_t len)
{
	LinkDelivery d = DELIVERY_INIT;

	d.channel = (char *)channel;
	d.data.data = (uint8_t *)data;
	d.data.len = len;
	d.event = (char *)"ball";
	d.priority = 2;
	d.published_us = 1700000000000000u;
	d.message = 7;
	return d;
}

/* Decoding skips fields that protobuf-c would not write: zeros. So compare what
 * the pieces decode to, packed again, with protobuf-c's own packing. */
static void assert_same_as_packed(struct frame *f, LinkFrame *whole)
{
	struct arena arena;
	LinkFrame *decoded;
	uint8_t *expected, *again;
	size_t len = stentor__link__v1__frame__get_packed_size(whole);

	arena_init(&arena, LINK_DECODED_MAX);
	decoded = link_frame_decode(&arena, f->bytes, f->len);
	assert_non_null(decoded);
	assert_int_equal(stentor__link__v1__frame__get_packed_size(decoded),
			 len);
	expected = xmalloc(len + 1);
	again = xmalloc(len + 1);
	stentor__link__v1__frame__pack(whole, expected);
	stentor__link__v1__frame__pack(decoded, again);
	assert_memory_equal(again, expected, len);
	free(expected);
	free(again);
	arena_fini(&arena);
}

static void test_linkwire_pieces_are_one_frame(void **state UNUSED)
{
	static const size_t sizes[] = {0, 1, 100, 127, 128, 20000};
	static char data[20000];
	struct link_header headers[] = {
		{1, 2, 3, 4, 5},
		{UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX},
		{1, 0, 0, 0, 0},
	};

	memset(data, 'x', sizeof(data));
	for (size_t i = 0; i < array_len(headers) * array_len(sizes); i++) {
		struct link_header h = headers[i % array_len(headers)];
		LinkDelivery d[2] = {
			delivery("score:1", data, sizes[i / 3]),
			delivery("a", "b", 1),
		};
		LinkDelivery *both[2] = {&d[0], &d[1]};
		uint8_t head[LINK_HEADER_MAX];
		struct frame *first = link_delivery_encode(&d[0]);
		struct frame *second = link_delivery_encode(&d[1]), *f;
		LinkFrame whole = FRAME_INIT;
		struct iovec pieces[] = {{head, link_header_encode(head, &h)},
					 {first->bytes, first->len},
					 {second->bytes, second->len}};

		whole.sender_epoch = h.sender_epoch;
		whole.receiver_epoch = h.receiver_epoch;
		whole.seq = h.seq;
		whole.ack = h.ack;
		whole.ack_bytes = h.ack_bytes;
		whole.deliveries = both;
		whole.n_deliveries = 2;
		f = join(pieces, 3);
		assert_same_as_packed(f, &whole);
		frame_release(f);
		frame_release(first);
		frame_release(second);
	}
}

static LinkDelivery positioned(const char *data, size_t len, uint64_t offset)
{
	LinkDelivery d = delivery("score:1", data, len);

	d.conflation_key = (char *)"key";
	d.ttl_ms = 1000;
	d.epoch = 1760000000123u;
	d.offset = offset;
	return d;
}

/* The fields of a record come before its channel and position; decoded it is
 * the same delivery. */
static void test_linkwire_record_is_the_delivery(void **state UNUSED)
{
	static const size_t sizes[] = {0, 1, 100, 127, 128, 16383, 20000};
	static const uint64_t offsets[] = {0, 1, 127, 128, UINT64_MAX};
	static char data[20000];

	memset(data, 'x', sizeof(data));
	for (size_t i = 0; i < array_len(sizes) * array_len(offsets); i++) {
		LinkDelivery d = positioned(data, sizes[i % array_len(sizes)],
					    offsets[i / array_len(sizes)]);
		LinkDelivery *one = &d, bare;
		LinkFrame whole = FRAME_INIT;
		struct frame *record, *f, *same;

		if (i == 0)
			d.epoch = 0;
		bare = d;
		bare.channel = (char *)"";
		bare.epoch = bare.offset = 0;
		record = link_record_encode(&d);
		assert_int_equal(
			record->len,
			stentor__link__v1__delivery__get_packed_size(&bare));
		f = link_delivery_from_record(record->bytes, record->len,
					      d.channel, d.epoch, d.offset);
		assert_int_equal(
			link_delivery_from_record_size(record->len, d.channel,
						       d.epoch, d.offset),
			f->len);
		same = link_delivery_encode(&d);
		assert_int_equal(f->len, same->len);
		whole.deliveries = &one;
		whole.n_deliveries = 1;
		assert_same_as_packed(f, &whole);
		frame_release(same);
		frame_release(f);
		frame_release(record);
	}
}

/* What is held to be a record can be decoded, whatever else was done to it; and
 * hardly anything else can. */
static void test_linkwire_record_valid(void **state UNUSED)
{
	static const uint8_t bad[][3] = {{0x12}, {0x12, 2, 'x'}, {0x10, 1},
					 {0},	 {0x0b},	 {0x80, 0x80}};
	LinkDelivery d = positioned("some data", 9, 7);
	struct frame *record = link_record_encode(&d);
	unsigned valid = 0, strict = 0;
	uint64_t random = 1;

	assert_true(link_record_valid(record->bytes, record->len));
	assert_true(link_record_valid("", 0));
	assert_true(link_record_valid("\xfa\x01\x01z", 4)); /* unknown field */
	for (size_t i = 0; i < array_len(bad); i++)
		assert_false(link_record_valid(bad[i], sizeof(bad[i])));
	for (unsigned i = 0; i < 200000; i++) {
		struct frame *f = frame_from(record->bytes, record->len);
		LinkDelivery *decoded;
		bool ok;

		for (unsigned change = 0; change <= i % 3; change++) {
			random = random * 6364136223846793005u + 1;
			f->bytes[(random >> 33) % f->len] =
				(uint8_t)(random >> 24);
		}
		ok = link_record_valid(f->bytes, f->len);
		decoded = stentor__link__v1__delivery__unpack(NULL, f->len,
							      f->bytes);
		assert_true(!ok || decoded != NULL);
		valid += ok;
		strict += !ok && decoded != NULL;
		if (decoded != NULL)
			stentor__link__v1__delivery__free_unpacked(decoded,
								   NULL);
		frame_release(f);
	}
	assert_in_range(valid, 20000, 190000);
	assert_in_range(strict, 0, valid / 20);
	frame_release(record);
}

#define RECORDS 5

static void test_linkwire_history_answer(void **state UNUSED)
{
	static char data[200];
	struct frame *encoded[RECORDS];
	struct link_record records[RECORDS];
	LinkDelivery deliveries[RECORDS], *messages[RECORDS];
	Stentor__Link__V1__Place top = STENTOR__LINK__V1__PLACE__INIT;
	LinkHistoryAnswer head = STENTOR__LINK__V1__HISTORY_ANSWER__INIT;
	LinkHistoryAnswer expected, *one = &expected;
	LinkFrame whole = FRAME_INIT;

	memset(data, 'x', sizeof(data));
	head.id = 77;
	head.first = 3;
	head.top = &top;
	top.epoch = 1760000000123u;
	top.offset = 300;
	for (size_t i = 0; i < RECORDS; i++) {
		deliveries[i] = positioned(data, 50 * i, 126 + i);
		encoded[i] = link_record_encode(&deliveries[i]);
		records[i] = (struct link_record){126 + i, encoded[i]->bytes,
						  encoded[i]->len};
		deliveries[i].channel = (char *)"";
		messages[i] = &deliveries[i];
	}
	whole.history_answers = &one;
	whole.n_history_answers = 1;
	for (size_t count = 0; count <= RECORDS; count++) {
		struct frame *f = link_history_encode(&head, records, count);

		expected = head;
		expected.messages = messages;
		expected.n_messages = count;
		assert_same_as_packed(f, &whole);
		frame_release(f);
	}
	for (size_t i = 0; i < RECORDS; i++)
		frame_release(encoded[i]);
}

static void test_linkwire_history_failed(void **state UNUSED)
{
	LinkHistoryAnswer answer = STENTOR__LINK__V1__HISTORY_ANSWER__INIT;
	LinkHistoryAnswer *one = &answer;
	LinkFrame whole = FRAME_INIT;
	struct frame *f;

	answer.id = UINT64_MAX;
	answer.failed = true;
	whole.history_answers = &one;
	whole.n_history_answers = 1;
	f = link_history_encode(&answer, NULL, 0);
	assert_same_as_packed(f, &whole);
	frame_release(f);
}

static void test_linkwire_header_is_read_back(void **state UNUSED)
{
	struct link_header h = {11, 22, 33, 44, 55}, read;
	LinkFrame content = FRAME_INIT;
	struct frame *f;
	struct arena arena;

	/* Header fields of the content are ignored. */
	content.sender_epoch = content.seq = content.ack_bytes = 9;
	f = peer_frame(h, &content);
	arena_init(&arena, LINK_DECODED_MAX);
	read = link_frame_header(link_frame_decode(&arena, f->bytes, f->len));
	assert_memory_equal(&read, &h, sizeof(h));
	frame_release(f);
	arena_fini(&arena);
}

static void test_linkwire_malformed(void **state UNUSED)
{
	struct link_header h = {1, 2, 3, 4, 5};
	LinkDelivery d = delivery("score:1", "four", 4);
	struct frame *delivery_bytes = link_delivery_encode(&d), *f;
	uint8_t head[LINK_HEADER_MAX];
	struct iovec pieces[2] = {{head, link_header_encode(head, &h)},
				  {delivery_bytes->bytes, delivery_bytes->len}};
	struct arena arena;
	size_t whole = 0;

	arena_init(&arena, LINK_DECODED_MAX);
	f = join(pieces, 2);
	for (size_t len = 0; len <= f->len; len++) {
		/* Memory of exactly its size: asan sees each byte too many. */
		struct frame *cut = frame_from(f->bytes, len);

		whole += link_frame_decode(&arena, cut->bytes, len) != NULL;
		arena_reset(&arena);
		frame_release(cut);
	}
	/* Cut between two fields it is a frame: after each of the five of the
	 * header, at the start and at the end. */
	assert_int_equal(whole, 7);
	assert_null(link_frame_decode(&arena, "\xff\xff\xff\xff", 4));
	frame_release(f);
	frame_release(delivery_bytes);
	arena_fini(&arena);
}

/* Many tiny elements take far more memory decoded than on the wire. */
static void test_linkwire_memory_is_bounded(void **state UNUSED)
{
	size_t elements = 200000;
	struct frame *f = frame_new(elements * 3);
	struct arena arena;

	for (size_t i = 0; i < elements; i++)
		memcpy(f->bytes + 3 * i, "\x82\x01\x00", 3); /* an empty one */
	arena_init(&arena, 4u << 20);
	assert_null(link_frame_decode(&arena, f->bytes, f->len));
	assert_true(arena.held <= arena.max);
	arena_reset(&arena);
	assert_true(arena.held <= ARENA_KEEP);
	assert_non_null(link_frame_decode(&arena, f->bytes, 300));
	frame_release(f);
	arena_fini(&arena);
}

/* A hello whose texts C would cut is none; deliveries are not looked at. */
static void test_linkwire_hello_without_nul(void **state UNUSED)
{
	Stentor__Link__V1__Hello hello = STENTOR__LINK__V1__HELLO__INIT;
	LinkFrame frame = STENTOR__LINK__V1__FRAME__INIT;
	struct arena arena;
	struct frame *f;
	char *at;

	arena_init(&arena, LINK_DECODED_MAX);
	hello.node = (char *)"one-two";
	frame.hello = &hello;
	f = link_control_encode(&frame);
	assert_non_null(link_frame_decode(&arena, f->bytes, f->len));
	arena_reset(&arena);
	at = memmem(f->bytes, f->len, "one-two", 7);
	assert_non_null(at);
	at[3] = '\0';
	assert_null(link_frame_decode(&arena, f->bytes, f->len));
	frame_release(f);
	arena_fini(&arena);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linkwire_pieces_are_one_frame),
		cmocka_unit_test(test_linkwire_record_is_the_delivery),
		cmocka_unit_test(test_linkwire_record_valid),
		cmocka_unit_test(test_linkwire_history_answer),
		cmocka_unit_test(test_linkwire_history_failed),
		cmocka_unit_test(test_linkwire_header_is_read_back),
		cmocka_unit_test(test_linkwire_malformed),
		cmocka_unit_test(test_linkwire_memory_is_bounded),
		cmocka_unit_test(test_linkwire_hello_without_nul),
	};

	return cmocka_run_group_tests_name("linkwire", tests, NULL, NULL);
}

#include "common/codec/linkwire.h"

#include "common/codec/pbarena.h"

#include <string.h>

/* Field 16, length-delimited (protobuf encoding: number << 3 | 2, two bytes
 * as a varint). link_delivery_encode() is tested against protobuf-c. */
#define DELIVERY_TAG_0 0x82
#define DELIVERY_TAG_1 0x01

static size_t put_varint(uint8_t *out, uint64_t value)
{
	size_t n = 0;

	while (value >= 0x80) {
		out[n++] = (uint8_t)(value | 0x80);
		value >>= 7;
	}
	out[n++] = (uint8_t)value;
	return n;
}

static size_t put_fixed64(uint8_t *out, uint8_t tag, uint64_t value)
{
	out[0] = tag;
	for (int i = 0; i < 8; i++)
		out[1 + i] = (uint8_t)(value >> (8 * i));
	return 9;
}

static size_t put_uint64(uint8_t *out, uint8_t tag, uint64_t value)
{
	out[0] = tag;
	return 1 + put_varint(out + 1, value);
}

size_t link_header_encode(uint8_t out[LINK_HEADER_MAX],
			  const struct link_header *h)
{
	size_t n = 0;

	n += put_fixed64(out + n, 1 << 3 | 1, h->sender_epoch);
	n += put_fixed64(out + n, 2 << 3 | 1, h->receiver_epoch);
	n += put_uint64(out + n, 3 << 3, h->seq);
	n += put_uint64(out + n, 4 << 3, h->ack);
	n += put_uint64(out + n, 5 << 3, h->ack_bytes);
	check(n <= LINK_HEADER_MAX);
	return n;
}

struct frame *link_delivery_encode(const LinkDelivery *d)
{
	size_t len = stentor__link__v1__delivery__get_packed_size(d);
	uint8_t head[12] = {DELIVERY_TAG_0, DELIVERY_TAG_1};
	size_t head_len = 2 + put_varint(head + 2, len);
	struct frame *f = frame_new(head_len + len);

	memcpy(f->bytes, head, head_len);
	stentor__link__v1__delivery__pack(d, f->bytes + head_len);
	return f;
}

struct frame *link_control_encode(LinkFrame *control)
{
	struct frame *f;

	control->sender_epoch = control->receiver_epoch = 0;
	control->seq = control->ack = control->ack_bytes = 0;
	f = frame_new(stentor__link__v1__frame__get_packed_size(control));
	stentor__link__v1__frame__pack(control, f->bytes);
	return f;
}

LinkFrame *link_frame_decode(struct arena *arena, const void *bytes, size_t len)
{
	ProtobufCAllocator allocator = pbarena_allocator(arena);

	return stentor__link__v1__frame__unpack(&allocator, len, bytes);
}

struct link_header link_frame_header(const LinkFrame *f)
{
	return (struct link_header){
		.sender_epoch = f->sender_epoch,
		.receiver_epoch = f->receiver_epoch,
		.seq = f->seq,
		.ack = f->ack,
		.ack_bytes = f->ack_bytes,
	};
}

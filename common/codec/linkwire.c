#include "common/codec/linkwire.h"

#include "common/codec/pbarena.h"
#include "common/codec/pbwire.h"

#include <string.h>

/* Tags of length-delimited elements of a frame (protobuf encoding: number << 3
 * | 2, two bytes as a varint). All that is encoded here by hand is tested
 * against protobuf-c. */
#define DELIVERY_TAG 0x82, 0x01 /* Frame.deliveries = 16 */
#define HISTORY_TAG  0x8a, 0x01 /* Frame.history_answers = 17 */
#define ELEMENT_HEAD 12		/* most bytes of tag and length */

/* Fields of a delivery, and of a history answer. */
#define CHANNEL_TAG (1 << 3 | 2)
#define EPOCH_TAG   (9 << 3)
#define OFFSET_TAG  (10 << 3)
#define MESSAGE_TAG (5 << 3 | 2)

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
	uint8_t head[ELEMENT_HEAD] = {DELIVERY_TAG};
	size_t head_len = 2 + put_varint(head + 2, len);
	struct frame *f = frame_new(head_len + len);

	memcpy(f->bytes, head, head_len);
	stentor__link__v1__delivery__pack(d, f->bytes + head_len);
	return f;
}

struct frame *link_record_encode(const LinkDelivery *d)
{
	LinkDelivery record = *d;
	struct frame *f;

	record.channel = (char *)protobuf_c_empty_string;
	record.epoch = record.offset = 0;
	f = frame_new(stentor__link__v1__delivery__get_packed_size(&record));
	stentor__link__v1__delivery__pack(&record, f->bytes);
	return f;
}

/* --- records from a store ---------------------------------------------- */

enum wire { WIRE_VARINT, WIRE_FIXED64, WIRE_BYTES, WIRE_FIXED32 = 5 };

/* By number of a delivery's field; protobuf-c takes no other. */
static const uint8_t delivery_wire[] = {
	[1] = WIRE_BYTES,   [2] = WIRE_BYTES,	[3] = WIRE_BYTES,
	[4] = WIRE_VARINT,  [5] = WIRE_FIXED64, [6] = WIRE_FIXED64,
	[7] = WIRE_BYTES,   [8] = WIRE_VARINT,	[9] = WIRE_VARINT,
	[10] = WIRE_VARINT,
};

#define VARINT_MAX 10

/* Reads one of at most `max` bytes; advances *at. */
static bool get_varint(const uint8_t **at, const uint8_t *end, unsigned max,
		       uint64_t *value)
{
	*value = 0;
	for (unsigned i = 0; i < max && *at < end; i++) {
		uint8_t byte = *(*at)++;

		*value |= (uint64_t)(byte & 0x7f) << (7 * i);
		if (byte < 0x80)
			return true;
	}
	return false;
}

static bool skip_field(const uint8_t **at, const uint8_t *end, unsigned wire)
{
	uint64_t len = 0;

	switch (wire) {
	case WIRE_VARINT:
		return get_varint(at, end, VARINT_MAX, &len);
	case WIRE_FIXED64:
		len = 8;
		break;
	case WIRE_FIXED32:
		len = 4;
		break;
	case WIRE_BYTES:
		if (!get_varint(at, end, 5, &len))
			return false;
		break;
	default:
		return false;
	}
	if (len > (uint64_t)(end - *at))
		return false;
	*at += len;
	return true;
}

bool link_record_valid(const void *record, size_t len)
{
	const uint8_t *at = record, *end = at + len;

	while (at < end) {
		uint64_t tag, field;

		if (!get_varint(&at, end, 5, &tag))
			return false;
		field = tag >> 3;
		if (field == 0 || field > UINT32_MAX >> 3)
			return false;
		if (field < array_len(delivery_wire) &&
		    delivery_wire[field] != (tag & 7))
			return false;
		if (!skip_field(&at, end, (unsigned)(tag & 7)))
			return false;
	}
	return true;
}

/* --- elements from records --------------------------------------------- */

static size_t varint_size(uint64_t value)
{
	size_t n = 1;

	while (value >= 0x80) {
		value >>= 7;
		n++;
	}
	return n;
}

/* Of the position as fields of a delivery; zeros are not written. */
static size_t position_size(uint64_t epoch, uint64_t offset)
{
	return (epoch != 0 ? 1 + varint_size(epoch) : 0) +
	       (offset != 0 ? 1 + varint_size(offset) : 0);
}

static size_t put_position(uint8_t *out, uint64_t epoch, uint64_t offset)
{
	size_t n = 0;

	if (epoch != 0)
		n += put_uint64(out + n, EPOCH_TAG, epoch);
	if (offset != 0)
		n += put_uint64(out + n, OFFSET_TAG, offset);
	return n;
}

/* Of the delivery itself, tag and length not counted. */
static size_t delivery_size(size_t len, size_t channel_len, uint64_t epoch,
			    uint64_t offset)
{
	return len + 1 + varint_size(channel_len) + channel_len +
	       position_size(epoch, offset);
}

size_t link_delivery_from_record_size(size_t len, const char *channel,
				      uint64_t epoch, uint64_t offset)
{
	size_t size = delivery_size(len, strlen(channel), epoch, offset);

	return 2 + varint_size(size) + size;
}

struct frame *link_delivery_from_record(const void *record, size_t len,
					const char *channel, uint64_t epoch,
					uint64_t offset)
{
	static const uint8_t tag[2] = {DELIVERY_TAG};
	size_t channel_len = strlen(channel);
	size_t size = delivery_size(len, channel_len, epoch, offset);
	struct frame *f = frame_new(2 + varint_size(size) + size);
	uint8_t *at = f->bytes;

	memcpy(at, tag, sizeof(tag));
	at += sizeof(tag);
	at += put_varint(at, size);
	memcpy(at, record, len);
	at += len;
	at += put_uint64(at, CHANNEL_TAG, channel_len);
	memcpy(at, channel, channel_len);
	at += channel_len;
	at += put_position(at, epoch, offset);
	check(at == f->bytes + f->len);
	return f;
}

/* Of a record as an element of HistoryAnswer.messages; without the element's
 * own tag and length. */
static size_t message_size(const struct link_record *r, uint64_t epoch)
{
	return r->len + position_size(epoch, r->offset);
}

struct frame *link_history_encode(const LinkHistoryAnswer *answer,
				  const struct link_record *records,
				  size_t count)
{
	uint8_t head[ELEMENT_HEAD] = {HISTORY_TAG};
	uint64_t epoch = answer->top != NULL ? answer->top->epoch : 0;
	size_t size =
		stentor__link__v1__history_answer__get_packed_size(answer);
	size_t head_len;
	struct frame *f;
	uint8_t *at;

	check(answer->n_messages == 0);
	for (size_t i = 0; i < count; i++) {
		size_t len = message_size(&records[i], epoch);

		size += 1 + varint_size(len) + len;
	}
	head_len = 2 + put_varint(head + 2, size);
	f = frame_new(head_len + size);
	at = f->bytes;
	memcpy(at, head, head_len);
	at += head_len;
	at += stentor__link__v1__history_answer__pack(answer, at);
	for (size_t i = 0; i < count; i++) {
		const struct link_record *r = &records[i];

		at += put_uint64(at, MESSAGE_TAG, message_size(r, epoch));
		memcpy(at, r->bytes, r->len);
		at += r->len;
		at += put_position(at, epoch, r->offset);
	}
	check(at == f->bytes + f->len);
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
	LinkFrame *f = stentor__link__v1__frame__unpack(&allocator, len, bytes);
	char why[64];

	/* Names of a peer live long, and a hello is rare. */
	if (f != NULL && f->hello != NULL &&
	    pbwire_check_strings(f->base.descriptor, bytes, len, "", why,
				 sizeof(why)) != 0)
		return NULL;
	return f;
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

/* items.h - a request that is one long list, and an answer that is another, a
 * slice at a time (pure).
 *
 * PublishBatch's 10,000 messages in 4 MiB take tens of milliseconds to inflate,
 * decode and answer: too long to hold the loop. So its handler gets the bytes,
 * and works on them in steps of some 50 us, in turns that it chooses:
 *
 *	bytes --inflate--> text --JSON: split, each made protobuf--> elements
 *	                        '-protobuf: strings looked at------->
 *
 * items_prepare() goes so far, until the whole request is known to be one;
 * then items_next() hands out elements, and items_answer() appends to the
 * answer what each comes to. Both messages have one field, which is repeated.
 * Memory: items_cost() at most, besides one element and the answer.
 */
#ifndef STENTOR_DISPATCHER_API_ITEMS_H
#define STENTOR_DISPATCHER_API_ITEMS_H

#include "common/codec/grpc.h"
#include "dispatcher/api/message.h"

#include <protobuf-c/protobuf-c.h>

/* Bytes that a step looks at, and elements that it decodes, at most. */
#define ITEMS_STEP_BYTES    (32u << 10)
#define ITEMS_STEP_ELEMENTS 16
#define ITEMS_ANSWER_MAX    (16u << 20) /* as API_ANSWER_MAX of rpc.h */

struct items;

struct items_request {
	const ProtobufCMessageDescriptor *input, *output;
	enum message_codec codec;
	bool gzip;
	size_t max; /* bytes of the request, inflated */
	/* What becomes of bytes that are no protobuf, or no gzip. */
	enum grpc_code malformed;
};

/* Copies the bytes. */
struct items *items_new(const struct items_request *r, const uint8_t *bytes,
			size_t len);
void items_free(struct items *it);
/* What a new one will hold at most. */
size_t items_cost(const struct items *it);

/* A step. ERR_AGAIN: there is more to do. 0: it is a request, of items_count()
 * elements. Else it is none, or has more than `count_max` elements: *code, and
 * a text for the client in `why` (MESSAGE_WHY_MAX bytes). */
int items_prepare(struct items *it, size_t count_max, enum grpc_code *code,
		  char *why) MUST_CHECK;
size_t items_count(const struct items *it);
/* The next element, of which there is one: borrowed until the next call. NULL:
 * it can't be read. */
const ProtobufCMessage *items_next(struct items *it) MUST_CHECK;

/* Appends an element to the answer. ERR_FULL: it is larger than
 * ITEMS_ANSWER_MAX. */
int items_answer(struct items *it, const ProtobufCMessage *m) MUST_CHECK;
/* The whole answer, after its last element; NULL: ERR_FULL, as above. */
const struct buf *items_answer_end(struct items *it) MUST_CHECK;

#endif

/* Lists in slices: bytes to elements, and elements to an answer. */
#include "dispatcher/api/items.h"

#include "common/base/err.h"
#include "common/base/mem.h"
#include "common/codec/json.h"
#include "stentor/v1/publisher.pb-c.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef Stentor__V1__PublishRequest Request;

#define MAX (4u << 20)

static struct items *begin(enum message_codec codec, bool gzip,
			   const void *bytes, size_t len, size_t max)
{
	struct items_request r = {
		.input = &stentor__v1__publish_batch_request__descriptor,
		.output = &stentor__v1__publish_batch_response__descriptor,
		.codec = codec,
		.gzip = gzip,
		.max = max,
		.malformed = GRPC_INTERNAL,
	};

	return items_new(&r, bytes, len);
}

/* All steps; *steps of them. */
static int prepare(struct items *it, size_t count_max, enum grpc_code *code,
		   char *why, unsigned *steps)
{
	int rv;

	why[0] = '\0';
	for (*steps = 1;; (*steps)++) {
		rv = items_prepare(it, count_max, code, why);
		if (rv != ERR_AGAIN)
			return rv;
	}
}

static void expect_elements(struct items *it, const char *const *data,
			    size_t count)
{
	assert_int_equal(items_count(it), count);
	for (size_t i = 0; i < count; i++) {
		const Request *q = (const Request *)items_next(it);

		assert_non_null(q);
		assert_string_equal(q->data, data[i]);
	}
}

static void accept(enum message_codec codec, const char *bytes, size_t len,
		   const char *const *data, size_t count)
{
	struct items *it = begin(codec, false, bytes, len, MAX);
	char why[MESSAGE_WHY_MAX];
	enum grpc_code code;
	unsigned steps;

	if (prepare(it, 100, &code, why, &steps) != 0)
		fail_msg("%.*s: %s", (int)len, bytes, why);
	expect_elements(it, data, count);
	items_free(it);
}

static void refuse(enum message_codec codec, const char *bytes, size_t len,
		   enum grpc_code expected, const char *text)
{
	struct items *it = begin(codec, false, bytes, len, MAX);
	char why[MESSAGE_WHY_MAX];
	enum grpc_code code;
	unsigned steps;

	assert_true(prepare(it, 2, &code, why, &steps) < 0);
	assert_int_equal(code, expected);
	if (strncmp(why, text, strlen(text)) != 0)
		fail_msg("%.*s: \"%s\" does not begin with \"%s\"", (int)len,
			 bytes, why, text);
	items_free(it);
}

#define BYTES(literal) literal, sizeof(literal) - 1

static void test_items_proto(void **state UNUSED)
{
	static const char *const two[] = {"a", "b"};

	accept(CODEC_PROTO, BYTES(""), NULL, 0);
	accept(CODEC_PROTO, BYTES("\x0a\3\x12\1a\x0a\3\x12\1b"), two, 2);
	/* Fields that nobody knows stand between them. */
	accept(CODEC_PROTO, BYTES("\x10\1\x0a\3\x12\1a\x1a\1x\x0a\3\x12\1b"),
	       two, 2);
}

static void test_items_proto_faults(void **state UNUSED)
{
	static const char no[] = "not a valid stentor.v1.PublishBatchRequest";

	refuse(CODEC_PROTO, BYTES("\x0a\3\x12\1a\x0a\3\x12\1\0"),
	       GRPC_INVALID_ARGUMENT,
	       "messages[1].data: must not contain NUL characters");
	refuse(CODEC_PROTO, BYTES("\x0a\3\x12\1\xff"), GRPC_INVALID_ARGUMENT,
	       "messages[0].data: must be valid UTF-8");
	refuse(CODEC_PROTO, BYTES("\x0a\3\x12\1"), GRPC_INTERNAL, no);
	refuse(CODEC_PROTO, BYTES("\x0a\2\x12\1"), GRPC_INTERNAL, no);
	refuse(CODEC_PROTO, BYTES("\x08\1"), GRPC_INTERNAL, no);
	refuse(CODEC_PROTO, BYTES("\x0a\0\x0a\0\x0a\0"), GRPC_INVALID_ARGUMENT,
	       "messages: more than 2, the limit");
}

/* Strings are right and a number is none: known when it is its turn. */
static void test_items_element_that_cannot_be_read(void **state UNUSED)
{
	struct items *it = begin(CODEC_PROTO, false,
				 BYTES("\x0a\3\x3a\1x\x0a\3\x12\1b"), MAX);
	char why[MESSAGE_WHY_MAX];
	enum grpc_code code;
	unsigned steps;

	assert_int_equal(prepare(it, 2, &code, why, &steps), 0);
	assert_null(items_next(it));
	assert_string_equal(((const Request *)items_next(it))->data, "b");
	items_free(it);
}

static void test_items_json(void **state UNUSED)
{
	static const char *const two[] = {"a,]}\"", "[{"};
	static const char *const one[] = {""};

	accept(CODEC_JSON, BYTES(""), NULL, 0);
	accept(CODEC_JSON, BYTES("{}"), NULL, 0);
	accept(CODEC_JSON, BYTES(" { \"messages\" : [ \n ] } "), NULL, 0);
	accept(CODEC_JSON, BYTES("{\"messages\":null}"), NULL, 0);
	accept(CODEC_JSON, BYTES("{\"messages\":[{}]}"), one, 1);
	accept(CODEC_JSON,
	       BYTES("{\"messages\":[ {\"data\":\"a,]}\\\"\"} ,"
		     "{\"data\":\"[{\"}]}"),
	       two, 2);
	accept(CODEC_JSON, BYTES("{\"mess\\u0061ges\":[{}]}"), one, 1);
}

static void test_items_json_faults(void **state UNUSED)
{
	static const struct {
		const char *text, *why;
	} cases[] = {
		{"[]", "expected an object"},
		{"[[]]", "expected an object"},
		{"{\"messages\":[{}", "invalid JSON: ends too early"},
		{"{\"messages\":[{}]", "invalid JSON: ends too early"},
		{"{\"messages\":[{}]}}", "invalid JSON: a bracket"},
		{"{\"messages\":[{]}]}", "invalid JSON: a bracket"},
		{"{\"messages\":[{}]} x", "invalid JSON: "},
		{"{\"messages\":[{}],}", "invalid JSON: "},
		{"{\"messages\":[{},]}", "messages[1]: invalid JSON"},
		{"{\"messages\":[,{}]}", "messages[0]: invalid JSON"},
		{"{\"messages\":[{}{}]}", "messages[0]: invalid JSON"},
		{"{\"messages\":[5]}", "messages[0]: expected an object"},
		{"{\"messages\":[{\"data\":1}]}",
		 "messages[0].data: expected a string"},
		{"{\"messages\":[{},{\"data\":\"\\u0000\"}]}",
		 "messages[1].data: must not contain NUL"},
		{"{\"messages\":[{\"x\":1}]}",
		 "messages[0]: unknown field \"x\""},
		{"{\"messages\":[{},{},{}]}", "messages: more than 2"},
		{"{\"messages\":[],\"messages\":[]}", "invalid JSON: dup"},
		{"{\"messages\":[],\"x\":[]}", "unknown field \"x\""},
		{"{\"x\":[{}]}", "unknown field \"x\""},
		{"{\"messages\":{\"a\":[]}}", "messages: expected an array"},
	};

	for (size_t i = 0; i < array_len(cases); i++)
		refuse(CODEC_JSON, cases[i].text, strlen(cases[i].text),
		       GRPC_INVALID_ARGUMENT, cases[i].why);
	refuse(CODEC_JSON, BYTES("{\"messages\":[{\"data\":\"a\0\"}]}"),
	       GRPC_INVALID_ARGUMENT, "messages[0].data: must not contain NUL");
}

/* Every way of cutting a request, and of bytes in its place, is what the whole
 * reader makes of it. */
static void test_items_json_agrees(void **state UNUSED)
{
	static const char text[] =
		"{\"messages\":[{\"data\":\"a\\\"]\"},{\"ttlMs\":1}]}";
	static const char bytes[] = "{}[],:\"\\ 1";
	char changed[sizeof(text)], why[MESSAGE_WHY_MAX];
	ProtobufCMessage *m;
	enum grpc_code code;
	unsigned steps;

	for (size_t i = 0; i + 1 < sizeof(text); i++) {
		for (size_t j = 0; j < sizeof(bytes); j++) {
			size_t len =
				j + 1 == sizeof(bytes) ? i : sizeof(text) - 1;
			struct items *it;
			int whole, rv;

			memcpy(changed, text, sizeof(text));
			changed[i] = bytes[j];
			whole = json_to_message(
				&stentor__v1__publish_batch_request__descriptor,
				changed, len, false, &m, why, sizeof(why));
			it = begin(CODEC_JSON, false, changed, len, MAX);
			rv = prepare(it, 100, &code, why, &steps);
			if ((rv == 0) != (whole == 0))
				fail_msg("%.*s: %s", (int)len, changed, why);
			items_free(it);
			if (whole == 0)
				protobuf_c_message_free_unpacked(m, NULL);
		}
	}
}

/* --- slices ------------------------------------------------------------ */

#define MANY 10000

static struct buf many_json(void)
{
	struct buf out;

	buf_init(&out, MAX);
	assert_int_equal(buf_printf(&out, "{\"messages\":["), 0);
	for (unsigned i = 0; i < MANY; i++)
		assert_int_equal(
			buf_printf(&out,
				   "%s{\"channel\":\"c\",\"data\":\"%u\"}",
				   i > 0 ? "," : "", i),
			0);
	assert_int_equal(buf_printf(&out, "]}"), 0);
	return out;
}

static void expect_many(struct items *it)
{
	char data[16];

	assert_int_equal(items_count(it), MANY);
	for (unsigned i = 0; i < MANY; i++) {
		snprintf(data, sizeof(data), "%u", i);
		assert_string_equal(((const Request *)items_next(it))->data,
				    data);
	}
}

static void test_items_are_sliced(void **state UNUSED)
{
	struct buf text = many_json(), packed;
	char why[MESSAGE_WHY_MAX];
	enum grpc_code code;
	struct items *it;
	unsigned steps;

	it = begin(CODEC_JSON, false, text.bytes, text.len, MAX);
	assert_int_equal(items_cost(it), 2 * text.len);
	assert_int_equal(prepare(it, MANY, &code, why, &steps), 0);
	assert_true(steps >= MANY / ITEMS_STEP_ELEMENTS);
	expect_many(it);
	items_free(it);
	buf_init(&packed, MAX);
	assert_int_equal(gzip_deflate(&packed, text.bytes, text.len), 0);
	it = begin(CODEC_JSON, true, packed.bytes, packed.len, text.len);
	assert_int_equal(prepare(it, MANY, &code, why, &steps), 0);
	assert_true(steps >= MANY / ITEMS_STEP_ELEMENTS + text.len / 16384);
	expect_many(it);
	items_free(it);
	/* Too large by a byte, cut, no gzip at all. */
	it = begin(CODEC_JSON, true, packed.bytes, packed.len, text.len - 1);
	assert_int_equal(prepare(it, MANY, &code, why, &steps), ERR_TOO_LARGE);
	assert_int_equal(code, GRPC_RESOURCE_EXHAUSTED);
	items_free(it);
	it = begin(CODEC_JSON, true, packed.bytes, packed.len - 1, MAX);
	assert_int_equal(prepare(it, MANY, &code, why, &steps), ERR_MALFORMED);
	assert_int_equal(code, GRPC_INTERNAL);
	assert_string_equal(why, "bad gzip data");
	items_free(it);
	buf_fini(&packed);
	buf_fini(&text);
}

/* --- the answer -------------------------------------------------------- */

static void answer_two(struct items *it)
{
	Stentor__V1__PublishResponse ok = STENTOR__V1__PUBLISH_RESPONSE__INIT;
	Stentor__V1__PublishResult r = STENTOR__V1__PUBLISH_RESULT__INIT;

	ok.message_id = (char *)"id";
	r.response = &ok;
	assert_int_equal(items_answer(it, &r.base), 0);
	stentor__v1__publish_result__init(&r);
	r.code = 3;
	r.error = (char *)"no";
	assert_int_equal(items_answer(it, &r.base), 0);
}

static void test_items_answer(void **state UNUSED)
{
	struct items *it = begin(CODEC_JSON, false, "", 0, MAX);
	const struct buf *b;
	Stentor__V1__PublishBatchResponse *m;

	b = items_answer_end(it);
	assert_memory_equal(b->bytes, "{}", 2);
	assert_int_equal(b->len, 2);
	items_free(it);
	it = begin(CODEC_JSON, false, "", 0, MAX);
	answer_two(it);
	b = items_answer_end(it);
	assert_int_equal(b->len,
			 strlen("{\"results\":[{\"response\":{\"messageId\":"
				"\"id\"}},{\"code\":3,\"error\":\"no\"}]}"));
	assert_memory_equal(b->bytes,
			    "{\"results\":[{\"response\":{\"messageId\":\"id\"}"
			    "},{\"code\":3,\"error\":\"no\"}]}",
			    b->len);
	items_free(it);
	it = begin(CODEC_PROTO, false, "", 0, MAX);
	answer_two(it);
	b = items_answer_end(it);
	m = stentor__v1__publish_batch_response__unpack(NULL, b->len, b->bytes);
	assert_non_null(m);
	assert_int_equal(m->n_results, 2);
	assert_string_equal(m->results[0]->response->message_id, "id");
	assert_string_equal(m->results[1]->error, "no");
	stentor__v1__publish_batch_response__free_unpacked(m, NULL);
	items_free(it);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_items_proto),
		cmocka_unit_test(test_items_proto_faults),
		cmocka_unit_test(test_items_element_that_cannot_be_read),
		cmocka_unit_test(test_items_json),
		cmocka_unit_test(test_items_json_faults),
		cmocka_unit_test(test_items_json_agrees),
		cmocka_unit_test(test_items_are_sliced),
		cmocka_unit_test(test_items_answer),
	};

	return cmocka_run_group_tests_name("items", tests, NULL, NULL);
}

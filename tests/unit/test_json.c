/* JSON <-> protobuf over our own messages and over one of every type, whose
 * descriptor is written by hand below (none of ours has maps or floats). */
#include "common/base/err.h"
#include "common/codec/json.h"
#include "common/codec/pbwire.h"
#include "stentor/v1/cluster.pb-c.h"
#include "stentor/v1/publisher.pb-c.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- a message of every type ------------------------------------------- */

struct entry {
	ProtobufCMessage base;
	int32_t key;
	char *value;
};

struct every {
	ProtobufCMessage base;
	int32_t i32;
	int64_t s64;
	uint32_t u32;
	uint64_t u64;
	float real;
	double precise;
	protobuf_c_boolean yes;
	ProtobufCBinaryData raw;
	size_t n_numbers;
	int32_t *numbers;
	size_t n_names;
	char **names;
	size_t n_labels;
	struct entry **labels;
	uint32_t which_case;
	union {
		char *left;
		Stentor__V1__Position *right;
	};
};

static void entry_init(ProtobufCMessage *m);
static void every_init(ProtobufCMessage *m);

#define PLAIN(s, member, json, id_, type_)                               \
	{                                                                \
		.name = json, .id = id_, .label = PROTOBUF_C_LABEL_NONE, \
		.type = PROTOBUF_C_TYPE_##type_,                         \
		.offset = offsetof(struct s, member)                     \
	}
#define REPEATED(member_, id_, type_, descriptor_)                        \
	{                                                                 \
		.name = #member_, .id = id_,                              \
		.label = PROTOBUF_C_LABEL_REPEATED,                       \
		.type = PROTOBUF_C_TYPE_##type_,                          \
		.quantifier_offset = offsetof(struct every, n_##member_), \
		.offset = offsetof(struct every, member_),                \
		.descriptor = descriptor_                                 \
	}
#define ONE_OF(member_, id_, type_, descriptor_)                             \
	{                                                                    \
		.name = #member_, .id = id_, .label = PROTOBUF_C_LABEL_NONE, \
		.type = PROTOBUF_C_TYPE_##type_,                             \
		.quantifier_offset = offsetof(struct every, which_case),     \
		.offset = offsetof(struct every, member_),                   \
		.descriptor = descriptor_,                                   \
		.flags = PROTOBUF_C_FIELD_FLAG_ONEOF                         \
	}

static const ProtobufCFieldDescriptor entry_fields[] = {
	PLAIN(entry, key, "key", 1, INT32),
	PLAIN(entry, value, "value", 2, STRING),
};
static const ProtobufCIntRange entry_ranges[] = {{1, 0}, {0, 2}};
static const ProtobufCMessageDescriptor entry_type = {
	.magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
	.short_name = "LabelsEntry",
	.sizeof_message = sizeof(struct entry),
	.n_fields = 2,
	.fields = entry_fields,
	.n_field_ranges = 1,
	.field_ranges = entry_ranges,
	.message_init = entry_init,
};
static const ProtobufCFieldDescriptor every_fields[] = {
	PLAIN(every, i32, "i32", 1, INT32),
	PLAIN(every, s64, "s64", 2, SINT64),
	PLAIN(every, u32, "u32", 3, FIXED32),
	PLAIN(every, u64, "u64", 4, UINT64),
	PLAIN(every, real, "real", 5, FLOAT),
	PLAIN(every, precise, "very_precise_number", 6, DOUBLE),
	PLAIN(every, yes, "yes", 7, BOOL),
	PLAIN(every, raw, "raw", 8, BYTES),
	REPEATED(numbers, 9, INT32, NULL),
	REPEATED(names, 10, STRING, NULL),
	REPEATED(labels, 11, MESSAGE, &entry_type),
	ONE_OF(left, 12, STRING, NULL),
	ONE_OF(right, 13, MESSAGE, &stentor__v1__position__descriptor),
};
static const ProtobufCIntRange every_ranges[] = {{1, 0}, {0, 13}};
static const ProtobufCMessageDescriptor every_type = {
	.magic = PROTOBUF_C__MESSAGE_DESCRIPTOR_MAGIC,
	.short_name = "Every",
	.sizeof_message = sizeof(struct every),
	.n_fields = 13,
	.fields = every_fields,
	.n_field_ranges = 1,
	.field_ranges = every_ranges,
	.message_init = every_init,
};

static void entry_init(ProtobufCMessage *m)
{
	*(struct entry *)m = (struct entry){.base.descriptor = &entry_type};
}

static void every_init(ProtobufCMessage *m)
{
	*(struct every *)m = (struct every){.base.descriptor = &every_type};
}

/* --- helpers ----------------------------------------------------------- */

static ProtobufCMessage *parse(const ProtobufCMessageDescriptor *type,
			       const char *text)
{
	ProtobufCMessage *m;
	char why[256] = "";
	int err = json_to_message(type, text, strlen(text), false, &m, why,
				  sizeof(why));

	if (err)
		fail_msg("%s: %s", text, why);
	return m;
}

static void release(void *m)
{
	protobuf_c_message_free_unpacked(m, NULL);
}

static void assert_refused(const ProtobufCMessageDescriptor *type,
			   const char *text, const char *expected)
{
	ProtobufCMessage *m;
	char why[256];

	assert_int_equal(json_to_message(type, text, strlen(text), false, &m,
					 why, sizeof(why)),
			 ERR_MALFORMED);
	assert_null(m);
	assert_string_equal(why, expected);
}

/* The text, read and written, is `expected`. */
static void assert_rewritten(const ProtobufCMessageDescriptor *type,
			     const char *text, const char *expected)
{
	ProtobufCMessage *m = parse(type, text);
	size_t len;
	char *out = json_from_message(m, &len);

	assert_string_equal(out, expected);
	assert_int_equal(len, strlen(expected));
	free(out);
	release(m);
}

#define EVERY(text)    assert_rewritten(&every_type, text, text)
#define BAD(text, why) assert_refused(&every_type, text, why)
#define PUBLISH	       &stentor__v1__publish_request__descriptor

/* --- tests ------------------------------------------------------------- */

static void test_json_reads_a_publish_request(void **state)
{
	Stentor__V1__PublishRequest *m = (void *)parse(
		PUBLISH, "{\"channel\":\"score:42\",\"data\":\"\\u00e9\\n\","
			 "\"idempotencyKey\":\"k\",\"conflation_key\":\"c\","
			 "\"priority\":\"PRIORITY_DROPPABLE\",\"ttlMs\":1500,"
			 "\"wantReceipt\":true,\"event\":null}");

	(void)state;
	assert_string_equal(m->channel, "score:42");
	assert_string_equal(m->data, "\xc3\xa9\n");
	assert_string_equal(m->idempotency_key, "k");
	assert_string_equal(m->conflation_key, "c");
	assert_string_equal(m->event, "");
	assert_int_equal(m->priority,
			 STENTOR__V1__PRIORITY__PRIORITY_DROPPABLE);
	assert_int_equal(m->ttl_ms, 1500);
	assert_true(m->want_receipt);
	release(m);
}

static void test_json_empty_messages(void **state)
{
	(void)state;
	assert_rewritten(PUBLISH, "", "{}");
	assert_rewritten(PUBLISH, " {} ", "{}");
	assert_rewritten(PUBLISH,
			 "{\"channel\":\"\",\"ttlMs\":0,\"wantReceipt\":false,"
			 "\"priority\":0}",
			 "{}");
}

static void test_json_writes_a_publish_response(void **state)
{
	Stentor__V1__Position position = STENTOR__V1__POSITION__INIT;
	Stentor__V1__PublishResponse m = STENTOR__V1__PUBLISH_RESPONSE__INIT;
	size_t len;
	char *text;

	(void)state;
	position.epoch = UINT64_MAX;
	position.offset = 1;
	m.message_id = "a\"b";
	m.position = &position;
	m.nodes = 2;
	text = json_from_message(&m.base, &len);
	assert_string_equal(text, "{\"messageId\":\"a\\\"b\",\"position\":"
				  "{\"epoch\":\"18446744073709551615\","
				  "\"offset\":\"1\"},\"nodes\":2}");
	free(text);
}

static void test_json_nested_lists(void **state)
{
	const char *text =
		"{\"dispatcher\":\"d\",\"nodes\":[{\"name\":\"n\",\"workers\":"
		"[{\"state\":\"WORKER_STATE_READY\",\"connections\":\"7\"},"
		"{\"index\":1}]},{}]}";

	(void)state;
	assert_rewritten(&stentor__v1__list_nodes_response__descriptor, text,
			 text);
}

static void test_json_every_type(void **state)
{
	(void)state;
	EVERY("{\"i32\":-2147483648,\"s64\":\"-9223372036854775808\","
	      "\"u32\":4294967295,\"u64\":\"18446744073709551615\","
	      "\"real\":0.1,\"veryPreciseNumber\":0.1,\"yes\":true,"
	      "\"raw\":\"AP8Q\",\"numbers\":[1,0,-1],\"names\":[\"\",\"x\"],"
	      "\"labels\":{\"-7\":\"\",\"8\":\"y\"},\"left\":\"\"}");
	EVERY("{\"right\":{}}");
	EVERY("{\"right\":{\"offset\":\"3\"}}");
	EVERY("{\"real\":3.40282e+38,\"veryPreciseNumber\":1e-300}");
	EVERY("{\"veryPreciseNumber\":0.30000000000000004}");
	assert_rewritten(&every_type, "{\"numbers\":[],\"labels\":{}}", "{}");
	assert_rewritten(&every_type, "{\"very_precise_number\":\"1.5\"}",
			 "{\"veryPreciseNumber\":1.5}");
	assert_rewritten(&every_type, "{\"i32\":1e3,\"s64\":5,\"u64\":\"07\"}",
			 "{\"i32\":1000,\"s64\":\"5\",\"u64\":\"7\"}");
}

static void test_json_base64(void **state)
{
	(void)state;
	EVERY("{\"raw\":\"YQ==\"}");
	EVERY("{\"raw\":\"YWI=\"}");
	EVERY("{\"raw\":\"YWJj\"}");
	EVERY("{\"raw\":\"++//\"}");
	assert_rewritten(&every_type, "{\"raw\":\"YQ\"}", "{\"raw\":\"YQ==\"}");
	assert_rewritten(&every_type, "{\"raw\":\"--__\"}",
			 "{\"raw\":\"++//\"}");
	assert_rewritten(&every_type, "{\"raw\":\"\"}", "{}");
	BAD("{\"raw\":\"Y\"}", "raw: bad base64");
	BAD("{\"raw\":\"YQ=\"}", "raw: bad base64");
	BAD("{\"raw\":\"YQ===\"}", "raw: bad base64");
	BAD("{\"raw\":\"Y Q=\"}", "raw: bad base64");
	BAD("{\"raw\":\"====\"}", "raw: bad base64");
	BAD("{\"raw\":1}", "raw: expected a base64 string");
}

static void test_json_refuses_wrong_types(void **state)
{
	(void)state;
	assert_refused(PUBLISH, "{\"data\":7}", "data: expected a string");
	assert_refused(PUBLISH, "{\"chanel\":\"x\"}",
		       "unknown field \"chanel\"");
	assert_refused(PUBLISH, "{\"priority\":\"HIGH\"}",
		       "priority: unknown value \"HIGH\"");
	assert_refused(PUBLISH, "{\"priority\":true}",
		       "priority: expected a name");
	assert_refused(PUBLISH, "[]", "expected an object");
	BAD("{\"yes\":1}", "yes: expected true or false");
	BAD("{\"numbers\":7}", "numbers: expected an array");
	BAD("{\"numbers\":[1,\"x\"]}", "numbers[1]: expected an integer");
	BAD("{\"names\":[\"a\",\"b\",null]}", "names[2]: expected a string");
	BAD("{\"labels\":[]}", "labels: expected an object");
	BAD("{\"labels\":{\"x\":\"\"}}", "labels[\"x\"]: expected an integer");
	BAD("{\"labels\":{\"1\":1}}", "labels[\"1\"]: expected a string");
	BAD("{\"right\":[]}", "right: expected an object");
	BAD("{\"right\":{\"ofset\":1}}", "right: unknown field \"ofset\"");
	BAD("{\"right\":{\"offset\":true}}",
	    "right.offset: expected an integer");
	BAD("{\"left\":\"x\",\"right\":{}}",
	    "right: another member of its oneof is set");
	BAD("{\"veryPreciseNumber\":1,\"very_precise_number\":2}",
	    "very_precise_number: given twice");
}

static void test_json_refuses_numbers_out_of_range(void **state)
{
	(void)state;
	BAD("{\"i32\":2147483648}", "i32: out of range");
	BAD("{\"i32\":-2147483649}", "i32: out of range");
	BAD("{\"u32\":-1}", "u32: out of range");
	BAD("{\"u32\":4294967296}", "u32: out of range");
	BAD("{\"s64\":\"9223372036854775808\"}", "s64: out of range");
	BAD("{\"u64\":\"18446744073709551616\"}", "u64: expected an integer");
	BAD("{\"u64\":\"-1\"}", "u64: out of range");
	BAD("{\"i32\":1.5}", "i32: expected an integer");
	BAD("{\"i32\":1e300}", "i32: expected an integer");
	BAD("{\"i32\":\" 1\"}", "i32: expected an integer");
	BAD("{\"i32\":\"1 \"}", "i32: expected an integer");
	BAD("{\"i32\":\"\"}", "i32: expected an integer");
	BAD("{\"i32\":\"+1\"}", "i32: expected an integer");
	BAD("{\"real\":1e39}", "real: out of range");
	BAD("{\"real\":\"NaN\"}", "real: expected a number");
	BAD("{\"real\":\"Infinity\"}", "real: expected a number");
	BAD("{\"real\":\"\"}", "real: expected a number");
	BAD("{\"real\":\"1e999\"}", "real: out of range");
}

static void test_json_refuses_bad_text(void **state)
{
	static const char *const bad[] = {
		"{",
		"{}x",
		"{\"channel\":\"a\",\"channel\":\"b\"}",
		"{\"chan\\u0000nel\":\"a\"}",
		"{\"channel\":\"\\ud800\"}",
		"{\"channel\":\"\xff\"}",
		"{\"channel\":\"\xc0\x80\"}",
		"{\"ttlMs\":NaN}",
		"{\"ttlMs\":1e999}",
		"{'channel':1}",
		"\"text\"",
		"null",
		" ",
	};
	char why[64];
	ProtobufCMessage *m;

	(void)state;
	for (size_t i = 0; i < array_len(bad); i++) {
		assert_int_equal(json_to_message(PUBLISH, bad[i],
						 strlen(bad[i]), true, &m, why,
						 sizeof(why)),
				 ERR_MALFORMED);
		assert_memory_equal(why, "invalid JSON", 12);
		assert_true(utf8_valid(why, strlen(why)));
	}
}

static void test_json_refuses_depth(void **state)
{
	static char deep[200000];
	char why[256];
	ProtobufCMessage *m;

	(void)state;
	memset(deep, '[', sizeof(deep));
	assert_int_equal(json_to_message(PUBLISH, deep, sizeof(deep), true, &m,
					 why, sizeof(why)),
			 ERR_MALFORMED);
}

static void test_json_lenient_skips_unknown_fields(void **state)
{
	const char *text = "{\"x\":{\"y\":[]},\"channel\":\"c\"}";
	ProtobufCMessage *m;
	char why[64];

	(void)state;
	assert_int_equal(json_to_message(PUBLISH, text, strlen(text), true, &m,
					 why, sizeof(why)),
			 0);
	assert_string_equal(((Stentor__V1__PublishRequest *)m)->channel, "c");
	release(m);
}

/* However short the room for it, why is whole characters. */
static void test_json_why_is_cut_at_a_character(void **state)
{
	const char *text = "{\"\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\":1}";
	ProtobufCMessage *m;
	char why[64];

	(void)state;
	for (size_t size = 0; size < sizeof(why); size++) {
		assert_int_equal(json_to_message(PUBLISH, text, strlen(text),
						 false, &m, why, size),
				 ERR_MALFORMED);
		if (size > 0)
			assert_true(utf8_valid(why, strnlen(why, size)));
	}
}

/* --- strings ----------------------------------------------------------- */

#define BYTES(literal) literal, sizeof(literal) - 1

static void refuse(const ProtobufCMessageDescriptor *type, const char *wire,
		   size_t len, const char *expected)
{
	char why[256] = "";
	int rv = pbwire_check_strings(type, wire, len, "", why, sizeof(why));

	assert_string_equal(why, expected);
	assert_int_equal(rv, strstr(expected, "not a valid ") ? ERR_MALFORMED
			     : expected[0] != '\0'	      ? ERR_REFUSED
							      : 0);
}

#define NUL "must not contain NUL characters"
#define UTF "must be valid UTF-8"

static void test_pbwire_strings(void **state)
{
	const ProtobufCMessageDescriptor *batch =
		&stentor__v1__publish_batch_request__descriptor;

	(void)state;
	refuse(PUBLISH, NULL, 0, "");
	refuse(PUBLISH, BYTES("\x12\3a\0b"), "data: " NUL);
	refuse(PUBLISH, BYTES("\x12\1\0"), "data: " NUL);
	refuse(PUBLISH, BYTES("\x12\3abc\x0a\2r\0"), "channel: " NUL);
	refuse(PUBLISH, BYTES("\x1a\2\xc3\x28"), "event: " UTF);
	/* The first of two is looked at too, though the second counts. */
	refuse(PUBLISH, BYTES("\x12\1\0\x12\1a"), "data: " NUL);
	/* A NUL that is none of a string: a number, an unknown field. */
	refuse(PUBLISH, BYTES("\x38\0\x12\1a\x7a\1\0"), "");
	refuse(batch, BYTES("\x0a\3\x12\1a\x0a\3\x12\1\0"),
	       "messages[1].data: " NUL);
	refuse(&every_type, BYTES("\x42\2\0\0\x52\1a"), ""); /* bytes */
	refuse(&every_type, BYTES("\x52\1a\x52\1b\x52\1\0"), "names[2]: " NUL);
	refuse(&every_type, BYTES("\x5a\5\x08\1\x12\1\xff"),
	       "labels[0].value: " UTF);
	refuse(&every_type, BYTES("\x62\1\0"), "left: " NUL);
}

static void test_pbwire_malformed(void **state)
{
	static const char why[] = "not a valid stentor.v1.PublishRequest "
				  "message";

	(void)state;
	refuse(PUBLISH, BYTES("\x12"), why);
	refuse(PUBLISH, BYTES("\x12\5a"), why);
	refuse(PUBLISH, BYTES("\x12\xff\xff\xff\xff\xff"), why);
	refuse(PUBLISH, BYTES("\x38\x80"), why);
	refuse(PUBLISH, BYTES("\x0b\x0c"), why); /* a group */
	refuse(PUBLISH, BYTES("\2\1a"), why);	 /* field 0 */
	/* 33 bits: data's number, to one who looks at 32 of them. */
	refuse(PUBLISH, BYTES("\x92\x80\x80\x80\x10\1\0"), why);
}

/* What protobuf-c takes for a string's field is looked at, however long its
 * number and length are written. */
static void test_pbwire_long_heads(void **state)
{
	(void)state;
	refuse(PUBLISH, BYTES("\x92\x80\x80\x80\0\1\0"), "data: " NUL);
	refuse(PUBLISH, BYTES("\x12\x81\x80\x80\x80\0\0"), "data: " NUL);
}

static void test_json_nul_is_named(void **state)
{
	static const struct {
		const char *text;
		size_t len;
		const char *why;
	} cases[] = {
		{BYTES("{\"data\":\"a\\u0000b\"}"), "data: " NUL},
		{BYTES("{\"data\":\"a\0b\"}"), "data: " NUL},
		{BYTES("{\"data\":\"a\0b\0c\"}"), "data: " NUL},
		{BYTES("{\"ttlMs\":\"1\\u0000\"}"), "ttlMs: " NUL},
		{BYTES("{\"priority\":\"PRIORITY_NORMAL\\u0000\"}"),
		 "priority: " NUL},
		{BYTES("{\"x\":\"\\u0000\"}"), "unknown field \"x\""},
	};
	ProtobufCMessage *m;
	char why[64];

	(void)state;
	for (size_t i = 0; i < array_len(cases); i++) {
		assert_int_equal(json_to_message(PUBLISH, cases[i].text,
						 cases[i].len, false, &m, why,
						 sizeof(why)),
				 ERR_MALFORMED);
		assert_string_equal(why, cases[i].why);
	}
	/* Outside of strings, in a key, in what nobody looks at. */
	assert_int_equal(json_to_message(PUBLISH, BYTES("{}\0"), true, &m, why,
					 sizeof(why)),
			 ERR_MALFORMED);
	assert_int_equal(json_to_message(PUBLISH, BYTES("{\"x\0\":1}"), true,
					 &m, why, sizeof(why)),
			 ERR_MALFORMED);
	assert_int_equal(json_to_message(PUBLISH, BYTES("{\"x\":\"\0\"}"), true,
					 &m, why, sizeof(why)),
			 ERR_MALFORMED);
	assert_string_equal(why, NUL);
}

static void test_json_element(void **state)
{
	ProtobufCMessage *m;
	char why[64];

	(void)state;
	assert_int_equal(json_to_element(PUBLISH, "messages[3]",
					 BYTES("{\"data\":1}"), &m, why,
					 sizeof(why)),
			 ERR_MALFORMED);
	assert_string_equal(why, "messages[3].data: expected a string");
	assert_int_equal(json_to_element(PUBLISH, "messages[3]", BYTES("5"), &m,
					 why, sizeof(why)),
			 ERR_MALFORMED);
	assert_string_equal(why, "messages[3]: expected an object");
	assert_int_equal(json_to_element(PUBLISH, "messages[3]", BYTES(" "), &m,
					 why, sizeof(why)),
			 ERR_MALFORMED);
	assert_int_equal(json_to_element(PUBLISH, "messages[3]",
					 BYTES(" {\"data\":\"a\"} "), &m, why,
					 sizeof(why)),
			 0);
	release(m);
}

/* Every sequence of one to three bytes, and the corners of four, against the
 * definition: a code point's shortest form, no surrogates, up to U+10FFFF. */
static bool utf8_reference(const uint8_t *p, size_t len)
{
	while (len > 0) {
		size_t n = *p < 0x80   ? 1
			   : *p < 0xc0 ? 0
			   : *p < 0xe0 ? 2
			   : *p < 0xf0 ? 3
			   : *p < 0xf8 ? 4
				       : 0;
		static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
		uint32_t c = n == 1 ? *p : *p & (0x7fu >> n);

		if (n == 0 || n > len)
			return false;
		for (size_t i = 1; i < n; i++) {
			if ((p[i] & 0xc0) != 0x80)
				return false;
			c = c << 6 | (p[i] & 0x3fu);
		}
		if (c < least[n] || c > 0x10ffff ||
		    (c >= 0xd800 && c <= 0xdfff))
			return false;
		p += n;
		len -= n;
	}
	return true;
}

static void test_json_utf8(void **state)
{
	static const uint8_t corner[] = {
		0x00, 0x41, 0x7f, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc0,
		0xc1, 0xc2, 0xdf, 0xe0, 0xed, 0xef, 0xf0, 0xf4, 0xf5, 0xff};
	size_t n = sizeof(corner);
	uint8_t text[32] = "0123456789";

	(void)state;
	for (unsigned i = 0; i < 1u << 16; i++) {
		uint8_t two[2] = {(uint8_t)i, (uint8_t)(i >> 8)};

		assert_int_equal(utf8_valid(two, 2), utf8_reference(two, 2));
	}
	for (size_t i = 0; i < n * n * n * n; i++) {
		/* Where the fast path ends and where it begins. */
		for (size_t at = 8; at < 11; at++) {
			text[at] = corner[i % n];
			text[at + 1] = corner[i / n % n];
			text[at + 2] = corner[i / n / n % n];
			text[at + 3] = corner[i / n / n / n];
			assert_int_equal(
				utf8_valid(text + 10 - at, at + 4),
				utf8_reference(text + 10 - at, at + 4));
			memset(text + 8, '.', 8);
		}
	}
	assert_true(utf8_valid("", 0));
	assert_true(utf8_valid(NULL, 0));
	assert_true(utf8_valid("a\0b", 3));
}

static void test_json_quote_escapes(void **state)
{
	char out[256 * 6 + 2], text[128];
	size_t len;

	(void)state;
	len = json_quote(out, "plain", 5);
	assert_int_equal(len, 7);
	assert_memory_equal(out, "\"plain\"", 7);
	for (size_t i = 0; i < sizeof(text); i++)
		text[i] = (char)i;
	len = json_quote(out, text, sizeof(text));
	assert_int_equal(len, json_quoted_len(text, sizeof(text)));
	assert_memory_equal(out,
			    "\"\\u0000\\u0001\\u0002\\u0003\\u0004\\u0005"
			    "\\u0006\\u0007\\b\\t\\n\\u000b\\f\\r\\u000e\\u000f"
			    "\\u0010\\u0011\\u0012\\u0013\\u0014\\u0015\\u0016"
			    "\\u0017\\u0018\\u0019\\u001a\\u001b\\u001c\\u001d"
			    "\\u001e\\u001f !\\\"#",
			    173);
	/* Each byte that needs an escape at each place of a word. */
	for (size_t at = 0; at < 24; at++) {
		for (int c = 0; c < 256; c++) {
			bool plain = c >= 0x20 && c != 0x22 && c != 0x5c;

			memset(text, 'a' + (int)at, 24);
			text[at] = (char)c;
			len = json_quote(out, text, 24);
			assert_int_equal(len, json_quoted_len(text, 24));
			assert_int_equal(len == 26, plain);
			assert_int_equal(out[at + 1] == (char)c,
					 plain || c == 0x5c);
		}
	}
	assert_int_equal(json_quote(out, "", 0), 2);
	assert_int_equal(json_quoted_len("", 0), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_json_reads_a_publish_request),
		cmocka_unit_test(test_json_empty_messages),
		cmocka_unit_test(test_json_writes_a_publish_response),
		cmocka_unit_test(test_json_nested_lists),
		cmocka_unit_test(test_json_every_type),
		cmocka_unit_test(test_json_base64),
		cmocka_unit_test(test_json_refuses_wrong_types),
		cmocka_unit_test(test_json_refuses_numbers_out_of_range),
		cmocka_unit_test(test_json_refuses_bad_text),
		cmocka_unit_test(test_json_refuses_depth),
		cmocka_unit_test(test_json_lenient_skips_unknown_fields),
		cmocka_unit_test(test_json_why_is_cut_at_a_character),
		cmocka_unit_test(test_pbwire_strings),
		cmocka_unit_test(test_pbwire_malformed),
		cmocka_unit_test(test_pbwire_long_heads),
		cmocka_unit_test(test_json_nul_is_named),
		cmocka_unit_test(test_json_element),
		cmocka_unit_test(test_json_utf8),
		cmocka_unit_test(test_json_quote_escapes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

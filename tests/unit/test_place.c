/* A client's place as the id line carries it. */
#include "common/base/err.h"
#include "common/codec/place.h"
#include "tests/unit/unit.h"

#include <string.h>

#define CHANNELS 300
#define HASH	 0x01020304u
#define NOW	 1795316772123u /* an epoch of our days */

static char id[PLACE_ID_SIZE(CHANNELS)];
static struct place in[CHANNELS], out[CHANNELS];

static void expect_round_trip(size_t count)
{
	size_t len = place_encode(id, HASH, in, count);

	assert_int_equal(len, strlen(id));
	assert_int_equal(strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "abcdefghijklmnopqrstuvwxyz0123456789-_"),
			 len);
	memset(out, 0xff, sizeof(out));
	assert_int_equal(place_decode(id, HASH, out, count), 0);
	assert_memory_equal(out, in, count * sizeof(*in));
}

static void expect_malformed(const char *text, size_t count)
{
	static const struct place before[CHANNELS];

	memset(out, 0, sizeof(out));
	assert_int_equal(place_decode(text, HASH, out, count), ERR_MALFORMED);
	assert_memory_equal(out, before, sizeof(before));
}

/* What stays the same for as long as version 1 does: clients keep ids. */
static void test_place_vectors(void **state)
{
	const struct place one = {.epoch = 1, .offset = 2};
	const char *const names[] = {"score:42", "chat:1"};

	(void)state;
	assert_int_equal(place_encode(id, HASH, &one, 1), 10);
	assert_string_equal(id, "AQECAwQBAg");
	assert_int_equal(place_encode(id, HASH, NULL, 0), 7);
	assert_string_equal(id, "AQECAwQ");
	assert_int_equal(place_list_hash(names, 2), 0x395f9d61);
}

static void test_place_round_trips(void **state)
{
	static const uint64_t values[] = {
		1, 127, 128, 1u << 14, UINT32_MAX, NOW, 1ull << 63, UINT64_MAX};

	(void)state;
	for (size_t i = 0; i < 8; i++) {
		for (size_t j = 0; j < 8; j++) {
			in[0] = (struct place){values[i], values[j]};
			in[1] = (struct place){0};
			in[2] = (struct place){values[j], 0};
			expect_round_trip(3);
		}
	}
	for (size_t count = 0; count < 8; count++)
		expect_round_trip(count);
}

/* The largest id fits what PLACE_ID_SIZE says; a usual one is small. */
static void test_place_size(void **state)
{
	size_t len;

	(void)state;
	for (size_t i = 0; i < CHANNELS; i++)
		in[i] = (struct place){UINT64_MAX, UINT64_MAX};
	for (size_t count = 0; count < CHANNELS; count++) {
		len = place_encode(id, HASH, in, count);
		assert_true(len < PLACE_ID_SIZE(count));
	}
	expect_round_trip(CHANNELS);
	for (size_t i = 0; i < CHANNELS; i++)
		in[i] = (struct place){NOW, 12345};
	len = place_encode(id, HASH, in, CHANNELS);
	assert_true(len <= 11 * CHANNELS + 8);
}

/* An epoch of 0 is no place; an offset beside it is not carried. */
static void test_place_none(void **state)
{
	const struct place none = {.epoch = 0, .offset = 7};

	(void)state;
	place_encode(id, HASH, &none, 1);
	assert_int_equal(place_decode(id, HASH, out, 1), 0);
	assert_int_equal(out[0].epoch, 0);
	assert_int_equal(out[0].offset, 0);
}

static void test_place_other_list(void **state)
{
	const char *const ab[] = {"a", "b"}, *const ba[] = {"b", "a"};
	const char *const joined[] = {"ab"}, *const a[] = {"a"};
	uint32_t hash = place_list_hash(ab, 2);

	(void)state;
	assert_int_equal(hash, place_list_hash(ab, 2));
	assert_int_not_equal(hash, place_list_hash(ba, 2));
	assert_int_not_equal(hash, place_list_hash(joined, 1));
	assert_int_not_equal(hash, place_list_hash(a, 1));
	in[0] = in[1] = (struct place){NOW, 1};
	place_encode(id, hash, in, 2);
	assert_int_equal(place_decode(id, hash ^ 1, out, 2), ERR_MALFORMED);
	assert_int_equal(place_decode(id, hash ^ 1u << 31, out, 2),
			 ERR_MALFORMED);
}

static void test_place_malformed(void **state)
{
	static const char *const bad[] = {
		"",
		"A",
		"0",
		"12345",
		"AQECAwQ",	/* of no channel */
		"AQECAwQBAgM",	/* a byte too much */
		"AQECAwQBAgEC", /* a channel too much */
		"AAECAwQBAg",	/* version 0 */
		"AgECAwQBAg",	/* version 2 */
		"AQECAwUBAg",	/* another list */
		"AQECAwQBAh",	/* bits behind the last byte */
		"AQECAwQBAg==", /* padded */
		"AQECAwQBAgA",	/* a zero byte too much */
		" AQECAwQBAg",	/* spaces */
		"AQECAwQBAg ",
		"AQECAwQBAg\n",
		"AQECAwQBAg,AQECAwQBAg",
		"AQECAwQBgg",		      /* a varint that does not end */
		"AQECAwSBAAI",		      /* 1 in two bytes */
		"AQECAwQBggA",		      /* 2 in two bytes */
		"AQECAwSAAA",		      /* 0 in two bytes */
		"AQECAwT_________wIB",	      /* epoch of 65 bits */
		"AQECAwT_________________wE", /* far too long */
		"AQECAwT/////////AQE",	      /* the other alphabet */
		"AQECAwT++++++++++AQE",
		"\xc3\xa4\xff\x80",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_malformed(bad[i], 1);
}

/* Every cut of a good id, and every other character in it, is malformed or
 * another id: never a second spelling of the same one. */
static void test_place_one_spelling(void **state)
{
	static char again[PLACE_ID_SIZE(2)];
	char text[PLACE_ID_SIZE(2)];
	size_t len;

	(void)state;
	in[0] = (struct place){NOW, 99};
	in[1] = (struct place){0};
	len = place_encode(id, HASH, in, 2);
	for (size_t cut = 0; cut < len; cut++) {
		memcpy(text, id, len + 1);
		text[cut] = '\0';
		expect_malformed(text, 2);
	}
	for (size_t i = 0; i < len; i++) {
		for (int c = 1; c < 256; c++) {
			memcpy(text, id, len + 1);
			text[i] = (char)c;
			if (place_decode(text, HASH, out, 2) != 0)
				continue;
			place_encode(again, HASH, out, 2);
			assert_string_equal(again, text);
		}
	}
}

/* As long as a header can be. */
static void test_place_huge(void **state)
{
	static char huge[1 << 20];

	(void)state;
	memset(huge, 'A', sizeof(huge) - 1);
	expect_malformed(huge, CHANNELS);
	place_encode(id, HASH, in, 0);
	memcpy(huge, id, strlen(id));
	expect_malformed(huge, CHANNELS);
	memset(huge + strlen(id), '_', sizeof(huge) - 1 - strlen(id));
	expect_malformed(huge, CHANNELS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_place_vectors),
		cmocka_unit_test(test_place_round_trips),
		cmocka_unit_test(test_place_size),
		cmocka_unit_test(test_place_none),
		cmocka_unit_test(test_place_other_list),
		cmocka_unit_test(test_place_malformed),
		cmocka_unit_test(test_place_one_spelling),
		cmocka_unit_test(test_place_huge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

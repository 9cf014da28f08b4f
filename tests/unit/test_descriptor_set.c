/* The embedded descriptor set and its scanner. */
#include "common/base/check.h"
#include "dispatcher/api/descriptor_set.h"
#include "tests/unit/unit.h"

#include <stdlib.h>
#include <string.h>

extern const uint8_t api_descriptors[], api_descriptors_end[];

static struct descriptor_set embedded(void)
{
	struct descriptor_set d;

	descriptor_set_init(&d, api_descriptors,
			    (size_t)(api_descriptors_end - api_descriptors));
	return d;
}

static void test_descriptor_set_files(void **state)
{
	struct descriptor_set d = embedded();

	(void)state;
	assert_true(d.count > 4 && d.count < DESCRIPTOR_SET_MAX);
	assert_true(descriptor_set_find_file(
			    &d, "stentor/v1/publisher.proto") >= 0);
	assert_int_equal(descriptor_set_find_file(&d, "stentor/v1"), -1);
	assert_int_equal(descriptor_set_find_file(&d, ""), -1);
}

static void test_descriptor_set_symbols(void **state)
{
	static const char *const known[] = {
		"stentor.v1.PublishRequest",
		"stentor.v1.PublishRequest.channel",
		"stentor.v1.Priority",
		"stentor.v1.PublisherService",
		"stentor.v1.PublisherService.Publish",
		"grpc.health.v1.HealthCheckResponse.ServingStatus",
		"grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING",
	};
	static const char *const unknown[] = {
		"",
		"stentor",
		"stentor.v1",
		"stentor.v1.",
		"stentor.v1.Publish",
		"stentor.v1.PublishRequestX",
		"stentor.v1.PublishRequest.",
		"stentor.v1.PublishRequest.channel.x",
		"stentor.v1.PublisherService/Publish",
		".stentor.v1.PublishRequest",
	};
	struct descriptor_set d = embedded();

	(void)state;
	for (size_t i = 0; i < array_len(known); i++)
		assert_true(descriptor_set_find_symbol(&d, known[i]) >= 0);
	for (size_t i = 0; i < array_len(unknown); i++)
		assert_int_equal(descriptor_set_find_symbol(&d, unknown[i]),
				 -1);
}

static void test_descriptor_set_closure(void **state)
{
	struct descriptor_set d = embedded();
	int channel = descriptor_set_find_file(&d, "stentor/v1/channel.proto");
	int publisher =
		descriptor_set_find_file(&d, "stentor/v1/publisher.proto");

	(void)state;
	assert_true(channel >= 0 && publisher >= 0);
	assert_true(descriptor_set_closure(&d, channel) ==
		    ((uint64_t)1 << channel | (uint64_t)1 << publisher));
	assert_true(descriptor_set_closure(&d, publisher) ==
		    (uint64_t)1 << publisher);
}

/* Any prefix and any bytes are read without leaving the buffer (asan). */
static void test_descriptor_set_malformed(void **state)
{
	size_t len = (size_t)(api_descriptors_end - api_descriptors);
	struct descriptor_set d;

	(void)state;
	for (size_t cut = 0; cut < len; cut += 7) {
		uint8_t *copy = malloc(cut + 1);

		assert_non_null(copy);
		memcpy(copy, api_descriptors, cut);
		if (cut > 0)
			copy[cut / 2] ^= 0xff;
		descriptor_set_init(&d, copy, cut);
		descriptor_set_find_symbol(&d, "stentor.v1.PublishRequest.x");
		if (d.count > 0)
			descriptor_set_closure(&d, 0);
		free(copy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_descriptor_set_files),
		cmocka_unit_test(test_descriptor_set_symbols),
		cmocka_unit_test(test_descriptor_set_closure),
		cmocka_unit_test(test_descriptor_set_malformed),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* How file descriptors are divided, in a node and in a dispatcher. */
#include "connnode/node/files.h"
#include "dispatcher/options.h"
#include "tests/unit/unit.h"

static void test_files_all_where_there_are_enough(void **state)
{
	struct files_plan p = files_plan(65536, 25000, 4096, false);

	(void)state;
	assert_int_equal(p.streams, 25000);
	assert_int_equal(p.heads, 4096);
	p = files_plan(25000 + 4096 + FILES_RESERVED, 25000, 4096, true);
	assert_int_equal(p.streams, 25000);
	assert_int_equal(p.heads, 4096);
}

/* Whatever is asked for, the sum fits. */
static void test_files_never_more_than_there_are(void **state)
{
	static const uint64_t nofile[] = {0,   256,  257,  260,	  300,
					  600, 1024, 4096, 20000, 65536};
	static const uint64_t wanted[] = {1, 100, 5000, 50000, 1000000};

	(void)state;
	for (size_t i = 0; i < array_len(nofile); i++) {
		for (size_t j = 0; j < array_len(wanted); j++) {
			for (int insists = 0; insists < 2; insists++) {
				struct files_plan p = files_plan(
					nofile[i], wanted[j], 4096, insists);

				assert_true(p.streams <= wanted[j]);
				assert_true(p.heads <= 4096);
				if (nofile[i] <= FILES_RESERVED)
					assert_int_equal(p.streams + p.heads,
							 0);
				else
					assert_true(p.streams + p.heads +
							    FILES_RESERVED <=
						    nofile[i]);
			}
		}
	}
}

static void test_files_heads_keep_a_quarter_or_give_way_to_a_wish(void **state)
{
	struct files_plan p = files_plan(656, 50000, 4096, false);

	(void)state;
	assert_int_equal(p.streams, 300);
	assert_int_equal(p.heads, 100);
	p = files_plan(656, 330, 4096, true);
	assert_int_equal(p.streams, 330);
	assert_int_equal(p.heads, 70);
	p = files_plan(656, 400, 4096, true);
	assert_int_equal(p.streams, 400 - FILES_HEADS_LEAST);
}

static void test_files_of_a_dispatcher_leave_room_for_links(void **state)
{
	(void)state;
	assert_int_equal(dispatcher_api_room(600, 2048), 300);
	assert_int_equal(dispatcher_api_room(1024, 100), 1024 - 456);
	assert_int_equal(dispatcher_api_room(65536, 2048), 65536 - 4352);
}

#define T(test) cmocka_unit_test(test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_files_all_where_there_are_enough),
		T(test_files_never_more_than_there_are),
		T(test_files_heads_keep_a_quarter_or_give_way_to_a_wish),
		T(test_files_of_a_dispatcher_leave_room_for_links),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

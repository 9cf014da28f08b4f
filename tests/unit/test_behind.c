#include "dispatcher/route/behind.h"

#include "common/codec/linkwire.h"
#include "tests/unit/link_fixture.h"
#include "tests/unit/unit.h"

#include <stdio.h>
#include <stdlib.h>

struct fixture {
	struct linkq_pool pool;
	struct behind b;
	struct arena arena;
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));

	linkq_pool_init(&f->pool, 1u << 20, 4);
	behind_init(&f->b, &f->pool);
	arena_init(&f->arena, LINK_DECODED_MAX);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	behind_fini(&f->b);
	assert_int_equal(f->pool.bytes, 0);
	arena_fini(&f->arena);
	free(f);
	return 0;
}

static void mark(struct fixture *f, const char *channel, enum priority lane,
		 uint64_t epoch, uint64_t offset)
{
	/* All in one bucket: names are compared. */
	behind_mark(&f->b, 1, channel, lane, (struct place){epoch, offset});
}

/* What is said next by a lane; it counts as told. */
static const LinkFrame *tell(struct fixture *f, enum priority lane)
{
	unsigned count;
	struct frame *bytes = behind_tell(&f->b, lane, &count);
	const LinkFrame *said;

	if (bytes == NULL)
		return NULL;
	said = link_frame_decode(&f->arena, bytes->bytes, bytes->len);
	assert_int_equal(said->n_moved, count);
	behind_told(&f->b, lane, count);
	frame_release(bytes);
	return said;
}

static void test_behind_newest_top(void **state)
{
	struct fixture *f = *state;
	const LinkFrame *said;

	assert_false(behind_any(&f->b));
	mark(f, "a", PRIORITY_NORMAL, 5, 10);
	mark(f, "b", PRIORITY_NORMAL, 5, 1);
	mark(f, "c", PRIORITY_CRITICAL, 5, 1);
	mark(f, "a", PRIORITY_NORMAL, 5, 12);
	mark(f, "a", PRIORITY_NORMAL, 5, 11);
	mark(f, "b", PRIORITY_NORMAL, 6, 0);
	mark(f, "b", PRIORITY_NORMAL, 5, 9);
	assert_true(behind_has(&f->b, 1, "a"));
	assert_false(behind_has(&f->b, 1, "d"));
	assert_null(tell(f, PRIORITY_DROPPABLE));
	said = tell(f, PRIORITY_NORMAL);
	assert_int_equal(said->n_moved, 2);
	assert_string_equal(said->moved[0]->channel, "a");
	assert_int_equal(said->moved[0]->top->offset, 12);
	assert_string_equal(said->moved[1]->channel, "b");
	assert_int_equal(said->moved[1]->top->epoch, 6);
	assert_false(said->moved_unnamed);
	assert_false(behind_has(&f->b, 1, "a"));
	assert_true(behind_any(&f->b));
	assert_int_equal(tell(f, PRIORITY_CRITICAL)->n_moved, 1);
	assert_false(behind_any(&f->b));
}

/* That nothing is known of a top stays so until it is told. */
static void test_behind_look(void **state)
{
	struct fixture *f = *state;

	mark(f, "a", PRIORITY_NORMAL, 5, 10);
	mark(f, "a", PRIORITY_NORMAL, 0, 0);
	mark(f, "a", PRIORITY_NORMAL, 5, 11);
	assert_int_equal(tell(f, PRIORITY_NORMAL)->moved[0]->top->epoch, 0);
}

static void mark_many(struct fixture *f, unsigned from, unsigned count)
{
	char name[16];

	for (unsigned i = from; i < from + count; i++) {
		snprintf(name, sizeof(name), "c%u", i);
		behind_mark(&f->b, i, name, PRIORITY_NORMAL,
			    (struct place){5, i + 1});
	}
}

static void test_behind_is_told_in_pieces(void **state)
{
	struct fixture *f = *state;

	mark_many(f, 0, BEHIND_TOLD_MAX + 3);
	assert_int_equal(tell(f, PRIORITY_NORMAL)->n_moved, BEHIND_TOLD_MAX);
	assert_int_equal(tell(f, PRIORITY_NORMAL)->n_moved, 3);
	assert_null(tell(f, PRIORITY_NORMAL));
}

static void test_behind_too_many(void **state)
{
	struct fixture *f = *state;
	const LinkFrame *said;

	mark_many(f, 0, BEHIND_MAX);
	assert_false(f->b.unnamed);
	mark_many(f, BEHIND_MAX, 1);
	assert_true(f->b.unnamed);
	assert_int_equal(f->b.count, 0);
	assert_int_equal(f->pool.bytes, 0);
	assert_true(behind_has(&f->b, 1, "any"));
	assert_null(tell(f, PRIORITY_NORMAL));
	said = tell(f, PRIORITY_DROPPABLE);
	assert_true(said->moved_unnamed);
	assert_int_equal(said->n_moved, 0);
	assert_false(behind_any(&f->b));
	mark_many(f, 0, 1);
	assert_int_equal(f->b.count, 1);
}

/* Marks count with what waits in queues. */
static void test_behind_pool_is_full(void **state)
{
	struct fixture *f = *state;

	mark_many(f, 0, 2);
	f->pool.max = f->pool.bytes;
	mark_many(f, 0, 2);
	assert_false(f->b.unnamed);
	mark_many(f, 2, 1);
	assert_true(f->b.unnamed);
	assert_int_equal(f->pool.bytes, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_behind_newest_top),	     TEST(test_behind_look),
		TEST(test_behind_is_told_in_pieces), TEST(test_behind_too_many),
		TEST(test_behind_pool_is_full),
	};

	return cmocka_run_group_tests_name("behind", tests, NULL, NULL);
}

#include "common/ds/list.h"

#include "tests/unit/unit.h"

struct item {
	int value;
	struct list all;
};

static struct item items[4];

/* The list holds exactly these values, forwards and backwards. */
static void assert_values(struct list *head, const int *values, int count)
{
	int i = 0;

	list_for_each (node, head)
		assert_int_equal(container_of(node, struct item, all)->value,
				 values[i++]);
	assert_int_equal(i, count);
	for (struct list *node = head->prev; node != head; node = node->prev)
		assert_int_equal(container_of(node, struct item, all)->value,
				 values[--i]);
	assert_int_equal(i, 0);
	assert_int_equal(list_empty(head), count == 0);
}

static int set_up(void **state)
{
	(void)state;
	for (int i = 0; i < 4; i++) {
		items[i].value = i;
		list_init(&items[i].all);
	}
	return 0;
}

static void test_list_push_and_pop(void **state)
{
	struct list head;

	(void)state;
	list_init(&head);
	assert_values(&head, NULL, 0);
	assert_null(list_pop_front(&head));
	list_push_back(&head, &items[1].all);
	list_push_back(&head, &items[2].all);
	list_push_front(&head, &items[0].all);
	assert_values(&head, (int[]){0, 1, 2}, 3);
	list_insert_after(&items[0].all, &items[3].all);
	assert_values(&head, (int[]){0, 3, 1, 2}, 4);
	assert_ptr_equal(list_pop_front(&head), &items[0].all);
	assert_true(list_empty(&items[0].all));
	assert_values(&head, (int[]){3, 1, 2}, 3);
}

static void test_list_remove_is_always_allowed(void **state)
{
	struct list head;

	(void)state;
	list_init(&head);
	list_remove(&items[0].all);
	list_push_back(&head, &items[0].all);
	list_push_back(&head, &items[1].all);
	list_remove(&items[0].all);
	list_remove(&items[0].all);
	assert_values(&head, (int[]){1}, 1);
}

static void test_list_splice_moves_all(void **state)
{
	struct list to, from;

	(void)state;
	list_init(&to);
	list_init(&from);
	list_splice_back(&to, &from);
	assert_values(&to, NULL, 0);
	list_push_back(&from, &items[0].all);
	list_push_back(&from, &items[1].all);
	list_splice_back(&to, &from);
	assert_values(&to, (int[]){0, 1}, 2);
	assert_values(&from, NULL, 0);
	list_push_back(&from, &items[2].all);
	list_splice_back(&to, &from);
	assert_values(&to, (int[]){0, 1, 2}, 3);
}

static void test_list_for_each_safe_allows_removal(void **state)
{
	struct list head;

	(void)state;
	list_init(&head);
	for (int i = 0; i < 4; i++)
		list_push_back(&head, &items[i].all);
	list_for_each_safe (node, &head) {
		if (container_of(node, struct item, all)->value % 2 == 0)
			list_remove(node);
	}
	assert_values(&head, (int[]){1, 3}, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_list_push_and_pop, set_up),
		cmocka_unit_test_setup(test_list_remove_is_always_allowed,
				       set_up),
		cmocka_unit_test_setup(test_list_splice_moves_all, set_up),
		cmocka_unit_test_setup(test_list_for_each_safe_allows_removal,
				       set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

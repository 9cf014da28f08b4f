#include "connnode/channel/channels.h"

#include "tests/unit/unit.h"

#include <stdio.h>
#include <string.h>

static struct rule some_rules[] = {
	{.pattern = "score:*", .priority = PRIORITY_CRITICAL},
	{.pattern = "*", .priority = PRIORITY_NORMAL},
};
static const struct rules rules = {.rule = some_rules, .count = 2};
static const struct rules one_rule = {.rule = &some_rules[1], .count = 1};

static void test_channels_find_or_make(void **state UNUSED)
{
	struct channels c;
	struct channel *all[1000];
	char name[16];

	channels_init(&c, &rules);
	assert_null(channels_find(&c, "a", 1));
	for (unsigned i = 0; i < 1000; i++) {
		int len = snprintf(name, sizeof(name), "score:%u", i);

		all[i] = channels_get(&c, name, (size_t)len);
		assert_string_equal(all[i]->name, name);
		assert_ptr_equal(channels_get(&c, name, (size_t)len), all[i]);
	}
	assert_ptr_equal(channels_find(&c, "score:77x", 8), all[77]);
	assert_null(channels_find(&c, "score:7", 8)); /* with its zero byte */
	for (unsigned i = 0; i < 1000; i++)
		channels_forget(&c, all[i]);
	assert_null(channels_find(&c, "score:77", 8));
	channels_fini(&c);
}

static void test_channels_first_and_last(void **state UNUSED)
{
	struct channels c;
	struct channel *ch;
	struct subscription one, two;

	channels_init(&c, &rules);
	ch = channels_get(&c, "a", 1);
	assert_true(channels_subscribe(&c, ch, &one, NULL, VARIANT_JSON));
	ch->messages = 5;
	assert_false(channels_subscribe(&c, ch, &two, NULL, 0));
	assert_int_equal(one.at, 0);
	assert_int_equal(two.at, 5);
	assert_int_equal(ch->subscribers, 2);
	assert_int_equal(ch->variants[VARIANT_JSON], 1);
	assert_int_equal(c.subscriptions, 2);
	/* In the order in which they came. */
	assert_ptr_equal(ch->subscriptions.next, &one.in_channel);
	assert_false(channels_unsubscribe(&c, &one));
	assert_int_equal(ch->variants[VARIANT_JSON], 0);
	assert_true(channels_unsubscribe(&c, &two));
	assert_int_equal(c.subscriptions, 0);
	channels_forget(&c, ch);
	channels_fini(&c);
}

static void test_channels_rules(void **state UNUSED)
{
	struct channels c;
	struct channel *score, *other;

	channels_init(&c, &rules);
	score = channels_get(&c, "score:1", 7);
	other = channels_get(&c, "other", 5);
	assert_int_equal(score->rule->priority, PRIORITY_CRITICAL);
	assert_int_equal(other->rule->priority, PRIORITY_NORMAL);
	channels_apply_rules(&c, &one_rule);
	assert_int_equal(score->rule->priority, PRIORITY_NORMAL);
	channels_forget(&c, score);
	channels_forget(&c, other);
	channels_fini(&c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_channels_find_or_make),
		cmocka_unit_test(test_channels_first_and_last),
		cmocka_unit_test(test_channels_rules),
	};

	return cmocka_run_group_tests_name("channels", tests, NULL, NULL);
}

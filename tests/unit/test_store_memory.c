/* memory: under the conformance suite, and what store.c does for all. */
#define CONFORMANCE_PERSISTENT	 0
#define CONFORMANCE_KEEPS_EPOCHS 0
#include "tests/unit/store_conformance.h"

static void conformance_config(struct store_config *c)
{
	c->url = "memory:";
}

static void assert_refused(struct conformance *f, const char *url,
			   const char *word)
{
	struct store_config config = f->config;
	char fault[STORE_FAULT_SIZE] = "";
	struct store *s = NULL;

	config.url = url;
	assert_int_equal(store_open(&f->l->loop, &config, &s, fault),
			 ERR_CONFIG);
	assert_null(s);
	if (strstr(fault, word) == NULL)
		fail_msg("%s: %s", url, fault);
}

static void test_store_unknown_url(void **state)
{
	struct conformance *f = *state;

	assert_refused(f, "", "memory:");
	assert_refused(f, "etcd://secret", "\"etcd\"");
	assert_refused(f, "memory:x", "memory:x");
}

static void test_store_memory_is_embedded(void **state)
{
	struct conformance *f = *state;

	assert_true(store_embedded(f->store));
	assert_int_equal(store_state(f->store)->bytes_max, f->config.map_bytes);
	append_text(f, "a", "x");
	assert_true(store_state(f->store)->bytes > 0);
	assert_int_equal(metric_get(store_counters(f->store), SM_UP, 0), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONFORMANCE_TESTS,
		CONFORMANCE_CASE(test_store_unknown_url),
		CONFORMANCE_CASE(test_store_memory_is_embedded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

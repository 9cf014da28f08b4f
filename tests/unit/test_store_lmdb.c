/* lmdb: under the conformance suite. */
#define CONFORMANCE_PERSISTENT 1
#include "tests/unit/store_conformance.h"

#include <unistd.h>

static char directory[64], url[80];

/* A path that does not exist yet: each test begins with an empty store. */
static void conformance_config(struct store_config *c)
{
	snprintf(directory, sizeof(directory), "/tmp/stentor-lmdb-XXXXXX");
	assert_non_null(mkdtemp(directory));
	snprintf(url, sizeof(url), "lmdb:%s", directory);
	c->url = url;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONFORMANCE_TESTS,
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

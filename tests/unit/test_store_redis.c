/* redis: a real server with its log on disk, under the conformance suite and
 * under what happens to servers. */
#define CONFORMANCE_PERSISTENT 1
#include "tests/unit/store_conformance.h"

#include "tests/unit/redis_fixture.h"

static struct redis_server_process server;
static char url[64];

static void conformance_config(struct store_config *c)
{
	snprintf(url, sizeof(url), "redis://127.0.0.1:%u", server.port);
	c->url = url;
	c->timeout_ms = 2000;
}

static int group_setup(void **state UNUSED)
{
	redis_init(&server);
	server.args[0] = "--appendonly";
	server.args[1] = "yes";
	server.args[2] = "--appendfsync";
	server.args[3] = "always";
	server.args[4] = "--save";
	server.args[5] = "";
	redis_start(&server);
	return 0;
}

static int group_teardown(void **state UNUSED)
{
	redis_fini(&server);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONFORMANCE_TESTS,
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

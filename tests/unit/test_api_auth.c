/* Calls of services that need a token; tests/system/test_y_auth.py has them
 * over HTTP/2 as well. */
#include "common/base/clock.h"
#include "common/io/auth.h"
#include "dispatcher/api/request.h"
#include "tests/unit/api_fixture.h"
#include "tests/unit/token_fixture.h"

#define HEAD  "POST /test.Echo/Say HTTP/1.1\r\nHost: x\r\n"
#define JSON  "Content-Type: application/json\r\n"
#define HELLO JSON "Content-Length: 14\r\n\r\n{\"data\":\"hey\"}"

struct fixture {
	struct api_fixture *f;
	struct auth *auth;
	char file[32], token[TOKEN_TEST_MAX];
};

static void start_auth(struct fixture *t)
{
	struct auth_key key = {(char *)"a", TOKEN_HS256, t->file};
	struct auth_config config = {(char *)"", (char *)"", 0, &key, 1};
	int fd;

	strcpy(t->file, "/tmp/stentor-key-XXXXXX");
	fd = mkstemp(t->file);
	assert_true(fd >= 0);
	assert_int_equal(
		write(fd, TOKEN_TEST_SECRET, strlen(TOKEN_TEST_SECRET)),
		strlen(TOKEN_TEST_SECRET));
	close(fd);
	assert_int_equal(
		auth_start(&t->f->l->loop, &config, NULL, NULL, &t->auth), 0);
}

static int set_up(void **state)
{
	struct fixture *t = xcalloc(1, sizeof(*t));
	void *f;
	char claims[64];

	if (api_setup(&f) != 0)
		return -1;
	t->f = f;
	start_auth(t);
	t->f->services[0].auth = t->auth;
	snprintf(claims, sizeof(claims), "{\"exp\":%llu,\"sub\":\"me\"}",
		 (unsigned long long)clock_wall_ms() / 1000 + 1000);
	token_make(t->token, claims);
	*state = t;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *t = *state;
	void *f = t->f;

	auth_close(t->auth);
	unlink(t->file);
	free(t);
	return api_teardown(&f);
}

/* --- heads ------------------------------------------------------------- */

static void say(struct request *r, struct rpc_table *table, const char *name,
		const char *value)
{
	request_field(r, table, name, strlen(name), value, strlen(value));
}

/* Whether a call of `path` with these headers (NULL: none) may go on. */
static bool may(struct fixture *t, const char *path, const char *first,
		const char *second)
{
	struct rpc_table table;
	struct request r;
	bool may;

	rpc_table_init(&table, t->f->services);
	request_init(&r);
	say(&r, &table, ":method", "POST");
	say(&r, &table, ":path", path);
	if (first != NULL)
		say(&r, &table, "authorization", first);
	if (second != NULL)
		say(&r, &table, "authorization", second);
	may = request_authenticated(&r);
	assert_true(r.token == NULL || may);
	request_fini(&r);
	rpc_table_fini(&table);
	return may;
}

static void test_auth_of_a_head(void **state)
{
	struct fixture *t = *state;
	const char *path = "/test.Echo/Say";
	char good[TOKEN_TEST_MAX + 16], lower[TOKEN_TEST_MAX + 16];

	snprintf(good, sizeof(good), "Bearer %s", t->token);
	snprintf(lower, sizeof(lower), "bEARER   %s", t->token);
	assert_true(may(t, path, good, NULL));
	assert_true(may(t, path, lower, NULL));
	assert_false(may(t, path, NULL, NULL));
	assert_false(may(t, path, "", NULL));
	assert_false(may(t, path, "Bearer", NULL));
	assert_false(may(t, path, "Bearer ", NULL));
	assert_false(may(t, path, t->token, NULL));
	assert_false(may(t, path, "Basic eDp5", NULL));
	/* Which one was meant? */
	assert_false(may(t, path, good, good));
	assert_false(may(t, path, good, "Basic eDp5"));
	assert_false(may(t, path, "Basic eDp5", good));
	/* Where there are no keys nobody looks. */
	assert_true(may(t, "/grpc.health.v1.Health/Check", NULL, NULL));
	assert_true(may(t, "/grpc.health.v1.Health/Check", "Bearer x", NULL));
	assert_true(may(t, "/no.Such/Method", good, NULL));
	assert_int_equal(auth_faults(t->auth, TOKEN_OK), 4);
}

/* --- HTTP/1.1 ---------------------------------------------------------- */

static void ask(struct peer *p, const char *token, const char *rest)
{
	peer_say(p, HEAD);
	if (token != NULL) {
		peer_say(p, "authorization: Bearer ");
		peer_say(p, token);
		peer_say(p, "\r\n");
	}
	peer_say(p, rest);
}

#define REFUSED \
	"{\"code\":\"unauthenticated\",\"message\":\"a token is needed\"}"

static void test_auth_of_calls(void **state)
{
	struct fixture *t = *state;
	struct api_fixture *f = t->f;
	struct peer *p;

	api_begin(f, &api_test_limits);
	p = peer_new(f);
	ask(p, NULL, HELLO);
	loop_until(f->l, peer_count(p, REFUSED) == 1);
	assert_int_equal(peer_count(p, "401 Unauthorized"), 1);
	assert_int_equal(peer_count(p, "WWW-Authenticate: Bearer\r\n"), 1);
	/* The connection goes on, and one refusal says as much as another. */
	ask(p, "no.good.token", HELLO);
	loop_until(f->l, peer_count(p, REFUSED) == 2);
	ask(p, t->token, HELLO);
	loop_until(f->l, peer_count(p, "{\"messageId\":\"hey\"}") == 1);
	assert_int_equal(f->messages, 1);
	assert_true(api_counter(f, "stentor_grpc_server_handled_total{"
				   "grpc_service=\"test.Echo\",grpc_method="
				   "\"Say\",grpc_code=\"UNAUTHENTICATED\"} ") ==
		    2);
	peer_free(p);
	api_end(f, 1000);
}

static void test_auth_before_the_body(void **state)
{
	struct fixture *t = *state;
	struct api_fixture *f = t->f;
	struct peer *p;

	api_begin(f, &api_test_limits);
	p = peer_new(f);
	ask(p, NULL, JSON "Expect: 100-continue\r\nContent-Length: 99\r\n\r\n");
	loop_until(f->l, (peer_read(p), p->ended));
	assert_int_equal(peer_count(p, REFUSED), 1);
	assert_int_equal(peer_count(p, "100 Continue"), 0);
	assert_int_equal(f->messages, 0);
	peer_free(p);
	/* With a token the same is invited. */
	p = peer_new(f);
	ask(p, t->token,
	    JSON "Expect: 100-continue\r\nContent-Length: 14\r\n\r\n");
	loop_until(f->l, peer_count(p, "100 Continue") == 1);
	peer_say(p, "{\"data\":\"hey\"}");
	loop_until(f->l, peer_count(p, "{\"messageId\":\"hey\"}") == 1);
	peer_free(p);
	/* One that says no more is forgotten with its token. */
	p = peer_new(f);
	ask(p, t->token, JSON "Content-Length: 14\r\n\r\n{");
	loop_until(f->l, api_counter(f, "stentor_api_body_bytes ") > 0);
	peer_free(p);
	api_end(f, 1000);
}

static void test_auth_lasts_as_long_as_the_call(void **state)
{
	struct fixture *t = *state;
	struct api_fixture *f = t->f;
	struct auth_revocation r = {.sub = "me"};
	struct peer *p;

	api_begin(f, &api_test_limits);
	p = peer_new(f);
	ask(p, t->token, JSON "Content-Length: 15\r\n\r\n{\"data\":\"hold\"}");
	loop_until(f->l, f->held != NULL);
	assert_string_equal(f->held->token->claims->sub, "me");
	/* Out of the cache, but not out of the call. */
	r.before_s = clock_wall_ms() / 1000;
	r.until_s = r.before_s + 100;
	assert_int_equal(auth_revoke(t->auth, &r), 0);
	assert_false(may(t, "/test.Echo/Say", t->token, NULL));
	assert_true(auth_revoked(t->auth, f->held->token->claims));
	echo_reply(f->held, "late");
	loop_until(f->l, peer_count(p, "{\"messageId\":\"late\"}") == 1);
	ask(p, t->token, HELLO);
	loop_until(f->l, peer_count(p, REFUSED) == 1);
	peer_free(p);
	api_end(f, 1000);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_auth_of_a_head),
		TEST(test_auth_of_calls),
		TEST(test_auth_before_the_body),
		TEST(test_auth_lasts_as_long_as_the_call),
	};

	return cmocka_run_group_tests_name("api_auth", tests, NULL, NULL);
}

#include "common/io/auth.h"

#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "common/io/auth_internal.h"
#include "common/io/gossip.h"
#include "tests/unit/loop_fixture.h"
#include "tests/unit/token_fixture.h"
#include "tests/unit/unit.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define OTHER_SECRET "fedcba9876543210fedcba9876543210"

/* The test secret as a JWKS document. */
#define JWKS(kid)                                    \
	"{\"keys\":[{\"kty\":\"oct\",\"kid\":\"" kid \
	"\",\"alg\":\"HS256\",\"k\":"                \
	"\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}"

struct fixture {
	struct loop_fixture *l;
	char dir[32], secret[64], jwks[64];
	struct auth_key keys[2];
	struct auth_config config;
	struct auth *auth;
	struct auth_revocation told; /* by on_revoked */
	unsigned told_count;
	char token[TOKEN_TEST_MAX];
};

static void write_file(const char *path, const char *text)
{
	char fresh[80];
	FILE *file;

	/* As Kubernetes and careful people do it: a new file takes the name. */
	snprintf(fresh, sizeof(fresh), "%s.new", path);
	file = fopen(fresh, "w");
	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, strlen(text), file), strlen(text));
	fclose(file);
	assert_int_equal(rename(fresh, path), 0);
}

static void on_revoked(void *ctx, const struct auth_revocation *r)
{
	struct fixture *f = ctx;

	f->told = *r;
	f->told_count++;
}

static int start(struct fixture *f)
{
	return auth_start(&f->l->loop, &f->config, on_revoked, f, &f->auth);
}

static int set_up(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	void *loop;

	if (loop_setup(&loop) != 0)
		return -1;
	f->l = loop;
	strcpy(f->dir, "/tmp/stentor-auth-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->secret, sizeof(f->secret), "%s/a", f->dir);
	snprintf(f->jwks, sizeof(f->jwks), "%s/jwks", f->dir);
	write_file(f->secret, TOKEN_TEST_SECRET "\n");
	f->keys[0] = (struct auth_key){"a", TOKEN_HS256, f->secret};
	f->keys[1] = (struct auth_key){.file = f->jwks};
	f->config = (struct auth_config){"", "", 0, f->keys, 1};
	*state = f;
	return start(f);
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	void *loop = f->l;

	auth_close(f->auth);
	unlink(f->secret);
	unlink(f->jwks);
	rmdir(f->dir);
	free(f);
	return loop_teardown(&loop);
}

static uint64_t now_s(void)
{
	return clock_wall_ms() / 1000;
}

static int ban(struct fixture *f, const char *sub, const char *jti,
	       uint64_t before_s, uint64_t until_s)
{
	struct auth_revocation r = {.before_s = before_s, .until_s = until_s};

	strcpy(r.sub, sub);
	strcpy(r.jti, jti);
	return auth_revoke(f->auth, &r);
}

/* A token that ends in `seconds`, with `more` behind its exp. */
static void make(struct fixture *f, unsigned seconds, const char *more)
{
	char claims[512];

	snprintf(claims, sizeof(claims), "{\"exp\":%llu%s}",
		 (unsigned long long)now_s() + seconds, more);
	token_make(f->token, claims);
}

/* Checks and lets go. */
static enum token_fault verdict(struct fixture *f)
{
	struct auth_token *token;
	enum token_fault fault =
		auth_check(f->auth, f->token, strlen(f->token), &token);

	if (fault == TOKEN_OK)
		auth_token_release(f->auth, token);
	return fault;
}

/* --- the cache --------------------------------------------------------- */

static void test_auth_shares_what_was_checked(void **state)
{
	struct fixture *f = *state;
	struct auth_token *a, *b;
	size_t len;

	make(f, 100, ",\"sub\":\"u\",\"subscribe\":[\"a*\"]");
	len = strlen(f->token);
	assert_int_equal(auth_check(f->auth, f->token, len, &a), TOKEN_OK);
	assert_int_equal(auth_check(f->auth, f->token, len, &b), TOKEN_OK);
	assert_ptr_equal(a, b);
	assert_string_equal(a->claims->sub, "u");
	assert_true(token_may_subscribe(a->claims, "ab"));
	assert_int_equal(auth_cached(f->auth), 1);
	assert_int_equal(auth_faults(f->auth, TOKEN_OK), 2);
	auth_token_release(f->auth, a);
	auth_token_release(f->auth, b);
	/* Nearly the same is another. */
	f->token[len - 2] = f->token[len - 2] == 'A' ? 'B' : 'A';
	assert_int_equal(verdict(f), TOKEN_BAD_SIGNATURE);
	assert_int_equal(verdict(f), TOKEN_BAD_SIGNATURE);
	assert_int_equal(auth_faults(f->auth, TOKEN_BAD_SIGNATURE), 2);
	assert_int_equal(auth_cached(f->auth), 1);
}

static void test_auth_counts_faults(void **state)
{
	struct fixture *f = *state;
	char large[TOKEN_BYTES_MAX + 1];
	struct auth_token *token;

	make(f, 0, "");
	assert_int_equal(verdict(f), TOKEN_EXPIRED);
	make(f, 100, ",\"nbf\":99999999999");
	assert_int_equal(verdict(f), TOKEN_NOT_YET);
	memset(large, 'A', sizeof(large));
	assert_int_equal(auth_check(f->auth, large, sizeof(large), &token),
			 TOKEN_MALFORMED);
	assert_int_equal(auth_check(f->auth, "", 0, &token), TOKEN_MALFORMED);
	assert_int_equal(auth_faults(f->auth, TOKEN_EXPIRED), 1);
	assert_int_equal(auth_faults(f->auth, TOKEN_NOT_YET), 1);
	assert_int_equal(auth_faults(f->auth, TOKEN_MALFORMED), 2);
	assert_int_equal(auth_faults(f->auth, TOKEN_OK), 0);
	assert_int_equal(auth_cached(f->auth), 0);
}

static void test_auth_cached_token_ends(void **state)
{
	struct fixture *f = *state;

	uint64_t end_s;

	/* Over before the first look at AUTH_WATCH_MS could forget it; made
	 * anew if the second ended just then. */
	do {
		make(f, 1, "");
		end_s = now_s() + 1; /* not before the token's */
	} while (verdict(f) != TOKEN_OK);
	assert_int_equal(auth_cached(f->auth), 1);
	loop_until(f->l, now_s() >= end_s);
	assert_int_equal(verdict(f), TOKEN_EXPIRED);
	assert_int_equal(auth_cached(f->auth), 0);
	/* Also one for which nobody asks again. */
	make(f, 2, "");
	assert_int_equal(verdict(f), TOKEN_OK);
	loop_until(f->l, (auth_look(f->auth), auth_cached(f->auth) == 0));
}

static void test_auth_cache_is_bounded(void **state)
{
	struct fixture *f = *state;
	struct auth_token *unused, *used, *token;
	char first[512], second[512], more[64];

	make(f, 1000, ",\"sub\":\"unused\"");
	strcpy(first, f->token);
	assert_int_equal(auth_check(f->auth, first, strlen(first), &unused),
			 TOKEN_OK);
	make(f, 1000, ",\"sub\":\"used\"");
	strcpy(second, f->token);
	assert_int_equal(auth_check(f->auth, second, strlen(second), &used),
			 TOKEN_OK);
	for (unsigned i = 0; i < AUTH_CACHE_MAX - 1; i++) {
		assert_int_equal(
			auth_check(f->auth, second, strlen(second), &token),
			TOKEN_OK);
		assert_ptr_equal(token, used);
		auth_token_release(f->auth, token);
		snprintf(more, sizeof(more), ",\"jti\":\"%u\"", i);
		make(f, 1000, more);
		assert_int_equal(verdict(f), TOKEN_OK);
	}
	assert_int_equal(auth_cached(f->auth), AUTH_CACHE_MAX);
	/* The longest unused went, and is good for who holds it. */
	assert_int_equal(used->refs, 2);
	assert_int_equal(unused->refs, 1);
	assert_string_equal(unused->claims->sub, "unused");
	assert_int_equal(auth_check(f->auth, first, strlen(first), &token),
			 TOKEN_OK);
	assert_ptr_not_equal(token, unused);
	auth_token_release(f->auth, token);
	auth_token_release(f->auth, unused);
	auth_token_release(f->auth, used);
	assert_int_equal(auth_cached(f->auth), AUTH_CACHE_MAX);
}

static void test_auth_token_outlives_the_module(void **state)
{
	struct fixture *f = *state;
	struct auth_token *token;
	struct list user;

	make(f, 100, ",\"sub\":\"u\"");
	assert_int_equal(
		auth_check(f->auth, f->token, strlen(f->token), &token),
		TOKEN_OK);
	list_push_back(&token->users, &user);
	assert_int_equal(ban(f, "u", "", now_s(), now_s() + 100), 0);
	auth_close(f->auth);
	assert_true(loop_drain(f->l));
	list_remove(&user);
	assert_string_equal(token->claims->sub, "u");
	auth_token_release(NULL, token);
	f->auth = NULL;
}

/* --- keys -------------------------------------------------------------- */

static void test_auth_keys_are_exchanged(void **state)
{
	struct fixture *f = *state;
	struct auth_token *token;

	make(f, 100, "");
	assert_int_equal(
		auth_check(f->auth, f->token, strlen(f->token), &token),
		TOKEN_OK);
	write_file(f->secret, OTHER_SECRET);
	loop_until(f->l, verdict(f) == TOKEN_BAD_SIGNATURE);
	assert_int_equal(auth_cached(f->auth), 0);
	assert_true(token->claims->exp_s > now_s());
	auth_token_release(f->auth, token);
	write_file(f->secret, TOKEN_TEST_SECRET "\r\n");
	auth_look(f->auth);
	assert_int_equal(verdict(f), TOKEN_OK);
	/* A look that finds all as it was leaves the cache alone. */
	auth_look(f->auth);
	assert_int_equal(auth_cached(f->auth), 1);
}

/* Looks at the files twice, and returns what was logged. */
static void look_twice(struct fixture *f, char *text, size_t size)
{
	FILE *file = tmpfile();
	int saved = dup(STDERR_FILENO);

	dup2(fileno(file), STDERR_FILENO);
	auth_look(f->auth);
	auth_look(f->auth);
	dup2(saved, STDERR_FILENO);
	close(saved);
	rewind(file);
	text[fread(text, 1, size - 1, file)] = '\0';
	fclose(file);
}

static void test_auth_faulty_file_leaves_the_old_keys(void **state)
{
	struct fixture *f = *state;
	char logged[4096], *at;

	make(f, 100, "");
	assert_int_equal(verdict(f), TOKEN_OK);
	write_file(f->secret, "short");
	look_twice(f, logged, sizeof(logged));
	at = strstr(logged, "AUTH-KEYS-FAULTY");
	assert_non_null(at);
	assert_non_null(strstr(logged, "HS256 needs a secret of 32 bytes"));
	assert_null(strstr(at + 1, "AUTH-KEYS-FAULTY"));
	assert_null(strstr(logged, "short\""));
	assert_int_equal(verdict(f), TOKEN_OK);
	assert_int_equal(auth_cached(f->auth), 1);
	unlink(f->secret);
	look_twice(f, logged, sizeof(logged));
	assert_non_null(strstr(logged, "No such file"));
	assert_int_equal(verdict(f), TOKEN_OK);
	write_file(f->secret, OTHER_SECRET);
	auth_look(f->auth);
	assert_int_equal(verdict(f), TOKEN_BAD_SIGNATURE);
}

static void test_auth_reload_takes_another_configuration(void **state)
{
	struct fixture *f = *state;
	char bad[] = "/nowhere/key";
	struct auth_key faulty = {"a", TOKEN_HS256, bad};
	struct auth_config config = f->config;

	make(f, 100, ",\"iss\":\"them\"");
	assert_int_equal(verdict(f), TOKEN_OK);
	/* What can't be used changes nothing. */
	config.issuer = (char[]){"me"};
	config.key = &faulty;
	auth_reload(f->auth, &config);
	assert_int_equal(verdict(f), TOKEN_OK);
	config.key_count = 0;
	auth_reload(f->auth, &config);
	assert_int_equal(verdict(f), TOKEN_OK);
	assert_int_equal(auth_key_count(f->auth), 1);

	write_file(f->jwks, JWKS("o"));
	config.key = f->keys;
	config.key_count = 2;
	auth_reload(f->auth, &config);
	assert_int_equal(auth_key_count(f->auth), 2);
	assert_int_equal(verdict(f), TOKEN_BAD_ISSUER);
	make(f, 100, ",\"iss\":\"me\"");
	assert_int_equal(verdict(f), TOKEN_OK);
	/* Its files are watched too. */
	write_file(f->jwks, JWKS("a"));
	unlink(f->secret);
	auth_look(f->auth); /* one of the two is faulty */
	assert_int_equal(auth_key_count(f->auth), 2);
	config.key = &f->keys[1];
	config.key_count = 1;
	auth_reload(f->auth, &config);
	assert_int_equal(auth_key_count(f->auth), 1);
	assert_int_equal(verdict(f), TOKEN_OK);
	write_file(f->jwks, JWKS("b"));
	auth_look(f->auth);
	assert_int_equal(verdict(f), TOKEN_UNKNOWN_KEY);
}

/* A start that fails is a start that leaves nothing behind. */
static void test_auth_start_needs_usable_keys(void **state)
{
	struct fixture *f = *state;
	struct auth *auth = NULL;
	struct auth_config config = f->config;
	char large[300 * 1024], fault[AUTH_FAULT];

	assert_int_equal(auth_config_check(&config, fault), 0);
	config.key_count = 0;
	assert_int_equal(auth_start(&f->l->loop, &config, NULL, NULL, &auth),
			 ERR_CONFIG);
	assert_int_equal(auth_config_check(&config, fault), ERR_CONFIG);
	assert_string_equal(fault, "--auth jwt needs auth.keys in the "
				   "configuration (--auth none lets everybody "
				   "in)");
	config = f->config;
	f->keys[0].file = f->dir;
	assert_int_equal(auth_start(&f->l->loop, &config, NULL, NULL, &auth),
			 ERR_CONFIG);
	assert_int_equal(mkfifo(f->jwks, 0600), 0);
	f->keys[0].file = f->jwks;
	assert_int_equal(auth_start(&f->l->loop, &config, NULL, NULL, &auth),
			 ERR_CONFIG);
	unlink(f->jwks);
	memset(large, 'x', sizeof(large) - 1);
	large[sizeof(large) - 1] = '\0';
	write_file(f->jwks, large);
	assert_int_equal(auth_start(&f->l->loop, &config, NULL, NULL, &auth),
			 ERR_CONFIG);
	f->keys[0].file = f->secret;
	f->keys[1] = f->keys[0];
	config.key_count = 2; /* the same kid: from a JWKS file it could be */
	assert_int_equal(auth_start(&f->l->loop, &config, NULL, NULL, &auth),
			 ERR_CONFIG);
	assert_null(auth);
}

/* --- revocations ------------------------------------------------------- */

static void test_auth_revokes_by_sub(void **state)
{
	struct fixture *f = *state;
	uint64_t now = now_s();
	char more[128];

	make(f, 100, ",\"sub\":\"u\"");
	assert_int_equal(verdict(f), TOKEN_OK); /* and in the cache */
	assert_int_equal(ban(f, "u", "", now, now + 100), 0);
	assert_int_equal(f->told_count, 1);
	assert_string_equal(f->told.sub, "u");
	assert_int_equal(verdict(f), TOKEN_REVOKED); /* no iat */
	assert_int_equal(verdict(f), TOKEN_REVOKED);
	assert_int_equal(auth_faults(f->auth, TOKEN_REVOKED), 2);
	for (uint64_t iat = now - 1; iat <= now + 1; iat++) {
		snprintf(more, sizeof(more), ",\"sub\":\"u\",\"iat\":%llu",
			 (unsigned long long)iat);
		make(f, 100, more);
		assert_int_equal(verdict(f),
				 iat > now ? TOKEN_OK : TOKEN_REVOKED);
	}
	make(f, 100, ",\"sub\":\"v\"");
	assert_int_equal(verdict(f), TOKEN_OK);
	make(f, 100, ",\"jti\":\"u\"");
	assert_int_equal(verdict(f), TOKEN_OK);
	make(f, 100, "");
	assert_int_equal(verdict(f), TOKEN_OK);
}

static void test_auth_revokes_by_jti(void **state)
{
	struct fixture *f = *state;
	uint64_t now = now_s();
	char more[128];

	assert_int_equal(ban(f, "", "t1", 0, now + 100), 0);
	snprintf(more, sizeof(more), ",\"jti\":\"t1\",\"iat\":%llu",
		 (unsigned long long)now);
	make(f, 100, more);
	assert_int_equal(verdict(f), TOKEN_REVOKED);
	make(f, 100, ",\"jti\":\"t2\",\"sub\":\"t1\"");
	assert_int_equal(verdict(f), TOKEN_OK);
}

static void test_auth_revocations_widen(void **state)
{
	struct fixture *f = *state;
	uint64_t now = now_s();
	const struct auth_revocation *r;

	assert_int_equal(ban(f, "u", "", now - 10, now + 50), 0);
	assert_int_equal(ban(f, "v", "", now, now + 50), 0);
	assert_int_equal(ban(f, "u", "", now - 10, now + 50), ERR_EXISTS);
	assert_int_equal(ban(f, "u", "", now - 20, now + 40), ERR_EXISTS);
	assert_int_equal(f->told_count, 2);
	assert_int_equal(ban(f, "u", "", now - 20, now + 90), 0);
	assert_int_equal(f->told_count, 3);
	assert_int_equal(f->told.before_s, now - 10);
	assert_int_equal(f->told.until_s, now + 90);
	assert_int_equal(auth_revocation_count(f->auth), 2);
	/* The snapshot ends with what was told last. */
	r = auth_revocation_next(f->auth, NULL);
	assert_string_equal(r->sub, "v");
	r = auth_revocation_next(f->auth, r);
	assert_string_equal(r->sub, "u");
	assert_null(auth_revocation_next(f->auth, r));

	assert_int_equal(ban(f, "", "", now, now + 50), ERR_MALFORMED);
	assert_int_equal(ban(f, "u", "t", now, now + 50), ERR_MALFORMED);
	assert_int_equal(ban(f, "w", "", now, now - 1), ERR_STALE);
	assert_int_equal(f->told_count, 3);
}

static void test_auth_revocations_are_forgotten(void **state)
{
	struct fixture *f = *state;
	uint64_t now = now_s();

	assert_int_equal(ban(f, "u", "", now, now + 1), 0);
	assert_int_equal(ban(f, "v", "", now, now + 100), 0);
	make(f, 100, ",\"sub\":\"u\"");
	assert_int_equal(verdict(f), TOKEN_REVOKED);
	loop_until(f->l,
		   (auth_look(f->auth), auth_revocation_count(f->auth) == 1));
	assert_int_equal(verdict(f), TOKEN_OK);
	assert_string_equal(auth_revocation_next(f->auth, NULL)->sub, "v");
}

static void test_auth_revocations_are_bounded(void **state)
{
	struct fixture *f = *state;
	uint64_t now = now_s();
	char id[16];

	for (unsigned i = 0; i < AUTH_REVOCATIONS_MAX; i++) {
		snprintf(id, sizeof(id), "%u", i);
		assert_int_equal(ban(f, i % 2 ? id : "", i % 2 ? "" : id, now,
				     now + 1000),
				 0);
	}
	assert_int_equal(ban(f, "more", "", now, now + 1000), ERR_FULL);
	assert_int_equal(ban(f, "7", "", now, now + 1001), 0);
	assert_int_equal(auth_revocation_count(f->auth), AUTH_REVOCATIONS_MAX);
	assert_int_equal(f->told_count, AUTH_REVOCATIONS_MAX + 1);
}

/* --- who is meant ------------------------------------------------------ */

struct user {
	struct auth_token *token;
	struct list in_token;
};

static void use(struct fixture *f, struct user *u, const char *more)
{
	make(f, 100, more);
	assert_int_equal(
		auth_check(f->auth, f->token, strlen(f->token), &u->token),
		TOKEN_OK);
	list_push_back(&u->token->users, &u->in_token);
}

static void drop(struct fixture *f, struct user *u)
{
	list_remove(&u->in_token);
	auth_token_release(f->auth, u->token);
}

/* The next user of a revoked token; NULL: there is none. */
static struct user *next_meant(struct fixture *f)
{
	struct auth_token *t = auth_next_revoked(f->auth);

	return t != NULL ? container_of(list_pop_front(&t->users), struct user,
					in_token)
			 : NULL;
}

static void test_auth_finds_who_is_meant(void **state)
{
	struct fixture *f = *state;
	struct user a, b, old, new, id, like, none;
	uint64_t now = now_s();
	char more[128];

	make(f, 100, ",\"sub\":\"u\"");
	assert_false(auth_remembers(f->auth, f->token, strlen(f->token)));
	use(f, &a, ",\"sub\":\"u\"");
	assert_true(auth_remembers(f->auth, f->token, strlen(f->token)));
	assert_false(auth_remembers(f->auth, f->token, strlen(f->token) - 1));
	use(f, &b, ",\"sub\":\"u\""); /* the same token */
	snprintf(more, sizeof(more), ",\"sub\":\"u\",\"iat\":%llu",
		 (unsigned long long)now - 5);
	use(f, &old, more);
	snprintf(more, sizeof(more), ",\"sub\":\"u\",\"iat\":%llu",
		 (unsigned long long)now + 5);
	use(f, &new, more);
	use(f, &id, ",\"sub\":\"w\",\"jti\":\"t\"");
	use(f, &like, ",\"sub\":\"t\",\"jti\":\"u\"");
	use(f, &none, "");
	assert_null(next_meant(f));

	assert_int_equal(ban(f, "stranger", "", now, now + 100), 0);
	assert_null(next_meant(f));
	assert_int_equal(ban(f, "u", "", now, now + 100), 0);
	assert_ptr_equal(next_meant(f), &a);
	assert_ptr_equal(next_meant(f), &b);
	assert_ptr_equal(next_meant(f), &old);
	assert_null(next_meant(f));
	assert_int_equal(ban(f, "", "t", now, now + 100), 0);
	assert_ptr_equal(next_meant(f), &id);
	assert_null(next_meant(f));
	/* Who was newer than the first is not newer than the second. */
	assert_int_equal(ban(f, "u", "", now + 5, now + 100), 0);
	assert_ptr_equal(next_meant(f), &new);
	assert_null(next_meant(f));
	assert_int_equal(ban(f, "w", "", now, now + 100), 0);
	assert_null(next_meant(f)); /* it was ended by its jti */

	/* One that goes while it waits to be ended. */
	assert_int_equal(ban(f, "t", "", now, now + 100), 0);
	drop(f, &like);
	assert_null(next_meant(f));
	drop(f, &a);
	drop(f, &b);
	drop(f, &old);
	drop(f, &new);
	drop(f, &id);
	drop(f, &none);
}

#define CROWD	  4000 /* fits into the cache */
#define STRANGERS (AUTH_REVOCATIONS_MAX / 2)

/* CPU time for that many revocations; a third round finds no room. */
static clock_t ban_strangers(struct fixture *f, const char *prefix)
{
	clock_t start = clock();
	uint64_t now = now_s();
	char id[32];

	for (unsigned i = 0; i < STRANGERS; i++) {
		int rc;

		snprintf(id, sizeof(id), "%s%u", prefix, i);
		rc = ban(f, i % 2 ? id : "", i % 2 ? "" : id, now, now + 1000);
		assert_true(rc == 0 || rc == ERR_FULL);
	}
	return clock() - start;
}

/* Each costs what it ends, which is nothing: with a crowd of others there, and
 * also where no more are kept. */
static void test_auth_revocations_of_strangers_are_cheap(void **state)
{
	struct fixture *f = *state;
	struct user *crowd = calloc(CROWD, sizeof(*crowd));
	clock_t alone = ban_strangers(f, "r"), beside, full;
	clock_t slack = CLOCKS_PER_SEC / 100;
	char more[64];

	for (unsigned i = 0; i < CROWD; i++) {
		snprintf(more, sizeof(more), ",\"sub\":\"u%u\",\"jti\":\"j%u\"",
			 i % 7 ? i : 0, i);
		use(f, &crowd[i], more);
	}
	beside = ban_strangers(f, "s");
	full = ban_strangers(f, "t");
	/* It would be 20 and 50 million looks at others. */
	assert_true(beside < 4 * alone + slack);
	assert_true(full < 4 * alone + slack);
	assert_null(next_meant(f));
	for (unsigned i = 0; i < CROWD; i++)
		drop(f, &crowd[i]);
	free(crowd);
}

static void test_auth_news_come_in_slices(void **state)
{
	struct fixture *f = *state;
	uint64_t now = now_s();
	struct frame *news;
	char id[16];

	assert_null(gossip_news(f->auth));
	for (unsigned i = 0; i < GOSSIP_PER_FRAME + 2; i++) {
		snprintf(id, sizeof(id), "%u", i);
		assert_int_equal(ban(f, id, "", now, now + 100), 0);
	}
	/* Known, and told again because it says more: once. */
	assert_int_equal(ban(f, "0", "", now, now + 200), 0);
	news = gossip_news(f->auth);
	assert_non_null(news);
	frame_release(news);
	assert_true(auth_has_news(f->auth));
	assert_string_equal(auth_news_take(f->auth)->sub, "129");
	assert_string_equal(auth_news_take(f->auth)->sub, "0");
	assert_false(auth_has_news(f->auth));
	assert_null(gossip_news(f->auth));
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_auth_shares_what_was_checked),
		CASE(test_auth_counts_faults),
		CASE(test_auth_cached_token_ends),
		CASE(test_auth_cache_is_bounded),
		CASE(test_auth_token_outlives_the_module),
		CASE(test_auth_keys_are_exchanged),
		CASE(test_auth_faulty_file_leaves_the_old_keys),
		CASE(test_auth_reload_takes_another_configuration),
		CASE(test_auth_start_needs_usable_keys),
		CASE(test_auth_revokes_by_sub),
		CASE(test_auth_revokes_by_jti),
		CASE(test_auth_revocations_widen),
		CASE(test_auth_revocations_are_forgotten),
		CASE(test_auth_revocations_are_bounded),
		CASE(test_auth_finds_who_is_meant),
		CASE(test_auth_revocations_of_strangers_are_cheap),
		CASE(test_auth_news_come_in_slices),
	};

	log_init("test", LOG_INFO, false);
	return cmocka_run_group_tests(tests, NULL, NULL);
}

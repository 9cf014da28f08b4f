/* What a configuration file says of channels and tokens: rules and auth. */
#include "tests/unit/config_fixture.h"

/* --- rules ------------------------------------------------------------- */

static void test_config_rules_first_match_decides(void **state)
{
	struct fixture *f = *state;
	const struct rule *rule;

	write_file(f, "rules:\n"
		      "- match: score:final\n"
		      "  priority: critical\n"
		      "  lagging: close\n"
		      "- match: score:*\n"
		      "- {match: 'emoji:*', priority: droppable}\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->rules.count, 4);
	rule = rules_match(&f->rules, "score:final");
	assert_int_equal(rule->priority, PRIORITY_CRITICAL);
	assert_int_equal(rule->lagging, LAGGING_CLOSE);
	rule = rules_match(&f->rules, "score:final2");
	assert_ptr_equal(rule, &f->rules.rule[1]);
	assert_int_equal(rule->priority, PRIORITY_NORMAL);
	assert_int_equal(rule->lagging, LAGGING_DROP_OLDEST);
	assert_ptr_equal(rules_match(&f->rules, "score:"), &f->rules.rule[1]);
	assert_int_equal(rules_match(&f->rules, "emoji:1")->priority,
			 PRIORITY_DROPPABLE);
	rule = rules_match(&f->rules, "score");
	assert_string_equal(rule->pattern, "*");
}

static void test_config_rules_hash_tells_differences(void **state)
{
	static const char *const texts[] = {
		"",
		"rules: [{match: a}]",
		"rules: [{match: b}]",
		"rules: [{match: a}, {match: b}]",
		"rules: [{match: b}, {match: a}]",
		"rules: [{match: a, priority: critical}]",
		"rules: [{match: a, lagging: close}]",
		"rules: [{match: a, lagging: conflate}]",
		"rules: [{match: a, access: public}]",
		"rules: [{match: a, history: {size: 5, ttl: 1m}}]",
		"rules: [{match: a, history: {size: 6, ttl: 1m}}]",
		"rules: [{match: a, history: {size: 5, ttl: 2m}}]",
		"rules: [{match: a, history: {size: 5, ttl: 1m, latest: 1}}]",
	};
	struct fixture *f = *state;
	uint64_t hashes[array_len(texts)];

	for (size_t i = 0; i < array_len(texts); i++) {
		write_file(f, texts[i]);
		assert_int_equal(load(f, "--config", "FILE", NULL), 0);
		hashes[i] = f->rules.hash;
		for (size_t k = 0; k < i; k++)
			assert_true(hashes[i] != hashes[k]);
	}
	/* Defaults spelt out are the same rules. */
	write_file(f, "name: x\nrules: [{match: a, priority: normal, "
		      "lagging: drop_oldest, access: token}]");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_true(f->rules.hash == hashes[1]);
	write_file(f, "rules: [{match: a, lagging: close, "
		      "history: {size: 5, ttl: 60s, latest: 0}}]");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_true(f->rules.hash == hashes[9]);
}

static void test_config_rules_refuse_nonsense(void **state)
{
	struct fixture *f = *state;

	assert_file_refused(f, "rules:\n- match: a\n- priority: normal\n",
			    "rules[2].match: missing");
	assert_file_refused(f, "rules:\n- match: a*b\n",
			    "rules[1].match: \"a*b\" is not a channel name or "
			    "a prefix with '*' behind");
	assert_file_refused(f, "rules:\n- match: a b\n",
			    "rules[1].match: \"a b\" is not a channel name or "
			    "a prefix with '*' behind");
	assert_file_refused(f, "rules:\n- match: a\n  priority: urgent\n",
			    "rules[1].priority: \"urgent\" is not one of "
			    "critical, normal, droppable");
	assert_file_refused(f, "rules:\n- match: a\n  lagging: wait\n",
			    "rules[1].lagging: \"wait\" is not one of "
			    "close, conflate, drop_oldest");
	assert_file_refused(f, "rules:\n- match: a\n  access: all\n",
			    "rules[1].access: \"all\" is not one of "
			    "token, public");
	assert_file_refused(f,
			    "rules:\n- match: a\n- match: b\n"
			    "  history: {bytes: 5}\n",
			    "rules[2].history.bytes: unknown key");
	assert_file_refused(f, "rules:\n- match: a\n  history: 5\n",
			    "rules[1].history: Expecting MAPPING, got event: "
			    "SCALAR (line 3)");
	assert_file_refused(f, "rules:\n- a\n",
			    "rules[1]: Expecting MAPPING, got event: SCALAR "
			    "(line 2)");
	assert_file_refused(f, "rules: 5\n",
			    "rules: Expecting SEQUENCE, got event: SCALAR "
			    "(line 1)");
	f->takes_rules = false;
	assert_file_refused(f, "rules:\n- match: a\n", "rules: unknown key");
	assert_file_refused(f, "auth: {leeway: 1s}\n",
			    "auth: Expecting STRING, got event: MAPPING_START "
			    "(line 1)");
}

/* One rule "a" whose history is `history`. */
static const struct rule *load_history(struct fixture *f, const char *history)
{
	char text[128];

	snprintf(text, sizeof(text), "rules: [{match: a, history: {%s}}]",
		 history);
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	return &f->rules.rule[0];
}

static void test_config_rules_history(void **state)
{
	static const struct {
		const char *text;
		uint64_t ms;
	} durations[] = {
		{"1000ms", 1000},	   {"1s", 1000},
		{"90m", 90 * 60000},	   {"36h", 36 * 3600000ull},
		{"30d", 30 * 86400000ull}, {"2592000000ms", 30 * 86400000ull},
	};
	struct fixture *f = *state;
	const struct rule *rule;

	rule = load_history(f, "size: 200, ttl: 10m, latest: 3");
	assert_true(rule_reliable(rule));
	assert_int_equal(rule->history_size, 200);
	assert_int_equal(rule->history_ttl_ms, 600000);
	assert_int_equal(rule->history_latest, 3);
	assert_int_equal(rule->lagging, LAGGING_CLOSE);
	/* Not its neighbours. */
	assert_false(rule_reliable(rules_match(&f->rules, "b")));

	rule = load_history(f, "size: 100000, ttl: 1s, latest: 1000");
	assert_int_equal(rule->history_size, HISTORY_SIZE_MAX);
	assert_int_equal(rule->history_latest, HISTORY_LATEST_MAX);
	rule = load_history(f, "size: 1, ttl: 1s");
	assert_int_equal(rule->history_latest, 0);
	for (size_t i = 0; i < array_len(durations); i++) {
		char history[64];

		snprintf(history, sizeof(history), "size: 1, ttl: %s",
			 durations[i].text);
		rule = load_history(f, history);
		assert_true(rule->history_ttl_ms == durations[i].ms);
	}
	rule = load_history(f, "size: 0");
	assert_false(rule_reliable(rule));
	assert_int_equal(rule->lagging, LAGGING_DROP_OLDEST);
	rule = load_history(f, "size: 0, ttl: 10m, latest: 0");
	assert_int_equal(rule->history_ttl_ms, 0);
	write_file(f, "rules:\n- match: a\n  lagging: conflate\n"
		      "  history:\n    size: 5\n    ttl: 1h\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->rules.rule[0].lagging, LAGGING_CONFLATE);
	assert_int_equal(f->rules.rule[0].history_size, 5);
}

static void test_config_rules_refuse_nonsense_of_history(void **state)
{
	static const struct {
		const char *history, *message;
	} cases[] = {
		{"", "size: missing"},
		{"ttl: 1m", "size: missing"},
		{"size: 5", "ttl: missing"},
		{"size: x, ttl: 1m", "size: \"x\" is not a number"},
		{"size: -1, ttl: 1m", "size: \"-1\" is not a number"},
		{"size: 5k, ttl: 1m", "size: \"5k\" is not a number"},
		{"size: 100001, ttl: 1m",
		 "size: 100001 is out of range (0 to 100000)"},
		{"size: 99999999999999999999, ttl: 1m",
		 "size: 99999999999999999999 is out of range (0 to 100000)"},
		{"size: 5, ttl: 10", "ttl: \"10\" has no unit (ms, s, m, h or "
				     "d)"},
		{"size: 5, ttl: m", "ttl: \"m\" is not a duration (digits "
				    "with ms, s, m, h or d)"},
		{"size: 5, ttl: 1m30s", "ttl: \"1m30s\" is not a duration "
					"(digits with ms, s, m, h or d)"},
		{"size: 5, ttl: 1w", "ttl: \"1w\" is not a duration (digits "
				     "with ms, s, m, h or d)"},
		{"size: 5, ttl: 999ms",
		 "ttl: 999ms is out of range (1s to 30d)"},
		{"size: 5, ttl: 0s", "ttl: 0s is out of range (1s to 30d)"},
		{"size: 5, ttl: 31d", "ttl: 31d is out of range (1s to 30d)"},
		{"size: 5, ttl: 99999999999999999999d",
		 "ttl: 99999999999999999999d is out of range (1s to 30d)"},
		{"size: 5, ttl: 1m, latest: 6",
		 "latest: 6 is more than size (5)"},
		{"size: 0, latest: 1", "latest: 1 is more than size (0)"},
		{"size: 5000, ttl: 1m, latest: 1001",
		 "latest: 1001 is out of range (0 to 1000)"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < array_len(cases); i++) {
		char yaml[128], message[128];

		snprintf(yaml, sizeof(yaml),
			 "rules: [{match: b}, {match: a, history: {%s}}]",
			 cases[i].history);
		snprintf(message, sizeof(message), "rules[2].history.%s",
			 cases[i].message);
		assert_file_refused(f, yaml, message);
	}
}

static void test_config_rules_are_bounded(void **state)
{
	struct fixture *f = *state;
	char *text = calloc(RULES_MAX, 16), *at = text;

	at += sprintf(at, "rules:\n");
	for (unsigned i = 0; i < RULES_MAX - 1; i++)
		at += sprintf(at, "- match: c%u\n", i);
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->rules.count, RULES_MAX);
	sprintf(at, "- match: x\n");
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), ERR_CONFIG);
	assert_non_null(strstr(f->err, "Excessive entries (1023 max)"));
	free(text);
}

static void test_config_rules_access(void **state)
{
	struct fixture *f = *state;

	write_file(f, "rules:\n"
		      "- {match: 'news:*', access: public}\n"
		      "- {match: 'user:*', access: token}\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(rules_match(&f->rules, "news:1")->access,
			 ACCESS_PUBLIC);
	assert_int_equal(rules_match(&f->rules, "user:1")->access,
			 ACCESS_TOKEN);
	assert_int_equal(rules_match(&f->rules, "score")->access, ACCESS_TOKEN);
}

/* --- auth -------------------------------------------------------------- */

static void test_config_auth(void **state)
{
	struct fixture *f = *state;

	write_file(f, "auth:\n"
		      "  issuer: https://login.example\n"
		      "  audience: stentor\n"
		      "  leeway: 5m\n"
		      "  keys:\n"
		      "    - {kid: a, alg: HS256, file: /run/secrets/a}\n"
		      "    - {kid: b, alg: ES256, file: keys/pub.pem}\n"
		      "    - {jwks: jwks.json}\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_string_equal(f->auth.issuer, "https://login.example");
	assert_string_equal(f->auth.audience, "stentor");
	assert_int_equal(f->auth.leeway_s, 300);
	assert_int_equal(f->auth.key_count, 3);
	assert_string_equal(f->auth.key[0].kid, "a");
	assert_int_equal(f->auth.key[0].alg, TOKEN_HS256);
	assert_string_equal(f->auth.key[0].file, "/run/secrets/a");
	assert_int_equal(f->auth.key[1].alg, TOKEN_ES256);
	assert_string_equal(f->auth.key[1].file, "/tmp/keys/pub.pem");
	assert_null(f->auth.key[2].kid);
	assert_string_equal(f->auth.key[2].file, "/tmp/jwks.json");

	write_file(f, "auth: {keys: [{kid: a, alg: PS256, file: x}]}\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_string_equal(f->auth.issuer, "");
	assert_string_equal(f->auth.audience, "");
	assert_int_equal(f->auth.leeway_s, AUTH_LEEWAY_S);
	write_file(f, "auth: {leeway: 0s}\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->auth.leeway_s, 0);
	assert_int_equal(f->auth.key_count, 0);
	assert_int_equal(load(f, NULL), 0);
	assert_string_equal(f->auth.issuer, "");
	assert_int_equal(f->auth.key_count, 0);
	/* A text is the option of the same name. */
	assert_int_equal(f->s.auth, 0);
	write_file(f, "auth: none\n");
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->s.auth, 1);
	assert_string_equal(f->auth.issuer, "");
	write_file(f, "auth: {issuer: x}\n");
	assert_int_equal(load(f, "--config", "FILE", "--auth", "none", NULL),
			 0);
	assert_int_equal(f->s.auth, 1);
	assert_string_equal(f->auth.issuer, "x");
}

static void test_config_auth_refuses_nonsense(void **state)
{
	static const struct {
		const char *auth, *message;
	} cases[] = {
		{"isuer: x", "auth.isuer: unknown key"},
		{"issuer: ", "auth.issuer: empty"},
		{"audience: ''", "auth.audience: empty"},
		{"leeway: 30",
		 "auth.leeway: \"30\" has no unit (ms, s, m, h or "
		 "d)"},
		{"leeway: soon", "auth.leeway: \"soon\" is not a duration "
				 "(digits with ms, s, m, h or d)"},
		{"leeway: 301s",
		 "auth.leeway: 301s is out of range (0s to 5m)"},
		{"keys: [{alg: HS256, file: x}]", "auth.keys[1].kid: missing"},
		{"keys: [{kid: '', alg: HS256, file: x}]",
		 "auth.keys[1].kid: missing"},
		{"keys: [{kid: a, file: x}]", "auth.keys[1].alg: missing"},
		{"keys: [{kid: a, alg: RS256}]", "auth.keys[1].file: missing"},
		{"keys: [{kid: a, alg: none, file: x}]",
		 "auth.keys[1].alg: \"none\" is not one of HS256, RS256, "
		 "PS256, "
		 "ES256"},
		{"keys: [{kid: a, alg: hs256, file: x}]",
		 "auth.keys[1].alg: \"hs256\" is not one of HS256, RS256, "
		 "PS256, ES256"},
		{"keys: [{kid: a, alg: HS256, file: x}, {jwks: y}, "
		 "{kid: a, alg: RS256, file: z}]",
		 "auth.keys[3].kid: \"a\" is there already"},
		{"keys: [{jwks: y, kid: a}]",
		 "auth.keys[1].jwks: stands alone: its keys have kid and alg "
		 "of their own"},
		{"keys: [{jwks: ''}]", "auth.keys[1].jwks: missing"},
		{"keys: [{secret: y}]", "auth.keys[1].secret: unknown key"},
	};
	struct fixture *f = *state;

	for (size_t i = 0; i < array_len(cases); i++) {
		char yaml[256];

		snprintf(yaml, sizeof(yaml), "auth: {%s}", cases[i].auth);
		assert_file_refused(f, yaml, cases[i].message);
		assert_int_equal(f->auth.key_count, 0);
	}
	assert_file_refused(f, "auth: some\n",
			    "auth: \"some\" is not one of jwt, none");
	assert_file_refused(f, "auth: {issuer: x}\nauth: none\n",
			    "auth: set twice");
	assert_file_refused(f, "auth: none\nauth: {issuer: x}\n",
			    "auth: set twice");
	assert_file_refused(f, "auth: [a]\n",
			    "auth: Expecting MAPPING, got event: "
			    "SEQUENCE_START (line 1)");
	/* What was well is freed when the rest is not. */
	assert_file_refused(f, "auth: {issuer: x}\nrules: [{match: ' '}]\n",
			    "rules[1].match: \" \" is not a channel name or a "
			    "prefix with '*' behind");
	assert_null(f->auth.issuer);
}

static void test_config_auth_is_bounded(void **state)
{
	struct fixture *f = *state;
	char text[AUTH_KEYS_MAX * 16 + 64], *at = text;
	char kid[AUTH_KID_MAX + 2];

	at += sprintf(at, "auth:\n  keys:\n");
	for (unsigned i = 0; i < AUTH_KEYS_MAX; i++)
		at += sprintf(at, "  - jwks: f%u\n", i);
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
	assert_int_equal(f->auth.key_count, AUTH_KEYS_MAX);
	sprintf(at, "  - jwks: x\n");
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), ERR_CONFIG);
	assert_non_null(strstr(f->err, "Excessive entries (64 max)"));

	memset(kid, 'k', sizeof(kid));
	kid[AUTH_KID_MAX + 1] = '\0';
	sprintf(text, "auth: {keys: [{kid: %s, alg: HS256, file: x}]}", kid);
	assert_file_refused(f, text, "auth.keys[1].kid: longer than 128 bytes");
	sprintf(text, "auth: {keys: [{kid: %s, alg: HS256, file: x}]}",
		kid + 1);
	write_file(f, text);
	assert_int_equal(load(f, "--config", "FILE", NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_config_rules_first_match_decides),
		CASE(test_config_rules_hash_tells_differences),
		CASE(test_config_rules_refuse_nonsense),
		CASE(test_config_rules_history),
		CASE(test_config_rules_refuse_nonsense_of_history),
		CASE(test_config_rules_are_bounded),
		CASE(test_config_rules_access),
		CASE(test_config_auth),
		CASE(test_config_auth_refuses_nonsense),
		CASE(test_config_auth_is_bounded),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

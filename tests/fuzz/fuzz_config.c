/* Fuzz target: the YAML file of both programs. What is accepted must be what
 * the rest of a program relies on: a rule for each channel, keys with a file,
 * numbers within their bounds; and read again it is the same. */
#include "common/base/config.h"
#include "connnode/options.h"
#include "dispatcher/options.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static void check_rules(const struct rules *rules)
{
	check(rules->count > 0 && rules->count <= RULES_MAX);
	check(strcmp(rules->rule[rules->count - 1].pattern, "*") == 0);
	for (size_t i = 0; i < rules->count; i++) {
		const struct rule *rule = &rules->rule[i];

		check(rule->pattern[0] != '\0');
		check(rule->history_size <= HISTORY_SIZE_MAX);
		check(rule->history_latest <= rule->history_size);
		check(rule_reliable(rule) == (rule->history_ttl_ms > 0));
	}
	rules_match(rules, "score:42");
}

static void check_auth(const struct auth_config *auth)
{
	check(auth->issuer != NULL && auth->audience != NULL);
	check(auth->leeway_s <= AUTH_LEEWAY_MAX_MS / 1000);
	check(auth->key_count <= AUTH_KEYS_MAX);
	for (size_t i = 0; i < auth->key_count; i++) {
		const struct auth_key *key = &auth->key[i];

		check(key->file[0] == '/'); /* beside ours, which is so */
		check(key->kid == NULL || (key->kid[0] != '\0' &&
					   strlen(key->kid) <= AUTH_KID_MAX));
	}
}

/* Returns the rules' hash, 0 for what is refused. What is said to people goes
 * to `sink`, out of libFuzzer's way. */
static uint64_t load(const struct program *program, void *options, char *path,
		     FILE *sink)
{
	char name[] = "fuzz", flag[] = "--config";
	char *argv[] = {name, flag, path, NULL};
	struct auth_config auth = {0};
	struct rules rules = {0};
	FILE *saved = stderr;
	uint64_t hash = 0;
	int rc;

	stderr = sink;
	rc = config_load(program, options, &rules, &auth, 3, argv);
	stderr = saved;
	if (rc == 0) {
		check_rules(&rules);
		check_auth(&auth);
		hash = rules.hash;
		config_print(program, options, sink);
	} else {
		check(rules.count == 0 && auth.key == NULL);
	}
	config_free(program, options);
	rules_free(&rules);
	auth_config_free(&auth);
	return hash;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static FILE *sink;
	struct dispatcher_options dispatcher = {0};
	struct connnode_options node = {0};
	int fd = memfd_create("config", MFD_CLOEXEC);
	char path[64];
	uint64_t hash;

	if (sink == NULL)
		sink = fopen("/dev/null", "we");
	check(fd >= 0 && sink != NULL);
	check(write(fd, data, size) == (ssize_t)size);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	hash = load(&dispatcher_program, &dispatcher, path, sink);
	check(load(&dispatcher_program, &dispatcher, path, sink) == hash);
	load(&connnode_program, &node, path, sink);
	close(fd);
	return 0;
}

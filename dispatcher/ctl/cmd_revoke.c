/* stentorctl revoke: tokens that are refused from now on. */
#include "common/base/config.h"
#include "dispatcher/ctl/client.h"
#include "dispatcher/ctl/commands.h"
#include "dispatcher/ctl/print.h"

#include <inttypes.h>
#include <stdio.h>

#define TTL_MIN_MS 1000u

enum { OPTION_SUB, OPTION_JTI, OPTION_TTL };

const struct ctl_option ctl_revoke_options[] = {
	[OPTION_SUB] = {"sub", "SUBJECT",
			"whose tokens: those with this `sub`, issued up to "
			"now"},
	[OPTION_JTI] = {"jti", "ID", "which token: the one with this `jti`"},
	[OPTION_TTL] = {"ttl", "TIME",
			"how long such tokens may still be valid (default "
			"24h, at most 30d)"},
	{NULL, NULL, NULL},
};

static void revoke_print_answer(const json_t *response)
{
	uint64_t workers = ctl_json_number(response, "workers");

	printf("revoked; %" PRIu64 " worker%s told\n", workers,
	       workers == 1 ? " is" : "s are");
}

int ctl_revoke(const struct ctl_args *args)
{
	const char *sub = args->option[OPTION_SUB];
	const char *jti = args->option[OPTION_JTI];
	const char *ttl = args->option[OPTION_TTL];
	uint64_t ms = 0;
	json_t *request;

	if (!sub == !jti) {
		ctl_complain("revoke needs one of --sub and --jti");
		return CTL_USAGE;
	}
	if (ttl && (config_duration(ttl, &ms) != 0 || ms < TTL_MIN_MS)) {
		ctl_complain("--ttl is a time from 1s to 30d (digits with s, "
			     "m, h or d), not '%s'",
			     ttl);
		return CTL_USAGE;
	}
	request = json_pack("{s:s*, s:s*, s:I}", "sub", sub, "jti", jti,
			    "ttlSeconds", (json_int_t)(ms / 1000));
	if (!request) {
		ctl_complain("--sub and --jti must be UTF-8");
		return CTL_USAGE;
	}
	return ctl_call_and_print(args, "stentor.v1.ClusterService/RevokeToken",
				  request, revoke_print_answer);
}

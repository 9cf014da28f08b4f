/* The `auth:` section: whose tokens count, and where the keys are. The files
 * themselves are read by who uses the keys, again and again. */
#include "common/base/config_internal.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

const char *const token_alg_names[] = {"HS256", "RS256", "PS256", "ES256",
				       NULL};

struct place {
	const struct program *program;
	const char *source;
	size_t number; /* of the key, from 1; 0: none */
};

static int refuse(const struct place *p, const char *field, const char *format,
		  ...) PRINTF(3, 4);

/* "FILE: auth.keys[2].alg: ..." */
static int refuse(const struct place *p, const char *field, const char *format,
		  ...)
{
	char text[512], key[32] = "";
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (p->number > 0)
		snprintf(key, sizeof(key), ".keys[%zu]", p->number);
	return config_error(p->program, "%s: auth%s%s: %s", p->source, key,
			    field, text);
}

/* A path as it stands, or one beside the configuration. */
static char *beside(const char *source, const char *file)
{
	const char *slash = strrchr(source, '/');
	size_t dir = slash != NULL ? (size_t)(slash - source) + 1 : 0;
	size_t size = dir + strlen(file) + 1;
	char *path;

	if (file[0] == '/')
		return xstrdup(file);
	path = xmalloc(size);
	snprintf(path, size, "%.*s%s", (int)dir, source, file);
	return path;
}

/* --- keys -------------------------------------------------------------- */

static int build_jwks(const struct place *p, const struct key_row *row,
		      struct auth_key *key)
{
	if (row->kid || row->alg || row->file)
		return refuse(p, ".jwks",
			      "stands alone: its keys have kid and "
			      "alg of their own");
	if (!*row->jwks)
		return refuse(p, ".jwks", "missing");
	key->file = beside(p->source, row->jwks);
	return 0;
}

static int build_key(const struct place *p, const struct key_row *row,
		     struct auth_key *key)
{
	char list[64];
	int alg;

	if (row->jwks)
		return build_jwks(p, row, key);
	if (!row->kid || !*row->kid)
		return refuse(p, ".kid", "missing");
	if (strlen(row->kid) > AUTH_KID_MAX)
		return refuse(p, ".kid", "longer than %u bytes", AUTH_KID_MAX);
	if (!row->alg)
		return refuse(p, ".alg", "missing");
	if (!row->file || !*row->file)
		return refuse(p, ".file", "missing");
	alg = config_choice(token_alg_names, row->alg);
	if (alg < 0) {
		config_choices(token_alg_names, ", ", list, sizeof(list));
		return refuse(p, ".alg", "\"%s\" is not one of %s", row->alg,
			      list);
	}
	key->alg = (enum token_alg)alg;
	key->kid = xstrdup(row->kid);
	key->file = beside(p->source, row->file);
	return 0;
}

static bool kid_known(const struct auth_config *auth, const char *kid)
{
	for (size_t i = 0; i < auth->key_count; i++)
		if (auth->key[i].kid && strcmp(auth->key[i].kid, kid) == 0)
			return true;
	return false;
}

static int build_keys(const struct place *section, const struct auth_row *row,
		      struct auth_config *auth)
{
	auth->key = xcalloc(row->key_count, sizeof(*auth->key));
	for (unsigned i = 0; i < row->key_count; i++) {
		struct place p = {section->program, section->source, i + 1};
		const char *kid = row->keys[i].kid;

		if (kid && kid_known(auth, kid))
			return refuse(&p, ".kid", "\"%s\" is there already",
				      kid);
		if (build_key(&p, &row->keys[i], &auth->key[i]) < 0)
			return ERR_CONFIG;
		auth->key_count++;
	}
	return 0;
}

/* --- the section ------------------------------------------------------- */

/* One that is named and left empty would quietly let everybody's tokens in. */
static int build_text(const struct place *p, const char *field,
		      const char *text, char **out)
{
	if (text && !*text)
		return refuse(p, field, "empty");
	*out = xstrdup(text ? text : "");
	return 0;
}

static int build(const struct place *p, const struct auth_row *row,
		 struct auth_config *auth)
{
	uint64_t leeway_ms = AUTH_LEEWAY_S * 1000;
	char fault[CONFIG_FAULT];

	if (build_text(p, ".issuer", row->issuer, &auth->issuer) < 0 ||
	    build_text(p, ".audience", row->audience, &auth->audience) < 0)
		return ERR_CONFIG;
	if (row->leeway &&
	    config_duration_within(row->leeway, 0, AUTH_LEEWAY_MAX_MS,
				   "0s to 5m", &leeway_ms, fault) < 0)
		return refuse(p, ".leeway", "%s", fault);
	auth->leeway_s = (leeway_ms + 999) / 1000;
	return build_keys(p, row, auth);
}

int auth_build(const struct program *program, const char *source,
	       const struct auth_row *row, struct auth_config *auth)
{
	static const struct auth_row none;
	struct place place = {program, source ? source : "", 0};
	struct auth_config built = {0};

	if (build(&place, row ? row : &none, &built) < 0) {
		auth_config_free(&built);
		return ERR_CONFIG;
	}
	*auth = built;
	return 0;
}

void auth_config_free(struct auth_config *auth)
{
	for (size_t i = 0; i < auth->key_count; i++) {
		free(auth->key[i].kid);
		free(auth->key[i].file);
	}
	free(auth->key);
	free(auth->issuer);
	free(auth->audience);
	*auth = (struct auth_config){0};
}

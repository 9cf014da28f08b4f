/* The YAML file, read by libcyaml with a schema made from the option table:
 * each option is a text scalar, `rules` a sequence of mappings, `auth` a
 * mapping (or the scalar of the option --auth). What libcyaml
 * says about a wrong file goes to its log function, from which the one message
 * for people is made: the first line is what, the backtrace is where. */
#include "common/base/config_internal.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <cyaml/cyaml.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define FILE_BYTES_MAX (1u << 20)

/* --- what went wrong, and where ---------------------------------------- */

struct complaint {
	char what[256];
	char path[256]; /* rules[2].priority */
	unsigned line;	/* 0: not known */
};

/* Backtrace lines come innermost first. */
static void add_place(struct complaint *c, const char *text)
{
	char inner[sizeof(c->path)], name[64];
	unsigned line, entry;

	memcpy(inner, c->path, sizeof(inner));
	if (sscanf(text, " in mapping field '%63[^']' (line: %u", name,
		   &line) == 2)
		snprintf(c->path, sizeof(c->path), "%s%s%.180s", name,
			 *inner && *inner != '[' ? "." : "", inner);
	else if (sscanf(text, " in sequence entry '%u' (line: %u", &entry,
			&line) == 2)
		snprintf(c->path, sizeof(c->path), "[%u]%s%.180s", entry,
			 *inner && *inner != '[' ? "." : "", inner);
	else
		return;
	if (c->line == 0)
		c->line = line;
}

static void on_cyaml_log(cyaml_log_t level, void *ctx, const char *format,
			 va_list args)
{
	struct complaint *c = ctx;
	char text[256], *start = text;

	(void)level;
	vsnprintf(text, sizeof(text), format, args);
	text[strcspn(text, "\n")] = '\0';
	if (strncmp(text, "Load: ", 6) == 0)
		start += 6;
	if (strncmp(start, "  in ", 5) == 0)
		add_place(c, start);
	else if (strncmp(start, "Backtrace", 9) != 0 && !c->what[0])
		memcpy(c->what, start, strlen(start) + 1);
}

static int complain(const struct program *program, const char *path,
		    struct complaint *c, cyaml_err_t err)
{
	char where[320] = "", line[32] = "";
	char key[64];

	if (!c->what[0])
		snprintf(c->what, sizeof(c->what), "%s", cyaml_strerror(err));
	/* With these two, the line libcyaml has is not the line at fault. */
	if (sscanf(c->what, "Unexpected key: %63[^\n]", key) == 1)
		return config_error(program, "%s: %s%s%s: unknown key", path,
				    c->path, *c->path ? "." : "", key);
	if (sscanf(c->what, "Mapping field already seen: %63[^\n]", key) == 1)
		return config_error(program, "%s: %s: set twice", path,
				    c->path);
	if (c->path[0])
		snprintf(where, sizeof(where), "%s: ", c->path);
	if (c->line > 0)
		snprintf(line, sizeof(line), " (line %u)", c->line);
	return config_error(program, "%s: %s%s%s", path, where, c->what, line);
}

/* --- schema ------------------------------------------------------------ */

#define TEXT_SCHEMA                                                \
	{                                                          \
		.type = CYAML_STRING,                              \
		.flags = CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, \
		.data_size = sizeof(char), .string = {             \
			.max = 65536                               \
		}                                                  \
	}

static const cyaml_schema_field_t history_fields[] = {
	{.key = "size",
	 .data_offset = offsetof(struct history_row, size),
	 .value = TEXT_SCHEMA},
	{.key = "ttl",
	 .data_offset = offsetof(struct history_row, ttl),
	 .value = TEXT_SCHEMA},
	{.key = "latest",
	 .data_offset = offsetof(struct history_row, latest),
	 .value = TEXT_SCHEMA},
	CYAML_FIELD_END,
};

static const cyaml_schema_field_t row_fields[] = {
	{.key = "match",
	 .data_offset = offsetof(struct rule_row, match),
	 .value = TEXT_SCHEMA},
	{.key = "priority",
	 .data_offset = offsetof(struct rule_row, priority),
	 .value = TEXT_SCHEMA},
	{.key = "lagging",
	 .data_offset = offsetof(struct rule_row, lagging),
	 .value = TEXT_SCHEMA},
	{.key = "access",
	 .data_offset = offsetof(struct rule_row, access),
	 .value = TEXT_SCHEMA},
	CYAML_FIELD_MAPPING_PTR("history",
				CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
				struct rule_row, history, history_fields),
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t row_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct rule_row, row_fields),
};

static const cyaml_schema_field_t rules_field = {
	.key = "rules",
	.data_offset = offsetof(struct config_file, rows),
	.count_offset = offsetof(struct config_file, row_count),
	.count_size = sizeof(unsigned),
	.value = {.type = CYAML_SEQUENCE,
		  .flags = CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
		  .data_size = sizeof(struct rule_row),
		  /* one is kept for the default */
		  .sequence = {.entry = &row_schema, .max = RULES_MAX - 1}},
};

static const cyaml_schema_field_t key_fields[] = {
	{.key = "kid",
	 .data_offset = offsetof(struct key_row, kid),
	 .value = TEXT_SCHEMA},
	{.key = "alg",
	 .data_offset = offsetof(struct key_row, alg),
	 .value = TEXT_SCHEMA},
	{.key = "file",
	 .data_offset = offsetof(struct key_row, file),
	 .value = TEXT_SCHEMA},
	{.key = "jwks",
	 .data_offset = offsetof(struct key_row, jwks),
	 .value = TEXT_SCHEMA},
	CYAML_FIELD_END,
};

static const cyaml_schema_value_t key_schema = {
	CYAML_VALUE_MAPPING(CYAML_FLAG_DEFAULT, struct key_row, key_fields),
};

static const cyaml_schema_field_t auth_fields[] = {
	{.key = "issuer",
	 .data_offset = offsetof(struct auth_row, issuer),
	 .value = TEXT_SCHEMA},
	{.key = "audience",
	 .data_offset = offsetof(struct auth_row, audience),
	 .value = TEXT_SCHEMA},
	{.key = "leeway",
	 .data_offset = offsetof(struct auth_row, leeway),
	 .value = TEXT_SCHEMA},
	{.key = "keys",
	 .data_offset = offsetof(struct auth_row, keys),
	 .count_offset = offsetof(struct auth_row, key_count),
	 .count_size = sizeof(unsigned),
	 .value = {.type = CYAML_SEQUENCE,
		   .flags = CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL,
		   .data_size = sizeof(struct key_row),
		   .sequence = {.entry = &key_schema, .max = AUTH_KEYS_MAX}}},
	CYAML_FIELD_END,
};

static const cyaml_schema_field_t auth_field = CYAML_FIELD_MAPPING_PTR(
	"auth", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, struct config_file,
	auth, auth_fields);

struct schema {
	cyaml_schema_value_t top;
	cyaml_schema_field_t *fields;
	char (*keys)[CONFIG_NAME_MAX];
};

/* Sections stand first: libcyaml takes the first field of a name, so `auth` is
 * the section where it is asked for, though an option has that name too. */
static void schema_init(struct schema *s, const struct program *program,
			unsigned sections)
{
	size_t count = 0, at = 0, size;

	while (program->options[count].name)
		count++;
	s->fields = xcalloc(count + 3, sizeof(*s->fields));
	s->keys = xcalloc(count, sizeof(*s->keys));
	if (sections & CONFIG_RULES)
		s->fields[at++] = rules_field;
	if (sections & CONFIG_AUTH)
		s->fields[at++] = auth_field;
	for (size_t i = 0; i < count; i++) {
		size = offsetof(struct config_file, values) +
		       i * sizeof(char *);
		config_yaml_key(&program->options[i], s->keys[i]);
		s->fields[at++] = (cyaml_schema_field_t){
			.key = s->keys[i],
			.data_offset = (uint32_t)size,
			.value = TEXT_SCHEMA,
		};
	}
	size = sizeof(struct config_file) + count * sizeof(char *);
	s->top = (cyaml_schema_value_t){
		.type = CYAML_MAPPING,
		.flags = CYAML_FLAG_POINTER,
		.data_size = (uint32_t)size,
		.mapping = {.fields = s->fields},
	};
}

static void schema_fini(struct schema *s)
{
	free(s->keys);
	free(s->fields);
}

/* --- reading ----------------------------------------------------------- */

static int read_all(const struct program *program, const char *path,
		    uint8_t *bytes, size_t *len)
{
	FILE *file = fopen(path, "re");

	if (!file)
		return config_error(program, "%s: %s", path, strerror(errno));
	*len = fread(bytes, 1, FILE_BYTES_MAX + 1, file);
	if (ferror(file)) {
		int error = errno;

		fclose(file);
		return config_error(program, "%s: %s", path, strerror(error));
	}
	fclose(file);
	if (*len > FILE_BYTES_MAX)
		return config_error(program, "%s: larger than %u bytes", path,
				    FILE_BYTES_MAX);
	return 0;
}

/* No aliases: what a file needs of memory stays in proportion to its size. */
static const cyaml_config_t cyaml_base = {
	.log_fn = on_cyaml_log,
	.mem_fn = cyaml_mem,
	.log_level = CYAML_LOG_WARNING,
	.flags = CYAML_CFG_NO_ALIAS,
};

static cyaml_err_t load(const struct program *program, const uint8_t *bytes,
			size_t len, unsigned sections, struct complaint *c,
			struct config_file **file)
{
	cyaml_config_t config = cyaml_base;
	struct schema schema;
	void *data = NULL;
	cyaml_err_t err;

	*c = (struct complaint){0};
	config.log_ctx = c;
	schema_init(&schema, program, sections);
	err = cyaml_load_data(bytes, len, &config, &schema.top, &data, NULL);
	/* A warning (a second document that is ignored) is an error here. */
	if (err == CYAML_OK && c->what[0]) {
		cyaml_free(&config, &schema.top, data, 0);
		data = NULL;
		err = CYAML_ERR_UNEXPECTED_EVENT;
	}
	if (err == CYAML_OK && !data) /* nothing but comments */
		data = xcalloc(1, schema.top.data_size);
	schema_fini(&schema);
	*file = data;
	return err;
}

/* `auth: none` is the option of that name. */
static bool auth_is_option(const struct complaint *c)
{
	return strcmp(c->path, "auth") == 0 &&
	       strcmp(c->what, "Expecting MAPPING, got event: SCALAR") == 0;
}

static int parse(const struct program *program, const char *path,
		 const uint8_t *bytes, size_t len, unsigned sections,
		 struct config_file **file)
{
	struct complaint c;
	cyaml_err_t err = load(program, bytes, len, sections, &c, file);

	if (err != CYAML_OK && auth_is_option(&c))
		err = load(program, bytes, len, sections & ~CONFIG_AUTH, &c,
			   file);
	return err == CYAML_OK ? 0 : complain(program, path, &c, err);
}

int config_file_read(const struct program *program, const char *path,
		     unsigned sections, struct config_file **file)
{
	uint8_t *bytes = xmalloc(FILE_BYTES_MAX + 1);
	size_t len = 0;
	int err = read_all(program, path, bytes, &len);

	if (err == 0)
		err = parse(program, path, bytes, len, sections, file);
	free(bytes);
	return err;
}

void config_file_free(const struct program *program, struct config_file *file)
{
	struct schema schema;

	schema_init(&schema, program, CONFIG_SECTIONS);
	cyaml_free(&cyaml_base, &schema.top, file, 0);
	schema_fini(&schema);
}

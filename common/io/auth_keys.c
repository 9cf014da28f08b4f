/* Key files: reading them, and seeing that they are others than before. */
#include "common/io/auth_internal.h"

#include "common/base/err.h"
#include "common/base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_BYTES_MAX (256u * 1024)

static int refuse(char fault[AUTH_FAULT], const char *format, ...) PRINTF(2, 3);
static int refuse(char fault[AUTH_FAULT], const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(fault, AUTH_FAULT, format, args);
	va_end(args);
	return ERR_CONFIG;
}

bool auth_keys_changed(const struct auth_config *config,
		       const struct file_stamp *stamps)
{
	for (size_t i = 0; i < config->key_count; i++) {
		struct file_stamp now = file_stamp(config->key[i].file);

		if (!file_stamp_equal(&now, &stamps[i]))
			return true;
	}
	return false;
}

/* --- reading ----------------------------------------------------------- */

/* `bytes` has room for FILE_BYTES_MAX + 1. */
static int read_fd(int fd, uint8_t *bytes, size_t *len)
{
	*len = 0;
	while (*len <= FILE_BYTES_MAX) {
		ssize_t n = read(fd, bytes + *len, FILE_BYTES_MAX + 1 - *len);

		if (n == 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
		*len += n > 0 ? (size_t)n : 0;
	}
	return -EFBIG;
}

/* Never waits for the other end of a pipe. */
static int read_file(const char *path, uint8_t *bytes, size_t *len,
		     char fault[AUTH_FAULT])
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	struct stat st;
	int rc;

	if (fd < 0)
		return refuse(fault, "%.500s: %s", path, strerror(errno));
	if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
		rc = refuse(fault, "%.500s: not a file", path);
	else {
		rc = read_fd(fd, bytes, len);
		if (rc == -EFBIG)
			rc = refuse(fault, "%.500s: larger than %u bytes", path,
				    FILE_BYTES_MAX);
		else if (rc < 0)
			rc = refuse(fault, "%.500s: %s", path, strerror(-rc));
	}
	close(fd);
	return rc;
}

/* The newline that an editor, or echo, leaves behind a secret. */
static size_t without_newline(const uint8_t *bytes, size_t len)
{
	if (len > 0 && bytes[len - 1] == '\n')
		len--;
	if (len > 0 && bytes[len - 1] == '\r')
		len--;
	return len;
}

static int add(struct token_keys *keys, const struct auth_key *key,
	       uint8_t *bytes, char fault[AUTH_FAULT])
{
	char why[TOKEN_TEXT] = "";
	size_t len = 0;
	int rc = read_file(key->file, bytes, &len, fault);

	if (rc != 0)
		return rc;
	if (key->kid == NULL)
		rc = token_keys_add_jwks(keys, bytes, len, why);
	else if (key->alg == TOKEN_HS256)
		rc = token_keys_add(keys, key->kid, key->alg, bytes,
				    without_newline(bytes, len), why);
	else
		rc = token_keys_add(keys, key->kid, key->alg, bytes, len, why);
	return rc == 0 ? 0 : refuse(fault, "%.500s: %s", key->file, why);
}

int auth_keys_read(const struct auth_config *config, struct file_stamp *stamps,
		   struct token_keys **out, char fault[AUTH_FAULT])
{
	struct token_keys *keys;
	uint8_t *bytes;
	int rc = 0;

	/* Looked at before it is read: what changes meanwhile is seen later. */
	for (size_t i = 0; i < config->key_count; i++)
		stamps[i] = file_stamp(config->key[i].file);
	if (config->key_count == 0)
		return refuse(fault, "--auth jwt needs auth.keys in the "
				     "configuration (--auth none lets "
				     "everybody in)");
	bytes = xmalloc(FILE_BYTES_MAX + 1);
	keys = token_keys_new(config->issuer, config->audience,
			      config->leeway_s);
	for (size_t i = 0; rc == 0 && i < config->key_count; i++)
		rc = add(keys, &config->key[i], bytes, fault);
	explicit_bzero(bytes, FILE_BYTES_MAX + 1);
	free(bytes);
	if (rc == 0)
		*out = keys;
	else
		token_keys_free(keys);
	return rc;
}

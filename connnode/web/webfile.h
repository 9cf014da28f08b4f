/* webfile.h - the files of connnode/web, in the program (see the Makefile). */
#ifndef STENTOR_CONNNODE_WEB_WEBFILE_H
#define STENTOR_CONNNODE_WEB_WEBFILE_H

#include <stddef.h>
#include <stdint.h>

#define WEBFILE_HEADERS                                                       \
	"Cache-Control: no-cache\r\n"                                         \
	"X-Content-Type-Options: nosniff\r\n"                                 \
	"Referrer-Policy: no-referrer\r\n"                                    \
	"Content-Security-Policy: default-src 'self'; img-src 'self' data:; " \
	"frame-ancestors 'self'\r\n"

struct webfile {
	const char *path, *content_type;
	const uint8_t *bytes, *end;
};

/* NULL if there is none. */
const struct webfile *webfile_find(const char *path);

static inline size_t webfile_length(const struct webfile *f)
{
	return (size_t)(f->end - f->bytes);
}

#endif

/* pages.h - the files of connnode/web, in the program (see the Makefile). */
#ifndef STENTOR_CONNNODE_PAGES_H
#define STENTOR_CONNNODE_PAGES_H

#include <stddef.h>
#include <stdint.h>

#define PAGE_HEADERS                                                          \
	"Cache-Control: no-cache\r\n"                                         \
	"X-Content-Type-Options: nosniff\r\n"                                 \
	"Referrer-Policy: no-referrer\r\n"                                    \
	"Content-Security-Policy: default-src 'self'; img-src 'self' data:; " \
	"frame-ancestors 'self'\r\n"

struct page {
	const char *path, *content_type;
	const uint8_t *bytes, *end;
};

/* NULL if there is none. */
const struct page *page_find(const char *path);

static inline size_t page_length(const struct page *p)
{
	return (size_t)(p->end - p->bytes);
}

#endif

/* mem.h - allocation that does not fail.
 *
 * Limits on what the world may make us hold are our defence, not the return
 * value of malloc: where memory ends all the same, the process aborts and is
 * started again. So no caller has an untestable branch.
 */
#ifndef STENTOR_BASE_MEM_H
#define STENTOR_BASE_MEM_H

#include <stddef.h>

void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size)
	__attribute__((malloc, returns_nonnull));
void *xrealloc(void *memory, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *text) __attribute__((malloc, returns_nonnull));
/* A zero-terminated copy of `len` bytes. */
char *xmemdupz(const void *bytes, size_t len)
	__attribute__((malloc, returns_nonnull));

#endif

#include "common/base/mem.h"

#include "common/base/check.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

void *xmalloc(size_t size)
{
	void *memory = malloc(size ? size : 1);

	check(memory != NULL);
	return memory;
}

void *xcalloc(size_t count, size_t size)
{
	void *memory = calloc(count ? count : 1, size ? size : 1);

	check(memory != NULL);
	return memory;
}

void *xrealloc(void *memory, size_t size)
{
	memory = realloc(memory, size ? size : 1);
	check(memory != NULL);
	return memory;
}

char *xstrdup(const char *text)
{
	return xmemdupz(text, strlen(text));
}

char *xmemdupz(const void *bytes, size_t len)
{
	char *copy;

	check(len < SIZE_MAX);
	copy = xmalloc(len + 1);
	if (len > 0)
		memcpy(copy, bytes, len);
	copy[len] = '\0';
	return copy;
}

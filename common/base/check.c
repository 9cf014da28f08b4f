#include "common/base/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Straight to stderr, with no allocation: the heap may be what broke. */
void check_failed(const char *expression, const char *file, int line,
		  const char *function)
{
	char text[512];
	int n = snprintf(text, sizeof(text),
			 "{\"level\":\"fatal\",\"id\":\"CHECK-FAILED\","
			 "\"pid\":%d,\"at\":\"%s:%d\",\"in\":\"%s\","
			 "\"msg\":\"%s\"}\n",
			 (int)getpid(), file, line, function, expression);

	if (n > 0) {
		size_t len =
			(size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1;
		ssize_t ignored = write(STDERR_FILENO, text, len);
		(void)ignored;
	}
	abort();
}

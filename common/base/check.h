/* check.h - assertions that stay on in release, and small language helpers.
 *
 * check() states what must hold unless *we* have a bug. What the world may get
 * wrong is an error code, never a check. A failed check logs and aborts: it
 * costs one process, which its supervisor (or Kubernetes) starts again.
 */
#ifndef STENTOR_BASE_CHECK_H
#define STENTOR_BASE_CHECK_H

#include <stddef.h>

#define MUST_CHECK   __attribute__((warn_unused_result))
#define PRINTF(f, a) __attribute__((format(printf, f, a)))
#define UNUSED	     __attribute__((unused))
#define likely(x)    __builtin_expect(!!(x), 1)
#define unlikely(x)  __builtin_expect(!!(x), 0)

_Noreturn void check_failed(const char *expression, const char *file, int line,
			    const char *function);

#define check(expression)  \
	((expression)      \
		 ? (void)0 \
		 : check_failed(#expression, __FILE__, __LINE__, __func__))

/* The struct that `pointer`, its field `field`, is embedded in. */
#define container_of(pointer, type, field) \
	((type *)((char *)(pointer)-offsetof(type, field)))

#define array_len(a) (sizeof(a) / sizeof((a)[0]))

#define min_of(a, b) ((a) < (b) ? (a) : (b))
#define max_of(a, b) ((a) > (b) ? (a) : (b))

#endif

/* log.h - one line an event, on stderr: JSON for machines, text for people.
 *
 * log_warn("LINK-DOWN", "node=%s worker=%u err=%s", ...): a stable identifier
 * that documentation and alerts can name, then key=value pairs. In JSON each
 * pair becomes a member ("key":"value"; a value with spaces is quoted in the
 * format: reason=\"%s\"). An unquoted plain decimal of up to 15 characters
 * becomes a number, everything else stays text; words outside pairs become
 * "msg". The line also holds ts (RFC 3339, UTC), level, component, pid and id;
 * a pair that has one of these names gets a '_' behind it. Control bytes and
 * broken UTF-8 are escaped; lines end at 4096 bytes. Lines of one identifier
 * are limited to LOG_BURST_PER_SECOND; how many were dropped is said in the
 * next one. Never log a token, a query string or a payload.
 *
 * The only state of the process that is file-global, with its lock, because
 * nng's threads may log too.
 */
#ifndef STENTOR_BASE_LOG_H
#define STENTOR_BASE_LOG_H

#include "common/base/check.h"

#include <stdbool.h>

#define LOG_BURST_PER_SECOND 20

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

/* `component` is borrowed for ever ("dispatcher", "connnode/0"). */
void log_init(const char *component, enum log_level level, bool json);
void log_set_level(enum log_level level);
enum log_level log_get_level(void);

void log_write(enum log_level level, const char *id, const char *format, ...)
	PRINTF(3, 4);

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...)  log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)

#endif

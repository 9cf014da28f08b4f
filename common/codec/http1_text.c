/* http1_text.c - the parts of http1.h that need no parser: looking into a
 * request, and writing an answer. */
#include "common/base/err.h"
#include "common/codec/hex.h"
#include "common/codec/http1.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

const char *http1_next(const struct http1_request *r, const char *name,
		       size_t *at)
{
	while (*at < r->header_count) {
		const struct http1_header *h = &r->headers[(*at)++];

		if (strcmp(h->name, name) == 0)
			return h->value;
	}
	return NULL;
}

const char *http1_get(const struct http1_request *r, const char *name)
{
	size_t at = 0;

	return http1_next(r, name, &at);
}

/* --- query ------------------------------------------------------------- */

static int query_decode(char *out, size_t max, const char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		int c = (unsigned char)text[i];

		if (c == '+') {
			c = ' ';
		} else if (c == '%') {
			int high = i + 2 < len ? hex_digit(text[i + 1]) : -1;
			int low = high < 0 ? -1 : hex_digit(text[i + 2]);

			if (low < 0 || (high == 0 && low == 0))
				return ERR_MALFORMED;
			c = high << 4 | low;
			i += 2;
		}
		if (n + 1 >= max)
			return ERR_TOO_LARGE;
		out[n++] = (char)c;
	}
	out[n] = '\0';
	return 0;
}

int http1_query(const char **cursor, char *name, size_t name_max, char *value,
		size_t value_max)
{
	const char *pair = *cursor + strspn(*cursor, "&");
	size_t len = strcspn(pair, "&");
	const char *equals = memchr(pair, '=', len);
	size_t name_len = equals ? (size_t)(equals - pair) : len;
	int err;

	check(name_max > 0 && value_max > 0);
	*cursor = pair + len;
	if (len == 0)
		return 0;
	err = query_decode(name, name_max, pair, name_len);
	if (err)
		return err;
	value[0] = '\0';
	if (equals)
		err = query_decode(value, value_max, equals + 1,
				   len - name_len - 1);
	return err ? err : 1;
}

/* --- accept ------------------------------------------------------------ */

/* How closely a media range names the type: 2 "text/html", 1 "text" + "/" +
 * "*", 0 any, -1 not at all. */
static int range_matches(const char *range, size_t len, const char *type)
{
	size_t main_len = strcspn(type, "/") + 1;

	if (len == 3 && memcmp(range, "*/*", 3) == 0)
		return 0;
	if (len == strlen(type) && strncasecmp(range, type, len) == 0)
		return 2;
	if (len == main_len + 1 && range[main_len] == '*' &&
	    strncasecmp(range, type, main_len) == 0)
		return 1;
	return -1;
}

/* Is there a parameter q that is zero ("0", "0.0")? `text` starts behind the
 * media range and ends at `end`. */
static bool refused(const char *text, const char *end)
{
	while (text < end) {
		text += strspn(text, "; \t");
		if (end - text >= 3 && (text[0] | 0x20) == 'q' &&
		    text[1] == '=') {
			const char *digits = text + 2;
			size_t zeros = strspn(digits, "0.");

			return zeros > 0 &&
			       !isdigit((unsigned char)digits[zeros]);
		}
		text += strcspn(text, ";,");
	}
	return false;
}

bool http1_accepts(const struct http1_request *r, const char *type)
{
	bool admitted = false, any = false;
	const char *accept;
	size_t at = 0;
	int best = -1;

	while ((accept = http1_next(r, "accept", &at)) != NULL) {
		any |= accept[strspn(accept, " \t")] != '\0';
		while (*accept) {
			const char *range = accept + strspn(accept, " \t,");
			const char *end = range + strcspn(range, ",");
			size_t len = strcspn(range, ";, \t");
			int match = range_matches(range, len, type);

			/* The closest range decides, not the first (RFC 9110).
			 */
			if (match > best) {
				best = match;
				admitted = !refused(range + len, end);
			}
			accept = end;
		}
	}
	return admitted || !any;
}

/* --- answers ----------------------------------------------------------- */

const char *http1_reason(int status)
{
	static const struct {
		int status;
		const char *reason;
	} reasons[] = {
		{100, "Continue"},
		{200, "OK"},
		{202, "Accepted"},
		{204, "No Content"},
		{301, "Moved Permanently"},
		{302, "Found"},
		{304, "Not Modified"},
		{307, "Temporary Redirect"},
		{308, "Permanent Redirect"},
		{400, "Bad Request"},
		{401, "Unauthorized"},
		{403, "Forbidden"},
		{404, "Not Found"},
		{405, "Method Not Allowed"},
		{406, "Not Acceptable"},
		{408, "Request Timeout"},
		{409, "Conflict"},
		{411, "Length Required"},
		{412, "Precondition Failed"},
		{413, "Content Too Large"},
		{414, "URI Too Long"},
		{415, "Unsupported Media Type"},
		{417, "Expectation Failed"},
		{429, "Too Many Requests"},
		{431, "Request Header Fields Too Large"},
		{499, "Client Closed Request"},
		{500, "Internal Server Error"},
		{501, "Not Implemented"},
		{503, "Service Unavailable"},
		{504, "Gateway Timeout"},
		{505, "HTTP Version Not Supported"},
	};

	for (size_t i = 0; i < array_len(reasons); i++) {
		if (reasons[i].status == status)
			return reasons[i].reason;
	}
	return "Unknown";
}

int http1_respond(struct buf *out, int status, const char *content_type,
		  const char *extra, const void *body, size_t body_len,
		  bool keep_alive, bool head)
{
	bool bodyless = status < 200 || status == 204 || status == 304;
	size_t before = out->len;
	int err;

	err = buf_printf(out, "HTTP/1.1 %d %s\r\n", status,
			 http1_reason(status));
	if (!err && !bodyless)
		err = buf_printf(out,
				 "Content-Type: %s\r\nContent-Length: %zu\r\n",
				 content_type, body_len);
	if (!err)
		err = buf_printf(out, "%sConnection: %s\r\n\r\n", extra,
				 keep_alive ? "keep-alive" : "close");
	if (!err && !bodyless && !head)
		err = buf_append(out, body, body_len);
	if (err)
		out->len = before;
	return err;
}

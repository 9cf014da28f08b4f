#include "dispatcher/store/redis.h"

#include "common/base/err.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SCHEME	      "redis://"
#define SCHEME_TLS    "rediss://"
#define PORT_DATA     6379
#define PORT_SENTINEL 26379

static int refuse(char *fault, const char *text)
{
	snprintf(fault, STORE_FAULT_SIZE, "the store's URL: %s", text);
	return ERR_CONFIG;
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decodes %XX. False: too long, malformed, or it holds a zero. */
static bool decode(const char *from, size_t len, char *to, size_t size)
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		int c = from[i];

		if (c == '%') {
			if (i + 2 >= len || hex_value(from[i + 1]) < 0 ||
			    hex_value(from[i + 2]) < 0)
				return false;
			c = hex_value(from[i + 1]) * 16 +
			    hex_value(from[i + 2]);
			i += 2;
		}
		if (c == 0 || n + 1 >= size)
			return false;
		to[n++] = (char)c;
	}
	to[n] = 0;
	return true;
}

/* "host", "host:port", "[v6]" or "[v6]:port" in [at, at + len). */
static bool parse_address(const char *at, size_t len, uint16_t port,
			  struct redis_address *out)
{
	const char *host = at, *end = at + len, *colon;
	size_t host_len;

	if (len > 0 && *at == '[') {
		const char *bracket = memchr(at, ']', len);

		if (bracket == NULL)
			return false;
		host = at + 1;
		host_len = (size_t)(bracket - host);
		colon = bracket + 1;
	} else {
		colon = memchr(at, ':', len);
		if (colon == NULL)
			colon = end;
		host_len = (size_t)(colon - host);
	}
	if (host_len == 0 || host_len >= sizeof(out->host))
		return false;
	memcpy(out->host, host, host_len);
	out->host[host_len] = 0;
	out->port = port;
	if (colon == end)
		return true;
	unsigned long number = 0;

	if (*colon != ':' || colon + 1 == end || end - colon > 6)
		return false;
	for (const char *c = colon + 1; c < end; c++) {
		if (*c < '0' || *c > '9')
			return false;
		number = number * 10 + (unsigned long)(*c - '0');
	}
	out->port = (uint16_t)number;
	return number > 0 && number <= UINT16_MAX;
}

static bool parse_secret(const char *at, size_t len, struct redis_url *out)
{
	const char *colon = memchr(at, ':', len);

	if (colon == NULL)
		return false;
	return decode(at, (size_t)(colon - at), out->user, sizeof(out->user)) &&
	       decode(colon + 1, len - (size_t)(colon + 1 - at), out->secret,
		      sizeof(out->secret));
}

static int parse_addresses(const char *at, const char *end, uint16_t port,
			   struct redis_url *out, char *fault)
{
	for (;;) {
		const char *comma = memchr(at, ',', (size_t)(end - at));
		const char *stop = comma != NULL ? comma : end;

		if (out->count == REDIS_ADDRESSES_MAX)
			return refuse(fault, "more than 16 addresses");
		if (!parse_address(at, (size_t)(stop - at), port,
				   &out->addresses[out->count]))
			return refuse(fault,
				      "an address must be HOST:PORT, with an "
				      "IPv6 address in [brackets]");
		out->count++;
		if (comma == NULL)
			return 0;
		at = comma + 1;
	}
}

int redis_url_parse(const char *url, struct redis_url *out,
		    char fault[STORE_FAULT_SIZE])
{
	const char *at, *end, *sign, *query;

	memset(out, 0, sizeof(*out));
	out->tls = strncmp(url, SCHEME_TLS, strlen(SCHEME_TLS)) == 0;
	if (!out->tls && strncmp(url, SCHEME, strlen(SCHEME)) != 0)
		return refuse(fault,
			      "it begins with neither redis:// nor rediss://");
	at = url + strlen(out->tls ? SCHEME_TLS : SCHEME);
	query = strchr(at, '?');
	end = query != NULL ? query : at + strlen(at);
	sign = memrchr(at, '@', (size_t)(end - at));
	if (sign != NULL) {
		if (!parse_secret(at, (size_t)(sign - at), out))
			return refuse(fault, "what stands before @ must be "
					     "[USER]:PASSWORD, with %XX for "
					     "what is special in URLs");
		at = sign + 1;
	}
	if (end > at && end[-1] == '/')
		end--;
	if (memchr(at, '/', (size_t)(end - at)) != NULL)
		return refuse(fault, "a database number or path has no place");
	if (query != NULL &&
	    (strncmp(query, "?sentinel=", 10) != 0 || query[10] == 0 ||
	     !decode(query + 10, strlen(query + 10), out->sentinel,
		     sizeof(out->sentinel))))
		return refuse(fault, "after ? only sentinel=NAME is known");
	return parse_addresses(
		at, end, out->sentinel[0] != 0 ? PORT_SENTINEL : PORT_DATA, out,
		fault);
}

/*
 * eventjson.h - what our own events and messages say, without a parser of JSON,
 * for the few shapes that there are. Pure.
 */
#ifndef TESTS_BENCH_EVENTJSON_H
#define TESTS_BENCH_EVENTJSON_H

#include "bench.h"

/* The number behind `"name":`, quoted or not, in one line of JSON. */
static inline bool json_number(const char *text, size_t len, const char *name,
			       uint64_t *value)
{
	char key[32];
	int key_len = snprintf(key, sizeof(key), "\"%s\":", name);
	const char *at = memmem(text, len, key, (size_t)key_len);
	const char *end = text + len;
	uint64_t sum = 0;

	if (at == NULL)
		return false;
	at += key_len;
	at += at < end && *at == '"';
	if (at == end || *at < '0' || *at > '9')
		return false;
	for (; at < end && *at >= '0' && *at <= '9'; at++)
		sum = sum * 10 + (uint64_t)(*at - '0');
	*value = sum;
	return true;
}

/* Behind `"name":{` in a text; NULL: it is not there, or null. */
static inline const char *json_object(const char *text, size_t len,
				      const char *name)
{
	char key[32];
	int key_len = snprintf(key, sizeof(key), "\"%s\":{", name);

	return memmem(text, len, key, (size_t)key_len);
}

/* The offset of the position that is the field `name`; none: false. */
static inline bool json_offset(const char *text, size_t len, const char *name,
			       uint64_t *offset)
{
	const char *at = json_object(text, len, name);

	return at != NULL &&
	       json_number(at, len - (size_t)(at - text), "offset", offset);
}

/* The position that is the field `name`; none: both are 0. */
static inline void json_place(const char *text, size_t len, const char *name,
			      uint64_t *epoch, uint64_t *offset)
{
	const char *at = json_object(text, len, name);

	*epoch = *offset = 0;
	if (at == NULL)
		return;
	len -= (size_t)(at - text);
	if (!json_number(at, len, "epoch", epoch) ||
	    !json_number(at, len, "offset", offset))
		*epoch = *offset = 0;
}

/* The text behind `"name":"`, up to the next quote; none: NULL. */
static inline const char *json_text(const char *text, size_t len,
				    const char *name, size_t *value_len)
{
	char key[32];
	int key_len = snprintf(key, sizeof(key), "\"%s\":\"", name);
	const char *at = memmem(text, len, key, (size_t)key_len), *end;

	if (at == NULL)
		return NULL;
	at += key_len;
	end = memchr(at, '"', len - (size_t)(at - text));
	*value_len = end ? (size_t)(end - at) : 0;
	return end ? at : NULL;
}

#endif

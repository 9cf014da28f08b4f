#include "dispatcher/store/redis_internal.h"

#include <stdio.h>
#include <string.h>

/* --- replies ------------------------------------------------------------- */

/* NULL makes the parser fail: the arena is full. */
static struct redis_reply *reply_new(const redisReadTask *task)
{
	struct redis_reply *r = arena_alloc(task->privdata, sizeof(*r));

	if (r == NULL)
		return NULL;
	*r = (struct redis_reply){.type = task->type};
	return r;
}

static void *reply_attach(const redisReadTask *task, struct redis_reply *r)
{
	struct redis_reply *parent = task->parent ? task->parent->obj : NULL;

	if (r != NULL && parent != NULL)
		parent->elements[task->idx] = r;
	return r;
}

static void *create_string(const redisReadTask *task, char *bytes, size_t len)
{
	struct redis_reply *r = reply_new(task);
	char *text = arena_alloc(task->privdata, len + 1);

	if (r == NULL || text == NULL)
		return NULL;
	memcpy(text, bytes, len);
	text[len] = 0;
	r->text = text;
	r->len = len;
	return reply_attach(task, r);
}

static void *create_array(const redisReadTask *task, int count)
{
	struct redis_reply *r = reply_new(task);

	if (r == NULL || count < 0 || count > REDIS_REPLY_ELEMENTS)
		return NULL;
	if (count > 0) {
		size_t size = (size_t)count * sizeof(*r->elements);

		r->elements = arena_alloc(task->privdata, size);
		if (r->elements == NULL)
			return NULL;
		memset(r->elements, 0, size);
	}
	r->count = (size_t)count;
	return reply_attach(task, r);
}

static void *create_integer(const redisReadTask *task, long long value)
{
	struct redis_reply *r = reply_new(task);

	if (r == NULL)
		return NULL;
	r->integer = value;
	return reply_attach(task, r);
}

static void *create_nil(const redisReadTask *task)
{
	return reply_attach(task, reply_new(task));
}

static void free_object(void *reply UNUSED)
{
	/* Its arena is reset as a whole. */
}

redisReader *redis_reader_new(struct arena *arena)
{
	static redisReplyObjectFunctions functions = {
		create_string, create_array, create_integer,
		create_nil,    free_object,
	};
	redisReader *reader = redisReaderCreateWithFunctions(&functions);

	check(reader != NULL);
	reader->privdata = arena;
	return reader;
}

const char *redis_element_text(const struct redis_reply *reply, size_t i)
{
	if (reply == NULL || reply->type != REDIS_REPLY_ARRAY ||
	    i >= reply->count || reply->elements[i] == NULL)
		return NULL;
	return reply->elements[i]->text;
}

bool redis_error_is(const struct redis_reply *reply, const char *word)
{
	size_t len = strlen(word);

	return reply->type == REDIS_REPLY_ERROR &&
	       strncmp(reply->text, word, len) == 0 &&
	       (reply->text[len] == ' ' || reply->text[len] == 0);
}

bool redis_info_field(const char *info, const char *name, char *value,
		      size_t size)
{
	size_t name_len = strlen(name);

	for (const char *line = info; line != NULL && *line != 0;) {
		const char *next = strchr(line, '\n');

		if (strncmp(line, name, name_len) == 0 &&
		    line[name_len] == ':') {
			const char *from = line + name_len + 1;

			snprintf(value, size, "%.*s",
				 (int)min_of(strcspn(from, "\r\n"), size),
				 from);
			return true;
		}
		line = next != NULL ? next + 1 : NULL;
	}
	return false;
}

/* --- numbers ------------------------------------------------------------- */

bool redis_number(const char **at, uint64_t *out)
{
	const char *digit = *at;

	*out = 0;
	if (digit == NULL || *digit < '0' || *digit > '9')
		return false;
	for (; *digit >= '0' && *digit <= '9'; digit++)
		if (__builtin_mul_overflow(*out, 10, out) ||
		    __builtin_add_overflow(*out, *digit - '0', out))
			return false;
	if (*digit == ' ')
		digit++;
	else if (*digit != 0)
		return false;
	*at = digit;
	return true;
}

bool redis_element_number(const struct redis_reply *reply, size_t i,
			  uint64_t *out)
{
	const char *text = redis_element_text(reply, i);

	return redis_number(&text, out) && *text == 0;
}

/* --- commands ------------------------------------------------------------ */

struct redis_arg redis_arg_text(const char *text)
{
	return (struct redis_arg){text, strlen(text)};
}

/* "<sign><number>\r\n"; returns its end. */
static char *put_head(char *at, char sign, size_t number)
{
	char digits[20];
	size_t n = 0;

	do
		digits[n++] = (char)('0' + number % 10);
	while ((number /= 10) > 0);
	*at++ = sign;
	while (n > 0)
		*at++ = digits[--n];
	*at++ = '\r';
	*at++ = '\n';
	return at;
}

bool redis_encode(struct buf *out, const struct redis_arg *args, size_t count)
{
	/* Sign, digits and two line ends for each, and for the count. */
	size_t most = (count + 1) * 25, had = out->len;
	char *start, *at;

	for (size_t i = 0; i < count; i++)
		most += args[i].len;
	start = at = buf_extend(out, most);
	if (start == NULL)
		return false;
	at = put_head(at, '*', count);
	for (size_t i = 0; i < count; i++) {
		at = put_head(at, '$', args[i].len);
		if (args[i].len > 0)
			memcpy(at, args[i].bytes, args[i].len);
		at += args[i].len;
		*at++ = '\r';
		*at++ = '\n';
	}
	out->len = had + (size_t)(at - start);
	return true;
}

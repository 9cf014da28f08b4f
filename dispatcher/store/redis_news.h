/* redis_news.h - what the dispatchers of one Redis tell one another, as it goes
 * over its pub/sub; pure.
 *
 *	magic "stn1", kind, flags, instance, number     all of them
 *	PRESENT  workers
 *	MOVED    count, then for each: length, channel, epoch, offset
 *	GONE     nothing more
 *
 * Numbers are big-endian. Whoever appends counts its news, published or not: a
 * message's `number` is that of the news it carries, or of the last there were,
 * so that a receiver sees what it has missed. A place {0, 0} says that the
 * channel's top may have moved: look.
 *
 * Between two messages the tops that moved are gathered, each channel once, at
 * most REDIS_NEWS_MAX of them.
 */
#ifndef STENTOR_DISPATCHER_STORE_REDIS_NEWS_H
#define STENTOR_DISPATCHER_STORE_REDIS_NEWS_H

#include "common/base/hash.h"
#include "common/codec/channel.h"
#include "common/ds/buf.h"
#include "dispatcher/store/store.h"

#define REDIS_NEWS_MAX	 1024 /* channels that are gathered */
#define REDIS_NEWS_NAMES 256  /* of one message */
#define REDIS_NEWS_BYTES 40960

enum redis_news_kind { NEWS_PRESENT = 1, NEWS_MOVED, NEWS_GONE };
#define NEWS_ASKS 1 /* flag of PRESENT: who else is there? */

struct redis_news {
	enum redis_news_kind kind;
	uint8_t flags;
	uint64_t instance, number;
	uint64_t workers; /* PRESENT */
	unsigned count;	  /* MOVED */
	/* private: of a message that is read */
	const uint8_t *at;
};

/* False: it is none of ours. Borrows the bytes. */
bool redis_news_read(const void *bytes, size_t len, struct redis_news *out);
/* The next of `count`, which have been looked at by redis_news_read(). */
void redis_news_next(struct redis_news *n, char channel[CHANNEL_NAME_MAX + 1],
		     struct store_place *top);
/* A whole message that names nothing. */
int redis_news_write(struct buf *out, const struct redis_news *n) MUST_CHECK;

struct redis_moved {
	struct store_place top;
	uint64_t hash;
	char channel[CHANNEL_NAME_MAX + 1];
};

struct redis_gathered {
	struct hash_key key;
	unsigned count;
	bool overflow; /* one had no room */
	struct redis_moved moved[REDIS_NEWS_MAX];
	uint16_t table[4 * REDIS_NEWS_MAX]; /* index + 1 into it, by hash */
};

void redis_gathered_init(struct redis_gathered *g);
/* The newest place of a channel stays; one to look at stays until a place is
 * known. */
void redis_gathered_add(struct redis_gathered *g, const char *channel,
			struct store_place top);
/* Writes a message of the last so many of them, at most REDIS_NEWS_NAMES, and
 * forgets these. */
int redis_gathered_write(struct redis_gathered *g, struct buf *out,
			 const struct redis_news *n) MUST_CHECK;

#endif

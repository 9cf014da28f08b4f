/* pages.h - parts of logs, read from the store once for all who need them
 * (pure: asks through questions.h).
 *
 *	WAITING --memory--> ASKED --answer--> LOADED --the last reader leaves-->
 *	idle, for PAGES_KEEP_MS or until memory is needed
 *
 * A page has the messages after a place, rendered once in one variant. Readers
 * of the same time, or shortly after, share it. Memory: `bytes_max` for all
 * pages, those included that are being read; above that they wait.
 */
#ifndef STENTOR_CONNNODE_CHANNEL_PAGES_H
#define STENTOR_CONNNODE_CHANNEL_PAGES_H

#include "common/codec/place.h"
#include "common/ds/frame.h"
#include "common/ds/hmap.h"
#include "connnode/channel/channels.h"
#include "connnode/channel/questions.h"

#include <stdbool.h>

#define PAGE_MESSAGES 128
#define PAGE_BYTES    (64u << 10) /* of records; or one message */
#define PAGES_KEEP_MS 10000	  /* a page that nobody reads any more */

enum page_state { PAGE_WAITING, PAGE_ASKED, PAGE_LOADED };

/* Messages (after, to] of one log, rendered in one variant. */
struct page {
	uint8_t state, variant;
	struct place top; /* of the log, when it was read */
	size_t count;	  /* 0: nothing is there */
	struct frame **frames;
	size_t bytes; /* accounted for */
	/* private */
	struct pages *pages;
	struct hmap_node by_start;
	struct list in_channel; /* channel->pages; empty: not to be found */
	struct list in_state;	/* waiting or idle */
	struct list readers;	/* struct page_reader.in_page */
	struct channel *channel;
	uint64_t epoch, after, to;
	uint64_t idle_ms;
	struct question question;
};

struct page_reader {
	struct list in_page;
	struct page *page; /* NULL: none */
};

struct pages {
	struct channels *channels;
	struct questions *questions;
	/* The page of this reader is loaded. Called inside a loop over all its
	 * readers: join and leave later. */
	void (*loaded)(struct page_reader *r);
	struct hmap by_start;
	struct list waiting; /* struct page.in_state, for memory */
	struct list idle;    /* likewise: without readers, oldest first */
	size_t bytes, bytes_max;
	uint64_t waiting_count, asked;
};

void pages_init(struct pages *ps, struct channels *channels,
		struct questions *questions, size_t bytes_max,
		void (*loaded)(struct page_reader *r));
/* Every page must have been closed. */
void pages_fini(struct pages *ps);

/* Joins, in `r`, the readers of the page that has the message after `at`. One
 * who has not `begun` gets a page that begins at a multiple of PAGE_MESSAGES,
 * so that readers whose places differ a little share it. */
void pages_join(struct pages *ps, struct page_reader *r, struct channel *ch,
		struct place at, unsigned variant, bool begun);
/* Does nothing if it has none. */
void pages_leave(struct pages *ps, struct page_reader *r);
/* The channel's log goes, and so do its pages; nobody reads them. */
void pages_close(struct pages *ps, struct channel *ch);

/* Asks for what waits, while there is memory; and whether it would. */
void pages_run(struct pages *ps);
bool pages_pending(const struct pages *ps);
/* Every 100 ms or so: the same, and what was idle for long is freed. */
void pages_tick(struct pages *ps, uint64_t now_ms);

#endif

/* storage.h - the shell around the store: its life, what publish.c, history.c,
 * moves.c and the services ask of it, and what it means for the dispatcher.
 *
 *	open --storage_close()--> no publish is pending, late ones are waited
 *	for, for a while --> closed
 *
 * The rest of the room does not know which store there is, nor whether it is
 * still open: they have the functions that they were handed.
 */
#ifndef STENTOR_DISPATCHER_PUBLISH_STORAGE_H
#define STENTOR_DISPATCHER_PUBLISH_STORAGE_H

#include "dispatcher/publish/history.h"
#include "dispatcher/publish/moves.h"
#include "dispatcher/publish/publish.h"

#include <uv.h>

/* How long the store may be away before that makes us unready. */
#define STORAGE_GRACE_MS 3000

struct storage_parts {
	const struct rules *rules; /* new ones: storage_rules() */
	struct nodes *nodes;	   /* tell the store's identity */
	struct publisher *publisher;
	struct history *history;
	struct moves *moves;
};

struct storage {
	struct storage_parts parts;
	uv_loop_t *loop;
	struct store *store;	 /* NULL: closed */
	bool keeps_history;	 /* some rule does */
	uint64_t up_ms, trim_ms; /* when it was last so; 0: never */
	uint64_t report_ms;
	uint64_t end_ms;    /* it closes then at the latest */
	uint64_t peers_see; /* workers: the most that one of them does */
	void (*on_closed)(void *ctx);
	void *ctx;
};

/* The parts need not be initialised yet; `moved` and `ctx` of the configuration
 * are set here. On error there is a message on stderr. */
int storage_open(struct storage *s, uv_loop_t *loop,
		 const struct storage_parts *parts,
		 const struct store_config *config) MUST_CHECK;
/* What publish.c, and all that read, ask of it. */
struct publish_store storage_publish(struct storage *s);
struct history_store storage_history(struct storage *s);
/* The rules are new. */
void storage_rules(struct storage *s);
/* Every 100 ms or so. */
void storage_tick(struct storage *s, uint64_t now_ms);
/* Why reliable channels are not served now; NULL: they are. */
const char *storage_fault(struct storage *s);
/* Nobody needs it, or it has been up within STORAGE_GRACE_MS. */
bool storage_lately_up(const struct storage *s, uint64_t now_ms);
/* No publish is pending; late ones are waited for, for a while. What workers
 * have asked is answered, or not. */
void storage_close(struct storage *s, void (*on_closed)(void *ctx), void *ctx);

#endif

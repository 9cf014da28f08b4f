/* store_impl.h - what store.c asks of an implementation (private to store/).
 *
 * An implementation embeds struct store first, in memory of its own from
 * xcalloc(). store.c checks bounds, takes times and counts; an implementation
 * calls store_*_done() for each operation it was given, exactly once, from the
 * loop and never inside the call.
 *
 *	open()	all that may fail, then store_init(), then its handles
 *	close()	ends what waits, closes its handles, frees what it holds but
 *		not itself, then calls store_closed(), which does
 */
#ifndef STENTOR_DISPATCHER_STORE_STORE_IMPL_H
#define STENTOR_DISPATCHER_STORE_STORE_IMPL_H

#include "dispatcher/store/store.h"

#include <uv.h>

struct store_ops {
	const char *scheme; /* "lmdb:" */
	bool embedded;
	int (*open)(uv_loop_t *loop, const struct store_config *config,
		    struct store **out, char fault[STORE_FAULT_SIZE]);
	void (*append)(struct store *s, struct store_append *a);
	void (*read)(struct store *s, struct store_read *r);
	void (*tops)(struct store *s, struct store_tops *t);
	void (*trim)(struct store *s); /* NULL: expires by itself */
	void (*close)(struct store *s);
};

struct store {
	const struct store_ops *ops;
	uv_loop_t *loop;
	struct store_config config;
	struct store_state state;
	struct metrics metrics;
	size_t operations; /* under way */
	uint64_t workers;  /* store_report() */
	bool closing;
	void (*closed)(void *ctx);
	void *closed_ctx;
	/* Appends over the bound: they are told so in the next turn. */
	struct list refused;
	uv_idle_t refusal;
};

extern const struct store_ops store_memory, store_lmdb, store_redis;

/* The last step of a successful open(): nothing fails after it. */
void store_init(struct store *s, const struct store_ops *ops, uv_loop_t *loop,
		const struct store_config *config);
/* The last step of close(). Frees `s`. */
void store_closed(struct store *s);

/* The operation's `rc` and other results are set. Nothing more will be known of
 * it: where the caller would listen, its `late` follows at once. */
void store_append_done(struct store *s, struct store_append *a);
/* The same for one whose time is over while it is under way. True: the caller
 * listens, all stays borrowed, and store_append_late() must follow, with `rc`
 * and the results of what became of it. False: `a` may be gone. */
bool store_append_overdue(struct store *s, struct store_append *a) MUST_CHECK;
void store_append_late(struct store *s, struct store_append *a);
void store_read_done(struct store *s, struct store_read *r);
void store_tops_done(struct store *s, struct store_tops *t);
/* Counts a trim that began at `started_ns`. */
void store_trim_done(struct store *s, uint64_t started_ns, int rc);

/* The state changed: logs once a change. `fault` NULL: it is up. */
void store_set_up(struct store *s, const char *fault);

#endif

/* store_impl.h - what store.c asks of an implementation (private to store/).
 *
 * An implementation embeds struct store first. store.c checks bounds, takes
 * times and counts; an implementation calls store_*_done() for each operation
 * it was given, exactly once, from the loop and never inside the call.
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
	/* Ends what waits, frees itself, then calls store_closed(). */
	void (*close)(struct store *s);
};

struct store {
	const struct store_ops *ops;
	uv_loop_t *loop;
	struct store_config config;
	struct store_state state;
	struct metrics metrics;
	size_t operations; /* under way */
	void (*closed)(void *ctx);
	void *closed_ctx;
};

extern const struct store_ops store_memory, store_lmdb, store_redis;

void store_append_done(struct store *s, struct store_append *a);
void store_read_done(struct store *s, struct store_read *r);
void store_tops_done(struct store *s, struct store_tops *t);

/* The state changed: logs once a change. `fault` NULL: it is up. */
void store_set_up(struct store *s, const char *fault);

#endif

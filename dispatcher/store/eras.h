/* eras.h - what becomes of a log's eras and of places in them (pure); the rule
 * that all stores share. store.h tells what eras are.
 */
#ifndef STENTOR_DISPATCHER_STORE_ERAS_H
#define STENTOR_DISPATCHER_STORE_ERAS_H

#include "dispatcher/store/store.h"

#include <string.h>

/* A log begins a new epoch, with what it has up to `was`, its top until now.
 * What an earlier epoch had behind it is lost for that epoch too. The eldest
 * goes where there are too many. */
static inline void eras_begin(struct store_eras *e, struct store_place was)
{
	unsigned kept = min_of(e->count, (unsigned)STORE_ERAS_MAX - 1);

	for (unsigned i = 0; i < kept; i++)
		e->era[i].offset = min_of(e->era[i].offset, was.offset);
	memmove(&e->era[1], &e->era[0], kept * sizeof(e->era[0]));
	e->era[0] = (struct store_era){was.epoch, was.offset};
	e->count = kept + 1;
}

/* Whether the log still has the position that `place` was, with a top of `top`:
 * then it is at the same offset in the present epoch. */
static inline bool eras_have(const struct store_eras *e, struct store_place top,
			     struct store_place place)
{
	if (place.epoch == top.epoch)
		return place.offset <= top.offset;
	for (unsigned i = 0; i < e->count; i++)
		if (e->era[i].epoch == place.epoch)
			return place.offset <= e->era[i].offset;
	return false;
}

/* Whether a log with this top has not got as far as is known of it. */
static inline bool eras_behind(struct store_place top, struct store_place known)
{
	if (known.epoch == top.epoch)
		return known.offset > top.offset;
	return known.epoch > top.epoch && known.epoch <= STORE_KNOWN_MAX;
}

#endif

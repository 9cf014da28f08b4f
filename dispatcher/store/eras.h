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

/* An epoch that somebody knows of: up to `offset` the same as the present one,
 * whose top is `top`. True if it was not known. None is elder than the eldest:
 * that would be another log's. */
static inline bool eras_learn(struct store_eras *e, struct store_place top,
			      struct store_era era)
{
	unsigned at = 0;

	if (e->count == 0 || era.epoch <= e->era[e->count - 1].epoch ||
	    era.epoch >= top.epoch)
		return false;
	while (at < e->count && e->era[at].epoch > era.epoch)
		at++;
	if (at == STORE_ERAS_MAX ||
	    (at < e->count && e->era[at].epoch == era.epoch))
		return false;
	e->count = min_of(e->count + 1, (unsigned)STORE_ERAS_MAX);
	memmove(&e->era[at + 1], &e->era[at],
		(e->count - at - 1) * sizeof(e->era[0]));
	era.offset = min_of(era.offset, top.offset);
	e->era[at] = era;
	return true;
}

/* Up to which offset the epoch `known` is the same as the present one: what the
 * log says of it, or as far as can be told by epochs that both go on from. */
static inline uint64_t eras_common(const struct store_eras *e, uint64_t known,
				   const struct store_eras *eras)
{
	uint64_t common = 0;

	for (unsigned i = 0; i < e->count; i++) {
		const struct store_era *own = &e->era[i];

		if (own->epoch == known)
			return own->offset;
		for (unsigned k = 0; k < eras->count; k++)
			if (eras->era[k].epoch == own->epoch)
				common = max_of(common,
						min_of(eras->era[k].offset,
						       own->offset));
	}
	return common;
}

/* What is known of the log by who was at `known`, in its present epoch or in
 * one that the store has forgotten. True if anything is new. */
static inline bool eras_learn_all(struct store_eras *e, struct store_place top,
				  struct store_place known,
				  const struct store_eras *eras)
{
	uint64_t common = eras_common(e, known.epoch, eras);
	bool learnt = false;

	if (eras->count == 0 || known.epoch > top.epoch)
		return false;
	for (unsigned i = 0; i < eras->count; i++) {
		struct store_era era = eras->era[i];

		if (known.epoch != top.epoch)
			era.offset = min_of(era.offset, common);
		learnt |= eras_learn(e, top, era);
	}
	if (common > 0 && known.epoch != top.epoch)
		learnt |= eras_learn(e, top,
				     (struct store_era){known.epoch, common});
	return learnt;
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

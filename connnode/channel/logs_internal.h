/* logs_internal.h - what logs.c and logs_move.c share (pure). */
#ifndef STENTOR_CONNNODE_CHANNEL_LOGS_INTERNAL_H
#define STENTOR_CONNNODE_CHANNEL_LOGS_INTERNAL_H

#include "connnode/channel/logs.h"

/* Its top is asked for, with the next batch. */
void log_ask(struct log *log);
/* What the sweep found is of no interest any more. */
void log_look_forget(struct log *log);
/* Something of a greater epoch than its place's was there. */
bool log_moving(const struct log *log);

/* The log, whose place is not known, is as `top` says. */
void log_become_known(struct log *log, const LinkPlace *top);
/* It is in another, later epoch, that of `top`. */
void log_move(struct log *log, LinkPlace *top);
/* A message of an earlier epoch is known to have been there. */
void log_was_there(struct log *log, struct place at);
/* A link has ended, by which messages of earlier epochs may have been on their
 * way. */
void log_doubt_past(struct log *log);

#endif

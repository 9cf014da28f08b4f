/* claim.h - what becomes of the place that a client comes back with (pure).
 *
 *	place				goes on			is told
 *	-----				-------			-------
 *	in the log's epoch		there			nothing
 *	in an earlier one, known	at its equal		what is lost
 *	of a log that is gone		with all that is kept	`epoch`
 *	beyond the log's end		with all that is kept	`unknown`
 *	that can't be read		with all that is kept	`malformed`
 *
 * The log's place must be known. Nothing in a claim is trusted.
 */
#ifndef STENTOR_CONNNODE_STREAM_CLAIM_H
#define STENTOR_CONNNODE_STREAM_CLAIM_H

#include "connnode/channel/logs.h"

/* Whether it is beyond what we know: we may be behind, the top tells. */
bool claim_ahead(const struct place *claim, const struct log *log);

/* Moves the place to where its client goes on, and says what it is told. */
struct gap claim_judge(struct place *at, const struct log *log);

/* The same for one that can't be read. Where nothing is kept, it is told
 * nothing: a newcomer gets no less. */
struct gap claim_judge_unread(struct place *at, const struct log *log);

#endif

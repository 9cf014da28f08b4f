/* An evicted frame leaves a hole in its lane's ring, which is skipped when the
 * head gets there and squeezed out when the ring is full of them. To find the
 * oldest frame of a class without searching twice, each lane remembers for
 * each class a position before which there is none: it only moves forward, so
 * a frame is looked at once per class. All operations are O(1) amortised.
 */
#include "dispatcher/linkq.h"

#include "common/base/check.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define RING_MIN  16u
#define RING_KEEP 1024u /* a larger one is freed when its lane is empty */

void linkq_init(struct linkq *q, size_t bytes_max)
{
	size_t frames_max = bytes_max / LINKQ_FRAME_BYTES;

	check(frames_max > 0);
	check(frames_max <= UINT32_MAX / 4);
	memset(q, 0, sizeof(*q));
	q->max = (struct linkq_sum){(uint32_t)frames_max, bytes_max};
}

/* --- a lane ------------------------------------------------------------ */

static struct linkq_entry *lane_at(const struct linkq_lane *lane, uint64_t at)
{
	return &lane->ring[at & (lane->cap - 1)];
}

/* Moves what is there to the front of a ring of another capacity. */
static void lane_rebuild(struct linkq_lane *lane, uint32_t cap)
{
	struct linkq_entry *ring = xmalloc(cap * sizeof(*ring));
	uint32_t len = 0;

	check(lane->frames <= cap);
	for (uint64_t at = lane->head; at != lane->tail; at++) {
		const struct linkq_entry *entry = lane_at(lane, at);

		if (entry->frame)
			ring[len++] = *entry;
	}
	check(len == lane->frames);
	free(lane->ring);
	lane->ring = ring;
	lane->cap = cap;
	lane->head = 0;
	lane->tail = len;
	memset(lane->oldest, 0, sizeof(lane->oldest));
}

static void lane_push(struct linkq_lane *lane, struct frame *frame,
		      enum priority drop_class)
{
	if (lane->tail - lane->head == lane->cap) {
		bool holes = lane->frames < lane->cap / 2;

		lane_rebuild(lane, holes ? lane->cap
					 : max_of(lane->cap * 2, RING_MIN));
	}
	*lane_at(lane, lane->tail++) =
		(struct linkq_entry){frame_hold(frame), drop_class};
	lane->frames++;
	lane->of[drop_class]++;
}

/* The first frame; the lane has one. */
static struct linkq_entry *lane_first(struct linkq_lane *lane)
{
	check(lane->frames > 0);
	while (!lane_at(lane, lane->head)->frame)
		lane->head++;
	return lane_at(lane, lane->head);
}

/* The oldest frame of a class; the lane has one. */
static struct linkq_entry *lane_oldest(struct linkq_lane *lane,
				       enum priority drop_class)
{
	uint64_t at = max_of(lane->oldest[drop_class], lane->head);

	check(lane->of[drop_class] > 0);
	for (;; at++) {
		struct linkq_entry *entry;

		check(at < lane->tail);
		entry = lane_at(lane, at);
		if (entry->frame && entry->drop_class == drop_class) {
			lane->oldest[drop_class] = at;
			return entry;
		}
	}
}

static void lane_reset(struct linkq_lane *lane)
{
	if (lane->cap > RING_KEEP) {
		free(lane->ring);
		lane->ring = NULL;
		lane->cap = 0;
	}
	lane->head = lane->tail = 0;
	lane->owed = 0;
	memset(lane->oldest, 0, sizeof(lane->oldest));
}

/* --- the queue --------------------------------------------------------- */

/* Takes a frame, and its reference, out of the queue. */
static struct frame *take(struct linkq *q, struct linkq_lane *lane,
			  struct linkq_entry *entry)
{
	struct frame *frame = entry->frame;

	entry->frame = NULL;
	q->all.frames--;
	q->all.bytes -= frame->len;
	q->held[entry->drop_class].frames--;
	q->held[entry->drop_class].bytes -= frame->len;
	lane->of[entry->drop_class]--;
	if (--lane->frames == 0)
		lane_reset(lane);
	return frame;
}

static void drop(struct linkq *q, struct linkq_lane *lane,
		 struct linkq_entry *entry, enum linkq_reason reason)
{
	q->drops.messages[entry->drop_class][reason]++;
	frame_release(take(q, lane, entry));
}

/* From the lowest lane that has one, for it would wait longest. */
static void evict_oldest(struct linkq *q, enum priority drop_class)
{
	for (unsigned i = PRIORITY_CLASSES; i-- > 0;) {
		struct linkq_lane *lane = &q->lanes[i];

		if (lane->of[drop_class] > 0) {
			drop(q, lane, lane_oldest(lane, drop_class),
			     LINKQ_EVICTED);
			return;
		}
	}
	check(!"a frame of the class");
}

bool linkq_room(const struct linkq *q, enum priority drop_class, size_t bytes)
{
	struct linkq_sum stay = {0, 0};

	/* What is as important as the newcomer, or more. */
	for (unsigned i = 0; i <= (unsigned)drop_class; i++) {
		stay.frames += q->held[i].frames;
		stay.bytes += q->held[i].bytes;
	}
	return stay.frames < q->max.frames &&
	       bytes <= q->max.bytes - stay.bytes;
}

int linkq_push(struct linkq *q, struct frame *frame, enum priority lane,
	       enum priority drop_class)
{
	check((unsigned)lane < PRIORITY_CLASSES);
	check((unsigned)drop_class < PRIORITY_CLASSES);
	check(frame->len > 0);
	if (!linkq_room(q, drop_class, frame->len)) {
		q->drops.messages[drop_class][LINKQ_REFUSED]++;
		return ERR_FULL;
	}
	while (q->all.frames == q->max.frames ||
	       frame->len > q->max.bytes - q->all.bytes) {
		evict_oldest(q, q->held[PRIORITY_DROPPABLE].frames > 0
					? PRIORITY_DROPPABLE
					: PRIORITY_NORMAL);
	}
	lane_push(&q->lanes[lane], frame, drop_class);
	q->all.frames++;
	q->all.bytes += frame->len;
	q->held[drop_class].frames++;
	q->held[drop_class].bytes += frame->len;
	return 0;
}

/* The lane whose turn it is: a lower one that is owed its next frame, else the
 * highest that waits. NULL: the queue is empty. */
static struct linkq_lane *next_lane(struct linkq *q)
{
	for (unsigned i = PRIORITY_CLASSES; i-- > 1;) {
		struct linkq_lane *lane = &q->lanes[i];

		if (lane->frames > 0 &&
		    lane->owed / LINKQ_SHARE >= lane_first(lane)->frame->len)
			return lane;
	}
	for (unsigned i = 0; i < PRIORITY_CLASSES; i++) {
		if (q->lanes[i].frames > 0)
			return &q->lanes[i];
	}
	return NULL;
}

/* Keeps the account of what the lanes that wait are owed. */
static void settle(struct linkq *q, struct linkq_lane *sent, size_t len)
{
	uint64_t paid = (uint64_t)len * LINKQ_SHARE;

	sent->owed -= min_of(sent->owed, paid);
	for (unsigned i = 1; i < PRIORITY_CLASSES; i++) {
		if (&q->lanes[i] != sent && q->lanes[i].frames > 0)
			q->lanes[i].owed += len;
	}
}

size_t linkq_fill(struct linkq *q, struct frame **frames, size_t frames_max,
		  size_t bytes_max, size_t *bytes)
{
	size_t count = 0;
	struct linkq_lane *lane;

	*bytes = 0;
	while (count < frames_max && (lane = next_lane(q))) {
		struct linkq_entry *first = lane_first(lane);
		size_t len = first->frame->len;

		if (count > 0 && *bytes + len > bytes_max)
			break; /* it will be first in the next batch */
		frames[count++] = take(q, lane, first);
		*bytes += len;
		settle(q, lane, len);
	}
	return count;
}

void linkq_clear(struct linkq *q)
{
	for (unsigned i = 0; i < PRIORITY_CLASSES; i++) {
		struct linkq_lane *lane = &q->lanes[i];

		while (lane->frames > 0)
			drop(q, lane, lane_first(lane), LINKQ_CLEARED);
	}
}

void linkq_fini(struct linkq *q)
{
	linkq_clear(q);
	for (unsigned i = 0; i < PRIORITY_CLASSES; i++)
		free(q->lanes[i].ring);
}

void linkq_drops_add(struct linkq_drops *to, const struct linkq_drops *from)
{
	for (unsigned i = 0; i < PRIORITY_CLASSES; i++) {
		for (unsigned j = 0; j < LINKQ_REASONS; j++)
			to->messages[i][j] += from->messages[i][j];
	}
}

uint64_t linkq_drops_total(const struct linkq_drops *drops)
{
	uint64_t total = 0;

	for (unsigned i = 0; i < PRIORITY_CLASSES; i++) {
		for (unsigned j = 0; j < LINKQ_REASONS; j++)
			total += drops->messages[i][j];
	}
	return total;
}

/* An evicted frame leaves a hole in its lane's ring, which is skipped when the
 * head gets there and squeezed out when the ring is full of them. To find the
 * oldest frame of a class without searching twice, each lane remembers for
 * each class a position before which there is none: it only moves forward, so
 * a frame is looked at once per class. All operations are O(1) amortised.
 */
#include "dispatcher/route/linkq.h"

#include "common/base/check.h"
#include "common/base/err.h"
#include "common/base/mem.h"

#include <stdlib.h>
#include <string.h>

#define RING_MIN  16u
#define RING_KEEP 256u /* a larger one is freed when its lane is empty */
#define KEPT	  PRIORITY_CLASSES
#define HEAP_HEAD 16 /* what malloc takes beside a frame's bytes */

/* What one more frame makes a queue count for when the fullest is looked for,
 * beside its bytes. */
#define FRAME_WEIGHT (sizeof(struct frame) + sizeof(struct linkq_entry))

void linkq_init(struct linkq *q, size_t bytes_max, struct linkq_pool *pool)
{
	size_t frames_max = bytes_max / LINKQ_FRAME_BYTES;

	check(frames_max > 0);
	check(frames_max <= UINT32_MAX / 4);
	memset(q, 0, sizeof(*q));
	q->max = (struct linkq_sum){(uint32_t)frames_max, bytes_max};
	q->pool = pool;
	list_init(&q->in_pool);
}

/* --- the pool ---------------------------------------------------------- */

void linkq_pool_init(struct linkq_pool *p, size_t max, unsigned queues_max)
{
	*p = (struct linkq_pool){.max = max, .floor_shift = 2};
	/* All queues below the floor are not even half of the pool. */
	while (((size_t)queues_max << (p->floor_shift + 1)) <= max / 2)
		p->floor_shift++;
	for (unsigned i = 0; i < LINKQ_POOL_SIZES; i++)
		list_init(&p->by_size[i]);
}

bool linkq_pool_take(struct linkq_pool *p, size_t bytes)
{
	if (p->bytes + bytes > p->max)
		return false;
	p->bytes += bytes;
	return true;
}

void linkq_pool_give_back(struct linkq_pool *p, size_t bytes)
{
	check(p->bytes >= bytes);
	p->bytes -= bytes;
}

size_t linkq_frame_cost(const struct frame *frame)
{
	return sizeof(*frame) + HEAP_HEAD + frame->len;
}

/* The first queue that holds a frame pays for it, for all. */
static void charge(const struct linkq *q, struct frame *frame)
{
	if (q->pool != NULL && frame->queued++ == 0)
		q->pool->bytes += linkq_frame_cost(frame);
}

void linkq_release(struct linkq *q, struct frame *frame)
{
	if (q->pool != NULL && --frame->queued == 0)
		linkq_pool_give_back(q->pool, linkq_frame_cost(frame));
	frame_release(frame);
}

/* Of what could be displaced. */
static size_t weight(const struct linkq *q)
{
	const struct linkq_sum *firm = &q->held[PRIORITY_CRITICAL];

	return q->all.bytes - firm->bytes +
	       (q->all.frames - firm->frames) * FRAME_WEIGHT;
}

/* Four sizes for each power of two, from the floor on; 0: below it. */
static unsigned size_of(const struct linkq_pool *p, size_t held)
{
	uint64_t quarters = held >> (p->floor_shift - 2);
	unsigned log;

	if (quarters < 4)
		return 0;
	log = 63 - (unsigned)__builtin_clzll(quarters);
	return 1 + 4 * (log - 2) + (unsigned)(quarters >> (log - 2) & 3);
}

/* The queue holds more or less than before. */
static void resized(struct linkq *q)
{
	struct linkq_pool *p = q->pool;
	unsigned size;

	if (p == NULL)
		return;
	size = size_of(p, weight(q));
	if (size == q->size)
		return;
	check(size < LINKQ_POOL_SIZES);
	q->size = size;
	list_remove(&q->in_pool);
	if (size == 0)
		return;
	list_push_back(&p->by_size[size], &q->in_pool);
	p->top = max_of(p->top, size);
}

static struct linkq *fullest(struct linkq_pool *p)
{
	while (p->top > 0 && list_empty(&p->by_size[p->top]))
		p->top--;
	return p->top == 0 ? NULL
			   : container_of(p->by_size[p->top].next, struct linkq,
					  in_pool);
}

/* --- a lane ------------------------------------------------------------ */

static struct linkq_entry *lane_at(const struct linkq_lane *lane, uint64_t at)
{
	return &lane->ring[at & (lane->cap - 1)];
}

static void recharge_ring(const struct linkq *q, uint32_t old_cap,
			  uint32_t new_cap)
{
	if (q->pool == NULL)
		return;
	q->pool->bytes += new_cap * sizeof(struct linkq_entry);
	linkq_pool_give_back(q->pool, old_cap * sizeof(struct linkq_entry));
}

/* The capacity that the lane needs for one more. */
static uint32_t lane_cap(const struct linkq_lane *lane)
{
	if (lane->tail - lane->head < lane->cap ||
	    lane->frames < lane->cap / 2) /* holes */
		return lane->cap;
	return max_of(lane->cap * 2, RING_MIN);
}

/* Moves what is there to the front of a ring of another capacity. */
static void lane_rebuild(const struct linkq *q, struct linkq_lane *lane,
			 uint32_t cap)
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
	recharge_ring(q, lane->cap, cap);
	lane->ring = ring;
	lane->cap = cap;
	lane->head = 0;
	lane->tail = len;
	memset(lane->oldest, 0, sizeof(lane->oldest));
}

static void lane_push(const struct linkq *q, struct linkq_lane *lane,
		      struct frame *frame, unsigned drop_class)
{
	if (lane->tail - lane->head == lane->cap)
		lane_rebuild(q, lane, lane_cap(lane));
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
				       unsigned drop_class)
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

static void lane_reset(const struct linkq *q, struct linkq_lane *lane)
{
	if (lane->cap > RING_KEEP) {
		free(lane->ring);
		recharge_ring(q, lane->cap, 0);
		lane->ring = NULL;
		lane->cap = 0;
	}
	lane->head = lane->tail = 0;
	lane->owed = 0;
	memset(lane->oldest, 0, sizeof(lane->oldest));
}

/* --- the queue --------------------------------------------------------- */

/* Takes a frame, and its reference, out of the queue. */
static struct frame *linkq_take(struct linkq *q, struct linkq_lane *lane,
				struct linkq_entry *entry)
{
	struct frame *frame = entry->frame;

	entry->frame = NULL;
	q->all.frames--;
	q->all.bytes -= frame->len;
	q->held[entry->drop_class].frames--;
	q->held[entry->drop_class].bytes -= frame->len;
	if (q->pool != NULL && entry->drop_class == PRIORITY_CRITICAL)
		q->pool->firm -= frame->len;
	lane->of[entry->drop_class]--;
	if (--lane->frames == 0)
		lane_reset(q, lane);
	resized(q);
	return frame;
}

static void drop(struct linkq *q, struct linkq_lane *lane,
		 struct linkq_entry *entry, enum linkq_reason reason)
{
	if (entry->drop_class != KEPT)
		q->drops.messages[entry->drop_class][reason]++;
	linkq_release(q, linkq_take(q, lane, entry));
}

/* From the lowest lane that has one, for it would wait longest. */
static struct linkq_lane *lowest_with(struct linkq *q, unsigned drop_class)
{
	for (unsigned i = PRIORITY_CLASSES; i-- > 0;) {
		if (q->lanes[i].of[drop_class] > 0)
			return &q->lanes[i];
	}
	check(!"a frame of the class");
	return NULL;
}

static void evict_oldest(struct linkq *q, unsigned drop_class)
{
	struct linkq_lane *lane = lowest_with(q, drop_class);

	drop(q, lane, lane_oldest(lane, drop_class), LINKQ_EVICTED);
}

/* For the pool: the oldest of the least class goes, and room that nobody needs
 * any more. False: there is none that is less than `less_than`. */
static bool linkq_give_way(struct linkq *q, unsigned less_than)
{
	static const unsigned order[] = {PRIORITY_DROPPABLE, PRIORITY_NORMAL,
					 KEPT};
	struct linkq_pool *p = q->pool;
	struct linkq_lane *lane;
	struct frame *frame;
	unsigned class, i = 0;

	while (i < array_len(order) && order[i] != less_than &&
	       q->held[order[i]].frames == 0)
		i++;
	if (i == array_len(order) || order[i] == less_than)
		return false;
	class = order[i];
	lane = lowest_with(q, class);
	p->displaced++;
	frame = frame_hold(lane_oldest(lane, class)->frame);
	drop(q, lane, lane_oldest(lane, class), LINKQ_EVICTED);
	/* The mark that is left of it wants the room that it had. */
	if (class == KEPT)
		p->on_kept(p->ctx, q, frame, (enum priority)(lane - q->lanes));
	frame_release(frame);
	if (lane->cap > RING_KEEP && lane->frames < lane->cap / 8)
		lane_rebuild(q, lane, lane->cap / 4);
	if (q->size > 0) { /* the next time it is another's turn */
		list_remove(&q->in_pool);
		list_push_back(&p->by_size[q->size], &q->in_pool);
	}
	return true;
}

/* Who must be critical to be there is not displaced. */
#define LESS_THAN_ALL PRIORITY_CRITICAL

bool linkq_pool_reserve(struct linkq_pool *p, size_t bytes)
{
	while (p->bytes + bytes > p->max) {
		struct linkq *q = fullest(p);

		if (q == NULL || !linkq_give_way(q, LESS_THAN_ALL))
			return false;
	}
	return true;
}

/* What a newcomer adds to the pool, as things are. */
static size_t need_of(const struct linkq *q, const struct frame *frame,
		      enum priority lane)
{
	return linkq_growth(q, lane) +
	       (frame->queued == 0 ? linkq_frame_cost(frame) : 0);
}

/* Makes room for it. What is displaced may change what it needs: its own lane,
 * or the frame itself in a fuller queue. */
static bool pool_has_room(struct linkq *q, const struct frame *frame,
			  enum priority lane, unsigned drop_class)
{
	struct linkq_pool *p = q->pool;

	while (unlikely(p->bytes + need_of(q, frame, lane) > p->max)) {
		struct linkq *most = fullest(p);

		if (most == NULL ||
		    !linkq_give_way(most,
				    most == q ? drop_class : LESS_THAN_ALL))
			return false;
	}
	return true;
}

size_t linkq_growth(const struct linkq *q, enum priority lane)
{
	const struct linkq_lane *l = &q->lanes[lane];

	return (lane_cap(l) - l->cap) * sizeof(struct linkq_entry);
}

/* Kept is as important as critical. */
bool linkq_room(const struct linkq *q, enum priority drop_class, size_t bytes)
{
	struct linkq_sum stay = q->held[KEPT];

	/* What is as important as the newcomer, or more. */
	for (unsigned i = 0; i <= (unsigned)drop_class; i++) {
		stay.frames += q->held[i].frames;
		stay.bytes += q->held[i].bytes;
	}
	return stay.frames < q->max.frames &&
	       bytes <= q->max.bytes - stay.bytes;
}

static int push(struct linkq *q, struct frame *frame, enum priority lane,
		unsigned drop_class)
{
	check((unsigned)lane < PRIORITY_CLASSES);
	check(frame->len > 0);
	if (!linkq_room(q,
			drop_class == KEPT ? PRIORITY_CRITICAL
					   : (enum priority)drop_class,
			frame->len) ||
	    (q->pool != NULL && !pool_has_room(q, frame, lane, drop_class)))
		return ERR_FULL;
	while (q->all.frames == q->max.frames ||
	       frame->len > q->max.bytes - q->all.bytes) {
		evict_oldest(q, q->held[PRIORITY_DROPPABLE].frames > 0
					? PRIORITY_DROPPABLE
					: PRIORITY_NORMAL);
	}
	charge(q, frame);
	lane_push(q, &q->lanes[lane], frame, drop_class);
	q->all.frames++;
	q->all.bytes += frame->len;
	q->held[drop_class].frames++;
	q->held[drop_class].bytes += frame->len;
	if (q->pool != NULL && drop_class == PRIORITY_CRITICAL)
		q->pool->firm += frame->len;
	resized(q);
	return 0;
}

int linkq_push(struct linkq *q, struct frame *frame, enum priority lane,
	       enum priority drop_class)
{
	int rc;

	check((unsigned)drop_class < PRIORITY_CLASSES);
	rc = push(q, frame, lane, drop_class);
	if (rc != 0)
		q->drops.messages[drop_class][LINKQ_REFUSED]++;
	return rc;
}

int linkq_push_kept(struct linkq *q, struct frame *frame, enum priority lane)
{
	return push(q, frame, lane, KEPT);
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
static void linkq_settle(struct linkq *q, struct linkq_lane *sent, size_t len)
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
		frames[count++] = linkq_take(q, lane, first);
		*bytes += len;
		linkq_settle(q, lane, len);
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
	for (unsigned i = 0; i < PRIORITY_CLASSES; i++) {
		recharge_ring(q, q->lanes[i].cap, 0);
		free(q->lanes[i].ring);
	}
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

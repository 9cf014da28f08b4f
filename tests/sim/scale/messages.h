/* messages.h - reliable messages: who published what, and what of it each
 * client got, exactly.
 *
 * Each client follows a channel of its own and one of MATCHES that many follow.
 * Both keep history. The matches' logs are real (memlog.h); an own channel's is
 * two numbers in the client, which do the same by nearly the same rule: all
 * that a client lacks is lost when the oldest of it is too old. Live messages
 * arrive at once: what is late or lost on a standing link is sim.c's subject.
 */
#ifndef STENTOR_TESTS_SIM_SCALE_MESSAGES_H
#define STENTOR_TESTS_SIM_SCALE_MESSAGES_H

#include "common/codec/place.h"
#include "dispatcher/store/memlog.h"
#include "tests/sim/scale/fleet.h"

#define MATCH_HISTORY	  200
#define OWN_HISTORY	  50
#define HISTORY_TTL_MS	  (10 * MINUTE)
#define OWN_EPOCH	  1
#define RECORD_BYTES	  64
#define CHANNEL_NAME_SIZE 24

/* A client's places, and its own channel's log. */
struct client_places {
	uint32_t own_top, own_at; /* the log's, the client's */
	uint32_t own_ms; /* when the oldest that it lacks was published */
	uint32_t match_at;
};

static struct {
	struct memlogs logs;
	char name[MATCHES][CHANNEL_NAME_SIZE];
	struct store_place top[MATCHES];
	uint64_t followers[MATCHES]; /* connected ones */
	double match_due, own_due;
	uint64_t began_ms;
	struct {
		uint64_t published, delivered, resumed, lost;
		uint64_t peak; /* published in a second */
	} total;
	uint64_t second_ms, second_published;
} messages;

static void own_name(char name[CHANNEL_NAME_SIZE], uint32_t number)
{
	snprintf(name, CHANNEL_NAME_SIZE, "user:%u", number);
}

/* --- the shared ones --------------------------------------------------- */

static void match_publish(unsigned match)
{
	static const uint8_t record[RECORD_BYTES];
	struct store_append a = {
		.channel = messages.name[match],
		.record = record,
		.len = sizeof(record),
		.size = MATCH_HISTORY,
		.ttl_ms = HISTORY_TTL_MS,
		.idempotency_key = "",
	};

	memlogs_append(&messages.logs, &a, world.now_ms);
	check(a.rc == 0);
	messages.top[match] = a.place;
	messages.total.published++;
	messages.total.delivered += messages.followers[match];
}

/* Whole ones of what is due by a rate. */
static uint64_t due(double *owed, double per_step)
{
	uint64_t whole;

	*owed += per_step;
	whole = (uint64_t)*owed;
	*owed -= (double)whole;
	return whole;
}

static void matches_publish(void)
{
	uint64_t count =
		due(&messages.match_due,
		    cluster.plan->match_per_s * MATCHES * STEP_MS / 1000);

	while (count-- > 0)
		match_publish((unsigned)below(MATCHES));
}

/* --- coming back ------------------------------------------------------- */

static void own_resume(struct client_places *p, uint64_t at)
{
	uint32_t now = (uint32_t)(world.now_ms - messages.began_ms);
	uint64_t kept = p->own_top - min_of(p->own_top, (uint32_t)OWN_HISTORY);

	if (at < p->own_top && now - p->own_ms >= HISTORY_TTL_MS)
		kept = p->own_top;
	messages.total.lost += kept - min_of(kept, at);
	messages.total.resumed += p->own_top - max_of(kept, at);
	p->own_at = p->own_top;
}

static void match_resume(unsigned match, const struct place *at)
{
	struct store_read r = {
		.channel = messages.name[match],
		.epoch = at->epoch,
		.after = at->offset,
		.records_max = MATCH_HISTORY,
		.bytes_max = 1u << 20,
	};

	memlogs_read(&messages.logs, &r, world.now_ms);
	check(r.rc == 0 && r.top.epoch == at->epoch);
	messages.total.resumed += r.count;
	messages.total.lost += r.top.offset - at->offset - r.count;
}

/* The client comes with its last id, as any EventSource does. */
static void messages_resume(uint32_t client, struct client_places *p)
{
	unsigned match = client % MATCHES;
	char own[CHANNEL_NAME_SIZE], id[PLACE_ID_SIZE(2)];
	const char *names[2] = {own, messages.name[match]};
	struct place at[2] = {
		{OWN_EPOCH, p->own_at},
		{messages.top[match].epoch, p->match_at},
	};
	uint32_t list;

	own_name(own, client);
	list = place_list_hash(names, 2);
	place_encode(id, list, at, 2);
	check(place_decode(id, list, at, 2) == 0);
	own_resume(p, at[0].offset);
	match_resume(match, &at[1]);
	messages.followers[match]++;
}

/* A new page has no place: it begins with what comes next. */
static void messages_begin(uint32_t client, struct client_places *p)
{
	p->own_at = p->own_top;
	messages.followers[client % MATCHES]++;
}

/* The stream ends, here. */
static void messages_leave(uint32_t client, struct client_places *p)
{
	unsigned match = client % MATCHES;

	p->match_at = (uint32_t)messages.top[match].offset;
	messages.followers[match]--;
}

static void own_publish(struct client_places *p, bool connected)
{
	if (p->own_at == p->own_top)
		p->own_ms = (uint32_t)(world.now_ms - messages.began_ms);
	p->own_top++;
	messages.total.published++;
	if (!connected)
		return;
	p->own_at = p->own_top;
	messages.total.delivered++;
}

/* --- the whole --------------------------------------------------------- */

static void messages_tick(void)
{
	matches_publish();
	if (world.now_ms - messages.second_ms < SECOND)
		return;
	messages.total.peak =
		max_of(messages.total.peak,
		       messages.total.published - messages.second_published);
	messages.second_ms = world.now_ms;
	messages.second_published = messages.total.published;
}

static void messages_begin_day(void)
{
	memset(&messages, 0, sizeof(messages));
	messages.began_ms = messages.second_ms = world.now_ms;
	memlogs_init(&messages.logs, 64u << 20, 0);
	for (unsigned i = 0; i < MATCHES; i++) {
		snprintf(messages.name[i], CHANNEL_NAME_SIZE, "match:%u", i);
		match_publish(i);
	}
}

#endif

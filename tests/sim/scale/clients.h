/* clients.h - browsers: EventSources that never give up, and know nothing but
 * `retry:`.
 *
 * A client is away; or its stream is open, and it stands in a worker's list; or
 * it waits for its next attempt, and its timer is armed.
 */
#ifndef STENTOR_TESTS_SIM_SCALE_CLIENTS_H
#define STENTOR_TESTS_SIM_SCALE_CLIENTS_H

#include "common/ds/wheel.h"
#include "tests/sim/scale/balancer.h"
#include "tests/sim/scale/messages.h"
#include "tests/sim/scale/report.h"

#define CONNECT_MS     100  /* an attempt takes */
#define TIME_OUT_MS    3000 /* one to a node that is lost */
#define WHEEL_SLOTS    2048
#define PAGES_CLOSED   500 /* per mille of sessions that end: the user goes */
#define SLOTS_PERMILLE 1100

struct client {
	struct list in_place; /* clients.away, or sim_worker.streams */
	struct wheel_timer timer;
	struct sim_worker *worker; /* NULL: no stream */
	uint32_t since_ms;	   /* when it came, or lost its stream */
	uint32_t retry_ms;	   /* that it was told last */
	bool present, had_stream, refused;
	struct client_places places;
};

static struct {
	struct client *all;
	uint32_t slots, present, connected;
	struct list away; /* struct client.in_place */
	struct wheel wheel;
	double session_due;
	/* The crowd: from one number to another. */
	uint32_t from, to;
	uint64_t from_ms, to_ms;
} clients;

static uint32_t number_of(const struct client *c)
{
	return (uint32_t)(c - clients.all);
}

static uint32_t day_ms(void)
{
	return (uint32_t)(world.now_ms - messages.began_ms);
}

static uint32_t worker_retry_ms(void)
{
	return (uint32_t)(RETRY_MIN_MS +
			  below(RETRY_MAX_MS - RETRY_MIN_MS + 1));
}

/* --- streams ----------------------------------------------------------- */

static void announce(struct keys *keys, const char *name)
{
	const struct nodes *n = &cluster.dispatcher[0].nodes;

	key_put(keys, hash_bytes(&n->key, name, strlen(name)));
}

/* `match`: it is the worker's first stream there, or was the last. That may
 * come and go between two frames, in which additions come first. */
static void interest_of(const struct client *c, struct sim_worker *w,
			struct keys *keys, bool match)
{
	char own[CHANNEL_NAME_SIZE];

	own_name(own, number_of(c));
	announce(keys, own);
	if (!match)
		return;
	worker_announces(w);
	announce(keys, messages.name[number_of(c) % MATCHES]);
}

static void stream_begin(struct client *c, struct sim_worker *w)
{
	unsigned match = number_of(c) % MATCHES;

	c->worker = w;
	c->retry_ms = worker_retry_ms();
	list_push_back(&w->streams, &c->in_place);
	w->count++;
	w->begun++;
	clients.connected++;
	interest_of(c, w, &w->add, w->on_match[match]++ == 0);
	w->matches += w->on_match[match] == 1;
	if (c->had_stream)
		messages_resume(number_of(c), &c->places);
	else
		messages_begin(number_of(c), &c->places);
	report_in(day_ms() - c->since_ms, c->had_stream, c->refused);
	c->had_stream = true;
	c->refused = false;
}

static void stream_end(struct client *c)
{
	struct sim_worker *w = c->worker;
	unsigned match = number_of(c) % MATCHES;

	list_remove(&c->in_place);
	w->count--;
	clients.connected--;
	interest_of(c, w, &w->remove, --w->on_match[match] == 0);
	w->matches -= w->on_match[match] == 0;
	messages_leave(number_of(c), &c->places);
	c->worker = NULL;
	c->since_ms = day_ms();
}

/* --- attempts ---------------------------------------------------------- */

static void try_in(struct client *c, uint64_t ms)
{
	wheel_arm(&clients.wheel, &c->timer, world.now_ms + ms + CONNECT_MS);
}

/* As request.c's subscribe(). True: it has a stream. */
static bool worker_admits(struct sim_worker *w, uint32_t *retry_ms)
{
	const struct plan *plan = cluster.plan;
	uint64_t max = plan->connections_max / WORKERS;

	*retry_ms = worker_retry_ms();
	if (w->pace.draining)
		return false;
	if (w->count < max && limits_take(&w->limits, world.now_ms))
		return true;
	*retry_ms = comeback_ms(&w->comeback, world.now_ms,
				comeback_room(w->count, max, plan->rate_max,
					      RETRY_WINDOW_MS,
					      w->heard.known && !w->heard.full),
				*retry_ms);
	return false;
}

static void on_attempt(void *ctx UNUSED, struct wheel_timer *timer)
{
	struct client *c = container_of(timer, struct client, timer);
	struct sim_node *n = balancer_pick();
	struct sim_worker *w;
	uint32_t retry_ms;

	if (n == NULL || n->state == NODE_GONE) {
		try_in(c, c->retry_ms + (n && n->lost ? TIME_OUT_MS : 0));
		return;
	}
	w = &n->worker[below(WORKERS)];
	if (worker_admits(w, &retry_ms)) {
		stream_begin(c, w);
		return;
	}
	if (!w->pace.draining)
		report_refused(&c->refused);
	c->retry_ms = retry_ms;
	try_in(c, retry_ms);
}

/* --- coming and going -------------------------------------------------- */

static void client_come(struct client *c)
{
	list_remove(&c->in_place);
	c->present = true;
	c->had_stream = c->refused = false;
	c->retry_ms = RETRY_MIN_MS;
	c->since_ms = day_ms();
	clients.present++;
	try_in(c, below(SECOND));
}

static void client_go(struct client *c)
{
	if (c->worker != NULL)
		stream_end(c);
	wheel_cancel(&c->timer);
	c->present = c->refused = false;
	clients.present--;
	list_push_back(&clients.away, &c->in_place);
}

/* Loses its stream and comes back. */
static void client_drop(struct client *c, uint64_t notice_ms)
{
	stream_end(c);
	try_in(c, c->retry_ms + notice_ms);
}

static uint32_t crowd(void)
{
	double x, part;

	if (world.now_ms >= clients.to_ms)
		return clients.to;
	x = (double)(world.now_ms - clients.from_ms) /
	    (double)(clients.to_ms - clients.from_ms);
	part = x * x * (3 - 2 * x);
	return (uint32_t)(clients.from +
			  part * ((double)clients.to - clients.from));
}

static void crowd_moves(uint32_t to, uint64_t within_ms)
{
	clients.from = clients.present;
	clients.to = to;
	clients.from_ms = world.now_ms;
	clients.to_ms = world.now_ms + within_ms;
}

static struct client *any_client(void)
{
	return &clients.all[below(clients.slots)];
}

static void sessions_end(void)
{
	uint64_t count = due(&clients.session_due,
			     (double)clients.slots * STEP_MS /
				     (double)cluster.plan->session_ms);

	while (count-- > 0) {
		struct client *c = any_client();

		if (c->worker == NULL)
			continue;
		if (chance(PAGES_CLOSED))
			client_go(c);
		else
			client_drop(c, 0);
	}
}

static void own_messages(void)
{
	uint64_t count = due(&messages.own_due,
			     (double)clients.slots * cluster.plan->own_per_s *
				     STEP_MS / 1000);

	while (count-- > 0) {
		struct client *c = any_client();

		if (c->present)
			own_publish(&c->places, c->worker != NULL);
	}
}

static void clients_tick(void)
{
	uint32_t wanted = crowd();

	own_messages();
	sessions_end();
	while (clients.present < wanted)
		client_come(container_of(clients.away.next, struct client,
					 in_place));
	while (clients.present > wanted) {
		struct client *c = any_client();

		if (c->present)
			client_go(c);
	}
	wheel_run(&clients.wheel, world.now_ms, UINT32_MAX, on_attempt, NULL);
}

/* --- the whole --------------------------------------------------------- */

static void clients_begin(void)
{
	memset(&clients, 0, sizeof(clients));
	clients.slots = (uint32_t)((uint64_t)cluster.plan->clients *
				   SLOTS_PERMILLE / 1000);
	clients.all = xcalloc(clients.slots, sizeof(*clients.all));
	list_init(&clients.away);
	wheel_init(&clients.wheel, WHEEL_SLOTS, STEP_MS, world.now_ms);
	for (uint32_t i = 0; i < clients.slots; i++) {
		wheel_timer_init(&clients.all[i].timer);
		list_push_back(&clients.away, &clients.all[i].in_place);
	}
}

/* Before the workers. */
static void clients_end(void)
{
	for (uint32_t i = 0; i < clients.slots; i++) {
		if (clients.all[i].present)
			client_go(&clients.all[i]);
	}
	wheel_fini(&clients.wheel);
	free(clients.all);
}

#endif

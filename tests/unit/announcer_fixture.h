/* announcer_fixture.h - a worker's announcer, and dispatchers played by the
 * test. */
#ifndef STENTOR_TESTS_ANNOUNCER_FIXTURE_H
#define STENTOR_TESTS_ANNOUNCER_FIXTURE_H

#include "connnode/link/announcer.h"

#include "tests/unit/link_fixture.h"

#include <stdio.h>
#include <stdlib.h>

#define FRAME_INIT STENTOR__LINK__V1__FRAME__INIT
#define THEIRS	   77

static struct rule match_all = {.pattern = "*", .priority = PRIORITY_NORMAL};
static const struct rules rules = {.rule = &match_all, .count = 1};

/* A worker's announcer and what it did. */
struct fixture {
	struct channels channels;
	struct announcer a;
	struct sent sent;
	struct upstream *last; /* that something was sent to */
	unsigned redials, deliveries;
	char delivered[64];
	unsigned history_answers, tops_answers, ups, downs;
	uint64_t answered_ms, drain_number;
	const struct upstream *changed;
	uint64_t wall_us;			     /* our clock */
	uint64_t published_us, kept_us, kept_ttl_ms; /* in what came last */
	unsigned moved;
	uint64_t flush_ms;
};

/* A turn of the loop, long after the one before. */
static UNUSED void flush(struct fixture *f)
{
	f->flush_ms += ANNOUNCER_GATHER_MAX_MS;
	announcer_flush(&f->a, f->flush_ms);
}

static int on_send(void *ctx, struct upstream *u, const struct iovec *pieces,
		   size_t count)
{
	struct fixture *f = ctx;

	f->last = u;
	return sent_take(&f->sent, pieces, count);
}

static void on_redial(void *ctx, struct upstream *u UNUSED)
{
	((struct fixture *)ctx)->redials++;
}

static void on_deliver(void *ctx, LinkDelivery *const *d, size_t count)
{
	struct fixture *f = ctx;

	f->deliveries += (unsigned)count;
	f->published_us = d[0]->published_us;
	snprintf(f->delivered, sizeof(f->delivered), "%s", d[0]->channel);
}

static void on_answers(void *ctx, const LinkFrame *frame, uint64_t now_ms)
{
	struct fixture *f = ctx;

	f->history_answers += (unsigned)frame->n_history_answers;
	f->tops_answers += (unsigned)frame->n_tops_answers;
	f->answered_ms = now_ms;
	if (frame->n_history_answers > 0 &&
	    frame->history_answers[0]->n_messages > 0) {
		f->kept_us =
			frame->history_answers[0]->messages[0]->published_us;
		f->kept_ttl_ms = frame->history_answers[0]->messages[0]->ttl_ms;
	}
}

/* After the deliveries of its frame. */
static void on_moved(void *ctx, const LinkFrame *frame)
{
	struct fixture *f = ctx;

	assert_true(frame->n_moved > 0 || frame->moved_unnamed);
	f->moved++;
	snprintf(f->delivered + strlen(f->delivered), 20, "+moved");
}

static uint64_t on_wall(void *ctx)
{
	return ((struct fixture *)ctx)->wall_us;
}

static void on_drain(void *ctx, const Stentor__Link__V1__DrainOrder *order)
{
	((struct fixture *)ctx)->drain_number = order->number;
}

static void on_link_changed(void *ctx, struct upstream *u, bool up)
{
	struct fixture *f = ctx;

	f->changed = u;
	if (up)
		f->ups++;
	else
		f->downs++;
}

static const struct announcer_ops ops = {
	.send = on_send,
	.redial = on_redial,
	.deliver = on_deliver,
	.answers = on_answers,
	.moved = on_moved,
	.wall_us = on_wall,
	.drain = on_drain,
	.link_changed = on_link_changed,
};

static int set_up(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct announcer_identity id = {
		.node = "n",
		.link_address = "tcp://w:1",
		.listen_address = "w:2",
		.version = "v",
		.token = "secret",
		.worker = 3,
		.incarnation = 9,
		.started_ms = 1234,
	};

	sent_init(&f->sent);
	channels_init(&f->channels, &rules);
	announcer_init(&f->a, &f->channels, &id, &ops, f);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;

	announcer_fini(&f->a);
	channels_fini(&f->channels);
	sent_fini(&f->sent);
	free(f);
	return 0;
}

/* --- the dispatcher's side -------------------------------------------------
 */

static void feed(struct fixture *f, struct link_header h, LinkFrame *content,
		 uint64_t now_ms)
{
	struct frame *bytes = peer_frame(h, content);

	announcer_receive(&f->a, bytes->bytes, bytes->len, now_ms);
	frame_release(bytes);
}

/* Answers the hello of an upstream. */
static UNUSED void welcome_with(struct fixture *f, struct upstream *u,
				uint64_t epoch, uint8_t key[16], uint64_t store,
				uint64_t now_ms)
{
	Stentor__Link__V1__HelloAck ack = STENTOR__LINK__V1__HELLO_ACK__INIT;
	LinkFrame content = FRAME_INIT;

	ack.dispatcher = (char *)"d";
	ack.hash_key.data = key;
	ack.hash_key.len = 16;
	ack.store = store;
	content.hello_ack = &ack;
	feed(f, (struct link_header){epoch, u->link.epoch, 0, 0, 0}, &content,
	     now_ms);
}

static UNUSED void welcome_as(struct fixture *f, struct upstream *u,
			      uint64_t epoch, uint8_t key[16], uint64_t now_ms)
{
	welcome_with(f, u, epoch, key, 0, now_ms);
}

static UNUSED struct upstream *link_up(struct fixture *f, const char *address,
				       uint8_t key_byte)
{
	struct upstream *u = announcer_add(&f->a, address);
	uint8_t key[16];

	memset(key, key_byte, sizeof(key));
	announcer_connected(&f->a, u, 1000);
	welcome_as(f, u, THEIRS, key, 1000);
	assert_int_equal(u->phase, UPSTREAM_UP);
	return u;
}

/* The next frame in sequence, acknowledging all up to `ack`. */
static UNUSED void speak(struct fixture *f, struct upstream *u, uint64_t ack,
			 LinkFrame *content, uint64_t now_ms)
{
	LinkFrame empty = FRAME_INIT;

	feed(f,
	     (struct link_header){u->link.peer_epoch, u->link.epoch,
				  u->link.rx_seq + 1, ack, 0},
	     content ? content : &empty, now_ms);
}

/* --- channels --------------------------------------------------------------
 */

static UNUSED struct channel *
join_channel(struct fixture *f, struct subscription *s, const char *name)
{
	struct channel *ch = channels_get(&f->channels, name, strlen(name));

	if (channels_subscribe(&f->channels, ch, s, NULL, 0))
		announcer_touch(&f->a, ch);
	return ch;
}

static UNUSED void leave_channel(struct fixture *f, struct subscription *s)
{
	struct channel *ch = s->channel;

	if (channels_unsubscribe(&f->channels, s))
		announcer_touch(&f->a, ch);
}

static UNUSED uint64_t key_of(const struct upstream *u, const char *name)
{
	return hash_bytes(&u->key, name, strlen(name));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

#endif

/* hostile_redis.h - a small Redis server on the test's own loop, which says
 * what each test wants it to say, and the store that is its client. */
#ifndef STENTOR_TESTS_HOSTILE_REDIS_H
#define STENTOR_TESTS_HOSTILE_REDIS_H

#include "common/base/mem.h"
#include "dispatcher/store/store.h"
#include "tests/unit/loop_fixture.h"

#include <hiredis/hiredis.h>
#include <stdio.h>
#include <string.h>

#define SHA "0123456789012345678901234567890123456789"
#define GOOD_INFO                                                    \
	"redis_version:7.2.0\r\nrun_id:r\r\nrole:master\r\n"         \
	"master_replid:a\r\nconnected_slaves:0\r\nused_memory:1\r\n" \
	"cluster_enabled:0\r\n"

struct fixture {
	struct loop_fixture *l;
	uv_tcp_t listener;
	char url[64];
	struct store *store;
	bool closed;
	/* What the server does. */
	const char *info;	  /* the text of INFO */
	const char *info_error;	  /* instead */
	const char *script_reply; /* to EVALSHA, as it goes over the wire */
	bool silent, hangs_up;	  /* always; at EVALSHA */
	bool holds;		  /* from EVALSHA on says nothing by itself */
	struct client *held;
	uint64_t instance;
	bool deaf;	      /* what is published is heard by nobody */
	const char *greeting; /* before any question */
	size_t flood;	      /* bytes after the script's reply */
	unsigned connections, scripts;
};

struct client {
	uv_tcp_t tcp;
	struct fixture *f;
	redisReader *reader;
	char bytes[4096];
};

static void on_client_closed(uv_handle_t *handle)
{
	struct client *c = handle->data;

	if (c->f->held == c)
		c->f->held = NULL;

	redisReaderFree(c->reader);
	free(c);
}

static void client_close(struct client *c)
{
	if (!uv_is_closing((uv_handle_t *)&c->tcp))
		uv_close((uv_handle_t *)&c->tcp, on_client_closed);
}

static void on_sent(uv_write_t *write, int status UNUSED)
{
	free(write->data);
	free(write);
}

static void say_bytes(struct client *c, const char *bytes, size_t len)
{
	uv_write_t *write = xcalloc(1, sizeof(*write));
	char *copy = xmemdupz(bytes, len);
	uv_buf_t buf = uv_buf_init(copy, (unsigned)len);

	write->data = copy;
	if (uv_write(write, (uv_stream_t *)&c->tcp, &buf, 1, on_sent) != 0)
		on_sent(write, 0);
}

static void say(struct client *c, const char *text)
{
	say_bytes(c, text, strlen(text));
}

static void say_bulk(struct client *c, const char *text)
{
	char head[32];

	snprintf(head, sizeof(head), "$%zu\r\n", strlen(text));
	say(c, head);
	say(c, text);
	say(c, "\r\n");
}

static void flood(struct client *c, size_t len)
{
	char *zeros = xcalloc(1, 1 << 20);

	for (size_t sent = 0; sent < len; sent += 1 << 20)
		say_bytes(c, zeros, 1 << 20);
	free(zeros);
}

static void answer(struct client *c, const redisReply *q)
{
	struct fixture *f = c->f;
	const char *word = q->element[0]->str;

	if (f->silent || f->held == c)
		return;
	if (strcmp(word, "INFO") == 0 && f->info_error != NULL)
		say(c, f->info_error);
	else if (strcmp(word, "INFO") == 0)
		say_bulk(c, f->info);
	else if (strcmp(word, "CLIENT") == 0)
		say(c, ":1\r\n");
	else if (strcmp(word, "SCRIPT") == 0)
		say_bulk(c, SHA);
	else if (strcmp(word, "GET") == 0)
		say_bulk(c, "42");
	else if (strcmp(word, "SUBSCRIBE") == 0 && f->deaf)
		say(c, "*3\r\n$9\r\nsubscribe\r\n$1\r\nx\r\n:1\r\n");
	else if (strcmp(word, "PUBLISH") == 0 && f->deaf)
		say(c, ":1\r\n");
	else if (strcmp(word, "EVALSHA") != 0)
		say(c, "+OK\r\n");
	else {
		f->scripts++;
		if (f->holds)
			f->held = c;
		else if (f->hangs_up)
			client_close(c);
		else
			say(c, f->script_reply);
		if (f->flood > 0)
			flood(c, f->flood);
	}
}

static void on_alloc(uv_handle_t *handle, size_t suggested UNUSED,
		     uv_buf_t *out)
{
	struct client *c = handle->data;

	*out = uv_buf_init(c->bytes, sizeof(c->bytes));
}

static void on_data(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
	struct client *c = stream->data;
	void *q;

	if (n < 0) {
		client_close(c);
		return;
	}
	redisReaderFeed(c->reader, buf->base, (size_t)n);
	while (!uv_is_closing((uv_handle_t *)&c->tcp) &&
	       redisReaderGetReply(c->reader, &q) == REDIS_OK && q != NULL) {
		answer(c, q);
		freeReplyObject(q);
	}
}

static void on_connection(uv_stream_t *listener, int status)
{
	struct client *c = xcalloc(1, sizeof(*c));

	assert_int_equal(status, 0);
	c->f = listener->data;
	c->f->connections++;
	c->reader = redisReaderCreate();
	c->tcp.data = c;
	uv_tcp_init(listener->loop, &c->tcp);
	assert_int_equal(uv_accept(listener, (uv_stream_t *)&c->tcp), 0);
	uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_data);
	if (c->f->greeting != NULL)
		say(c, c->f->greeting);
}

static int setup(void **state)
{
	struct fixture *f = xcalloc(1, sizeof(*f));
	struct sockaddr_in at;
	int len = sizeof(at);

	if (loop_setup((void **)&f->l) != 0)
		return -1;
	uv_tcp_init(&f->l->loop, &f->listener);
	uv_ip4_addr("127.0.0.1", 0, &at);
	f->listener.data = f;
	uv_tcp_bind(&f->listener, (struct sockaddr *)&at, 0);
	uv_listen((uv_stream_t *)&f->listener, 16, on_connection);
	uv_tcp_getsockname(&f->listener, (struct sockaddr *)&at, &len);
	snprintf(f->url, sizeof(f->url), "redis://127.0.0.1:%u",
		 ntohs(at.sin_port));
	f->info = GOOD_INFO;
	f->script_reply = "$3\r\n5 1\r\n";
	*state = f;
	return 0;
}

static void on_store_closed(void *ctx)
{
	((struct fixture *)ctx)->closed = true;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	int rc;

	if (f->store != NULL) {
		store_close(f->store, on_store_closed, f);
		loop_run_until(f->l, &f->closed);
	}
	uv_close((uv_handle_t *)&f->listener, NULL);
	rc = loop_teardown((void **)&f->l);
	free(f);
	return rc;
}

static void open_store(struct fixture *f, uint64_t timeout_ms)
{
	const struct store_config config = {
		.url = f->url,
		.password = "",
		.queue_bytes = 64 << 20,
		.timeout_ms = timeout_ms,
		.idempotency_ms = 1000,
		.instance = f->instance,
	};
	char fault[STORE_FAULT_SIZE];

	assert_int_equal(store_open(&f->l->loop, &config, &f->store, fault), 0);
}

static bool fault_says(struct fixture *f, const char *words)
{
	const struct store_state *state = store_state(f->store);

	return !state->up && strstr(state->fault, words) != NULL;
}

struct appending {
	struct store_append a;
	bool done;
	unsigned late;
};

static void on_appended(struct store_append *a)
{
	container_of(a, struct appending, a)->done = true;
}

static void on_late(struct store_append *a)
{
	struct appending *p = container_of(a, struct appending, a);

	assert_true(p->done);
	p->late++;
}

static void append(struct fixture *f, struct appending *p)
{
	void (*late)(struct store_append * a) = f->holds ? on_late : NULL;

	*p = (struct appending){
		.a = {.channel = "c",
		      .record = "r",
		      .len = 1,
		      .size = 10,
		      .ttl_ms = 1000,
		      .idempotency_key = "",
		      .message_id = "id",
		      .done = on_appended,
		      .late = late},
	};
	store_append(f->store, &p->a);
	loop_run_until(f->l, &p->done);
}

#endif

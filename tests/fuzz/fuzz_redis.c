/* Fuzz target: what Redis servers and Sentinels answer. The first byte chooses
 * the store's URL, and whether there is a Cluster; then come answers, each
 * behind two bytes of length (big endian), as they go over the wire: the n-th
 * to the store's n-th question. A length of 0, and the end of the input, stand
 * for what an ordinary server would say; a length with the top bit closes the
 * connection after the answer.
 *
 * The parser alone must read the same in pieces as in one. The input is taken
 * for a message of another dispatcher too. The store must end
 * every operation that it was given, once, and give everything back.
 *
 * Whatever address an answer names, the fuzz server is connected to. */
#include "common/base/clock.h"
#include "common/base/err.h"
#include "common/base/log.h"
#include "dispatcher/store/redis_internal.h"
#include "dispatcher/store/redis_news.h"
#include "tests/fuzz/fuzz.h"

#include <dlfcn.h>
#include <hiredis/hiredis.h>
#include <signal.h>
#include <stdio.h>

#define TURNS_MAX  60
#define CLOSE_FLAG 0x8000u

/* --- where connections go --------------------------------------------------
 */

static struct sockaddr_in server_at;

int uv_tcp_connect(uv_connect_t *req, uv_tcp_t *tcp,
		   const struct sockaddr *to UNUSED, uv_connect_cb cb)
{
	static int (*real)(uv_connect_t *, uv_tcp_t *, const struct sockaddr *,
			   uv_connect_cb);

	if (real == NULL)
		*(void **)&real = dlsym(RTLD_NEXT, "uv_tcp_connect");
	return real(req, tcp, (struct sockaddr *)&server_at, cb);
}

int uv_getaddrinfo(uv_loop_t *loop UNUSED, uv_getaddrinfo_t *req UNUSED,
		   uv_getaddrinfo_cb cb UNUSED, const char *node UNUSED,
		   const char *service UNUSED,
		   const struct addrinfo *hints UNUSED)
{
	return UV_EAI_NONAME;
}

/* --- the parser ------------------------------------------------------------
 */

static void walk(const struct redis_reply *r, unsigned depth)
{
	if (r == NULL)
		return;
	check(depth < 16);
	if (r->text != NULL)
		check(strlen(r->text) <= r->len);
	else
		check(r->type != REDIS_REPLY_ERROR &&
		      r->type != REDIS_REPLY_STRING);
	(void)redis_element_text(r, 0);
	(void)redis_error_is(r, "MOVED");
	for (size_t i = 0; i < r->count; i++)
		walk(r->elements[i], depth + 1);
}

/* How many replies there are before the end or a fault. */
static size_t parse(const uint8_t *data, size_t size, size_t piece, bool *fault)
{
	struct fuzz_input in = {data, size};
	struct arena arena;
	redisReader *reader;
	size_t count = 0;

	arena_init(&arena, 1u << 20);
	reader = redis_reader_new(&arena);
	*fault = false;
	while (in.left > 0 && !*fault) {
		size_t len = piece;
		uint8_t *bytes = fuzz_bytes(&in, &len);
		void *reply;

		*fault =
			redisReaderFeed(reader, (char *)bytes, len) != REDIS_OK;
		free(bytes);
		while (!*fault) {
			reply = NULL;
			*fault =
				redisReaderGetReply(reader, &reply) != REDIS_OK;
			if (*fault || reply == NULL)
				break;
			walk(reply, 0);
			arena_reset(&arena);
			count++;
		}
	}
	redisReaderFree(reader);
	arena_fini(&arena);
	return count;
}

/* --- what dispatchers tell one another -------------------------------------
 */

static void hear(const uint8_t *data, size_t size)
{
	char channel[CHANNEL_NAME_MAX + 1];
	struct store_place top;
	struct redis_news n;

	if (!redis_news_read(data, size, &n))
		return;
	check(n.instance != 0 && n.count <= REDIS_NEWS_NAMES);
	while (n.count > 0) {
		redis_news_next(&n, channel, &top);
		check(channel_name_valid(channel, strlen(channel)));
	}
}

/* --- the server ------------------------------------------------------------
 */

struct server {
	uv_loop_t loop;
	uv_tcp_t listener;
	struct list clients;
	struct fuzz_input in;
	bool cluster;
};

struct client {
	uv_tcp_t tcp;
	struct list in_server;
	struct server *server;
	redisReader *reader;
	char bytes[16 << 10];
};

static void on_client_closed(uv_handle_t *handle)
{
	struct client *c = handle->data;

	redisReaderFree(c->reader);
	free(c);
}

static void client_close(struct client *c)
{
	list_remove(&c->in_server);
	if (!uv_is_closing((uv_handle_t *)&c->tcp))
		uv_tcp_close_reset(&c->tcp, on_client_closed);
}

static void say(struct client *c, const void *bytes, size_t len)
{
	uv_buf_t b = uv_buf_init((char *)bytes, (unsigned)len);

	if (len > 0)
		(void)!uv_try_write((uv_stream_t *)&c->tcp, &b, 1);
}

static void say_text(struct client *c, const char *text)
{
	say(c, text, strlen(text));
}

static void say_bulk(struct client *c, const char *text)
{
	char bytes[512];

	snprintf(bytes, sizeof(bytes), "$%zu\r\n%s\r\n", strlen(text), text);
	say_text(c, bytes);
}

/* An append with a key has three keys, a read two, tops here one. */
static void say_script(struct client *c, const char *keys)
{
	if (strcmp(keys, "1") == 0)
		say_text(c, "*2\r\n$1\r\n6\r\n$7\r\n5 1 4 1\r\n");
	else if (strcmp(keys, "2") == 0)
		say_text(c, "*6\r\n$1\r\n5\r\n$1\r\n1\r\n$1\r\n1\r\n"
			    "$4\r\n 4 1\r\n$1\r\n1\r\n$1\r\nx\r\n");
	else
		say_bulk(c, "5 1");
}

/* As a Redis 7 would. */
static void say_ordinary(struct client *c, const redisReply *q)
{
	const char *word = q->element[0]->str;
	char text[256];

	snprintf(text, sizeof(text),
		 "redis_version:7.2.0\r\nrun_id:r\r\nrole:master\r\n"
		 "master_replid:a\r\nconnected_slaves:0\r\nused_memory:1\r\n"
		 "cluster_enabled:%d\r\n",
		 c->server->cluster);
	if (strcmp(word, "INFO") == 0)
		say_bulk(c, text);
	else if (strcmp(word, "CLIENT") == 0)
		say_text(c, ":1\r\n");
	else if (strcmp(word, "SCRIPT") == 0)
		say_bulk(c, "0123456789012345678901234567890123456789");
	else if (strcmp(word, "GET") == 0)
		say_bulk(c, "42");
	else if (strcmp(word, "SENTINEL") == 0)
		say_text(c, "*2\r\n$9\r\n127.0.0.1\r\n$4\r\n6379\r\n");
	else if (strcmp(word, "CLUSTER") == 0)
		say_text(c, "*1\r\n*3\r\n:0\r\n:16383\r\n"
			    "*3\r\n$9\r\n127.0.0.1\r\n:6379\r\n$1\r\nn\r\n");
	else if (strcmp(word, "EVALSHA") == 0 && q->elements > 2)
		say_script(c, q->element[2]->str);
	else
		say_text(c, "+OK\r\n");
}

static void answer(struct client *c, const redisReply *q)
{
	struct fuzz_input *in = &c->server->in;
	unsigned head = (unsigned)fuzz_byte(in) << 8;
	size_t len;
	uint8_t *bytes;

	if (q->type != REDIS_REPLY_ARRAY || q->elements == 0)
		return;
	head |= fuzz_byte(in);
	len = head & ~CLOSE_FLAG;
	if (len == 0)
		say_ordinary(c, q);
	bytes = fuzz_bytes(in, &len);
	say(c, bytes, len);
	free(bytes);
	if (head & CLOSE_FLAG)
		client_close(c);
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

	check(status == 0);
	c->server = listener->data;
	c->reader = redisReaderCreate();
	c->tcp.data = c;
	list_push_back(&c->server->clients, &c->in_server);
	uv_tcp_init(listener->loop, &c->tcp);
	if (uv_accept(listener, (uv_stream_t *)&c->tcp) != 0)
		client_close(c);
	else
		uv_read_start((uv_stream_t *)&c->tcp, on_alloc, on_data);
}

static struct server *server(void)
{
	static struct server s;
	int len = sizeof(server_at), rc;

	if (s.listener.data != NULL)
		return &s;
	log_init("fuzz", LOG_ERROR + 1, false);
	signal(SIGPIPE, SIG_IGN);
	list_init(&s.clients);
	uv_loop_init(&s.loop);
	uv_tcp_init(&s.loop, &s.listener);
	uv_ip4_addr("127.0.0.1", 0, &server_at);
	uv_tcp_bind(&s.listener, (struct sockaddr *)&server_at, 0);
	s.listener.data = &s;
	rc = uv_listen((uv_stream_t *)&s.listener, 64, on_connection);
	check(rc == 0);
	uv_tcp_getsockname(&s.listener, (struct sockaddr *)&server_at, &len);
	return &s;
}

/* --- the store -------------------------------------------------------------
 */

static unsigned pending, left_open;

static void on_late(struct store_append *a)
{
	check(left_open-- > 0);
	check(a->rc == 0 || a->rc == ERR_UNAVAILABLE);
}

static void on_append(struct store_append *a)
{
	check(pending-- > 0);
	left_open += a->rc == ERR_UNAVAILABLE && !a->definite;
	check(a->rc == 0 || a->rc == ERR_UNAVAILABLE || a->rc == ERR_FULL ||
	      a->rc == ERR_EXISTS || a->rc == ERR_IO);
	check(strlen(a->message_id) < sizeof(a->message_id));
}

/* Reads every byte, for the sanitizer. */
static void on_read(struct store_read *r)
{
	static volatile uint8_t sink;

	check(pending-- > 0);
	check(r->rc != 0 || r->count <= r->records_max);
	check(r->eras.count <= STORE_ERAS_MAX);
	for (size_t i = 0; r->rc == 0 && i < r->count; i++) {
		check(i == 0 ||
		      r->records[i].offset == r->records[i - 1].offset + 1);
		for (size_t k = 0; k < r->records[i].len; k++)
			sink = r->records[i].bytes[k];
	}
	(void)sink;
}

static void on_tops(struct store_tops *t)
{
	check(pending-- > 0);
	for (size_t i = 0; t->rc == 0 && i < t->count; i++)
		check(t->places[i].epoch > 0 || t->places[i].offset > 0);
	for (size_t i = 0; i < t->count; i++)
		check(t->eras[i].count <= STORE_ERAS_MAX);
}

static void on_closed(void *ctx)
{
	*(bool *)ctx = true;
}

static void work(struct server *s, struct store *store)
{
	static const char *const channels[] = {"a", "b"};
	static const struct store_place known[2] = {{4, 9}, {UINT64_MAX, 1}};
	struct store_place places[2];
	struct store_eras eras[2];
	struct store_append a = {
		.channel = "a",
		.record = "x",
		.len = 1,
		.size = 10,
		.ttl_ms = 1000,
		.idempotency_key = "k",
		.message_id = "id",
		.done = on_append,
		.late = on_late,
	};
	struct store_read r = {
		.channel = "a",
		.records_max = 10,
		.bytes_max = 1000,
		.done = on_read,
	};
	struct store_tops t = {
		.channels = channels,
		.known = known,
		.count = 2,
		.places = places,
		.eras = eras,
		.done = on_tops,
	};
	bool closed = false;

	pending = 3;
	store_append(store, &a);
	store_read(store, &r);
	store_tops(store, &t);
	for (unsigned i = 0; i < TURNS_MAX && pending > 0; i++)
		uv_run(&s->loop, UV_RUN_NOWAIT);
	store_close(store, on_closed, &closed);
	while (!closed)
		uv_run(&s->loop, UV_RUN_NOWAIT);
	check(pending == 0 && left_open == 0);
}

static void run_store(struct fuzz_input in)
{
	static const char *const urls[] = {
		"redis://127.0.0.1:1",
		"redis://u:p@127.0.0.1:1,127.0.0.1:2",
		"redis://127.0.0.1:1?sentinel=m",
	};
	uint8_t how = fuzz_byte(&in);
	struct server *s = server();
	struct store_config config = {
		.url = urls[how % array_len(urls)],
		.password = "",
		.queue_bytes = 1u << 20,
		.timeout_ms = 50,
		.idempotency_ms = 1000,
		.replicas = how & 0x40 ? 1 : 0,
		/* Listens to other dispatchers too. */
		.instance = how & 0x20 ? 1 : 0,
	};
	char fault[STORE_FAULT_SIZE];
	struct store *store;
	int rc;

	s->in = in;
	s->cluster = how & 0x80;
	rc = store_open(&s->loop, &config, &store, fault);
	check(rc == 0);
	work(s, store);
	while (!list_empty(&s->clients))
		client_close(container_of(s->clients.next, struct client,
					  in_server));
	uv_run(&s->loop, UV_RUN_NOWAIT);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input in = {data, size};
	bool a, b;

	if (size < 1)
		return 0;
	check(parse(data + 1, size - 1, SIZE_MAX, &a) ==
	      parse(data + 1, size - 1, 1 + data[0] % 32, &b));
	check(a == b);
	hear(data, size);
	run_store(in);
	return 0;
}

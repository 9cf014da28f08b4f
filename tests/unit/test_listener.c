#include "common/io/listener.h"

#include "common/base/err.h"
#include "tests/unit/loop_fixture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

struct server {
	struct listener listener;
	uv_tcp_t accepted;
	bool take;
	unsigned seen;
	bool closed;
	unsigned refused;
};

static void on_accept(struct listener *l)
{
	struct server *s = l->ctx;

	s->seen++;
	if (!s->take)
		return;
	assert_int_equal(uv_tcp_init(l->loop, &s->accepted), 0);
	assert_int_equal(listener_take(l, &s->accepted), 0);
	s->take = false;
}

static void on_closed(struct listener *l)
{
	((struct server *)l->ctx)->closed = true;
}

static void server_start(struct loop_fixture *f, struct server *s,
			 const char *address,
			 const struct listener_options *options)
{
	assert_int_equal(listener_start(&s->listener, &f->loop, address,
					options, on_accept, s),
			 0);
	assert_int_not_equal(s->listener.port, 0);
}

static int connect_to(uint16_t port)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
	return fd;
}

static int option_of(int fd, int level, int name)
{
	int value = -1;
	socklen_t len = sizeof(value);

	assert_int_equal(getsockopt(fd, level, name, &value, &len), 0);
	return value;
}

static void test_address_parse_takes_numeric_addresses(void **state)
{
	static const char *const good[] = {"127.0.0.1:8080", "0.0.0.0:0",
					   "[::1]:443", "[::]:65535"};
	static const char *const bad[] = {"",
					  "8080",
					  ":8080",
					  "127.0.0.1",
					  "127.0.0.1:",
					  "127.0.0.1:65536",
					  "127.0.0.1:+1",
					  "localhost:80",
					  "::1:443",
					  "[::1:443",
					  "[127.0.0.1]:1",
					  "1.2.3.4:80 "};
	struct sockaddr_storage address;
	char text[ADDRESS_TEXT];

	(void)state;
	for (size_t i = 0; i < array_len(good); i++) {
		assert_int_equal(address_parse(good[i], &address), 0);
		address_format((struct sockaddr *)&address, text);
		assert_string_equal(text, good[i]);
	}
	for (size_t i = 0; i < array_len(bad); i++)
		assert_int_equal(address_parse(bad[i], &address), ERR_ADDRESS);
}

static void test_listener_hands_its_options_to_connections(void **state)
{
	const struct listener_options options = {.user_timeout_ms = 12345,
						 .notsent_lowat = 16384,
						 .send_buffer = 65536};
	struct loop_fixture *f = *state;
	struct server s = {.take = true};
	uv_os_fd_t fd;
	int peer;

	server_start(f, &s, "127.0.0.1:0", &options);
	peer = connect_to(s.listener.port);
	loop_until(f, s.seen == 1);
	assert_int_equal(uv_fileno((uv_handle_t *)&s.accepted, &fd), 0);
	assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_NODELAY), 1);
	assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_USER_TIMEOUT), 12345);
	assert_int_equal(option_of(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT), 16384);
	assert_int_equal(option_of(fd, SOL_SOCKET, SO_KEEPALIVE), 1);
	assert_int_equal(option_of(fd, SOL_SOCKET, SO_SNDBUF), 2 * 65536);
	close(peer);
	uv_close((uv_handle_t *)&s.accepted, NULL);
	listener_close(&s.listener, on_closed);
	listener_close(&s.listener, on_closed);
	loop_run_until(f, &s.closed);
	assert_true(loop_drain(f));
}

static void test_listener_goes_on_after_a_dropped_connection(void **state)
{
	const struct listener_options options = {0};
	struct loop_fixture *f = *state;
	struct server s = {.take = false};
	int first, second;
	char byte;

	server_start(f, &s, "127.0.0.1:0", &options);
	first = connect_to(s.listener.port);
	loop_until(f, s.seen == 1);
	uv_run(&f->loop, UV_RUN_NOWAIT);
	assert_true(recv(first, &byte, 1, 0) <= 0);
	s.take = true;
	second = connect_to(s.listener.port);
	loop_until(f, !s.take);
	close(first);
	close(second);
	uv_close((uv_handle_t *)&s.accepted, NULL);
	listener_close(&s.listener, NULL);
	assert_true(loop_drain(f));
}

/* --- out of descriptors ------------------------------------------------ */

#define CLIENTS	  8
#define FILES_MAX 100

static void on_refused(struct listener *l)
{
	((struct server *)l->ctx)->refused++;
}

struct shortage {
	struct rlimit before;
	int taken[FILES_MAX];
	unsigned count;
};

static void shortage_begin(struct shortage *s)
{
	struct rlimit low;
	int fd;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &s->before), 0);
	low = s->before;
	low.rlim_cur = FILES_MAX;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	s->count = 0;
	while ((fd = dup(STDERR_FILENO)) >= 0)
		s->taken[s->count++] = fd;
}

static void shortage_end(struct shortage *s)
{
	while (s->count > 0)
		close(s->taken[--s->count]);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &s->before), 0);
}

static int client_socket(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	return fd;
}

static void client_connect(int fd, uint16_t port)
{
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
}

static bool ended(int fd)
{
	char byte;

	return recv(fd, &byte, 1, MSG_DONTWAIT) == 0 ||
	       (errno != EAGAIN && errno != EWOULDBLOCK);
}

static void on_turn(uv_prepare_t *turn)
{
	++*(unsigned *)turn->data;
}

static void test_listener_refuses_when_out_of_descriptors(void **state)
{
	const struct listener_options options = {.on_refused = on_refused};
	struct loop_fixture *f = *state;
	struct server s = {.take = true};
	struct shortage shortage;
	int client[CLIENTS];

	for (unsigned i = 0; i < CLIENTS; i++)
		client[i] = client_socket();
	server_start(f, &s, "127.0.0.1:0", &options);
	shortage_begin(&shortage);
	for (unsigned i = 0; i < CLIENTS - 1; i++)
		client_connect(client[i], s.listener.port);
	loop_until(f, s.refused == CLIENTS - 1);
	for (unsigned i = 0; i < CLIENTS - 1; i++)
		assert_true(ended(client[i]));
	assert_int_equal(s.seen, 0);
	assert_true(s.listener.starved);
	shortage_end(&shortage);
	/* At once, though the log does not yet call it over. */
	client_connect(client[CLIENTS - 1], s.listener.port);
	loop_until(f, s.seen == 1);
	loop_until(f, !s.listener.starved);
	for (unsigned i = 0; i < CLIENTS; i++)
		close(client[i]);
	uv_close((uv_handle_t *)&s.accepted, NULL);
	listener_close(&s.listener, NULL);
	assert_true(loop_drain(f));
}

/* As by nng's threads, between the spare's closing and its opening. */
static void test_listener_rests_when_the_spare_is_taken_too(void **state)
{
	const struct listener_options options = {.on_refused = on_refused};
	struct loop_fixture *f = *state;
	struct server s = {.take = true};
	struct shortage shortage;
	unsigned turns = 0;
	uv_prepare_t turn;
	int client = client_socket();

	server_start(f, &s, "127.0.0.1:0", &options);
	close(s.listener.spare);
	s.listener.spare = -1;
	shortage_begin(&shortage);
	assert_int_equal(uv_prepare_init(&f->loop, &turn), 0);
	turn.data = &turns;
	uv_prepare_start(&turn, on_turn);
	client_connect(client, s.listener.port);
	loop_until(f, s.listener.starved);
	turns = 0;
	loop_until(f, uv_now(&f->loop) - s.listener.short_ms >=
			      5 * LISTENER_REST_MS);
	/* The fixture turns the loop each LOOP_TICK_MS: no more than that. */
	assert_in_range(turns, 1, 6 * LISTENER_REST_MS / LOOP_TICK_MS);
	assert_int_equal(s.refused, 0);
	shortage_end(&shortage);
	loop_until(f, s.seen == 1);
	assert_true(s.listener.spare >= 0);
	close(client);
	uv_close((uv_handle_t *)&turn, NULL);
	uv_close((uv_handle_t *)&s.accepted, NULL);
	listener_close(&s.listener, NULL);
	assert_true(loop_drain(f));
}

/* --- turns, and the end ------------------------------------------------ */

static void test_listener_takes_a_slice_a_turn(void **state)
{
	const struct listener_options options = {.slice = 3};
	struct loop_fixture *f = *state;
	struct server s = {.take = false};
	int client[CLIENTS];
	unsigned before;

	server_start(f, &s, "127.0.0.1:0", &options);
	for (unsigned i = 0; i < CLIENTS; i++)
		client[i] = connect_to(s.listener.port);
	do {
		before = s.seen;
		uv_run(&f->loop, UV_RUN_NOWAIT);
		assert_true(s.seen - before <= 3);
	} while (s.seen > before);
	assert_int_equal(s.seen, CLIENTS);
	for (unsigned i = 0; i < CLIENTS; i++)
		close(client[i]);
	listener_close(&s.listener, NULL);
	assert_true(loop_drain(f));
}

static void test_listener_finishes_with_whom_the_kernel_took(void **state)
{
	const struct listener_options options = {.slice = 1};
	struct loop_fixture *f = *state;
	struct server s = {.take = true};
	int first, second, late = client_socket();
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

	server_start(f, &s, "127.0.0.1:0", &options);
	first = connect_to(s.listener.port);
	second = connect_to(s.listener.port);
	listener_finish(&s.listener, on_closed);
	assert_int_equal(s.seen,
			 2); /* the first was taken, the second let go */
	assert_false(s.take);
	to.sin_port = htons(s.listener.port);
	assert_int_equal(connect(late, (struct sockaddr *)&to, sizeof(to)), -1);
	assert_int_equal(errno, ECONNREFUSED);
	assert_false(listener_idle(&s.listener));
	loop_run_until(f, &s.closed);
	assert_true(listener_idle(&s.listener));
	server_start(f, &s, "127.0.0.1:0", &options);
	listener_close(&s.listener, NULL);
	close(first);
	close(second);
	close(late);
	uv_close((uv_handle_t *)&s.accepted, NULL);
	assert_true(loop_drain(f));
}

static void test_listener_fails_clean_on_a_busy_port(void **state)
{
	const struct listener_options options = {0};
	struct loop_fixture *f = *state;
	struct server s = {0}, other = {0};
	char address[ADDRESS_TEXT];
	uint16_t port;

	server_start(f, &s, "127.0.0.1:0", &options);
	snprintf(address, sizeof(address), "127.0.0.1:%u", s.listener.port);
	assert_int_equal(listener_start(&other.listener, &f->loop, address,
					&options, on_accept, &other),
			 ERR_ADDRESS);
	assert_int_equal(address_reserve(address, &port), ERR_ADDRESS);
	assert_int_equal(listener_start(&other.listener, &f->loop, "nonsense",
					&options, on_accept, &other),
			 ERR_ADDRESS);
	listener_close(&s.listener, NULL);
	assert_true(loop_drain(f));
}

static void test_listener_workers_share_a_reserved_port(void **state)
{
	const struct listener_options options = {.reuse_port = true};
	struct loop_fixture *f = *state;
	struct server a = {0}, b = {0};
	char address[ADDRESS_TEXT];
	uint16_t port, again;
	int reserved = address_reserve("127.0.0.1:0", &port);
	int peers[64];

	assert_true(reserved >= 0);
	assert_int_not_equal(port, 0);
	snprintf(address, sizeof(address), "127.0.0.1:%u", port);
	server_start(f, &a, address, &options);
	server_start(f, &b, address, &options);
	/* A second supervisor finds the port taken. */
	assert_int_equal(address_reserve(address, &again), ERR_ADDRESS);
	for (size_t i = 0; i < array_len(peers); i++)
		peers[i] = connect_to(port);
	loop_until(f, a.seen + b.seen == array_len(peers));
	assert_true(a.seen > 0);
	assert_true(b.seen > 0);
	/* A worker that is started again gets in beside the living one. */
	listener_close(&a.listener, on_closed);
	loop_run_until(f, &a.closed);
	server_start(f, &a, address, &options);
	for (size_t i = 0; i < array_len(peers); i++)
		close(peers[i]);
	listener_close(&a.listener, NULL);
	listener_close(&b.listener, NULL);
	close(reserved);
	assert_true(loop_drain(f));
}

static void test_err_from_uv_maps_codes(void **state)
{
	(void)state;
	assert_int_equal(err_from_uv(0), 0);
	assert_int_equal(err_from_uv(7), 0);
	assert_int_equal(err_from_uv(UV_EOF), ERR_CLOSED);
	assert_int_equal(err_from_uv(UV_ECONNRESET), ERR_CLOSED);
	assert_int_equal(err_from_uv(UV_ECANCELED), ERR_CLOSED);
	assert_int_equal(err_from_uv(UV_EAGAIN), ERR_AGAIN);
	assert_int_equal(err_from_uv(UV_ETIMEDOUT), ERR_TIMEOUT);
	assert_int_equal(err_from_uv(UV_EADDRINUSE), ERR_ADDRESS);
	assert_int_equal(err_from_uv(UV_EAI_NONAME), ERR_NOT_FOUND);
	assert_int_equal(err_from_uv(UV_EINVAL), ERR_IO);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, loop_setup, loop_teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_address_parse_takes_numeric_addresses),
		cmocka_unit_test(test_err_from_uv_maps_codes),
		T(test_listener_hands_its_options_to_connections),
		T(test_listener_goes_on_after_a_dropped_connection),
		T(test_listener_refuses_when_out_of_descriptors),
		T(test_listener_rests_when_the_spare_is_taken_too),
		T(test_listener_takes_a_slice_a_turn),
		T(test_listener_finishes_with_whom_the_kernel_took),
		T(test_listener_fails_clean_on_a_busy_port),
		T(test_listener_workers_share_a_reserved_port),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What strangers may do to an inbox's port: after each of these, links that are
 * up stay up, new ones form, and messages arrive. And what peers may do to
 * outboxes that dial them. */
#include "common/io/nngshim.h"
#include "tests/unit/nngio_fixture.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sys/socket.h>

/* The messages that nng 1.5 loses when they are sent as their connection goes
 * (#1713) are leaks, but not ours; test_nngio.c looks for those. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libnng.so\n";
}

#define ABORTS 500
#define LINKS  16
#define CUTS   600

static struct tls_fixture tls;

/* An inbox with a link that has been there before the strangers came. */
struct scene {
	struct loop_fixture *f;
	const struct nng_tls_files *files;
	struct place place;
	struct inbox_probe inbox;
	struct outbox_probe old;
};

static void scene_start(struct scene *s, struct loop_fixture *f,
			const struct nng_tls_files *files)
{
	s->f = f;
	s->files = files;
	place_init(&s->place, files != NULL);
	probe_open(&s->inbox, f, &s->place, files);
	outbox_open(&s->old, f, &s->place, files);
	loop_until(f, s->old.ups == 1 && s->inbox.ups == 1);
}

static void expect_message(struct scene *s, struct nng_outbox *out)
{
	unsigned before = s->inbox.messages;

	loop_until(s->f, send_number(out, 1, 100) == 0);
	loop_until(s->f, s->inbox.messages == before + 1);
}

/* "Connected" proves nothing (a dead listener's kernel still accepts): a
 * message that arrives does. */
static void scene_end(struct scene *s)
{
	struct outbox_probe fresh;

	outbox_open(&fresh, s->f, &s->place, s->files);
	loop_until(s->f, fresh.ups == 1);
	expect_message(s, fresh.out);
	expect_message(s, s->old.out);
	assert_int_equal(s->old.downs, 0);
	nng_outbox_close(fresh.out);
	nng_outbox_close(s->old.out);
	loop_until(s->f, s->inbox.downs == s->inbox.ups);
	nng_inbox_stop(s->inbox.in);
	place_fini(&s->place);
}

static int stranger(const struct scene *s)
{
	const struct sockaddr_in to = {.sin_family = AF_INET,
				       .sin_port = htons(s->place.port),
				       .sin_addr.s_addr =
					       htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)&to, sizeof(to)),
			 0);
	return fd;
}

static void abort_connection(int fd)
{
	const struct linger now = {.l_onoff = 1, .l_linger = 0};

	assert_int_equal(
		setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now)), 0);
	close(fd);
}

static void say(int fd, const void *bytes, size_t len)
{
	/* It may have been thrown out already. */
	ssize_t ignored = send(fd, bytes, len, MSG_NOSIGNAL);

	(void)ignored;
}

/* Turns the loop until the inbox has closed the stranger's connection. */
static void wait_thrown_out(struct scene *s, int fd)
{
	char bytes[64];
	ssize_t n;

	loop_until(s->f, (n = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT),
			  n == 0 || (n < 0 && errno != EAGAIN)));
	close(fd);
}

/* A network that swallows packets is tried again within seconds. */
static void test_nngio_gives_up_connecting(void **state)
{
	struct scene s;
	int fd, tries = 0;
	socklen_t len = sizeof(tries);

	scene_start(&s, *state, NULL);
	fd = stranger(&s);
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &tries, &len),
			 0);
	assert_int_equal(tries, NNGSHIM_SYN_TRIES);
	close(fd);
	scene_end(&s);
}

/* nng #1518: without the sendmsg() of nngshim.c this kills the listener. */
static void test_nngio_survives_half_closed_aborts(void **state)
{
	struct scene s;

	scene_start(&s, *state, NULL);
	for (unsigned i = 0; i < ABORTS; i++) {
		int fd = stranger(&s);

		shutdown(fd, SHUT_WR);
		abort_connection(fd);
		if (i % 50 == 0)
			uv_run(&s.f->loop, UV_RUN_NOWAIT);
	}
	scene_end(&s);
}

/* The same over TLS, in the middle of a handshake, before the server's answer
 * or after: a ClientHello of TLS 1.2 for ECDHE-ECDSA on P-256. */
static void test_nngio_survives_aborted_handshakes(void **state)
{
	static const uint8_t record[] = {0x16, 3, 1, 0, 69, 1, 0, 0, 65, 3, 3};
	static const uint8_t random[32] = {1, 2, 3};
	static const uint8_t offer[] = {
		0, 0,  2, 0xc0, 0x2b, 1, 0,	/* no session, one suite */
		0, 22,				/* bytes of extensions */
		0, 10, 0, 4,	0,    2, 0, 23, /* groups: secp256r1 */
		0, 11, 0, 2,	1,    0,	/* points: uncompressed */
		0, 13, 0, 4,	0,    2, 4, 3,	/* ecdsa with sha256 */
	};
	struct scene s;

	scene_start(&s, *state, &tls.files);
	for (unsigned i = 0; i < ABORTS; i++) {
		int fd = stranger(&s);
		uint8_t answer[1];

		say(fd, record, sizeof(record));
		say(fd, random, sizeof(random));
		say(fd, offer, sizeof(offer));
		if (i % 2 == 0) /* nng's own threads answer */
			assert_int_equal(recv(fd, answer, 1, 0), 1);
		if (i % 2 == 0)
			assert_int_equal(answer[0], 0x16); /* no alert */
		shutdown(fd, SHUT_WR);
		abort_connection(fd);
		if (i % 50 == 0)
			uv_run(&s.f->loop, UV_RUN_NOWAIT);
	}
	scene_end(&s);
}

static const uint8_t push_header[8] = {0, 'S', 'P', 0, 0, 0x50, 0, 0};

static void test_nngio_throws_out_what_is_not_sp(void **state)
{
	static const uint8_t pull_header[8] = {0, 'S', 'P', 0, 0, 0x51, 0, 0};
	static const uint8_t version[8] = {0, 'S', 'P', 9, 0, 0x50, 0, 0};
	static const char http[] = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
	static const uint8_t garbage[64] = {0xff, 0xfe, 0xfd};
	const struct {
		const void *bytes;
		size_t len;
	} said[] = {
		{http, sizeof(http) - 1},
		{garbage, sizeof(garbage)},
		{pull_header, sizeof(pull_header)},
		{version, sizeof(version)},
	};
	struct scene s;
	int half;

	scene_start(&s, *state, NULL);
	for (size_t i = 0; i < array_len(said); i++) {
		int fd = stranger(&s);

		say(fd, said[i].bytes, said[i].len);
		wait_thrown_out(&s, fd);
	}
	/* Half a header and silence holds nobody else up. */
	half = stranger(&s);
	say(half, push_header, 4);
	assert_int_equal(s.inbox.ups, 1);
	scene_end(&s);
	close(half);
}

static void test_nngio_throws_out_who_announces_too_much(void **state)
{
	static const uint64_t lengths[] = {NNGIO_MESSAGE_MAX + 1, 1ull << 40,
					   UINT64_MAX};
	struct scene s;

	scene_start(&s, *state, NULL);
	for (size_t i = 0; i < array_len(lengths); i++) {
		uint64_t announced = htobe64(lengths[i]);
		int fd = stranger(&s);

		say(fd, push_header, sizeof(push_header));
		say(fd, &announced, sizeof(announced));
		wait_thrown_out(&s, fd);
	}
	assert_int_equal(s.inbox.messages, 0);
	scene_end(&s);
}

/* Connects as a proper peer, then goes in the middle of a message. */
static void test_nngio_drops_half_a_message(void **state)
{
	uint64_t announced = htobe64(1000);
	struct scene s;

	scene_start(&s, *state, NULL);
	for (unsigned i = 0; i < 20; i++) {
		int fd = stranger(&s);

		say(fd, push_header, sizeof(push_header));
		say(fd, &announced, sizeof(announced));
		say(fd, push_header, sizeof(push_header));
		loop_until(s.f, s.inbox.ups == i + 2);
		abort_connection(fd);
		loop_until(s.f, s.inbox.downs == i + 1);
	}
	assert_int_equal(s.inbox.messages, 0);
	scene_end(&s);
}

/* An empty message is a message. */
static void test_nngio_takes_an_empty_message(void **state)
{
	static const uint64_t announced;
	struct scene s;
	int fd;

	scene_start(&s, *state, NULL);
	fd = stranger(&s);
	say(fd, push_header, sizeof(push_header));
	say(fd, &announced, sizeof(announced));
	loop_until(s.f, s.inbox.messages == 1);
	assert_int_equal(s.inbox.bytes, 0);
	close(fd);
	scene_end(&s);
}

/* --- a peer that cuts each link while it comes up ----------------------- */

struct cutter {
	struct place place;
	pthread_t thread;
	unsigned seen;	 /* connections; atomic */
	int kept[LINKS]; /* after CUTS */
};

/* At once, after its greeting, or a little after both. */
static void cut(int fd, unsigned n)
{
	char answer[8];
	ssize_t ignored;

	if (n % 5 > 0)
		say(fd, "\0SP\0\0\x51\0\0", 8);
	if (n % 5 > 1) {
		ignored = recv(fd, answer, sizeof(answer), MSG_WAITALL);
		(void)ignored;
		usleep(n % 300);
	}
	abort_connection(fd);
}

static void *cut_all(void *arg)
{
	struct cutter *c = arg;
	int fd;

	for (unsigned n = 0; n < CUTS; n++) {
		cut(accept(c->place.reserved, NULL, NULL), n);
		__atomic_fetch_add(&c->seen, 1, __ATOMIC_RELAXED);
	}
	for (unsigned n = 0; n < LINKS; n++) {
		fd = c->kept[n] = accept(c->place.reserved, NULL, NULL);
		say(fd, "\0SP\0\0\x51\0\0", 8);
		__atomic_fetch_add(&c->seen, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static unsigned open_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count;
}

/* Sends all the while: over a connection that nng has freed that would crash.
 */
static bool cut_and_up_again(struct cutter *c, struct outbox_probe *links)
{
	unsigned up = 0;

	for (unsigned i = 0; i < LINKS; i++) {
		int rc = send_number(links[i].out, 0, 1000);

		assert_true(rc == 0 || rc == ERR_AGAIN);
		up += nng_outbox_connected(links[i].out);
	}
	return up == LINKS &&
	       __atomic_load_n(&c->seen, __ATOMIC_RELAXED) == CUTS + LINKS;
}

static void test_nngio_gives_back_links_cut_as_they_come_up(void **state)
{
	struct loop_fixture *f = *state;
	struct outbox_probe links[LINKS];
	struct cutter c = {.seen = 0};
	unsigned before;

	place_init(&c.place, false);
	assert_int_equal(fcntl(c.place.reserved, F_SETFL, 0), 0); /* blocks */
	assert_int_equal(listen(c.place.reserved, LINKS), 0);
	assert_int_equal(pthread_create(&c.thread, NULL, cut_all, &c), 0);
	before = open_fds();
	for (unsigned i = 0; i < LINKS; i++)
		outbox_open(&links[i], f, &c.place, NULL);
	loop_until(f, cut_and_up_again(&c, links));
	assert_int_equal(pthread_join(c.thread, NULL), 0);
	for (unsigned i = 0; i < LINKS; i++) {
		nng_outbox_close(links[i].out);
		close(c.kept[i]);
	}
	loop_until(f, open_fds() <= before); /* of others some may go */
	place_fini(&c.place);
}

static int setup(void **state)
{
	(void)state;
	tls_init(&tls);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	tls_fini(&tls);
	return 0;
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, loop_setup, loop_teardown)
	const struct CMUnitTest tests[] = {
		T(test_nngio_gives_up_connecting),
		T(test_nngio_survives_half_closed_aborts),
		T(test_nngio_survives_aborted_handshakes),
		T(test_nngio_throws_out_what_is_not_sp),
		T(test_nngio_throws_out_who_announces_too_much),
		T(test_nngio_drops_half_a_message),
		T(test_nngio_takes_an_empty_message),
		T(test_nngio_gives_back_links_cut_as_they_come_up),
	};

	nngio_process_init();
	return cmocka_run_group_tests(tests, setup, teardown);
}

#include "tests/unit/nngio_fixture.h"

#include <dirent.h>

#define ORDERED	    10000
#define NNG_THREADS 11 /* 10 with one processor; a sanitizer adds one */

static struct tls_fixture tls;
static unsigned threads_before; /* nng was initialised */

static unsigned threads(void)
{
	DIR *dir = opendir("/proc/self/task");
	unsigned count = 0;

	assert_non_null(dir);
	while (readdir(dir) != NULL)
		count++;
	closedir(dir);
	return count - 2;
}

static void test_nngio_starts_few_threads(void **state)
{
	(void)state;
	assert_in_range(threads() - threads_before, 1, NNG_THREADS);
	assert_true(sysconf(_SC_NPROCESSORS_ONLN) >= 1);
	assert_int_equal(sysconf(_SC_PAGESIZE), getpagesize());
}

static void round_trip(struct loop_fixture *f,
		       const struct nng_tls_files *files)
{
	struct inbox_probe inbox;
	struct outbox_probe outbox;
	struct place place;

	place_init(&place, files != NULL);
	probe_open(&inbox, f, &place, files);
	outbox_open(&outbox, f, &place, files);
	assert_false(nng_outbox_connected(outbox.out));
	loop_until(f, outbox.ups == 1 && inbox.ups == 1);
	assert_true(nng_outbox_connected(outbox.out));
	for (uint32_t i = 0; i < ORDERED; i++)
		loop_until(f, send_number(outbox.out, i, 4 + i % 500) == 0);
	loop_until(f, inbox.messages == ORDERED);
	assert_int_equal(inbox.disorder, 0);
	nng_outbox_close(outbox.out);
	loop_until(f, inbox.downs == 1);
	assert_int_equal(nng_inbox_pending(inbox.in), 0);
	assert_int_equal(outbox.downs, 0); /* none after close */
	nng_inbox_stop(inbox.in);
	place_fini(&place);
}

static void test_nngio_keeps_order_over_tcp(void **state)
{
	round_trip(*state, NULL);
}

static void test_nngio_keeps_order_over_tls(void **state)
{
	round_trip(*state, &tls.files);
}

/* A reader whose loop stands still stops the sender and loses nothing. */
static void test_nngio_pushes_back(void **state)
{
	enum { SIZE = 60000, MOST = 1000 };
	struct loop_fixture *f = *state;
	struct inbox_probe inbox;
	struct outbox_probe outbox;
	struct place place;
	uint32_t sent = 0;
	unsigned refused = 0;

	place_init(&place, false);
	probe_open(&inbox, f, &place, NULL);
	outbox_open(&outbox, f, &place, NULL);
	loop_until(f, outbox.ups == 1);
	/* The loop is not turned: only nng's threads move data. A second of
	 * refusals in a row is a sender that has been stopped. */
	while (refused < 1000 && sent < MOST) {
		if (send_number(outbox.out, sent, SIZE) == 0) {
			sent++;
			refused = 0;
		} else {
			refused++;
			usleep(1000);
		}
	}
	assert_in_range(sent, NNGIO_INBOX_BYTES_MAX / SIZE, MOST - 1);
	assert_in_range(nng_inbox_pending(inbox.in), 1,
			NNGIO_INBOX_BYTES_MAX + 2 * SIZE);
	loop_until(f, inbox.messages == sent);
	assert_int_equal(inbox.disorder, 0);
	for (unsigned i = 0; i < 300; i++) {
		loop_until(f, send_number(outbox.out, sent, SIZE) == 0);
		sent++;
	}
	loop_until(f, inbox.messages == sent);
	assert_int_equal(inbox.disorder, 0);
	nng_outbox_close(outbox.out);
	nng_inbox_stop(inbox.in);
	place_fini(&place);
}

static void test_nngio_redials_a_peer_that_restarts(void **state)
{
	struct loop_fixture *f = *state;
	struct outbox_probe outbox;
	struct place place;
	pid_t pid;

	place_init(&place, false);
	outbox_open(&outbox, f, &place, NULL); /* nobody there yet */
	assert_int_equal(send_number(outbox.out, 0, 100), ERR_AGAIN);
	for (unsigned life = 1; life <= 3; life++) {
		pid = peer_start("receive", place.url, NULL);
		loop_until(f, outbox.ups == life);
		loop_until(f, send_number(outbox.out, 1, 100) == 0);
		peer_kill(pid);
		loop_until(f, outbox.downs == life);
		assert_false(nng_outbox_connected(outbox.out));
	}
	nng_outbox_close(outbox.out);
	place_fini(&place);
}

struct closer {
	struct nng_outbox *out;
	unsigned events;
};

static void close_on_event(void *ctx, bool up)
{
	struct closer *c = ctx;

	assert_true(up);
	c->events++;
	nng_outbox_close(c->out);
}

static void test_nngio_outbox_may_close_itself(void **state)
{
	struct loop_fixture *f = *state;
	struct inbox_probe inbox;
	struct closer c = {0};
	struct place place;

	place_init(&place, false);
	probe_open(&inbox, f, &place, NULL);
	assert_int_equal(nng_outbox_open(&f->loop, place.url, NULL,
					 close_on_event, &c, &c.out),
			 0);
	loop_until(f, c.events == 1 && inbox.ups == 1 && inbox.downs == 1);
	nng_inbox_stop(inbox.in);
	place_fini(&place);
}

static void test_nngio_refuses_bad_arguments(void **state)
{
	static const char *const urls[] = {"", "127.0.0.1:1", "tcp://", "x://y",
					   "tcp://256.0.0.1:99999"};
	struct nng_tls_files files = tls.files;
	struct loop_fixture *f = *state;
	static uint8_t big[NNGIO_MESSAGE_MAX + 1];
	const struct iovec piece = {big, sizeof(big)};
	struct nng_inbox *in;
	struct outbox_probe box;
	struct place place;

	place_init(&place, true);
	for (size_t i = 0; i < array_len(urls); i++)
		assert_int_equal(nng_inbox_open(&f->loop, urls[i], NULL,
						probe_on_message, NULL, NULL,
						&in),
				 ERR_ADDRESS);
#define OPEN(url, tls_)                                                 \
	nng_outbox_open(&f->loop, (url), (tls_), outbox_on_event, &box, \
			&box.out)
	assert_int_equal(OPEN("nonsense", NULL), ERR_ADDRESS);
	assert_int_equal(OPEN(place.url, NULL), ERR_CONFIG);
	assert_int_equal(OPEN("tcp://127.0.0.1:1", &files), ERR_CONFIG);
	files.server_name = NULL;
	assert_int_equal(OPEN(place.url, &files), ERR_CONFIG);
	files = tls.files;
	files.key = "/nonexistent";
	assert_int_equal(OPEN(place.url, &files), ERR_CONFIG);
	files.key = tls.ca; /* not a key */
	assert_int_equal(OPEN(place.url, &files), ERR_CONFIG);
	outbox_open(&box, f, &place, &tls.files);
	assert_int_equal(nng_outbox_send(box.out, &piece, 1), ERR_TOO_LARGE);
	nng_outbox_close(box.out);
	place_fini(&place);
}

/* Strangers and impostors: each is tried beside a good link, which shows when
 * enough has happened. */
static void test_nngio_tls_admits_only_the_right_peer(void **state)
{
	struct loop_fixture *f = *state;
	struct nng_tls_files stranger = tls.files, wrong_name = tls.files;
	struct inbox_probe inbox;
	struct outbox_probe good, bad[2];
	struct place place;

	stranger.ca = tls.other_ca;
	wrong_name.server_name = "other.test";
	place_init(&place, true);
	probe_open(&inbox, f, &place, &tls.files);
	outbox_open(&bad[0], f, &place, &stranger);
	outbox_open(&bad[1], f, &place, &wrong_name);
	for (unsigned i = 1; i <= 5; i++) {
		outbox_open(&good, f, &place, &tls.files);
		loop_until(f, good.ups == 1);
		loop_until(f, send_number(good.out, i - 1, 100) == 0);
		loop_until(f, inbox.messages == i);
		nng_outbox_close(good.out);
	}
	for (unsigned i = 0; i < array_len(bad); i++) {
		assert_int_equal(bad[i].ups, 0);
		assert_int_equal(send_number(bad[i].out, 9, 100), ERR_AGAIN);
		nng_outbox_close(bad[i].out);
	}
	nng_inbox_stop(inbox.in);
	place_fini(&place);
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

int main(int argc, char **argv)
{
#define T(name) cmocka_unit_test_setup_teardown(name, loop_setup, loop_teardown)
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nngio_starts_few_threads),
		T(test_nngio_keeps_order_over_tcp),
		T(test_nngio_keeps_order_over_tls),
		T(test_nngio_pushes_back),
		T(test_nngio_redials_a_peer_that_restarts),
		T(test_nngio_outbox_may_close_itself),
		T(test_nngio_refuses_bad_arguments),
		T(test_nngio_tls_admits_only_the_right_peer),
	};

	if (argc > 1 && strcmp(argv[0], "peer") == 0)
		return peer_main(argv);
	threads_before = threads();
	nngio_process_init();
	return cmocka_run_group_tests(tests, setup, teardown);
}

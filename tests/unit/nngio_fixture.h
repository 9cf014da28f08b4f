/* nngio_fixture.h - what the tests of nngio share: a place to listen, a probe
 * that counts what an inbox gets, certificates, and other processes.
 *
 * A process that has used nng must not go on after fork(), so peers are this
 * same program, started again with a role in argv.
 */
#ifndef STENTOR_TESTS_NNGIO_FIXTURE_H
#define STENTOR_TESTS_NNGIO_FIXTURE_H

#include "common/base/err.h"
#include "common/io/listener.h"
#include "common/io/nngio.h"
#include "tests/unit/loop_fixture.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define PEER_NAME "link.test"

/* --- certificates ------------------------------------------------------ */

struct tls_fixture {
	char dir[64];
	char ca[96], cert[96], key[96], other_ca[96];
	struct nng_tls_files files;
};

static inline void tls_set_dir(struct tls_fixture *t, const char *dir)
{
	snprintf(t->dir, sizeof(t->dir), "%s", dir);
	snprintf(t->ca, sizeof(t->ca), "%s/ca.pem", dir);
	snprintf(t->cert, sizeof(t->cert), "%s/link.pem", dir);
	snprintf(t->key, sizeof(t->key), "%s/link.key", dir);
	snprintf(t->other_ca, sizeof(t->other_ca), "%s/other.pem", dir);
	t->files = (struct nng_tls_files){t->cert, t->key, t->ca, PEER_NAME};
}

/* A CA on P-256, a certificate of it for PEER_NAME, and a stranger's CA. */
static inline void tls_init(struct tls_fixture *t)
{
	static const char script[] =
		"cd %s && exec >log 2>&1 && "
		"p256='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes' && "
		"openssl req -x509 $p256 -keyout ca.key -out ca.pem "
		"-subj /CN=test-ca -days 2 && "
		"openssl req -x509 $p256 -keyout other.key -out other.pem "
		"-subj /CN=other-ca -days 2 && "
		"openssl req $p256 -keyout link.key -out link.csr "
		"-subj /CN=link && "
		"echo subjectAltName=DNS:" PEER_NAME " >ext && "
		"openssl x509 -req -in link.csr -CA ca.pem -CAkey ca.key "
		"-CAcreateserial -days 2 -extfile ext -out link.pem";
	char dir[] = "/tmp/stentor-tls-XXXXXX", command[1024];

	assert_non_null(mkdtemp(dir));
	tls_set_dir(t, dir);
	snprintf(command, sizeof(command), script, dir);
	assert_int_equal(system(command), 0);
}

static inline void tls_fini(struct tls_fixture *t)
{
	char command[128];

	snprintf(command, sizeof(command), "rm -r %s", t->dir);
	assert_int_equal(system(command), 0);
}

/* --- a place to listen ------------------------------------------------- */

struct place {
	int reserved;
	uint16_t port;
	char url[64];
};

/* Held as a supervisor holds the ports of its workers: a peer that is killed
 * and started again gets the same one. */
static inline void place_init(struct place *p, bool tls)
{
	p->reserved = address_reserve("127.0.0.1:0", &p->port);
	assert_true(p->reserved >= 0);
	snprintf(p->url, sizeof(p->url), "%s://127.0.0.1:%u",
		 tls ? "tls+tcp" : "tcp", p->port);
}

static inline void place_fini(struct place *p)
{
	close(p->reserved);
}

/* --- both ends, watched ------------------------------------------------ */

struct inbox_probe {
	struct nng_inbox *in;
	unsigned messages, ups, downs;
	uint64_t bytes;
	uint32_t next; /* number expected in the next message */
	unsigned disorder;
};

static inline void probe_on_message(void *ctx, uint32_t pipe,
				    const uint8_t *bytes, size_t len)
{
	struct inbox_probe *p = ctx;
	uint32_t number;

	check(pipe != 0);
	p->messages++;
	p->bytes += len;
	if (len < sizeof(number))
		return;
	memcpy(&number, bytes, sizeof(number));
	if (number != p->next)
		p->disorder++;
	p->next = number + 1;
}

static inline void probe_on_pipe(void *ctx, uint32_t pipe, bool up)
{
	struct inbox_probe *p = ctx;

	check(pipe != 0);
	if (up)
		p->ups++;
	else
		p->downs++;
	check(p->downs <= p->ups);
}

static inline void probe_open(struct inbox_probe *p, struct loop_fixture *f,
			      const struct place *place,
			      const struct nng_tls_files *tls)
{
	memset(p, 0, sizeof(*p));
	assert_int_equal(nng_inbox_open(&f->loop, place->url, tls,
					probe_on_message, probe_on_pipe, p,
					&p->in),
			 0);
}

struct outbox_probe {
	struct nng_outbox *out;
	unsigned ups, downs;
};

static inline void outbox_on_event(void *ctx, bool up)
{
	struct outbox_probe *p = ctx;

	if (up)
		p->ups++;
	else
		p->downs++;
	check(p->ups - p->downs <= 1);
}

static inline void outbox_open(struct outbox_probe *p, struct loop_fixture *f,
			       const struct place *place,
			       const struct nng_tls_files *tls)
{
	memset(p, 0, sizeof(*p));
	assert_int_equal(nng_outbox_open(&f->loop, place->url, tls,
					 outbox_on_event, p, &p->out),
			 0);
}

/* A message of `len` bytes that begins with its number. */
static inline int send_number(struct nng_outbox *out, uint32_t number,
			      size_t len)
{
	static uint8_t filler[1 << 16];
	const struct iovec pieces[] = {{(void *)&number, sizeof(number)},
				       {filler, len - sizeof(number)}};

	check(len >= sizeof(number) && len <= sizeof(filler));
	return nng_outbox_send(out, pieces, array_len(pieces));
}

/* --- other processes --------------------------------------------------- */

/* Starts this program as `role url [directory of certificates]`. */
static inline pid_t peer_start(const char *role, const char *url,
			       const struct tls_fixture *tls)
{
	pid_t parent = getpid(), pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		execl("/proc/self/exe", "peer", role, url,
		      tls != NULL ? tls->dir : (char *)NULL, (char *)NULL);
		_exit(127);
	}
	assert_true(pid > 0);
	return pid;
}

static inline void peer_kill(pid_t pid)
{
	int status;

	assert_int_equal(kill(pid, SIGKILL), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status));
}

static inline void peer_on_message(void *ctx UNUSED, uint32_t pipe UNUSED,
				   const uint8_t *bytes UNUSED,
				   size_t len UNUSED)
{
}

static inline void peer_on_tick(uv_timer_t *timer)
{
	struct nng_outbox *out = timer->data;

	for (uint32_t i = 0; i < 64 && send_number(out, i, 2000) == 0; i++)
		;
}

/* The life of a peer: takes all it gets ("receive") or sends as much as it can
 * ("send"), until it is killed. */
static inline int peer_main(char **argv)
{
	struct tls_fixture t;
	const struct nng_tls_files *tls = NULL;
	struct nng_inbox *in;
	struct nng_outbox *out;
	uv_loop_t loop;
	uv_timer_t timer;

	if (argv[3] != NULL) {
		tls_set_dir(&t, argv[3]);
		tls = &t.files;
	}
	nngio_process_init();
	check(uv_loop_init(&loop) == 0);
	check(uv_timer_init(&loop, &timer) == 0);
	if (strcmp(argv[1], "receive") == 0) {
		check(nng_inbox_open(&loop, argv[2], tls, peer_on_message, NULL,
				     NULL, &in) == 0);
	} else {
		check(nng_outbox_open(&loop, argv[2], tls, NULL, NULL, &out) ==
		      0);
		timer.data = out;
		check(uv_timer_start(&timer, peer_on_tick, 1, 1) == 0);
	}
	return uv_run(&loop, UV_RUN_DEFAULT);
}

#endif

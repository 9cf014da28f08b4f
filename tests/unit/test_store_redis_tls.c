/* redis: real servers that speak TLS, or should not, or something else. */
#include "tests/unit/redis_fixture.h"
#include "tests/unit/store_party.h"

#include "common/base/hash.h"

#include <signal.h>

static struct redis_server_process server; /* a plain port and a TLS one */
static uint16_t tls_port;
static uint64_t timeout_ms = 1000;
static char ca[160], other_ca[160], cert[160], key[160];

/* An authority, and what it says of a server and of a client. */
static void make_certificates(void)
{
	const char *d = server.directory;
	char out[4096];

	if (shell(out, sizeof(out),
		  "cd '%s' && new() { openssl req -x509 -newkey ec -pkeyopt "
		  "ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=$1 -keyout "
		  "$1.key -out $1.pem $2; } 2>/dev/null; sign() { openssl req "
		  "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "
		  "/CN=$1 -keyout $1.key -out $1.csr 2>/dev/null && echo "
		  "subjectAltName=$2 >$1.ext && openssl x509 -req -in $1.csr "
		  "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile "
		  "$1.ext -out $1.pem 2>/dev/null; }; new ca && new other && "
		  "sign server IP:127.0.0.1,DNS:redis.test && "
		  "sign named DNS:localhost && sign client DNS:client && chmod "
		  "644 *.key",
		  d) != 0)
		fail_msg("openssl: %s", out);
	snprintf(ca, sizeof(ca), "%s/ca.pem", d);
	snprintf(other_ca, sizeof(other_ca), "%s/other.pem", d);
	snprintf(cert, sizeof(cert), "%s/client.pem", d);
	snprintf(key, sizeof(key), "%s/client.key", d);
}

static int group_setup(void **state UNUSED)
{
	static char port[8], server_cert[160], server_key[160];
	const char *args[] = {
		"--bind",    "127.0.0.1",
		"127.0.0.2", "--save",
		"",	     "--tls-port",
		port,	     "--tls-cert-file",
		server_cert, "--tls-key-file",
		server_key,  "--tls-ca-cert-file",
		ca,	     "--tls-auth-clients",
		"no",	     NULL,
	};

	redis_init(&server);
	make_certificates();
	tls_port = free_port();
	snprintf(port, sizeof(port), "%u", tls_port);
	snprintf(server_cert, sizeof(server_cert), "%s/server.pem",
		 server.directory);
	snprintf(server_key, sizeof(server_key), "%s/server.key",
		 server.directory);
	memcpy(server.args, args, sizeof(args));
	redis_start(&server);
	return 0;
}

static int group_teardown(void **state UNUSED)
{
	redis_fini(&server);
	return 0;
}

static void command(const char *words)
{
	char out[256];

	shell(out, sizeof(out), "redis-cli -p %u %s", server.port, words);
	if (strncmp(out, "ERR", 3) == 0)
		fail_msg("%s: %s", words, out);
}

/* One that is not waited for. */
static struct party *begin_at(struct loop_fixture *l, const char *scheme,
			      const char *where, const char *trusted,
			      bool shows)
{
	static char url[128];
	struct party *p = xcalloc(1, sizeof(*p));
	char fault[STORE_FAULT_SIZE] = "";

	snprintf(url, sizeof(url), "%s://%s", scheme, where);
	p->l = l;
	p->config = (struct store_config){
		.url = url,
		.password = "",
		.queue_bytes = 256 << 20,
		.timeout_ms = timeout_ms,
		.idempotency_ms = 1000,
		.instance = random_nonzero(),
		.moved = party_on_moved,
		.ctx = p,
		.tls_ca = trusted,
		.tls_cert = shows ? cert : "",
		.tls_key = shows ? key : "",
	};
	if (store_open(&l->loop, &p->config, &p->store, fault) != 0)
		fail_msg("store_open(%s): %s", url, fault);
	return p;
}

static struct party *begin(struct loop_fixture *l, const char *scheme,
			   const char *host, uint16_t port, const char *trusted,
			   bool shows)
{
	char where[64];

	snprintf(where, sizeof(where), "%s:%u", host, port);
	return begin_at(l, scheme, where, trusted, shows);
}

static struct party *open_tls(struct loop_fixture *l)
{
	struct party *p = begin(l, "rediss", "127.0.0.1", tls_port, ca, false);

	loop_until(l, store_state(p->store)->up);
	return p;
}

static void assert_fails(struct party *p, const char *words)
{
	const struct store_state *state = store_state(p->store);

	loop_until(p->l, strstr(state->fault, words) != NULL);
	assert_false(state->up);
	print_message("%s\n", state->fault);
	party_close(p);
}

static void test_tls_works(void **state)
{
	struct loop_fixture *l = *state;
	struct party *a = open_tls(l), *b = open_tls(l);
	struct store_place place;

	loop_until(l, party_peers(a) == 1 && party_peers(b) == 1);
	for (uint64_t i = 1; i <= 100; i++) {
		place = party_append(a, "works");
		assert_int_equal(place.offset, i);
	}
	/* What they listen in is a connection of the same kind. */
	loop_until(l, party_heard(b, a->config.instance, "works", place));
	party_close(a);
	party_close(b);
}

#define LARGE	    (64u << 10)
#define LARGE_COUNT 400

/* More than the kernel takes while nobody reads. */
static void test_tls_large(void **state)
{
	struct loop_fixture *l = *state;
	struct party_append *a = xcalloc(LARGE_COUNT, sizeof(*a));
	char *record = xcalloc(1, LARGE);
	struct party *p;

	timeout_ms = 8000; /* it is no test of speed */
	p = open_tls(l);
	timeout_ms = 1000;
	kill(server.pid, SIGSTOP);
	for (unsigned i = 0; i < LARGE_COUNT; i++) {
		a[i] = (struct party_append){
			.a = {.channel = "bytes",
			      .record = record,
			      .len = LARGE,
			      .size = 100,
			      .ttl_ms = 60000,
			      .idempotency_key = "",
			      .message_id = "id",
			      .done = party_on_appended},
		};
		store_append(p->store, &a[i].a);
	}
	party_turn(p, 100);
	kill(server.pid, SIGCONT);
	for (unsigned i = 0; i < LARGE_COUNT; i++) {
		loop_run_until(l, &a[i].done);
		assert_int_equal(a[i].a.rc, 0);
		assert_int_equal(a[i].a.place.offset, i + 1);
	}
	party_close(p);
	free(record);
	free(a);
}

struct reading {
	struct store_read r;
	bool done;
	size_t bytes;
};

static void on_read(struct store_read *r)
{
	struct reading *p = container_of(r, struct reading, r);

	for (size_t i = 0; i < r->count; i++)
		p->bytes += r->records[i].len;
	p->done = true;
}

static void test_tls_large_answer(void **state)
{
	struct loop_fixture *l = *state;
	struct party *p = open_tls(l);
	struct reading r = {
		.r = {.channel = "bytes",
		      .records_max = 100,
		      .bytes_max = 64 << 20,
		      .done = on_read},
	};

	store_read(p->store, &r.r);
	loop_run_until(l, &r.done);
	assert_int_equal(r.r.rc, 0);
	assert_int_equal(r.r.count, 100);
	assert_int_equal(r.bytes, 100 * LARGE);
	party_close(p);
}

/* --- whom it does not believe --------------------------------------------- */

static void test_tls_wrong_authority(void **state)
{
	struct loop_fixture *l = *state;

	assert_fails(begin(l, "rediss", "127.0.0.1", tls_port, other_ca, false),
		     "not of an authority");
	/* Nor do the system's speak for it. */
	assert_fails(begin(l, "rediss", "127.0.0.1", tls_port, "", false),
		     "not of an authority");
}

static void set_certificate(const char *name)
{
	char words[400];

	snprintf(words, sizeof(words),
		 "config set tls-cert-file %s/%s.pem tls-key-file %s/%s.key",
		 server.directory, name, server.directory, name);
	command(words);
}

static void test_tls_wrong_name(void **state)
{
	struct loop_fixture *l = *state;
	struct party *p;

	assert_fails(begin(l, "rediss", "localhost", tls_port, ca, false),
		     "not for the host");
	assert_fails(begin(l, "rediss", "127.0.0.2", tls_port, ca, false),
		     "not for the address");
	set_certificate("named");
	assert_fails(begin(l, "rediss", "127.0.0.1", tls_port, ca, false),
		     "not for the address");
	p = begin(l, "rediss", "localhost", tls_port, ca, false);
	loop_until(l, store_state(p->store)->up);
	party_close(p);
	set_certificate("server");
}

static void test_tls_client_certificate(void **state)
{
	struct loop_fixture *l = *state;
	struct party *p;

	command("config set tls-auth-clients yes");
	assert_fails(begin(l, "rediss", "127.0.0.1", tls_port, ca, false),
		     "client certificate");
	p = begin(l, "rediss", "127.0.0.1", tls_port, ca, true);
	loop_until(l, store_state(p->store)->up);
	party_append(p, "client");
	party_close(p);
	command("config set tls-auth-clients no");
}

static void test_tls_plain_server(void **state)
{
	struct loop_fixture *l = *state;

	assert_fails(begin(l, "rediss", "127.0.0.1", server.port, ca, false),
		     "speak TLS");
}

static void test_tls_plain_client(void **state)
{
	struct loop_fixture *l = *state;

	assert_fails(begin(l, "redis", "127.0.0.1", tls_port, "", false),
		     "rediss://");
}

/* --- servers that are not well -------------------------------------------- */

/* The kernel accepts, and nobody says a word. */
static void test_tls_stalls(void **state)
{
	struct loop_fixture *l = *state;
	struct party *p;

	kill(server.pid, SIGSTOP);
	p = begin(l, "rediss", "127.0.0.1", tls_port, ca, false);
	loop_until(l, strstr(store_state(p->store)->fault, "not over in time"));
	kill(server.pid, SIGCONT);
	loop_until(l, store_state(p->store)->up);
	party_append(p, "stalls");
	party_close(p);
}

static void test_tls_killed(void **state)
{
	struct loop_fixture *l = *state;
	struct party *p = open_tls(l);
	struct party_append a;

	for (unsigned i = 0; i < 3; i++) {
		party_submit(p, &a, "killed");
		uv_run(&l->loop, UV_RUN_NOWAIT);
		redis_kill(&server, SIGKILL);
		loop_until(l, !store_state(p->store)->up);
		redis_start(&server);
		loop_until(l, a.done && store_state(p->store)->up);
		party_append(p, "killed");
		command("client kill type normal");
		loop_until(l, !store_state(p->store)->up);
		loop_until(l, store_state(p->store)->up);
		party_append(p, "killed");
	}
	party_close(p);
}

/* --- servers that name others --------------------------------------------- */

/* With certificates and a TLS port beside the plain one. */
static uint16_t start_beside(struct redis_server_process *r, const char *first,
			     const char *const more[])
{
	static char ports[2][8], files[2][160];
	static unsigned next;
	char *port = ports[next++ % 2];
	uint16_t number = free_port();
	size_t n = 0;

	snprintf(port, sizeof(ports[0]), "%u", number);
	snprintf(files[0], sizeof(files[0]), "%s/server.pem", server.directory);
	snprintf(files[1], sizeof(files[1]), "%s/server.key", server.directory);
	if (first != NULL)
		r->args[n++] = first;
	const char *args[] = {
		"--tls-port",	      port,	"--tls-cert-file",    files[0],
		"--tls-key-file",     files[1], "--tls-ca-cert-file", ca,
		"--tls-auth-clients", "no",
	};

	for (size_t i = 0; i < array_len(args); i++)
		r->args[n++] = args[i];
	for (; *more != NULL; more++)
		r->args[n++] = *more;
	redis_start(r);
	return number;
}

/* The Cluster announces its TLS ports to who asks by TLS: a slot's node that
 * the URL does not name. */
static void test_tls_cluster(void **state)
{
	static const char *const more[] = {"--cluster-enabled",
					   "yes",
					   "--tls-cluster",
					   "yes",
					   "--save",
					   "",
					   NULL};
	struct loop_fixture *l = *state;
	struct redis_server_process nodes[2];
	uint16_t ports[2];
	struct party *p;
	char out[256];

	for (unsigned i = 0; i < 2; i++) {
		redis_init(&nodes[i]);
		ports[i] = start_beside(&nodes[i], NULL, more);
		shell(out, sizeof(out),
		      "redis-cli -p %u cluster addslotsrange %u %u",
		      nodes[i].port, i * 8192, i * 8192 + 8191);
	}
	shell(out, sizeof(out), "redis-cli -p %u cluster meet 127.0.0.1 %u %u",
	      nodes[0].port, ports[1], ports[1] + 10000);
	for (unsigned ms = 0; strstr(out, "state:ok") == NULL; ms += 50) {
		assert_true(ms < REDIS_START_WAIT_MS);
		pause_ms(50);
		shell(out, sizeof(out),
		      "redis-cli -p %u cluster info | grep state",
		      nodes[0].port);
	}
	p = begin(l, "rediss", "127.0.0.1", ports[0], ca, false);
	loop_until(l, store_state(p->store)->up);
	/* Of several channels some are at each. */
	for (unsigned i = 0; i < 16; i++) {
		char channel[16];

		snprintf(channel, sizeof(channel), "cluster-%u", i);
		assert_int_equal(party_append(p, channel).offset, 1);
	}
	party_close(p);
	for (unsigned i = 0; i < 2; i++)
		redis_fini(&nodes[i]);
}

static void test_tls_sentinel(void **state)
{
	static const char *const more[] = {"--sentinel", "--tls-replication",
					   "yes", NULL};
	struct loop_fixture *l = *state;
	struct redis_server_process sentinel;
	char path[160], url[128];
	uint16_t port;
	struct party *p;
	FILE *f;

	redis_init(&sentinel);
	snprintf(path, sizeof(path), "%s/sentinel.conf", sentinel.directory);
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "sentinel monitor m 127.0.0.1 %u 1\n", tls_port);
	fclose(f);
	port = start_beside(&sentinel, path, more);
	snprintf(url, sizeof(url), "127.0.0.1:%u?sentinel=m", port);
	p = begin_at(l, "rediss", url, ca, false);
	loop_until(l, store_state(p->store)->up);
	party_append(p, "sentinel");
	party_close(p);
	redis_fini(&sentinel);
}

/* --- what is configured --------------------------------------------------- */

static void refuses(struct loop_fixture *l, const char *url,
		    const char *trusted, const char *shown, const char *its_key,
		    const char *words)
{
	const struct store_config config = {
		.url = url,
		.password = "",
		.tls_ca = trusted,
		.tls_cert = shown,
		.tls_key = its_key,
	};
	char fault[STORE_FAULT_SIZE] = "";
	struct store *store;

	assert_int_equal(store_open(&l->loop, &config, &store, fault),
			 ERR_CONFIG);
	if (strstr(fault, words) == NULL)
		fail_msg("%s", fault);
}

static void test_tls_options(void **state)
{
	struct loop_fixture *l = *state;

	refuses(l, "rediss://h", "/no/such", "", "", "/no/such");
	refuses(l, "rediss://h", key, "", "", "client.key");
	refuses(l, "rediss://h", ca, cert, "", "both");
	refuses(l, "rediss://h", ca, "", key, "both");
	refuses(l, "rediss://h", ca, cert, ca, "ca.pem");
	/* Safe is what was meant. */
	refuses(l, "redis://h", ca, "", "", "rediss://");
}

#define CASE(test) \
	cmocka_unit_test_setup_teardown(test, loop_setup, loop_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CASE(test_tls_works),	     CASE(test_tls_large),
		CASE(test_tls_large_answer), CASE(test_tls_wrong_authority),
		CASE(test_tls_wrong_name),   CASE(test_tls_client_certificate),
		CASE(test_tls_plain_server), CASE(test_tls_plain_client),
		CASE(test_tls_stalls),	     CASE(test_tls_killed),
		CASE(test_tls_cluster),	     CASE(test_tls_sentinel),
		CASE(test_tls_options),
	};

	signal(SIGPIPE, SIG_IGN); /* as the programs do */
	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

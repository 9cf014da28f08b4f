/* redis_fixture.h - real Redis servers for a test, each on a port and in a
 * directory of its own; they die with the test program whatever happens to it.
 */
#ifndef STENTOR_TESTS_REDIS_FIXTURE_H
#define STENTOR_TESTS_REDIS_FIXTURE_H

#include "common/base/check.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define REDIS_ARGS_MAX	    32
#define REDIS_START_WAIT_MS 10000

struct redis_server_process {
	uint16_t port;
	pid_t pid; /* 0: not running */
	char directory[128];
	const char *args[REDIS_ARGS_MAX]; /* beside port and directory */
};

/* Free now, and not given out before by this program. A Cluster's bus takes the
 * port 10000 above. */
static inline uint16_t free_port(void)
{
	static uint16_t next;

	if (next == 0)
		next = (uint16_t)(10000 + (unsigned)getpid() % 10000);
	for (;;) {
		struct sockaddr_in at = {
			.sin_family = AF_INET,
			.sin_port = htons(++next),
			.sin_addr.s_addr = htonl(INADDR_LOOPBACK),
		};
		int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), rc;

		rc = bind(fd, (struct sockaddr *)&at, sizeof(at));
		close(fd);
		if (rc == 0)
			return next;
	}
}

static inline void pause_ms(long ms)
{
	nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
}

/* The output of a shell command; fails a check if it can't be run. */
static inline int shell(char *out, size_t size, const char *format, ...)
	PRINTF(3, 4);
static inline int shell(char *out, size_t size, const char *format, ...)
{
	char command[1024], ignored[1024];
	size_t n;
	va_list args;
	FILE *pipe;

	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	pipe = popen(command, "r");
	check(pipe != NULL);
	n = fread(out, 1, size - 1, pipe);
	out[n] = 0;
	while (fread(ignored, 1, sizeof(ignored), pipe) > 0)
		;
	return pclose(pipe);
}

static inline bool redis_answers(uint16_t port)
{
	char out[256];

	shell(out, sizeof(out), "redis-cli -p %u ping 2>&1", port);
	return strstr(out, "PONG") != NULL;
}

/* Starts it (again); its directory is kept. */
static inline void redis_start(struct redis_server_process *r)
{
	char port[8], log[160];
	const char *argv[REDIS_ARGS_MAX + 12];
	size_t n = 0;
	pid_t parent = getpid();

	snprintf(port, sizeof(port), "%u", r->port);
	snprintf(log, sizeof(log), "%s/log", r->directory);
	argv[n++] = "redis-server";
	/* A Sentinel rewrites its file, so it comes first. */
	if (r->args[0] != NULL && r->args[0][0] == '/')
		argv[n++] = r->args[0];
	argv[n++] = "--port";
	argv[n++] = port;
	argv[n++] = "--bind";
	argv[n++] = "127.0.0.1";
	argv[n++] = "--dir";
	argv[n++] = r->directory;
	argv[n++] = "--logfile";
	argv[n++] = log;
	for (size_t i = n == 9 ? 0 : 1; r->args[i] != NULL; i++)
		argv[n++] = r->args[i];
	argv[n] = NULL;
	fflush(NULL);
	r->pid = fork();
	check(r->pid >= 0);
	if (r->pid == 0) {
		int null = open("/dev/null", O_RDWR);

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
		dup2(null, 0);
		dup2(null, 1);
		dup2(null, 2);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	for (int ms = 0; !redis_answers(r->port); ms += 20) {
		check(ms < REDIS_START_WAIT_MS);
		pause_ms(20);
	}
}

static inline void redis_init(struct redis_server_process *r)
{
	memset(r, 0, sizeof(*r));
	r->port = free_port();
	check(getcwd(r->directory, sizeof(r->directory) - 32) != NULL);
	strcat(r->directory, "/build/redis-XXXXXX");
	check(mkdtemp(r->directory) != NULL);
}

static inline void redis_kill(struct redis_server_process *r, int signal)
{
	if (r->pid == 0)
		return;
	kill(r->pid, SIGCONT);
	kill(r->pid, signal);
	waitpid(r->pid, NULL, 0);
	r->pid = 0;
}

static inline void redis_fini(struct redis_server_process *r)
{
	char out[64];

	redis_kill(r, SIGKILL);
	shell(out, sizeof(out), "rm -rf '%s'", r->directory);
}

#endif

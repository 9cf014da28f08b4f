/* Why each stands here:
 *
 * sendmsg   A peer that connects, half-closes and resets makes nng's first
 *           write fail with EPIPE, which nng 1.5 takes for "the listener was
 *           closed" and never accepts again, while the kernel goes on
 *           completing handshakes (nng #1518, fixed in 1.6). ECONNRESET is the
 *           same news without that effect.
 * sysconf   nng starts threads by the number of the machine's processors, not
 *           of the container's: 88 of them on 64 processors. Its 1.5 has no
 *           other knob.
 * connect   nng leaves it to the kernel when to give a connection up, which
 *           asks again after 1, 2, 4 ... 64 s. A network that swallows packets
 *           for a minute would be without links for most of another one after
 *           it works again. A dialer begins anew by itself.
 */
#include "common/io/nngshim.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The C library's own, under its other name. */
extern long __sysconf(int name);

/* Sanitizers' run times call these while they start, before their checks in
 * our code can work. */
#define UNCHECKED __attribute__((no_sanitize_thread, no_sanitize_address))

static bool one_processor;

void nngshim_one_processor(bool on)
{
	one_processor = on;
}

UNCHECKED long sysconf(int name)
{
	if (one_processor && name == _SC_NPROCESSORS_ONLN)
		return 1;
	return __sysconf(name);
}

UNCHECKED ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	long sent = syscall(SYS_sendmsg, fd, message, flags);

	if (sent < 0 && errno == EPIPE)
		errno = ECONNRESET;
	return sent;
}

UNCHECKED int connect(int fd, __CONST_SOCKADDR_ARG address, socklen_t len)
{
	const int tries = NNGSHIM_SYN_TRIES;

	/* What is no TCP socket has no such option. */
	setsockopt(fd, IPPROTO_TCP, TCP_SYNCNT, &tries, sizeof(tries));
	return (int)syscall(SYS_connect, fd, address.__sockaddr__, len);
}

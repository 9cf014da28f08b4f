/* nngshim.h - three C library functions as nng 1.5 needs them.
 *
 * common/io/nngshim.c defines connect(), sendmsg() and sysconf() for the whole
 * program, and is linked as an object, never from the library, because it must
 * win over the C library's. nngio.c needs it, so a program that forgets it does
 * not link.
 */
#ifndef STENTOR_IO_NNGSHIM_H
#define STENTOR_IO_NNGSHIM_H

#include <stdbool.h>

/* How often a TCP connection is asked for again before connect() fails: after 3
 * to 7 s, by the kernel's version. */
#define NNGSHIM_SYN_TRIES 2

/* While true, sysconf() reports one processor. Only before threads start. */
void nngshim_one_processor(bool on);

#endif

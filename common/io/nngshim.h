/* nngshim.h - two C library functions as nng 1.5 needs them.
 *
 * common/io/nngshim.c defines sendmsg() and sysconf() for the whole program,
 * and is linked as an object, never from the library, because it must win over
 * the C library's. nngio.c needs it, so a program that forgets it does not
 * link.
 */
#ifndef STENTOR_IO_NNGSHIM_H
#define STENTOR_IO_NNGSHIM_H

#include <stdbool.h>

/* While true, sysconf() reports one processor. Only before threads start. */
void nngshim_one_processor(bool on);

#endif

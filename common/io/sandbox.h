/* sandbox.h - what this process gives up before it listens.
 *
 * Memory holds tokens and keys: no core dump, no debugger of the same user
 * (PR_SET_DUMPABLE), unless core dumps are asked for. No program that it starts
 * gains rights by itself (PR_SET_NO_NEW_PRIVS): capabilities of a file are lost
 * to workers, ambient ones are not. Nothing in the file system is changed but
 * what is below one directory, where the kernel has Landlock (5.13); reading
 * stays free, for certificates and configuration come from anywhere.
 *
 * Holds for the calling thread, and all that it starts from then on.
 */
#ifndef STENTOR_IO_SANDBOX_H
#define STENTOR_IO_SANDBOX_H

#include <stdbool.h>

/* `writable` is a directory, made if it is not there; NULL: none. What can't be
 * had is logged at level info and left out. */
void sandbox_enter(bool core_dumps, const char *writable);

#endif

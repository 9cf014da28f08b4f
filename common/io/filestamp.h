/* filestamp.h - what tells one version of a file from the next, for those who
 * read files again when they have changed.
 *
 * A file that Kubernetes gives changes by a symbolic link that points
 * elsewhere, so device and inode count too. Look before reading: what changes
 * meanwhile is then seen the next time.
 */
#ifndef STENTOR_IO_FILESTAMP_H
#define STENTOR_IO_FILESTAMP_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

/* All 0: it is not there. */
struct file_stamp {
	uint64_t device, inode, size;
	struct timespec modified, changed;
};

struct file_stamp file_stamp(const char *path);
bool file_stamp_equal(const struct file_stamp *a, const struct file_stamp *b);

#endif

/* dir_copy.h - directories copied and put back, as people and tools do it; for
 * tests of stores that go back. Flat: a directory's files, not what lies
 * deeper.
 */
#ifndef STENTOR_TESTS_DIR_COPY_H
#define STENTOR_TESTS_DIR_COPY_H

#include "tests/unit/unit.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum copy_flags {
	COPY_TIMES = 1, /* as cp -a */
	COPY_ANEW = 2,	/* what is there is removed first: other inodes */
};

static inline void copy_file(const char *from, const char *to, int flags)
{
	static char buffer[1 << 16];
	struct stat st;
	ssize_t n;
	int in = open(from, O_RDONLY | O_CLOEXEC), out;

	assert_true(in >= 0);
	assert_int_equal(fstat(in, &st), 0);
	if (flags & COPY_ANEW)
		(void)unlink(to);
	out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
		   st.st_mode & 07777);
	assert_true(out >= 0);
	while ((n = read(in, buffer, sizeof(buffer))) > 0)
		assert_int_equal(write(out, buffer, (size_t)n), n);
	assert_int_equal(n, 0);
	if (flags & COPY_TIMES) {
		const struct timespec times[] = {st.st_atim, st.st_mtim};

		assert_int_equal(futimens(out, times), 0);
	}
	close(in);
	close(out);
}

/* The file of that name in a directory, to another one. */
static inline void copy_one(const char *name, const char *from, const char *to,
			    int flags)
{
	char source[PATH_MAX], target[PATH_MAX];

	snprintf(source, sizeof(source), "%s/%s", from, name);
	snprintf(target, sizeof(target), "%s/%s", to, name);
	copy_file(source, target, flags);
}

static inline void remove_files(const char *directory)
{
	DIR *d = opendir(directory);
	struct dirent *entry;

	assert_non_null(d);
	while ((entry = readdir(d)))
		(void)unlinkat(dirfd(d), entry->d_name, 0);
	closedir(d);
}

/* `to` is made if there is none. */
static inline void copy_directory(const char *from, const char *to, int flags)
{
	DIR *d = opendir(from);
	struct dirent *entry;

	assert_non_null(d);
	(void)mkdir(to, 0700);
	if (flags & COPY_ANEW)
		remove_files(to);
	while ((entry = readdir(d)))
		if (entry->d_name[0] != '.')
			copy_one(entry->d_name, from, to, flags);
	closedir(d);
}

#endif

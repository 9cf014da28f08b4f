/* replay.c - feeds stored inputs to a fuzz target, without libFuzzer.
 *
 *	fuzz_http1 FILE-OR-DIRECTORY...
 *
 * Each file, or each file right in a directory, is one input. Prints how many
 * there were; fails if there were none or one can't be read. */
#include "common/base/mem.h"

#include <dirent.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t replayed;

static void die(const char *path)
{
	perror(path);
	exit(1);
}

/* In memory of exactly its size, so that a sanitizer sees its end. */
static void replay_file(const char *path, size_t size)
{
	uint8_t *data = xmalloc(size);
	FILE *file = fopen(path, "rb");

	if (!file || fread(data, 1, size, file) != size)
		die(path);
	fclose(file);
	LLVMFuzzerTestOneInput(data, size);
	free(data);
	replayed++;
}

static void replay(const char *path, int depth)
{
	char inner[PATH_MAX];
	struct dirent *entry;
	struct stat status;
	DIR *directory;

	if (stat(path, &status) != 0)
		die(path);
	if (S_ISREG(status.st_mode))
		replay_file(path, (size_t)status.st_size);
	if (!S_ISDIR(status.st_mode) || depth > 0)
		return;
	directory = opendir(path);
	if (!directory)
		die(path);
	while ((entry = readdir(directory))) {
		int n = snprintf(inner, sizeof(inner), "%s/%s", path,
				 entry->d_name);

		if (n > 0 && (size_t)n < sizeof(inner))
			replay(inner, depth + 1);
	}
	closedir(directory);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++)
		replay(argv[i], 0);
	printf("%s: %zu inputs\n", argv[0], replayed);
	return replayed > 0 ? 0 : 1;
}

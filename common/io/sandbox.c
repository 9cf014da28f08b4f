#include "common/io/sandbox.h"

#include "common/base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <stdint.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Rights that change something, in the first version of Landlock ... */
#define CHANGES_1                                                        \
	(LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR | \
	 LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_MAKE_CHAR | \
	 LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_REG |     \
	 LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |   \
	 LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_SYM)
/* ... and later: 2 moves between directories, 3 truncates. The headers may be
 * older than the kernel. */
#define REFER	 (UINT64_C(1) << 13)
#define TRUNCATE (UINT64_C(1) << 14)

#define DIR_MODE 0700 /* as the store would make it */

/* The C library has no functions for these. */
static int landlock_create(const struct landlock_ruleset_attr *rules,
			   size_t size, uint32_t flags)
{
	return (int)syscall(SYS_landlock_create_ruleset, rules, size, flags);
}

static void allow(int rules, const char *path, uint64_t rights)
{
	struct landlock_path_beneath_attr beneath = {.allowed_access = rights};

	beneath.parent_fd = open(path, O_PATH | O_CLOEXEC);
	if (beneath.parent_fd < 0)
		return;
	if (syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH,
		    &beneath, 0) != 0)
		log_info("SANDBOX", "path=%s err=\"%s\"", path,
			 strerror(errno));
	close(beneath.parent_fd);
}

static void restrict_files(const char *writable)
{
	struct landlock_ruleset_attr attr = {.handled_access_fs = CHANGES_1};
	int version = landlock_create(NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	int rules;

	if (version >= 2)
		attr.handled_access_fs |= REFER;
	if (version >= 3)
		attr.handled_access_fs |= TRUNCATE;
	rules = version > 0 ? landlock_create(&attr, sizeof(attr), 0) : -1;
	if (rules < 0) {
		log_info("SANDBOX", "what=\"no Landlock\" err=\"%s\"",
			 strerror(errno));
		return;
	}
	if (writable != NULL) {
		(void)mkdir(writable, DIR_MODE);
		allow(rules, writable, attr.handled_access_fs);
	}
	allow(rules, "/dev/null", LANDLOCK_ACCESS_FS_WRITE_FILE);
	if (syscall(SYS_landlock_restrict_self, rules, 0) != 0)
		log_info("SANDBOX", "what=Landlock err=\"%s\"",
			 strerror(errno));
	close(rules);
}

/* LeakSanitizer traces its own process. */
#ifdef __SANITIZE_ADDRESS__
#define UNDUMPABLE false
#else
#define UNDUMPABLE true
#endif

void sandbox_enter(bool core_dumps, const char *writable)
{
	const struct rlimit none = {0, 0};

	if (!core_dumps && UNDUMPABLE) {
		/* The limit alone does not keep a dump from going through a
		 * pipe (core(5)). */
		(void)setrlimit(RLIMIT_CORE, &none);
		(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	}
	(void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	restrict_files(writable);
}

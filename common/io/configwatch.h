/* configwatch.h - sees that the configuration file is another than before.
 *
 * It looks every CONFIG_WATCH_MS and tells when the file has changed and then
 * stayed as it is for one more look, so that what is still being written is
 * not read by halves.
 */
#ifndef STENTOR_IO_CONFIGWATCH_H
#define STENTOR_IO_CONFIGWATCH_H

#include "common/io/filestamp.h"

#include <uv.h>

#define CONFIG_WATCH_MS 1000

struct config_watch {
	uv_timer_t timer;
	/* private */
	const char *path;
	struct file_stamp read, seen;
	void (*changed)(void *ctx);
	void *ctx;
};

/* `path` (borrowed) was just read; NULL: there is no file, and nothing to see.
 * Does not keep the loop alive. */
void config_watch_start(struct config_watch *w, uv_loop_t *loop,
			const char *path, void (*changed)(void *ctx),
			void *ctx);
/* One look; the timer calls it. */
void config_watch_look(struct config_watch *w);
/* Its memory is free when the loop has turned. */
void config_watch_close(struct config_watch *w);

#endif

#include "common/io/configwatch.h"

#include "common/base/check.h"

void config_watch_look(struct config_watch *w)
{
	struct file_stamp now = file_stamp(w->path);
	bool settled = file_stamp_equal(&now, &w->seen);

	w->seen = now;
	if (!settled || file_stamp_equal(&now, &w->read))
		return;
	w->read = now;
	w->changed(w->ctx);
}

static void on_look(uv_timer_t *timer)
{
	config_watch_look(container_of(timer, struct config_watch, timer));
}

void config_watch_start(struct config_watch *w, uv_loop_t *loop,
			const char *path, void (*changed)(void *ctx), void *ctx)
{
	*w = (struct config_watch){
		.path = path, .changed = changed, .ctx = ctx};
	check(uv_timer_init(loop, &w->timer) == 0);
	uv_unref((uv_handle_t *)&w->timer);
	if (path == NULL)
		return;
	w->read = w->seen = file_stamp(path);
	uv_timer_start(&w->timer, on_look, CONFIG_WATCH_MS, CONFIG_WATCH_MS);
}

void config_watch_close(struct config_watch *w)
{
	uv_close((uv_handle_t *)&w->timer, NULL);
}

#include "connnode/web/webfile.h"

#include "common/base/check.h"

#include <string.h>

#define FILE_OF(symbol) \
	extern const uint8_t web_##symbol[], web_##symbol##_end[]

FILE_OF(index_html);
FILE_OF(demo_css);
FILE_OF(demo_js);

const struct webfile *webfile_find(const char *path)
{
	static const struct webfile files[] = {
		{"/", "text/html; charset=utf-8", web_index_html,
		 web_index_html_end},
		{"/demo.css", "text/css; charset=utf-8", web_demo_css,
		 web_demo_css_end},
		{"/demo.js", "text/javascript; charset=utf-8", web_demo_js,
		 web_demo_js_end},
	};

	for (size_t i = 0; i < array_len(files); i++) {
		if (strcmp(files[i].path, path) == 0)
			return &files[i];
	}
	return NULL;
}

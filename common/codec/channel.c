#include "common/codec/channel.h"

#include <string.h>

static bool allowed(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') || (c != '\0' && strchr("_.:~@/-", c));
}

bool channel_name_valid(const char *name, size_t len)
{
	if (len == 0 || len > CHANNEL_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (!allowed(name[i]))
			return false;
	}
	return true;
}

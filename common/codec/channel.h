/* channel.h - what a channel's name may be (pure). */
#ifndef STENTOR_CODEC_CHANNEL_H
#define STENTOR_CODEC_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>

#define CHANNEL_NAME_MAX 128 /* bytes */

/* 1-128 bytes of [A-Za-z0-9_.:~@/-]. */
bool channel_name_valid(const char *name, size_t len);

#endif

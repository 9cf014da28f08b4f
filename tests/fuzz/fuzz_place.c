/* Fuzz target: a client's place. The first byte says of how many channels, the
 * second chooses: a Last-Event-ID as it comes, or places to be written and read
 * back. What is read is what was written, and what can be read is written the
 * same again: there is one id for a place. */
#include "common/base/check.h"
#include "common/base/mem.h"
#include "common/codec/place.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHANNELS_MAX 64
#define HASH	     0x01020304u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void read_id(const char *text, size_t count)
{
	struct place places[CHANNELS_MAX];
	char again[PLACE_ID_SIZE(CHANNELS_MAX)];

	if (place_decode(text, HASH, places, count) != 0)
		return;
	place_encode(again, HASH, places, count);
	check(strcmp(again, text) == 0);
	check(place_decode(text, ~HASH, places, count) != 0);
	check(place_decode(text, HASH, places, count + 1) != 0);
}

static void write_places(const uint8_t *data, size_t size, size_t count)
{
	struct place in[CHANNELS_MAX] = {{0}}, out[CHANNELS_MAX];
	char id[PLACE_ID_SIZE(CHANNELS_MAX)];
	size_t room = count * sizeof(*in);

	memcpy(in, data, size < room ? size : room);
	check(place_encode(id, HASH, in, count) == strlen(id));
	check(place_decode(id, HASH, out, count) == 0);
	for (size_t i = 0; i < count; i++) {
		check(out[i].epoch == in[i].epoch);
		check(out[i].offset == (in[i].epoch > 0 ? in[i].offset : 0));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t count;
	char *text;

	if (size < 2)
		return 0;
	count = data[0] % CHANNELS_MAX; /* one more is tried */
	text = xmemdupz(data + 2, size - 2);
	if (data[1] % 2 == 0)
		read_id(text, count);
	else
		write_places(data + 2, size - 2, count);
	free(text);
	return 0;
}

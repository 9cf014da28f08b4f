/* Fuzz target: short texts from outside that have a parser of their own. The
 * first byte chooses which. What a parser accepts must keep what its header
 * promises, in room of exactly the size that it asks for. */
#include "common/codec/base64.h"
#include "common/codec/channel.h"
#include "common/codec/grpc.h"
#include "common/codec/http1.h"
#include "common/io/linkurl.h"
#include "common/io/listener.h"
#include "dispatcher/ctl/args.h"
#include "dispatcher/store/redis.h"
#include "tests/fuzz/fuzz.h"

#include <stdio.h>

static void try_base64(const char *text, size_t len)
{
	size_t room = len / 4 * 3 + 3, out_len, place_len;
	uint8_t *out = xmalloc(room);
	char *in_place = xmemdupz(text, len);
	int rv = base64_decode(text, len, out, &out_len);

	check(base64_decode(in_place, len, (uint8_t *)in_place, &place_len) ==
	      rv);
	if (rv == 0) {
		check(out_len <= room);
		check(place_len == out_len);
		check(memcmp(in_place, out, out_len) == 0);
	}
	free(in_place);
	free(out);
}

static void try_linkurl(const char *text, size_t len UNUSED)
{
	struct nng_tls_files none = {0};
	const char *address = linkurl_address(text);
	char fault[LINKURL_FAULT];

	check(address == NULL ||
	      (address > text && address <= text + strlen(text)));
	check(!linkurl_is_tls(text) || address != NULL);
	if (linkurl_listen_fault(text, &none, fault) != NULL)
		check(fault[0] != '\0' && strlen(fault) < sizeof(fault));
	else
		check(address != NULL && strlen(text) < LINKURL_MAX);
}

static void try_address(const char *text, size_t len UNUSED)
{
	struct sockaddr_storage parsed, again;
	char out[ADDRESS_TEXT];

	if (address_parse(text, &parsed) != 0)
		return;
	address_format((struct sockaddr *)&parsed, out);
	check(strlen(out) < sizeof(out));
	check(address_parse(out, &again) == 0);
}

static void try_channel(const char *text, size_t len)
{
	if (!channel_name_valid(text, len))
		return;
	check(len > 0 && len <= CHANNEL_NAME_MAX);
	check(strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxy"
			   "z0123456789_.:~@/-") == len);
	check(redis_slot(text) < REDIS_SLOTS);
}

/* As the SSE front reads its query: names and values of some length. */
static void try_query(const char *text, size_t len)
{
	const char *cursor = text;
	char name[8], value[CHANNEL_NAME_MAX + 1];
	size_t pairs = 0;
	int rv;

	while ((rv = http1_query(&cursor, name, sizeof(name), value,
				 sizeof(value))) == 1) {
		check(strlen(name) < sizeof(name));
		check(strlen(value) < sizeof(value));
		check(cursor <= text + strlen(text));
		check(++pairs <= len + 1);
	}
	check(rv <= 0);
}

static void try_accept(const char *text, size_t len UNUSED)
{
	const struct http1_request r = {.header_count = 1,
					.headers = {{"accept", text}}};

	(void)http1_accepts(&r, "text/event-stream");
	(void)http1_accepts(&r, "application/json");
}

static void try_redis_url(const char *text, size_t len UNUSED)
{
	struct redis_url url;
	char fault[STORE_FAULT_SIZE] = "";

	if (redis_url_parse(text, &url, fault) != 0) {
		check(fault[0] != '\0' && strlen(fault) < sizeof(fault));
		return;
	}
	check(url.count >= 1 && url.count <= REDIS_ADDRESSES_MAX);
	for (size_t i = 0; i < url.count; i++) {
		check(url.addresses[i].host[0] != '\0');
		check(url.addresses[i].port > 0);
	}
}

static void try_position(const char *text, size_t len UNUSED)
{
	uint64_t epoch, offset;
	char again[64];

	if (!ctl_position(text, &epoch, &offset))
		return;
	snprintf(again, sizeof(again), "%llu:%llu", (unsigned long long)epoch,
		 (unsigned long long)offset);
	check(ctl_position(again, &epoch, &offset));
}

/* Within a limit and twice the same; what it had before stays. */
static void try_gzip(const char *text, size_t len)
{
	enum { MOST = 1 << 16 };
	struct buf a, b;
	int rv;

	buf_init(&a, MOST + 4);
	buf_init(&b, MOST);
	check(buf_append(&a, "had", 3) == 0);
	rv = gzip_inflate(&a, text, len, MOST);
	check(gzip_inflate(&b, text, len, MOST) == rv);
	check(a.len == b.len + 3 && memcmp(a.bytes, "had", 3) == 0);
	check(b.len == 0 || memcmp(a.bytes + 3, b.bytes, b.len) == 0);
	check(rv == 0 || b.len == 0);
	buf_fini(&b);
	buf_fini(&a);
}

static void (*const parsers[])(const char *text, size_t len) = {
	try_base64,    try_linkurl, try_address, try_channel,  try_query,
	try_redis_url, try_accept,  try_gzip,	 try_position,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text;

	if (size < 1)
		return 0;
	text = xmemdupz(data + 1, size - 1);
	parsers[data[0] % array_len(parsers)](text, size - 1);
	free(text);
	return 0;
}

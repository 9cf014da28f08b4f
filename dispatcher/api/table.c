/* table.c - finds methods and carries each call (rpc.h) to exactly one end. */
#include "dispatcher/api/table.h"

#include "common/base/clock.h"
#include "common/base/mem.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RPC_TEXT_MAX 512 /* bytes of an error's text */

static void entry_init(struct rpc_entry *e, const struct rpc_service *service,
		       const struct rpc_method *method)
{
	size_t size = strlen(service->name) + strlen(method->name) + 3;

	memset(e, 0, sizeof(*e));
	e->path = xmalloc(size);
	e->path_len = (size_t)snprintf(e->path, size, "/%s/%s", service->name,
				       method->name);
	e->service = service;
	e->method = method;
}

void rpc_table_init(struct rpc_table *t, const struct rpc_service *services)
{
	size_t i = 0;

	memset(t, 0, sizeof(*t));
	t->key = hash_key_random();
	hmap_init(&t->by_path);
	for (const struct rpc_service *s = services; s->name; s++)
		t->count += s->method_count;
	t->entries = xcalloc(max_of(t->count, (size_t)1), sizeof(*t->entries));
	for (const struct rpc_service *s = services; s->name; s++) {
		for (size_t m = 0; m < s->method_count; m++, i++) {
			struct rpc_entry *e = &t->entries[i];

			entry_init(e, s, &s->methods[m]);
			check(!rpc_table_find(t, e->path, e->path_len));
			hmap_insert(&t->by_path, &e->by_path,
				    hash_bytes(&t->key, e->path, e->path_len));
		}
	}
}

void rpc_table_fini(struct rpc_table *t)
{
	for (size_t i = 0; i < t->count; i++)
		free(t->entries[i].path);
	free(t->entries);
	hmap_fini(&t->by_path);
}

struct rpc_entry *rpc_table_find(struct rpc_table *t, const char *path,
				 size_t len)
{
	uint64_t hash = hash_bytes(&t->key, path, len);

	hmap_for_each_hash (node, &t->by_path, hash) {
		struct rpc_entry *e =
			container_of(node, struct rpc_entry, by_path);

		if (e->path_len == len && memcmp(e->path, path, len) == 0)
			return e;
	}
	return NULL;
}

void rpc_count(struct rpc_table *t, struct rpc_entry *entry,
	       enum grpc_code code)
{
	check((unsigned)code < GRPC_CODES);
	if (!entry)
		entry = &t->unknown;
	entry->handled[code]++;
}

struct rpc_peer *rpc_peer_new(void)
{
	struct rpc_peer *p = xcalloc(1, sizeof(*p));

	p->refs = 1;
	list_init(&p->batches);
	list_init(&p->stalled);
	list_init(&p->in_turn);
	list_init(&p->in_stalled);
	return p;
}

struct rpc_peer *rpc_peer_hold(struct rpc_peer *p)
{
	p->refs++;
	return p;
}

void rpc_peer_release(struct rpc_peer *p)
{
	check(p->refs > 0);
	if (--p->refs > 0)
		return;
	check(p->pending == 0 && p->stream_items == 0);
	check(p->batch_messages == 0 && p->batch_bytes == 0);
	check(list_empty(&p->batches) && list_empty(&p->in_turn));
	check(list_empty(&p->stalled) && list_empty(&p->in_stalled));
	free(p);
}

void rpc_begin(struct rpc_call *call, struct rpc_entry *entry,
	       struct auth_token *token, struct rpc_peer *peer,
	       const struct rpc_front_ops *front)
{
	call->service = entry->service;
	call->method = entry->method;
	call->front = front;
	call->entry = entry;
	call->cancelled = false;
	call->finished = false;
	call->token = token;
	call->peer = rpc_peer_hold(peer);
	call->state = NULL;
	call->started_ns = clock_monotonic_ns();
}

void rpc_half_close(struct rpc_call *call)
{
	check(!call->finished);
	if (call->method->on_half_close)
		call->method->on_half_close(call);
	else
		rpc_finish(call, GRPC_OK, "%s", "");
}

void rpc_cancel(struct rpc_call *call, enum grpc_code code)
{
	const struct rpc_method *m = call->method;

	check(!call->finished);
	check((unsigned)code < GRPC_CODES);
	if (call->cancelled)
		return;
	call->cancelled = true;
	call->entry->handled[code]++;
	if (m->on_cancel)
		m->on_cancel(call);
	else if (m->client_streaming || m->server_streaming)
		rpc_finish(call, code, "%s", "");
}

void rpc_send(struct rpc_call *call, const ProtobufCMessage *m)
{
	check(!call->finished);
	check(m->descriptor == call->method->output);
	if (!call->cancelled)
		call->front->send(call, m);
}

void rpc_finish(struct rpc_call *call, enum grpc_code code, const char *format,
		...)
{
	char text[RPC_TEXT_MAX];
	va_list args;

	check(!call->finished);
	check((unsigned)code < GRPC_CODES);
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	call->finished = true;
	if (!call->cancelled)
		call->entry->handled[code]++;
	rpc_peer_release(call->peer);
	call->peer = NULL;
	call->front->finish(call, code, text);
}

void rpc_reply_encoded(struct rpc_call *call, const struct buf *m)
{
	check(!call->finished);
	if (!call->cancelled)
		call->front->send_encoded(call, m);
	rpc_finish(call, GRPC_OK, "%s", "");
}

void rpc_reply(struct rpc_call *call, const ProtobufCMessage *m)
{
	rpc_send(call, m);
	rpc_finish(call, GRPC_OK, "%s", "");
}

void rpc_pause(struct rpc_call *call)
{
	check(!call->finished);
	check(call->method->client_streaming);
	call->front->pause(call, true);
}

void rpc_resume(struct rpc_call *call)
{
	check(!call->finished);
	check(call->method->client_streaming);
	call->front->pause(call, false);
}

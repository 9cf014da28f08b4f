#include "dispatcher/service/outcome.h"

#include "common/base/mem.h"

#include <string.h>

struct outcome outcome_of(const struct publish_result *r)
{
	struct outcome o = {
		.code = r->code,
		.nodes = r->nodes,
		.place = r->place,
		.error = r->code != GRPC_OK ? (char *)r->error : NULL,
	};

	memcpy(o.message_id, r->message_id, sizeof(o.message_id));
	return o;
}

void outcome_keep(struct outcome *o, const struct publish_result *r)
{
	*o = outcome_of(r);
	if (o->error)
		o->error = xstrdup(o->error);
}

void answer_response(struct answer *a, const char *message_id,
		     const struct store_place *place, uint32_t nodes)
{
	stentor__v1__publish_response__init(&a->response);
	a->response.message_id = (char *)message_id;
	a->response.nodes = nodes;
	if (place->epoch == 0)
		return;
	stentor__v1__position__init(&a->position);
	a->position.epoch = place->epoch;
	a->position.offset = place->offset;
	a->response.position = &a->position;
}

void answer_result(struct answer *a, const struct outcome *o)
{
	stentor__v1__publish_result__init(&a->result);
	if (o->code != GRPC_OK) {
		a->result.code = o->code;
		a->result.error = o->error;
		return;
	}
	answer_response(a, o->message_id, &o->place, o->nodes);
	a->result.response = &a->response;
}

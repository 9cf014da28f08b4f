/* outcome.h - what came of a message, as PublisherService answers it
 * (private to this room). */
#ifndef STENTOR_DISPATCHER_SERVICE_OUTCOME_H
#define STENTOR_DISPATCHER_SERVICE_OUTCOME_H

#include "dispatcher/publish/publish.h"

/* What is kept of a publish_result until it is its turn. */
struct outcome {
	enum grpc_code code;
	uint32_t nodes;
	struct store_place place;
	char message_id[PUBLISH_ID_SIZE];
	char *error; /* NULL: none; owned */
};

/* Borrows the result's text: to be answered now. */
struct outcome outcome_of(const struct publish_result *r);
void outcome_keep(struct outcome *o, const struct publish_result *r);

/* One message's answer; borrows the texts of its outcome. */
struct answer {
	Stentor__V1__Position position;
	Stentor__V1__PublishResponse response;
	Stentor__V1__PublishResult result;
};

void answer_response(struct answer *a, const char *message_id,
		     const struct store_place *place, uint32_t nodes);
void answer_result(struct answer *a, const struct outcome *o);

#endif

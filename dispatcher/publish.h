/* publish.h - the way of a message into the cluster (pure).
 *
 * Validates, finds the channel's rule, encodes the delivery once, looks up the
 * interested workers and puts a reference on each of their queues. The answer
 * is known when it returns. What is refused has left no trace but a counter.
 */
#ifndef STENTOR_DISPATCHER_PUBLISH_H
#define STENTOR_DISPATCHER_PUBLISH_H

#include "common/base/config.h"
#include "common/codec/grpc.h"
#include "dispatcher/nodes.h"
#include "stentor/v1/publisher.pb-c.h"

#include <stdbool.h>
#include <stdint.h>

/* Upper bounds of fanout_workers: 0, 1, 2, 4 ... 4096. */
#define PUBLISH_FANOUT_BUCKETS 14
#define PUBLISH_ID_SIZE	       40
#define PUBLISH_ERROR_SIZE     160
#define PUBLISH_BATCH_MAX      10000 /* messages of one PublishBatch */

struct publisher {
	struct nodes *nodes;
	const struct rules *rules; /* may be exchanged on reload */
	uint64_t data_max;	   /* bytes of PublishRequest.data */
	uint64_t instance;	   /* first part of message ids */
	uint64_t accepted;	   /* second part: 1, 2, 3 ... */
	/* Not before the workers have had time to report: a message accepted
	 * by a dispatcher that knows no workers would reach nobody. */
	bool open;

	uint64_t total[PRIORITY_CLASSES][GRPC_CODES];
	uint64_t routed; /* deliveries put on links */
	uint64_t fanout[PUBLISH_FANOUT_BUCKETS + 1];
	uint64_t fanout_sum;
};

struct publish_result {
	enum grpc_code code;
	char error[PUBLISH_ERROR_SIZE]; /* "" on success */
	char message_id[PUBLISH_ID_SIZE];
	uint32_t nodes; /* connection nodes it was routed to */
};

void publisher_init(struct publisher *p, struct nodes *nodes,
		    const struct rules *rules, uint64_t data_max);

/* `now_us` is the wall clock, microseconds since 1970. */
void publish_message(struct publisher *p,
		     const Stentor__V1__PublishRequest *request,
		     uint64_t now_us, struct publish_result *result);

#endif
